"""Turns: how many files of one office are committed at once while other offices send as well.

An office that sends as fast as it can over many sessions would else be in every round of the event loop with all of them,
and everybody's requests would wait for all of that.  So while somebody else has sent lately, at most as many of its files
are in the commit together as of all others, and a few in any case; the rest waits, the first to come first.  Who waits for
an OK asks for nothing, so the office takes less of the processor, too.  One that is alone has no limit, nothing is ever
refused, and no office waits for another's turn.

Each worker has turns of its own: they share out its time, and promise nothing that must hold over all of them.  What one
office has in all workers together is bounded by giving each worker fewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from relay.model import OfficeNumber

# Of 1, 2 and 4 in one worker, on a busy machine: another office waits 2.6, 2.7 and 4.4 times as long in the median as
# alone, and the greedy one sends 76, 97 and 105 files a second; in each of four workers 3.2, 5.2 and 6.9 times, and 114,
# 141 and 161 files.
_AT_ONCE: Final = 2
# After so many seconds without another office's file an office is alone.
LATELY_SECONDS: Final = 10.0

_NEVER: Final = float("-inf")


def turns_of_worker(workers: int) -> int:
    """Return how many files of an office one of so many workers commits at once in any case."""
    return max(1, _AT_ONCE // workers)


class Turns:
    """Whose files are in the commit in this worker, and whose wait for that."""

    def __init__(self, at_once: int = _AT_ONCE, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody."""
        self._at_once = at_once
        self._clock = clock
        self._under_way: dict[OfficeNumber, int] = {}
        self._inside = 0
        self._waiting: dict[OfficeNumber, deque[asyncio.Future[None]]] = {}
        # Who came last and when, and when the last one came who was somebody else: that tells of every office whether it
        # is alone, without a moment for each.
        self._latest: OfficeNumber | None = None
        self._latest_at = self._another_at = _NEVER

    @contextlib.asynccontextmanager
    async def taken(self, office: OfficeNumber) -> AsyncIterator[None]:
        """Wait for a turn of *office* and hold it; who is cancelled while waiting leaves his place to the next."""
        self._note(office)
        if self._is_full(office):
            await self._wait(office)
        else:
            self._enter(office)
        try:
            yield
        finally:
            self._leave(office)

    def _note(self, office: OfficeNumber) -> None:
        if office != self._latest:
            self._another_at = self._latest_at
        self._latest, self._latest_at = office, self._clock()

    def _is_full(self, office: OfficeNumber) -> bool:
        others_at = self._another_at if office == self._latest else self._latest_at
        is_alone = self._clock() - others_at > LATELY_SECONDS
        own = self._under_way.get(office, 0)
        return not is_alone and own >= max(self._at_once, self._inside - own)

    def _enter(self, office: OfficeNumber) -> None:
        self._under_way[office] = self._under_way.get(office, 0) + 1
        self._inside += 1

    async def _wait(self, office: OfficeNumber) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(office, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # Cancelled in the very moment in which the turn was handed over: it is handed on.
            if turn.done() and not turn.cancelled():
                self._leave(office)
            raise

    def _leave(self, office: OfficeNumber) -> None:
        """Count one off and let in who may come; where some wait, others are under way, so this is called again."""
        self._under_way[office] -= 1
        self._inside -= 1
        queue = self._waiting.get(office, deque())
        while queue and not self._is_full(office):
            turn = queue.popleft()
            if not turn.done():
                self._enter(office)
                turn.set_result(None)
        if not queue:
            self._waiting.pop(office, None)
        if not self._under_way[office]:
            del self._under_way[office]
