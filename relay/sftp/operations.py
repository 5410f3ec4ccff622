"""What each SFTP request means in an office's tree.

Translates and decides nothing: paths become places (`relay.tree`), uploads go to intake, reads to collection,
listings to the ledger.  One object a session; what it holds are the session's handles and what it must remember to
keep its answers consistent (a generated file keeps its size for a minute; a refused name keeps its refusal).

`answer_now` answers what needs no waiting, `answer` everything; both return a packed reply and raise `Refused` or
`Deferred`.  Nobody else's files can be named here: every look-up carries the office of the connection.
"""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from relay import naming, tree
from relay.collection import Collection, Reading
from relay.config import Config
from relay.errors import FX_EOF, FX_OK, FX_OP_UNSUPPORTED, Deferred, Refused
from relay.intake import Intake, Manners, Upload
from relay.journal import Journal
from relay.ledger import Entry, Ledger, ListingCursor, ListingPage, Shelf
from relay.lifecycle import LIVE
from relay.model import Identity, OfficeNumber, Transfer
from relay.sftp import wire
from relay.sftp.wire import Attributes, NameEntry, Request
from relay.status import StatusDesk, render_folder_notice, render_readme
from relay.tree import Directory, Folder, GeneratedFile, Place, SentFile, ShelfFile

# A generated file tells the same size for this long: rclone, curl and sshfs read exactly what STAT said.
_PINNED_SECONDS = 60.0
# Readings that keep their chunks in memory; a client with more handles open gets them from the store again.
_WARM_READINGS = 4
# Names that were refused in this session, for clients that learn of it only by STAT.
_REFUSALS_MOST = 256
_EXTENSIONS = ((b"posix-rename@openssh.com", b"1"), (b"fsync@openssh.com", b"1"), (b"limits@openssh.com", b"1"))
_POSIX_RENAME, _FSYNC, _LIMITS = (name for name, _ in _EXTENSIONS)


@dataclass(frozen=True, slots=True)
class Desks:
    """The stations that a session talks to; one set a process."""

    ledger: Ledger
    intake: Intake
    collection: Collection
    status: StatusDesk
    config: Config
    clock: Callable[[], datetime]


@dataclass(slots=True)
class _Listing:
    """An open directory: entries that are ready, packed, and where the next come from."""

    place: Directory
    more: AsyncIterator[list[bytes]]
    ready: list[bytes] = field(default_factory=list)
    is_done: bool = False


@dataclass(slots=True)
class _Bytes:
    """An open generated file."""

    place: GeneratedFile
    data: bytes


@dataclass(slots=True)
class _Uploading:
    place: SentFile
    upload: Upload


@dataclass(slots=True)
class _Downloading:
    place: Place
    reading: Reading


_Handle = _Listing | _Bytes | _Uploading | _Downloading


class Operations:
    """The tree of one office, for one session."""

    def __init__(
        self,
        desks: Desks,
        identity: Identity,
        journal: Journal,
        drained: Callable[[], Awaitable[None]],
        *,
        ends_short: bool,
    ) -> None:
        """*drained* waits until all replies have left; *ends_short* as in `relay.intake.Manners`."""
        self._desks = desks
        self._identity = identity
        self._office = identity.office
        self._journal = journal
        self._drained = drained
        self._manners = Manners(ends_short=ends_short)
        self._handles: dict[bytes, _Handle] = {}
        self._next_handle = 0
        self._pinned: dict[str, tuple[bytes, float]] = {}
        self._refused: dict[str, Refused | Deferred] = {}
        self._warm: list[Reading] = []

    # --- the session's questions ---------------------------------------------------------------------------------

    def greet(self, init: wire.Init) -> bytes:
        """Answer INIT.  lftp is the one client that asks for version 6, and it sets the size of a whole file."""
        if init.version >= 6:  # noqa: PLR2004
            self._manners = Manners(sets_size=True)
        return wire.pack_version(_EXTENSIONS)

    def lanes(self, request: Request) -> tuple[str, ...]:
        """Return what *request* touches: requests with a lane in common are answered in order.

        A listing touches its directory as a whole and is marked by a trailing slash.
        """
        kind = request.type
        if kind in _BY_HANDLE or (kind == wire.EXTENDED and request.subject == _FSYNC):
            subject = request.subject if kind in _BY_HANDLE else _first_string(request)
            handle = self._handles.get(subject)
            if handle is None:
                return ()
            lane = handle.place.lane
            return (f"listing {subject!r}",) if isinstance(handle, _Listing) else (lane,)
        if kind == wire.RENAME:
            return (self._lane(request.subject), self._lane(request.target))
        if kind == wire.EXTENDED:
            return (
                tuple(self._lane(path) for path in _rename_paths(request)) if request.subject == _POSIX_RENAME else ()
            )
        if kind == wire.OPENDIR:
            return (self._lane(request.subject).split("/")[0] + "/",)
        return (self._lane(request.subject),)

    def _lane(self, path: bytes) -> str:
        try:
            return tree.resolve_path(path).lane
        except Refused:
            return "illegal"

    def answer_now(self, request: Request) -> bytes | None:
        """Return the reply where it needs no waiting, else None; raises as `answer`."""
        kind = request.type
        if kind == wire.WRITE:
            handle = self._handles.get(request.subject)
            if type(handle) is _Uploading and handle.upload.write_now(request.offset, request.data):
                return wire.pack_status(request.id, FX_OK)
        elif kind == wire.READ:
            handle = self._handles.get(request.subject)
            if type(handle) is _Downloading:
                length = min(request.length, wire.READ_BYTES_MOST)
                data = handle.reading.read_now(request.offset, length)
                if data is not None:
                    return self._data(request, handle, data)
        elif kind == wire.REALPATH:
            return self._realpath(request)
        return None

    async def answer(self, request: Request) -> bytes:
        """Return the reply to *request*; Refused or Deferred carry any other answer."""
        perform = _PERFORM.get(request.type)
        if perform is None:
            return wire.pack_status(request.id, FX_OP_UNSUPPORTED, "not supported")
        return await perform(self, request)

    async def abandon(self, reason: str) -> None:
        """Let go of every handle because the session ended: nothing open is committed or collected."""
        handles, self._handles = self._handles, {}
        for handle in handles.values():
            if isinstance(handle, _Uploading):
                await handle.upload.abort(reason)
            elif isinstance(handle, _Downloading):
                handle.reading.abandon()

    @property
    def has_uploads(self) -> bool:
        """True while the client has a file open for writing."""
        return any(isinstance(handle, _Uploading) for handle in self._handles.values())

    # --- handles -------------------------------------------------------------------------------------------------

    def _add(self, request: Request, handle: _Handle) -> bytes:
        self._next_handle += 1
        name = struct.pack(">I", self._next_handle)
        self._handles[name] = handle
        return wire.pack_handle(request.id, name)

    def _require_room(self) -> None:
        limit = self._desks.config.limits.handles_per_session
        if len(self._handles) >= limit:
            raise Deferred("limit.handles", limit=limit)

    def _handle(self, name: bytes) -> _Handle:
        try:
            return self._handles[name]
        except KeyError:
            raise Refused("tree.not_found", detail="no such handle") from None

    # --- files ---------------------------------------------------------------------------------------------------

    async def _open(self, request: Request) -> bytes:
        self._require_room()
        place = tree.resolve_path(request.subject)
        if request.length & (wire.FXF_WRITE | wire.FXF_APPEND | wire.FXF_CREAT | wire.FXF_TRUNC):
            return await self._open_upload(request, place)
        if isinstance(place, Directory):
            raise Refused("tree.is_directory")
        if isinstance(place, GeneratedFile):
            return self._add(request, _Bytes(place, await self._generated(place)))
        transfer = await self._find(place)
        reading = await self._desks.collection.open(transfer, self._identity, self._journal)
        return self._add(request, _Downloading(place, reading))

    async def _open_upload(self, request: Request, place: Place) -> bytes:
        if isinstance(place, Directory):
            raise Refused("tree.is_directory")
        if not isinstance(place, SentFile):
            raise Refused("tree.read_only")
        self._refused.pop(place.lane, None)
        for handle in self._open_uploads(place):
            await handle.upload.abort("opened again")
        try:
            upload = await self._desks.intake.open(
                place.name, place.address, self._identity, self._manners, self._journal
            )
        except (Refused, Deferred) as error:
            self._remember(place, error)
            raise
        upload.client_mtime = _moment(request.attributes.mtime)
        return self._add(request, _Uploading(place, upload))

    def _open_uploads(self, place: Place) -> list[_Uploading]:
        return [
            each for each in self._handles.values() if isinstance(each, _Uploading) and each.place.lane == place.lane
        ]

    def _remember(self, place: Place, error: Refused | Deferred) -> None:
        if len(self._refused) >= _REFUSALS_MOST:
            self._refused.pop(next(iter(self._refused)))
        self._refused[place.lane] = error

    async def _close(self, request: Request) -> bytes:
        handle = self._handle(request.subject)
        if isinstance(handle, _Downloading):
            # Bytes that are still on their way here are not yet the recipient's.
            await self._drained()
        # Only now: until it is answered for, a lost session must find the handle and give it up.
        del self._handles[request.subject]
        if isinstance(handle, _Uploading):
            try:
                await handle.upload.close()
            except (Refused, Deferred) as error:
                self._remember(handle.place, error)
                raise
        elif isinstance(handle, _Downloading):
            await handle.reading.close()
        return wire.pack_status(request.id, FX_OK)

    async def _read(self, request: Request) -> bytes:
        handle = self._handle(request.subject)
        length = min(request.length, wire.READ_BYTES_MOST)
        if isinstance(handle, _Bytes):
            data = handle.data[request.offset : request.offset + length]
            return wire.pack_data(request.id, data) if data else wire.pack_status(request.id, FX_EOF)
        if not isinstance(handle, _Downloading):
            raise Refused("tree.not_found", detail="READ on a handle that is not read from")
        self._keep_warm(handle.reading)
        return self._data(request, handle, await handle.reading.read(request.offset, length))

    def _data(self, request: Request, handle: _Downloading, data: bytes | memoryview) -> bytes:
        if not data:
            return wire.pack_status(request.id, FX_EOF)
        handle.reading.note_served(request.offset, len(data))
        return wire.pack_data(request.id, data)

    def _keep_warm(self, reading: Reading) -> None:
        if reading in self._warm:
            return
        self._warm.append(reading)
        if len(self._warm) > _WARM_READINGS:
            self._warm.pop(0).forget()

    async def _write(self, request: Request) -> bytes:
        handle = self._handle(request.subject)
        if not isinstance(handle, _Uploading):
            raise Refused("tree.read_only", detail="WRITE on a handle that is not written to")
        await handle.upload.write(request.offset, request.data)
        return wire.pack_status(request.id, FX_OK)

    async def _fsync(self, request: Request) -> bytes:
        handle = self._handle(_first_string(request))
        if isinstance(handle, _Uploading):
            await handle.upload.sync()
        return wire.pack_status(request.id, FX_OK)

    # --- attributes ----------------------------------------------------------------------------------------------

    async def _stat(self, request: Request) -> bytes:
        return wire.pack_attrs(request.id, await self._attributes(tree.resolve_path(request.subject)))

    async def _fstat(self, request: Request) -> bytes:
        handle = self._handle(request.subject)
        if isinstance(handle, _Downloading):
            attributes = _file_attributes(handle.reading.transfer, as_sent=isinstance(handle.place, SentFile))
        elif isinstance(handle, _Bytes):
            attributes = self._generated_attributes(handle.data)
        else:
            attributes = await self._attributes(handle.place)
        return wire.pack_attrs(request.id, attributes)

    async def _attributes(self, place: Place) -> Attributes:
        if isinstance(place, Directory):
            return await self._directory_attributes(place)
        if isinstance(place, GeneratedFile):
            return self._generated_attributes(await self._generated(place))
        if isinstance(place, SentFile):
            for handle in self._open_uploads(place):
                return self._upload_attributes(handle.upload)
            if (earlier := self._refused.get(place.lane)) is not None:
                raise earlier
        return _file_attributes(await self._find(place), as_sent=isinstance(place, SentFile))

    async def _directory_attributes(self, place: Directory) -> Attributes:
        if place.address is not None:
            await self._require_address(place.address)
        now = int(self._desks.clock().timestamp())
        is_writable = place.folder in (Folder.SEND, Folder.ROOT)
        return Attributes(0, tree.INBOX_MODE if is_writable else tree.DIRECTORY_MODE, now, now)

    def _upload_attributes(self, upload: Upload) -> Attributes:
        now = int((upload.client_mtime or self._desks.clock()).timestamp())
        return Attributes(upload.size_bytes, 0o100640, now, now)

    def _generated_attributes(self, data: bytes) -> Attributes:
        now = int(self._desks.clock().timestamp())
        return Attributes(len(data), tree.FILE_MODE, now, now)

    async def _setstat(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        if isinstance(place, SentFile):
            uploads = self._open_uploads(place)
            for handle in uploads:
                await self._apply(handle.upload, request.attributes)
            if not uploads:
                transfer = await self._find(place)
                mtime = _moment(request.attributes.mtime)
                if mtime is not None:
                    await self._desks.ledger.set_sent_mtime(transfer.id, mtime)
        else:
            await self._attributes(place)
        return wire.pack_status(request.id, FX_OK)

    async def _fsetstat(self, request: Request) -> bytes:
        handle = self._handle(request.subject)
        if isinstance(handle, _Uploading):
            await self._apply(handle.upload, request.attributes)
        return wire.pack_status(request.id, FX_OK)

    async def _apply(self, upload: Upload, attributes: Attributes) -> None:
        """Take size and time; permissions mean nothing here and are accepted quietly (LESSONS: SETSTAT)."""
        if attributes.size is not None:
            await upload.truncate(attributes.size)
        upload.client_mtime = _moment(attributes.mtime) or upload.client_mtime

    # --- finding -------------------------------------------------------------------------------------------------

    async def _find(self, place: Place) -> Transfer:
        """Return the transfer that this office sees at *place*; Refused ``tree.not_found``."""
        if isinstance(place, ShelfFile):
            transfer = await self._desks.ledger.find_delivered(self._office, place.name)
            # A file that has left new/ because it was collected still answers there.
            if transfer is not None and transfer.is_removed == (place.shelf is Folder.DONE):
                return transfer
        elif isinstance(place, SentFile):
            transfer = await self._find_sent(place)
            if transfer is not None and transfer.state in LIVE:
                return transfer
        raise Refused("tree.not_found")

    async def _find_sent(self, place: SentFile) -> Transfer | None:
        try:
            address = naming.parse_name(place.name, self._desks.config.naming_rules, folder=place.address)
        except Refused:
            return None
        return await self._desks.ledger.find_sent(self._office, address.recipient, address.name)

    async def _require_address(self, address: OfficeNumber) -> None:
        office = await self._desks.ledger.find_office(address)
        if office is None or not office.is_active:
            raise Refused("tree.not_found", detail=f"{address} is not an active office")

    async def _generated(self, place: GeneratedFile) -> bytes:
        """Return a generated file as this session was told of it within the last minute."""
        now = time.monotonic()
        data, made_at = self._pinned.get(place.path, (b"", -_PINNED_SECONDS))
        if now - made_at < _PINNED_SECONDS:
            return data
        data = await self._generate(place)
        self._pinned[place.path] = (data, now)
        return data

    async def _generate(self, place: GeneratedFile) -> bytes:
        if place.folder is Folder.STATUS:
            if place.name not in self._desks.status.FILES:
                raise Refused("tree.not_found")
            return await self._desks.status.render(
                self._office, place.name, identity=self._identity, now=self._desks.clock()
            )
        office = await self._desks.ledger.find_office(place.address or self._office)
        if office is None or (place.address is not None and place.name != tree.notice_name(office)):
            raise Refused("tree.not_found")
        return render_readme(self._desks.config, office) if place.address is None else render_folder_notice(office)

    # --- directories ---------------------------------------------------------------------------------------------

    async def _opendir(self, request: Request) -> bytes:
        self._require_room()
        place = tree.resolve_path(request.subject)
        if not isinstance(place, Directory):
            if not isinstance(place, (GeneratedFile, SentFile, ShelfFile)):
                raise Refused("tree.not_found")
            await self._attributes(place)
            raise Refused("tree.not_directory")
        attributes = await self._directory_attributes(place)
        listing = _Listing(place, self._batches(place, attributes))
        # The first part is read now: what is listed is what was there at OPENDIR.
        listing.ready = await anext(listing.more)
        return self._add(request, listing)

    async def _readdir(self, request: Request) -> bytes:
        listing = self._handle(request.subject)
        if not isinstance(listing, _Listing):
            raise Refused("tree.not_directory")
        if not listing.ready and not listing.is_done:
            listing.ready = await anext(listing.more, [])
        if not listing.ready:
            listing.is_done = True
            return wire.pack_status(request.id, FX_EOF)
        size = count = 0
        for packed in listing.ready:
            size += len(packed)
            if count and size > wire.NAMES_BYTES_MOST:
                break
            count += 1
        now, listing.ready = listing.ready[:count], listing.ready[count:]
        return wire.pack_names(request.id, now)

    async def _batches(self, place: Directory, attributes: Attributes) -> AsyncIterator[list[bytes]]:
        """Yield packed entries, a page of the index at a time; the first batch is never empty."""
        packer = _Packer(self._office, self._desks.clock().timestamp())
        batch = [packer.directory(name, attributes) for name in (".", "..")]
        batch += [packer.directory(name, attributes) for name in await self._subfolders(place)]
        batch += [packer.generated(file.name, len(await self._generated(file))) for file in await self._files(place)]
        if place.folder in (Folder.ROOT, Folder.STATUS):
            yield batch
            return
        cursor: ListingCursor | None = None
        while True:
            page = await self._page(place, cursor)
            batch += [packer.entry(entry) for entry in page.entries]
            yield batch
            batch, cursor = [], page.cursor
            if cursor is None:
                return

    async def _page(self, place: Directory, cursor: ListingCursor | None) -> ListingPage:
        if place.folder is Folder.SEND:
            now = self._desks.clock()
            return await self._desks.ledger.list_sent(self._office, place.address, now=now, cursor=cursor)
        return await self._desks.ledger.list_shelf(self._office, Shelf(place.folder.value), cursor)

    async def _subfolders(self, place: Directory) -> list[str]:
        if place.folder is Folder.ROOT:
            return [folder.value for folder in Folder if folder is not Folder.ROOT]
        if place.folder is Folder.SEND and place.address is None:
            return [*await self._desks.ledger.list_folders(self._office)]
        return []

    async def _files(self, place: Directory) -> list[GeneratedFile]:
        if place.address is not None:
            office = await self._desks.ledger.find_office(place.address)
            names = () if office is None else (tree.notice_name(office),)
        elif place.folder is Folder.ROOT:
            names = (tree.README,)
        elif place.folder is Folder.STATUS:
            names = self._desks.status.FILES
        else:
            names = ()
        paths = [tree.resolve_path(f"{place.path}/{name}".encode()) for name in names]
        return [path for path in paths if isinstance(path, GeneratedFile)]

    # --- changes -------------------------------------------------------------------------------------------------

    async def _remove(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        if isinstance(place, SentFile):
            await self._remove_sent(place)
        elif isinstance(place, ShelfFile):
            await self._remove_received(place)
        elif isinstance(place, Directory):
            raise Refused("tree.is_directory")
        else:
            await self._attributes(place)
            raise Refused("tree.read_only")
        return wire.pack_status(request.id, FX_OK)

    async def _remove_sent(self, place: SentFile) -> None:
        """Give up what is being uploaded or was just refused; an accepted transfer is never taken back by this."""
        uploads = self._open_uploads(place)
        for handle in uploads:
            await handle.upload.abort("removed by the client")
        if uploads or self._refused.pop(place.lane, None) is not None:
            return
        await self._find(place)
        raise Refused("transfer.accepted")

    async def _remove_received(self, place: ShelfFile) -> None:
        if place.shelf is Folder.DONE:
            await self._find(place)
            raise Refused("tree.read_only", detail="REMOVE in done/")
        transfer = await self._desks.ledger.find_delivered(self._office, place.name)
        if transfer is None or (transfer.is_removed and place.shelf is not Folder.NEW):
            raise Refused("tree.not_found")
        await self._desks.collection.move(transfer, Shelf.DONE, self._identity, self._journal)

    async def _rename(self, request: Request) -> bytes:
        return await self._move(request, request.subject, request.target)

    async def _posix_rename(self, request: Request) -> bytes:
        source, target = _rename_paths(request)
        return await self._move(request, source, target)

    async def _move(self, request: Request, source: bytes, target: bytes) -> bytes:
        """Move between ``receive/`` or ``new/`` and ``done/``, under the same name; everything else is refused."""
        here, there = tree.resolve_path(source), tree.resolve_path(target)
        if not isinstance(here, (ShelfFile, SentFile)):
            await self._attributes(here)
            raise Refused("tree.no_rename")
        transfer = await self._find(here)
        if not isinstance(here, ShelfFile) or not isinstance(there, ShelfFile) or there.lane != here.lane:
            raise Refused("tree.no_rename")
        to = Shelf.DONE if there.shelf is Folder.DONE else Shelf.RECEIVE
        await self._desks.collection.move(transfer, to, self._identity, self._journal)
        return wire.pack_status(request.id, FX_OK)

    async def _mkdir(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        if not isinstance(place, Directory) or place.address is None:
            raise Refused("tree.no_directories")
        office = await self._desks.ledger.find_office(place.address)
        if office is None:
            raise Refused("route.recipient_unknown", office=place.address)
        if not office.is_active:
            raise Refused("route.recipient_suspended", office=place.address)
        return wire.pack_status(request.id, FX_OK)

    async def _rmdir(self, request: Request) -> bytes:
        place = tree.resolve_path(request.subject)
        await self._attributes(place)
        raise Refused("tree.read_only" if isinstance(place, Directory) else "tree.not_directory")

    # --- names of paths and extensions ---------------------------------------------------------------------------

    def _realpath(self, request: Request) -> bytes:
        path = tree.normalise_path(request.subject).encode()
        return wire.pack_names(request.id, [wire.pack_entry(NameEntry(path, path, wire.NO_ATTRIBUTES))])

    async def _realpath_later(self, request: Request) -> bytes:
        return self._realpath(request)

    async def _extended(self, request: Request) -> bytes:
        if request.subject == _LIMITS:
            return wire.pack_limits(request.id, self._desks.config.limits.handles_per_session)
        if request.subject == _FSYNC:
            return await self._fsync(request)
        if request.subject == _POSIX_RENAME:
            return await self._posix_rename(request)
        return wire.pack_status(request.id, FX_OP_UNSUPPORTED, "not supported")


class _Packer:
    """Packs directory entries for one listing."""

    def __init__(self, office: OfficeNumber, now: float) -> None:
        self._office = office
        self._now = now

    def directory(self, name: str, attributes: Attributes) -> bytes:
        mode, changed = attributes.permissions or tree.DIRECTORY_MODE, attributes.mtime or 0
        return self._pack(name, mode, 0, changed, self._office, self._office)

    def generated(self, name: str, size: int) -> bytes:
        return self._pack(name, tree.FILE_MODE, size, int(self._now), self._office, self._office)

    def entry(self, entry: Entry) -> bytes:
        """The sender shows as owner, the recipient as group."""
        return self._pack(entry.name, tree.FILE_MODE, entry.size_bytes, entry.changed_at, entry.sender, entry.recipient)

    def _pack(self, name: str, mode: int, size: int, changed: int, owner: str, group: str) -> bytes:
        line = tree.long_name(name, mode=mode, size=size, mtime=changed, owner=owner, group=group, now=self._now)
        return wire.pack_entry(NameEntry(name.encode(), line.encode(), Attributes(size, mode, changed, changed)))


def _file_attributes(transfer: Transfer, *, as_sent: bool) -> Attributes:
    changed = transfer.client_mtime if as_sent and transfer.client_mtime is not None else transfer.accepted_at
    seconds = int(changed.timestamp())
    return Attributes(transfer.size_bytes, tree.FILE_MODE, seconds, seconds)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _first_string(request: Request) -> bytes:
    try:
        return wire.parse_strings(request.target, 1)[0]
    except wire.WireError as error:
        raise wire.WireError(error.crime, request.id) from None


def _rename_paths(request: Request) -> list[bytes]:
    try:
        return wire.parse_strings(request.target, 2)
    except wire.WireError as error:
        raise wire.WireError(error.crime, request.id) from None


_BY_HANDLE = frozenset({wire.CLOSE, wire.READ, wire.WRITE, wire.FSTAT, wire.FSETSTAT, wire.READDIR})
_PERFORM: dict[int, Callable[[Operations, Request], Awaitable[bytes]]] = {
    wire.OPEN: Operations._open,
    wire.CLOSE: Operations._close,
    wire.READ: Operations._read,
    wire.WRITE: Operations._write,
    wire.STAT: Operations._stat,
    wire.LSTAT: Operations._stat,
    wire.FSTAT: Operations._fstat,
    wire.SETSTAT: Operations._setstat,
    wire.FSETSTAT: Operations._fsetstat,
    wire.OPENDIR: Operations._opendir,
    wire.READDIR: Operations._readdir,
    wire.REMOVE: Operations._remove,
    wire.RENAME: Operations._rename,
    wire.MKDIR: Operations._mkdir,
    wire.RMDIR: Operations._rmdir,
    wire.REALPATH: Operations._realpath_later,
    wire.EXTENDED: Operations._extended,
}
