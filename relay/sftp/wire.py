"""The codec of SFTP version 3: bytes in, messages out, and back (draft-ietf-secsh-filexfer-02).

No I/O, no asyncssh, no state but that of the framer.  For any bytes whatever it either returns a message or raises
`WireError`; there is no third way, and this is the place to fuzz.

Bytes behind the last field of a request are ignored, as OpenSSH's server does: pkg/sftp 1.13.5 (rclone 1.60) sends
the rest of its buffer behind the data of a WRITE.  Paths and handles stay bytes here; `relay.tree` decides what they
mean.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

VERSION = 3

# What OpenSSH's clients use; larger ones would only raise what a session may hold in memory.
READ_BYTES_MOST = 261_120
WRITE_BYTES_MOST = 261_120
# A packet holds one WRITE and its fields, or two paths.
PACKET_BYTES_MOST = 266_240
# A READDIR reply stays well below what the strictest client takes (256 KiB).
NAMES_BYTES_MOST = 131_072

# Request and reply types, section 3.
INIT, FXP_VERSION = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = 13, 14, 15, 16, 17, 18, 19, 20
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
EXTENDED, EXTENDED_REPLY = 200, 201

# Extensions, OpenSSH's PROTOCOL section 4.
POSIX_RENAME, FSYNC, LIMITS = b"posix-rename@openssh.com", b"fsync@openssh.com", b"limits@openssh.com"
STATVFS = b"statvfs@openssh.com"
# With the version of each, as VERSION tells them.
EXTENSIONS = ((POSIX_RENAME, b"1"), (FSYNC, b"1"), (LIMITS, b"1"), (STATVFS, b"2"))
_BLOCK_BYTES = 4096
_NAME_BYTES_MOST = 255

# pflags of OPEN, section 6.3.
FXF_READ, FXF_WRITE, FXF_APPEND, FXF_CREAT, FXF_TRUNC, FXF_EXCL = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

# Flags of ATTRS, section 5.
_ATTR_SIZE, _ATTR_UIDGID, _ATTR_PERMISSIONS, _ATTR_ACMODTIME, _ATTR_EXTENDED = 0x01, 0x02, 0x04, 0x08, 0x80000000
# All that the relay knows.
_ATTR_ALL = _ATTR_SIZE | _ATTR_PERMISSIONS | _ATTR_ACMODTIME
_EXTENDED_MOST = 64

# From here on a packet is not copied, and memory is taken for more than was asked for.
_LARGE_BYTES = 32_768
_SPARE_BYTES = 262_144
# What may be kept of that while nobody needs it: two packets and what is read at once.
_SPARE_BYTES_MOST = 1_048_576

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_HEAD = struct.Struct(">BI")
_STATUS = struct.Struct(">BII")
_DATA = struct.Struct(">IBII")
_READ_TAIL = struct.Struct(">QI")
_SHORT_ATTRS = struct.Struct(">IQIII")
_NAMES = struct.Struct(">IBII")


class WireError(RelayError):
    """Bytes that are no message.  *request_id* is known where one request was bad, None where framing is lost."""

    def __init__(self, crime: str, request_id: int | None = None) -> None:
        super().__init__(crime)
        self.crime = crime
        self.request_id = request_id


class Attributes(NamedTuple):
    """The attributes that the relay knows; None where they were not given.  Times are seconds since 1970."""

    size: int | None = None
    permissions: int | None = None
    atime: int | None = None
    mtime: int | None = None


NO_ATTRIBUTES = Attributes()


class Init(NamedTuple):
    """The client's first packet; *version* is the highest it speaks."""

    version: int


class Request(NamedTuple):
    """Any request but `Init`.  Only the fields of its *type* are set.

    *subject* is the path, the handle or the name of an extension; *target* the second path of a RENAME or the data
    of an extension; *data* that of a WRITE; *length* that of a READ, or the pflags of an OPEN.
    """

    type: int
    id: int
    subject: bytes = b""
    target: bytes = b""
    offset: int = 0
    length: int = 0
    data: bytes | memoryview = b""
    attributes: Attributes = NO_ATTRIBUTES


class DataReply(NamedTuple):
    """A DATA reply: what stands in front of its data, and the data where it lies."""

    head: bytes
    data: bytes | memoryview


Reply = bytes | DataReply


class NameEntry(NamedTuple):
    """One entry of a NAME reply, ready for the wire."""

    name: bytes
    long_name: bytes
    attributes: Attributes


class Framer:
    """Cuts the channel's stream into packets; holds what it was given and room for little more.

    The stream is written into the room that it gives, so that a large WRITE is where it was deciphered to until it is
    sealed.
    """

    __slots__ = ("_buffer", "_end", "_start")

    # At most one.  Memory so long is had from the system anew each time, which costs as much as what is written into it.
    _spares: ClassVar[list[bytearray]] = []

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = self._end = 0

    @property
    def held_bytes(self) -> int:
        """Bytes that were fed and not yet given out."""
        return self._end - self._start

    def room(self, size: int) -> memoryview:
        """Return room for *size* bytes behind what is held, which are fed by `filled`; views given out before are over."""
        if self._end + size > len(self._buffer):
            self._move(size)
        return memoryview(self._buffer)[self._end : self._end + size]

    def _move(self, size: int) -> None:
        """Bring what is held to the front, of a longer buffer where this one is too short."""
        held = memoryview(self._buffer)[self._start : self._end]
        needed = len(held) + size
        if needed > len(self._buffer):
            # Never made longer as it is: somebody may still have a view.
            self._buffer = bytearray(needed) if needed < _LARGE_BYTES else self._take_spare(needed)
        self._start, self._end = 0, len(held)
        memoryview(self._buffer)[: self._end] = held

    def filled(self, size: int) -> None:
        """Know that the first *size* bytes of the `room` are written."""
        self._end += size

    def feed(self, data: bytes) -> None:
        """Take what the channel brought."""
        self.room(len(data))[:] = data
        self.filled(len(data))

    def next_packet(self) -> bytes | memoryview | None:
        """Return the next whole packet without its length, or None; WireError where the length is impossible.

        A large one is a view, which is good until the next call.
        """
        start = self._start
        if self._end - start < 4:  # noqa: PLR2004 - the length field
            self._let_go()
            return None
        (length,) = _U32.unpack_from(self._buffer, start)
        if not 1 <= length <= PACKET_BYTES_MOST:
            raise WireError(f"packet of {length} bytes")
        end = start + 4 + length
        if self._end < end:
            return None
        self._start = end
        packet = memoryview(self._buffer)[start + 4 : end]
        return packet if length >= _LARGE_BYTES else bytes(packet)

    @classmethod
    def _take_spare(cls, needed: int) -> bytearray:
        """Return a long buffer: the one that was let go of, if it will do."""
        spare = cls._spares.pop() if cls._spares else bytearray()
        return spare if len(spare) >= needed else bytearray(needed + _SPARE_BYTES)

    def _let_go(self) -> None:
        """Keep no memory for a client that is silent, but one long buffer for whoever comes next."""
        if self._start == self._end:
            if _LARGE_BYTES <= len(self._buffer) <= _SPARE_BYTES_MOST and not self._spares:
                self._spares.append(self._buffer)
            self._buffer, self._start, self._end = bytearray(), 0, 0


class _Reader:
    """Reads fields off one packet."""

    __slots__ = ("_at", "_packet")

    def __init__(self, packet: bytes | memoryview, at: int) -> None:
        self._packet = packet
        self._at = at

    def u32(self) -> int:
        value: int = _U32.unpack_from(self._packet, self._at)[0]
        self._at += 4
        return value

    def u64(self) -> int:
        value: int = _U64.unpack_from(self._packet, self._at)[0]
        self._at += 8
        return value

    def string(self) -> bytes:
        start = self._at + 4
        end = start + self.u32()
        if end > len(self._packet):
            raise struct.error("a string runs over the end")
        self._at = end
        return bytes(self._packet[start:end])

    def view(self) -> memoryview:
        """Return a string without copying it: the data of a WRITE is most of all bytes."""
        start = self._at + 4
        end = start + self.u32()
        if end > len(self._packet):
            raise struct.error("a string runs over the end")
        self._at = end
        return memoryview(self._packet)[start:end]

    def rest(self) -> bytes:
        return bytes(self._packet[self._at :])

    def attributes(self) -> Attributes:
        flags = self.u32()
        size = self.u64() if flags & _ATTR_SIZE else None
        if flags & _ATTR_UIDGID:
            self.u64()
        permissions = self.u32() if flags & _ATTR_PERMISSIONS else None
        atime = mtime = None
        if flags & _ATTR_ACMODTIME:
            atime, mtime = self.u32(), self.u32()
        if flags & _ATTR_EXTENDED:
            count = self.u32()
            if count > _EXTENDED_MOST:
                raise struct.error("too many extended attributes")
            for _ in range(count):
                self.string()
                self.string()
        return Attributes(size, permissions, atime, mtime)


def parse_packet(packet: bytes | memoryview) -> Init | Request:
    """Return the message in *packet*; WireError for anything that is none.

    A type that is not known is a `Request` with nothing but its type and id, for the caller to refuse.  The data of a
    WRITE is a view of *packet*; see `keep_request`.
    """
    if not packet:
        raise WireError("empty packet")
    if packet[0] == INIT:
        if len(packet) < 5:  # noqa: PLR2004 - type and version
            raise WireError("INIT cut short")
        return Init(_U32.unpack_from(packet, 1)[0])
    if len(packet) < _HEAD.size:
        raise WireError("request without an id")
    kind, request_id = _HEAD.unpack_from(packet)
    parse = _PARSERS.get(kind)
    if parse is None:
        return Request(kind, request_id)
    try:
        return parse(kind, request_id, _Reader(packet, _HEAD.size))
    except struct.error:
        raise WireError(f"request of type {kind} cut short", request_id) from None


def keep_request(request: Request) -> Request:
    """Return *request* such that it stays what it is whatever becomes of the packet that it was read from."""
    data = request.data
    if isinstance(data, memoryview) and not data.readonly:
        return request._replace(data=bytes(data))
    return request


def _subject(kind: int, request_id: int, reader: _Reader) -> Request:
    return Request(kind, request_id, reader.string())


def _open(kind: int, request_id: int, reader: _Reader) -> Request:
    path, flags = reader.string(), reader.u32()
    return Request(kind, request_id, path, length=flags, attributes=reader.attributes())


def _read(kind: int, request_id: int, reader: _Reader) -> Request:
    return Request(kind, request_id, reader.string(), offset=reader.u64(), length=reader.u32())


def _write(kind: int, request_id: int, reader: _Reader) -> Request:
    return Request(kind, request_id, reader.string(), offset=reader.u64(), data=reader.view())


def _with_attributes(kind: int, request_id: int, reader: _Reader) -> Request:
    return Request(kind, request_id, reader.string(), attributes=reader.attributes())


def _two_paths(kind: int, request_id: int, reader: _Reader) -> Request:
    return Request(kind, request_id, reader.string(), reader.string())


def _extended(kind: int, request_id: int, reader: _Reader) -> Request:
    return Request(kind, request_id, reader.string(), reader.rest())


_PARSERS: dict[int, Callable[[int, int, _Reader], Request]] = {
    **dict.fromkeys((CLOSE, LSTAT, FSTAT, OPENDIR, READDIR, REMOVE, RMDIR, REALPATH, STAT, READLINK), _subject),
    **dict.fromkeys((SETSTAT, FSETSTAT, MKDIR), _with_attributes),
    **dict.fromkeys((RENAME, SYMLINK), _two_paths),
    OPEN: _open,
    READ: _read,
    WRITE: _write,
    EXTENDED: _extended,
}


def extension_handle(request: Request) -> bytes:
    """Return the handle that an ``fsync`` is about; WireError where there is none."""
    return _extension_strings(request, 1)[0]


def extension_path(request: Request) -> bytes:
    """Return the path of a ``statvfs``; WireError where it is not there."""
    (path,) = _extension_strings(request, 1)
    return path


def extension_paths(request: Request) -> tuple[bytes, bytes]:
    """Return the two paths of a ``posix-rename``; WireError where they are not there."""
    source, target = _extension_strings(request, 2)
    return source, target


def _extension_strings(request: Request, count: int) -> list[bytes]:
    reader = _Reader(request.target, 0)
    try:
        return [reader.string() for _ in range(count)]
    except struct.error:
        raise WireError("extension cut short", request.id) from None


def pack_string(text: bytes) -> bytes:
    """Return *text* with its length in front."""
    return _U32.pack(len(text)) + text


def pack_version(extensions: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the VERSION packet that answers INIT."""
    fields = b"".join(pack_string(name) + pack_string(data) for name, data in extensions)
    return _framed(bytes([FXP_VERSION]) + _U32.pack(VERSION) + fields)


def pack_status(request_id: int, code: int, text: str = "") -> bytes:
    """Return a STATUS reply; *text* is UTF-8 on the wire, without a language tag."""
    return _framed(_STATUS.pack(STATUS, request_id, code) + pack_string(text.encode()) + _U32.pack(0))


def pack_handle(request_id: int, handle: bytes) -> bytes:
    """Return a HANDLE reply."""
    return _framed(_HEAD.pack(HANDLE, request_id) + pack_string(handle))


def pack_data(request_id: int, data: bytes | memoryview) -> bytes:
    """Return a DATA reply."""
    return b"".join(frame_data(request_id, data))


def frame_data(request_id: int, data: bytes | memoryview) -> DataReply:
    """Return a DATA reply without copying *data*."""
    return DataReply(_DATA.pack(9 + len(data), DATA, request_id, len(data)), data)


def pack_attributes(attributes: Attributes) -> bytes:
    """Return *attributes* as a part of a reply."""
    size, permissions, atime, mtime = attributes
    if size is not None and permissions is not None and atime is not None and mtime is not None:
        return _SHORT_ATTRS.pack(_ATTR_ALL, size, permissions, atime, mtime)
    flags, fields = 0, b""
    if size is not None:
        flags, fields = flags | _ATTR_SIZE, _U64.pack(size)
    if permissions is not None:
        flags, fields = flags | _ATTR_PERMISSIONS, fields + _U32.pack(permissions)
    if atime is not None and mtime is not None:
        flags, fields = flags | _ATTR_ACMODTIME, fields + _U32.pack(atime) + _U32.pack(mtime)
    return _U32.pack(flags) + fields


def pack_attrs(request_id: int, attributes: Attributes) -> bytes:
    """Return an ATTRS reply."""
    return _framed(_HEAD.pack(ATTRS, request_id) + pack_attributes(attributes))


def pack_entry(entry: NameEntry) -> bytes:
    """Return one entry of a NAME reply."""
    name, long_name, attributes = entry
    return b"".join((_U32.pack(len(name)), name, _U32.pack(len(long_name)), long_name, pack_attributes(attributes)))


def pack_file(name: bytes, long_name: bytes, size: int, permissions: int, mtime: int) -> bytes:
    """Return what `pack_entry` does for attributes that are all known, in one step: a listing has thousands of them."""
    pack = _file_packer(len(name), len(long_name))
    return pack(len(name), name, len(long_name), long_name, _ATTR_ALL, size, permissions, mtime, mtime)


@lru_cache(maxsize=1024)
def _file_packer(name_bytes: int, long_name_bytes: int) -> Callable[..., bytes]:
    return struct.Struct(f">I{name_bytes}sI{long_name_bytes}sIQIII").pack


def pack_names(request_id: int, entries: Sequence[bytes]) -> bytes:
    """Return a NAME reply of *entries*, each made by `pack_entry` or `pack_file`."""
    length = _NAMES.size - _U32.size + sum(map(len, entries))
    return b"".join((_NAMES.pack(length, NAME, request_id, len(entries)), *entries))


def pack_extended(request_id: int, data: bytes) -> bytes:
    """Return an EXTENDED_REPLY."""
    return _framed(_HEAD.pack(EXTENDED_REPLY, request_id) + data)


def pack_limits(request_id: int, handles: int) -> bytes:
    """Return the answer to ``limits@openssh.com`` (OpenSSH PROTOCOL, section 4.8)."""
    return pack_extended(
        request_id, struct.pack(">QQQQ", PACKET_BYTES_MOST, READ_BYTES_MOST, WRITE_BYTES_MOST, handles)
    )


def pack_statvfs(request_id: int, total_bytes: int, free_bytes: int) -> bytes:
    """Return the answer to ``statvfs@openssh.com`` (OpenSSH PROTOCOL, section 4.4): no number of files is limited."""
    total, free = total_bytes // _BLOCK_BYTES, free_bytes // _BLOCK_BYTES
    space = (_BLOCK_BYTES, _BLOCK_BYTES, total, free, free)
    return pack_extended(request_id, struct.pack(">11Q", *space, 0, 0, 0, 0, 0, _NAME_BYTES_MOST))


def _framed(body: bytes) -> bytes:
    return _U32.pack(len(body)) + body
