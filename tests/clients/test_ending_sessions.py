"""Revoked means out, also for sessions that are open, whoever runs the command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncssh
import pytest
from house import CARE_MANAGER, HOME_HELP, Completed, House, plan_csv, plan_name

from relay.certificates import parse_certificate_line

# The promise is five seconds; the machine that runs the tests may be busy with others.
ENDS_WITHIN_SECONDS = 5.0

End = Callable[[House], Completed]


def revoke(house: House) -> Completed:
    """Revoke the one certificate of the care manager."""
    serial = parse_certificate_line(house.certificate(CARE_MANAGER).certificate.read_text()).serial
    return house.relay("cert", "revoke", str(serial), "--yes", "--reason", "lost")


def suspend(house: House) -> Completed:
    """Suspend the care manager."""
    return house.relay("office", "suspend", CARE_MANAGER, "--yes")


every_end = pytest.mark.parametrize("end", [revoke, suspend], ids=["revoked", "suspended"])


@asynccontextmanager
async def ended_in_time(connection: asyncssh.SSHClientConnection) -> AsyncIterator[None]:
    """Expect that the relay ends *connection* soon after the block."""
    yield
    done_at = time.monotonic()
    await asyncio.wait_for(connection.wait_closed(), 4 * ENDS_WITHIN_SECONDS)
    assert time.monotonic() - done_at < ENDS_WITHIN_SECONDS


@every_end
async def test_open_session_ends_within_seconds_and_nobody_elses_does(end: End, house: House) -> None:
    """The office is out, cannot come back, and the other office's session goes on."""
    async with house.connect(HOME_HELP) as other:
        async with house.connect(CARE_MANAGER) as caller, ended_in_time(caller.connection):
            done = await asyncio.to_thread(end, house)
            assert done.returncode == 0, done.stderr
        with pytest.raises(asyncssh.PermissionDenied):
            async with house.connect(CARE_MANAGER):
                pass
        assert "send" in await other.sftp.listdir("/")


@every_end
async def test_upload_in_progress_is_not_relayed_when_its_office_is_put_out(end: End, house: House) -> None:
    """What was not closed before stays out, in whole."""
    async with house.connect(CARE_MANAGER) as caller, ended_in_time(caller.connection):
        file = await caller.sftp.open(f"send/{plan_name()}", "wb")
        await file.write(plan_csv(600_000))
        await asyncio.to_thread(end, house)
    await asyncio.to_thread(house.wait_for_event, "session.closed")
    assert house.transfers() == []


async def test_suspended_office_comes_back_when_it_is_resumed(house: House) -> None:
    """Suspension is not for good."""
    assert (await asyncio.to_thread(suspend, house)).returncode == 0
    with pytest.raises(asyncssh.PermissionDenied):
        async with house.connect(CARE_MANAGER):
            pass
    assert (await asyncio.to_thread(house.relay, "office", "resume", CARE_MANAGER)).returncode == 0
    async with house.connect(CARE_MANAGER) as caller:
        assert "send" in await caller.sftp.listdir("/")


def test_channel_that_never_asked_for_sftp_is_no_session_in_the_journal(house: House) -> None:
    """A connection lost behind its opening of a channel: as many sessions are told to have ended as began."""
    with house.paramiko(CARE_MANAGER) as sftp:
        channel = sftp.get_channel()
        assert channel is not None
        channel.get_transport().open_session()
    house.wait_for_event("connection.closed")
    house.stop()
    assert len(house.journal_lines("session.opened")) == len(house.journal_lines("session.closed")) == 1
