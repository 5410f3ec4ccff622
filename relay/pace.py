"""Pace: how fast one office may send, as a token bucket.

Honest programs send thousands of files in one run and give up on an error that is none.  So an office may begin a
minute's worth of files at once; beyond that each waits for its turn, which slows a program down by making it wait for
its reply.  Only who would have to wait longer than a client waits for any reply is told to try again, and when.

A bucket is one number: the moment at which it will be full again (the generic cell rate algorithm).  `plan_turn` is
the whole rule, and pure.  `Pace` keeps the numbers where all workers see them; the clock is the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.common import Common
from relay.model import OfficeNumber

# WinSCP takes a server for dead that says nothing for 15 seconds; no client is less patient.
PATIENCE_SECONDS: Final = 5.0
_NOTHING_SECONDS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Turn:
    """When the next file may be begun: after *wait_seconds*, unless that *is_too_long*; *full_at* is the bucket then."""

    wait_seconds: float
    full_at: float
    is_too_long: bool


def plan_turn(full_at: float, now: float, *, per_minute: int) -> Turn:
    """Take one of *per_minute* out of the bucket that is full at *full_at*; where that is too long, nothing is taken."""
    spacing = 60.0 / per_minute
    # A full bucket is one whose moment has passed; it holds a minute's worth.
    next_full_at = max(full_at, now) + spacing
    wait = max(0.0, next_full_at - now - per_minute * spacing)
    # The difference of large numbers: a wait of less than a rounding error is none.
    wait = wait if wait > _NOTHING_SECONDS else 0.0
    is_too_long = wait > PATIENCE_SECONDS
    return Turn(wait, full_at if is_too_long else next_full_at, is_too_long)


class Pace:
    """The buckets of all offices that have sent something in the last minute."""

    def __init__(
        self, per_minute: int, common: Common | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with the buckets that *common* has."""
        self.per_minute = per_minute
        self._common = common or Common.alone()
        self._clock = clock

    def take_turn(self, office: OfficeNumber) -> Turn:
        """Return when *office* may begin its next file, and count it unless that is too long."""
        now = self._clock()
        with self._common.moment("transfers_per_minute", office, now) as full:
            turn = plan_turn(full.at, now, per_minute=self.per_minute)
            full.at = turn.full_at
        return turn
