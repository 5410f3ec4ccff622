"""Intake: a closed upload becomes an accepted transfer, or a refusal.

The order of the steps is the guarantee.  A sender who was told OK may delete his copy, so before we say it

    1. the upload is known to be complete,
    2. its name has been parsed and its recipient resolved (at OPEN, and again in the commit),
    3. its content has passed the checks of its kind,
    4. its bytes, its record and its event are committed together, synced.

A crash before 4 leaves nothing that anybody sees; a crash after 4 leaves a transfer that its recipient will find.
Nothing lies between.

Bytes are sealed as soon as a chunk is full and wait in the store, invisible; a file that fits one chunk travels with
the commit.  An upload holds at most one open chunk, what is on its way to the store, and a bounded number of bytes
that arrived ahead of their turn.  Uploads share nothing.

Intake speaks neither SFTP nor SQL, and it never waits for a recipient.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from relay import content, journal, naming, routing
from relay.ahead import Ahead
from relay.config import Config, describe_size
from relay.errors import Deferred, Refused
from relay.journal import Journal
from relay.ledger import Accepted, Ledger, SealedChunk, SealedPayload, TransferDraft
from relay.model import Identity, OfficeNumber, Route
from relay.staging import Staging
from relay.vault import CHUNK_BYTES, Sealer, Vault, new_key, new_uid

# WRITEs may overtake each other by this much; what is further ahead leaves a hole.
_AHEAD_BYTES = 4 * CHUNK_BYTES
# The lengths in which OpenSSH's sftp writes a file: all but the last one (CLIENTS.md, section 3).
_FULL_WRITES = frozenset({32_768, 261_120})


@dataclass(frozen=True, slots=True)
class Manners:
    """How this client's program tells a whole file from a cut one (DESIGN section 4, Completeness).

    *ends_short*: its last WRITE is shorter than the others (OpenSSH).  *sets_size*: it sets the size before it closes
    a whole file (lftp).
    """

    ends_short: bool = False
    sets_size: bool = False


class Intake:
    """The desk at which uploads are opened; one a process."""

    def __init__(self, ledger: Ledger, vault: Vault, config: Config, clock: Callable[[], datetime]) -> None:
        self.ledger = ledger
        self.vault = vault
        self.config = config
        self.clock = clock

    async def open(
        self, name: str, folder: OfficeNumber | None, identity: Identity, manners: Manners, journal_: Journal
    ) -> Upload:
        """Begin an upload of *name*, at the top of ``send/`` or in the address folder *folder*.

        Refused with everything that the name already tells; the refusal is then in the ledger.
        """
        try:
            route = await self._route(name, folder, identity)
        except Refused as refused:
            await self.refuse(name, identity, refused, journal_)
            raise
        journal.upload_opened(journal_, kind=route.address.kind, recipient=route.recipient)
        return Upload(self, route, identity, manners, journal_, in_folder=folder is not None)

    async def _route(self, name: str, folder: OfficeNumber | None, identity: Identity) -> Route:
        address = naming.parse_name(name, self.config.naming_rules, folder=folder)
        sender = await self.ledger.find_office(identity.office)
        if sender is None:
            raise Refused("office.suspended", office=identity.office, detail="the office is no longer registered")
        recipient = await self.ledger.find_office(address.recipient)
        return routing.resolve_route(
            address, sender=sender, recipient=recipient, now=self.clock(), severities=self.config.content.severities
        )

    async def refuse(
        self, name: str, identity: Identity, refused: Refused, journal_: Journal, *, sha256: bytes | None = None
    ) -> None:
        """Keep a refusal in the ledger and the journal; a store that is in trouble costs the record, not the answer."""
        journal.upload_refused(journal_, code=refused.code, detail=refused.detail)
        try:
            await self.ledger.record_refusal(identity.office, name, refused.finding, sha256=sha256, now=self.clock())
        except Deferred as deferred:
            journal.upload_deferred(journal_, code=deferred.code, detail=deferred.detail)


class Upload:
    """Bytes arriving under one name; nothing is promised before `close` returns.

    After anything was refused or deferred, every later call answers the same: a client that misses the first error
    (CLIENTS.md section 2c) meets it again.
    """

    def __init__(
        self, desk: Intake, route: Route, identity: Identity, manners: Manners, journal_: Journal, *, in_folder: bool
    ) -> None:
        self.route = route
        self.client_mtime: datetime | None = None
        self._desk = desk
        self._identity = identity
        self._manners = manners
        self._journal = journal_
        self._in_folder = in_folder
        self._uid = new_uid()
        self._key = new_key()
        self._sealer = Sealer(self._key, self._uid)
        self._digest = hashlib.sha256()
        self._check = content.start_check(route.address, desk.config.content.severities)
        # Bytes [0, len(_tail) + _sealed_bytes) are here without a gap; the tail is the chunk that is still open.
        self._tail = bytearray()
        self._sealed_bytes = 0
        self._ahead = Ahead(_AHEAD_BYTES)
        self._staging = Staging(desk.ledger, self._uid, identity.office, desk.clock)
        self._is_rewritten = False
        self._declared_size: int | None = None
        self._write_lengths: set[int] = set()
        self._last_write = (0, 0)
        self._failure: Refused | Deferred | None = None
        self._is_over = False
        self._began = time.monotonic()

    @property
    def size_bytes(self) -> int:
        """How long the upload is so far, without what arrived ahead of its turn."""
        return self._sealed_bytes + len(self._tail)

    @property
    def is_over(self) -> bool:
        """True once it was closed or given up."""
        return self._is_over

    def write_now(self, offset: int, data: bytes | memoryview) -> bool:
        """Take *data* if that needs no waiting; False where `write` must be awaited instead.

        Raises as `write`.
        """
        self._raise_failure()
        if not data:
            return True
        if offset < self._sealed_bytes or self._staging.is_full:
            return False
        try:
            self._place(offset, data)
        except Refused as refused:
            self._fail(refused)
            raise
        return True

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Take *data* at *offset*; Refused for what the content or the size tells so far, Deferred from the store."""
        await self._staging.make_room()
        self._raise_failure()
        if data and offset < self._sealed_bytes:
            within = min(len(data), self._sealed_bytes - offset)
            await self._patch(offset, data[:within])
            offset, data = offset + within, data[within:]
        if data and not self.write_now(offset, data):
            raise Deferred("server.busy", detail="the store takes chunks more slowly than they arrive")

    def _place(self, offset: int, data: bytes | memoryview) -> None:
        end = offset + len(data)
        self._note_write(offset, len(data))
        if end > self._desk.config.limits.upload_bytes:
            raise Refused("limit.size", limit=describe_size(self._desk.config.limits.upload_bytes))
        if self._ahead:
            self._ahead.cut(offset, end)
        if offset > self.size_bytes:
            if not self._ahead.keep(offset, bytes(data)):
                raise Refused("upload.hole", detail=f"more than can be kept ahead of {self.size_bytes}")
            return
        self._append(offset, data)
        while self._ahead and (due := self._ahead.take(self.size_bytes)) is not None:
            self._append(self.size_bytes, due)

    def _note_write(self, offset: int, length: int) -> None:
        self._write_lengths.add(length)
        if offset + length >= sum(self._last_write):
            self._last_write = (offset, length)

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
            self._check.feed(bytes(plain))
        number = self._sealed_bytes // CHUNK_BYTES
        self._staging.keep(SealedChunk(number, self._sealer.seal_chunk(number, plain)))
        self._sealed_bytes += len(plain)

    async def _patch(self, offset: int, data: bytes | memoryview) -> None:
        """Write over bytes that are sealed already, chunk by chunk."""
        await self._staging.settle()
        self._is_rewritten = True
        while data:
            number, within = divmod(offset, CHUNK_BYTES)
            plain = bytearray(await self._read_back(number))
            part = data[: len(plain) - within]
            plain[within : within + len(part)] = part
            self._staging.keep(SealedChunk(number, self._sealer.seal_chunk(number, plain)))
            offset, data = offset + len(part), data[len(part) :]

    async def truncate(self, size: int) -> None:
        """Take the client's word for the size: shorten to it, or remember that more was to come."""
        self._raise_failure()
        self._declared_size = size
        self._ahead.cut(size, None)
        if size < self._sealed_bytes:
            await self._staging.settle()
            number, within = divmod(size, CHUNK_BYTES)
            self._tail = bytearray(await self._read_back(number))[:within]
            self._staging.drop(lambda waiting: waiting >= number)
            self._sealed_bytes = number * CHUNK_BYTES
            self._is_rewritten = True
        elif size < self.size_bytes:
            del self._tail[size - self._sealed_bytes :]

    async def sync(self) -> None:
        """Wait until what arrived so far is in the store (fsync@openssh.com); promises nothing about delivery."""
        await self._staging.settle()
        self._raise_failure()

    async def close(self) -> Accepted:
        """Make the upload durable and promise its delivery.

        On return the transfer survives a power cut.  On a refusal no byte is kept and the refusal is in the ledger.
        On Deferred nothing was promised and the sender may try again.
        """
        if self._is_over:
            self._raise_failure()
        self._is_over = True
        try:
            await self._staging.settle()
            self._raise_failure()
            draft = await self._complete()
            accepted = await self._desk.ledger.commit_transfer(draft, now=self._desk.clock())
        except Refused as refused:
            self._fail(refused)
            await self._discard()
            kept = self._digest.digest() if refused.code == "upload.looks_cut" else None
            await self._desk.refuse(self.route.address.name, self._identity, refused, self._journal, sha256=kept)
            raise
        except Deferred as deferred:
            self._fail(deferred)
            await self._discard()
            journal.upload_deferred(self._journal, code=deferred.code, detail=deferred.detail)
            raise
        self._tell(accepted)
        return accepted

    def _tell(self, accepted: Accepted) -> None:
        transfer = accepted.transfer
        journal.transfer_accepted(
            self._journal,
            transfer=transfer.id,
            kind=transfer.kind,
            sender=transfer.sender,
            recipient=transfer.recipient,
            size_bytes=transfer.size_bytes,
            seconds=time.monotonic() - self._began,
            is_repeat=accepted.is_repeat,
        )

    async def abort(self, reason: str) -> None:
        """Give up what the client did not finish; never raises, and does nothing the second time."""
        if self._is_over:
            return
        self._is_over = True
        journal.upload_aborted(self._journal, reason=reason, size_bytes=self.size_bytes)
        if isinstance(self._failure, Refused):
            # The client left at the first error, without the CLOSE that would have told it once more.
            await self._desk.refuse(self.route.address.name, self._identity, self._failure, self._journal)
        self._fail(Refused("upload.unfinished", detail=reason))
        await self._discard()

    async def _complete(self) -> TransferDraft:
        """Seal what is left and judge the whole."""
        size = self.size_bytes
        if self._ahead or (self._declared_size or 0) > size:
            raise Refused("upload.hole", detail=f"a hole at {size}")
        if self._is_rewritten:
            await self._read_again()
        else:
            self._digest.update(self._tail)
            self._check.feed(bytes(self._tail))
        findings = (*self.route.findings, *self._check.finish())
        sha256 = self._digest.digest()
        if self._looks_cut(size) and not await self._was_cut_there_before(sha256):
            raise Refused("upload.looks_cut")
        chunks = list(self._staging.waiting)
        if self._tail:
            number = self._sealed_bytes // CHUNK_BYTES
            chunks.append(SealedChunk(number, self._sealer.seal_chunk(number, self._tail)))
        count = -(-size // CHUNK_BYTES)
        address = self.route.address
        return TransferDraft(
            route=self.route,
            identity=self._identity,
            payload=SealedPayload(
                uid=self._uid,
                wrapped_key=self._desk.vault.wrap_key(self._key, self._uid, size_bytes=size, chunk_count=count),
                size_bytes=size,
                chunk_count=count,
                sha256=sha256,
                chunks=tuple(chunks),
                name_sealed=None if address.is_standard else self._sealer.seal_name(address.name),
                staged=self._staging.staged,
            ),
            in_folder=self._in_folder,
            client_mtime=self.client_mtime,
            findings=findings,
        )

    def _looks_cut(self, size: int) -> bool:
        """True where this client's program would have ended a whole file otherwise."""
        if self._declared_size == size:
            return False
        if self._manners.sets_size:
            return True
        lengths = self._write_lengths
        return self._manners.ends_short and len(lengths) == 1 and lengths <= _FULL_WRITES

    async def _was_cut_there_before(self, sha256: bytes) -> bool:
        name = self.route.address.name
        return await self._desk.ledger.was_refused(self._identity.office, name, "upload.looks_cut", sha256)

    async def _read_again(self) -> None:
        """Digest and check an upload that was rewritten, from its beginning: both can only run forwards."""
        self._digest = hashlib.sha256()
        self._check = content.start_check(self.route.address, self._desk.config.content.severities)
        for number in range(-(-self._sealed_bytes // CHUNK_BYTES)):
            plain = await self._read_back(number)
            self._digest.update(plain)
            self._check.feed(plain)
        self._digest.update(self._tail)
        self._check.feed(bytes(self._tail))

    async def _read_back(self, number: int) -> bytes:
        return self._sealer.open_chunk(number, await self._staging.read_back(number))

    async def _discard(self) -> None:
        self._tail = bytearray()
        self._ahead.clear()
        await self._staging.discard()

    def _fail(self, failure: Refused | Deferred) -> None:
        self._failure = self._failure or failure.again()

    def _raise_failure(self) -> None:
        self._failure = self._failure or self._staging.failure
        if self._failure is not None:
            raise self._failure.again()
