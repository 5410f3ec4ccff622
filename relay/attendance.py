"""Attendance: who is at the door and who is inside, and whether there is room for one more.

Before login connections count for their network, since nothing else is known of them.  After login they count for the
certificate and its office, whatever address they come from: offices behind one NAT do not hurt each other, and a
program that runs away leaves the office's other certificates alone.

An overloaded server turns new connections away before their key exchange, which is the dearest thing that it does, and
keeps those that it has.

The counts are those of all workers (`relay.common`).  They protect memory and speed; no promise rests on them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Hashable
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from relay.common import Common, Tally
from relay.config import Config, LimitSettings
from relay.doorkeeper import Load, Strangers
from relay.journal import Journal, LimitEnd, LimitLog
from relay.model import CertificateId, Identity, OfficeNumber

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


class _Party(Generic[G]):
    """The connections of one office that have logged in: how many sessions they have, here and everywhere."""

    def __init__(self, common: Common, office: OfficeNumber) -> None:
        self._common = common
        self._office = office
        self.guests: dict[G, CertificateId] = {}
        self._of_office = common.count("sessions_per_office", office)
        self._of_certificates: dict[CertificateId, Tally] = {}

    def recount(self) -> None:
        """Let all workers know how many sessions there are here now; a connection counts as one at least."""
        have: Counter[CertificateId] = Counter()
        for guest, certificate in self.guests.items():
            have[certificate] += max(1, guest.session_count)
        for certificate in {*have, *self._of_certificates}:
            tally = self._of_certificate(certificate)
            tally.add(have[certificate] - tally.own)
            if not have[certificate]:
                self._of_certificates.pop(certificate).close()
        self._of_office.add(have.total() - self._of_office.own)
        if not self.guests:
            self._of_office.close()

    def find_crowded(self, certificate: CertificateId, sessions: int, limits: LimitSettings) -> str | None:
        """Return the limit that *sessions* more would exceed, else count them."""
        of_certificate = self._of_certificate(certificate)
        if of_certificate.total + sessions > limits.sessions_per_certificate:
            return "sessions_per_certificate"
        if self._of_office.total + sessions > limits.sessions_per_office:
            return "sessions_per_office"
        of_certificate.add(sessions)
        self._of_office.add(sessions)
        return None

    def _of_certificate(self, certificate: CertificateId) -> Tally:
        tally = self._of_certificates.get(certificate)
        if tally is None:
            scope = f"{self._office} {certificate.ca_fingerprint} {certificate.serial}"
            tally = self._of_certificates[certificate] = self._common.count("sessions_per_certificate", scope)
        return tally


class Attendance(Generic[G]):
    """The connections of this worker, and whether there is room beside those of all workers."""

    def __init__(self, config: Config, journal: Journal, common: Common) -> None:
        """Begin with nobody here."""
        self._config = config
        self._limits = config.limits
        self._journal = journal
        self._common = common
        self.limit_log = LimitLog(common)
        self.load = Load(config.server.busy_seconds, least=self._least, most=config.limits.unauthenticated_total)
        self.strangers = Strangers(config, common)
        self._total = common.count("connections_total")
        self._connections: dict[G, None] = {}
        self._live: dict[OfficeNumber, _Party[G]] = {}

    @property
    def _least(self) -> int:
        # How late a worker is, is its own: each has its part of the room for when all of them are.
        return max(1, self._limits.unauthenticated_when_busy // self._config.server.worker_count)

    def adopt_settings(self) -> None:
        """Go by the settings as they are now."""
        self.load.adopt(self._config.server.busy_seconds, least=self._least, most=self._limits.unauthenticated_total)

    @property
    def connections(self) -> list[G]:
        """Every connection, strangers included."""
        return [*self._connections]

    @property
    def live(self) -> list[G]:
        """Every connection that has logged in."""
        return [guest for party in self._live.values() for guest in party.guests]

    async def watch_load(self) -> None:
        """Look how late this process is with what it has to do; never returns."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(LOAD_SECONDS)
            self.load.note(time.monotonic() - began - LOAD_SECONDS, strangers=len(self.strangers))

    def receive(self, guest: G, address: str, now: datetime) -> bool:
        """Know *guest*, a stranger from *address*; False where it must go, which is journalled once for each crowd."""
        if not self._total.take(self._limits.connections_total):
            self._turn_away("connections_total", "all", LimitEnd.CONNECTION_CLOSED, now)
            return False
        if self.load.room <= len(self.strangers) < self._limits.unauthenticated_total:
            self._turn_away("unauthenticated_when_busy", "all", LimitEnd.CAUGHT_UP, now)
        elif crowd := self.strangers.admit(guest, address, now):
            self._turn_away(crowd.limit, crowd.scope, crowd.until, now)
        else:
            self._connections[guest] = None
            return True
        self._total.add(-1)
        return False

    def _turn_away(self, limit: str, scope: str, until: datetime | LimitEnd, now: datetime) -> None:
        self.limit_log.reached(self._journal, limit=limit, scope=scope, until=until, now=now)

    def welcome(self, guest: G, identity: Identity) -> None:
        """Know *guest* as logged in as *identity*."""
        self.strangers.settle(guest)
        party = self._live.get(identity.office)
        if party is None:
            party = self._live[identity.office] = _Party(self._common, identity.office)
        party.guests[guest] = identity.certificate

    def forget(self, guest: G, office: OfficeNumber | None) -> None:
        """Know *guest* no more."""
        if guest in self._connections:
            del self._connections[guest]
            self._total.add(-1)
        self.strangers.settle(guest)
        if office is not None and (party := self._live.get(office)) is not None:
            party.guests.pop(guest, None)
            self.recount(office)

    def recount(self, office: OfficeNumber) -> None:
        """Know that sessions of *office* were opened or have ended."""
        party = self._live.get(office)
        if party is not None:
            party.recount()
            if not party.guests:
                del self._live[office]

    def find_crowded(self, identity: Identity, *, sessions: int = 0) -> tuple[str, str] | None:
        """Return the limit, and its scope, that *identity* exceeds with what it has and *sessions* more.

        A connection counts as one session at least.  Where nothing is exceeded the *sessions* are counted: they are
        opened at once.
        """
        party = self._live[identity.office]
        # One worker behind the other, so that of two for the last place one has it.
        with self._common.lock:
            party.recount()
            limit = party.find_crowded(identity.certificate, sessions, self._limits)
        if limit is None:
            return None
        of_office = limit == "sessions_per_office"
        return limit, identity.office if of_office else f"{identity.office} {identity.certificate_serial}"
