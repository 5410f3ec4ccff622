"""The auditor: what the server itself has to do for the audit while it runs.

That it was started and stopped stands in history, once however many processes it has.  Every few seconds one of them,
and each when it ends, notes outside the store how far history has come.  An anchor that cannot follow costs nobody a file: it is told in the journal, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from relay import journal
from relay.config import AuditSettings
from relay.journal import Journal
from relay.ledger import Ledger
from relay.model import RELAY_ACTOR, EventKind


async def note_start(
    ledger: Ledger, settings: AuditSettings, clock: Callable[[], datetime], journal_: Journal, *, detail: str = ""
) -> None:
    """Let history tell that the server starts, and an anchor that is missing; Deferred where the store cannot say so."""
    batches = await ledger.count_batches()
    if batches and not settings.anchor.exists():
        journal.audit_anchor_begun(journal_, batches=batches)
        await ledger.record_event(
            EventKind.ANCHOR_BEGUN, actor=RELAY_ACTOR, detail=f"there was none at batch {batches}", now=clock()
        )
    await ledger.record_event(EventKind.SERVER_STARTED, actor=RELAY_ACTOR, detail=detail, now=clock())


def note_stop(ledger: Ledger, clock: Callable[[], datetime], *, detail: str = "") -> None:
    """Let history tell that the server ends."""
    ledger.note_event(EventKind.SERVER_STOPPED, actor=RELAY_ACTOR, now=clock(), detail=detail)


async def keep_anchor(ledger: Ledger, seconds: float, journal_: Journal) -> None:
    """Note every so many *seconds* how far history has come; never returns."""
    is_troubled = False
    while True:
        try:
            trouble = await ledger.advance_anchor()
        except Exception as error:  # noqa: BLE001 - one bad look must not end the keeping
            journal.unexpected_error(journal_, reference="anchor", exception=error)
        else:
            if (trouble is not None) != is_troubled:
                is_troubled = trouble is not None
                if trouble is None:
                    journal.audit_anchor_recovered(journal_)
                else:
                    journal.audit_anchor_failed(journal_, cause=trouble)
        await asyncio.sleep(seconds)
