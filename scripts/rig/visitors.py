"""The country's clients: ``python -m rig.visitors``, one process of offices that come and go as in a busy hour.

Visits begin at random moments, whether or not earlier ones are over, as those of people do who do not know of each other.
Each is a sending session or a poll that fetches what it finds; most connect for it, some keep a session open.  Every office
comes from an address of its own on the loopback network, so that the relay's limits for a network stay as they are.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from base64 import b64decode
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import uvloop

from rig.clients import CIPHERS, HOST_KEYS, KEY_EXCHANGE, Key, follow_orders, read_key
from rig.load import Login
from rig.offices import render_serial
from rig.sftp3 import RefusedByServer, Sftp3

_LOGIN_SECONDS = 30
_FETCH_MOST = 10
# Where so many are in the middle of something, nobody is served in time any more: who comes then is turned away here.
_VISITORS_MOST = 1500
_OPENING_AT_ONCE = 8
# Registered nowhere: what a mistyped number is.
_NOBODY = "9978599999"
_GONE = (OSError, asyncssh.Error, EOFError, asyncio.IncompleteReadError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Visits:
    """What one process does: *population* is the file of offices, *place* of *places* the part whose sessions it keeps open.

    *sendings* and *polls* begin in a second, for *seconds*; *kept* of them over open sessions.
    """

    host: str
    port: int
    population: str
    place: int
    places: int
    sendings: float
    polls: float
    files_a_visit: int
    refused: float
    kept: float
    seconds: float
    first: int
    seed: int


@dataclass(slots=True)
class Actor:
    """An office that takes part: *letters* are what it sends, each a name without its serial, the recipient, and bytes."""

    login: Login
    letters: list[tuple[str, str, bytes]]
    key: Key | None = None


@dataclass(slots=True)
class _Open:
    """A session that stays open; one visit at a time uses it."""

    session: Sftp3
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Country:
    """All visits of one process."""

    def __init__(self, visits: Visits) -> None:
        self._visits = visits
        self._random = random.Random(visits.seed)  # noqa: S311 - moments of load, no secrets
        self._actors = _read_population(Path(visits.population))
        self._senders = [actor for actor in self._actors.values() if actor.letters]
        self._everybody = list(self._actors.values())
        self._kept: dict[str, _Open] = {}
        self._kept_senders: list[str] = []
        self._connections: list[asyncssh.SSHClientConnection] = []
        self._waiting: deque[str] = deque()
        self._serial = visits.first
        self._inside = 0
        self.done = 0
        self.spans: dict[str, list[float]] = {}

    async def prepare(self) -> None:
        """Open the sessions that stay open: those of some offices of our part."""
        own = self._everybody[self._visits.place :: self._visits.places]
        staying = iter(own[: max(1, round(len(own) * self._visits.kept))])

        async def lane() -> None:
            for actor in staying:
                connection = await self._connect(actor)
                self._connections.append(connection)
                self._kept[actor.login.office] = _Open(await Sftp3.open(connection))

        await asyncio.gather(*(lane() for _ in range(_OPENING_AT_ONCE)))
        self._kept_senders = [office for office in self._kept if self._actors[office].letters]

    async def work(self) -> None:
        """Let visits begin, and wait for the last of them."""
        visits = self._visits
        rate = visits.sendings + visits.polls
        started = moment = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            while (moment := moment + self._random.expovariate(rate)) < started + visits.seconds:
                await asyncio.sleep(max(0.0, moment - time.perf_counter()))
                self._note("late", moment)
                is_sending = self._random.random() < visits.sendings / rate
                group.create_task(self._visit(moment, is_sending=is_sending))

    async def end(self) -> None:
        """Close what is open."""
        for connection in self._connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in self._connections), return_exceptions=True)

    async def _visit(self, due: float, *, is_sending: bool) -> None:
        if self._inside >= _VISITORS_MOST:
            self._count("turned away")
            return
        self._inside += 1
        try:
            async with self._session(due, is_sending=is_sending) as (session, actor):
                await (self._send(session, actor) if is_sending else self._poll(session))
            self.done += 1
        except (*_GONE, RefusedByServer) as error:
            self._count("failed")
            print(f"a visit failed: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            self._inside -= 1

    @contextlib.asynccontextmanager
    async def _session(self, due: float, *, is_sending: bool) -> AsyncIterator[tuple[Sftp3, Actor]]:
        staying = self._kept_senders if is_sending else list(self._kept)
        if staying and self._random.random() < self._visits.kept:
            office = self._random.choice(staying)
            kept = self._kept[office]
            async with kept.lock:
                self._count("kept")
                yield kept.session, self._actors[office]
            return
        actor = self._choose(is_sending=is_sending)
        connection = await self._connect(actor)
        async with connection:
            session = await Sftp3.open(connection)
            self._note("login", due)
            yield session, actor

    def _choose(self, *, is_sending: bool) -> Actor:
        if is_sending:
            return self._random.choice(self._senders)
        # As often as something is sent, somebody comes for whom something lies here.
        arrivals = self._visits.sendings * self._visits.files_a_visit / self._visits.polls / (1 - self._visits.kept)
        if self._waiting and self._random.random() < arrivals:
            return self._actors[self._waiting.popleft()]
        return self._random.choice(self._everybody)

    async def _connect(self, actor: Actor) -> asyncssh.SSHClientConnection:
        actor.key = actor.key or read_key(actor.login, is_bare=False)
        return await asyncssh.connect(
            self._visits.host,
            self._visits.port,
            local_addr=(actor.login.source, 0),
            username=actor.login.office,
            client_keys=[actor.key],
            known_hosts=None,
            config=None,
            agent_path=None,
            kex_algs=KEY_EXCHANGE,
            server_host_key_algs=HOST_KEYS,
            encryption_algs=CIPHERS,
            login_timeout=_LOGIN_SECONDS,
        )

    async def _send(self, session: Sftp3, actor: Actor) -> None:
        for _ in range(self._visits.files_a_visit):
            stem, recipient, content = self._random.choice(actor.letters)
            self._serial += 1
            name = f"{stem}{render_serial(self._serial)}.CSV"
            started = time.perf_counter()
            if self._random.random() < self._visits.refused:
                with contextlib.suppress(RefusedByServer):
                    await session.put(f"send/{name.replace(recipient, _NOBODY)}", content)
                    raise RuntimeError("a file for nobody was accepted")
                self._note("refusal", started)
                continue
            await session.put(f"send/{name}", content)
            self._note("upload", started)
            self._waiting.append(recipient)

    async def _poll(self, session: Sftp3) -> None:
        started = time.perf_counter()
        files = await session.list_files("new")
        self._note("poll", started)
        for name, size in files[:_FETCH_MOST]:
            started = time.perf_counter()
            # Another visit of the same office may have fetched it since.
            with contextlib.suppress(RefusedByServer):
                await session.get(f"new/{name}", size)
                self._note("download", started)

    def _note(self, what: str, started: float) -> None:
        self.spans.setdefault(what, []).append(time.perf_counter() - started)

    def _count(self, what: str) -> None:
        self.spans.setdefault(what, []).append(0.0)


def _read_population(path: Path) -> dict[str, Actor]:
    listed = json.loads(path.read_text(encoding="utf-8"))
    return {
        row["office"]: Actor(
            Login(row["office"], row["key"], row["source"]),
            [(stem, recipient, b64decode(content)) for stem, recipient, content in row["letters"]],
        )
        for row in listed
    }


if __name__ == "__main__":
    uvloop.run(follow_orders(lambda described: Country(Visits(**described))))
