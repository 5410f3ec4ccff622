"""What the operator does to a single file: the part of `relay.ledger.Ledger` for when something went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from relay.model import OfficeNumber, Transfer, TransferId


class IncidentKind(StrEnum):
    """What the operator did: held it for a while, gave it back, or noted that a collected file was misdirected."""

    HELD = "held"
    RETURNED = "returned"
    REPORTED = "reported"


@dataclass(frozen=True, slots=True)
class Incident:
    """The last that the operator did to a file, when, and why in his words."""

    kind: IncidentKind
    transfer: Transfer
    at: datetime
    reason: str


class Intervening(Protocol):
    """The verbs of the operator."""

    async def hold_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        """Take what nobody has collected out of its recipient's sight until it is released.

        Its sender may still take it back; it does not expire meanwhile.  Who is reading it is told at the next byte or at
        the CLOSE, and that does not count as collected.  Holding what is held does nothing.  Refused
        ``transfer.already_collected``; LookupError where it ended otherwise, or there is none.
        """

    async def release_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        """Let the recipient see it again, also where it was reported as misdirected; what is neither stays as it is.

        LookupError as `hold_transfer`.

        Refused ``transfer.conflict`` where the recipient sees another file of that name by now.
        """

    async def return_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        """Give a file that went to the wrong office back to its sender, held or not; returns what became of it.

        Not collected: gone from the recipient's sight for good.  Its sender finds it in ``recall/`` and may read it there
        until it is destroyed (`Ledger.destroy_ended`); its name is free.  Who is reading it is told as with a hold.
        Collected: that cannot be undone, so it stays collected and is marked (`Transfer.reported_at`), and no directory of the
        recipient's shows it any more.  A second time nothing changes.  LookupError where it ended otherwise, or there is none.
        """

    async def list_incidents(self, office: OfficeNumber, *, since: datetime) -> Sequence[Incident]:
        """Return what was done since then to files that *office* sent or was sent, and what is held still; newest first."""
