"""Uploads that may be taken up again, in the embedded store: cut off, or waiting under a temporary name.

A partial belongs to one office and one path below ``send/``.  Its chunks are a staged payload; what is added here is
the key that opens them, how long it is without a gap, and who may go on writing: whoever takes a partial over draws
a new *holder*, and the handle that held it before can neither add to it nor commit it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from relay.errors import finding
from relay.ledger.intake import IntakeVerbs, insert_payload, put_chunks
from relay.ledger.records import Partial, SealedChunk
from relay.ledger.rows import Row, to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import append_event, transfer_sql
from relay.model import RELAY_ACTOR, EventKind, OfficeNumber, PayloadId, PayloadUid
from relay.temporary import strip_temporary

# One expiry a transaction; an office leaves a handful a day.
_EXPIRED_MOST = 64


class PartialVerbs(IntakeVerbs):
    """The verbs of `relay.ledger.Ledger` that keep unfinished uploads."""

    async def save_partial(self, partial: Partial, chunks: Sequence[SealedChunk], *, now: datetime) -> Partial:
        path_key = self._path_key(partial.office, partial.path)
        note = json.dumps([partial.path, partial.folder], ensure_ascii=False)
        vault = self._store.vault

        def work(connection: sqlite3.Connection) -> Partial:
            payload = partial.payload
            if payload is None:
                payload = insert_payload(connection, (partial.uid, partial.office, None, None, 0, 0, to_cell(now)))
                connection.execute(SQL["set_holder"], (partial.holder, payload))
            elif connection.execute(SQL["touch_held"], (to_cell(now), payload, partial.holder)).rowcount != 1:
                raise LookupError(payload)
            put_chunks(connection, payload, chunks)
            connection.execute(SQL["set_stored"], (partial.size_bytes, payload))
            mtime = None if partial.client_mtime is None else to_cell(partial.client_mtime)
            master_id = self._store.use_current_master(connection, now)
            # The key may have been wrapped before a rotation, by the session that wrote here last.
            wrapped = vault.rewrap_key(partial.wrapped_key, partial.uid, size_bytes=0, chunk_count=0)
            connection.execute(
                SQL["put_partial"],
                (path_key, partial.office, partial.folder or "", payload, wrapped, vault.seal_note(note),
                 partial.size_bytes, partial.is_closed, partial.looks_whole, mtime, to_cell(now), master_id),
            )  # fmt: skip
            return replace(partial, payload=payload, wrapped_key=wrapped)

        return await self._store.change(work)

    async def find_partial(self, office: OfficeNumber, path: str) -> Partial | None:
        row = self._store.row(transfer_sql("find_partial"), (self._path_key(office, path),))
        return None if row is None else self._read(row)

    async def list_partials(self, office: OfficeNumber, folder: OfficeNumber | None) -> list[Partial]:
        return [self._read(row) for row in self._store.rows(transfer_sql("list_partials"), (office, folder or ""))]

    async def count_partials(self, office: OfficeNumber) -> int:
        row = self._store.row(SQL["count_partials"], (office,))
        return 0 if row is None else int(row[0])

    async def take_over(self, office: OfficeNumber, path: str, holder: bytes, *, now: datetime) -> Partial | None:
        path_key = self._path_key(office, path)

        def work(connection: sqlite3.Connection) -> Row | None:
            row: Row | None = connection.execute(transfer_sql("find_partial"), (path_key,)).fetchone()
            if row is None or connection.execute(SQL["take_over"], (holder, to_cell(now), row[3])).rowcount != 1:
                return None
            row = connection.execute(transfer_sql("find_partial"), (path_key,)).fetchone()
            return row  # noqa: RET504 - it is fetched as Any

        row = await self._store.change(work)
        return None if row is None else self._read(row)

    async def amend_partial(
        self, office: OfficeNumber, path: str, *, size_bytes: int | None = None, client_mtime: datetime | None = None
    ) -> None:
        cells = (self._path_key(office, path), size_bytes, None if client_mtime is None else to_cell(client_mtime))
        await self._store.change(lambda connection: connection.execute(SQL["amend_partial"], cells), is_durable=False)

    async def drop_partial(self, office: OfficeNumber, path: str) -> bool:
        path_key = self._path_key(office, path)

        def work(connection: sqlite3.Connection) -> bool:
            return connection.execute(SQL["delete_partial"], (path_key,)).rowcount == 1

        # The chunks are a staged payload that nothing names any more: housekeeping removes them.
        return await self._store.change(work, is_durable=False)

    async def expire_partials(self, *, before: datetime, now: datetime) -> int:
        count = 0
        while rows := self._store.rows(transfer_sql("list_expired"), (to_cell(before), _EXPIRED_MOST)):
            for row in rows:
                count += await self._expire(self._read(row), before, now)
        return count

    async def _expire(self, partial: Partial, before: datetime, now: datetime) -> bool:
        """Remove *partial* and leave a row in ``status/refused``: the sender's program may have said success."""
        told = finding("upload.unfinished")
        last = partial.path.rpartition("/")[2]
        name = strip_temporary(last) or last
        refusal = self._refusal_cells(partial.office, name, told, now, folder=partial.folder)
        path_key = self._path_key(partial.office, partial.path)

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL["delete_expired"], (path_key, to_cell(before))).rowcount != 1:
                return False
            self._put_refusal(connection, refusal, now)
            append_event(
                connection, EventKind.UPLOAD_EXPIRED, now, actor=RELAY_ACTOR, office=partial.office, detail=told.code
            )
            return True

        # The chunks are a staged payload that nothing names any more: `remove_abandoned` comes next.
        return await self._store.change(work)

    def _read(self, row: Row) -> Partial:
        (office, note, size, payload, uid, holder, wrapped, is_closed, looks_whole, mtime, touched) = row
        path, folder = json.loads(self._store.vault.open_note(note))
        return Partial(
            office=OfficeNumber(office),
            path=path,
            folder=None if folder is None else OfficeNumber(folder),
            payload=PayloadId(payload),
            uid=PayloadUid(uid),
            holder=holder,
            wrapped_key=wrapped,
            size_bytes=size,
            is_closed=bool(is_closed),
            looks_whole=bool(looks_whole),
            client_mtime=None if mtime is None else to_time(mtime),
            touched_at=to_time(touched),
        )
