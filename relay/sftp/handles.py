"""What a session has open: handles and what stands behind each.

A handle is a number of four bytes that never comes again in its session.  The table gives no meaning to what it
holds; it bounds how many there are and lets go of all of them when the session ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

from relay.collection import Reading
from relay.errors import Deferred, Refused
from relay.ledger import ListingCursor
from relay.receipts import ReceiptList
from relay.sftp.keytray import KeyDraft
from relay.sftp.limits import Share
from relay.tree import Directory, GeneratedFile, KeyFile, Place, SentFile
from relay.upload import Upload

# Readings that keep their chunks in memory, and how many of these all of them may keep together; a client with more
# handles open gets them from the store again.
_WARM_READINGS, _WARM_CHUNKS = 4, 8


@dataclass(slots=True)
class Listing:
    """An open directory: entries that are packed and wait, and where the next ones come from (None: no more).

    *shown* are names, folded, under which something else is listed already.  *receipts* go on after all of that.
    *newest* is the number of the newest transfer that has stood in it.
    """

    place: Directory
    ready: list[bytes]
    cursor: ListingCursor | None
    shown: frozenset[str] = frozenset()
    receipts: ReceiptList | None = None
    newest: int = 0


@dataclass(slots=True)
class Generated:
    """An open generated file, as it was when it was opened; *changed_at* in seconds since 1970."""

    place: GeneratedFile | KeyFile
    data: bytes
    changed_at: int


@dataclass(slots=True)
class Swallowing:
    """An upload under a name that only the relay gives: taken, and kept nowhere."""

    place: GeneratedFile
    size: int = 0
    mtime: int | None = None


@dataclass(slots=True)
class Uploading:
    """A file that the client writes; *is_appending* where offsets mean nothing (APPEND)."""

    place: SentFile
    upload: Upload
    is_appending: bool = False

    def offset(self, asked: int) -> int:
        """Return where a WRITE for the offset *asked* goes."""
        return self.upload.size_bytes if self.is_appending else asked


@dataclass(slots=True)
class Downloading:
    """A file that the client reads; *has_arrived* once it was closed behind the last byte that was served."""

    place: Place
    reading: Reading
    has_arrived: bool = False


Handle = Listing | Generated | Swallowing | Uploading | Downloading | KeyDraft


class Handles:
    """The open handles of one session, at most *most* and as many as its certificate's *share* has room for."""

    def __init__(self, most: int, share: Share) -> None:
        self._most = most
        self.share = share
        self._open: dict[bytes, Handle] = {}
        self._opening = 0
        self._last = 0
        self._warm: list[Reading] = []

    @property
    def count(self) -> int:
        """How many handles are open or being opened."""
        return len(self._open) + self._opening

    @contextmanager
    def room(self) -> Iterator[None]:
        """Hold a place for a handle that is being opened; Deferred ``limit.handles`` where there is none."""
        if self.count >= self._most:
            raise Deferred("limit.handles", limit=self._most, detail="handles_per_session")
        if not self.share.take_handle():
            most = self.share.limits.handles_per_certificate
            raise Deferred("limit.handles", limit=most, detail="handles_per_certificate")
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1
            self.share.handles.add(-1)

    def add(self, handle: Handle) -> bytes:
        """Return the name under which the client will find *handle*."""
        self._last += 1
        name = struct.pack(">I", self._last)
        self._open[name] = handle
        self.share.handles.add(1)
        return name

    def find(self, name: bytes) -> Handle | None:
        """Return what stands behind *name*, or None."""
        return self._open.get(name)

    def require(self, name: bytes) -> Handle:
        """Return what stands behind *name*; Refused where nothing does."""
        try:
            return self._open[name]
        except KeyError:
            raise Refused("tree.not_found", detail="no such handle") from None

    def remove(self, name: bytes) -> None:
        """Forget *name*; what stood behind it is the caller's."""
        handle = self._open.pop(name)
        self.share.handles.add(-1)
        if isinstance(handle, Downloading) and handle.reading in self._warm:
            handle.reading.forget()
            self._warm.remove(handle.reading)
            self._share_out()

    @property
    def has_uploads(self) -> bool:
        """True while the client writes a file."""
        return self.upload_count > 0

    @property
    def upload_count(self) -> int:
        """How many files the client writes."""
        return sum(isinstance(each, Uploading) and not each.upload.is_over for each in self._open.values())

    def keep_warm(self, reading: Reading) -> None:
        """Let *reading* keep its chunks, at the cost of the one that has kept them longest."""
        if reading in self._warm:
            return
        self._warm.append(reading)
        if len(self._warm) > _WARM_READINGS:
            self._warm.pop(0).forget()
        self._share_out()

    def _share_out(self) -> None:
        for each in self._warm:
            each.allow(_WARM_CHUNKS // len(self._warm))

    async def abandon(self, reason: str, on_left: Callable[[Upload], None]) -> None:
        """Let go of every handle because the session ended: nothing open is committed or collected.

        What was being uploaded is kept for a day, for its owner to go on with; *on_left* hears of each.  What goes wrong
        with one is raised when all the others are let go of as well.
        """
        handles, self._open = self._open, {}
        self.share.handles.add(-len(handles))
        self.share.close()
        async with AsyncExitStack() as stack:
            for handle in reversed(handles.values()):
                if isinstance(handle, Uploading):
                    stack.callback(on_left, handle.upload)
                    stack.push_async_callback(handle.upload.leave, reason)
                elif isinstance(handle, Downloading):
                    stack.callback(handle.reading.abandon)
