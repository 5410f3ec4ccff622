"""Workers, their supervisor and the whole server killed at random instants, while the offices' programs go on: no promise is broken, ever.

A run is told by its seed: ``RELAY_KILLS_SEED=…`` repeats the instants and what the programs draw, ``RELAY_KILLS=…`` says
how many in the long run, ``RELAY_KILLS_WORKERS=…`` in how many workers.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from abort_judge import Claim, Told, judge_exchange
from fleet import Fleet
from house import PATIENCE_SECONDS, MakeHouse, run_aside

# In CI: 4 × 13 = 52 kills, side by side.
LANES, KILLS = 4, 13
KILLS_A_ROUND = 25
LONG_KILLS = int(os.environ.get("RELAY_KILLS", "1000"))
SEED = os.environ.get("RELAY_KILLS_SEED", "")
# How long the server lives after the first file that it takes, at most: several commits, logins and downloads.
LIFE_SECONDS = 0.6
# A worker that dies again and again is replaced later each time; a new supervisor knows nothing of that.
WEIGHTS = {"worker": 6, "server": 3, "supervisor": 1}
SETTINGS = {
    "server": {"workers": int(os.environ.get("RELAY_KILLS_WORKERS", "3"))},
    "limits": {"handles_per_session": 100_000, "handles_per_certificate": 100_000},
}


class Siege:
    """One relay that is killed again and again while its offices work."""

    def __init__(self, fleet: Fleet, seed: str) -> None:
        self.house, self.fleet = fleet.house, fleet
        self.dice = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self._read: dict[str, Mapping[str, str]] = {}

    def kill_once(self) -> None:
        """Let somebody get through, kill at a random instant, start again, judge what was told until then."""
        done = self.fleet.done()
        self.house.wait_for(lambda: self.fleet.done() > done or self.fleet.troubles, "a file that gets through")
        self.fleet.check()
        # Not to wait for anything: the instant shall be any.
        threading.Event().wait(self.dice.uniform(0, LIFE_SECONDS))
        (victim,) = self.dice.choices([*WEIGHTS], [*WEIGHTS.values()])
        self.kills[victim] += 1
        self._KILLS[victim](self)
        self.judge_at_work()

    def _kill_a_worker(self) -> None:
        """Let the supervisor find that one of its own is gone; the others serve on."""
        workers = self.house.wait_for(self.house.workers, "a worker that lives")
        victim = self.dice.choice(sorted(workers, key=lambda worker: worker.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()

    def _kill_all(self) -> None:
        port = self.house.port
        self.house.kill()
        self.house.start(port=port)

    def _kill_the_supervisor(self) -> None:
        """Leave the workers alone; they notice, and go."""
        port, workers, process = self.house.port, self.house.workers(), self.house.process
        assert process is not None
        self.house.process = None
        with process:
            process.kill()
        assert not psutil.wait_procs(workers, PATIENCE_SECONDS)[1], "a worker stays without its supervisor"
        self.house.start(port=port)

    _KILLS: ClassVar = {"worker": _kill_a_worker, "server": _kill_all, "supervisor": _kill_the_supervisor}

    def judge_at_work(self) -> None:
        """See that what was told holds, while all go on."""
        before = {claim.name: claim for claim in self.fleet.books.claims()}
        sights = run_aside(self.fleet.statuses())
        claims = [_as_before(claim, before.get(claim.name)) for claim in self.fleet.books.claims()]
        self._rule(judge_exchange(claims, self.fleet.books.fetches(), sights, is_settled=False))

    def judge_at_rest(self) -> None:
        """See that everything holds, while nobody does anything."""
        with self.fleet.rest():
            sights = run_aside(self.fleet.sights(self._read))
            self._read = {office: sight.read for office, sight in sights.items()}
            self._rule(judge_exchange(self.fleet.books.claims(), self.fleet.books.fetches(), sights))
            verified = self.house.relay("audit", "verify")
            assert verified.returncode == 0, verified.stdout + verified.stderr

    def _rule(self, broken: list[str]) -> None:
        assert not broken, f"after {dict(self.kills)} kills: {broken}"

    def tell(self) -> str:
        """Say what was played."""
        claims = self.fleet.books.claims()
        fetched = sum(fetch.told is not Told.FAILED for fetch in self.fleet.books.fetches())
        return f"{self.kills.total()} kills {dict(self.kills)}; {len(claims)} files sent, {self.fleet.done()} answered OK, {fetched} fetched"


def _as_before(claim: Claim, before: Claim | None) -> Claim:
    """Return what was tried, with the words that were told *before*: what was told since may not have been looked at."""
    told = Told.NOTHING if before is None else before.told
    taken_back = claim.taken_back
    if taken_back is not None and (before is None or before.taken_back is not taken_back):
        taken_back = Told.NOTHING
    return replace(claim, told=told, taken_back=taken_back)


def play(fleet: Fleet, seed: str, kills: int, every: int) -> None:
    """Kill so many times, and look at everything at rest after *every* so many."""
    print(f"RELAY_KILLS_SEED={seed}")  # noqa: T201 - how to repeat it
    fleet.house.start()
    siege = Siege(fleet, seed)
    with fleet:
        for number in range(1, kills + 1):
            siege.kill_once()
            if number % every == 0 or number == kills:
                siege.judge_at_rest()
                print(siege.tell(), file=sys.stderr, flush=True)  # noqa: T201 - how far a long run has come


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lane", range(LANES))
def test_server_killed_at_random_instants_breaks_no_promise(make_house: MakeHouse, tmp_path: Path, lane: int) -> None:
    """What was answered OK is there once and whole, nothing else is, and what is collected was read."""
    seed = SEED or f"{random.SystemRandom().getrandbits(32):08x}-{lane}"
    fleet = Fleet(make_house(**SETTINGS), tmp_path, seed, has_bulk=lane == 0)
    play(fleet, seed, KILLS, KILLS)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("round_", range(-(-LONG_KILLS // KILLS_A_ROUND)))
def test_server_killed_a_thousand_times_breaks_no_promise(make_house: MakeHouse, tmp_path: Path, round_: int) -> None:
    """The same for as long as it takes; each round begins with an empty store, or looking would take longest."""
    seed = SEED or f"{random.SystemRandom().getrandbits(32):08x}-{round_}"
    play(Fleet(make_house(**SETTINGS), tmp_path, seed), seed, KILLS_A_ROUND, KILLS_A_ROUND)
