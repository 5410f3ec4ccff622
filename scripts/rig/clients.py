"""The load program itself: ``python -m rig.clients``, one process of clients (see `rig.load`, which starts it).

Clients cost as little as they can: asyncssh for the transport, a dozen lines of SFTP of their own, no checking of names.
"""

import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import asyncssh
import uvloop
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_IGNORE
from asyncssh.packet import SSHPacketLogger

from rig.load import LoadError, Login, Task
from rig.offices import name_slip, name_text, render_serial, render_slip
from rig.sftp3 import RefusedByServer, Sftp3

# What OpenSSH's own client and server of Debian 12 agree on, where the relay can do it too.
KEY_EXCHANGE = ("curve25519-sha256",)
# In the order of OpenSSH's clients; asyncssh asks for RSA first, whose signature costs ten of the others.
HOST_KEYS = (
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
)
CIPHERS = ("chacha20-poly1305@openssh.com",)
# ProFTPD has no ChaCha20.
CIPHERS_BARE = ("aes128-gcm@openssh.com",)
_LOGIN_SECONDS = 60
_OPENING_AT_ONCE = 8
_KNOCK_AGAIN_SECONDS = 0.01
_KNOCK_SECONDS = 120
# A server that is gone: what is raised of it.
_GONE = (OSError, asyncssh.Error, EOFError, asyncio.IncompleteReadError)


class Clients:
    """The clients of one load process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._keys = {login.office: read_key(login, is_bare=task.is_bare) for login in (*task.logins, *task.readers)}
        self._sources = {login.office: login.source for login in (*task.logins, *task.readers)}
        self._senders = [login.office for login in task.logins]
        self._readers = [login.office for login in task.readers]
        self._sessions: list[tuple[str, Sftp3]] = []
        self._reading: list[tuple[str, Sftp3]] = []
        # At a steady pace: which sessions of senders, by their place, and of readers have nothing under way.
        self._free = asyncio.Queue[int]()
        self._looking = asyncio.Queue[tuple[str, Sftp3]]()
        self._connections: list[asyncssh.SSHClientConnection] = []
        self._content: dict[tuple[str, str], bytes] = {}
        self.done = 0
        self.spans: dict[str, list[float]] = {}

    async def prepare(self) -> None:
        """Open the sessions that the work needs before it begins."""
        if self._task.work in ("upload", "list", "relayed", "paced", "until lost"):
            self._sessions += await self._open_sessions(self._senders, self._task.concurrency)
        if self._readers:
            lanes = max(self._task.concurrency, len(self._readers))
            self._reading += await self._open_sessions(self._readers, lanes)

    async def work(self) -> None:
        """Do the work."""
        task = self._task
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "connect": lambda: _side_by_side(task.count, task.concurrency, self._connect_and_put),
            "login": lambda: _side_by_side(task.count, task.concurrency, self._log_in),
            "upload": self._upload,
            "relayed": lambda: _side_by_side(task.count, task.concurrency, self._relay_one),
            "paced": self._keep_pace,
            "idle": lambda: self._open_sessions(self._senders, task.count),
            "list": lambda: _side_by_side(task.count, task.concurrency, self._list),
            "knock": self._knock,
            "until lost": self._upload_until_lost,
        }
        await steps[task.work]()

    async def end(self) -> None:
        """Close what is open."""
        for connection in self._connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in self._connections), return_exceptions=True)

    async def _open_sessions(self, offices: list[str], count: int) -> list[tuple[str, Sftp3]]:
        opened: list[tuple[str, Sftp3]] = []

        async def open_one(index: int, _lane: int) -> None:
            office, connection = await self._connect(offices, index)
            self._connections.append(connection)
            opened.append((office, await Sftp3.open(connection)))

        await _side_by_side(count, min(_OPENING_AT_ONCE, count), open_one)
        return opened

    async def _connect(self, offices: list[str], index: int) -> tuple[str, asyncssh.SSHClientConnection]:
        office = offices[index % len(offices)]
        source = self._sources[office]
        connection = await asyncssh.connect(
            self._task.host,
            self._task.port,
            local_addr=(source, 0) if source else None,
            username=self._task.user or office,
            client_keys=[self._keys[office]],
            known_hosts=None,
            config=None,
            agent_path=None,
            kex_algs=KEY_EXCHANGE,
            server_host_key_algs=HOST_KEYS,
            encryption_algs=CIPHERS_BARE if self._task.is_bare else CIPHERS,
            login_timeout=_LOGIN_SECONDS,
        )
        return office, connection

    async def _log_in(self, index: int, _lane: int) -> None:
        _, connection = await self._connect(self._senders, index)
        async with connection:
            await Sftp3.open(connection)
        self.done += 1

    async def _connect_and_put(self, index: int, _lane: int) -> None:
        office, connection = await self._connect(self._senders, index)
        async with connection:
            await self._put_file(await Sftp3.open(connection), office, index)

    async def _upload(self) -> None:
        if not self._task.seconds:
            await _side_by_side(self._task.count, self._task.concurrency, self._put)
            return
        until = time.perf_counter() + self._task.seconds
        numbers = iter(range(sys.maxsize))

        async def keep_on(lane: int) -> None:
            while time.perf_counter() < until:
                await self._put(next(numbers), lane)

        await asyncio.gather(*map(keep_on, range(self._task.concurrency)))

    async def _upload_until_lost(self) -> None:
        numbers = iter(range(sys.maxsize))

        async def keep_on(lane: int) -> None:
            with contextlib.suppress(*_GONE):
                while True:
                    await self._put(next(numbers), lane)

        await asyncio.gather(*map(keep_on, range(self._task.concurrency)))

    async def _knock(self) -> None:
        until = time.perf_counter() + _KNOCK_SECONDS
        while True:
            with contextlib.suppress(*_GONE, RefusedByServer):
                await self._connect_and_put(0, 0)
                return
            if time.perf_counter() > until:
                raise LoadError("nobody answers")
            await asyncio.sleep(_KNOCK_AGAIN_SECONDS)

    async def _put(self, index: int, lane: int) -> None:
        office, session = self._sessions[lane]
        await self._put_file(session, office, index)

    async def _relay_one(self, index: int, lane: int) -> None:
        office, session = self._sessions[lane]
        reader, reading = self._reading[lane % len(self._reading)]
        name = await self._put_file(session, office, index, recipient=reader)
        size = self._task.file_bytes
        if await reading.get(f"{self._task.path}/{name}", size) != size:
            raise LoadError(f"{name} did not come out as it went in")

    async def _keep_pace(self) -> None:
        """Put files at random moments, whether or not the earlier ones have been answered."""
        drawn = random.Random(self._task.first)  # noqa: S311 - moments of load, no secrets
        for lane in range(self._task.concurrency):
            self._free.put_nowait(lane)
        for reader in self._reading:
            self._looking.put_nowait(reader)
        started = moment = time.perf_counter()
        index = 0
        async with asyncio.TaskGroup() as group:
            while (moment := moment + drawn.expovariate(self._task.rate)) < started + self._task.seconds:
                await asyncio.sleep(max(0.0, moment - time.perf_counter()))
                lane = await self._free.get()
                if self._task.look_every and index % self._task.look_every == 0:
                    group.create_task(self._put_and_fetch(index, lane, *await self._looking.get(), due=moment))
                else:
                    group.create_task(self._put_paced(index, lane, self._task.recipient, due=moment))
                index += 1

    async def _put_paced(self, index: int, lane: int, recipient: str, *, due: float) -> str:
        office, session = self._sessions[lane]
        # How far behind its moment it begins: a load program that is late measures itself.
        self.spans.setdefault("late", []).append(time.perf_counter() - due)
        name = await self._put_file(session, office, index, recipient=recipient)
        self._free.put_nowait(lane)
        return name

    async def _put_and_fetch(self, index: int, lane: int, recipient: str, reading: Sftp3, *, due: float) -> None:
        """Put a file for *recipient*, who looks until it is there and then reads it to its end, by which it leaves ``new/``."""
        path = self._task.path
        name = await self._put_paced(index, lane, recipient, due=due)
        answered = time.perf_counter()
        while name not in (files := dict(await reading.list_files(path))):
            if time.perf_counter() - answered > _LOGIN_SECONDS:
                raise LoadError(f"{name} was answered OK and does not appear")
        self.spans.setdefault("visible", []).append(time.perf_counter() - answered)
        self.spans.setdefault("names", []).append(len(files))
        if await reading.get(f"{path}/{name}", files[name]) != self._task.file_bytes:
            raise LoadError(f"{name} did not come out as it went in")
        self._looking.put_nowait((recipient, reading))

    async def _put_file(self, session: Sftp3, office: str, index: int, *, recipient: str = "") -> str:
        task = self._task
        recipient = recipient or task.recipient
        content = self._content.get((office, recipient))
        if content is None:
            content = self._content[office, recipient] = render_slip(office, recipient, task.file_bytes)
        give_name = name_text if task.is_text else name_slip
        name = give_name(office, recipient, render_serial(task.first + index))
        took = await session.put(f"send/{name}", content, asks_sync=task.asks_sync)
        self.spans.setdefault("close", []).append(took)
        self.done += 1
        return name

    async def _list(self, _index: int, lane: int) -> None:
        names = await self._sessions[lane][1].count_names(self._task.path)
        if names < self._task.expected:
            raise LoadError(f"{self._task.path} lists {names} names, not {self._task.expected}")
        self.spans.setdefault("names", []).append(names)
        self.done += 1


def send_as_openssh_does() -> None:
    """Keep asyncssh from sending an empty packet ahead of every packet, which no other client does.

    It is a remedy for old block ciphers in CBC mode and would double what every server here has to take in.
    """
    send_packet = SSHConnection.send_packet

    def send_wanted(self: SSHConnection, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        if pkttype != MSG_IGNORE:
            send_packet(self, pkttype, *args, handler=handler)

    SSHConnection.send_packet = send_wanted  # type: ignore[method-assign]


Key = asyncssh.SSHKey | tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]


def read_key(login: Login, *, is_bare: bool) -> Key:
    """Read what *login* logs in with: its key, and the certificate beside it unless *is_bare*."""
    key = asyncssh.read_private_key(login.key)
    return key if is_bare else (key, asyncssh.read_certificate(f"{login.key}-cert.pub"))


def allow_open_files() -> None:
    """Let this process have as many connections as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _side_by_side(count: int, lanes: int, step: Callable[[int, int], Awaitable[None]]) -> None:
    """Run step(index, lane) for every index below *count*, each lane one after the other."""
    indexes = iter(range(count))

    async def run_lane(lane: int) -> None:
        for index in indexes:
            await step(index, lane)

    await asyncio.gather(*(run_lane(lane) for lane in range(lanes)))


class Working(Protocol):
    """What a load process runs; *spans* and *done* are what it tells of its work."""

    done: int
    spans: dict[str, list[float]]

    async def prepare(self) -> None:
        """Open what the work needs before it begins."""

    async def work(self) -> None:
        """Do what is measured."""

    async def end(self) -> None:
        """Close what is open."""


async def follow_orders(make: Callable[[dict[str, Any]], Working]) -> None:
    """Be a load process (see `rig.load`): *make* what works of the order that is read, and say what the work took."""
    send_as_openssh_does()
    allow_open_files()
    working = make(json.loads(sys.stdin.readline()))
    await working.prepare()
    print("ready", flush=True)
    if await asyncio.to_thread(sys.stdin.readline) == "go\n":
        working.spans.clear()
        working.done = 0
        started, used = time.perf_counter(), time.process_time()
        await working.work()
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        print(json.dumps({"wall": wall, "cpu": cpu, "done": working.done, "spans": working.spans}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await working.end()


def _make_clients(described: dict[str, Any]) -> Clients:
    logins = {name: tuple(Login(**login) for login in described[name]) for name in ("logins", "readers")}
    return Clients(Task(**(described | logins)))


if __name__ == "__main__":
    uvloop.run(follow_orders(_make_clients))
