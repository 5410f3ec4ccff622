"""Lineup: in which order workers come to the store, which one of them has at a time.

The store's lock is a file lock: the kernel takes it back from the dead, but who waits for it is neither told nor in any
order, and a worker that comes back at once finds it free before the others have looked.  So workers that wait say since
when, each in a word of its own in the memory that they share; who gives the lock back calls the first of them, and the
others leave it to that one.  An office that has lately sent much lines up as if it had come later: its files wait for
those of the others, by a tenth of a second at most.

Only the lock says who may write.  The order is a courtesy: for one who does not come when he is called, because he hangs
or was killed, the others wait no more than a moment, and a program that knows nothing of it, such as a command, takes
the lock when it finds it free.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from relay.common import Common

# So long a lock that was given back lies there for the first in the line: some rounds of a busy loop.
_GRACE_SECONDS: Final = 0.01
# So long nobody waits for others at most, whatever they say.
_PATIENCE_SECONDS: Final = 1.0
# Who has stood in the line for so long does not come any more: it was killed with the supervisor that would have cleared
# its place, or hangs.  What it left would else cost everybody that moment of grace at each commit.
_GONE_SECONDS: Final = 30.0
# A file stands for so much time, in each of several workers for as many times that: who sends more than so many a second
# falls behind, and so far at most.
FILE_SECONDS: Final = 0.02
LATE_SECONDS_MOST: Final = 0.1
_OFFICES_KEPT: Final = 1024
_CALL: Final = b"!"
_NANOSECONDS: Final = 1_000_000_000


class Lineup:
    """The line, for one worker; made inside the event loop that uses it."""

    def __init__(self, common: Common | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Stand in the line of *common*; without one, and where nobody can be called, one goes at once."""
        self._clock = clock
        self._common = common if common is not None and len(common.inboxes) > 1 else None
        self._entered_at = 0.0
        self._emptied_at = -math.inf
        self._bell: asyncio.Future[None] | None = None
        if self._common is not None:
            self._common.on_called = self._ring

    @property
    def workers(self) -> int:
        """How many stand in the line by turns."""
        return 1 if self._common is None else self._common.workers

    def enter(self, at: float) -> None:
        """Wait since *at* (CLOCK_MONOTONIC); again, with an earlier moment, to move forward."""
        if self._common is not None:
            self._entered_at = self._entered_at or self._clock()
            self._common.line[self._common.index] = max(1, int(at * _NANOSECONDS))

    def leave(self) -> None:
        """Wait no more."""
        if self._common is not None:
            self._common.line[self._common.index] = 0
            self._entered_at = 0.0

    def may_go(self) -> bool:
        """True for the first in the line, and for all where that one does not come."""
        common = self._common
        if common is None:
            return True
        now, own = self._clock(), (common.line[common.index], common.index)
        if not any(place < own for place in self._line(common, now)):
            return True
        free_since = common.given_back_at / _NANOSECONDS
        return 0 < free_since < now - _GRACE_SECONDS or now > self._entered_at + _PATIENCE_SECONDS

    @property
    def is_awaited(self) -> bool:
        """True where other workers wait for the store."""
        common = self._common
        return common is not None and any(index != common.index for _, index in self._line(common, self._clock()))

    def took(self) -> None:
        """Know that this worker has the lock."""
        if self._common is not None:
            self._common.given_back_at = 0

    @contextmanager
    def giving_back(self) -> Iterator[None]:
        """Let go of the lock in this block, then call the first in the line.  From any thread.

        When that was is said before: behind it somebody may have the lock already, and has said so.
        """
        if self._common is not None:
            self._common.given_back_at = int(self._clock() * _NANOSECONDS)
        yield
        if self._common is not None:
            self._call_first(self._common)

    def _call_first(self, common: Common) -> None:
        if line := self._line(common, self._clock()):
            try:
                os.write(common.inboxes[min(line)[1]][1], _CALL)
            except OSError:
                # Its inbox is full: it will look by itself.
                return

    @staticmethod
    def _line(common: Common, now: float) -> list[tuple[int, int]]:
        """Return who waits, as moment and place, without those who do not come any more."""
        gone = max(0, int((now - _GONE_SECONDS) * _NANOSECONDS))
        return [(at, index) for index, at in enumerate(common.line) if at > gone]

    def was_emptied(self, seconds: float) -> bool:
        """True where a worker, whichever, has emptied the store's log within so many *seconds*."""
        shared_at = 0 if self._common is None else self._common.emptied_at
        at = shared_at / _NANOSECONDS if shared_at else self._emptied_at
        return self._clock() < at + seconds

    def emptied(self) -> None:
        """Know, and let all workers know, that the store's log was emptied now."""
        self._emptied_at = self._clock()
        if self._common is not None:
            self._common.emptied_at = int(self._emptied_at * _NANOSECONDS)

    async def wait(self, seconds: float) -> None:
        """Wait until this worker is called, and for so long at most."""
        loop = asyncio.get_running_loop()
        self._bell = loop.create_future()
        timer = loop.call_later(seconds, self._ring)
        try:
            await self._bell
        finally:
            timer.cancel()
            self._bell = None

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)


class Standing:
    """Since when an item of somebody counts as waiting: later than it does where he has lately had many."""

    def __init__(self, workers: int = 1) -> None:
        """Know nobody; so many *workers* see a part each of what somebody does."""
        self._file_seconds = FILE_SECONDS * workers
        self._paid_until: dict[Hashable, float] = {}

    def line_up(self, who: Hashable, now: float) -> float:
        """Count one more item of *who* and return the moment with which it lines up."""
        at = min(max(now, self._paid_until.get(who, 0.0)), now + LATE_SECONDS_MOST)
        if len(self._paid_until) >= _OFFICES_KEPT:
            self._paid_until = {each: until for each, until in self._paid_until.items() if until > now}
        self._paid_until[who] = at + self._file_seconds
        return at
