"""An upload: bytes arriving under one name, until they are a transfer, a partial or nothing.

Its bytes are kept by `relay.sheaf`: sealed as soon as a chunk is full, they wait in the store, invisible; a file that
fits one chunk travels with the commit.  Uploads share nothing.

How it ends:

* `close` makes it durable and promises its delivery, or refuses it and keeps nothing; under a temporary name it is
  kept for its RENAME instead.
* `leave` keeps what is there so that its owner can go on within a day: the connection was lost, or the CLOSE came
  from a client that looks interrupted.
* `abort` keeps nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from relay import journal
from relay.attempt import Bench, Destination
from relay.buffers import Buffers
from relay.config import describe_size
from relay.errors import Deferred, Refused
from relay.journal import Journal
from relay.ledger import Accepted, Partial, SealedPayload, TransferDraft
from relay.lifecycle import LIVE
from relay.manners import Handwriting, Manners
from relay.model import Identity, Route, TransferId
from relay.rival import Rival
from relay.sheaf import Sheaf
from relay.staging import Staging
from relay.unitparts import seal_part
from relay.vault import CHUNK_BYTES, Sealer, new_key, new_uid

_HOLDER_BYTES = 16


class Upload:
    """Bytes arriving under one name; nothing is promised before `close` returns.

    After anything was refused or deferred, every later call answers the same: a client that misses the first error
    (CLIENTS.md section 2c) meets it again.
    """

    def __init__(
        self,
        bench: Bench,
        destination: Destination,
        identity: Identity,
        manners: Manners,
        journal_: Journal,
        buffers: Buffers,
        partial: Partial | None = None,
        rival: Rival | None = None,
    ) -> None:
        """Begin an upload, or, with *partial*, prepare to go on with one: see `resume`.

        *buffers* are those of the session; *rival* is what is accepted under its name already.
        """
        self.destination = destination
        self.client_mtime: datetime | None = None if partial is None else partial.client_mtime
        # How long it may become within the office's quota, as far as the OPEN could tell; None: any length.
        self.room_bytes: int | None = None
        self._bench = bench
        self._identity = identity
        self._journal = journal_
        self._uid = new_uid() if partial is None else partial.uid
        self._key = (
            new_key()
            if partial is None
            else bench.vault.unwrap_key(partial.wrapped_key, partial.uid, size_bytes=0, chunk_count=0)
        )
        self._sealer = Sealer(self._key, self._uid)
        holder = os.urandom(_HOLDER_BYTES) if partial is None else partial.holder
        self._staging = Staging(bench.ledger, self._uid, identity.office, holder, bench.clock, buffers)
        most_bytes, severities = bench.config.limits.upload_bytes, bench.config.content.severities
        # No method of this upload: each would hold the other, and wait for the garbage collector with all that they hold.
        self._sheaf = Sheaf(
            self._sealer, self._staging, lambda: destination.start_check(severities), buffers, most_bytes=most_bytes
        )
        self._buffers = buffers
        self._is_resumed = partial is not None
        self._handwriting = Handwriting(manners, looked_whole=partial is not None and partial.looks_whole)
        self._rival = rival
        # When what is renamed now was closed; until then its owner had not sent the same bytes once more.
        self._closed_at = None if partial is None or not destination.is_renamed else partial.touched_at
        self._failure: Refused | Deferred | None = None
        self._is_over = False
        # One change at a time: another session of the office may take this upload over, or set its size, at any await.
        self._turn = asyncio.Lock()
        self._began = time.monotonic()

    @property
    def size_bytes(self) -> int:
        """How long the upload is so far, without what arrived ahead of its turn."""
        return self._sheaf.size_bytes

    @property
    def is_over(self) -> bool:
        """True once it was closed or given up."""
        return self._is_over

    @property
    def failure(self) -> Refused | Deferred | None:
        """What every further call is answered with, None while all is well."""
        return self._failure

    def write_now(self, offset: int, data: bytes | memoryview) -> bool:
        """Take *data* if that needs no waiting; False where `write` must be awaited instead.

        Raises as `write`.
        """
        self._require_open()
        if not data:
            return True
        if self._rival is not None or self._sheaf.is_resting or self._sheaf.is_sealed(offset):
            return False
        if self._staging.is_full or self._turn.locked():
            return False
        self._place(offset, data)
        return True

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Take *data* at *offset*; Refused for what the content or the size tells so far, Deferred from the store.

        Refused ``transfer.conflict`` at the first byte that is not that of the file accepted under this name.
        """
        async with self._turn:
            await self._staging.make_room()
            self._require_open()
            if not data:
                return
            await self._compare(offset, data)
            with self._changing():
                if self._sheaf.is_resting:
                    await self._sheaf.wake()
                    self._buffers.touch(self)
                over = await self._sheaf.write_over(offset, data)
            self._require_open()
            self._place(offset + over, data[over:], len(data))

    async def _compare(self, offset: int, data: bytes | memoryview) -> None:
        if self._rival is None:
            return
        async with self._buffers.reading:
            differs = await self._rival.differs(offset, data)
        self._require_open()
        if differs:
            refused = self._rival.conflict()
            self._fail(refused)
            self._let_go()
            raise refused
        if self._rival.is_gone:
            self._rival = None

    def _place(self, offset: int, data: bytes | memoryview, length: int | None = None) -> None:
        """Put *data* into the sheaf; *length* is that of the WRITE it is the rest of."""
        self._handwriting.note_write(len(data) if length is None else length)
        try:
            self._require_room(offset + len(data))
            if data:
                self._sheaf.put(offset, data)
                self._buffers.touch(self)
        except MemoryError as error:
            raise self._give_up_change(error) from error
        except BaseException as error:
            self._give_up_change(error)
            raise

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let a change that fails be the last: a CLOSE that was answered OK would promise other bytes than were sent."""
        try:
            yield
        except MemoryError as error:
            raise self._give_up_change(error) from error
        except BaseException as error:
            self._give_up_change(error)
            raise

    def _give_up_change(self, error: BaseException) -> Refused | Deferred:
        """Know that nobody can tell how much of a change was made; returns what is answered from now on."""
        if not isinstance(error, (Refused, Deferred)):
            error = Deferred("server.busy", detail=f"a change ended in {type(error).__name__}")
        self._fail(error)
        self._let_go()
        return error

    def _require_open(self) -> None:
        """Raise what failed; also where this upload was taken over or given up while its client still writes."""
        self._raise_failure()
        if self._is_over:
            raise Refused("upload.unfinished", detail="a handle that was overtaken")

    def _require_room(self, end: int) -> None:
        if self.room_bytes is not None and end > self.room_bytes:
            raise Refused("limit.quota", limit=describe_size(self._bench.config.limits.stored_bytes_per_office))

    async def truncate(self, size: int) -> None:
        """Take the client's word for the size: shorten to it, or remember that more was to come."""
        async with self._turn:
            self._require_open()
            self._handwriting.declared_size = size
            with self._changing():
                await self.go_back(size)
                self._buffers.touch(self)

    async def amend(self, size_bytes: int | None, client_mtime: datetime | None) -> None:
        """Take size and time as the client sets them, where it does; permissions mean nothing here."""
        if size_bytes is not None:
            await self.truncate(size_bytes)
        self.client_mtime = client_mtime or self.client_mtime

    async def go_back(self, size: int) -> None:
        """Forget what is behind *size*: the client goes on from there."""
        await self._sheaf.cut(size)

    async def sync(self) -> None:
        """Bring what arrived so far onto stable storage (fsync@openssh.com); promises nothing about delivery."""
        async with self._turn:
            await self._staging.settle()
            self._require_open()
            if self.size_bytes:
                kept = await self._keep(is_closed=False)
                self._staging.arrived(kept.payload)

    async def resume(self, partial: Partial) -> None:
        """Go on where *partial* ended, which this upload was made with and holds."""
        self._staging.staged = partial.payload
        await self._sheaf.resume(partial.size_bytes)
        self._buffers.touch(self)

    def rest(self) -> bool:
        """Let what is in memory go into the store until the client goes on; False while something is under way."""
        if self._turn.locked():
            return False
        if self._is_over or self._failure is not None or self._staging.failure is not None:
            self._sheaf.let_go()
        else:
            self._sheaf.rest()
        if self._rival is not None:
            self._rival.forget()
        self._buffers.leave(self)
        return True

    def _let_go(self) -> None:
        """Hold nothing in memory: it is over, or can only be refused."""
        self._sheaf.let_go()
        self._rival = None
        self._buffers.leave(self)

    async def close(self) -> Accepted | None:
        """Make the upload durable and promise its delivery; under a temporary name keep it for its RENAME (None).

        On return the transfer survives a power cut.  On a refusal no byte is kept and the refusal is in the ledger,
        but for an upload that only looks cut off, or one that was being renamed: these can be tried again.
        On Deferred nothing was promised and the sender may try again; what was kept before is kept.
        """
        if self._is_over:
            self._raise_failure()
        self._is_over = True
        async with self._turn:
            try:
                return await self._close()
            finally:
                self._let_go()

    async def _close(self) -> Accepted | None:
        try:
            await self._staging.settle()
            self._raise_failure()
            self._require_no_hole(self.size_bytes)
            if self.destination.is_temporary:
                await self._keep(is_closed=True)
                return None
            accepted = await self._commit(await self._complete())
        except Refused as refused:
            await self._end_refused(refused)
            raise
        except Deferred as deferred:
            self._fail(deferred)
            await self._bench.note_attempt(self.destination.path, self._identity)
            if not self._is_resumed:
                await self._sheaf.discard()
            journal.upload_deferred(self._journal, code=deferred.code, detail=deferred.detail)
            raise
        self._tell(accepted)
        return accepted

    async def _commit(self, draft: TransferDraft) -> Accepted:
        """Commit when it is this office's turn."""
        async with self._bench.turns.taken(draft.route.sender):
            return await self._commit_now(draft)

    async def _commit_now(self, draft: TransferDraft) -> Accepted:
        """Commit; what conflicts with an earlier transfer may be the whole of one that was cut off."""
        ledger, clock = self._bench.ledger, self._bench.clock
        try:
            return await ledger.commit_transfer(draft, now=clock())
        except Refused as refused:
            if refused.code != "transfer.conflict":
                raise
            completes = await self._find_cut_off(draft.route, draft.payload.size_bytes)
            if completes is None:
                raise
        # Decided again in the transaction: meanwhile another session may have done the same.
        return await ledger.commit_transfer(replace(draft, completes=completes), now=clock())

    async def _find_cut_off(self, route: Route, size: int) -> TransferId | None:
        """Return the live transfer of this name if this upload begins with all of its bytes, and has more.

        Its digest says what they were: the digest of as many bytes of this upload must be the same.
        """
        address = route.address
        earlier = await self._bench.ledger.find_sent(route.sender, route.recipient, address.name)
        if earlier is None or earlier.state not in LIVE or earlier.size_bytes >= size:
            return None
        return earlier.id if await self._sheaf.digest_of(earlier.size_bytes) == earlier.sha256 else None

    async def _end_refused(self, refused: Refused) -> None:
        self._fail(refused)
        is_cut = refused.code == "upload.looks_cut"
        sha256 = self._sheaf.sha256 if is_cut else None
        if not self.destination.is_renamed and not (is_cut and await self._is_kept()):
            await self._sheaf.discard()
        name, folder = self.destination.name, self.destination.folder
        await self._bench.refuse(name, folder, self._identity, refused, self._journal, sha256=sha256)

    async def _is_kept(self) -> bool:
        try:
            await self._keep_cut()
        except (Refused, Deferred):
            return False
        return True

    async def ended(self) -> None:
        """Wait until what ends this upload has been done."""
        async with self._turn:
            return

    async def leave(self, reason: str) -> None:
        """Keep what is there for a day, for its owner to go on with; never raises, and does nothing when it is over."""
        if self._is_over:
            return
        if self._failure is not None or not self.size_bytes:
            await self.abort(reason)
            return
        self._is_over = True
        async with self._turn:
            try:
                await self._leave(reason)
            finally:
                self._let_go()

    async def _leave(self, reason: str) -> None:
        size = self.size_bytes
        try:
            await self._staging.settle()
            await self._keep_cut()
        except (Refused, Deferred) as error:
            journal.upload_aborted(self._journal, reason=f"{reason}; not kept: {error.code}", size_bytes=size)
            if not self._is_resumed:
                await self._sheaf.discard()
        else:
            journal.upload_left(self._journal, reason=reason, size_bytes=size)
        self._fail(Refused("upload.unfinished", detail=reason))

    async def _keep_cut(self) -> None:
        """Keep what was cut off, if its office has not too much of that already; the journal is told by the caller."""
        if not await self._bench.may_leave_partial(self.destination.path, self._identity):
            raise Refused("limit.partials", limit=self._bench.config.limits.partials_per_office)
        await self._keep(is_closed=False)

    async def _keep(self, *, is_closed: bool) -> Partial:
        """Bring everything into the store, synced, as a partial, the open chunk included.

        Refused where somebody else has taken it over by now.
        """
        if self._staging.failure is not None:
            # What was on its way then is lost: a partial would have a gap.
            raise self._staging.failure.again()
        size = self.size_bytes
        now = self._bench.clock()
        partial = Partial(
            office=self._identity.office,
            path=self.destination.path,
            folder=self.destination.folder,
            payload=self._staging.staged,
            uid=self._uid,
            holder=self._staging.holder,
            wrapped_key=self._bench.vault.wrap_key(self._key, self._uid, size_bytes=0, chunk_count=0),
            size_bytes=size,
            is_closed=is_closed,
            looks_whole=is_closed and not self._handwriting.looks_cut(size),
            client_mtime=self.client_mtime,
            touched_at=now,
        )
        try:
            return await self._bench.ledger.save_partial(partial, self._sheaf.seal_rest(), now=now)
        except LookupError:
            raise Refused("upload.unfinished", detail="taken over") from None

    def _tell(self, accepted: Accepted) -> None:
        transfer = accepted.transfer
        seconds = time.monotonic() - self._began
        self._bench.meters.accept.observe(seconds)
        self._bench.meters.repeats += accepted.is_repeat
        journal.transfer_accepted(
            self._journal,
            transfer=transfer.id,
            kind=transfer.kind,
            sender=transfer.sender,
            recipient=transfer.recipient,
            size_bytes=transfer.size_bytes,
            seconds=seconds,
            is_repeat=accepted.is_repeat,
        )

    async def abort(self, reason: str) -> None:
        """Give up what the client did not finish; never raises, and does nothing the second time."""
        if self._is_over:
            return
        self._is_over = True
        journal.upload_aborted(self._journal, reason=reason, size_bytes=self.size_bytes)
        try:
            await self._abort(reason)
        finally:
            self._let_go()

    async def _abort(self, reason: str) -> None:
        if isinstance(self._failure, Refused):
            # The client left at the first error, without the CLOSE that would have told it once more.
            name, folder = self.destination.name, self.destination.folder
            await self._bench.refuse(name, folder, self._identity, self._failure, self._journal)
        else:
            await self._bench.note_attempt(self.destination.path, self._identity)
        is_stores_fault = isinstance(self._failure, Deferred)
        self._fail(Refused("upload.unfinished", detail=reason))
        if not (self._is_resumed and is_stores_fault):
            async with self._turn:
                await self._sheaf.discard()

    async def _complete(self) -> TransferDraft:
        """Seal what is left and judge the whole."""
        size = self.size_bytes
        route, sheaf = self.destination.route, self._sheaf
        assert route is not None
        await sheaf.judge()
        # Before the content is judged as a whole: what only looks cut off is kept, for its owner to go on with.
        if size and self._handwriting.looks_cut(size) and not await self._was_cut_there_before(sheaf.sha256):
            raise Refused("upload.looks_cut")
        findings = (*route.findings, *sheaf.check.finish())
        count = -(-size // CHUNK_BYTES)
        return TransferDraft(
            route=route,
            identity=self._identity,
            payload=SealedPayload(
                uid=self._uid,
                wrapped_key=self._bench.vault.wrap_key(self._key, self._uid, size_bytes=size, chunk_count=count),
                master_id=self._bench.vault.master_id,
                size_bytes=size,
                chunk_count=count,
                sha256=sheaf.sha256,
                chunks=sheaf.seal_rest(),
                name_sealed=None if route.address.is_standard else self._sealer.seal_name(route.address.name),
                staged=self._staging.staged,
                holder=self._staging.holder,
            ),
            in_folder=self.destination.folder is not None,
            client_mtime=self.client_mtime,
            findings=findings,
            path=self.destination.path,
            is_renamed=self.destination.is_renamed,
            quota_bytes=self._bench.config.limits.stored_bytes_per_office,
            part=seal_part(route.address, route.sender, sheaf.check.gist, self._bench.vault, self._sealer),
        )

    def _require_no_hole(self, size: int) -> None:
        if self._sheaf.has_gap or (self._handwriting.declared_size or 0) > size:
            raise Refused("upload.hole", detail=f"a hole at {size}")

    async def _was_cut_there_before(self, sha256: bytes) -> bool:
        name, office = self.destination.name, self._identity.office
        before = self._closed_at or self._bench.clock()
        return await self._bench.ledger.was_refused(office, name, "upload.looks_cut", sha256, before=before)

    def _fail(self, failure: Refused | Deferred) -> None:
        self._failure = self._failure or failure.again()

    def _raise_failure(self) -> None:
        self._failure = self._failure or self._staging.failure
        if self._failure is not None:
            raise self._failure.again()
