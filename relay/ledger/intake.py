"""Uploads in the embedded store: chunks in progress, and the commit of a transfer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from relay.config import describe_size
from relay.errors import Deferred, Refused
from relay.ledger.endings import CHUNKS_MOST, SLICE_CHUNKS, chunk_ids, destroy_bytes, end_transfer
from relay.ledger.lineage import former_in, successor_in
from relay.ledger.records import Accepted, Prospect, SealedChunk, SealedPayload, TransferDraft
from relay.ledger.refusals import RefusalVerbs, join_path
from relay.ledger.rows import findings_cell, office_of, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import append_event, transfer_sql
from relay.ledger.words import JAPAN, local_text
from relay.letters import Rhythm
from relay.lifecycle import LIVE, State, Step, advance
from relay.model import (
    Address,
    EventKind,
    OfficeNumber,
    OfficeStatus,
    PayloadId,
    PayloadUid,
    Transfer,
    TransferId,
    fold_name,
)
from relay.routing import check_recipient, check_sender
from relay.vault import SEAL_BYTES

_ANY_TIME = (1 << 63) - 1
# Those that ``survey_upload`` has of each office, as ``find_office`` has them.
_OFFICE_COLUMNS = 9


@dataclass(frozen=True, slots=True)
class _Delivered:
    """What stands in front of the delivered name, its key, and the transfer that has to make room for it."""

    prefix: str
    key: bytes
    displaced: TransferId | None = None


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keyed digests under which a transfer can be found."""

    identity: bytes
    delivered: _Delivered
    staged_from: bytes | None


class IntakeVerbs(RefusalVerbs):
    """The verbs of `relay.ledger.Ledger` that intake uses."""

    # When recipients are told by mail; None where they are not.
    _mail: Rhythm | None

    async def stage_chunks(
        self,
        staged: PayloadId | None,
        uid: PayloadUid,
        office: OfficeNumber,
        chunks: Sequence[SealedChunk],
        *,
        holder: bytes | None = None,
        now: datetime,
    ) -> PayloadId:
        def work(connection: sqlite3.Connection) -> PayloadId:
            payload = staged
            if payload is None:
                payload = insert_payload(connection, (uid, office, None, None, 0, 0, to_cell(now)))
                if holder is not None:
                    connection.execute(SQL["set_holder"], (holder, payload))
            elif connection.execute(SQL["touch_payload"], (to_cell(now), payload, uid, holder)).rowcount != 1:
                raise LookupError(payload)
            added = sum(len(chunk.sealed) - SEAL_BYTES for chunk in chunks)
            added -= 0 if staged is None else _replaced_bytes(connection, payload, chunks)
            put_chunks(connection, payload, chunks)
            connection.execute(SQL["add_stored"], (added, payload))
            return payload

        return await self._store.change(work, is_durable=False, size_bytes=sum(len(chunk.sealed) for chunk in chunks))

    async def read_staged(self, staged: PayloadId, number: int) -> bytes:
        row = await self._store.row_in_thread(SQL["read_chunk"], (staged * CHUNKS_MOST + number,))
        if row is None:
            raise LookupError(number)
        return bytes(row[0])

    async def discard_staged(self, staged: PayloadId, *, holder: bytes | None = None) -> None:
        try:
            await self._remove_staged(staged, _ANY_TIME, holder)
        except Deferred:
            return  # what stays behind is removed as abandoned

    async def remove_abandoned(self, *, before: datetime) -> int:
        removed = 0
        while rows := self._store.rows(SQL["list_abandoned"], (to_cell(before),)):
            for (staged,) in rows:
                removed += await self._remove_staged(PayloadId(staged), to_cell(before))
        return removed

    async def _remove_staged(self, staged: PayloadId, before: int, holder: bytes | None = None) -> bool:
        """Remove an upload that nothing was added to since *before*; False where there is none such.

        A slice at a time, because removing 2 GiB takes seconds.  With the first one the upload is given up and takes
        no more chunks; after a crash in between `remove_abandoned` finds what is left.
        """
        while True:
            is_removed = await self._store.change(
                lambda connection: _remove_slice(connection, staged, before, holder), is_durable=False
            )
            if is_removed is not None:
                return is_removed

    async def _trim_staged(self, payload: SealedPayload) -> None:
        """Remove what an upload that was shortened left behind its end."""
        if payload.staged is None:
            return
        first, last = chunk_ids(payload.staged)
        cells = (first + payload.chunk_count, last, SLICE_CHUNKS)
        while self._store.row(SQL["list_chunks"] + " LIMIT 1", cells[:2]) is not None:
            await self._store.change(
                lambda connection: connection.execute(SQL["delete_chunks"], cells).rowcount, is_durable=False
            )

    async def commit_transfer(self, draft: TransferDraft, *, now: datetime) -> Accepted:
        route = draft.route
        identity_key = self._identity_key(route.sender, route.recipient, route.address.name)
        staged_from = None if draft.path is None else self._path_key(route.sender, draft.path)
        noted = [
            self._path_key(route.sender, join_path(folder, route.address.name)) for folder in (None, route.recipient)
        ]

        def work(connection: sqlite3.Connection, draft: TransferDraft = draft) -> Accepted:
            # Everything that may refuse comes before everything that changes (see `Writer.submit`).
            _check_standing(connection, draft, now)
            earlier = self._find_earlier(connection, draft, identity_key)
            if earlier is None or earlier.state not in LIVE or earlier.id != draft.completes:
                draft = draft if draft.completes is None else replace(draft, completes=None)
            if earlier is not None and earlier.state in LIVE and _is_same_content(earlier, draft):
                _forget_partial(connection, staged_from)
                connection.execute(SQL["clear_notes"], noted)
                if draft.is_renamed:
                    connection.execute(SQL["note_renamed"], (staged_from, earlier.id))
                return Accepted(earlier, is_repeat=True)
            _check_quota(connection, draft)
            delivered = self._choose_delivered(connection, draft, identity_key, now)
            _check_whole(connection, draft.payload)
            if earlier is not None and earlier.state in LIVE:
                left.extend(self._make_room(connection, earlier, draft, now))
            if delivered.displaced is not None:
                connection.execute(SQL["withdraw_transfer"], (delivered.displaced,))
            _forget_partial(connection, staged_from)
            connection.execute(SQL["clear_notes"], noted)
            keys = _Keys(identity_key, delivered, staged_from if draft.is_renamed else None)
            return Accepted(self._insert(connection, draft, keys, now), is_repeat=False)

        left: list[PayloadId] = []
        await self._trim_staged(draft.payload)
        accepted = await self._store.change(work, office=route.sender)
        for payload in left:
            await destroy_bytes(self._store, payload)
        if accepted.is_repeat and draft.payload.staged is not None:
            await self.discard_staged(draft.payload.staged, holder=draft.payload.holder)
        return accepted

    async def survey_upload(self, sender: OfficeNumber, path: str, address: Address | None) -> Prospect:
        recipient = None if address is None else address.recipient
        identity_key = None if address is None else self._identity_key(sender, address.recipient, address.name)
        row = self._store.row(SQL["survey_upload"], (sender, recipient, identity_key, self._path_key(sender, path)))
        assert row is not None
        offices = (row[:_OFFICE_COLUMNS], row[_OFFICE_COLUMNS : 2 * _OFFICE_COLUMNS])
        one, other = (None if cells[0] is None else office_of(cells) for cells in offices)
        stored_bytes, has_sent, has_partial = row[2 * _OFFICE_COLUMNS :]
        return Prospect(one, other, stored_bytes, bool(has_sent), bool(has_partial))

    async def stored_bytes(self, office: OfficeNumber) -> int:
        row = self._store.row(SQL["stored_bytes"], (office,))
        return 0 if row is None else int(row[0])

    async def set_sent_mtime(self, transfer: TransferId, mtime: datetime) -> None:
        await self._store.change(
            lambda connection: connection.execute(SQL["set_sent_mtime"], (to_cell(mtime), transfer)), is_durable=False
        )

    def _identity_key(self, sender: OfficeNumber, recipient: OfficeNumber, name: str) -> bytes:
        return self._store.vault.index("identity", sender, recipient, fold_name(name))

    async def was_renamed_from(self, transfer: TransferId, office: OfficeNumber, path: str) -> bool:
        return self._store.row(SQL["find_staged_from"], (transfer, self._path_key(office, path))) is not None

    def _delivered_key(self, recipient: OfficeNumber, name: str) -> bytes:
        return self._store.vault.index("delivered", recipient, fold_name(name))

    def _find_earlier(
        self, connection: sqlite3.Connection, draft: TransferDraft, identity_key: bytes
    ) -> Transfer | None:
        """Return the newest transfer of that identity; Refused where *draft* may be neither its repeat nor its successor."""
        row = connection.execute(transfer_sql("find_by_identity"), (identity_key,)).fetchone()
        if row is None:
            return None
        earlier, is_free = self._store.names.transfer(row), draft.route.address.is_free
        if earlier.state in LIVE and not _is_same_content(earlier, draft):
            completes = draft.completes == earlier.id and earlier.size_bytes < draft.payload.size_bytes
            if not completes and not (is_free and earlier.state is State.COLLECTED):
                raise Refused("transfer.conflict", at=local_text(earlier.accepted_at))
        elif earlier.state is State.DESTROYED and not is_free:
            raise Refused("transfer.already_collected", at=local_text(earlier.collected_at or earlier.accepted_at))
        return earlier

    def _make_room(
        self, connection: sqlite3.Connection, earlier: Transfer, draft: TransferDraft, now: datetime
    ) -> Sequence[PayloadId]:
        """Free the name that a live transfer holds for *draft*; returns payloads whose bytes are not all removed yet."""
        if earlier.state is State.ACCEPTED:
            left = end_transfer(connection, earlier, advance(earlier.state, Step.SUPERSEDE), now)
            append_event(
                connection, EventKind.SUPERSEDED, now, actor=earlier.sender, office=earlier.recipient,
                transfer=earlier.id,
            )  # fmt: skip
            return () if left is None else (left,)
        connection.execute(SQL["release_identity"], (earlier.id,))
        if draft.completes == earlier.id and not draft.route.address.is_free:
            aside = self._find_delivered_name(connection, earlier.sender, earlier.recipient, earlier.name,
                                              earlier.accepted_at, frozenset())  # fmt: skip
            connection.execute(SQL["set_aside"], (aside.prefix, aside.key, earlier.id))
        return ()

    def _insert(
        self,
        connection: sqlite3.Connection,
        draft: TransferDraft,
        keys: _Keys,
        now: datetime,
    ) -> Transfer:
        route, address, payload, at = draft.route, draft.route.address, draft.payload, to_cell(now)
        delivered = keys.delivered
        payload = self._under_current_master(connection, payload, now)
        stored = _complete_payload(connection, payload, route.sender, at)
        cursor = connection.execute(
            SQL["insert_transfer"],
            (route.sender, route.recipient, address.grammar.value, address.kind, address.serial or "", address.month or "",
             draft.in_folder, None if payload.name_sealed else address.name, payload.name_sealed, delivered.prefix, payload.size_bytes,
             payload.sha256, stored, None if draft.client_mtime is None else to_cell(draft.client_mtime),
             draft.identity.ca_fingerprint, draft.identity.certificate_serial, findings_cell(draft.findings), at,
             keys.identity, delivered.key, keys.staged_from),
        )  # fmt: skip
        assert cursor.lastrowid is not None
        number = TransferId(cursor.lastrowid)
        if draft.part is not None:
            part = draft.part
            connection.execute(
                SQL["insert_unit_part"],
                (number, part.sender_service, part.recipient_service, part.keys, part.persons, part.is_partial,
                 part.persons_sealed, part.line_sealed),
            )  # fmt: skip
        if draft.completes is not None:
            connection.execute(SQL["set_completes"], (draft.completes, number))
        if draft.in_folder:
            connection.execute(SQL["put_folder"], (route.sender, route.recipient))
        append_event(
            connection, EventKind.ACCEPTED, now, actor=route.sender, office=route.recipient, transfer=number,
            detail="" if draft.completes is None else f"completes {draft.completes}",
        )  # fmt: skip
        if self._mail is not None:
            due = to_cell(self._mail.due_per_arrival(now)), to_cell(self._mail.due_per_day(now))
            self._queue_mail(connection, route.recipient, route.sender, due)
        return Transfer(
            id=number,
            sender=route.sender,
            recipient=route.recipient,
            name=address.name,
            delivered_name=delivered.prefix + address.name,
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
            completes=draft.completes,
        )

    def _queue_mail(
        self, connection: sqlite3.Connection, recipient: OfficeNumber, sender: OfficeNumber, due: tuple[int, int]
    ) -> None:
        """Let a mail tell of one more file; to the new number's address, where the old number has none any more."""
        number: OfficeNumber | None = recipient
        while number is not None and connection.execute(SQL["queue_mail"], (number, sender, *due)).rowcount < 1:
            row = connection.execute(SQL["successor_of"], (number,)).fetchone()
            number = None if row is None else OfficeNumber(row[0])

    def _under_current_master(
        self, connection: sqlite3.Connection, payload: SealedPayload, now: datetime
    ) -> SealedPayload:
        """Return *payload* as it is, or its key wrapped again where the master key was rotated since it was sealed."""
        master_id = self._store.use_current_master(connection, now)
        if payload.master_id == master_id:
            return payload
        wrapped = self._store.vault.rewrap_key(
            payload.wrapped_key, payload.uid, size_bytes=payload.size_bytes, chunk_count=payload.chunk_count
        )
        return replace(payload, wrapped_key=wrapped, master_id=master_id)

    def _choose_delivered(
        self, connection: sqlite3.Connection, draft: TransferDraft, identity_key: bytes, now: datetime
    ) -> _Delivered:
        """Decide what the recipient sees: the name as it is, or behind sender and time where it is free."""
        route, name = draft.route, draft.route.address.name
        own = frozenset() if draft.completes is None else frozenset({draft.completes})
        if route.address.is_free:
            return self._find_delivered_name(connection, route.sender, route.recipient, name, now, own)
        key = self._delivered_key(route.recipient, name)
        holder = connection.execute(SQL["find_delivered_holder"], (key,)).fetchone()
        if holder is None or holder[0] in own:
            return _Delivered("", key)
        number, holders_identity, released = holder
        if released and holders_identity == identity_key:
            # The same name, sent again after its recipient had thrown it away unread.
            return _Delivered("", key, TransferId(number))
        raise Refused("transfer.conflict", at=local_text(now), detail=f"transfer {number} is delivered under that name")

    def _find_delivered_name(
        self,
        connection: sqlite3.Connection,
        sender: OfficeNumber,
        recipient: OfficeNumber,
        name: str,
        moment: datetime,
        own: frozenset[TransferId],
    ) -> _Delivered:
        """Put sender and time in front of *name*, a later second where *recipient* sees another file of that one."""
        # One directory shows what was sent to all numbers of an office.
        numbers = (recipient, *former_in(connection, recipient))
        while True:
            prefix = f"{sender}_{moment.astimezone(JAPAN):%Y%m%d%H%M%S}_"
            keys = [self._delivered_key(number, prefix + name) for number in numbers]
            holders = [connection.execute(SQL["find_delivered_holder"], (key,)).fetchone() for key in keys]
            if all(holder is None or holder[0] in own for holder in holders):
                return _Delivered(prefix, keys[0])
            moment += timedelta(seconds=1)


def _check_standing(connection: sqlite3.Connection, draft: TransferDraft, now: datetime) -> None:
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
    if sender == recipient == OfficeStatus.ACTIVE:
        return
    # Rare: read again for the words, and for numbers that were changed and go on for a while.
    found = [connection.execute(SQL["find_office"], (number,)).fetchone() for number in (route.sender, route.recipient)]
    one, other = (None if row is None else office_of(row) for row in found)
    if one is None:
        raise Refused("office.suspended", office=route.sender)
    check_sender(one, now)
    check_recipient(route.recipient, other, None if other is None else successor_in(connection, other), now)


def _check_quota(connection: sqlite3.Connection, draft: TransferDraft) -> None:
    """Refuse what does not fit beside what the sender's files take up; its own staged chunks are counted already."""
    if draft.quota_bytes is None:
        return
    row = connection.execute(SQL["stored_bytes"], (draft.route.sender,)).fetchone()
    used = 0 if row is None else row[0]
    if draft.payload.staged is not None:
        staged = connection.execute(SQL["stored_of"], (draft.payload.staged,)).fetchone()
        used -= 0 if staged is None else staged[0]
    if used + draft.payload.size_bytes > draft.quota_bytes:
        raise Refused("limit.quota", limit=describe_size(draft.quota_bytes))


def insert_payload(connection: sqlite3.Connection, cells: tuple[object, ...]) -> PayloadId:
    """Make the row that chunks belong to, in the running transaction."""
    number = connection.execute(SQL["insert_payload"], cells).lastrowid
    assert number is not None
    return PayloadId(number)


def _forget_partial(connection: sqlite3.Connection, path_key: bytes | None) -> None:
    if path_key is not None:
        connection.execute(SQL["delete_partial"], (path_key,))


def _is_same_content(earlier: Transfer, draft: TransferDraft) -> bool:
    return (earlier.sha256, earlier.size_bytes) == (draft.payload.sha256, draft.payload.size_bytes)


def _check_whole(connection: sqlite3.Connection, payload: SealedPayload) -> None:
    """ValueError where a chunk is missing or one too many; Refused where the staged upload is gone."""
    numbers = {chunk.number for chunk in payload.chunks}
    if payload.staged is not None:
        if connection.execute(SQL["is_staged"], (payload.staged, payload.uid, payload.holder)).fetchone() is None:
            raise Refused("upload.unfinished", detail=f"staged payload {payload.staged} is gone")
        first, last = chunk_ids(payload.staged)
        numbers.update(number - first for (number,) in connection.execute(SQL["list_chunks"], (first, last)))
    if numbers != set(range(payload.chunk_count)):
        raise ValueError(f"a payload of {payload.chunk_count} chunks has {len(numbers)}, or others")


def _complete_payload(
    connection: sqlite3.Connection, payload: SealedPayload, office: OfficeNumber, at: int
) -> PayloadId:
    """Make the payload whole: its last chunks, its length and the key that binds them."""
    sealed = (payload.wrapped_key, payload.master_id, payload.size_bytes, payload.chunk_count, at)
    if payload.staged is None:
        stored = insert_payload(connection, (payload.uid, office, *sealed))
    else:
        stored = payload.staged
        connection.execute(SQL["complete_payload"], (*sealed, stored))
    put_chunks(connection, stored, payload.chunks)
    return stored


def _replaced_bytes(connection: sqlite3.Connection, payload: PayloadId, chunks: Sequence[SealedChunk]) -> int:
    """Return how much of what is stored these chunks take the place of."""
    found = [
        connection.execute(SQL["chunk_length"], (payload * CHUNKS_MOST + chunk.number,)).fetchone() for chunk in chunks
    ]
    return sum(row[0] - SEAL_BYTES for row in found if row is not None)


def put_chunks(connection: sqlite3.Connection, payload: PayloadId, chunks: Sequence[SealedChunk]) -> None:
    """Keep chunks of *payload* in the running transaction, in the place of earlier ones of their numbers."""
    for chunk in chunks:
        connection.execute(SQL["put_chunk"], (payload * CHUNKS_MOST + chunk.number, chunk.sealed))


def _remove_slice(connection: sqlite3.Connection, staged: PayloadId, before: int, holder: bytes | None) -> bool | None:
    """Remove a part of a staged upload: True when it was the last, False where there is nothing to remove."""
    if connection.execute(SQL["give_up_payload"], (staged, before, holder)).rowcount != 1:
        return False
    # With the first slice, or somebody could go on with what is half removed.
    connection.execute(SQL["delete_partial_of"], (staged,))
    removed = connection.execute(SQL["delete_chunks"], (*chunk_ids(staged), SLICE_CHUNKS)).rowcount
    if removed == SLICE_CHUNKS:
        return None
    connection.execute(SQL["delete_staged_payload"], (staged,))
    return True
