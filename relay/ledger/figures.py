"""Figures: what the ledger knows in numbers, for the operator; the protocol, and the records that it returns.

None of it is needed to relay a file.  What looks through the whole store does so in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from relay.model import CertificateId, OfficeNumber, TransferId

# The ends of the ages in which waiting files are counted; what is older than the last is one age more.
AGES: Final = (timedelta(minutes=5), timedelta(hours=1), timedelta(days=1), timedelta(weeks=1), timedelta(days=30))
AGE_NAMES: Final = ("<5m", "<1h", "<1d", "<1w", "<1M", "older")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What nobody has collected yet at one office: how much for each of `AGE_NAMES`, and since when the oldest waits."""

    office: OfficeNumber
    counts: tuple[int, ...]
    oldest_at: datetime

    @property
    def total(self) -> int:
        """How much in all."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What nobody has collected yet, anywhere: how much for each of `AGE_NAMES`, and since when the oldest waits."""

    counts: tuple[int, ...] = (0,) * len(AGE_NAMES)
    oldest_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PrefectureUse:
    """Active offices of one prefecture, and how many of them have logged in."""

    prefecture: str
    offices: int
    using: int


@dataclass(frozen=True, slots=True)
class MonthUse:
    """One month in Japan: offices that logged in, how often, files accepted, how many of these were collected, bytes."""

    month: str
    using: int
    logins: int
    transfers: int
    collected: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KindUse:
    """Files of one kind."""

    kind: str
    transfers: int
    collected: int
    size_bytes: int
    senders: int


@dataclass(frozen=True, slots=True)
class SoftwareUse:
    """One program by the name that it gives itself; *last_month* is when it was seen last."""

    software: str
    offices: int
    logins: int
    last_month: str


class Figures(Protocol):
    """The verbs of `relay.ledger.Ledger` that count."""

    async def count_waiting(self, *, now: datetime) -> list[Waiting]:
        """Return what waits at each office where anything waits, by age, in no order."""

    async def measure_backlog(self, *, now: datetime) -> Backlog:
        """Return what waits at all offices together, by age: at a fifth of the cost of `count_waiting`."""

    async def probe(self) -> None:
        """Read and write the store; Deferred where that fails.  Nothing is changed."""

    async def use_by_prefecture(self, *, since: datetime) -> list[PrefectureUse]:
        """Return the active offices of each prefecture; logins count from the month of *since* on."""

    async def use_by_month(self, *, since: datetime) -> list[MonthUse]:
        """Return the months from that of *since* on in which anything happened, ascending."""

    async def use_by_kind(self, *, since: datetime) -> list[KindUse]:
        """Return each kind of file accepted since then."""

    async def use_by_software(self, *, since: datetime) -> list[SoftwareUse]:
        """Return each program that offices have logged in with from the month of *since* on."""

    async def first_listed(self, transfer: TransferId, recipient: OfficeNumber) -> datetime | None:
        """Return when *recipient* first read a listing to its end that held *transfer*; None where it has not."""

    async def sent_with(self, transfer: TransferId) -> CertificateId | None:
        """Return with which certificate *transfer* was sent."""

    async def list_named(self, sender: OfficeNumber, recipient: OfficeNumber, name: str) -> Sequence[TransferId]:
        """Return every transfer of that identity, the oldest first, whatever became of it."""
