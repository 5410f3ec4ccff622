"""A server with everything of the edge installed, and asyncssh's own client on the other side."""
# ruff: noqa: ARG002, D102 - the methods here are asyncssh's to name and to explain

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from asyncssh.channel import SSHClientChannel

from relay import ciphers, edge, packets

HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")
CLIENT_KEY = asyncssh.generate_private_key("ssh-ed25519")
CA_KEY = asyncssh.generate_private_key("ssh-ed25519")
PATIENCE_SECONDS = 60


@dataclass
class Seen:
    """What the server's side of a test saw."""

    conn: Any = None
    gate: edge.ConnectionGate | None = None
    crimes: list[str] = field(default_factory=list)
    offers: list[tuple[str, bool]] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    make_session: Callable[[], Session] | None = None
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    lost_with: Exception | None = None


class Session(asyncssh.SSHServerSession[bytes]):
    """A session that keeps what it is told."""

    def __init__(self) -> None:
        self.channel: Any = None
        self.asked: list[str] = []
        self.received = b""
        self.has_started = asyncio.Event()

    def connection_made(self, chan: Any) -> None:
        self.channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        self.asked.append(subsystem)
        return True

    def session_started(self) -> None:
        self.has_started.set()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.received += data

    def __getattribute__(self, name: str) -> Any:
        if name in {"pty_requested", "shell_requested", "exec_requested", "terminal_size_changed", "signal_received"}:
            object.__getattribute__(self, "asked").append(name)
        return object.__getattribute__(self, name)


class Placed(Session, packets.Sink):
    """A session that has its data deciphered to a place of its own, and counts the pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[int] = []

    def room(self, size: int) -> memoryview:
        self.place = memoryview(bytearray(size))
        return self.place

    def poured(self, size: int) -> None:
        self.pieces.append(size)
        self.received += self.place[:size]
        edge.return_window(self.channel, held_bytes=0)


class Owner(asyncssh.SSHServer):
    """A server with everything of the edge installed, which lets in whoever signs."""

    _lane: packets.PacketLane

    def __init__(self, seen: Seen, rekey_seconds: float) -> None:
        self._seen = seen
        self._rekey_seconds = rekey_seconds

    def connection_made(self, conn: Any) -> None:
        self._seen.conn = conn
        self._seen.gate = edge.ConnectionGate(conn, on_crime=self._punish, rekey_seconds=self._rekey_seconds)
        edge.wrap_validation(conn, self._validate)
        edge.permit_repeated_service_request(conn)
        edge.judge_kex_guess(conn)
        edge.keep_options(conn)
        self._lane = packets.PacketLane(conn)
        self._seen.gate.take_ahead = self._lane.take_ahead

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.lost_with = exc
        self._seen.lost.set()
        if self._seen.gate:
            self._seen.gate.close()

    def _punish(self, crime: str) -> None:
        self._seen.crimes.append(crime)
        self._seen.conn.disconnect(asyncssh.DISC_PROTOCOL_ERROR, crime)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key.public_data == CA_KEY.public_data

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == "A"

    async def _validate(
        self, username: str, key_data: bytes, msg: bytes, signature: bytes, ask: Callable[[str], Awaitable[bool]]
    ) -> bool:
        is_good = await ask(username.upper())
        self._seen.offers.append((username, bool(msg)))
        return is_good

    def session_requested(self) -> Any:
        session = (self._seen.make_session or Session)()
        self._seen.sessions.append(session)
        channel = edge.open_channel(self._seen.conn, window_bytes=1 << 20, packet_bytes=32768)
        self._lane.adopt(channel, session)
        return channel, session


@asynccontextmanager
async def listening(*, rekey_seconds: float = 30.0, **options: Any) -> AsyncIterator[tuple[Seen, int]]:
    """Yield what the server sees and its port."""
    ciphers.keep_ciphers()
    seen = Seen()
    listener = await asyncssh.listen(
        "127.0.0.1",
        0,
        **{
            "server_factory": lambda: Owner(seen, rekey_seconds),
            "server_host_keys": [HOST_KEY],
            "encoding": None,
            "line_editor": False,
            "gss_host": None,
            **options,
        },
    )
    try:
        yield seen, listener.get_port()
    finally:
        listener.close()
        if seen.conn:
            seen.conn.abort()
        await listener.wait_closed()


@asynccontextmanager
async def connected(*, rekey_seconds: float = 30.0, **options: Any) -> AsyncIterator[tuple[Seen, Any]]:
    """Yield what the server sees and asyncssh's own client, logged in."""
    async with listening(rekey_seconds=rekey_seconds) as (seen, port):
        client = await connect(port, **options)
        try:
            yield seen, client
        finally:
            client.abort()
            await client.wait_closed()


async def connect(port: int, **options: Any) -> Any:
    """Return a client's connection."""
    chosen: dict[str, Any] = {
        "known_hosts": None,
        "username": "a",
        "client_keys": [CLIENT_KEY],
        "config": None,
        **options,
    }
    return await asyncssh.connect("127.0.0.1", port, agent_path=None, gss_host=None, **chosen)


async def open_raw_channel(client: Any) -> Any:
    """Return a session channel on which nothing was asked for yet."""
    channel: Any = SSHClientChannel(client, asyncio.get_running_loop(), "strict", None, "strict", 1 << 21, 32768)
    await channel._open(b"session")
    channel._session = asyncssh.SSHClientSession()
    return channel


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop run until *is_so*."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - asyncssh has no event for most of what is waited for
            await asyncio.sleep(0)
