"""Housekeeping: what time does to the store, in small steps that never hold up an upload.

Files that nobody collected expire, and those that were collected lose their bytes, each after its time; the record
stays, and both offices read what happened; at half and at nine tenths of its time both are told that a file waits.
Uploads that never became a transfer go a day after they were last added to.  Of what was taken back, replaced or
expired the key is destroyed after a week; its bytes went at once.  What is free in the store is given back to the disk.
Notes beside refused files go after a week, refusals after years.  Offices close or change their number when their day has
come, and what waits at a closed one goes back to its senders when its time to collect is over.

A clock that is wrong by months would let everything expire that waits.  So where the last round is days old, by the clock,
the next waits for a day: in that time somebody puts the clock right, or it was the relay that stood still (`Pause`).

A plan (`plan_round`) counts what a round would do, chore by chore, under the very cutoffs that the round goes by; what
the round did is kept in the store, for whoever asks when it was and what comes next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from relay import journal
from relay.config import HousekeepingSettings
from relay.errors import Deferred
from relay.journal import Journal
from relay.ledger import Ledger
from relay.ledger.upkeep import Chore, Cutoffs, Due

_ABANDONED_AFTER = timedelta(days=1)
# For so long recall/ lists what was taken back, by its name.
_NAMED_AFTER = timedelta(days=7)
# Longer than a REMOVE can mean them (`relay.intake`).
_ATTEMPTS_AFTER = timedelta(hours=1)
# For so long a note lies beside a refused file.
_NOTED_AFTER = timedelta(days=7)
# When both offices are told that a file waits, in tenths of its time; the later one first, because who comes to both at
# once (a relay that stood still) is told of it alone.
_NOTICE_TENTHS = (9, 5)
ROUND_SECONDS = 600.0
# Rounds are that far apart where the relay stood still over a weekend, or where the clock leapt: nobody can tell which.
PAUSE = timedelta(days=2)
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Done:
    """What a round did: one number for each `Chore`, named as it."""

    expired: int = 0
    destroyed: int = 0
    noticed: int = 0
    notices_over: int = 0
    unfinished: int = 0
    leftovers: int = 0
    unlisted: int = 0
    names: int = 0
    notes: int = 0
    refusals: int = 0
    attempts: int = 0
    ended: int = 0
    stranded: int = 0
    pages: int = 0

    @property
    def counts(self) -> dict[Chore, int]:
        """How much was done of each chore."""
        return {Chore(name): int(count) for name, count in asdict(self).items()}


async def keep_house(
    ledger: Ledger, settings: HousekeepingSettings, clock: Callable[[], datetime], journal_: Journal
) -> None:
    """Go round for ever; a store in trouble is left alone until the next round."""
    pause = Pause(journal_)
    while True:
        try:
            now = clock()
            if not pause.holds_up((await ledger.read_rounds()).last_at, now):
                _tell(journal_, await go_round(ledger, settings, now))
        except Deferred as deferred:
            # What the store suffers from, and what to do, is told by the store, once.
            journal.housekeeping_put_off(journal_, cause=deferred.detail or deferred.code)
        except Exception as error:  # noqa: BLE001 - one spoilt row must not end the server
            journal.unexpected_error(journal_, reference="housekeeping", exception=error)
        await asyncio.sleep(ROUND_SECONDS)


class Pause:
    """Holds up what cannot be undone while nobody knows whether the relay stood still or its clock is wrong."""

    def __init__(self, journal_: Journal, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal_
        self._elapsed = elapsed
        # When it was found, by a clock that nobody sets.
        self._found_at: float | None = None

    def holds_up(self, last_at: datetime | None, now: datetime) -> bool:
        """Say whether to make no round at *now*, the last one having been at *last_at*; journalled once each time."""
        if last_at is None or now - last_at < PAUSE:
            self._found_at = None
            return False
        if self._found_at is None:
            self._found_at = self._elapsed()
            journal.housekeeping_waits(self._journal, last=last_at, now=now, until=now + _PATIENCE)
        return self._elapsed() - self._found_at < _PATIENCE.total_seconds()


async def plan_round(ledger: Ledger, settings: HousekeepingSettings, now: datetime) -> Mapping[Chore, Due]:
    """Return what `go_round` would do now, chore by chore, changing nothing.

    More pages than are told go back to the disk where the round itself frees some.
    """
    return await ledger.foresee(plan_cutoffs(settings, now))


def plan_cutoffs(settings: HousekeepingSettings, now: datetime) -> Cutoffs:
    """Return the moments before which things are due at *now*."""
    kept = timedelta(days=settings.uncollected_days)
    return Cutoffs(
        now=now,
        expired=_before(settings.uncollected_days, now),
        destroyed=_before(settings.collected_days, now),
        abandoned=now - _ABANDONED_AFTER,
        names=now - _NAMED_AFTER,
        notes=now - _NOTED_AFTER,
        refusals=now - timedelta(days=settings.refusals_days),
        attempts=now - _ATTEMPTS_AFTER,
        notices={tenths: now - kept * tenths / 10 for tenths in _NOTICE_TENTHS} if kept else {},
    )


async def go_round(ledger: Ledger, settings: HousekeepingSettings, now: datetime) -> Done:
    """Do everything that is due at *now*; what was done before an interruption is done."""
    due = plan_cutoffs(settings, now)
    expired = destroyed = noticed = 0
    if due.expired is not None:
        expired = await ledger.expire_uncollected(before=due.expired, now=now)
    if due.destroyed is not None:
        destroyed = await ledger.destroy_collected(before=due.destroyed, now=now)
    for tenths, before in due.notices.items():
        noticed += await ledger.give_notices(tenths, before=before, now=now)
    notices_over = await ledger.forget_notices()
    # In this order and to the same moment: what is abandoned without having expired leaves no row for its sender.
    unfinished = await ledger.expire_partials(before=due.abandoned, now=now)
    leftovers = await ledger.remove_abandoned(before=due.abandoned) - destroyed - unfinished
    unlisted = await ledger.leave_outbox(now=now)
    names = await ledger.destroy_ended(before=due.names, now=now)
    notes = await ledger.forget_notes(before=due.notes)
    refusals = await ledger.forget_refusals(before=due.refusals)
    attempts = await ledger.forget_attempts(before=due.attempts)
    ended = await ledger.end_offices(now=now)
    stranded = await ledger.return_stranded(now=now)
    ledger.forget_destroyed_keys()
    pages = await ledger.give_space_back()
    done = Done(
        expired=expired, destroyed=destroyed, noticed=noticed, notices_over=notices_over, unfinished=unfinished,
        leftovers=max(0, leftovers), unlisted=unlisted, names=names, notes=notes, refusals=refusals,
        attempts=attempts, ended=ended, stranded=stranded, pages=pages,
    )  # fmt: skip
    await ledger.record_round(done.counts, now=now)
    return done


def _before(days: int, now: datetime) -> datetime | None:
    return now - timedelta(days=days) if days else None


def _tell(journal_: Journal, done: Done) -> None:
    if done.leftovers or done.unfinished:
        journal.leftovers_removed(journal_, uploads=done.leftovers + done.unfinished)
    if done.expired or done.destroyed:
        journal.files_ended(journal_, expired=done.expired, destroyed=done.destroyed)
    if done.ended or done.stranded:
        journal.offices_ended(journal_, ended=done.ended, returned=done.stranded)
