"""What offices are told of what passes: the part of `relay.ledger.Ledger` that keeps notices, and forgets old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relay.model import OfficeNumber, Transfer


@dataclass(frozen=True, slots=True)
class Notice:
    """A text for all offices, for one, or for those of a *prefecture*; shown from *from_at* until *until_at*.

    One *about* the end of an office that names none is for its *audience*, which is given when it is written.
    """

    title: str
    text: str
    from_at: datetime
    until_at: datetime | None = None
    office: OfficeNumber | None = None
    prefecture: str | None = None
    number: int = 0
    about: OfficeNumber | None = None
    audience: tuple[OfficeNumber, ...] = ()


class Bulletin(Protocol):
    """The verbs of notices."""

    async def add_notice(self, notice: Notice, *, actor: str, now: datetime) -> int:
        """Keep *notice*; returns its number."""

    async def remove_notice(self, number: int, *, actor: str, now: datetime) -> bool:
        """Remove a notice; False where there is none."""

    async def list_notices(self) -> Sequence[Notice]:
        """Return every notice that is kept, newest first."""

    async def list_notices_for(self, office: OfficeNumber, *, now: datetime) -> Sequence[Notice]:
        """Return what *office* is told *now*, newest first."""

    async def give_notices(self, tenths: int, *, before: datetime, now: datetime) -> int:
        """Record, once each, that both offices are told of what waits since before that; returns how many are new."""

    async def forget_notices(self) -> int:
        """Forget the notices of what does not wait any more; returns of how many files."""

    async def list_noticed(self, office: OfficeNumber, *, limit: int) -> Sequence[Transfer]:
        """Return what waits, sent by *office* or to it, and of which a notice was given; the oldest first."""

    async def has_noticed(self, office: OfficeNumber) -> bool:
        """True where `list_noticed` returns something."""

    async def forget_notes(self, *, before: datetime) -> int:
        """Take away the notes beside files whose refusal was not met since *before*; returns how many."""

    async def forget_refusals(self, *, before: datetime) -> int:
        """Remove refusals that were not met since *before*; returns how many."""
