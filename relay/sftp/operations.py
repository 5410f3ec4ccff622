"""What each SFTP request means in an office's tree.

Translates and decides nothing: paths become places (`relay.tree`), uploads go to intake, reads to collection,
listings to the ledger.  One object a session.

`answer_now` answers what needs no waiting, `answer` everything; both return a packed reply and raise `Refused` or
`Deferred`.  Nobody else's files can be named here: every look-up carries the office of the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

from relay import journal, tree
from relay.errors import FX_EOF, FX_OK, FX_OP_UNSUPPORTED, Deferred, Refused
from relay.journal import Journal
from relay.manners import Manners
from relay.model import Identity
from relay.routing import check_recipient
from relay.sftp import wire
from relay.sftp.changes import Changes
from relay.sftp.desks import Desks
from relay.sftp.handles import Downloading, Generated, Handle, Handles, Listing, Swallowing, Uploading
from relay.sftp.keytray import KeyDraft
from relay.sftp.limits import Share
from relay.sftp.listing import Directories
from relay.sftp.lookup import Lookup, moment
from relay.sftp.order import find_lanes
from relay.sftp.wire import Attributes, NameEntry, Reply, Request
from relay.temporary import is_temporary
from relay.tree import Directory, GeneratedFile, KeyFile, Place, SentFile

_WRITING = wire.FXF_WRITE | wire.FXF_APPEND | wire.FXF_CREAT | wire.FXF_TRUNC
# From this version on a client says in INIT that it is lftp, the one that asks for it.
_LFTP_VERSION = 6


class Operations:
    """The tree of one office, for one session."""

    def __init__(
        self,
        desks: Desks,
        identity: Identity,
        journal_: Journal,
        has_drained: Callable[[], bool],
        drained: Callable[[], Awaitable[bool]],
        *,
        ends_short: bool,
    ) -> None:
        """Begin with nothing open.

        *has_drained* tells whether all replies have left, *drained* waits for it and is False where the connection
        ended first; *ends_short* as in `relay.manners.Manners`.
        """
        self._desks = desks
        self._identity = identity
        self._journal = journal_
        self._has_drained = has_drained
        self._drained = drained
        self._manners = Manners(ends_short=ends_short)
        self._buffers = desks.intake.lend_buffers()
        self._handles = Handles(desks.config.limits.handles_per_session, desks.shares.join(identity))
        self._lookup = Lookup(desks, identity, self._handles, journal_)
        self._directories = Directories(desks, identity, self._lookup)
        self._changes = Changes(desks, identity, self._lookup, journal_)
        self._unknown: set[str] = set()
        self._not_removed: tuple[str, Refused | Deferred] | None = None

    # --- the session's questions ---------------------------------------------------------------------------------

    def greet(self, init: wire.Init) -> bytes:
        """Answer INIT.  lftp sets the size of a whole file before it closes it."""
        if init.version >= _LFTP_VERSION:
            self._manners = Manners(sets_size=True)
        return wire.pack_version(wire.EXTENSIONS)

    def lanes(self, request: Request) -> tuple[str, ...]:
        """Return what *request* touches: requests with a lane in common are answered in order."""
        return find_lanes(request, self._handles)

    def answer_now(self, request: Request) -> Reply | None:
        """Return the reply where it needs no waiting, else None; raises as `answer`."""
        kind = request.type
        if kind == wire.WRITE:
            handle = self._handles.find(request.subject)
            if type(handle) is Uploading and self._write_now(handle, request):
                return wire.pack_status(request.id, FX_OK)
        elif kind == wire.READ:
            handle = self._handles.find(request.subject)
            if type(handle) is Downloading:
                data = handle.reading.read_now(request.offset, min(request.length, wire.READ_BYTES_MOST))
                if data is not None:
                    return self._data(request, handle, data)
        elif kind == wire.REALPATH:
            return self._realpath(request)
        elif kind == wire.CLOSE:
            handle = self._handles.find(request.subject)
            if type(handle) is Downloading:
                # Now, because a client may go away right behind its CLOSE (cftp does).
                handle.has_arrived = self._has_drained()
        return None

    async def answer(self, request: Request) -> Reply:
        """Return the reply to *request*; Refused or Deferred carry any other answer."""
        perform = self._PERFORM.get(request.type)
        if perform is None:
            self._note_unknown(f"sftp type {request.type}")
            return wire.pack_status(request.id, FX_OP_UNSUPPORTED, "not supported")
        return await perform(self, request)

    async def abandon(self, reason: str) -> None:
        """Let go of every handle because the session ended: nothing open is committed or collected."""
        await self._handles.abandon(reason, lambda upload: self._desks.intake.forget(upload, self._identity))

    @property
    def share(self) -> Share:
        """What this session's certificate holds in all of its sessions."""
        return self._handles.share

    @property
    def has_uploads(self) -> bool:
        """True while the client has a file open for writing."""
        return self._handles.has_uploads

    @property
    def upload_count(self) -> int:
        """How many files the client has open for writing."""
        return self._handles.upload_count

    @property
    def handle_count(self) -> int:
        """How many files and folders the client has open."""
        return self._handles.count

    # --- files ---------------------------------------------------------------------------------------------------

    async def _open(self, request: Request) -> bytes:
        is_upload = bool(request.length & _WRITING)
        place = await self._resolve_target(request.subject) if is_upload else tree.resolve_path(request.subject)
        with self._handles.room():
            if is_upload and isinstance(place, GeneratedFile) and tree.is_swallowed(place):
                handle: Handle = self._lookup.swallow(Swallowing(place))
            elif is_upload and isinstance(place, KeyFile):
                is_afresh = bool(request.length & (wire.FXF_TRUNC | wire.FXF_EXCL))
                handle = self._lookup.keys.open(place, request.attributes.mtime, is_afresh=is_afresh)
            else:
                handle = await (self._open_upload(place, request) if is_upload else self._open_to_read(place))
            return wire.pack_handle(request.id, self._handles.add(handle))

    async def _resolve_target(self, raw: bytes) -> Place:
        """Return the place that an upload is given; that there can be none is kept for its sender to read."""
        try:
            return tree.resolve_path(raw)
        except Refused as refused:
            await self._desks.intake.refuse_path(raw, self._identity, refused, self._journal)
            raise

    async def _open_to_read(self, place: Place) -> Generated | Downloading:
        if isinstance(place, Directory):
            raise Refused("tree.is_directory")
        if isinstance(place, GeneratedFile):
            page = await self._lookup.generated(place)
            return Generated(place, page.data, page.changed_at)
        if isinstance(place, KeyFile):
            draft = self._lookup.require_key(place)
            return Generated(place, bytes(draft.data), draft.mtime)
        transfer = await self._lookup.find(place)
        return Downloading(place, await self._desks.collection.open(transfer, self._identity, self._journal))

    async def _open_upload(self, place: Place, request: Request) -> Uploading:
        if isinstance(place, Directory):
            raise Refused("tree.is_directory")
        if not isinstance(place, SentFile):
            raise Refused("tree.read_only")
        self._lookup.forget(place)
        told_size = self._lookup.take_told_size(place)
        await self._desks.intake.settled(place.upload_path, self._identity)
        flags, mtime = request.length, moment(request.attributes.mtime)
        try:
            upload = await self._desks.intake.open(
                place.upload_path,
                place.address,
                self._identity,
                self._manners,
                self._journal,
                is_afresh=bool(flags & (wire.FXF_TRUNC | wire.FXF_EXCL)),
                buffers=self._buffers,
            )
        except (Refused, Deferred) as error:
            self._lookup.remember(place, error)
            raise
        upload.client_mtime = mtime or upload.client_mtime
        # Appending goes on at the end of what is there, whatever the offset says; where nothing is there, an offset
        # behind the beginning is a hole and not a file.
        is_appending = bool(flags & wire.FXF_APPEND) and upload.size_bytes > 0
        if is_appending and told_size is not None and told_size < upload.size_bytes:
            # STAT told of less: what arrived since, on the connection that is taken over, comes once more.
            await upload.go_back(told_size)
        return Uploading(place, upload, is_appending)

    async def _close(self, request: Request) -> bytes:
        handle = self._handles.require(request.subject)
        # Bytes that are still on their way here are not yet the recipient's.
        if isinstance(handle, Downloading) and not handle.has_arrived and not await self._drained():
            handle.reading.abandon()
        # Only now: until it is answered for, a lost session must find the handle and give it up.
        self._handles.remove(request.subject)
        if isinstance(handle, Uploading):
            try:
                await self._close_upload(handle)
            finally:
                self._desks.intake.forget(handle.upload, self._identity)
        elif isinstance(handle, Downloading):
            await handle.reading.close()
        elif isinstance(handle, Swallowing):
            self._lookup.swallow(handle)
        elif isinstance(handle, KeyDraft) and await self._lookup.keys.close(handle):
            self._lookup.forget_certificates()
        return wire.pack_status(request.id, FX_OK)

    async def _close_upload(self, handle: Uploading) -> None:
        # A handle that was overtaken, by opening its name again, says nothing about that name any more.
        is_stale = handle.upload.is_over
        try:
            await handle.upload.close()
        except (Refused, Deferred) as error:
            # What looks cut off is still there to go on with, which clients ask STAT about.
            if not is_stale and error.code != "upload.looks_cut":
                self._lookup.remember(handle.place, error)
            raise
        self._lookup.forget(handle.place)

    async def _read(self, request: Request) -> Reply:
        handle = self._handles.require(request.subject)
        length = min(request.length, wire.READ_BYTES_MOST)
        if isinstance(handle, Generated):
            data = handle.data[request.offset : request.offset + length]
            return wire.pack_data(request.id, data) if data else wire.pack_status(request.id, FX_EOF)
        if not isinstance(handle, Downloading):
            raise Refused("tree.not_found", detail="READ on a handle that is not read from")
        self._handles.keep_warm(handle.reading)
        return self._data(request, handle, await handle.reading.read(request.offset, length))

    def _data(self, request: Request, handle: Downloading, data: bytes | memoryview) -> Reply:
        if not data:
            return wire.pack_status(request.id, FX_EOF)
        handle.reading.note_served(request.offset, len(data))
        return wire.frame_data(request.id, data)

    async def _write(self, request: Request) -> bytes:
        handle = self._handles.require(request.subject)
        if isinstance(handle, Swallowing):
            handle.size = max(handle.size, request.offset + len(request.data))
            return wire.pack_status(request.id, FX_OK)
        if isinstance(handle, KeyDraft):
            self._lookup.keys.write(handle, request.offset, request.data)
            return wire.pack_status(request.id, FX_OK)
        if not isinstance(handle, Uploading):
            raise Refused("tree.read_only", detail="WRITE on a handle that is not written to")
        try:
            await handle.upload.write(handle.offset(request.offset), request.data)
        except (Refused, Deferred) as error:
            self._remember_write(handle, error)
            raise
        return wire.pack_status(request.id, FX_OK)

    def _write_now(self, handle: Uploading, request: Request) -> bool:
        try:
            return handle.upload.write_now(handle.offset(request.offset), request.data)
        except (Refused, Deferred) as error:
            self._remember_write(handle, error)
            raise

    def _remember_write(self, handle: Uploading, error: Refused | Deferred) -> None:
        """Tell STAT of what a WRITE was refused for, unless the name was opened again, or given up, meanwhile."""
        if not handle.upload.is_over:
            self._lookup.remember(handle.place, error)

    async def _fsync(self, request: Request) -> bytes:
        handle = self._handles.require(wire.extension_handle(request))
        if isinstance(handle, Uploading):
            await handle.upload.sync()
        return wire.pack_status(request.id, FX_OK)

    # --- attributes ----------------------------------------------------------------------------------------------

    async def _stat(self, request: Request) -> bytes:
        return wire.pack_attrs(request.id, await self._lookup.attributes(tree.resolve_path(request.subject)))

    async def _fstat(self, request: Request) -> bytes:
        handle = self._handles.require(request.subject)
        return wire.pack_attrs(request.id, await self._lookup.handle_attributes(handle))

    async def _setstat(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        if isinstance(place, SentFile):
            await self._set_sent(place, request.attributes)
        elif isinstance(place, KeyFile):
            # As it was submitted, or will be by its RENAME: a time or a mode changes nothing of it.
            self._lookup.require_key(place)
        elif isinstance(place, GeneratedFile) and self._lookup.has_swallowed(place):
            self._lookup.amend_swallowed(place, request.attributes)
        else:
            found = await self._lookup.attributes(place)
            if request.attributes.size not in (None, found.size):
                raise Refused("tree.read_only")
        return wire.pack_status(request.id, FX_OK)

    async def _set_sent(self, place: SentFile, attributes: Attributes) -> None:
        await self._desks.intake.settled(place.upload_path, self._identity)
        mtime = moment(attributes.mtime)
        if not await self._desks.intake.amend(
            place.upload_path, self._identity, size_bytes=attributes.size, client_mtime=mtime
        ):
            transfer = await self._lookup.find(place)
            if attributes.size not in (None, transfer.size_bytes):
                raise Refused("transfer.accepted")
            if mtime is not None:
                await self._desks.ledger.set_sent_mtime(transfer.id, mtime)

    async def _fsetstat(self, request: Request) -> bytes:
        handle = self._handles.require(request.subject)
        if isinstance(handle, Uploading):
            # Permissions are accepted quietly (LESSONS: SETSTAT).
            await handle.upload.amend(request.attributes.size, moment(request.attributes.mtime))
        elif isinstance(handle, Swallowing):
            size, _, _, mtime = request.attributes
            handle.size = handle.size if size is None else size
            handle.mtime = handle.mtime if mtime is None else mtime
        elif isinstance(handle, KeyDraft) and request.attributes.size is not None:
            self._lookup.keys.truncate(handle, request.attributes.size)
        return wire.pack_status(request.id, FX_OK)

    # --- directories ---------------------------------------------------------------------------------------------

    async def _opendir(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        if not isinstance(place, Directory):
            await self._lookup.attributes(place)
            raise Refused("tree.not_directory")
        with self._handles.room():
            return wire.pack_handle(request.id, self._handles.add(await self._directories.open(place)))

    async def _readdir(self, request: Request) -> bytes:
        listing = self._handles.require(request.subject)
        if not isinstance(listing, Listing):
            raise Refused("tree.not_directory")
        entries = await self._directories.next_entries(listing)
        return wire.pack_names(request.id, entries) if entries else wire.pack_status(request.id, FX_EOF)

    # --- changes -------------------------------------------------------------------------------------------------

    async def _remove(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        try:
            await self._changes.remove(place)
        except (Refused, Deferred) as error:
            self._not_removed = (place.path, error.again())
            raise
        return wire.pack_status(request.id, FX_OK)

    async def _rename(self, request: Request) -> bytes:
        return await self._move(request, request.subject, request.target)

    async def _posix_rename(self, request: Request) -> bytes:
        source, target = wire.extension_paths(request)
        return await self._move(request, source, target)

    async def _move(self, request: Request, source: bytes, target: bytes) -> bytes:
        here = tree.resolve_path(source)
        is_upload = isinstance(here, SentFile) and is_temporary(here.name)
        there = await self._resolve_target(target) if is_upload else tree.resolve_path(target)
        await self._changes.move(here, there)
        return wire.pack_status(request.id, FX_OK)

    async def _mkdir(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        if not isinstance(place, Directory) or place.address is None:
            raise Refused("tree.no_directories")
        office = await self._desks.ledger.find_office(place.address)
        successor = None if office is None else await self._desks.ledger.find_successor(office)
        check_recipient(place.address, office, successor, self._desks.clock())
        return wire.pack_status(request.id, FX_OK)

    async def _rmdir(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        await self._lookup.attributes(place)
        if isinstance(place, Directory):
            raise Refused("tree.read_only")
        if self._not_removed is not None and self._not_removed[0] == place.path:
            # Go's library follows a refused REMOVE with an RMDIR, and its user reads the answer to that alone.
            raise self._not_removed[1].again()
        raise Refused("tree.not_directory")

    # --- names of paths and extensions ---------------------------------------------------------------------------

    def _realpath(self, request: Request) -> bytes:
        path = tree.normalise_path(request.subject).encode()
        return wire.pack_names(request.id, [wire.pack_entry(NameEntry(path, path, wire.NO_ATTRIBUTES))])

    async def _realpath_later(self, request: Request) -> bytes:
        return self._realpath(request)

    async def _statvfs(self, request: Request) -> bytes:
        """Tell the office's quota and what is left of it, at any place that there is."""
        await self._lookup.attributes(tree.resolve_path(wire.extension_path(request)))
        quota = self._desks.config.limits.stored_bytes_per_office
        used = await self._desks.ledger.stored_bytes(self._identity.office)
        return wire.pack_statvfs(request.id, quota, max(0, quota - used))

    async def _extended(self, request: Request) -> bytes:
        if request.subject == wire.LIMITS:
            return wire.pack_limits(request.id, self._desks.config.limits.handles_per_session)
        if request.subject == wire.FSYNC:
            return await self._fsync(request)
        if request.subject == wire.POSIX_RENAME:
            return await self._posix_rename(request)
        if request.subject == wire.STATVFS:
            return await self._statvfs(request)
        self._note_unknown("sftp extension")
        return wire.pack_status(request.id, FX_OP_UNSUPPORTED, "not supported")

    def _note_unknown(self, request: str) -> None:
        """Journal once a session what it asks for in vain; there are not many types."""
        if request not in self._unknown:
            self._unknown.add(request)
            journal.request_refused(self._journal, request=request)

    _PERFORM: ClassVar[Mapping[int, Callable[[Operations, Request], Awaitable[Reply]]]] = MappingProxyType(
        {
            wire.OPEN: _open,
            wire.CLOSE: _close,
            wire.READ: _read,
            wire.WRITE: _write,
            wire.STAT: _stat,
            wire.LSTAT: _stat,
            wire.FSTAT: _fstat,
            wire.SETSTAT: _setstat,
            wire.FSETSTAT: _fsetstat,
            wire.OPENDIR: _opendir,
            wire.READDIR: _readdir,
            wire.REMOVE: _remove,
            wire.RENAME: _rename,
            wire.MKDIR: _mkdir,
            wire.RMDIR: _rmdir,
            wire.REALPATH: _realpath_later,
            wire.EXTENDED: _extended,
        }
    )
