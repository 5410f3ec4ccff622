"""The system's random source fails under the real server: nothing is promised or kept unsealed, and it ends without hands."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import asyncssh
import raw_sftp as sftp
from faultshim import Ending, MakeHouse, Shim
from house import HOME_HELP, House, general_name, pdf
from raw_sftp import open_raw

# Long enough not to be anywhere by chance.
MARK = b"what no disk may hold as it is"
BODY = pdf(2_000) + MARK * 40 + b"\n%%EOF\n"
_LOST = (OSError, EOFError, asyncssh.Error)
_CALLS_MOST = 200


async def send(house: House, shim: Shim, number: int, at: int, how: Ending) -> tuple[str, int]:
    """Log in, and upload while the random source fails; return what was told, and how often it was asked."""
    told = "lost"
    async with house.dial() as connection:
        try:
            async with open_raw(connection) as raw:
                shim.arm_random(at, how, errno.EIO)
                reply = await raw.put(f"/send/{general_name(number=number)}", BODY)
                told = "OK" if reply.code == sftp.OK else reply.text
        except _LOST:
            # No packet can be sent without it: the connection ends.
            pass
        finally:
            calls = shim.disarm()
    return told, calls


def check_sealed(house: House) -> None:
    """AssertionError where any file of the store holds what was sent as it is."""
    for file in filter(Path.is_file, house.config.store.path.parent.iterdir()):
        assert MARK not in file.read_bytes(), file.name


async def test_any_draw_of_a_random_number_may_fail_in_the_server(make_house: MakeHouse, tmp_path: Path) -> None:
    """One fails, whichever: the client is told that nothing was accepted or is cut off, and the same file then gets through, once."""
    house, shim = make_house(server={"workers": 1}), Shim(tmp_path)
    house.expects_defects = True
    shim.serve(house)
    (worker,) = house.workers()
    heard, at, calls = set[str](), 0, 1
    while calls >= at and at < _CALLS_MOST:
        at += 1
        told, calls = await send(house, shim, at, at, Ending.FAIL_ONCE)
        heard.add(told)
        if told != "OK":
            assert (await send(house, shim, at, 0, Ending.FAIL_ONCE))[0] == "OK"
    words = heard - {"OK", "lost"}
    assert words
    assert all(text.startswith("server.fault: ") and "nothing was accepted" in text for text in words)
    assert [each.pid for each in house.workers()] == [worker.pid]
    # Whoever waits for an answer that cannot be sent is cut off: none was lost in a task that nobody asks.
    assert not [line for line in house.journal_lines("error.unexpected") if line["reference"] == "loop"]
    check_sealed(house)
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert set(await raw.list("/new")) - {".", ".."} == {general_name(number=n) for n in range(1, at + 1)}


async def test_a_random_source_that_stays_away_ends_no_server(make_house: MakeHouse, tmp_path: Path) -> None:
    """Sessions end and nobody gets in while it is away; no process dies of it, and afterwards everything goes on."""
    house, shim = make_house(server={"workers": 1}), Shim(tmp_path)
    house.expects_defects = True
    shim.serve(house)
    (worker,) = house.workers()
    told, _ = await send(house, shim, 1, 1, Ending.FAIL_FROM_THERE)
    assert told != "OK"
    shim.arm_random(1, Ending.FAIL_FROM_THERE, errno.EIO)

    async def knock() -> bool:
        try:
            async with house.dial(login_timeout=5):
                return True
        except _LOST:
            return False

    assert not any(await asyncio.gather(*(knock() for _ in range(10))))
    assert shim.disarm() >= 10
    assert (await send(house, shim, 1, 0, Ending.FAIL_ONCE))[0] == "OK"
    assert [each.pid for each in house.workers()] == [worker.pid]
    check_sealed(house)
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert await raw.get(f"/receive/{general_name(number=1)}") == BODY
    assert house.stop() == 0
    assert not house.journal_lines("not.json", "worker.died")
