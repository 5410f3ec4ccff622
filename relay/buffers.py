"""How many bytes of uploads are in memory, for all handles of a session and for all sessions of the machine.

One upload is bounded by `relay.sheaf` and `relay.staging`; a client may have many open, and there may be many
clients.  So all of them together are bounded too.  What the machine may hold is divided among the workers rather than
counted by all of them: who waits is woken by what his own worker gets rid of, and connections are spread anyway.

* What *moves* into the store: beyond the bound a WRITE waits.  Nobody can wait for ever, because what moves comes back
  whatever clients do: the store takes it or fails.
* What *rests* in memory until its client goes on, an open chunk and what belongs to it: nobody waits for that.  Where
  too many uploads have such, the one that was written to longest ago brings its own into the store (`Resting.rest`)
  and fetches it back when it is written to again.
* What arrived *ahead* of its turn: beyond the bound it is refused, as it is beyond the bound of one upload.
* What is read back from the store: in one session one chunk at a time, under `Buffers.reading`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from relay.vault import CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that may move and be ahead, in bytes, and how many uploads may rest in memory.

    *lone_bytes* may move, instead, while half of what may move above is free.
    """

    moving_bytes: int
    ahead_bytes: int
    resting: int
    lone_bytes: int = 0


# Programs send up to ten files at once; each of them rests with three chunks at most.  So much may move of a session that is
# alone that its client need not wait while the store's log is folded, which takes as long as all of that to arrive.
OF_SESSION = Bounds(moving_bytes=16 * CHUNK_BYTES, ahead_bytes=16 * CHUNK_BYTES, resting=8, lone_bytes=64 * CHUNK_BYTES)
# Ahead is bounded for each session alone: one office's must not have another's refused.
_OF_MACHINE = Bounds(moving_bytes=256 * CHUNK_BYTES, ahead_bytes=0, resting=256)


def bounds_of_worker(workers: int) -> Bounds:
    """Return what one of so many workers may hold: its part of the machine's, and no less than one session may."""
    return Bounds(
        moving_bytes=max(OF_SESSION.moving_bytes, _OF_MACHINE.moving_bytes // workers),
        ahead_bytes=0,
        resting=max(OF_SESSION.resting, _OF_MACHINE.resting // workers),
    )


class Resting(Protocol):
    """An upload that holds bytes in memory between two requests."""

    def rest(self) -> bool:
        """Let them go into the store and call `Buffers.leave`; False while it is busy."""


class Buffers:
    """What the uploads of one session hold, or, as *above* of these, of the worker."""

    def __init__(self, bounds: Bounds, above: Buffers | None = None) -> None:
        self._bounds = bounds
        self._above = above
        self._moving_bytes = 0
        self._ahead_bytes = 0
        self._resting: dict[Resting, None] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self.reading = asyncio.Lock()

    @property
    def is_full(self) -> bool:
        """True while more moves than should, here or above."""
        return self._is_full_itself or (self._above is not None and self._above.is_full)

    @property
    def _is_full_itself(self) -> bool:
        most = self._bounds.moving_bytes
        if self._above is not None and self._above.is_half_free:
            most = max(most, self._bounds.lone_bytes)
        return self._moving_bytes >= most

    @property
    def is_half_free(self) -> bool:
        """True while at most half of what may move does."""
        return 2 * self._moving_bytes <= self._bounds.moving_bytes

    @property
    def holds_nothing(self) -> bool:
        """True while no upload has anything in memory."""
        return not (self._moving_bytes or self._ahead_bytes or self._resting)

    def move(self, change: int) -> None:
        """Know that so many bytes more are on their way, or fewer."""
        self._moving_bytes += change
        if self._above is not None:
            self._above.move(change)
        if not self._is_full_itself:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.done():
                    each.set_result(None)

    async def room(self) -> None:
        """Wait until no more moves than should."""
        while self.is_full:
            if self._is_full_itself:
                freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(freed)
                await freed
            elif self._above is not None:
                await self._above.room()

    def hold_ahead(self, change: int) -> bool:
        """Know that so many bytes more, or fewer, are ahead of their turn; False, and nothing is known, beyond the bound."""
        if change > 0 and self._ahead_bytes + change > self._bounds.ahead_bytes:
            return False
        self._ahead_bytes += change
        return True

    def touch(self, upload: Resting) -> None:
        """Know that *upload* was just written to; where too many rest, the one that rests longest makes room."""
        if next(reversed(self._resting), None) is not upload:
            self._resting.pop(upload, None)
            self._resting[upload] = None
            if len(self._resting) > self._bounds.resting:
                self._make_one_rest(upload)
        if self._above is not None:
            self._above.touch(upload)

    def _make_one_rest(self, but: Resting) -> None:
        for each in self._resting:
            # One that is busy is passed over: it is written to now, or ends.
            if each is not but and each.rest():
                return

    def leave(self, upload: Resting) -> None:
        """Know that *upload* holds nothing in memory."""
        self._resting.pop(upload, None)
        if self._above is not None:
            self._above.leave(upload)
