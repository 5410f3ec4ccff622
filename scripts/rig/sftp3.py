"""A client that speaks just enough SFTP version 3 to load a server, and costs little itself.

It sends what OpenSSH's client sends for the same work, one request at a time, and takes names apart no further than
counting them: the more of a processor the client needs, the less it says about the server.
"""

import asyncssh

_INIT, _VERSION, _OPEN, _CLOSE, _WRITE, _OPENDIR, _READDIR, _REALPATH = 1, 2, 3, 4, 6, 11, 12, 16
_STATUS, _HANDLE, _NAME = 101, 102, 104
_OK, _EOF = 0, 1
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

    async def put(self, path: str, content: bytes) -> None:
        """Upload *content*, small enough for one request; on return the server has answered CLOSE with OK."""
        flags = _number(_WRITE_CREATE_TRUNCATE) + _number(4) + _number(0o644)
        handle = await self._open(_OPEN, _text(path.encode()) + flags)
        await self._ask(_WRITE, handle + bytes(8) + _text(content), _STATUS)
        await self._ask(_CLOSE, handle, _STATUS)

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
        self._id += 1
        return await self._exchange(bytes([kind]) + _number(self._id) + body, expected)

    async def _exchange(self, packet: bytes, expected: int) -> bytes:
        self._writer.write(_text(packet))
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
