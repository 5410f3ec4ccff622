"""Clients that break the protocol, each crime against a real server; whatever they do, the next client is served."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw_sftp as sftp
from hostile import CRIMES, Crime, be_honest
from hostile_tools import put_long, settle
from house import CARE_MANAGER, HOME_HELP, House, general_name, plan_csv, plan_name
from raw_sftp import NO_ATTRIBUTES, Long, Raw, open_raw, pack

from relay.sftp.wire import PACKET_BYTES_MOST, READ_BYTES_MOST

ATTRIBUTES = Raw(NO_ATTRIBUTES)


@pytest.fixture(scope="module")
def watched(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a relay that one crime after the other is committed against."""
    settings = {"server": {"login_seconds": 12}}
    house = House.copy(prepared_home, tmp_path_factory.mktemp("watched") / "house", settings)
    house.start()
    asyncio.run(put_long(house))
    yield house
    house.close()


@pytest.mark.parametrize("crime", CRIMES, ids=lambda crime: crime.__name__)
async def test_a_crime_harms_nobody_costs_little_and_is_named_in_the_journal(
    watched: House, crime: type[Crime]
) -> None:
    """Honest offices are served while it is committed and after, memory stays within the bound, and the journal tells."""
    known, number = len(watched.journal_lines()), 10 * CRIMES.index(crime)
    committed = crime(held_bytes=settle(watched))
    await asyncio.gather(committed.commit(watched), be_honest(watched, number + 1))
    await be_honest(watched, number + 2)
    committed.assert_bounded(watched)

    def is_told() -> bool:
        lines = [line for line in watched.journal_lines()[known:] if line["event"] == crime.trace.event]
        return any(crime.trace.words in json.dumps(line, ensure_ascii=False) for line in lines)

    watched.wait_for(is_told, f"{crime.trace} in the journal")


async def prove_alive(house: House) -> None:
    """Do what an honest client does."""
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert "receive" in await raw.list("/")


# --- framing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack(">I", 0xFFFFFFFF) + b"x" * 64,
        struct.pack(">I", PACKET_BYTES_MOST + 1),
        struct.pack(">I", 0),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">IB", 1, 3),
        struct.pack(">IBI", 5, 1, 3),
    ],
    ids=["4 GiB", "one byte too long", "empty", "HTTP", "no id", "INIT twice"],
)
async def test_a_stream_that_cannot_be_cut_ends_the_session_alone(house: House, stream: bytes) -> None:
    """The session ends with a failure; the connection and its other sessions go on."""
    async with house.dial() as connection, open_raw(connection) as other:
        async with open_raw(connection) as raw:
            raw.send(stream)
            await raw.wait_closed()
            assert raw.exit_status == 1
        assert "send" in await other.list("/")
    house.wait_for_event("protocol.error")


async def test_every_split_of_the_stream_is_the_same_stream(house: House) -> None:
    """A client that sends a byte at a time is answered like any other."""
    async with house.dial() as connection, open_raw(connection) as raw:
        for byte in pack(sftp.REALPATH, 7, "send//../receive/") + pack(sftp.STAT, 8, "/send"):
            raw.send(bytes([byte]))
        assert (await raw.reply_to(7)).names == [b"/receive"]
        assert (await raw.reply_to(8)).type == sftp.ATTRS


# --- requests that mean nothing ----------------------------------------------------------------------------------


async def test_a_request_that_is_cut_short_is_answered_as_such(house: House) -> None:
    """BAD_MESSAGE, under its id, and nothing ends."""
    async with house.dial() as connection, open_raw(connection) as raw:
        for name in ("fsync@openssh.com", "posix-rename@openssh.com", "statvfs@openssh.com"):
            assert (await raw.call(sftp.EXTENDED, name, Raw(b"\0\0\0\x09short"))).code == sftp.BAD_MESSAGE
        for kind in (sftp.OPEN, sftp.READ, sftp.WRITE, sftp.RENAME, sftp.SETSTAT, sftp.MKDIR, sftp.CLOSE):
            assert (await raw.call(kind, Raw(b"\0\0\0\x02"))).code == sftp.BAD_MESSAGE
        assert "send" in await raw.list("/")


async def test_handles_mean_only_what_they_were_opened_for(house: House) -> None:
    """READ of an upload, WRITE to a download, a closed, a guessed and a huge handle: each a failure in words."""
    name = plan_name()
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{name}", plan_csv())).code == sftp.OK
        upload = await raw.open(f"/send/{plan_name(number=1)}")
        listing = (await raw.call(sftp.OPENDIR, "/")).handle
        readme = await raw.open("/README.txt", sftp.READING)
        download = await raw.open(f"/send/{name}", sftp.READING)
        for handle in (upload, listing, b"", b"none", b"\0\0\0\0", b"x" * 60_000):
            assert (await raw.call(sftp.READ, handle, Long(0), 10)).code in (sftp.FAILURE, sftp.NO_SUCH_FILE)
        for handle in (listing, readme, download, b"", b"none", b"x" * 60_000):
            assert (await raw.call(sftp.WRITE, handle, Long(0), b"x")).code in (sftp.FAILURE, sftp.NO_SUCH_FILE)
        for handle in (upload, readme, download, b"none"):
            assert (await raw.call(sftp.READDIR, handle)).code in (sftp.FAILURE, sftp.NO_SUCH_FILE)
        for kind in (sftp.CLOSE, sftp.FSTAT, sftp.FSETSTAT):
            assert (await raw.call(kind, b"none", ATTRIBUTES)).code in (sftp.FAILURE, sftp.NO_SUCH_FILE)
        assert (await raw.call(sftp.CLOSE, download)).code == sftp.OK
        assert (await raw.call(sftp.CLOSE, download)).code != sftp.OK
        assert (await raw.call(sftp.READ, download, Long(0), 10)).code != sftp.OK


async def test_reads_anywhere_and_of_any_length_are_answered(house: House) -> None:
    """A READ of 4 GiB gives what one READ may; beyond the end, up to 2**64, is the end."""
    name, content = general_name("txt"), bytes(range(256)) * 4_000
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{name}", content)).code == sftp.OK
        handle = await raw.open(f"/send/{name}", sftp.READING)
        for offset in (0, 1, 261_119, 261_120, 500_000):
            data = (await raw.call(sftp.READ, handle, Long(offset), 0xFFFFFFFF)).data
            assert data == content[offset : offset + len(data)]
            assert len(data) == min(READ_BYTES_MOST, len(content) - offset)
        for offset in (len(content), 2**31, 2**63, 2**64 - 1):
            assert (await raw.call(sftp.READ, handle, Long(offset), 0xFFFFFFFF)).code == sftp.EOF
        readme = await raw.open("/README.txt", sftp.READING)
        assert (await raw.call(sftp.READ, readme, Long(2**64 - 1), 0xFFFFFFFF)).code == sftp.EOF
        assert (await raw.call(sftp.READ, readme, Long(0), 0xFFFFFFFF)).data


async def test_bytes_behind_a_write_are_ignored(house: House) -> None:
    """The client of rclone 1.60 sends the rest of its buffer behind the data of a WRITE."""
    name, content = plan_name(), plan_csv()
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{name}")
        assert (await raw.call(sftp.WRITE, handle, Long(0), content, Raw(b"left over" * 100))).code == sftp.OK
        assert (await raw.call(sftp.CLOSE, handle, Raw(b"left over"))).code == sftp.OK
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert await raw.get(f"/receive/{name}") == content


async def test_ten_thousand_requests_at_once_get_ten_thousand_replies(house: House) -> None:
    """Pipelining has no limit but patience: nothing is refused, nothing is lost."""
    async with house.dial() as connection, open_raw(connection) as raw:
        kinds = (sftp.STAT, sftp.REALPATH, sftp.LSTAT, sftp.OPENDIR, sftp.REMOVE)
        raw.send(b"".join(pack(kinds[number % 5], number, "/status/none") for number in range(10_000)))
        seen = [(await raw.next_reply()).id for _ in range(10_000)]
        assert sorted(seen) == list(range(10_000))


# --- ends --------------------------------------------------------------------------------------------------------


async def test_eof_behind_the_last_request_ends_with_status_0(house: House) -> None:
    """Every reply comes, then exit-status 0: scp would exit 1 without it."""
    name = plan_name()
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{name}")
        raw.ask(sftp.WRITE, handle, Long(0), plan_csv())
        last = raw.ask(sftp.CLOSE, handle)
        raw.channel.write_eof()
        assert (await raw.reply_to(last)).code == sftp.OK
        await raw.wait_closed()
        assert raw.exit_status == 0
    assert [transfer.name for transfer in house.transfers()] == [name]


async def test_a_channel_that_ends_gives_up_what_is_open(house: House) -> None:
    """EOF, a closed channel or a reset connection behind WRITEs without CLOSE: nothing is relayed."""
    async with house.dial() as connection:
        for number, end in enumerate(("write_eof", "close", "abort")):
            async with open_raw(connection) as raw:
                handle = await raw.open(f"/send/{plan_name(number=number)}")
                assert (await raw.call(sftp.WRITE, handle, Long(0), plan_csv())).code == sftp.OK
                getattr(raw.channel, end)()
                await raw.wait_closed()
        house.wait_for_event("session.closed", 3)
    assert len(house.journal_lines("upload.left")) == 3
    assert house.transfers() == []


async def test_a_reset_with_requests_in_flight_leaves_nothing_open(house: House) -> None:
    """The connection is reset under a hundred requests: the session is closed, its upload given up."""
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{plan_name()}")
        for number in range(100):
            raw.ask(sftp.WRITE, handle, Long(number * 30_000), b"x" * 30_000)
            raw.ask(sftp.STAT, f"/send/{plan_name(number=number)}")
        transport = connection.get_extra_info("socket")
        transport.setsockopt(1, 13, struct.pack("ii", 1, 0))
        connection.abort()
    house.wait_for_event("session.closed")
    assert house.journal_lines("upload.left")
    assert house.transfers() == []
    await prove_alive(house)


async def test_a_close_that_arrived_counts_though_its_client_is_gone(house: House) -> None:
    """WRITE, CLOSE and the end of the connection in one go: the transfer stands (cftp does not wait)."""
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{plan_name()}")
        raw.ask(sftp.WRITE, handle, Long(0), plan_csv())
        raw.ask(sftp.CLOSE, handle)
        raw.channel.close()
        await raw.wait_closed()
    house.wait_for_event("session.closed")
    assert [transfer.name for transfer in house.transfers()] == [plan_name()]


async def test_bytes_that_never_left_are_not_collected(house: House) -> None:
    """READs of a whole file, CLOSE, and the end of the channel, with a window for a part of it: not collected."""
    name = general_name("txt")
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{name}", bytes(600_000))).code == sftp.OK
    for end in ("channel", "connection"):
        async with house.dial(HOME_HELP) as connection:
            async with open_raw(connection, window=4_096) as raw:
                handle = await raw.open(f"/receive/{name}", sftp.READING)
                raw.channel.pause_reading()
                for number in range(3):
                    raw.ask(sftp.READ, handle, Long(number * 200_000), 200_000)
                raw.ask(sftp.CLOSE, handle)
                # What the relay answers to another channel comes behind all of that.
                async with open_raw(connection) as other:
                    assert "receive" in await other.list("/")
                if end == "channel":
                    raw.channel.abort()
                else:
                    connection.abort()
            if end == "channel":
                async with open_raw(connection) as other:
                    assert name in await other.list("/new")
    house.wait_for_event("session.closed", 6)
    assert [transfer.state for transfer in house.transfers()] == ["accepted"]
    assert not house.journal_lines("transfer.collected")


async def test_a_download_counts_though_its_client_leaves_right_behind_its_close(house: House) -> None:
    """Everything was read, CLOSE and the end come in one go: collected."""
    name, content = plan_name(), plan_csv()
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{name}", content)).code == sftp.OK
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/receive/{name}", sftp.READING)
        assert (await raw.call(sftp.READ, handle, Long(0), 100_000)).data == content
        raw.ask(sftp.CLOSE, handle)
        raw.channel.close()
        await raw.wait_closed()
    house.wait_for_event("transfer.collected")


async def test_an_office_cannot_keep_another_waiting_with_a_session_that_hangs(house: House) -> None:
    """One client with open handles that says nothing more holds up nobody."""
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{plan_name()}")
        raw.send(pack(sftp.WRITE, 9, handle, Long(0), b"x" * 100)[:-50])
        await asyncio.wait_for(prove_alive(house), 10)
        assert (await house_put(house, plan_name(number=1))) == sftp.OK


async def house_put(house: House, name: str) -> int:
    """Upload a use slip over a connection of its own."""
    async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
        return (await raw.put(f"/send/{name}", plan_csv())).code
