"""Housekeeping: what time does to the store, in small steps that never hold up an upload.

At present: chunks of uploads that never became a transfer are removed a day after they were last added to, and what
is not listed in ``send/`` any more leaves the index of that listing.  Of what was taken back or replaced the key is
destroyed after a week; its bytes went at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from relay import journal
from relay.errors import Deferred
from relay.journal import Journal
from relay.ledger import Ledger

_ABANDONED_AFTER = timedelta(days=1)
# For so long recall/ lists what was taken back, by its name.
_NAMED_AFTER = timedelta(days=7)
# Longer than a REMOVE can mean them (`relay.intake`).
_ATTEMPTS_AFTER = timedelta(hours=1)
_ROUND_SECONDS = 600.0


async def keep_house(ledger: Ledger, clock: Callable[[], datetime], journal_: Journal) -> None:
    """Go round for ever; a store in trouble is left alone until the next round."""
    while True:
        try:
            await _go_round(ledger, clock(), journal_)
        except Deferred as deferred:
            journal.store_failed(journal_, cause=deferred.detail or deferred.code)
        except Exception as error:  # noqa: BLE001 - one spoilt row must not end the server
            journal.unexpected_error(journal_, reference="housekeeping", exception=error)
        await asyncio.sleep(_ROUND_SECONDS)


async def _go_round(ledger: Ledger, now: datetime, journal_: Journal) -> None:
    # In this order and to the same moment: what is abandoned without having expired leaves no row for its sender.
    await ledger.expire_partials(before=now - _ABANDONED_AFTER, now=now)
    removed = await ledger.remove_abandoned(before=now - _ABANDONED_AFTER)
    await ledger.leave_outbox(now=now)
    await ledger.destroy_ended(before=now - _NAMED_AFTER, now=now)
    await ledger.forget_attempts(before=now - _ATTEMPTS_AFTER)
    ledger.forget_destroyed_keys()
    if removed:
        journal.leftovers_removed(journal_, uploads=removed)
