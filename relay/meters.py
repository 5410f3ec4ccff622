"""Meters: what the server counts while it runs, as plain numbers.

Every file crosses several of them, so counting is an addition and nothing else: no lock, no labels to look up, no
clock.  It is done on the event loop alone.  `relay.exposition` tells them to those who ask.

Nothing here names an office, a person or a file: what is counted is counted for the whole process.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

# From what a fast disk does to what a person calls broken, in seconds.
QUICK: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# How long something waits for a program that polls, or for a person: a minute, an hour, a day, a week, a month.
SLOW: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)
# Commits that are remembered one by one, for whoever looks at the slowest.
_COMMITS = 512


class Histogram:
    """How often a value lay between two of *bounds*, and the sum of all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin with nothing."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count *value*; a bound counts what is as large as itself."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: Histogram) -> None:
        """Count all that *other* has counted between the same bounds."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum


class Commit(NamedTuple):
    """One transaction: when it ended (seconds since 1970), how long its first unit of work had waited, and how many it had."""

    at: float
    seconds: float
    works: int


@dataclass(slots=True)
class Meters:
    """All of them; one a process.

    *accept* runs from OPEN to the commit of a file, *commit* from when something is handed to the writer until it is
    on stable storage, *first_visible* from acceptance until the file stood in a listing that its recipient read to the
    end, *collection_age* from acceptance until it was collected.
    """

    accept: Histogram = field(default_factory=lambda: Histogram(QUICK))
    commit: Histogram = field(default_factory=lambda: Histogram(QUICK))
    first_visible: Histogram = field(default_factory=lambda: Histogram(SLOW))
    collection_age: Histogram = field(default_factory=lambda: Histogram(SLOW))
    commits: deque[Commit] = field(default_factory=lambda: deque(maxlen=_COMMITS))
    transactions: int = 0
    repeats: int = 0
    logins: int = 0
    logins_rejected: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    sessions_opened: int = 0
    troubles: int = 0
    is_store_in_trouble: bool = False
    started_at: float = field(default_factory=time.time)

    def note_trouble(self, *, is_troubled: bool) -> None:
        """Know that the store failed, or works again."""
        self.is_store_in_trouble = is_troubled
        self.troubles += is_troubled

    def add(self, other: Meters) -> None:
        """Count what another process of the same server has counted."""
        for name in ("accept", "commit", "first_visible", "collection_age"):
            getattr(self, name).add(getattr(other, name))
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.logins_rejected.update(other.logins_rejected)
        self.refusals.update(other.refusals)
        self.commits = deque(sorted([*self.commits, *other.commits], key=lambda commit: commit.at), maxlen=_COMMITS)
        self.is_store_in_trouble = self.is_store_in_trouble or other.is_store_in_trouble


_NUMBERS = (
    "transactions",
    "repeats",
    "logins",
    "requests",
    "bytes_in",
    "bytes_out",
    "sessions_opened",
    "troubles",
)
