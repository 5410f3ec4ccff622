"""The part of the ledger's protocol that is about mail: who is told where, what waits, what is on its way.

What arrived is counted in the transaction that accepts it, so an office is told of all that it got.  A letter is
taken before it is sent and settled after: one that was sent by a process that died in between is taken again, under
the same Message-ID.  So each arrival is told at least once, and twice only where a server or this one died
between its answer and the note of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from relay.letters import Letter, Mailbox, Rhythm, Waiting
from relay.model import OfficeNumber


class Post(Protocol):
    """Mail to offices."""

    async def record_mailbox(self, office: OfficeNumber, mailbox: Mailbox | None, *, actor: str, now: datetime) -> bool:
        """Tell *office* there from now on; with None nowhere, and drop what waits.  False where it was so already.

        LookupError where the office is unknown.
        """

    async def find_mailbox(self, office: OfficeNumber) -> Mailbox | None:
        """Return where the office wants to be told, or None."""

    def is_mail_due(self, now: datetime) -> bool:
        """True where `take_letter` would find something; a quick look-up."""

    async def take_letter(self, rhythm: Rhythm, new_message_id: Callable[[], str], *, now: datetime) -> Letter | None:
        """Return the next letter that is due, and put its next try off; None where there is none.

        An office has one letter on its way at most: what arrives meanwhile goes with the next.
        """

    async def settle_letter(self, letter: Letter) -> None:
        """Forget *letter*, which a server has taken."""

    async def postpone_letter(self, letter: Letter, answer: str) -> None:
        """Note the code with which a server put *letter* off; when it is tried again is settled already."""

    async def give_up_letter(self, letter: Letter, cause: str, *, now: datetime) -> None:
        """Forget *letter*, which no server takes, and note it in the history with its *cause*."""

    async def give_up_stale(self, *, before: datetime, now: datetime) -> tuple[OfficeNumber, int] | None:
        """Give up what one office should have been told before then; returns how many files, None where none waits."""

    async def list_waiting(self) -> list[Waiting]:
        """Return what offices have not been told yet."""
