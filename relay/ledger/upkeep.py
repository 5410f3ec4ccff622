"""What housekeeping asks of the ledger: chores that time brings, what is due of each, and when each was last done.

A chore is one kind of work of a round (`relay.housekeeping`).  What a round would do is counted under the same
conditions as it is done, so that a plan and the round right behind it say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Chore(StrEnum):
    """One kind of work of a round, in the order in which it is done."""

    EXPIRED = "expired"
    DESTROYED = "destroyed"
    NOTICED = "noticed"
    NOTICES_OVER = "notices_over"
    UNFINISHED = "unfinished"
    LEFTOVERS = "leftovers"
    UNLISTED = "unlisted"
    NAMES = "names"
    NOTES = "notes"
    REFUSALS = "refusals"
    ATTEMPTS = "attempts"
    ENDED = "ended"
    STRANDED = "stranded"
    PAGES = "pages"


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """For each chore the moment before which something must lie to be due; None where it is never.

    *notices* has a moment for each tenth of the time at which offices are told, the later ones first.
    """

    now: datetime
    expired: datetime | None
    destroyed: datetime | None
    abandoned: datetime
    names: datetime
    notes: datetime
    refusals: datetime
    attempts: datetime
    notices: Mapping[int, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Due:
    """How much is due now and its size, and the moment that the oldest counts from, due or not; *next_at* it is due."""

    count: int
    size_bytes: int = 0
    oldest_at: datetime | None = None
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rounds:
    """When a round was made last, and of each chore when there was something to do, and how much."""

    last_at: datetime | None
    chores: Mapping[Chore, tuple[datetime, int]]


class Upkeep(Protocol):
    """The verbs of housekeeping."""

    async def foresee(self, cutoffs: Cutoffs) -> Mapping[Chore, Due]:
        """Return what a round with these *cutoffs* would do, changing nothing."""

    async def record_round(self, done: Mapping[Chore, int], *, now: datetime) -> None:
        """Keep when a round was made, and what it did."""

    async def read_rounds(self) -> Rounds:
        """Return what `record_round` has kept."""

    async def expire_uncollected(self, *, before: datetime, now: datetime) -> int:
        """Let every file expire that was accepted before *before* and nobody collected; returns how many."""

    async def destroy_collected(self, *, before: datetime, now: datetime) -> int:
        """Destroy the bytes and the key of what was collected, or thrown away, before *before*; the record stays."""

    async def give_space_back(self) -> int:
        """Give free pages back to the disk, in small steps; returns how many."""
