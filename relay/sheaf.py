"""The bytes of an upload, from the client's WRITEs to sealed chunks, their digest and the judgement of their content.

Bytes [0, `Sheaf.size_bytes`) are here without a gap: chunks that are full are sealed and on their way to the store,
the one behind them is still open.  Beyond that a bounded number of bytes may wait that arrived ahead of their turn.

While nothing is written, the open chunk may rest in the store as well (`Sheaf.rest`); what needs it fetches it back.

Digest and content checks can only run forwards.  What was written over, shortened or taken up again is therefore
read from its beginning once more when it is closed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from relay.ahead import Ahead
from relay.buffers import Buffers
from relay.config import describe_size
from relay.content import ContentCheck
from relay.errors import Refused
from relay.ledger import SealedChunk
from relay.staging import Staging
from relay.vault import CHUNK_BYTES, Sealer

# WRITEs may overtake each other by this much; what is further ahead leaves a hole.
_AHEAD_BYTES = 4 * CHUNK_BYTES


class Sheaf:
    """The bytes of one upload; the caller sees to it that one change is made at a time."""

    def __init__(
        self,
        sealer: Sealer,
        staging: Staging,
        start_check: Callable[[], ContentCheck],
        buffers: Buffers,
        *,
        most_bytes: int,
    ) -> None:
        """Begin empty; *start_check* makes a new check of the content, *most_bytes* is what a file may have."""
        self._sealer = sealer
        self._staging = staging
        self._start_check = start_check
        self._buffers = buffers
        self._most_bytes = most_bytes
        self._digest = hashlib.sha256()
        self._tail = bytearray()
        self._sealed_bytes = 0
        # How long the open chunk is while it is in the store and not in memory.
        self._resting_bytes = 0
        self._ahead = Ahead(_AHEAD_BYTES)
        self._ahead_bytes = 0
        self._is_rewritten = False
        self.check = start_check()

    @property
    def size_bytes(self) -> int:
        """How long the file is so far, without what arrived ahead of its turn."""
        return self._sealed_bytes + self._resting_bytes + len(self._tail)

    @property
    def sha256(self) -> bytes:
        """The digest of the whole, after `judge`."""
        return self._digest.digest()

    @property
    def has_gap(self) -> bool:
        """True while bytes wait for what belongs in front of them."""
        return bool(self._ahead)

    def is_sealed(self, offset: int) -> bool:
        """True where what stands at *offset* is sealed already, so that writing there must wait for the store."""
        return offset < self._sealed_bytes

    @property
    def is_resting(self) -> bool:
        """True while the open chunk must be fetched back by `wake` before anything is put."""
        return self._resting_bytes > 0

    def rest(self) -> None:
        """Let what is in memory go into the store, all but what arrived ahead of its turn."""
        if self._tail:
            number, self._resting_bytes = self._sealed_bytes // CHUNK_BYTES, len(self._tail)
            self._staging.keep(SealedChunk(number, self._sealer.seal_chunk(number, self._tail)))
            self._tail = bytearray()
        self._staging.push()

    async def wake(self) -> None:
        """Fetch the open chunk back, if it rests in the store."""
        if self._resting_bytes:
            await self._staging.settle()
            async with self._buffers.reading:
                plain = await self._read_back(self._sealed_bytes // CHUNK_BYTES)
                self._tail, self._resting_bytes = bytearray(plain), 0

    async def write_over(self, offset: int, data: bytes | memoryview) -> int:
        """Write as much of *data* as is sealed already, chunk by chunk; returns how much that was."""
        data = data[: max(0, self._sealed_bytes - offset)]
        if not data:
            return 0
        written = len(data)
        await self._staging.settle()
        self._is_rewritten = True
        while data:
            part = data[: CHUNK_BYTES - offset % CHUNK_BYTES]
            async with self._buffers.reading:
                await self._write_into_chunk(offset, part)
            offset, data = offset + len(part), data[len(part) :]
        return written

    async def _write_into_chunk(self, offset: int, part: bytes | memoryview) -> None:
        number, within = divmod(offset, CHUNK_BYTES)
        plain = bytearray(await self._read_back(number))
        plain[within : within + len(part)] = part
        self._staging.keep(SealedChunk(number, self._sealer.seal_chunk(number, plain)))

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Take *data* at or behind the open chunk; Refused where it is too large, too far ahead or no such content."""
        end = offset + len(data)
        if end > self._most_bytes:
            raise Refused("limit.size", limit=describe_size(self._most_bytes))
        if self._ahead:
            self._ahead.cut(offset, end)
        if offset > self.size_bytes:
            if not self._ahead.keep(offset, bytes(data)) or not self._count_ahead():
                raise Refused("upload.hole", detail=f"more than can be kept ahead of {self.size_bytes}")
            return
        self._append(offset, data)
        while self._ahead and (due := self._ahead.take(self.size_bytes)) is not None:
            self._append(self.size_bytes, due)
        self._count_ahead()

    def _count_ahead(self) -> bool:
        """Tell how much is ahead of its turn; False where that is more than this session may have."""
        change = self._ahead.size_bytes - self._ahead_bytes
        if change and not self._buffers.hold_ahead(change):
            return False
        self._ahead_bytes += change
        return True

    def _append(self, offset: int, data: bytes | memoryview) -> None:
        """Put *data* into the open chunk, at or before its end, sealing every chunk that becomes full."""
        at = offset - self._sealed_bytes
        if not self._tail and at == 0 and len(data) == CHUNK_BYTES:
            self._seal(data)
            return
        self._tail[at : at + len(data)] = data
        while len(self._tail) > CHUNK_BYTES:
            with memoryview(self._tail) as view:
                self._seal(view[:CHUNK_BYTES])
            del self._tail[:CHUNK_BYTES]

    def _seal(self, plain: bytes | bytearray | memoryview) -> None:
        if not self._is_rewritten:
            self._digest.update(plain)
            self.check.feed(bytes(plain))
        number = self._sealed_bytes // CHUNK_BYTES
        self._staging.keep(SealedChunk(number, self._sealer.seal_chunk(number, plain)))
        self._sealed_bytes += len(plain)

    async def cut(self, size: int) -> None:
        """Forget what is behind *size*."""
        self._ahead.cut(size, None)
        self._count_ahead()
        await self.wake()
        if size < self._sealed_bytes:
            await self._staging.settle()
            number, within = divmod(size, CHUNK_BYTES)
            async with self._buffers.reading:
                self._tail = bytearray(await self._read_back(number))[:within]
            self._staging.drop(lambda waiting: waiting >= number)
            self._sealed_bytes = number * CHUNK_BYTES
            self._is_rewritten = True
        elif size < self.size_bytes:
            del self._tail[size - self._sealed_bytes :]

    async def resume(self, size: int) -> None:
        """Go on behind *size* bytes that are in the store."""
        self._is_rewritten = True
        self._sealed_bytes, within = size // CHUNK_BYTES * CHUNK_BYTES, size % CHUNK_BYTES
        if within:
            async with self._buffers.reading:
                self._tail = bytearray(await self._read_back(self._sealed_bytes // CHUNK_BYTES))[:within]

    async def judge(self) -> None:
        """Bring digest and check to the end of the file; nothing may be written after this."""
        if self._is_rewritten:
            self._digest = hashlib.sha256()
            self.check = self._start_check()
            for number in range(-(-self._sealed_bytes // CHUNK_BYTES)):
                await self._judge_chunk(number)
        if self._resting_bytes:
            await self._judge_chunk(self._sealed_bytes // CHUNK_BYTES)
        self._digest.update(self._tail)
        self.check.feed(bytes(self._tail))

    async def _judge_chunk(self, number: int) -> None:
        async with self._buffers.reading:
            plain = await self._read_back(number)
            self._digest.update(plain)
            self.check.feed(plain)

    async def digest_of(self, size: int) -> bytes:
        """Return the digest of the first *size* bytes, which are fewer than there are."""
        digest, left = hashlib.sha256(), size
        for number in range(-(-min(size, self._sealed_bytes + self._resting_bytes) // CHUNK_BYTES)):
            async with self._buffers.reading:
                digest.update((await self._read_back(number))[:left])
            left -= min(left, CHUNK_BYTES)
        digest.update(self._tail[:left])
        return digest.digest()

    def seal_rest(self) -> tuple[SealedChunk, ...]:
        """Return the chunks that are not in the store, the open one sealed as it is."""
        chunks = self._staging.waiting
        if not self._tail:
            return chunks
        number = self._sealed_bytes // CHUNK_BYTES
        return (*chunks, SealedChunk(number, self._sealer.seal_chunk(number, self._tail)))

    async def discard(self) -> None:
        """Let go of everything, here and in the store."""
        self.let_go()
        await self._staging.discard()

    def let_go(self) -> None:
        """Let go of what is in memory: nothing is done with it any more."""
        self._tail, self._resting_bytes = bytearray(), 0
        self._ahead.clear()
        self._count_ahead()
        self._staging.drop(lambda _: True)

    async def _read_back(self, number: int) -> bytes:
        return self._sealer.open_chunk(number, await self._staging.read_back(number))
