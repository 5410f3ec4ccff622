"""Housekeeping: what time does to the store, in small steps that never hold up an upload.

Files that nobody collected expire, and those that were collected lose their bytes, each after its time; the record
stays, and both offices read what happened; at half and at nine tenths of its time both are told that a file waits.  Uploads that never became a transfer go a day after they were last added
to.  Of what was taken back, replaced or expired the key is destroyed after a week; its bytes went at once.  What is
free in the store is given back to the disk.  Notes beside refused files go after a week, refusals after years.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay import journal
from relay.config import HousekeepingSettings
from relay.errors import Deferred
from relay.journal import Journal
from relay.ledger import Due, Ledger

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
_ROUND_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round would do: files that expire, files that lose their bytes, and pages that go back to the disk."""

    expiring: Due
    destroyed: Due
    free_pages: int


@dataclass(frozen=True, slots=True)
class Done:
    """What a round did."""

    expired: int
    destroyed: int
    unfinished: int
    leftovers: int
    pages: int
    noticed: int = 0


async def keep_house(
    ledger: Ledger, settings: HousekeepingSettings, clock: Callable[[], datetime], journal_: Journal
) -> None:
    """Go round for ever; a store in trouble is left alone until the next round."""
    while True:
        try:
            _tell(journal_, await go_round(ledger, settings, clock()))
        except Deferred as deferred:
            journal.store_failed(journal_, cause=deferred.detail or deferred.code)
        except Exception as error:  # noqa: BLE001 - one spoilt row must not end the server
            journal.unexpected_error(journal_, reference="housekeeping", exception=error)
        await asyncio.sleep(_ROUND_SECONDS)


async def plan_round(ledger: Ledger, settings: HousekeepingSettings, now: datetime) -> Plan:
    """Return what `go_round` would do to files now, changing nothing."""
    expiring, destroyed = await ledger.list_due(
        uncollected=_before(settings.uncollected_days, now), collected=_before(settings.collected_days, now)
    )
    return Plan(expiring, destroyed, await ledger.count_free_pages())


async def go_round(ledger: Ledger, settings: HousekeepingSettings, now: datetime) -> Done:
    """Do everything that is due at *now*; what was done before an interruption is done."""
    expired = destroyed = 0
    if (before := _before(settings.uncollected_days, now)) is not None:
        expired = await ledger.expire_uncollected(before=before, now=now)
    if (before := _before(settings.collected_days, now)) is not None:
        destroyed = await ledger.destroy_collected(before=before, now=now)
    noticed = await _give_notices(ledger, settings, now)
    # In this order and to the same moment: what is abandoned without having expired leaves no row for its sender.
    unfinished = await ledger.expire_partials(before=now - _ABANDONED_AFTER, now=now)
    leftovers = await ledger.remove_abandoned(before=now - _ABANDONED_AFTER) - destroyed
    await ledger.leave_outbox(now=now)
    await ledger.destroy_ended(before=now - _NAMED_AFTER, now=now)
    await ledger.forget_refusals(notes_before=now - _NOTED_AFTER, before=now - timedelta(days=settings.refusals_days))
    await ledger.forget_attempts(before=now - _ATTEMPTS_AFTER)
    ledger.forget_destroyed_keys()
    return Done(expired, destroyed, unfinished, max(0, leftovers), await ledger.give_space_back(), noticed)


async def _give_notices(ledger: Ledger, settings: HousekeepingSettings, now: datetime) -> int:
    """Let both offices read of what waits for long; what has expired needs no notice any more."""
    kept, count = timedelta(days=settings.uncollected_days), 0
    for tenths in _NOTICE_TENTHS if kept else ():
        count += await ledger.give_notices(tenths, before=now - kept * tenths / 10, now=now)
    await ledger.forget_notices()
    return count


def _before(days: int, now: datetime) -> datetime | None:
    return now - timedelta(days=days) if days else None


def _tell(journal_: Journal, done: Done) -> None:
    if done.leftovers:
        journal.leftovers_removed(journal_, uploads=done.leftovers)
    if done.expired or done.destroyed:
        journal.files_ended(journal_, expired=done.expired, destroyed=done.destroyed)
