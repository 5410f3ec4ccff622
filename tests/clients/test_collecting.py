"""Collected means read: what counts as a download, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

import asyncssh
import pytest
from cable import cable_to
from house import CARE_MANAGER, HOME_HELP, LETTERED, PATIENCE_SECONDS, Caller, House, plan_csv, plan_name
from programs import need

from relay.lifecycle import State

NAME = plan_name()


async def send(house: House, content: bytes, name: str = NAME) -> None:
    """Upload with asyncssh."""
    async with house.connect(CARE_MANAGER) as caller, caller.sftp.open(f"send/{name}", "wb") as file:
        await file.write(content)


def state(house: House) -> State:
    """Return what has become of the one transfer."""
    (transfer,) = house.transfers()
    return transfer.state


async def read(caller: Caller, *parts: tuple[int, int]) -> list[bytes]:
    """Read parts (start, end) of the file on one handle, which is closed afterwards."""
    async with caller.sftp.open(f"receive/{NAME}", "rb") as file:
        return [await file.read(end - start, start) for start, end in parts]


@pytest.mark.parametrize("size", [1_000, 300_000, 3_000_000])
async def test_download_whose_connection_ends_before_its_close_is_not_collected(size: int, house: House) -> None:
    """Every byte has reached the recipient's machine, but it never closed the file: it may not have kept them."""
    content = plan_csv(size)
    await send(house, content)
    with cable_to(house) as (cable, held), contextlib.suppress(asyncssh.Error, OSError):
        async with held.connect(HOME_HELP) as caller:
            file = await caller.sftp.open(f"new/{NAME}", "rb")
            assert await file.read() == content
            cable.pull()
            await asyncio.to_thread(house.wait_for_event, "session.closed", 2)
            raise ConnectionError
    assert state(house) is State.ACCEPTED
    async with house.connect(HOME_HELP) as caller:
        assert NAME in await caller.sftp.listdir("new")
        await read(caller, (0, len(content)))
    assert state(house) is State.COLLECTED


async def test_close_that_overtakes_the_bytes_does_not_collect(house: House) -> None:
    """A client asks for everything and closes at once, and the connection ends while the bytes are on their way."""
    content = plan_csv(30_000_000)
    await send(house, content)
    with cable_to(house) as (cable, held), contextlib.suppress(asyncssh.Error, OSError):
        async with held.connect(HOME_HELP) as caller:
            file = await caller.sftp.open(f"new/{NAME}", "rb")
            cable.hold("down", after=100_000)
            pieces = range(0, len(content), 250_000)
            reads = [asyncio.create_task(file.read(250_000, start)) for start in pieces]
            await asyncio.to_thread(cable.wait_until_held, "down")
            asked = cable.passed["up"]
            closing = asyncio.create_task(file.close())
            await asyncio.to_thread(house.wait_for, lambda: cable.passed["up"] > asked, "a CLOSE behind the READs")
            cable.pull()
            await asyncio.gather(*reads, closing, return_exceptions=True)
            await asyncio.to_thread(house.wait_for_event, "session.closed", 2)
            raise ConnectionError
    assert state(house) is State.ACCEPTED


def test_killed_download_is_not_collected(house: House, tmp_path: Path) -> None:
    """`kill -9` of a real sftp in the middle of a get; the next get collects."""
    need("sftp")
    content, sent = plan_csv(10_000_000), tmp_path / "sent"
    sent.write_bytes(content)
    assert house.sftp(CARE_MANAGER, f'put "{sent}" send/{NAME}').returncode == 0
    with cable_to(house) as (cable, held):
        cable.hold("down", after=5_000_000)
        with subprocess.Popen(
            held.sftp_command(HOME_HELP, "-b", "-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(f'get new/{NAME} "{tmp_path}/part"\n'.encode())
            process.stdin.close()
            cable.wait_until_held("down")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_SECONDS)
    house.wait_for_event("session.closed", 2)
    assert state(house) is State.ACCEPTED
    assert house.sftp(HOME_HELP, f'get new/{NAME} "{tmp_path}/whole"').returncode == 0
    assert (tmp_path / "whole").read_bytes() == content
    assert state(house) is State.COLLECTED


def test_interrupted_download_that_is_resumed_is_collected(house: House, tmp_path: Path) -> None:
    """Ctrl-C in a get closes the file: what was served counts, and `reget` of the rest collects."""
    need("sftp")
    content, sent, got = plan_csv(40_000_000), tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(content)
    assert house.sftp(CARE_MANAGER, f'put "{sent}" send/{NAME}').returncode == 0
    with cable_to(house) as (cable, held):
        cable.hold("down", after=5_000_000)
        with subprocess.Popen(
            held.sftp_command(HOME_HELP, "-b", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None
            process.stdin.write(f'get new/{NAME} "{got}"\n'.encode())
            process.stdin.close()
            cable.wait_until_held("down")
            process.send_signal(signal.SIGINT)
            cable.release()
            process.wait(PATIENCE_SECONDS)
    assert 0 < got.stat().st_size < len(content)
    assert state(house) is State.ACCEPTED
    assert house.sftp(HOME_HELP, f'reget new/{NAME} "{got}"').returncode == 0
    assert got.read_bytes() == content
    assert state(house) is State.COLLECTED


async def test_parts_read_in_several_sessions_and_out_of_order_add_up(house: House) -> None:
    """Three sessions, from the back to the front, with overlaps: collected with the last missing byte and not before."""
    content = plan_csv(1_000_000)
    await send(house, content)
    plans = ([(600_000, 1_000_000)], [(300_000, 500_000), (450_000, 600_001)], [(100_000, 300_000), (0, 99_999)])
    for parts in plans:
        async with house.connect(HOME_HELP) as caller:
            assert await read(caller, *parts) == [content[start:end] for start, end in parts]
        assert state(house) is State.ACCEPTED
    async with house.connect(HOME_HELP) as caller:
        assert NAME in await caller.sftp.listdir("new")
        await read(caller, (99_999, 100_000))
        assert NAME not in await caller.sftp.listdir("new")
    assert state(house) is State.COLLECTED


async def test_sender_that_reads_its_own_file_collects_nothing(house: House) -> None:
    """Only the recipient's reading counts."""
    content = plan_csv()
    await send(house, content)
    async with house.connect(CARE_MANAGER) as caller, caller.sftp.open(f"send/{NAME}", "rb") as file:
        assert await file.read() == content
    assert state(house) is State.ACCEPTED


async def test_office_number_in_lower_case_logs_in_as_the_same_office(house: House) -> None:
    """`01a8516384` is `01A8516384`: it finds what was sent to it."""
    name = plan_name(recipient=LETTERED)
    await send(house, plan_csv(recipient=LETTERED), name)
    async with house.connect(LETTERED, username=LETTERED.lower()) as caller:
        assert name in await caller.sftp.listdir("new")


def test_sftp_logs_in_with_an_office_number_in_lower_case(house: House) -> None:
    """The same with the program that staff type it into."""
    need("sftp")
    command = house.sftp_command(LETTERED, "-b", "/dev/null", user=LETTERED.lower())
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert house.journal_lines("login.accepted")[-1]["office"] == LETTERED
