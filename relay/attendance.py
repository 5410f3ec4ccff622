"""Attendance: who is at the door and who is inside, and whether there is room for one more.

Before login connections count for their network, since nothing else is known of them.  After login they count for the
certificate and its office, whatever address they come from: offices behind one NAT do not hurt each other, and a
program that runs away leaves the office's other certificates alone.

The counts are those of one process.  They protect memory and speed; no promise rests on them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from relay.config import Config
from relay.doorkeeper import Load, Strangers
from relay.journal import Journal, LimitEnd, LimitLog
from relay.model import Identity, OfficeNumber

LOAD_SECONDS: Final = 0.1


class Guest(Hashable, Protocol):
    """A connection, as far as it is counted."""

    @property
    def identity(self) -> Identity | None:
        """Who has logged in, None as long as nobody has."""

    @property
    def session_count(self) -> int:
        """How many channels are open."""


G = TypeVar("G", bound=Guest)


class Attendance(Generic[G]):
    """The connections of this process."""

    def __init__(self, config: Config, journal: Journal) -> None:
        """Begin with nobody."""
        self._limits = config.limits
        self._journal = journal
        self.limit_log = LimitLog()
        limits = config.limits
        self.load = Load(
            config.server.busy_seconds, least=limits.unauthenticated_when_busy, most=limits.unauthenticated_total
        )
        self.strangers = Strangers(config)
        self._connections: dict[G, None] = {}
        self._live: dict[OfficeNumber, dict[G, None]] = {}

    @property
    def connections(self) -> list[G]:
        """Every connection, strangers included."""
        return [*self._connections]

    @property
    def live(self) -> list[G]:
        """Every connection that has logged in."""
        return [guest for guests in self._live.values() for guest in guests]

    async def watch_load(self) -> None:
        """Look how late this process is with what it has to do; never returns."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(LOAD_SECONDS)
            self.load.note(time.monotonic() - began - LOAD_SECONDS, strangers=len(self.strangers))

    def receive(self, guest: G, address: str, now: datetime) -> bool:
        """Know *guest*, a stranger from *address*; False where it must go, which is journalled once for each crowd."""
        if len(self._connections) >= self._limits.connections_total:
            self._turn_away("connections_total", "all", LimitEnd.CONNECTION_CLOSED, now)
        elif self.load.room <= len(self.strangers) < self._limits.unauthenticated_total:
            self._turn_away("unauthenticated_when_busy", "all", LimitEnd.CAUGHT_UP, now)
        elif crowd := self.strangers.admit(guest, address, now):
            self._turn_away(crowd.limit, crowd.scope, crowd.until, now)
        else:
            self._connections[guest] = None
            return True
        return False

    def _turn_away(self, limit: str, scope: str, until: datetime | LimitEnd, now: datetime) -> None:
        self.limit_log.reached(self._journal, limit=limit, scope=scope, until=until, now=now)

    def welcome(self, guest: G, office: OfficeNumber) -> None:
        """Know *guest* as logged in."""
        self.strangers.settle(guest)
        self._live.setdefault(office, {})[guest] = None

    def forget(self, guest: G, office: OfficeNumber | None) -> None:
        """Know *guest* no more."""
        self._connections.pop(guest, None)
        self.strangers.settle(guest)
        if office is not None and (guests := self._live.get(office)) is not None:
            guests.pop(guest, None)
            if not guests:
                del self._live[office]

    def find_crowded(self, identity: Identity, *, sessions: int = 0) -> tuple[str, str] | None:
        """Return the limit, and its scope, that *identity* exceeds with what it has and *sessions* more.

        A connection counts as one session at least.
        """
        of_certificate = of_office = sessions
        for guest in self._live.get(identity.office, ()):
            count = max(1, guest.session_count)
            of_office += count
            if guest.identity is not None and guest.identity.certificate == identity.certificate:
                of_certificate += count
        if of_certificate > self._limits.sessions_per_certificate:
            return "sessions_per_certificate", f"{identity.office} {identity.certificate_serial}"
        return ("sessions_per_office", identity.office) if of_office > self._limits.sessions_per_office else None
