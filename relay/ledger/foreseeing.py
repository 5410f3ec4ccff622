"""What time will do, counted in the embedded store, and what it did when.

Each count stands under the conditions of the statement that does the chore.  All are read in a thread, from one
connection: some go through all that waits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from relay.ledger.rows import Cell, to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import Store
from relay.ledger.upkeep import Chore, Cutoffs, Due, Rounds

# Free pages that stay for the next uploads.
SPARE_PAGES = 512
_LAST = "housekeeping_at"


class ForeseeingVerbs:
    """The verbs of `relay.ledger.Ledger` that count what is due, and keep what was done."""

    _store: Store
    _sent_listed: timedelta

    async def foresee(self, cutoffs: Cutoffs) -> Mapping[Chore, Due]:
        def read() -> Mapping[Chore, Due]:
            found: dict[Chore, Due] = {}
            for chore, due in self._count(cutoffs):
                found[chore] = _join(found[chore], due) if chore in found else due
            return found

        return await self._store.in_thread(read)

    def _count(self, cutoffs: Cutoffs) -> Iterator[tuple[Chore, Due]]:
        now, before = cutoffs.now, cutoffs
        yield Chore.EXPIRED, self._due("foresee_expired", now, before.expired)
        for statement in ("foresee_destroyed", "foresee_discarded"):
            yield Chore.DESTROYED, self._due(statement, now, before.destroyed)
        # What expires in this round, or gets the later notice, gets no earlier one.
        least = before.expired
        for tenths, moment in before.notices.items():
            more = {"tenths": tenths, "least": 0 if least is None else to_cell(least)}
            yield Chore.NOTICED, self._due("foresee_noticed", now, moment, more)
            least = moment
        yield Chore.NOTICES_OVER, self._due("foresee_over_notices", now, before.expired)
        yield Chore.UNFINISHED, self._due("foresee_unfinished", now, before.abandoned)
        yield Chore.LEFTOVERS, self._due("foresee_leftovers", now, before.abandoned)
        least = before.destroyed
        more = {"least": 0 if least is None else to_cell(least)}
        yield Chore.UNLISTED, self._due("foresee_unlisted", now, now - self._sent_listed, more)
        yield Chore.NAMES, self._due("foresee_names", now, before.names)
        yield Chore.NOTES, self._due("foresee_notes", now, before.notes)
        yield Chore.REFUSALS, self._due("foresee_refusals", now, before.refusals)
        yield Chore.ATTEMPTS, self._due("foresee_attempts", now, before.attempts)
        yield Chore.ENDED, self._due("foresee_ended", now, now)
        # What expires in this round does not go back.
        more = {"least": 0 if before.expired is None else to_cell(before.expired)}
        yield Chore.STRANDED, self._due("foresee_stranded", now, now, more)
        ((free,),) = self._store.rows_here("PRAGMA freelist_count", ())
        yield Chore.PAGES, Due(max(0, int(free) - SPARE_PAGES))

    def _due(
        self, statement: str, now: datetime, before: datetime | None, more: Mapping[str, Cell] | None = None
    ) -> Due:
        cells = {"before": None if before is None else to_cell(before), **(more or {})}
        ((count, size, oldest),) = self._store.rows_here(SQL[statement], cells)
        oldest_at = None if oldest is None else to_time(oldest)
        next_at = None if before is None or oldest_at is None else oldest_at + (now - before)
        return Due(count or 0, size or 0, oldest_at, next_at)

    async def record_round(self, done: Mapping[Chore, int], *, now: datetime) -> None:
        at = to_cell(now)
        cells: list[tuple[str, Cell]] = [(_LAST, at)]
        for chore, count in done.items():
            if count:
                cells += [(_key(chore, "at"), at), (_key(chore, "count"), count)]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(SQL["put_meta"], cells)

        await self._store.change(work, is_durable=False)

    async def read_rounds(self) -> Rounds:
        kept: dict[str, int] = dict(self._store.rows(SQL["list_rounds"]))
        chores = {
            chore: (to_time(kept[_key(chore, "at")]), int(kept[_key(chore, "count")]))
            for chore in Chore
            if _key(chore, "at") in kept
        }
        return Rounds(to_time(kept[_LAST]) if _LAST in kept else None, chores)


def _key(chore: Chore, what: str) -> str:
    return f"housekeeping_{chore.value}_{what}"


def _join(one: Due, other: Due) -> Due:
    oldest = min((at for at in (one.oldest_at, other.oldest_at) if at is not None), default=None)
    following = min((at for at in (one.next_at, other.next_at) if at is not None), default=None)
    return Due(one.count + other.count, one.size_bytes + other.size_bytes, oldest, following)
