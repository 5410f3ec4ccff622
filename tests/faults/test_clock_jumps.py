"""The clock jumps by hours, ahead and back, while offices are at work: nothing is lost, and nobody waits for it."""

from __future__ import annotations

import asyncio
import mmap
import shutil
import struct
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, MakeHouse, Pass, general_name, pdf
from raw_sftp import RawSftp, open_raw

SOURCE = Path(__file__).with_name("clock.c")
HALF, WHOLE = 96_000, pdf(200_000)


class Clock:
    """The clock of one house's processes, wrong by as much as it is set to."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler here: the relay's clock cannot be set")
        library, control = folder / "clock.so", folder / "clock.control"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._wrap = ("env", f"LD_PRELOAD={library}", f"RELAY_CLOCK={control}")

    def serve(self, house: House) -> None:
        """Start *house* with this clock."""
        house.start(wrap=self._wrap)

    def set(self, hours: float) -> None:
        """Let it be ahead of the right time by so many hours, or behind."""
        self._memory[:8] = struct.pack("=q", int(hours * 3600))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """Return a clock that can be set."""
    return Clock(tmp_path)


@dataclass(frozen=True, slots=True)
class Passes:
    """Certificates that have been valid for so long that no jump goes before their begin."""

    ours: Pass
    theirs: Pass

    @classmethod
    def of(cls, house: House) -> Passes:
        """Have them made."""
        begin = datetime.now(UTC) - timedelta(days=30)
        return cls(*(house.certificate(office, valid_after=begin) for office in (CARE_MANAGER, HOME_HELP)))


async def send_and_fetch(house: House, number: int, passes: Passes) -> None:
    """Log in anew as both offices; one file goes from one to the other."""
    name = general_name(number=number)
    async with (
        house.dial(pass_=passes.ours) as one,
        house.dial(HOME_HELP, pass_=passes.theirs) as two,
        open_raw(one) as ours,
        open_raw(two) as theirs,
    ):
        assert (await ours.put(f"/send/{name}", pdf(900))).code == sftp.OK
        assert name in await ours.list("/send")
        assert await theirs.get(f"/new/{name}") == pdf(900)
        assert name not in await theirs.list("/new")


async def write(raw: RawSftp, handle: bytes, start: int, end: int) -> None:
    """Write that part of the large file."""
    for at in range(start, end, 32_000):
        part = WHOLE[at : min(end, at + 32_000)]
        assert (await raw.call(sftp.WRITE, handle, sftp.Long(at), part)).code == sftp.OK


@pytest.mark.parametrize("hours", [(7.0, 0.0), (7.0, -9.0), (20.0, 13.0)], ids=str)
async def test_offices_work_on_while_the_clock_jumps(
    make_house: MakeHouse, clock: Clock, hours: tuple[float, float]
) -> None:
    """An upload under way ends well on its session, others log in, send and collect at once; history holds throughout."""
    house = make_house()
    passes = Passes.of(house)
    clock.serve(house)
    await send_and_fetch(house, 0, passes)
    large = general_name(number=90)
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{large}")
        await write(raw, handle, 0, HALF)
        clock.set(hours[0])
        await send_and_fetch(house, 1, passes)
        clock.set(hours[1])
        await send_and_fetch(house, 2, passes)
        await write(raw, handle, HALF, len(WHOLE))
        assert (await raw.call(sftp.CLOSE, handle)).code == sftp.OK
    await send_and_fetch(house, 3, passes)
    clock.set(0)
    await send_and_fetch(house, 4, passes)
    assert {each.state.value for each in house.transfers() if each.name != large} == {"collected"}
    told = house.journal_lines("clock.set_back")
    assert len(told) == 1, "told once, however many logins there are"
    assert "restart the relay" in told[0]["advice"]
    verified = await asyncio.to_thread(house.relay, "audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert await raw.get(f"/new/{large}") == WHOLE


async def test_a_relay_that_starts_with_a_clock_behind_lets_nobody_in_until_it_is_right(
    make_house: MakeHouse, clock: Clock
) -> None:
    """The certificates begin later than its time: the journal names both; set right, everybody gets in, without a restart."""
    house = make_house()
    clock.set(-9)
    clock.serve(house)
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
        async with house.dial(CARE_MANAGER):
            pass
    rejected = house.wait_for_event("login.rejected")
    assert rejected["reason"] == "not_yet_valid"
    assert f"{datetime.now(UTC) - timedelta(hours=9):%Y-%m-%d}" in rejected["detail"]
    clock.set(0)
    await send_and_fetch(house, 1, Passes(house.certificate(CARE_MANAGER), house.certificate(HOME_HELP)))
    assert house.relay("audit", "verify").returncode == 0


async def test_nothing_expires_because_the_clock_is_months_ahead(make_house: MakeHouse, clock: Clock) -> None:
    """A relay that starts in such a clock makes no round, and says so; put right and started again, the file is there."""
    house = make_house()
    clock.serve(house)
    async with house.dial(CARE_MANAGER) as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{general_name()}", pdf(900))).code == sftp.OK
    assert (await asyncio.to_thread(house.relay, "housekeeping", "run", "--yes")).returncode == 0
    await asyncio.to_thread(house.stop)
    clock.set(100 * 24)
    await asyncio.to_thread(clock.serve, house)
    told = await asyncio.to_thread(house.wait_for_event, "housekeeping.waits")
    assert "put the clock right" in told["advice"]
    assert [str(each.state) for each in house.transfers()] == ["accepted"]
    await asyncio.to_thread(house.stop)
    clock.set(0)
    await asyncio.to_thread(clock.serve, house)
    async with house.dial(HOME_HELP) as two, open_raw(two) as theirs:
        assert await theirs.get(f"/new/{general_name()}") == pdf(900)
    assert len(house.journal_lines("housekeeping.waits")) == 1
