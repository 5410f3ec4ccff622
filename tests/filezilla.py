"""FileZilla's engine `fzsftp`, told over its standard input what FileZilla's window tells it.

The engine asks its parent for everything but the network: leave to send and to receive (its rate limits), whether a
host key is trusted, and every buffer of a local file, which lies in memory that both share.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import asyncssh
from house import HOST, PATIENCE_SECONDS, House, wait_for
from programs import Cannot, Said, without_dots

from relay.model import OfficeNumber

_BUFFER_BYTES = 262_144
# What a line of the engine begins with.
_REPLY, _DONE, _ERROR, _ENTRY, _ASK_KEY, _MAY_RECEIVE, _MAY_SEND = "0", "1", "2", "8", "9", "@", "A"
_HOST_KEY, _OPEN_FILE, _NEXT_BUFFER, _END_FILE = "I", "K", "L", "M"
_TO_THE_END = 2**64 - 1


class FileZilla(Cannot):
    """FileZilla 3.63: one engine a deed, with the certificate in an agent, the one way that it takes one."""

    name = "FileZilla"
    needs: tuple[str, ...] = ("fzsftp", "ssh-agent")

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return self._act(house, office, file, f'put "{file}" "/{target}"')

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return self._act(house, office, file, f'reput "{file}" "/{target}"')

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return self._act(house, office, file, f'get "/{source}" "{file}"')

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return self._act(house, office, file, f'reget "/{source}" "{file}"')

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return self._act(house, office, file, f'get "/{source}" "{file}"', f'rm "/{source}"')

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        with _engine(house, office) as engine:
            assert engine.tell(f'cd "/{folder}"')
            assert engine.tell("ls")
            return without_dots(engine.listed)

    def _act(self, house: House, office: OfficeNumber, file: Path, *commands: str) -> Said:
        with _engine(house, office) as engine:
            is_done = all(engine.tell(command, file) for command in commands)
            return Said(is_done, "".join(f"{line}\n" for line in engine.errors))


@contextlib.contextmanager
def _engine(house: House, office: OfficeNumber) -> Iterator[_Engine]:
    with (
        _agent(house, office) as socket,
        contextlib.closing(_Shared()) as shared,
        subprocess.Popen(
            ["fzsftp", "-v"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=[shared.descriptor],
            env={**os.environ, "HOME": str(house.path), "SSH_AUTH_SOCK": str(socket), "LC_ALL": "C.UTF-8"},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        keys = {
            asyncssh.read_public_key(each).get_fingerprint() for each in (house.path / "keys").glob("host_*_key.pub")
        }
        try:
            engine = _Engine(process.stdin, process.stdout.fileno(), shared, keys)
            assert engine.wait(None), engine.errors
            assert engine.tell(f'open "{office}@{HOST}" {house.port}'), engine.errors
            yield engine
        finally:
            process.kill()


@contextlib.contextmanager
def _agent(house: House, office: OfficeNumber) -> Iterator[Path]:
    held = house.certificate(office)
    folder = house.path / "agents" / f"{office}-{os.urandom(4).hex()}"
    folder.mkdir(parents=True)
    # ssh-add finds the certificate beside the key by its name.
    key = Path(shutil.copy(held.key, folder / "id"))
    shutil.copy(held.certificate, folder / "id-cert.pub")
    # A socket's path may have no more than some 100 bytes.
    socket = Path("/tmp") / f"relay-agent-{os.getpid()}-{folder.name}"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(socket.exists, "the agent's socket")
            environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
            subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True, timeout=PATIENCE_SECONDS)
            yield socket
        finally:
            process.terminate()


class _Shared:
    """The buffer of a local file that engine and parent both see."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("filezilla")
        os.ftruncate(self.descriptor, _BUFFER_BYTES)
        self.memory = mmap.mmap(self.descriptor, _BUFFER_BYTES)

    def close(self) -> None:
        """Give it back."""
        self.memory.close()
        os.close(self.descriptor)


@dataclass
class _Engine:
    """One running engine, and what it has said so far."""

    stdin: IO[bytes]
    stdout: int
    shared: _Shared
    trusted: set[str]
    listed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _buffer: bytes = b""
    _at: int = 0
    _key: str = ""
    _file: IO[bytes] | None = None
    _is_upload: bool = False

    def tell(self, command: str, file: Path | None = None) -> bool:
        """Give a command and serve the engine until it is done; True where it says that it succeeded."""
        self._write(command)
        self._is_upload = command.startswith(("put", "reput"))
        return self.wait(file)

    def wait(self, file: Path | None) -> bool:
        """Serve the engine until it has answered."""
        try:
            while True:
                kind = self._next(1)
                if kind in (_MAY_RECEIVE, _MAY_SEND):
                    self._write("-0-" if kind == _MAY_RECEIVE else "-1-")
                    continue
                text = self._line()
                if kind == _REPLY:
                    return True
                if kind == _DONE:
                    return text == "1"
                self._serve(kind, text, file)
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _serve(self, kind: str, text: str, file: Path | None) -> None:
        if kind == _ERROR:
            self.errors.append(text)
        elif kind == _ENTRY:
            self._line()  # its time
            self.listed.append(self._line())
        elif kind == _HOST_KEY:
            self._key = text.rpartition(" ")[2]
        elif kind == _ASK_KEY:
            self._line()  # the port
            assert self._key in self.trusted, self._key
            self._write("n")  # trusted this once
        elif kind == _OPEN_FILE:
            assert file is not None
            self._open(file, int(text))
        elif kind in (_NEXT_BUFFER, _END_FILE):
            self._pass_on(int(text), is_end=kind == _END_FILE)

    def _open(self, file: Path, offset: int) -> None:
        if self._is_upload:
            self._file = file.open("rb")
            self._file.seek(offset)
        else:
            self._file = file.open("ab" if offset == _TO_THE_END else "wb")
            offset = self._file.tell()
        self._write(f"-{self.shared.descriptor} {_BUFFER_BYTES} {offset}")

    def _pass_on(self, processed: int, *, is_end: bool) -> None:
        assert self._file is not None
        memory = self.shared.memory
        if self._is_upload:
            piece = self._file.read(_BUFFER_BYTES)
            memory[: len(piece)] = piece
            self._write(f"-0 {len(piece)}" if piece else "-")
            return
        self._file.write(memory[:processed])
        self._write("-1" if is_end else f"-0 {_BUFFER_BYTES}")

    def _write(self, line: str) -> None:
        self.stdin.write(f"{line}\n".encode())

    def _next(self, count: int) -> str:
        while len(self._buffer) < count:
            self._read()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken.decode()

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode().rstrip("\r")

    def _read(self) -> None:
        ready, _, _ = select.select([self.stdout], [], [], PATIENCE_SECONDS)
        assert ready, f"the engine says nothing more: {self.errors}"
        piece = os.read(self.stdout, 65_536)
        assert piece, f"the engine has ended: {self.errors}"
        self._buffer += piece
