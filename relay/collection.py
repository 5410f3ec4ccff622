"""Collection: what a recipient reads, and when that counts as collected.

A transfer is collected once every one of its bytes was served to its recipient on handles that the recipient then
closed itself, in whatever order, over however many sessions.  What was served on a handle counts when its CLOSE
arrives and not before: bytes that were on their way when a connection ended count for nothing, because the recipient
may not have them.

Of a file that is read straight on the chunks behind the one being read are fetched ahead, some at a time, as far as its
session allows; of any other only the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from relay import journal
from relay.common import Common
from relay.errors import Deferred, Refused
from relay.journal import Journal
from relay.ledger import Ledger, Shelf, StoredPayload
from relay.ledger.words import refuse_ended
from relay.lifecycle import State
from relay.meters import Meters
from relay.model import EventKind, Identity, OfficeNumber, Transfer, TransferId
from relay.ranges import RANGES_MOST, keep_longest, merge_ranges
from relay.vault import CHUNK_BYTES, Sealer, Vault, VaultError

_TOLD_AGAIN = timedelta(minutes=1)
# Chunks in memory of a file that nobody has read straight on yet: the one that is read and the next.
_REACH_LEAST = 2
# Fetched at once: crossing to a thread and back costs a third of what reading one does.
_RUN_CHUNKS = 2
# Above this those that would be told again are forgotten.
_READS_KEPT = 10_000


class Collection:
    """The desk at which transfers are read; one a process."""

    def __init__(
        self,
        ledger: Ledger,
        vault: Vault,
        clock: Callable[[], datetime],
        *,
        may_discard: bool,
        meters: Meters | None = None,
        common: Common | None = None,
    ) -> None:
        self._common = common or Common.alone()
        self.ledger = ledger
        self.meters = meters or Meters()
        self._vault = vault
        self.clock = clock
        self.may_discard = may_discard
        self._reads: dict[tuple[OfficeNumber, TransferId], datetime] = {}
        self._damaged: set[TransferId] = set()

    def note_read(self, transfer: TransferId, office: OfficeNumber, detail: str = "") -> None:
        """Let history tell that *office* was given bytes of what is collected, or of what it did not close.

        The same again within a minute is not told: a program may open a file many times a second.
        """
        now = self.clock()
        last = self._reads.get((office, transfer))
        # The clock may have been set back meanwhile.
        if last is not None and abs(now - last) < _TOLD_AGAIN:
            return
        if len(self._reads) >= _READS_KEPT:
            self._reads = {key: at for key, at in self._reads.items() if now - at < _TOLD_AGAIN}
        self._reads[office, transfer] = now
        if not self._common.say_once("read", f"{office} {transfer}", _TOLD_AGAIN.total_seconds()):
            return
        self.ledger.note_event(EventKind.READ, actor=office, office=office, transfer=transfer, detail=detail, now=now)

    async def open(self, transfer: Transfer, identity: Identity, journal_: Journal) -> Reading:
        """Begin to read *transfer*, as its recipient or its sender; Refused ``tree.not_found`` for anybody else."""
        own = {identity.office}
        if not own & {transfer.recipient, transfer.sender}:
            own.update(await self.ledger.list_former(identity.office))
        is_recipient = transfer.recipient in own
        if not is_recipient and transfer.sender not in own:
            raise Refused("tree.not_found", detail="not this office's")
        if transfer.state is State.RETURNED and transfer.sender not in own:
            refuse_ended(transfer)
        try:
            payload = await self.ledger.open_payload(transfer.id)
        except LookupError:
            refuse_ended(transfer)
            raise Refused("tree.not_found", detail="the payload no longer exists") from None
        try:
            sealer = self._vault.open_sealer(
                payload.wrapped_key, payload.uid, size_bytes=payload.size_bytes, chunk_count=payload.chunk_count
            )
        except VaultError as error:
            raise self.damaged(transfer, error, journal_) from error
        return Reading(self, transfer, payload, sealer, identity, journal_, is_recipient=is_recipient)

    def damaged(self, transfer: Transfer, error: Exception, journal_: Journal) -> Deferred:
        """Return what to raise where bytes of an accepted file are gone or changed; the operator is told once."""
        cause = f"{type(error).__name__}: {error}"
        if transfer.id not in self._damaged:
            self._damaged.add(transfer.id)
            journal.payload_damaged(journal_, transfer=transfer.id, cause=cause)
        return Deferred("server.storage_damaged", detail=f"transfer {transfer.id}: {cause}")

    async def move(self, transfer: Transfer, to: Shelf, identity: Identity, journal_: Journal) -> Transfer:
        """Put a file away into ``done/`` or take it back from there; Refused where it was never collected."""
        try:
            moved = await self.ledger.move_shelf(
                transfer.id, to, identity=identity, now=self.clock(), may_discard=self.may_discard
            )
        except LookupError:
            raise Refused("tree.not_found", detail="its sender took it back meanwhile") from None
        if moved.is_removed != transfer.is_removed:
            tell = journal.transfer_removed if moved.is_removed else journal.transfer_restored
            tell(journal_, transfer=moved.id, kind=moved.kind)
        return moved


class Reading:
    """One open handle on one transfer."""

    def __init__(
        self,
        desk: Collection,
        transfer: Transfer,
        payload: StoredPayload,
        sealer: Sealer,
        identity: Identity,
        journal_: Journal,
        *,
        is_recipient: bool,
    ) -> None:
        self.transfer = transfer
        self._is_recipient = is_recipient
        self._desk = desk
        self._payload = payload
        self._sealer = sealer
        self._identity = identity
        self._journal = journal_
        # At hand, and on their way with what brings them; never more together than are allowed.
        self._chunks: dict[int, bytes] = {}
        self._coming: dict[int, asyncio.Task[list[bytes]]] = {}
        self._allowed = self._reach = _REACH_LEAST
        # The chunk that was read from last.
        self._at = -1
        # The store's, when the transfer was last looked at.
        self._version: int | None = None
        self._served: list[tuple[int, int]] = []

    @property
    def held_count(self) -> int:
        """How many chunks are in memory."""
        return len(self._chunks)

    @property
    def coming_count(self) -> int:
        """How many chunks are on their way into it."""
        return len(self._coming)

    def read_now(self, offset: int, length: int) -> bytes | memoryview | None:
        """Return bytes if they are at hand, b'' at the end of the file, None where `read` must be awaited."""
        end = min(offset + length, self.transfer.size_bytes)
        if offset >= end:
            return b""
        number, within = divmod(offset, CHUNK_BYTES)
        chunk = self._chunks.get(number)
        if chunk is None or within + end - offset > len(chunk):
            return None
        if number != self._at:
            if not self._is_unchanged:
                return None
            self._go_on(number)
        if within == 0 and end - offset == len(chunk):
            return chunk
        return memoryview(chunk)[within : within + end - offset]

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return the bytes asked for, fewer at the end of the file; Deferred where the store cannot give them."""
        end = min(offset + length, self.transfer.size_bytes)
        if offset >= end:
            return b""
        await self._look_up()
        first, last = offset // CHUNK_BYTES, (end - 1) // CHUNK_BYTES
        parts = [await self._chunk(number) for number in range(first, last + 1)]
        self._chunks[last] = parts[-1]
        self._go_on(last)
        start = first * CHUNK_BYTES
        joined = parts[0] if len(parts) == 1 else b"".join(parts)
        return memoryview(joined)[offset - start : end - start]

    @property
    def _is_unchanged(self) -> bool:
        return self.transfer.state is not State.ACCEPTED or self._desk.ledger.version() == self._version

    async def _look_up(self) -> None:
        """Look up the transfer again if anything was committed: bytes that the operator holds are not for reading on."""
        if self.transfer.state is State.ACCEPTED and (version := self._desk.ledger.version()) != self._version:
            known = await self._desk.ledger.find_transfer(self.transfer.id)
            if known is not None:
                refuse_ended(known)
            self._version = version

    async def _chunk(self, number: int) -> bytes:
        found = self._chunks.get(number)
        if found is None and (coming := self._coming.get(number)) is not None:
            await asyncio.wait([coming])
            # Not there where it failed or was forgotten: what becomes of this one alone is told.
            found = self._chunks.get(number)
        return await self._load(number) if found is None else found

    async def _load(self, number: int) -> bytes:
        try:
            return (await self._fetch(range(number, number + 1)))[0]
        except (LookupError, VaultError) as error:
            now = await self._desk.ledger.find_transfer(self.transfer.id)
            if now is not None:
                refuse_ended(now)
            raise self._desk.damaged(self.transfer, error, self._journal) from error

    async def _fetch(self, numbers: range) -> list[bytes]:
        return await self._desk.ledger.read_chunks(self._payload, numbers, self._sealer.open_chunk)

    def _go_on(self, number: int) -> None:
        """Know that chunk *number* is read from, and bring those behind it: the more, the longer it goes straight on."""
        is_next = 0 <= self._at <= number <= self._at + 1
        self._reach = min(2 * self._reach, self._allowed) if is_next else _REACH_LEAST
        self._at = number
        self._trim()
        run = min(_RUN_CHUNKS, self._reach - 1)
        end = min(number + self._reach, self._payload.chunk_count)
        start = max((number, *self._chunks, *self._coming)) + 1
        while start < end and (start + run <= end or end == self._payload.chunk_count):
            numbers = range(start, min(start + run, end))
            task = asyncio.create_task(self._fetch(numbers))
            self._coming.update(dict.fromkeys(numbers, task))
            task.add_done_callback(partial(self._arrived, numbers))
            start = numbers.stop

    def _arrived(self, numbers: range, task: asyncio.Task[list[bytes]]) -> None:
        """Keep what was fetched, if it is still wanted; a failure shows when one of the chunks is asked for."""
        brought = [] if task.cancelled() or task.exception() is not None else task.result()
        for place, number in enumerate(numbers):
            if self._coming.get(number) is task:
                del self._coming[number]
                if brought:
                    self._chunks[number] = brought[place]

    def allow(self, chunks: int) -> None:
        """Hold no more than so many chunks from now on."""
        self._allowed = chunks
        self._reach = min(self._reach, chunks)
        self._trim()

    def _trim(self) -> None:
        """Let go of the chunks that are not within reach."""
        within = range(self._at, self._at + self._reach)
        for number in [each for each in self._chunks if each not in within]:
            del self._chunks[number]
        for number in [each for each in self._coming if each not in within]:
            self._coming.pop(number).cancel()

    def note_served(self, offset: int, length: int) -> None:
        """Remember that these bytes were given to the channel."""
        if self._served and self._served[-1][1] == offset:
            self._served[-1] = (self._served[-1][0], offset + length)
        else:
            self._served.append((offset, offset + length))
            if len(self._served) > 2 * RANGES_MOST:
                self._served = keep_longest(merge_ranges(self._served))

    def forget(self) -> None:
        """Let go of the chunks in memory; the next read fetches them again."""
        self._at, self._reach = -1, _REACH_LEAST
        self._chunks = {}
        for task in self._coming.values():
            task.cancel()
        self._coming = {}

    async def close(self) -> None:
        """Count what was served: the recipient closed the handle itself.

        On return a transfer that was read completely is collected, on stable storage.  Refused where its sender has
        taken it back or replaced it meanwhile: what was read does not count, and the recipient's program is told.
        """
        self.forget()
        transfer = self.transfer
        if not self._served:
            return
        if transfer.state is not State.ACCEPTED or not self._is_recipient:
            self._desk.note_read(transfer.id, self._identity.office)
            return
        now = self._desk.clock()
        try:
            after = await self._desk.ledger.record_served(transfer.id, self._served, identity=self._identity, now=now)
        except Refused:
            # Whoever asks the recipient to delete what it has wants to know that it has something.
            self._desk.note_read(transfer.id, self._identity.office, "in part")
            raise
        if after.state is State.COLLECTED:
            self._desk.meters.collection_age.observe((now - after.accepted_at).total_seconds())
            journal.transfer_collected(
                self._journal, transfer=after.id, kind=after.kind, sender=after.sender, recipient=after.recipient
            )

    def abandon(self) -> None:
        """Let go without counting anything, at a `close` that follows neither: the connection ended."""
        self.forget()
        if self._served:
            self._desk.note_read(self.transfer.id, self._identity.office, "cut off")
        self._served = []
