"""The Nth call on the store's files fails in the real server, whichever it is, for every N until a deed meets none.

Writes, syncs, cuts, reads, opens and maps; of the store, its log, its index and its lock.  After each whoever was
answered OK was told the truth, whoever was not gets through when he tries again, and the judge looks at all offices.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
from abort_judge import Told
from deeds import DEEDS, Deed, Play
from faultshim import Ending, Shim
from house import CARE_MANAGER, House, MakeHouse
from raw_sftp import RawSftp, open_raw

from relay.model import OfficeNumber

# A login fails as any request does.
_TROUBLE = (OSError, EOFError, asyncssh.Error)
_CALLS_MOST = 1_000
# Numbers of file names that a deed may use.
_NAMES = 10
_OFTEN = ("send_small", "collect")


@dataclass
class Outdoors:
    """A real server as deeds reach it."""

    house: House

    @asynccontextmanager
    async def session(self, office: OfficeNumber = CARE_MANAGER) -> AsyncIterator[RawSftp]:
        """Log in as *office* and open SFTP."""
        async with self.house.dial(office) as connection, open_raw(connection) as raw:
            yield raw


async def fail_each(house: House, shim: Shim, deed: Deed, how: Ending, code: int, stride: int = 1) -> int:
    """Do *deed* for every N, or every so many, while the Nth call fails; return how many failed."""
    play, known = Play(Outdoors(house)), dict[str, Mapping[str, str]]()
    for failed, at in enumerate(range(1, _CALLS_MOST, stride)):
        play.first_number = at * _NAMES
        if deed.prepare is not None:
            await deed.prepare(play)
        shim.arm(at, how, code, is_wide=True)
        try:
            await deed.do(play)
        except _TROUBLE:
            pass
        finally:
            calls = shim.disarm()
        assert await deed.do_again(play) is Told.DONE, f"call {at}: the trouble is over, and trying again does not help"
        # Each file is read when it is new, and once more at the end: a look at all of them each time takes hours.
        broken = await play.judge(known)
        assert not broken, f"call {at}: {broken}"
        if calls < at:
            broken = await play.judge()
            assert not broken, f"in the end: {broken}"
            return failed
    raise AssertionError("it never comes through")


@pytest.mark.parametrize("deed", [deed for deed in DEEDS if deed.name in _OFTEN], ids=str)
async def test_many_a_call_on_the_files_may_fail(make_house: MakeHouse, tmp_path: Path, deed: Deed) -> None:
    """One call in seven, because each needs several logins; all of them with ``-m long``."""
    house, shim = make_house(), Shim(tmp_path)
    shim.serve(house)
    assert await fail_each(house, shim, deed, Ending.FAIL_ONCE, errno.EIO, stride=7) > 0


@pytest.mark.long
@pytest.mark.parametrize("deed", [deed for deed in DEEDS if deed.name != "keep_house"], ids=str)
@pytest.mark.parametrize(
    ("how", "code"),
    [(Ending.FAIL_ONCE, errno.EIO), (Ending.FAIL_ONCE, errno.ENOSPC), (Ending.SHORT, 0)],
    ids=["EIO", "ENOSPC", "short"],
)
@pytest.mark.timeout(1200)
async def test_any_call_on_the_files_may_fail(
    make_house: MakeHouse, tmp_path: Path, deed: Deed, how: Ending, code: int
) -> None:
    """One call fails or does half of what it should; the deed is told or done, and gets through when done again."""
    # Who looks leaves everything open: what is closed counts as collected.
    house = make_house(limits={"handles_per_session": _CALLS_MOST, "handles_per_certificate": 2 * _CALLS_MOST})
    shim = Shim(tmp_path)
    shim.serve(house)
    failed = await fail_each(house, shim, deed, how, code)
    print(f"{deed}: {failed} calls failed")  # noqa: T201 - pytest -s
    assert failed > 0
