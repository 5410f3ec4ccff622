"""What the operator does to a single file, in the embedded store: hold it, let it go, give it back to its sender.

Whether the operator or the recipient's last byte was first is decided by the one writer, as with a recall.  Each act is
an incident that both offices read of with its reason, beside the event in the history.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from relay.errors import Refused
from relay.ledger.intervening import Incident, IncidentKind
from relay.ledger.mail import queue_news
from relay.ledger.recalls import RecallVerbs
from relay.ledger.rows import to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import append_event, transfer_sql
from relay.ledger.words import local_text
from relay.letters import Rhythm
from relay.lifecycle import State, Step, advance
from relay.model import RELAY_ACTOR, EventKind, OfficeNumber, Transfer, TransferId

_HAD = (State.COLLECTED, State.DESTROYED)
_STRANDED = "宛先の事業所が廃止され、取得できる期間が終わったため"
# Files a look-up: a round that finds more looks again.
_STRANDED_MOST = 256


class InterventionVerbs(RecallVerbs):
    """The verbs of `relay.ledger.intervening.Intervening`."""

    # When offices are told by mail; None where they are not.
    _mail: Rhythm | None

    async def hold_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        def work(connection: sqlite3.Connection) -> Transfer:
            found = self._waiting(connection, transfer)
            if found.is_held:
                return found
            connection.execute(SQL["withdraw_transfer"], (transfer,))
            # What was read before does not count: it may have to be fetched anew.
            connection.execute(SQL["delete_served"], (transfer,))
            _note(connection, found, EventKind.HELD, reason, actor, now)
            return self._waiting(connection, transfer)

        return await self._store.change(work)

    async def release_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        def work(connection: sqlite3.Connection) -> Transfer:
            found = self._any(connection, transfer)
            if found.reported_at is None:
                found = self._waiting(connection, transfer)
            if not found.is_held and found.reported_at is None:
                return found
            if found.state is not State.DESTROYED:
                if connection.execute(SQL["find_name_holder"], (transfer,)).fetchone() is not None:
                    raise Refused("transfer.conflict", at=local_text(now))
                connection.execute(SQL["unhold_transfer"], (transfer,))
            else:
                connection.execute(SQL["report_transfer"], (None, transfer))
            connection.execute(SQL["forget_incident"], (transfer,))
            append_event(
                connection, EventKind.RELEASED, now, actor=actor, office=found.recipient, transfer=transfer,
                detail=reason,
            )  # fmt: skip
            return self._any(connection, transfer)

        return await self._store.change(work)

    async def return_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        def work(connection: sqlite3.Connection) -> Transfer:
            found = self._any(connection, transfer)
            if found.state is State.RETURNED or found.reported_at is not None:
                return found
            if found.state in _HAD:
                connection.execute(SQL["report_transfer"], (to_cell(now), transfer))
                _note(connection, found, EventKind.REPORTED, reason, actor, now)
            elif found.state in (State.ACCEPTED, State.DISCARDED):
                self._give_back(connection, found, now)
                _note(connection, found, EventKind.RETURNED, reason, actor, now)
            else:
                raise LookupError(transfer)
            for office in (found.sender, found.recipient):
                queue_news(connection, self._mail, office, now)
            return self._any(connection, transfer)

        return await self._store.change(work)

    def _give_back(self, connection: sqlite3.Connection, found: Transfer, now: datetime) -> None:
        """Take a file that waits out of its recipient's sight for good; its bytes stay, for its sender."""
        key = self._recall_key(found.sender, found.name)
        connection.execute(SQL["leave_recall"], (key,))
        connection.execute(SQL["end_transfer"], (advance(found.state, Step.RETURN), to_cell(now), key, found.id))
        connection.execute(SQL["delete_served"], (found.id,))

    def _any(self, connection: sqlite3.Connection, transfer: TransferId) -> Transfer:
        row = connection.execute(transfer_sql("find_transfer"), (transfer,)).fetchone()
        if row is None:
            raise LookupError(transfer)
        return self._store.names.transfer(row)

    def _waiting(self, connection: sqlite3.Connection, transfer: TransferId) -> Transfer:
        """Return a transfer that nobody has collected; Refused where somebody has, LookupError where it ended."""
        found = self._any(connection, transfer)
        if found.state in _HAD:
            raise Refused("transfer.already_collected", at=local_text(found.collected_at or found.accepted_at))
        if found.state is not State.ACCEPTED:
            raise LookupError(transfer)
        return found

    async def return_stranded(self, *, now: datetime) -> int:
        store, cells, count = self._store, (to_cell(now), _STRANDED_MOST), 0
        while rows := await store.in_thread(lambda: store.rows_here(SQL["list_stranded"], cells)):
            for (number,) in rows:
                await self.return_transfer(TransferId(number), reason=_STRANDED, actor=RELAY_ACTOR, now=now)
            count += len(rows)
        return count

    async def list_incidents(self, office: OfficeNumber, *, since: datetime) -> Sequence[Incident]:
        rows = self._store.rows(transfer_sql("list_incidents"), (office, to_cell(since)))
        return [
            Incident(IncidentKind(kind), self._store.names.transfer(tuple(columns)), to_time(at), reason)
            for kind, at, reason, *columns in rows
        ]


def _note(
    connection: sqlite3.Connection, transfer: Transfer, kind: EventKind, reason: str, actor: str, now: datetime
) -> None:
    """Let both offices and history know what was done to *transfer*, in the place of what was told of it before."""
    cells = (transfer.id, kind.value, transfer.sender, transfer.recipient, to_cell(now), reason)
    connection.execute(SQL["put_incident"], cells)
    append_event(connection, kind, now, actor=actor, office=transfer.recipient, transfer=transfer.id, detail=reason)
