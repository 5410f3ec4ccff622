"""Tools of hostile clients, and the scales on which their crimes are weighed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import psutil
import raw_sftp as sftp
from asyncssh.channel import SSHClientChannel
from asyncssh.constants import MSG_KEXINIT
from house import HOME_HELP, House, general_name
from raw_sftp import RawSftp, open_raw

MIB = 1 << 20
# What one session may make the relay hold: the requests under way (1 MiB), their replies (1 MiB), the channel's input
# (its window), two chunks for each of four open readings, the transport's buffer, and what the allocator keeps.
SESSION_BYTES = 24 * MIB
HUGE_WINDOW = 2**31 - 1
LONG_FILE = general_name("txt", number=900)
LONG_BYTES = 8 * MIB


def settle(house: House) -> int:
    """Wait until the server does nothing any more; return its memory."""
    assert house.process is not None
    server = psutil.Process(house.process.pid)
    spent, since = sum(server.cpu_times()[:2]), time.monotonic()
    deadline = since + 60

    def is_quiet() -> bool:
        nonlocal spent, since
        now = sum(server.cpu_times()[:2])
        if now != spent:
            spent, since = now, time.monotonic()
        return time.monotonic() - since > 0.5 or time.monotonic() > deadline

    house.wait_for(is_quiet, "a quiet server", 90)
    return house.memory_bytes()


async def put_long(house: House, name: str = LONG_FILE) -> str:
    """Send a file of 8 MiB, warm the server up, and return its name."""
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{name}", bytes(LONG_BYTES))).code == sftp.OK
        assert len(await raw.get(f"/send/{name}")) == LONG_BYTES
    return name


def stop_reading(connection: asyncssh.SSHClientConnection) -> None:
    """Take nothing more off the network."""
    transport: Any = connection._transport
    transport.pause_reading()


def hold_rekey(client: Any) -> None:
    """Begin a key exchange and never answer the relay's part of it."""

    async def ignore(*_: object) -> None:
        return

    client._packet_handlers = {**client._packet_handlers, MSG_KEXINIT: ignore}
    client._send_kexinit()
    client._kexinit_sent = True


def send_past_the_rekey(client: Any, pkttype: int, payload: bytes) -> None:
    """Send a packet although a key exchange is under way, as no honest client does."""
    client._kex_complete = True
    try:
        client.send_packet(pkttype, payload)
    finally:
        client._kex_complete = False


@contextlib.asynccontextmanager
async def session(house: House, **options: Any) -> AsyncIterator[tuple[Any, RawSftp]]:
    """Log in as the office that the long file is for; gives the connection and a raw channel."""
    async with house.dial(HOME_HELP) as connection, open_raw(connection, **options) as raw:
        yield connection, raw


@contextlib.asynccontextmanager
async def bare_channel(house: House) -> AsyncIterator[tuple[Any, Any]]:
    """Log in and open a channel on which nothing was asked for yet."""
    async with house.dial() as connection:
        client: Any = connection
        loop = asyncio.get_running_loop()
        channel: Any = SSHClientChannel(client, loop, "strict", None, "strict", HUGE_WINDOW, 32_768)
        await channel._open(b"session")
        channel._session = asyncssh.SSHClientSession()
        yield connection, channel
