"""Closings and new numbers in the embedded store; see `relay.ledger.closing`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from relay.ledger.board import put_notice
from relay.ledger.closing import Holdings
from relay.ledger.lineage import find_former, find_last
from relay.ledger.mail import queue_news
from relay.ledger.rows import office_of, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event
from relay.ledger.words import local_text
from relay.letters import Rhythm
from relay.model import RELAY_ACTOR, EventKind, Office, OfficeEnd, OfficeNumber, OfficeStatus

if TYPE_CHECKING:
    from relay.ledger.bulletin import Notice


class ClosingVerbs:
    """The verbs of `relay.ledger.closing.Closing` that are about offices."""

    _store: Store
    _mail: Rhythm | None

    async def find_successor(self, office: Office) -> Office | None:
        return find_last(self._store.rows, office)

    async def list_former(self, office: OfficeNumber) -> Sequence[OfficeNumber]:
        return find_former(self._store.rows, office)

    async def count_holdings(self, office: OfficeNumber, *, now: datetime) -> Holdings:
        row = await self._store.row_in_thread(SQL["holdings"], (office, to_cell(now)))
        assert row is not None
        waiting, sent, partials, certificates, invitations, has_traffic = row
        return Holdings(waiting, sent, partials, certificates, invitations, bool(has_traffic))

    async def list_partners(self, office: OfficeNumber, *, since: datetime) -> Sequence[OfficeNumber]:
        cells = (office, to_cell(since))
        rows = await self._store.in_thread(lambda: self._store.rows_here(SQL["list_partners"], cells))
        return [OfficeNumber(number) for (number,) in rows]

    async def plan_end(
        self,
        office: OfficeNumber,
        end: OfficeEnd,
        *,
        newcomer: Office | None = None,
        notices: Sequence[Notice] = (),
        actor: str,
        now: datetime,
    ) -> Office:
        def work(connection: sqlite3.Connection) -> Office:
            ending = _require(connection, office)
            if ending.status.has_ended:
                raise ValueError(f"{office} is {ending.status} already")
            _check_successor(connection, end.successor, newcomer)
            if newcomer is not None and connection.execute(SQL["find_office"], (newcomer.number,)).fetchone() is None:
                _register(connection, newcomer, actor, now)
            cells = (to_cell(end.at), to_cell(end.until), end.successor, end.reason, to_cell(now), office)
            connection.execute(SQL["plan_end"], cells)
            if end.at <= now:
                _end(connection, _require(connection, office), actor, now)
            else:
                what = "closed" if end.successor is None else f"is {end.successor}"
                detail = f"{what} from {local_text(end.at)}: {end.reason}"
                append_event(connection, EventKind.OFFICE_END_PLANNED, now, actor=actor, office=office, detail=detail)
            self._tell(connection, office, notices, actor, now)
            return _require(connection, office)

        return await self._store.change(work)

    async def reopen_office(
        self, office: OfficeNumber, *, reason: str, notices: Sequence[Notice] = (), actor: str, now: datetime
    ) -> Office:
        def work(connection: sqlite3.Connection) -> Office:
            before = _require(connection, office)
            if before.end is None:
                raise ValueError(f"{office} has no end, planned or not")
            status = OfficeStatus.ACTIVE if before.status.has_ended else before.status
            connection.execute(SQL["reopen_office"], (status, to_cell(now), office))
            append_event(connection, EventKind.OFFICE_REOPENED, now, actor=actor, office=office, detail=reason)
            self._tell(connection, office, notices, actor, now)
            return _require(connection, office)

        return await self._store.change(work)

    def _tell(
        self, connection: sqlite3.Connection, office: OfficeNumber, notices: Sequence[Notice], actor: str, now: datetime
    ) -> None:
        """Put *notices* in the place of all that was told about the end of *office*."""
        connection.execute(SQL["delete_notices_about"], (office,))
        readers: set[OfficeNumber] = set()
        for notice in notices:
            put_notice(connection, notice, actor, now)
            readers.update(notice.audience if notice.office is None else (notice.office,))
        for reader in sorted(readers):
            queue_news(connection, self._mail, reader, now)

    async def end_offices(self, *, now: datetime) -> int:
        due = [OfficeNumber(number) for (number,) in self._store.rows(SQL["list_due_ends"], (to_cell(now),))]
        return sum([await self._store.change(partial(_end_due, number=number, now=now)) for number in due])


def _end_due(connection: sqlite3.Connection, *, number: OfficeNumber, now: datetime) -> bool:
    office = _require(connection, number)
    if office.status.has_ended or office.end is None or office.end.at > now:
        return False
    _end(connection, office, RELAY_ACTOR, now)
    return True


def _end(connection: sqlite3.Connection, office: Office, actor: str, now: datetime) -> None:
    """Let *office* end now; one that was kept out gets no time to collect."""
    end = office.end
    assert end is not None
    until = end.at if office.status is OfficeStatus.SUSPENDED else end.until
    status = OfficeStatus.CLOSED if end.successor is None else OfficeStatus.MOVED
    connection.execute(SQL["end_office"], (status, to_cell(until), to_cell(now), office.number))
    connection.execute(SQL["cancel_invitations_of"], (to_cell(now), office.number))
    kind = EventKind.OFFICE_CLOSED if end.successor is None else EventKind.OFFICE_MOVED
    detail = end.reason if end.successor is None else f"{end.successor}: {end.reason}"
    append_event(connection, kind, now, actor=actor, office=office.number, detail=detail)


def _require(connection: sqlite3.Connection, number: OfficeNumber) -> Office:
    row = connection.execute(SQL["find_office"], (number,)).fetchone()
    if row is None:
        raise LookupError(number)
    return office_of(row)


def _check_successor(connection: sqlite3.Connection, number: OfficeNumber | None, newcomer: Office | None) -> None:
    """ValueError where *number* cannot follow another one, LookupError where it is not there and not to come."""
    if number is None or (newcomer is not None and newcomer.number == number and _is_new(connection, number)):
        return
    successor = _require(connection, number)
    if not successor.is_active:
        raise ValueError(f"{number} is {successor.status}: nothing can follow under that number")
    if successor.end is not None:
        raise ValueError(f"{number} is to end itself: nothing can follow under that number")


def _is_new(connection: sqlite3.Connection, number: OfficeNumber) -> bool:
    return connection.execute(SQL["find_office"], (number,)).fetchone() is None


def _register(connection: sqlite3.Connection, office: Office, actor: str, now: datetime) -> None:
    cells = (office.number, office.name, office.prefecture, "|".join(office.service_types), office.status.value)
    connection.execute(SQL["insert_office"], (*cells, to_cell(now), to_cell(now)))
    append_event(connection, EventKind.OFFICE_ADDED, now, actor=actor, office=office.number)
    connection.execute(SQL["touch_register"])
