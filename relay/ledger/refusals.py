"""What was refused at the door, in the embedded store, and the attempts that came to nothing.

One row for each name, code and, where it matters, content: the same refusal again is counted.  A row may have a note,
the file that lies beside the refused name in ``send/``; it goes when that name is accepted, or is removed, and is
shown for as long as its caller asks for.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import NamedTuple

from relay.errors import Finding
from relay.ledger.rows import to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event
from relay.model import EventKind, OfficeNumber, Refusal, fold_name

# Whoever is refused more than that within a week finds the rest in status/refused.
_NOTES_MOST = 500


class RefusalCells(NamedTuple):
    """The row of a refusal; its *note* is sealed in the transaction that keeps it, under the key then in use."""

    before: tuple[object, ...]
    note: str
    after: tuple[object, ...]


class RefusalVerbs:
    """The verbs of `relay.ledger.Ledger` that keep refusals."""

    _store: Store

    async def record_refusal(
        self,
        office: OfficeNumber,
        name: str,
        finding: Finding,
        *,
        folder: OfficeNumber | None = None,
        has_note: bool = False,
        sha256: bytes | None = None,
        now: datetime,
    ) -> int:
        cells = self._refusal_cells(office, name, finding, now, folder=folder, has_note=has_note, sha256=sha256)

        def work(connection: sqlite3.Connection) -> int:
            count = self._put_refusal(connection, cells, now)
            # A program that tries the same for ever must not fill the history: the 1st, 2nd, 4th, 8th … time is told.
            if count & (count - 1) == 0:
                detail = finding.code if count == 1 else f"{finding.code}, {count} times"
                append_event(connection, EventKind.REFUSED, now, actor=office, office=office, detail=detail)
            return count

        return await self._store.change(work)

    def _put_refusal(self, connection: sqlite3.Connection, cells: RefusalCells, now: datetime) -> int:
        """Keep or count a refusal in the running transaction; returns how often it came."""
        master_id = self._store.use_current_master(connection, now)
        sealed = self._store.vault.seal_note(cells.note)
        found = connection.execute(SQL["put_refusal"], (*cells.before, sealed, *cells.after, master_id)).fetchall()
        return int(found[0][0])

    def _refusal_cells(
        self,
        office: OfficeNumber,
        name: str,
        finding: Finding,
        now: datetime,
        *,
        folder: OfficeNumber | None = None,
        has_note: bool = False,
        sha256: bytes | None = None,
    ) -> RefusalCells:
        """Return what `_put_refusal` takes."""
        key = self._refusal_key(office, name, finding.code, sha256)
        note = json.dumps([name, dict(finding.facts)], ensure_ascii=False)
        path_key = self._path_key(office, join_path(folder, name))
        return RefusalCells((office, key, finding.code), note, (to_cell(now), folder or "", path_key, has_note))

    async def was_refused(self, office: OfficeNumber, name: str, code: str, sha256: bytes, *, before: datetime) -> bool:
        key = self._refusal_key(office, name, code, sha256)
        return self._store.row(SQL["was_refused"], (key, to_cell(before))) is not None

    async def list_refusals(
        self, office: OfficeNumber, *, since: datetime, until: datetime | None = None, limit: int | None = None
    ) -> list[Refusal]:
        end = None if until is None else to_cell(until)
        cells = (office, to_cell(since), end, -1 if limit is None else limit)

        def read() -> list[Refusal]:
            rows = self._store.rows_here(SQL["list_refusals"], cells)
            return [self._store.names.refusal(office, row) for row in rows]

        return await self._store.in_thread(read)

    async def find_refusal(self, office: OfficeNumber, number: int) -> Refusal | None:
        row = self._store.row(SQL["find_refusal"], (number, office))
        return None if row is None else self._store.names.refusal(office, row)

    async def list_notes(self, office: OfficeNumber, folder: OfficeNumber | None, *, since: datetime) -> list[Refusal]:
        rows = self._store.rows(SQL["list_notes"], (office, folder or "", to_cell(since), _NOTES_MOST))
        newest: dict[str, Refusal] = {}
        for row in rows:
            refusal = self._store.names.refusal(office, row)
            newest.setdefault(fold_name(refusal.name), refusal)
        return list(newest.values())

    async def find_note(self, office: OfficeNumber, path: str, *, since: datetime) -> Refusal | None:
        row = self._store.row(SQL["find_note"], (self._path_key(office, path), to_cell(since)))
        return None if row is None else self._store.names.refusal(office, row)

    async def remove_notes(self, office: OfficeNumber, path: str) -> bool:
        keys = (self._path_key(office, path),) * 2
        return await self._store.change(
            lambda connection: connection.execute(SQL["clear_notes"], keys).rowcount > 0, is_durable=False
        )

    async def note_attempt(self, office: OfficeNumber, path: str, *, now: datetime) -> None:
        cells = (self._path_key(office, path), to_cell(now))
        await self._store.change(lambda connection: connection.execute(SQL["put_attempt"], cells), is_durable=False)

    async def was_attempted(self, office: OfficeNumber, path: str, *, since: datetime) -> bool:
        row = self._store.row(SQL["was_attempted"], {"path": self._path_key(office, path), "since": to_cell(since)})
        return row is not None and bool(row[0])

    async def forget_attempts(self, *, before: datetime) -> int:
        cells = (to_cell(before),)
        return await self._store.change(
            lambda connection: connection.execute(SQL["forget_attempts"], cells).rowcount, is_durable=False
        )

    def _refusal_key(self, office: OfficeNumber, name: str, code: str, sha256: bytes | None) -> bytes:
        return self._store.vault.index("refusal", office, fold_name(name), code, (sha256 or b"").hex())

    def _path_key(self, office: OfficeNumber, path: str) -> bytes:
        return self._store.vault.index("path", office, fold_name(path))


def join_path(folder: OfficeNumber | None, name: str) -> str:
    """Return the path below ``send/`` of *name* at its top (*folder* None) or in an address folder."""
    return name if folder is None else f"{folder}/{name}"
