"""What the operator does to a single file: the part of `relay.ledger.Ledger` for when something went wrong."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from relay.model import Transfer, TransferId


class Intervening(Protocol):
    """The verbs of the operator."""

    async def hold_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        """Take what nobody has collected out of its recipient's sight until it is released.

        Its sender may still take it back; it does not expire meanwhile.  Who is reading it is told at the next byte or at
        the CLOSE, and that does not count as collected.  Holding what is held does nothing.  Refused
        ``transfer.already_collected``; LookupError where it ended otherwise, or there is none.
        """

    async def release_transfer(self, transfer: TransferId, *, reason: str, actor: str, now: datetime) -> Transfer:
        """Let the recipient see it again; what is not held stays as it is.  LookupError as `hold_transfer`.

        Refused ``transfer.conflict`` where the recipient sees another file of that name by now.
        """
