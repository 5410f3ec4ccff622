"""The load program: clients in a process of their own, the same for every server.

Started by `Load`, it reads one line of JSON that says what to do, prepares, says ``ready``, and on ``go`` does the
work and answers with how long that took; sessions it opened stay open until its input ends.  What is measured about
the server is measured by the parent between ``ready`` and the answer.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import asyncssh
import uvloop
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_IGNORE
from asyncssh.packet import SSHPacketLogger

from rig.offices import name_slip, name_text, render_serial, render_slip
from rig.sftp3 import Sftp3

FILE_BYTES = 10 * 1024

# What OpenSSH's own client and server of Debian 12 agree on, where the relay can do it too.
_KEY_EXCHANGE = ("curve25519-sha256",)
_CIPHERS = ("chacha20-poly1305@openssh.com",)
_LOGIN_SECONDS = 60


class LoadError(Exception):
    """The load program failed; what it said is on standard error."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in: the office, and where its private key lies, with the certificate beside it."""

    office: str
    key: str


@dataclass(frozen=True, slots=True)
class Task:
    """What one load process does.

    *work* is ``connect`` (a connection for each file), ``upload`` (files over open sessions), ``idle`` (open
    sessions only) or ``list`` (*path*, over one session, *count* times; *expected* names at least).
    Files go to *recipient*, numbered from *first*; with *is_text* the same bytes go under names of texts.
    """

    work: str
    host: str
    port: int
    user: str | None
    logins: tuple[Login, ...]
    count: int
    concurrency: int = 1
    recipient: str = ""
    first: int = 0
    path: str = ""
    expected: int = 0
    is_text: bool = False


@dataclass(slots=True)
class Load:
    """Running load processes that have prepared and wait."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def go(self) -> float:
        """Let all of them work and return the wall time of the slowest, in seconds."""
        for process in self.processes:
            _write_line(process, "go")
        return max(float(_read_line(process)) for process in self.processes)


@contextlib.contextmanager
def prepared(tasks: Sequence[Task]) -> Iterator[Load]:
    """Start a load process for each task; sessions stay open until the end of the block."""
    load = Load()
    try:
        for task in tasks:
            command = [sys.executable, "-m", "rig.load"]
            pipe = subprocess.PIPE
            load.processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=_SCRIPTS))
            _write_line(load.processes[-1], json.dumps(asdict(task)))
        for process in load.processes:
            if _read_line(process) != "ready":
                raise LoadError("a load process is not ready")
        yield load
    finally:
        for process in load.processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process in load.processes:
            process.wait()


_SCRIPTS = Path(__file__).resolve().parent.parent


def _write_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise LoadError(f"a load process ended with exit code {process.wait()}")
    return line.strip()


class Clients:
    """The clients of one load process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._keys = {login.office: _read_key(login.key) for login in task.logins}
        self._sessions: list[tuple[str, Sftp3]] = []
        self._connections: list[asyncssh.SSHClientConnection] = []
        self._content = {o: render_slip(o, task.recipient, FILE_BYTES) for o in self._keys if task.recipient}

    async def prepare(self) -> None:
        """Open the sessions that the work needs before it begins."""
        if self._task.work in ("upload", "list"):
            await self._open_sessions(self._task.concurrency)

    async def work(self) -> None:
        """Do the work."""
        task = self._task
        if task.work == "connect":
            await _side_by_side(task.count, task.concurrency, self._connect_and_put)
        elif task.work == "upload":
            await _side_by_side(task.count, task.concurrency, self._put)
        elif task.work == "idle":
            await self._open_sessions(task.count)
        elif task.work == "list":
            await _side_by_side(task.count, task.concurrency, self._list)
        else:
            raise LoadError(f"no such work: {task.work}")

    async def end(self) -> None:
        """Close what is open."""
        for connection in self._connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in self._connections))

    async def _open_sessions(self, count: int) -> None:
        async def open_one(index: int, _lane: int) -> None:
            office, connection = await self._connect(index)
            self._connections.append(connection)
            self._sessions.append((office, await Sftp3.open(connection)))

        await _side_by_side(count, min(8, count), open_one)

    async def _connect(self, index: int) -> tuple[str, asyncssh.SSHClientConnection]:
        office = list(self._keys)[index % len(self._keys)]
        connection = await asyncssh.connect(
            self._task.host,
            self._task.port,
            username=self._task.user or office,
            client_keys=[self._keys[office]],
            known_hosts=None,
            config=None,
            agent_path=None,
            kex_algs=_KEY_EXCHANGE,
            encryption_algs=_CIPHERS,
            login_timeout=_LOGIN_SECONDS,
        )
        return office, connection

    async def _connect_and_put(self, index: int, _lane: int) -> None:
        office, connection = await self._connect(index)
        async with connection:
            await self._put_file(await Sftp3.open(connection), office, index)

    async def _put(self, index: int, lane: int) -> None:
        office, session = self._sessions[lane]
        await self._put_file(session, office, index)

    async def _put_file(self, session: Sftp3, office: str, index: int) -> None:
        give_name = name_text if self._task.is_text else name_slip
        name = give_name(office, self._task.recipient, render_serial(self._task.first + index))
        await session.put(f"send/{name}", self._content[office])

    async def _list(self, _index: int, lane: int) -> None:
        names = await self._sessions[lane][1].count_names(self._task.path)
        if names < self._task.expected:
            raise LoadError(f"{self._task.path} lists {names} names, not {self._task.expected}")


def _send_as_openssh_does() -> None:
    """Keep asyncssh from sending an empty packet ahead of every packet, which no other client does.

    It is a remedy for old block ciphers in CBC mode and would double what every server here has to take in.
    """
    send_packet = SSHConnection.send_packet

    def send_wanted(self: SSHConnection, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        if pkttype != MSG_IGNORE:
            send_packet(self, pkttype, *args, handler=handler)

    SSHConnection.send_packet = send_wanted  # type: ignore[method-assign]


def _read_key(path: str) -> tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]:
    return asyncssh.read_private_key(path), asyncssh.read_certificate(f"{path}-cert.pub")


async def _side_by_side(count: int, lanes: int, step: Callable[[int, int], Awaitable[None]]) -> None:
    """Run step(index, lane) for every index below *count*, each lane one after the other."""
    indexes = iter(range(count))

    async def run_lane(lane: int) -> None:
        for index in indexes:
            await step(index, lane)

    await asyncio.gather(*(run_lane(lane) for lane in range(lanes)))


async def _main() -> None:
    _send_as_openssh_does()
    described = json.loads(sys.stdin.readline())
    described["logins"] = tuple(Login(**login) for login in described["logins"])
    clients = Clients(Task(**described))
    await clients.prepare()
    print("ready", flush=True)
    if await asyncio.to_thread(sys.stdin.readline) == "go\n":
        started = time.perf_counter()
        await clients.work()
        print(time.perf_counter() - started, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await clients.end()


if __name__ == "__main__":
    uvloop.run(_main())
