"""What one client can make the relay hold in memory, measured on the real server.

Bounds, for one session: a client that asks and does not read costs at most `hostile_tools.SESSION_BYTES`.  That is the requests
under way (1 MiB), their replies (1 MiB), the channel's input (its window), two chunks for each of four open readings,
the transport's buffer, and what the allocator keeps.  Or, for one that writes, what `relay.buffers` lets all uploads of
a session have, `WRITING_BYTES`: 4 MiB on their way into the store, 4 MiB ahead of their turn, three chunks for each of
eight, twice that because the allocator gives little back, and what SQLite keeps of what it has just written.
Each of `hostile.CRIMES` is measured too.
"""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import Callable
from typing import Any

import asyncssh
import raw_sftp as sftp
from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.packet import String, UInt32
from faultshim import MakeHouse
from hostile_tools import HUGE_WINDOW, MIB, SESSION_BYTES, put_long, settle, stop_reading
from house import HOME_HELP, House, general_name, plan_csv, plan_name
from raw_sftp import NO_ATTRIBUTES, Long, Raw, RawSftp, open_raw, pack

WRITING_BYTES = 32 * MIB
ATTRIBUTES = Raw(NO_ATTRIBUTES)


async def flood(
    house: House, raw: RawSftp, connection: asyncssh.SSHClientConnection, ask: Callable[[int], None]
) -> int:
    """Send as long as the server takes it, 20,000 times at most, without reading; return the memory then."""
    transport: Any = connection._transport
    for number in range(20_000):
        ask(number)
        if transport.get_write_buffer_size() > 4 * MIB:
            break
    return settle_aside(house)


def settle_aside(house: House) -> int:
    """As `settle`; the client's own loop stands still meanwhile, which is the point of it."""
    return settle(house)


async def test_a_client_with_a_small_window_costs_no_more_than_a_session(house: House) -> None:
    """20,000 READs of 255 KiB, 5 GB asked for, under a window of 64 bytes."""
    name = await put_long(house)
    before = settle(house)
    async with house.dial(HOME_HELP) as connection, open_raw(connection, window=64) as raw:
        handle = await raw.open(f"/receive/{name}", sftp.READING)
        stop_reading(connection)
        after = await flood(
            house, raw, connection, lambda n: void(raw.ask(sftp.READ, handle, Long(n * 4_000 % (8 * MIB)), 261_120))
        )
        assert after - before < SESSION_BYTES, f"{(after - before) / MIB:.1f} MiB"
        connection.abort()
    house.wait_for_event("session.closed", 2)


async def test_many_open_files_cost_no_more_than_a_session(house: House) -> None:
    """A READ on each of as many handles as there may be, again and again, in chunks all over the file."""
    name = await put_long(house)
    before = settle(house)
    async with house.dial(HOME_HELP) as connection, open_raw(connection, window=HUGE_WINDOW) as raw:
        handles = [await raw.open(f"/receive/{name}", sftp.READING) for _ in range(100)]
        stop_reading(connection)
        after = await flood(
            house,
            raw,
            connection,
            lambda n: void(raw.ask(sftp.READ, handles[n % 100], Long(n * 300_007 % (8 * MIB)), 261_120)),
        )
        assert after - before < SESSION_BYTES, f"{(after - before) / MIB:.1f} MiB"
        connection.abort()


async def test_listings_that_nobody_reads_cost_no_more_than_a_session(house: House) -> None:
    """OPENDIR and READDIR by the thousand of a directory with a thousand files, and not a byte taken."""
    async with house.dial() as connection, open_raw(connection) as raw:
        numbers = []
        for number in range(1_000):
            handle = await raw.open(f"/send/{plan_name(number=number)}")
            raw.ask(sftp.WRITE, handle, Long(0), plan_csv(300))
            numbers.append(raw.ask(sftp.CLOSE, handle))
        assert all([(await raw.reply_to(number)).code == sftp.OK for number in numbers])
    async with house.dial(HOME_HELP) as connection, open_raw(connection, window=HUGE_WINDOW) as raw:
        assert len(await raw.list("/receive")) == 1_002
        before = settle(house)
        handles = [(await raw.call(sftp.OPENDIR, "/receive")).handle for _ in range(100)]
        stop_reading(connection)
        after = await flood(house, raw, connection, lambda n: void(raw.ask(sftp.READDIR, handles[n % 100])))
        # A page of the index waits on each of the hundred handles: 512 entries of some 250 bytes.
        assert after - before < SESSION_BYTES + 100 * 512 * 300, f"{(after - before) / MIB:.1f} MiB"
        connection.abort()


async def test_a_refused_upload_keeps_nothing_of_what_follows(house: House) -> None:
    """Two thousand WRITEs of 200 KB behind a refusal: none of their bytes stays."""
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{plan_name()}")
        before = settle(house)
        assert (await raw.call(sftp.WRITE, handle, Long(2**62), b"x")).code == sftp.FAILURE
        for _ in range(500):
            assert (await raw.call(sftp.WRITE, handle, Long(0), b"x" * 200_000)).code == sftp.FAILURE
        assert settle(house) - before < SESSION_BYTES


async def test_many_uploads_into_a_store_that_stands_still_cost_no_more_than_a_session(make_house: MakeHouse) -> None:
    """A hundred files at once while nothing can be stored: most of it waits in the client, and then all of it arrives."""
    house = make_house(store={"lock_wait_seconds": 120.0})
    house.start()
    async with house.dial() as connection, open_raw(connection) as raw:
        handles = [await raw.open(f"/send/{general_name('txt', number=number)}") for number in range(100)]
        before = settle(house)
        with house.config.store.path.with_name("relay.db.lock").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            asked = [
                raw.ask(sftp.WRITE, handle, Long(piece * 200_000), bytes(200_000))
                for piece in range(4)
                for handle in handles
            ]
            await asyncio.to_thread(wait_until_stuck, house, raw)
            after = house.memory_bytes()
        assert after - before < WRITING_BYTES, f"{(after - before) / MIB:.1f} MiB"
        assert len(raw.replies) < len(asked)
        for number in asked:
            assert (await raw.reply_to(number)).code == sftp.OK
        closed = [raw.ask(sftp.CLOSE, handle) for handle in handles]
        for number in closed:
            assert (await raw.reply_to(number)).code == sftp.OK
    assert [transfer.size_bytes for transfer in house.transfers()] == [800_000] * 100


def wait_until_stuck(house: House, raw: RawSftp) -> None:
    """Wait until no reply has come for a while: the server has taken all that it takes."""
    count, since = -1, time.monotonic()

    def is_stuck() -> bool:
        nonlocal count, since
        if count != len(raw.replies):
            count, since = len(raw.replies), time.monotonic()
        return time.monotonic() - since > 2

    house.wait_for(is_stuck, "an end of the replies")


async def test_uploads_that_rest_cost_no_more_than_a_session(house: House) -> None:
    """A hundred files that are begun and not gone on with, each with bytes ahead of its turn as far as it may."""
    await put_long(house)
    async with house.dial() as connection, open_raw(connection) as raw:
        handles = [await raw.open(f"/send/{general_name('txt', number=number)}") for number in range(1, 101)]
        before = settle(house)
        for handle in handles:
            assert (await raw.call(sftp.WRITE, handle, Long(0), bytes(250_000))).code == sftp.OK
            assert (await raw.call(sftp.WRITE, handle, Long(250_000), bytes(250_000))).code == sftp.OK
            raw.ask(sftp.WRITE, handle, Long(600_000), bytes(250_000))
            await raw.next_reply()
        after = settle(house)
        assert after - before < WRITING_BYTES, f"{(after - before) / MIB:.1f} MiB"


async def test_paths_and_ids_of_any_length_fill_nothing(house: House) -> None:
    """Ten thousand different paths of 4 KiB: what the relay remembers of paths is small."""
    async with house.dial() as connection, open_raw(connection) as raw:
        await raw.list("/send")
        before = settle(house)
        numbers = [raw.ask(sftp.STAT, f"/send/{n:05}😀{'x' * 4_000}") for n in range(10_000)]
        for number in numbers:
            await raw.reply_to(number)
        assert settle(house) - before < SESSION_BYTES


async def test_requests_by_the_ten_thousand_wait_in_the_clients_own_memory(house: House) -> None:
    """80 MB of requests sent in one go: the relay holds a window of them."""
    async with house.dial() as connection, open_raw(connection) as raw:
        await raw.list("/send")
        before = settle(house)
        for number in range(20_000):
            raw.ask(sftp.STAT, f"/send/{number:05}{'x' * 4_000}")
        for _ in range(20_000):
            await raw.next_reply()
        assert settle(house) - before < SESSION_BYTES


async def test_a_window_of_single_bytes_costs_no_more_than_a_session(house: House) -> None:
    """290,000 packets of one byte behind replies that are not taken: a byte is held as a byte."""
    name = await put_long(house)
    async with house.dial(HOME_HELP) as connection, open_raw(connection, window=4_096) as raw:
        handle = await raw.open(f"/receive/{name}", sftp.READING)
        before = settle(house)
        raw.channel.pause_reading()
        for number in range(70):
            raw.ask(sftp.READ, handle, Long(number * 100_000), 100_000)
        client: Any = connection
        channel = client._channels[raw.channel._recv_chan]._send_chan
        for byte in pack(sftp.READ, 5, handle, Long(0), 10) * 10_000:
            client.send_packet(MSG_CHANNEL_DATA, UInt32(channel) + String(bytes([byte])))
        assert settle(house) - before < SESSION_BYTES // 2
        connection.abort()


def void(_: object) -> None:
    """Drop a value."""
