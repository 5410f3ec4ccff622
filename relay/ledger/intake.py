"""Uploads in the embedded store: chunks in progress, the commit of a transfer, refusals."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

from relay.errors import Deferred, Finding, Refused
from relay.ledger import Accepted, SealedChunk, SealedPayload, TransferDraft
from relay.ledger.rows import findings_cell, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event, transfer_sql
from relay.lifecycle import LIVE, State
from relay.model import (
    EventKind,
    OfficeNumber,
    OfficeStatus,
    PayloadId,
    PayloadUid,
    Refusal,
    Transfer,
    TransferId,
    fold_name,
)

# Chunks of one payload lie under consecutive ids; a million of 255 KiB are more than any limit allows.
CHUNKS_MOST = 1 << 20
# The standard's serials are Japan time (standard, section 3); so is the time in front of a free name.
_JAPAN = timezone(timedelta(hours=9))


class IntakeVerbs:
    """The verbs of `relay.ledger.Ledger` that intake uses."""

    _store: Store

    async def stage_chunks(
        self,
        staged: PayloadId | None,
        uid: PayloadUid,
        office: OfficeNumber,
        chunks: Sequence[SealedChunk],
        *,
        now: datetime,
    ) -> PayloadId:
        def work(connection: sqlite3.Connection) -> PayloadId:
            payload = staged
            if payload is None:
                payload = _insert_payload(connection, (uid, office, None, None, 0, 0, to_cell(now)))
            elif connection.execute(SQL["touch_payload"], (to_cell(now), payload, uid)).rowcount != 1:
                raise LookupError(payload)
            _put_chunks(connection, payload, chunks)
            return payload

        return await self._store.change(work, is_durable=False)

    async def read_staged(self, staged: PayloadId, number: int) -> bytes:
        row = await self._store.row_in_thread(SQL["read_chunk"], (staged * CHUNKS_MOST + number,))
        if row is None:
            raise LookupError(number)
        return bytes(row[0])

    async def discard_staged(self, staged: PayloadId) -> None:
        try:
            await self._store.change(lambda connection: _drop_staged(connection, staged), is_durable=False)
        except Deferred:
            return  # what stays behind is removed as abandoned

    async def remove_abandoned(self, *, before: datetime) -> int:
        removed = 0
        # One upload a transaction: deleting a large one takes a while, and nobody may wait behind many.
        for (staged,) in self._store.rows(SQL["list_abandoned"], (to_cell(before),)):
            await self._store.change(lambda connection, it=staged: _drop_staged(connection, it), is_durable=False)  # type: ignore[misc]
            removed += 1
        return removed

    async def commit_transfer(self, draft: TransferDraft, *, now: datetime) -> Accepted:
        route = draft.route
        identity_key = self._identity_key(route.sender, route.recipient, route.address.name)

        def work(connection: sqlite3.Connection) -> Accepted:
            _check_standing(connection, draft)
            standing = self._decide_repeat(connection, draft, identity_key)
            if standing is not None:
                if draft.payload.staged is not None:
                    _drop_staged(connection, draft.payload.staged)
                return Accepted(standing, is_repeat=True)
            return Accepted(self._insert(connection, draft, identity_key, now), is_repeat=False)

        return await self._store.change(work)

    async def set_sent_mtime(self, transfer: TransferId, mtime: datetime) -> None:
        await self._store.change(
            lambda connection: connection.execute(SQL["set_sent_mtime"], (to_cell(mtime), transfer)), is_durable=False
        )

    async def record_refusal(
        self, office: OfficeNumber, name: str, finding: Finding, *, sha256: bytes | None = None, now: datetime
    ) -> int:
        key = self._refusal_key(office, name, finding.code, sha256)
        note = self._store.vault.seal_note(json.dumps([name, dict(finding.facts)], ensure_ascii=False))

        def work(connection: sqlite3.Connection) -> int:
            at = to_cell(now)
            rows = connection.execute(SQL["put_refusal"], (office, key, finding.code, note, at, at)).fetchall()
            return int(rows[0][0])

        return await self._store.change(work)

    async def was_refused(self, office: OfficeNumber, name: str, code: str, sha256: bytes) -> bool:
        return self._store.row(SQL["was_refused"], (self._refusal_key(office, name, code, sha256),)) is not None

    async def list_refusals(self, office: OfficeNumber, *, since: datetime, limit: int | None = None) -> list[Refusal]:
        rows = self._store.rows(SQL["list_refusals"], (office, to_cell(since), -1 if limit is None else limit))
        return [self._store.names.refusal(office, row) for row in rows]

    def _refusal_key(self, office: OfficeNumber, name: str, code: str, sha256: bytes | None) -> bytes:
        return self._store.vault.index("refusal", office, fold_name(name), code, (sha256 or b"").hex())

    def _identity_key(self, sender: OfficeNumber, recipient: OfficeNumber, name: str) -> bytes:
        return self._store.vault.index("identity", sender, recipient, fold_name(name))

    def _delivered_key(self, recipient: OfficeNumber, name: str) -> bytes:
        return self._store.vault.index("delivered", recipient, fold_name(name))

    def _decide_repeat(
        self, connection: sqlite3.Connection, draft: TransferDraft, identity_key: bytes
    ) -> Transfer | None:
        """Return the live transfer that *draft* repeats, None where it is a new one; Refused where it conflicts."""
        row = connection.execute(transfer_sql("find_by_identity"), (identity_key,)).fetchone()
        if row is None:
            return None
        earlier = self._store.names.transfer(row)
        if earlier.state in LIVE:
            if (earlier.sha256, earlier.size_bytes) == (draft.payload.sha256, draft.payload.size_bytes):
                return earlier
            if not (draft.route.address.is_free and earlier.state is State.COLLECTED):
                raise Refused("transfer.conflict", at=local_text(earlier.accepted_at))
            connection.execute(SQL["release_identity"], (earlier.id,))
        elif earlier.state is State.DESTROYED and not draft.route.address.is_free:
            raise Refused("transfer.already_collected", at=local_text(earlier.collected_at or earlier.accepted_at))
        return None

    def _insert(
        self, connection: sqlite3.Connection, draft: TransferDraft, identity_key: bytes, now: datetime
    ) -> Transfer:
        route, address, payload, at = draft.route, draft.route.address, draft.payload, to_cell(now)
        prefix, delivered_key = self._choose_delivered(connection, draft, now)
        stored = _complete_payload(connection, payload, route.sender, self._store.vault.master_id, at)
        cursor = connection.execute(
            SQL["insert_transfer"],
            (route.sender, route.recipient, address.grammar.value, address.kind, address.serial or "", address.month or "",
             draft.in_folder, None if payload.name_sealed else address.name, payload.name_sealed, prefix, payload.size_bytes,
             payload.sha256, stored, None if draft.client_mtime is None else to_cell(draft.client_mtime),
             draft.identity.ca_fingerprint, draft.identity.certificate_serial, findings_cell(draft.findings), at,
             identity_key, delivered_key),
        )  # fmt: skip
        assert cursor.lastrowid is not None
        number = TransferId(cursor.lastrowid)
        if draft.in_folder:
            connection.execute(SQL["put_folder"], (route.sender, route.recipient))
        append_event(connection, EventKind.ACCEPTED, now, actor=route.sender, office=route.recipient, transfer=number)
        return Transfer(
            id=number,
            sender=route.sender,
            recipient=route.recipient,
            name=address.name,
            delivered_name=prefix + address.name,
            grammar=address.grammar,
            kind=address.kind,
            serial=address.serial,
            month=address.month,
            in_folder=draft.in_folder,
            state=State.ACCEPTED,
            is_removed=False,
            size_bytes=payload.size_bytes,
            sha256=payload.sha256,
            accepted_at=now,
            client_mtime=draft.client_mtime,
            findings=draft.findings,
        )

    def _choose_delivered(
        self, connection: sqlite3.Connection, draft: TransferDraft, now: datetime
    ) -> tuple[str, bytes]:
        """Return what stands in front of the delivered name, and its key; a free name gets sender and time."""
        route, name = draft.route, draft.route.address.name
        if not route.address.is_free:
            return "", self._delivered_key(route.recipient, name)
        moment = now
        while True:
            prefix = f"{route.sender}_{moment.astimezone(_JAPAN):%Y%m%d%H%M%S}_"
            key = self._delivered_key(route.recipient, prefix + name)
            if connection.execute(SQL["delivered_is_taken"], (key,)).fetchone() is None:
                return prefix, key
            moment += timedelta(seconds=1)


def local_text(moment: datetime) -> str:
    """Return *moment* as a sentence to an office has it: Japan time, to the minute."""
    return f"{moment.astimezone(_JAPAN):%Y-%m-%d %H:%M} JST" if moment.tzinfo else f"{moment.replace(tzinfo=UTC)}"


def _check_standing(connection: sqlite3.Connection, draft: TransferDraft) -> None:
    """Refuse what was allowed at OPEN and is not any more: a suspension or a revocation in between."""
    route = draft.route
    sender, recipient, is_valid = connection.execute(
        SQL["standing"],
        {
            "sender": route.sender,
            "recipient": route.recipient,
            "ca": draft.identity.ca_fingerprint,
            "serial": draft.identity.certificate_serial,
        },
    ).fetchone()
    if not is_valid:
        raise Refused("office.revoked")
    if sender != OfficeStatus.ACTIVE:
        raise Refused("office.suspended", office=route.sender)
    if recipient is None:
        raise Refused("route.recipient_unknown", office=route.recipient)
    if recipient != OfficeStatus.ACTIVE:
        raise Refused("route.recipient_suspended", office=route.recipient)


def _insert_payload(connection: sqlite3.Connection, cells: tuple[object, ...]) -> PayloadId:
    number = connection.execute(SQL["insert_payload"], cells).lastrowid
    assert number is not None
    return PayloadId(number)


def _complete_payload(
    connection: sqlite3.Connection, payload: SealedPayload, office: OfficeNumber, master_id: str, at: int
) -> PayloadId:
    """Make the payload whole: its last chunks, its length and the key that binds them."""
    if payload.staged is None:
        stored = _insert_payload(
            connection,
            (payload.uid, office, payload.wrapped_key, master_id, payload.size_bytes, payload.chunk_count, at),
        )
    else:
        stored = payload.staged
        cells = (payload.wrapped_key, master_id, payload.size_bytes, payload.chunk_count, at, stored, payload.uid)
        if connection.execute(SQL["complete_payload"], cells).rowcount != 1:
            raise sqlite3.DatabaseError(f"staged payload {stored} is gone")
    _put_chunks(connection, stored, payload.chunks)
    first = stored * CHUNKS_MOST
    if payload.staged is not None:
        # An upload that was shortened may have left chunks behind its end.
        connection.execute(SQL["delete_chunks"], (first + payload.chunk_count, first + CHUNKS_MOST - 1))
        count = connection.execute(SQL["count_chunks"], (first, first + CHUNKS_MOST - 1)).fetchone()[0]
        if count != payload.chunk_count:
            raise sqlite3.DatabaseError(f"payload {stored} has {count} chunks, not {payload.chunk_count}")
    return stored


def _put_chunks(connection: sqlite3.Connection, payload: PayloadId, chunks: Sequence[SealedChunk]) -> None:
    for chunk in chunks:
        connection.execute(SQL["put_chunk"], (payload * CHUNKS_MOST + chunk.number, chunk.sealed))


def _drop_staged(connection: sqlite3.Connection, staged: PayloadId) -> None:
    if connection.execute(SQL["delete_staged_payload"], (staged,)).rowcount == 1:
        first = staged * CHUNKS_MOST
        connection.execute(SQL["delete_chunks"], (first, first + CHUNKS_MOST - 1))
