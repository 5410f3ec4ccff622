"""How much a stranger, a connection and an office can take up at the door."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_SUCCESS,
)
from doorway import (
    HUNG_UP,
    LETTERED,
    MSG_USERAUTH_PK_OK,
    OFFICE,
    PATIENCE_SECONDS,
    Door,
    OpenDoor,
    offer,
    offering,
    until,
)

from relay.config import LimitSettings

# --- limits ----------------------------------------------------------------------------------------------------------


async def test_sixth_failed_signature_ends_the_connection_and_is_journalled_as_a_limit(door: Door) -> None:
    """Guessing is bounded, and the operator sees a limit, not a wrong key."""
    knock = await door.certify(OFFICE)
    async with offering(door) as (client, _):
        answers = [await offer(client, knock.key, knock.data, signature=b"") for _ in range(6)]
    assert answers == [MSG_USERAUTH_FAILURE] * 5 + [HUNG_UP]
    assert [(line["limit"], line["scope"]) for line in door.lines("limit.reached")] == [
        ("failed_signatures", "127.0.0.1")
    ]


async def test_agent_with_many_keys_is_no_attack(door: Door) -> None:
    """Twenty bare keys, probed or signed at once as some libraries do, and then the certificate: in."""
    knock = await door.certify(OFFICE)
    async with offering(door) as (client, _):
        for number in range(20):
            key = asyncssh.generate_private_key("ssh-ed25519")
            answer = await offer(client, key, key.public_data, is_signed=bool(number % 2))
            assert answer == MSG_USERAUTH_FAILURE
        assert await offer(client, knock.key, knock.data) == MSG_USERAUTH_SUCCESS
    assert door.lines("limit.reached") == []


async def test_probes_are_bounded(open_door: OpenDoor) -> None:
    """A client that offers keys for ever is disconnected."""
    door = await open_door(limits=LimitSettings(key_probes=8))
    knock = await door.certify(OFFICE)
    async with offering(door) as (client, _):
        answers = [await offer(client, knock.key, knock.data, is_signed=False) for _ in range(9)]
    assert answers == [MSG_USERAUTH_PK_OK] * 8 + [HUNG_UP]
    assert door.lines("limit.reached")[0]["limit"] == "key_probes"


async def test_strangers_from_one_network_are_bounded_and_those_inside_do_not_count(open_door: OpenDoor) -> None:
    """The third connection that has not logged in is closed with a line; whoever has logged in takes no place."""
    door = await open_door(limits=LimitSettings(unauthenticated_per_network=2))
    knock = await door.certify(OFFICE)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(await knock.enter())
        streams = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            stack.callback(writer.close)
            assert (await reader.readline()).startswith(b"SSH-2.0-Relay")
            streams.append(writer)
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            said = await reader.read()
            assert said.startswith(b"SSH-2.0-Relay\r\n")
            assert b"Please try again in a minute" in said
            writer.close()
        (line,) = door.lines("limit.reached")
        assert (line["limit"], line["scope"]) == ("unauthenticated_per_network", "127.0.0.0/24")
        assert datetime.fromisoformat(line["until"]) - datetime.now(UTC) < timedelta(seconds=31)
        streams[0].close()
        await until(lambda: len(door.reception.attendance.strangers) == 1)
        assert await knock.gets_in()


async def test_strangers_in_total_are_bounded(open_door: OpenDoor) -> None:
    """The total holds whatever the network, and says so."""
    door = await open_door(limits=LimitSettings(unauthenticated_total=1, unauthenticated_per_network=1))
    strangers = door.reception.attendance.strangers
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    await until(lambda: len(strangers) == 1)
    crowd = strangers.admit("somebody", "203.0.113.7", datetime.now(UTC))
    assert crowd is not None
    assert (crowd.limit, crowd.scope) == ("unauthenticated_total", "all")
    writer.close()
    await until(lambda: len(strangers) == 0)


async def test_login_that_takes_too_long_is_ended_and_journalled_as_a_limit(open_door: OpenDoor) -> None:
    """Who does not log in in time is closed."""
    door = await open_door(login_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await reader.read()).startswith(b"SSH-2.0-Relay")
    writer.close()
    assert door.lines("limit.reached")[0]["limit"] == "login_seconds"
    assert door.reception.connection_count == 0


async def test_sessions_of_a_connection_are_bounded(open_door: OpenDoor) -> None:
    """One session too many is refused; one that was closed makes room."""
    door = await open_door(limits=LimitSettings(sessions_per_connection=2))
    knock = await door.certify(OFFICE)
    async with await knock.enter() as client:
        first, _ = await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        for _ in range(3):
            with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
                await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        first.close()
        await first.wait_closed()
        await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
    assert [line["limit"] for line in door.lines("limit.reached")] == ["sessions_per_connection"]


async def test_sessions_of_an_office_are_bounded_over_its_connections(open_door: OpenDoor) -> None:
    """An office has so many sessions however it spreads them, another office has its own, and the end says why."""
    door = await open_door(limits=LimitSettings(sessions_per_office=3))
    knock = await door.certify(OFFICE, LETTERED)
    async with await knock.enter() as first, await knock.enter() as second:
        for client in (first, first, second):
            await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await second.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        status, _, err = await knock.ssh()
        assert status == 255
        assert "too many sessions are open" in err
        assert await knock.gets_in(LETTERED)
    assert {(line["limit"], line["scope"]) for line in door.lines("limit.reached")} == {("sessions_per_office", OFFICE)}


async def test_overloaded_server_takes_few_and_keeps_those_inside(open_door: OpenDoor) -> None:
    """While it is late with everything, only so many may log in; a session is answered; then all is well again."""
    door = await open_door(busy_seconds=0.1, limits=LimitSettings(unauthenticated_when_busy=1))
    knock = await door.certify(OFFICE)
    attendance, is_hogging = door.reception.attendance, True

    async def hog() -> None:
        while is_hogging:
            time.sleep(0.3)  # noqa: ASYNC251 - a loop that is late is what is wanted
            await asyncio.sleep(0)

    watching = asyncio.create_task(attendance.watch_load())
    async with await knock.enter() as client:
        _, stranger = await asyncio.open_connection("127.0.0.1", door.port)
        await until(lambda: len(attendance.strangers) == 1)
        hogging = asyncio.create_task(hog())
        await until(lambda: attendance.load.room == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        assert b"Please try again in a minute" in await reader.read()
        writer.close()
        await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        is_hogging = False
        await hogging
        await until(lambda: attendance.load.room > 1)
        assert await knock.gets_in()
        stranger.close()
    watching.cancel()
    (line,) = door.lines("limit.reached")
    assert (line["limit"], line["until"]) == ("unauthenticated_when_busy", "the server has caught up")


async def test_sessions_of_a_certificate_are_bounded_and_another_one_has_its_own(open_door: OpenDoor) -> None:
    """One certificate that uses up its sessions leaves the office's second one, and the same one elsewhere, alone."""
    door = await open_door(limits=LimitSettings(sessions_per_certificate=2))
    first, second = await door.certify(OFFICE, LETTERED), await door.certify(OFFICE)
    async with await first.enter() as one, await first.enter() as two:
        await one.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        await two.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await two.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        assert await second.gets_in()
        assert await first.gets_in(LETTERED)
    (line,) = door.lines("limit.reached")
    assert (line["limit"], line["scope"], line["until"]) == (
        "sessions_per_certificate",
        f"{OFFICE} {first.record().serial}",
        "a session is closed",
    )
