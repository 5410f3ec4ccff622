"""Sealed chunks of an upload on their way into the store.

The first chunk waits here, because a file that fits it travels with the commit; from the second on they are brought
into the store while more arrive, by one task, in order.  What was sealed again replaces what it was before, here or
in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from relay.buffers import Buffers
from relay.errors import Deferred, Refused
from relay.ledger import Ledger, SealedChunk
from relay.model import OfficeNumber, PayloadId, PayloadUid
from relay.vault import CHUNK_BYTES

# Sealed and not yet in the store: beyond this the client waits.  Little less than a session may have on its way that is alone,
# so that the client is not kept waiting by a checkpoint.
_WAITING_BYTES = 63 * CHUNK_BYTES
# So many go in one transaction: their statements are the event loop's, and others want to commit in between.
_TOGETHER = 16


class Staging:
    """The sealed chunks of one upload.

    *failure* is what the store said when it took no more; what waited then is not in it.
    """

    def __init__(
        self,
        ledger: Ledger,
        uid: PayloadUid,
        office: OfficeNumber,
        holder: bytes,
        clock: Callable[[], datetime],
        buffers: Buffers,
    ) -> None:
        self._ledger = ledger
        self._uid = uid
        self._office = office
        self.holder = holder
        self._clock = clock
        self._buffers = buffers
        self._moving = 0
        self._waiting: list[SealedChunk] = []
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        # Set whenever some of what was on its way is in the store, or cannot be brought there.
        self._has_landed = asyncio.Event()
        self.staged: PayloadId | None = None
        self.failure: Refused | Deferred | None = None

    @property
    def is_full(self) -> bool:
        """True while more is on its way than should be, of this upload or of all of them."""
        return self._bytes > _WAITING_BYTES or self._buffers.is_full

    @property
    def waiting(self) -> tuple[SealedChunk, ...]:
        """The chunks that are not in the store; after `settle`, those that must travel with the commit."""
        return tuple(self._waiting)

    def keep(self, chunk: SealedChunk) -> None:
        """Take *chunk*, in the place of an earlier one of its number."""
        self.drop(lambda number: number == chunk.number)
        self._waiting.append(chunk)
        self._bytes += len(chunk.sealed)
        if len(self._waiting) > 1 or self.staged is not None:
            self.push()
        self._count()

    def push(self) -> None:
        """Send on its way what waits, also where it would fit the commit."""
        if self._task is None and self.failure is None and self._waiting:
            self._task = asyncio.create_task(self._stage())
            # What failed is told by `failure`.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._count()

    def _count(self) -> None:
        """Tell what is on its way; a chunk that waits for the commit rests."""
        moving = 0 if self._task is None else self._bytes
        if moving != self._moving:
            change, self._moving = moving - self._moving, moving
            self._buffers.move(change)

    def drop(self, is_dropped: Callable[[int], bool]) -> None:
        """Forget chunks that wait, by their number; the store's own are replaced, or cut off at the commit."""
        self._bytes -= sum(len(chunk.sealed) for chunk in self._waiting if is_dropped(chunk.number))
        self._waiting = [chunk for chunk in self._waiting if not is_dropped(chunk.number)]
        self._count()

    def arrived(self, staged: PayloadId | None) -> None:
        """Know that everything that waited is in the store, under *staged*."""
        self.drop(lambda _: True)
        self.staged = staged

    async def _stage(self) -> None:
        """Bring chunks into the store until none is left; a failure is kept for whoever asks next."""
        is_done = False
        try:
            while self._waiting:
                chunks, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
                self.staged = await self._ledger.stage_chunks(
                    self.staged, self._uid, self._office, chunks, holder=self.holder, now=self._clock()
                )
                self._bytes -= sum(len(chunk.sealed) for chunk in chunks)
                self._count()
                self._has_landed.set()
            is_done = True
        except Deferred as deferred:
            self.failure = deferred.again()
        except LookupError:
            self.failure = Refused("upload.unfinished", detail="the staged chunks are gone")
        finally:
            if not is_done and self.failure is None:
                # Without this nobody would know that what was on its way is not there.
                self.failure = Deferred("server.busy", detail="staging ended in a defect or was cancelled")
            if self.failure is not None:
                # Nothing of it can be committed any more.
                self._waiting, self._bytes = [], 0
            self._task = None
            self._count()
            self._has_landed.set()

    async def make_room(self) -> None:
        """Wait until no more is on its way than should be, or the store has failed."""
        while True:
            if self._task is not None and self._bytes > _WAITING_BYTES:
                # Not for the end of the task: the client sends on while the rest is still on its way.
                self._has_landed.clear()
                await self._has_landed.wait()
            elif self._buffers.is_full:
                await self._buffers.room()
            else:
                return

    async def settle(self) -> None:
        """Wait until nothing is on its way."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def read_back(self, number: int) -> bytes:
        """Return a sealed chunk, after `settle`; Refused or Deferred where it is gone."""
        for chunk in self._waiting:
            if chunk.number == number:
                return chunk.sealed
        if self.failure is not None:
            raise self.failure.again()
        try:
            assert self.staged is not None
            return await self._ledger.read_staged(self.staged, number)
        except LookupError:
            raise Refused("upload.unfinished", detail=f"the staged chunk {number} is gone") from None

    async def discard(self) -> None:
        """Remove everything, here and in the store."""
        await self.settle()
        self.drop(lambda _: True)
        staged, self.staged = self.staged, None
        if staged is not None:
            await self._ledger.discard_staged(staged, holder=self.holder)
