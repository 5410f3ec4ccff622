"""A client that speaks just enough SFTP version 3 to load a server, and costs little itself.

It sends what OpenSSH's client sends for the same work, and takes names apart no further than counting them: the more of a processor the client needs, the less it says about the server.
"""

import time
from collections.abc import Iterator

import asyncssh

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _OPENDIR, _READDIR, _REALPATH = 1, 2, 3, 4, 5, 6, 11, 12, 16
_STATUS, _HANDLE, _DATA, _NAME, _EXTENDED = 101, 102, 103, 104, 200
_OK, _EOF = 0, 1
_READ_ONLY = 0x01
# What OpenSSH's client writes and reads at once unless a server allows more.
_PIECE_BYTES = 32_768
_WRITE_CREATE_TRUNCATE = 0x02 | 0x08 | 0x10


class RefusedByServer(Exception):
    """The server answered with a failure; the text is the server's."""


class Sftp3:
    """One SFTP session over a connection of asyncssh."""

    def __init__(self, writer: asyncssh.SSHWriter[bytes], reader: asyncssh.SSHReader[bytes]) -> None:
        self._writer = writer
        self._reader = reader
        self._id = 0

    @classmethod
    async def open(cls, connection: asyncssh.SSHClientConnection) -> "Sftp3":
        """Start the subsystem and exchange versions and, as OpenSSH does, ask where we are."""
        writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
        session = cls(writer, reader)
        await session._exchange(bytes([_INIT]) + _number(3), _VERSION)
        await session._ask(_REALPATH, _text(b"."), _NAME)
        return session

    async def put(self, path: str, content: bytes, *, asks_sync: bool = False) -> float:
        """Upload *content*; on return the server has answered CLOSE with OK.  Returns how long that answer took.

        With *asks_sync* the server is asked to sync the file first, and the span begins with that.
        """
        flags = _number(_WRITE_CREATE_TRUNCATE) + _number(4) + _number(0o644)
        handle = await self._open(_OPEN, _text(path.encode()) + flags)
        pieces = range(0, len(content), _PIECE_BYTES)
        for at in pieces:
            self._send(_WRITE, handle + at.to_bytes(8) + _text(content[at : at + _PIECE_BYTES]))
        for _ in pieces:
            await self._receive(_STATUS)
        started = time.perf_counter()
        if asks_sync:
            await self._ask(_EXTENDED, _text(b"fsync@openssh.com") + handle, _STATUS)
        await self._ask(_CLOSE, handle, _STATUS)
        return time.perf_counter() - started

    async def get(self, path: str, size_bytes: int) -> int:
        """Download a file of *size_bytes*, all reads under way at once, up to its end; return how long it is."""
        handle = await self._open(_OPEN, _text(path.encode()) + _number(_READ_ONLY) + bytes(4))
        pieces = range(0, size_bytes + _PIECE_BYTES, _PIECE_BYTES)
        for at in pieces:
            self._send(_READ, handle + at.to_bytes(8) + _number(_PIECE_BYTES))
        replies = [await self._receive(_DATA) for _ in pieces]
        await self._ask(_CLOSE, handle, _STATUS)
        return sum(int.from_bytes(reply[5:9]) for reply in replies if reply)

    async def list_files(self, path: str) -> list[tuple[str, int]]:
        """List a directory to its end and return its names and sizes, without ``.`` and ``..``."""
        handle = await self._open(_OPENDIR, _text(path.encode()))
        files: list[tuple[str, int]] = []
        while reply := await self._ask(_READDIR, handle, _NAME):
            files += _parse_names(reply)
        await self._ask(_CLOSE, handle, _STATUS)
        return [(name, size) for name, size in files if name not in (".", "..")]

    async def count_names(self, path: str) -> int:
        """List a directory to its end and return how many names it has."""
        handle = await self._open(_OPENDIR, _text(path.encode()))
        names = 0
        while reply := await self._ask(_READDIR, handle, _NAME):
            names += int.from_bytes(reply[5:9])
        await self._ask(_CLOSE, handle, _STATUS)
        return names

    async def _open(self, kind: int, body: bytes) -> bytes:
        return (await self._ask(kind, body, _HANDLE))[5:]

    async def _ask(self, kind: int, body: bytes, expected: int) -> bytes:
        self._send(kind, body)
        return await self._receive(expected)

    def _send(self, kind: int, body: bytes) -> None:
        self._id += 1
        self._writer.write(_text(bytes([kind]) + _number(self._id) + body))

    async def _exchange(self, packet: bytes, expected: int) -> bytes:
        self._writer.write(_text(packet))
        return await self._receive(expected)

    async def _receive(self, expected: int) -> bytes:
        """Return the next reply: empty at the end of a file or a directory."""
        reply = await self._reader.readexactly(int.from_bytes(await self._reader.readexactly(4)))
        if reply[0] == _STATUS:
            code = int.from_bytes(reply[5:9])
            if code == _EOF:
                return b""
            if code != _OK or expected != _STATUS:
                raise RefusedByServer(f"status {code}: {reply[13:].decode(errors='replace')}")
        elif reply[0] != expected:
            raise RefusedByServer(f"reply of type {reply[0]}, not {expected}")
        return reply


def _number(value: int) -> bytes:
    return value.to_bytes(4)


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(4) + value


_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES = 1, 2, 4, 8


def _parse_names(reply: bytes) -> Iterator[tuple[str, int]]:
    """Read the names and sizes of a reply; no attributes but those of version 3 are expected."""
    at = 9
    for _ in range(int.from_bytes(reply[5:9])):
        texts = []
        for _ in range(2):
            end = at + 4 + int.from_bytes(reply[at : at + 4])
            texts.append(reply[at + 4 : end])
            at = end
        flags = int.from_bytes(reply[at : at + 4])
        at += 4
        yield texts[0].decode(), int.from_bytes(reply[at : at + 8]) if flags & _HAS_SIZE else 0
        for flag, length in ((_HAS_SIZE, 8), (_HAS_OWNER, 8), (_HAS_MODE, 4), (_HAS_TIMES, 8)):
            at += length if flags & flag else 0
