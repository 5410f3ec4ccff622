"""What a refusal that the ledger decides has to say: times as an office reads them, and who was faster.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from relay.errors import Refused
from relay.lifecycle import State
from relay.model import Transfer

# The standard's serials are Japan time (standard, section 3); so is every time that an office is told.
JAPAN = timezone(timedelta(hours=9))


def local_text(moment: datetime) -> str:
    """Return *moment* as a sentence to an office has it: Japan time, to the minute."""
    return f"{moment.astimezone(JAPAN):%Y-%m-%d %H:%M} JST" if moment.tzinfo else f"{moment.replace(tzinfo=UTC)}"


def refuse_ended(transfer: Transfer) -> None:
    """Refuse what its sender has taken back or replaced, what is held, returned or kept no longer, in words for its recipient."""
    if transfer.is_held:
        raise Refused("transfer.held")
    if transfer.state in (State.RECALLED, State.RETURNED, State.SUPERSEDED, State.EXPIRED, State.DESTROYED):
        assert transfer.ended_at is not None
        raise Refused(f"transfer.{transfer.state}", at=local_text(transfer.ended_at))
