"""Turns: how many files of one office are committed at once while other offices send as well.

An office that sends as fast as it can over many sessions would else be in every round of the event loop with all of them,
and everybody's requests would wait for all of that.  So while somebody else has sent lately, so many of its files at most
are in the commit together; the others wait, the first to come first.  Who waits for an OK asks for nothing, so the office
takes less of the processor, too.  One that is alone has no limit, nothing is ever refused, and no office waits for another's
turn.

Each worker has turns of its own: they share out its time, and promise nothing that must hold over all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from relay.model import OfficeNumber

# Of 1, 4 and no limit: with 4 another office's p99 beside a greedy one is twice what it is alone and not five times, and the
# greedy one keeps two thirds of its speed; with 1 it keeps a quarter (scripts/bench n, one worker).
AT_ONCE: Final = 4
# After so many seconds without another office's file an office is alone.
LATELY_SECONDS: Final = 10.0

_NEVER: Final = float("-inf")


class Turns:
    """Whose files are in the commit in this worker, and whose wait for that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody."""
        self._clock = clock
        self._under_way: dict[OfficeNumber, int] = {}
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
            self._under_way[office] = self._under_way.get(office, 0) + 1
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
        return not is_alone and self._under_way.get(office, 0) >= AT_ONCE

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
        queue = self._waiting.get(office, deque())
        while queue and not self._is_full(office):
            turn = queue.popleft()
            if not turn.done():
                self._under_way[office] += 1
                turn.set_result(None)
        if not queue:
            self._waiting.pop(office, None)
        if not self._under_way[office]:
            del self._under_way[office]
