"""Connections that are there for nothing, clients that are gone, and more of them than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncssh
import psutil
import pytest
import raw_sftp as sftp
from asyncssh.channel import SSHClientChannel
from cable import cable_to
from house import CARE_MANAGER, HOME_HELP, HOST, House, general_name, plan_csv, plan_name, wait_for
from raw_sftp import open_raw

MakeHouse = Callable[..., House]
PATIENCE_SECONDS = 60.0


def limits_told(house: House, limit: str) -> list[dict[str, Any]]:
    """Return the journal's lines of one limit."""
    return [line for line in house.journal_lines("limit.reached") if line["limit"] == limit]


# --- gone ------------------------------------------------------------------------------------------------------------


def test_a_frozen_client_is_given_up_and_its_upload_kept(make_house: MakeHouse) -> None:
    """A real `sftp` that is stopped in the middle answers no keepalive: its session ends, what arrived stays for it."""
    house = make_house(server={"keepalive_seconds": 2.0, "keepalive_count": 1})
    house.start()
    name = general_name("txt")
    (house.path / name).write_bytes(bytes(8_000_000))
    with cable_to(house) as (cable, reached):
        cable.hold("up", after=2_000_000)
        with subprocess.Popen(
            reached.sftp_command(CARE_MANAGER, "-b", "-"),
            cwd=house.path,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(f"put {name} send/\n".encode())
            process.stdin.flush()
            cable.wait_until_held("up")
            os.killpg(process.pid, signal.SIGSTOP)
            try:
                cable.release()
                closed = house.wait_for_event("connection.closed")
            finally:
                os.killpg(process.pid, signal.SIGKILL)
    assert closed["reason"] == "Client not responding to keepalive"
    house.wait_for_event("session.closed")
    (left,) = house.journal_lines("upload.left")
    assert left["size_bytes"] > 0
    (told,) = limits_told(house, "keepalive_count")
    assert told["until"] == "it connects again"
    listed = house.sftp(CARE_MANAGER, "ls -l send\n")
    assert f"{left['size_bytes']}" in listed.stdout


async def test_answered_keepalives_keep_a_session_that_does_nothing(make_house: MakeHouse) -> None:
    """A poller that only answers stays longer than a dead one would, and longer than an unused connection may."""
    house = make_house(server={"keepalive_seconds": 1.0, "keepalive_count": 2, "unused_seconds": 1.5})
    house.start()
    async with house.dial() as connection, open_raw(connection) as raw:
        client: Any = connection
        answer = client._process_keepalive_at_openssh_dot_com_global_request
        asked = 0

        def count(packet: Any) -> None:
            nonlocal asked
            asked += 1
            answer(packet)

        client._process_keepalive_at_openssh_dot_com_global_request = count
        async with asyncio.timeout(PATIENCE_SECONDS):
            while asked < 4:  # noqa: ASYNC110 - asyncssh tells nobody of a keepalive
                await asyncio.sleep(0.01)
        assert "send" in await raw.list("/")
    assert house.journal_lines("limit.reached") == []


# --- there for nothing -------------------------------------------------------------------------------------------------


async def open_bare_channel(connection: Any) -> Any:
    """Open a session channel on which nothing is asked for."""
    loop = asyncio.get_running_loop()
    channel: Any = SSHClientChannel(connection, loop, "strict", None, "strict", 1 << 21, 32_768)
    await channel._open(b"session")
    channel._session = asyncssh.SSHClientSession()
    return channel


async def test_who_logs_in_and_opens_nothing_is_ended(make_house: MakeHouse) -> None:
    """A login alone, and a login with a channel that is never greeted, are ended after a time, in words."""
    house = make_house(server={"unused_seconds": 0.5})
    house.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with house.dial() as connection:
            await connection.wait_closed()
        async with house.dial() as connection:
            await open_bare_channel(connection)
            await connection.wait_closed()
        async with house.dial() as connection, open_raw(connection, greets=False):
            await connection.wait_closed()
    house.wait_for_event("connection.closed", 3)
    told = limits_told(house, "unused_seconds")
    assert {(line["scope"], line["until"]) for line in told} == {(CARE_MANAGER, "it connects again")}
    reasons = {line["reason"] for line in house.journal_lines("connection.closed")}
    assert reasons == {"No SFTP session was open for a while; please connect again"}


async def test_a_channel_that_is_never_greeted_ends_alone(make_house: MakeHouse) -> None:
    """Beside a session that is used, only the unused channels end; once the last session is closed, all does."""
    house = make_house(server={"unused_seconds": 0.5})
    house.start()
    async with asyncio.timeout(PATIENCE_SECONDS), house.dial() as connection:
        async with open_raw(connection) as used:
            bare = await open_bare_channel(connection)
            async with open_raw(connection, greets=False) as silent:
                await silent.wait_closed()
            await bare.wait_closed()
            assert "send" in await used.list("/")
        await connection.wait_closed()
    house.wait_for_event("session.closed", 2)


# --- too many ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def strangers(house: House, count: int) -> AsyncIterator[None]:
    """Hold so many connections that have said who they are and then nothing more."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(HOST, house.port)
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.close)
            writer.write(b"SSH-2.0-Flood\r\n")
            assert await reader.readline() == b"SSH-2.0-Relay\r\n"
            # The server's part of the key exchange: this one was let in.
            assert len(await reader.readexactly(6)) == 6
        yield


async def read_farewell(house: House) -> bytes:
    """Connect as an honest client does, and read until the server ends it."""
    reader, writer = await asyncio.open_connection(HOST, house.port)
    writer.write(b"SSH-2.0-Flood\r\n")
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


async def test_a_flood_is_sent_away_and_an_upload_goes_on(make_house: MakeHouse) -> None:
    """300 connections at once where there is room for none: each reads why, cleanly; a session loses nothing."""
    house = make_house(
        limits={"connections_total": 20, "unauthenticated_total": 20, "unauthenticated_per_network": 20},
        server={"login_seconds": 120.0, "busy_seconds": 30.0},
    )
    house.start()
    async with asyncio.timeout(PATIENCE_SECONDS), house.dial() as connection, open_raw(connection) as raw:
        is_over = asyncio.Event()

        async def keep_sending() -> int:
            sent = 0
            while not is_over.is_set():
                assert (await raw.put(f"/send/{plan_name(number=sent)}", plan_csv(3_000))).code == sftp.OK
                sent += 1
            return sent

        async with strangers(house, 19):
            sending = asyncio.create_task(keep_sending())
            away = await asyncio.gather(*(read_farewell(house) for _ in range(300)))
            is_over.set()
            sent = await sending
            with pytest.raises(asyncssh.DisconnectError, match="try again in a minute"):
                async with house.dial(HOME_HELP):
                    pass
        assert {said[:15] for said in away} == {b"SSH-2.0-Relay\r\n"}
        assert all(b"Please try again in a minute" in said for said in away)
        await asyncio.to_thread(house.wait_for_event, "connection.closed", 19)
        async with house.dial(HOME_HELP) as other, open_raw(other) as theirs:
            assert len(await theirs.list("/new")) == 2 + sent
    assert len(house.transfers()) == sent > 0
    told = limits_told(house, "connections_total")
    assert [(line["scope"], line["until"]) for line in told] == [("all", "a connection is closed")]


def test_the_relay_may_have_as_many_files_open_as_it_takes_connections(make_house: MakeHouse) -> None:
    """Started where 256 open files are usual, it raises that as far as it needs and may, or accepting would fail."""
    for connections, hard, allowed in ((600, 4_096, 1_112), (600, 800, 800)):
        house = make_house(limits={"connections_total": connections})
        house.start(wrap=("prlimit", f"--nofile=256:{hard}"))
        assert {worker.rlimit(psutil.RLIMIT_NOFILE) for worker in house.workers()} == {(allowed, hard)}


async def test_one_network_full_of_strangers_hurts_nobody_inside(make_house: MakeHouse) -> None:
    """A network's places at the door are taken: its offices that are inside go on, whatever they do."""
    house = make_house(
        limits={"unauthenticated_per_network": 5}, server={"login_seconds": 120.0, "keepalive_seconds": 1.0}
    )
    house.start()
    async with asyncio.timeout(PATIENCE_SECONDS), house.dial() as connection, open_raw(connection) as raw:
        async with strangers(house, 5):
            assert b"try again" in await read_farewell(house)
            async with open_raw(connection) as another:
                assert (await another.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        assert await raw.get(f"/send/{plan_name()}") == plan_csv()
    (told,) = limits_told(house, "unauthenticated_per_network")
    assert told["scope"] == "127.0.0.0/24"


def test_real_programs_print_why_they_were_sent_away(make_house: MakeHouse) -> None:
    """OpenSSH and PuTTY show the sentence, so that staff do not take it for a wrong key."""
    house = make_house(
        limits={"unauthenticated_total": 1, "unauthenticated_per_network": 1}, server={"login_seconds": 120.0}
    )
    house.start()
    with socket.create_connection((HOST, house.port)) as stranger:
        assert stranger.recv(100).startswith(b"SSH-2.0-Relay")
        done = house.sftp(CARE_MANAGER, "ls\n")
        assert done.returncode != 0
        assert "Too many connections at the moment; nothing was sent. Please try again in a minute" in done.stderr
        done = house.psftp(CARE_MANAGER, "ls\n")
        assert "Too many connections at the moment; nothing was sent." in done.stdout + done.stderr
    wait_for(lambda: house.sftp(CARE_MANAGER, "ls\n").returncode == 0, "room for the next")


# --- slow and wrong before login -----------------------------------------------------------------------------------------


async def test_a_byte_at_a_time_before_login_runs_out_of_time(make_house: MakeHouse) -> None:
    """Bytes that trickle in are no sign of life: the time of a login is one time for all of it."""
    house = make_house(server={"login_seconds": 1.0})
    house.start()
    reader, writer = await asyncio.open_connection(HOST, house.port)
    greeting = b"SSH-2.0-Slow\r\n"
    # A packet of 20 KB in front of which nothing can be answered.
    trickle = iter(greeting + (20_000).to_bytes(4, "big") + bytes(20_000))
    assert (await reader.readline()).startswith(b"SSH-2.0-Relay")
    async with asyncio.timeout(PATIENCE_SECONDS):
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(bytes([next(trickle)]))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(10_000), 0.02)
    writer.close()
    house.wait_for_event("connection.closed")
    (told,) = limits_told(house, "login_seconds")
    assert told["until"] == "it connects again"


async def test_a_flood_of_wrong_keys_keeps_nobody_out(make_house: MakeHouse) -> None:
    """Forty logins at once by certificates that another CA has signed: each is refused, and an office gets in."""
    house = make_house(server={"busy_seconds": 30.0})
    house.start()
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    certificate = stranger.generate_user_certificate(key, "forged", principals=[CARE_MANAGER], serial=1)

    async def knock() -> bool:
        try:
            async with house.dial(client_keys=[(key, certificate)]):
                return True
        except asyncssh.PermissionDenied:
            return False

    knocking = [asyncio.create_task(knock()) for _ in range(40)]
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
    assert await asyncio.gather(*knocking) == [False] * 40
    assert {line["reason"] for line in house.journal_lines("login.rejected")} == {"unknown_ca"}
    assert house.journal_lines("limit.reached") == []
