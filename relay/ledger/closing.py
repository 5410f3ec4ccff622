"""The end of an office under its number: the part of `relay.ledger.Ledger` for closings (廃止) and new numbers (番号変更).

An end is planned for a day, takes place in the transaction that finds the day come, and can be undone.  Nothing that was
sent changes with it: a transfer keeps the numbers under which it was accepted, and the office that follows looks under
all of its numbers (`list_former`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relay.ledger.bulletin import Notice
from relay.model import Office, OfficeEnd, OfficeNumber


@dataclass(frozen=True, slots=True)
class Holdings:
    """What hangs on an office: files that wait for it and that it sent and nobody collected; unfinished uploads;
    certificates and invitations that are good; and whether it has ever sent, been sent to, or logged in.
    """

    waiting: int
    sent: int
    partials: int
    certificates: int
    invitations: int
    has_traffic: bool


class Closing(Protocol):
    """The verbs of closings and new numbers."""

    async def find_successor(self, office: Office) -> Office | None:
        """Return what *office*, whose number was changed, is now, at the end of all changes; None where it was not."""

    async def list_former(self, office: OfficeNumber) -> Sequence[OfficeNumber]:
        """Return the numbers that *office* had before, the earlier ones first."""

    async def count_holdings(self, office: OfficeNumber, *, now: datetime) -> Holdings:
        """Return what hangs on *office*."""

    async def list_partners(self, office: OfficeNumber, *, since: datetime) -> Sequence[OfficeNumber]:
        """Return which offices exchanged files with *office* since then."""

    async def plan_end(
        self,
        office: OfficeNumber,
        end: OfficeEnd,
        *,
        newcomer: Office | None = None,
        notices: Sequence[Notice] = (),
        actor: str,
        now: datetime,
    ) -> Office:
        """Let *office* end, at once where the day has come; in the place of what was planned before.

        *newcomer* is registered with it where its number is not.  *notices* tell of it until it is undone.
        LookupError where the office or its successor is unknown; ValueError where the office has ended already, or the
        successor is not active, or has an end planned itself: so numbers never follow each other in a circle.
        """

    async def reopen_office(
        self, office: OfficeNumber, *, reason: str, notices: Sequence[Notice] = (), actor: str, now: datetime
    ) -> Office:
        """Undo an end, planned or not.  LookupError where the office is unknown, ValueError where it has none.

        What was returned to its senders meanwhile stays returned; invitations that ended stay ended.
        """

    async def end_offices(self, *, now: datetime) -> int:
        """Let every office end whose day has come; returns how many."""

    async def return_stranded(self, *, now: datetime) -> int:
        """Give back to its senders what waits at closed offices whose time to collect is over; returns how many files."""
