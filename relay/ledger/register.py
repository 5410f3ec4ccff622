"""The register in the embedded store: offices and the history; its certificates are in `certificates`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime

from relay.ledger.registry import ImportCounts
from relay.ledger.rows import event_of, office_of, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event
from relay.model import Event, EventKind, Office, OfficeNumber, OfficeStatus, TransferId

# An import tells how far it is this often.
_PROGRESS_ROWS = 2_000
_NO_LIMIT = -1


class RegisterVerbs:
    """Every verb of `relay.ledger.Register` about offices, and the history."""

    _store: Store

    async def find_office(self, number: OfficeNumber) -> Office | None:
        row = self._store.row(SQL["find_office"], (number,))
        return None if row is None else office_of(row)

    async def list_offices(
        self,
        *,
        status: OfficeStatus | None = None,
        prefecture: str | None = None,
        after: OfficeNumber | None = None,
        limit: int | None = None,
    ) -> list[Office]:
        rows = self._store.rows(
            SQL["list_offices"],
            {
                "after": after or "",
                "status": status,
                "prefecture": prefecture,
                "limit": _NO_LIMIT if limit is None else limit,
            },
        )
        return [office_of(row) for row in rows]

    async def count_offices(self) -> dict[OfficeStatus, int]:
        counts = dict.fromkeys(OfficeStatus, 0)
        for status, count in self._store.rows(SQL["count_offices"]):
            counts[OfficeStatus(status)] = count
        return counts

    async def record_office(self, office: Office, *, actor: str, now: datetime) -> bool:
        counts = await self.import_offices([office], suspend_missing=False, actor=actor, now=now)
        return bool(counts.added)

    async def import_offices(
        self,
        offices: Sequence[Office],
        *,
        suspend_missing: bool,
        actor: str,
        now: datetime,
        progress: Callable[[int], None] | None = None,
    ) -> ImportCounts:
        def work(connection: sqlite3.Connection) -> ImportCounts:
            return _import(
                connection, offices, suspend_missing=suspend_missing, actor=actor, now=now, progress=progress
            )

        return await self._store.change(work)

    async def record_office_status(
        self, number: OfficeNumber, status: OfficeStatus, *, actor: str, now: datetime
    ) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute(SQL["find_office"], (number,)).fetchone()
            if row is None:
                raise LookupError(number)
            before = office_of(row)
            if before.status is status:
                return False
            if before.status.has_ended:
                raise ValueError(f"{number} is {before.status}")
            connection.execute(SQL["update_office_status"], (status, to_cell(now), number))
            kind = EventKind.OFFICE_RESUMED if status is OfficeStatus.ACTIVE else EventKind.OFFICE_SUSPENDED
            append_event(connection, kind, now, actor=actor, office=number)
            return True

        return await self._store.change(work)

    async def register_version(self) -> int:
        row = self._store.row(SQL["register_version"])
        assert row is not None
        return int(row[0])

    async def list_events(self, *, transfer: TransferId | None = None, limit: int | None = None) -> list[Event]:
        sql = SQL["list_events"].format(where="1" if transfer is None else "transfer = :transfer")
        rows = self._store.rows(sql, {"transfer": transfer, "limit": _NO_LIMIT if limit is None else limit})
        return [event_of(row) for row in rows]


def _import(
    connection: sqlite3.Connection,
    offices: Sequence[Office],
    *,
    suspend_missing: bool,
    actor: str,
    now: datetime,
    progress: Callable[[int], None] | None,
) -> ImportCounts:
    """Bring the register in line with *offices* inside the running transaction."""
    at = to_cell(now)
    added = updated = unchanged = suspended = ended = 0
    for done, office in enumerate(offices, 1):
        row = connection.execute(SQL["find_office"], (office.number,)).fetchone()
        status = office.status.value
        if row is not None and OfficeStatus(row[4]).has_ended:
            # A list from elsewhere may still have it: only the operator opens a closed office again.
            status, ended = row[4], ended + 1
        cells = (office.name, office.prefecture, "|".join(office.service_types), status)
        if row is None:
            connection.execute(SQL["insert_office"], (office.number, *cells, at, at))
            append_event(connection, EventKind.OFFICE_ADDED, now, actor=actor, office=office.number)
            added += 1
        elif tuple(row[1:5]) != cells:
            connection.execute(SQL["update_office"], (*cells, at, office.number))
            append_event(connection, _change_kind(row[4], OfficeStatus(status)), now, actor=actor, office=office.number)
            updated += 1
        else:
            unchanged += 1
        if progress is not None and (done % _PROGRESS_ROWS == 0 or done == len(offices)):
            progress(done)
    if suspend_missing:
        listed = {office.number for office in offices}
        missing = [
            number for (number,) in connection.execute(SQL["list_active_numbers"]).fetchall() if number not in listed
        ]
        connection.executemany(
            SQL["update_office_status"], [(OfficeStatus.SUSPENDED, at, number) for number in missing]
        )
        for number in missing:
            append_event(
                connection, EventKind.OFFICE_SUSPENDED, now, actor=actor, office=number, detail="missing from import"
            )
        suspended = len(missing)
    connection.execute(SQL["touch_register"])
    return ImportCounts(added, updated, unchanged, suspended, ended)


def _change_kind(before: str, after: OfficeStatus) -> EventKind:
    if before == after:
        return EventKind.OFFICE_CHANGED
    return EventKind.OFFICE_RESUMED if after is OfficeStatus.ACTIVE else EventKind.OFFICE_SUSPENDED
