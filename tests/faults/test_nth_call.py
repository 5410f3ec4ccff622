"""The Nth call to the store, the clock or the random source fails, for every N until a deed meets no failure.

After each: whoever was answered OK was told the truth, whoever was not can try again and comes to the end, nothing waits,
nothing is held, and what the offices see afterwards, through a relay that was opened anew, breaks no promise.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from abort_judge import Told
from aftermath import load_keys
from deeds import DEEDS, Deed, Play
from house import PATIENCE_SECONDS
from indoors import clock, open_indoors, prepared_store
from nthcall import BUSY, FULL, IOERR, Clock, Trap, TrappedClock, Way, trap_random, trap_store
from paper_deeds import PAPER_DEEDS

from relay.keyring import Keyring

__all__ = ["prepared_store"]

# More calls than any deed makes.
_CALLS_MOST = 2_000
# In each run; all others, and the other ways to fail, with -m long.
_OFTEN = {
    "store": ("send_large", "send_two_at_once", "be_cut_off", "write_over", "collect", "recall", "revoke"),
    "commit": ("send_small", "rename", "collect", "recall", "enrol", "renew", "revoke"),
    "random": ("send_small", "shorten", "enrol"),
    "clock": ("send_small", "be_cut_off", "collect", "enrol"),
}


def deeds(what: str, *, all_are_long: bool = False, without: tuple[str, ...] = ()) -> list[Any]:
    """Return all deeds as parameters, those that are not done in each run marked so."""
    often = () if all_are_long else _OFTEN[what]
    return [
        pytest.param(deed, id=deed.name, marks=[] if deed.name in often else [pytest.mark.long])
        for deed in (*DEEDS, *PAPER_DEEDS)
        if deed.name not in without
    ]


class Trial:
    """One deed, done once for every N on a store of its own."""

    def __init__(
        self, deed: Deed, folder: Path, prepared: Path, keyring: Keyring, trap: Trap, clock: Clock = clock
    ) -> None:
        self.deed, self.trap, self.clock = deed, trap, clock
        self._folder, self._prepared, self._keyring = folder, prepared, keyring
        self.tried = self.failed = 0
        self.may_be_defect = False

    async def run(self, way: Way) -> None:
        """Let the Nth call fail for N from 1 on, until none was met; print how many were tried."""
        for at in range(1, _CALLS_MOST):
            if not await asyncio.wait_for(self._try(at, way), PATIENCE_SECONDS):
                break
            self.tried += 1
        print(f"{self.deed}: {self.tried} calls failed, {self.failed} were told")  # noqa: T201 - pytest -s
        assert 0 < self.tried < _CALLS_MOST - 1

    async def _try(self, at: int, way: Way) -> bool:
        store = self._folder / "relay.db"
        for old in self._folder.glob("relay.db*"):
            old.unlink()
        shutil.copy(self._prepared, store)
        async with open_indoors(store, self.clock, keyring=self._keyring) as relay:
            play = Play(relay)
            if self.deed.prepare is not None:
                await self.deed.prepare(play)
            self.trap.arm(at, way)
            try:
                told = await self.deed.do(play)
            finally:
                self.trap.disarm()
            self.failed += told is Told.FAILED
            again = await self.deed.do_again(play)
            assert again is Told.DONE, f"call {at}: the trouble is over, and trying again does not help"
            await relay.check_idle()
            assert self.may_be_defect or not relay.defects(), relay.defects()
        async with open_indoors(store, keyring=self._keyring) as relay:
            play.relay = relay
            broken = await self.deed.judge_all(play)
            assert not broken, f"call {at}: {broken}"
        return self.trap.sprung > 0


Make = Callable[..., Trial]


@pytest.fixture
def make_trial(tmp_path: Path, prepared_store: Path, prepared_home: Path) -> Make:
    """Return how to make a trial."""
    keyring = load_keys(prepared_home / "keys")
    return lambda deed, trap, *clock: Trial(deed, tmp_path, prepared_store, keyring, trap, *clock)


@pytest.mark.parametrize("deed", deeds("store"))
async def test_any_call_to_the_store_may_fail(make_trial: Make, monkeypatch: pytest.MonkeyPatch, deed: Deed) -> None:
    """One call fails: the client is told, and afterwards tries again and gets through."""
    trap = Trap()
    trap_store(monkeypatch, trap, IOERR)
    await make_trial(deed, trap).run(Way.ONCE)


@pytest.mark.parametrize("deed", deeds("store", all_are_long=True))
@pytest.mark.parametrize(("code", "way"), [(BUSY, Way.ONCE), (FULL, Way.FROM_THERE)], ids=["busy", "full"])
async def test_a_store_may_be_busy_for_a_moment_or_full_from_any_call_on(
    make_trial: Make, monkeypatch: pytest.MonkeyPatch, deed: Deed, code: int, way: Way
) -> None:
    """The same with another program in between, and with no room until somebody makes some."""
    trap = Trap()
    trap_store(monkeypatch, trap, code)
    await make_trial(deed, trap).run(way)


@pytest.mark.parametrize("deed", deeds("commit"))
async def test_a_commit_may_fail_after_it_took_place(
    make_trial: Make, monkeypatch: pytest.MonkeyPatch, deed: Deed
) -> None:
    """What was told as failed is there, once; trying again finds it so."""
    trap = Trap()
    trap_store(monkeypatch, trap, IOERR, after_commit=True)
    await make_trial(deed, trap).run(Way.ONCE)


# These draw no number.
@pytest.mark.parametrize("deed", deeds("random", without=("collect", "put_away", "recall", "keep_house", "revoke")))
@pytest.mark.parametrize("way", Way, ids=lambda way: way.value)
async def test_any_draw_of_a_random_number_may_fail(
    make_trial: Make, monkeypatch: pytest.MonkeyPatch, deed: Deed, way: Way
) -> None:
    """No random source is a defect of the machine: told as one, and nothing is sealed without it."""
    trap = Trap()
    trap_random(monkeypatch, trap)
    trial = make_trial(deed, trap)
    trial.may_be_defect = True
    await trial.run(way)


# Housekeeping and whoever revokes are told the time.
@pytest.mark.parametrize("deed", deeds("clock", without=("keep_house", "revoke")))
@pytest.mark.parametrize("jump", [None, timedelta(hours=3), -timedelta(hours=3)], ids=["raises", "forth", "back"])
async def test_the_clock_may_fail_or_jump_at_any_question(make_trial: Make, deed: Deed, jump: timedelta | None) -> None:
    """A clock that raises is told as a defect; one that jumps by hours changes nothing that was promised."""
    trap = Trap()
    trial = make_trial(deed, trap, TrappedClock(trap, jump))
    trial.may_be_defect = jump is None
    await trial.run(Way.ONCE)
