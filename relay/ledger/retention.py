"""What time does to accepted files, in the embedded store: they expire uncollected, and are destroyed once collected.

Each file is a transaction of its own, so an upload never waits for more than one; which files are due is read in a
thread.  A recipient who reads the last byte in the same moment and an expiry meet in the one writer, and exactly one
finds the file still waiting.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from relay.ledger.endings import destroy_bytes, end_transfer
from relay.ledger.foreseeing import SPARE_PAGES, ForeseeingVerbs
from relay.ledger.rows import to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import append_event, transfer_sql
from relay.lifecycle import State, Step, advance
from relay.model import RELAY_ACTOR, EventKind, PayloadId, Transfer, TransferId

# Files a look-up: a round that finds more looks again.
_DUE_MOST = 256
# Pages that are given back at once: some milliseconds.
_VACUUM_PAGES = 128


class RetentionVerbs(ForeseeingVerbs):
    """The verbs of `relay.ledger.Ledger` that housekeeping asks for."""

    async def expire_uncollected(self, *, before: datetime, now: datetime) -> int:
        count = 0
        while due := await self._store.numbers_due("list_uncollected", before, _DUE_MOST):
            for number in due:
                count += await self._expire_file(TransferId(number), before, now)
        return count

    async def _list(self, statement: str, before: datetime) -> list[TransferId]:
        cells = (to_cell(before), _DUE_MOST)
        rows = await self._store.in_thread(lambda: self._store.rows_here(SQL[statement], cells))
        return [TransferId(number) for (number,) in rows]

    async def _expire_file(self, number: TransferId, before: datetime, now: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> PayloadId | bool:
            found = self._find(connection, number)
            if found is None or found.state is not State.ACCEPTED or found.accepted_at >= before:
                return False
            left = end_transfer(connection, found, advance(found.state, Step.EXPIRE), now)
            append_event(
                connection, EventKind.EXPIRED, now, actor=RELAY_ACTOR, office=found.recipient, transfer=number,
                detail=f"sent by {found.sender}",
            )  # fmt: skip
            return True if left is None else left

        done = await self._store.change(work)
        if done is not True and done is not False:
            await destroy_bytes(self._store, done)
        return done is not False

    async def destroy_collected(self, *, before: datetime, now: datetime) -> int:
        count = 0
        for statement in ("list_collected", "list_discarded"):
            while due := await self._list(statement, before):
                for number in due:
                    count += await self._destroy(number, now)
        return count

    async def _destroy(self, number: TransferId, now: datetime) -> bool:
        """Destroy the key and give the bytes up; `remove_abandoned` takes them away, a slice a transaction."""

        def work(connection: sqlite3.Connection) -> bool:
            found = self._find(connection, number)
            if found is None or found.state not in (State.COLLECTED, State.DISCARDED):
                return False
            (payload,) = connection.execute(SQL["find_payload_of"], (number,)).fetchone()
            if payload is None:
                return False
            if found.state is State.COLLECTED:
                state = advance(found.state, Step.DESTROY)
                connection.execute(SQL["destroy_transfer"], (state, to_cell(now), number))
            else:
                connection.execute(SQL["take_from_done"], (number,))
            connection.execute(SQL["forget_payload"], (number,))
            connection.execute(SQL["forget_readable"], (number,))
            connection.execute(SQL["give_up_sealed"], (payload,))
            append_event(
                connection, EventKind.DESTROYED, now, actor=RELAY_ACTOR, office=found.recipient, transfer=number,
                detail=f"sent by {found.sender}",
            )  # fmt: skip
            return True

        return await self._store.change(work)

    def _find(self, connection: sqlite3.Connection, number: TransferId) -> Transfer | None:
        row = connection.execute(transfer_sql("find_transfer"), (number,)).fetchone()
        return None if row is None else self._store.names.transfer(row)

    async def give_space_back(self) -> int:
        given = 0
        while step := await self._store.change(_vacuum, is_durable=False):
            given += step
        return given


def _vacuum(connection: sqlite3.Connection) -> int:
    """Give some free pages at the end of the file back; returns by how many pages the file is shorter."""
    (free,), (before,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
    # sqlite3 asks for no second row of a statement without columns, and each row is one page.
    for _ in range(min(_VACUUM_PAGES, free - SPARE_PAGES)):
        connection.execute("PRAGMA incremental_vacuum(1)")
    (after,) = connection.execute("PRAGMA page_count").fetchone()
    return int(before - after)
