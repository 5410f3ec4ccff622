"""An SFTP client without manners: it sends whatever it is told, and reads replies only when asked to.

A codec of its own, a few lines long, so that nothing here agrees with the relay by sharing its mistakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import asyncssh

PATIENCE_SECONDS = 60.0
INIT, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = 1, 3, 4, 5, 6, 7, 8, 9, 10
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(11, 21)
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201
OK, EOF, NO_SUCH_FILE, DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
READING, WRITING = 0x01, 0x02 | 0x08 | 0x10
NO_ATTRIBUTES = struct.pack(">I", 0)


class Long(int):
    """A field of 64 bits."""


class Raw(bytes):
    """Bytes that go as they are, without a length in front."""

    __slots__ = ()


Field = int | str | bytes


def pack(kind: int, number: int, *fields: Field) -> bytes:
    """Return a packet; ints are 32 bits unless `Long`, text and bytes are strings unless `Raw`."""
    body = struct.pack(">BI", kind, number)
    for field in fields:
        if isinstance(field, Long):
            body += struct.pack(">Q", field)
        elif isinstance(field, int):
            body += struct.pack(">I", field)
        elif isinstance(field, Raw):
            body += field
        else:
            data = field.encode() if isinstance(field, str) else field
            body += struct.pack(">I", len(data)) + data
    return struct.pack(">I", len(body)) + body


def size_attribute(size: int) -> Raw:
    """Return ATTRS that hold a size and nothing else."""
    return Raw(struct.pack(">IQ", 0x01, size))


class Reply(NamedTuple):
    """A reply; *rest* is what follows its id."""

    type: int
    id: int
    rest: bytes

    @property
    def code(self) -> int:
        """The code of a STATUS."""
        assert self.type == STATUS, self
        return int(struct.unpack_from(">I", self.rest)[0])

    @property
    def text(self) -> str:
        """The sentence of a STATUS."""
        assert self.type == STATUS, self
        return self.string(4).decode()

    @property
    def handle(self) -> bytes:
        """The handle of a HANDLE."""
        assert self.type == HANDLE, (self.type, self.rest)
        return self.string(0)

    @property
    def data(self) -> bytes:
        """The bytes of a DATA."""
        assert self.type == DATA, (self.type, self.rest)
        return self.string(0)

    @property
    def names(self) -> list[bytes]:
        """The file names of a NAME, without what `ls -l` would show."""
        assert self.type == NAME, (self.type, self.rest)
        (count,) = struct.unpack_from(">I", self.rest)
        at, names = 4, []
        for _ in range(count):
            name = self.string(at)
            at += 4 + len(name)
            at += 4 + len(self.string(at))
            at += 4 + _attributes_length(self.rest, at)
            names.append(name)
        assert at == len(self.rest)
        return names

    @property
    def size(self) -> int:
        """The size of an ATTRS."""
        assert self.type == ATTRS, (self.type, self.rest)
        flags, size = struct.unpack_from(">IQ", self.rest)
        assert flags & 1
        return int(size)

    def string(self, at: int) -> bytes:
        """Return the string that begins at *at*."""
        (length,) = struct.unpack_from(">I", self.rest, at)
        assert at + 4 + length <= len(self.rest)
        return self.rest[at + 4 : at + 4 + length]


def _attributes_length(data: bytes, at: int) -> int:
    (flags,) = struct.unpack_from(">I", data, at)
    assert not flags & ~0x0F, hex(flags)
    return 8 * bool(flags & 1) + 8 * bool(flags & 2) + 4 * bool(flags & 4) + 8 * bool(flags & 8)


class RawSftp(asyncssh.SSHClientSession[bytes]):
    """One channel with the subsystem ``sftp``; replies wait in *replies* in the order in which they came."""

    def __init__(self) -> None:
        self.chan: asyncssh.SSHClientChannel[bytes] | None = None
        self.replies: deque[Reply] = deque()
        self.stderr = b""
        self.version = b""
        self.exit_status: int | None = None
        self.is_closed = False
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._last = 0

    # --- asyncssh's calls ---

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Take the channel."""
        self.chan = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Cut the stream into replies."""
        if datatype is not None:
            self.stderr += data
            return
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 4:
            (length,) = struct.unpack_from(">I", self._buffer, at)
            if len(self._buffer) - at < 4 + length:
                break
            packet = bytes(self._buffer[at + 4 : at + 4 + length])
            at += 4 + length
            if packet[0] == 2:
                self.version = packet[1:]
            else:
                self.replies.append(Reply(packet[0], struct.unpack_from(">I", packet, 1)[0], packet[5:]))
        del self._buffer[:at]
        self._news.set()

    def exit_status_received(self, status: int) -> None:
        """Keep the exit status."""
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh names it
        """Note the end."""
        self.is_closed = True
        self._news.set()

    # --- what a test does ---

    @property
    def channel(self) -> asyncssh.SSHClientChannel[bytes]:
        """The open channel."""
        assert self.chan is not None
        return self.chan

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.channel.write(data)

    def ask(self, kind: int, *fields: Field) -> int:
        """Send a request and do not wait; returns its id."""
        self._last += 1
        self.send(pack(kind, self._last, *fields))
        return self._last

    async def next_reply(self) -> Reply:
        """Return the next reply in order of arrival; EOFError where the channel ends first."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.replies:
                if self.is_closed:
                    raise EOFError
                self._news.clear()
                await self._news.wait()
        return self.replies.popleft()

    async def reply_to(self, number: int) -> Reply:
        """Return the reply to the request *number*, leaving others where they are."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for reply in self.replies:
                    if reply.id == number:
                        self.replies.remove(reply)
                        return reply
                if self.is_closed:
                    raise EOFError
                self._news.clear()
                await self._news.wait()

    async def call(self, kind: int, *fields: Field) -> Reply:
        """Send a request and return its reply."""
        return await self.reply_to(self.ask(kind, *fields))

    async def greet(self, version: int = 3) -> None:
        """Exchange INIT and VERSION; EOFError where the channel ends first."""
        self.send(struct.pack(">IBI", 5, INIT, version))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.version:
                if self.is_closed:
                    raise EOFError
                self._news.clear()
                await self._news.wait()
        assert self.version[:4] == b"\0\0\0\3"

    async def wait_closed(self) -> None:
        """Wait until the server has closed the channel."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.channel.wait_closed()

    # --- the usual ways ---

    async def open(self, path: str | bytes, flags: int = WRITING) -> bytes:
        """Open a file and return its handle."""
        return (await self.call(OPEN, path, flags, Raw(NO_ATTRIBUTES))).handle

    async def put(self, path: str | bytes, data: bytes) -> Reply:
        """Upload *data* in WRITEs of 32 KiB and return the reply to CLOSE, or to the OPEN that failed."""
        opened = await self.call(OPEN, path, WRITING, Raw(NO_ATTRIBUTES))
        if opened.type != HANDLE:
            return opened
        for at in range(0, len(data), 32_000):
            self.ask(WRITE, opened.handle, Long(at), data[at : at + 32_000])
        return await self.call(CLOSE, opened.handle)

    async def get(self, path: str | bytes) -> bytes:
        """Read a whole file and close it."""
        handle, data = await self.open(path, READING), bytearray()
        while True:
            reply = await self.call(READ, handle, Long(len(data)), 200_000)
            if reply.type == STATUS:
                assert reply.code == EOF, reply.text
                break
            data += reply.data
        assert (await self.call(CLOSE, handle)).code == OK
        return bytes(data)

    async def list(self, path: str | bytes) -> list[str]:
        """Return the names in a directory."""
        handle, names = (await self.call(OPENDIR, path)).handle, []
        while (reply := await self.call(READDIR, handle)).type == NAME:
            names += [name.decode() for name in reply.names]
        assert reply.code == EOF
        assert (await self.call(CLOSE, handle)).code == OK
        return names


@contextlib.asynccontextmanager
async def open_raw(
    connection: asyncssh.SSHClientConnection, *, greets: bool = True, **options: Any
) -> AsyncIterator[RawSftp]:
    """Open a raw SFTP channel; *options* as `create_session` takes them (``window``, ``max_pktsize``)."""
    session = RawSftp()
    chan, _ = await connection.create_session(lambda: session, subsystem="sftp", encoding=None, **options)
    try:
        if greets:
            await session.greet()
        yield session
    finally:
        chan.abort()
