"""Reception: what all connections of a worker share, and the watch over those that have logged in.

`relay.auth` lets a connection in.  Here it is counted, finds the settings, the register and the keys that it is judged
by, and is judged again: `Reception.watch_register` looks every second whether the register has changed, by whatever
process, and ends the connections of identities that no longer hold.

The reception decides about nobody itself: it asks those inside (`Insider`) whether they still hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import asyncssh

from relay import ciphers, edge, journal, packets
from relay.attendance import Attendance, Guest
from relay.common import Common
from relay.config import Config
from relay.doorkeeper import Knocks, ListenOptions, Turnstile, plan_listen_options
from relay.errors import Deferred
from relay.foreign import ForeignDesk
from relay.journal import Journal
from relay.keyring import Keyring
from relay.latest import LatestTime
from relay.ledger import Register
from relay.meters import Meters
from relay.model import EventKind, Identity

WATCH_SECONDS = 1.0
_KNOCKS_SECONDS = 60.0
_A_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """What a session needs to know of the connection it runs on.

    *journal* already names connection, office and session.  *disconnect* ends the connection with a sentence for
    the client.  The session says by *note_use* that it was greeted (True) and that it ends (False).
    """

    id: str
    peer: str
    client_version: str
    gate: edge.ConnectionGate
    journal: Journal
    disconnect: Callable[[str], None]
    note_use: Callable[[bool], None]


class Insider(Guest, Protocol):
    """A connection, as far as it is judged again and ended."""

    def disconnect(self, reason: str) -> None:
        """End it with a sentence for its client."""

    def needs_judging(self, version: int, now: datetime) -> bool:
        """Tell whether what it was judged by may no longer be so."""

    def forget_judgement(self) -> None:
        """Let the next look at the register judge it anew, though the register has not changed."""

    async def judge_again(self, version: int, now: datetime) -> None:
        """Judge it by the register as it is now, and end it where it fails."""


OpenSession = Callable[[Identity, ConnectionFacts], asyncssh.SSHServerSession[bytes]]
# For the line of a key that was proven; None where nobody is enrolled here.
OpenEnrolment = Callable[[str, Journal, Callable[[str], None]], asyncssh.SSHServerSession[bytes]] | None


class Reception:
    """What all connections share: it counts them, and watches the register for those inside."""

    def __init__(
        self,
        make_owner: Callable[[Reception], asyncssh.SSHServer],
        register: Register,
        keyring: Keyring,
        config: Config,
        open_session: OpenSession,
        *,
        open_enrolment: OpenEnrolment = None,
        rekey_seconds: float = edge.REKEY_SECONDS,
        meters: Meters | None = None,
        common: Common | None = None,
    ) -> None:
        """Prepare to receive; nothing listens yet.  *make_owner* makes what owns a new connection."""
        self._make_owner = make_owner
        self.register = register
        self.trusted = keyring.user_ca_fingerprints
        self.config = config
        self.open_session = open_session
        self.open_enrolment = open_enrolment
        self.rekey_seconds = rekey_seconds
        self.meters = meters or Meters()
        self.journal = journal.new_journal()
        common = common or Common.alone()
        self.latest = LatestTime(self.journal, common)
        self.foreign = ForeignDesk(register, config.certificates, self.journal)
        self.foreign.adopt(keyring, datetime.now(UTC))
        ciphers.keep_ciphers()
        packets.spare_repetition()
        self._host_keys = edge.load_host_keys((key.private, key.certificate) for key in keyring.host_keys)
        self.attendance: Attendance[Insider] = Attendance(config, self.journal, common)
        self.turnstile = Turnstile()
        self.knocks = Knocks()
        self.farewells = edge.Farewells()
        self._version: int | None = None
        self._is_blind = False

    def listen_options(self) -> ListenOptions:
        """Return the keyword arguments of `asyncssh.listen`, the maker of connections' owners included."""
        return plan_listen_options(self.config.server, self._host_keys, lambda: self._make_owner(self))

    def adopt(self, keyring: Keyring) -> list[asyncssh.SSHKeyPair]:
        """Trust what *keyring* trusts, judge everybody inside anew, and return the host keys to listen with."""
        self.trusted = keyring.user_ca_fingerprints
        self.foreign.adopt(keyring, datetime.now(UTC))
        self._host_keys = edge.load_host_keys((key.private, key.certificate) for key in keyring.host_keys)
        for server in self.attendance.live:
            server.forget_judgement()
        return self._host_keys

    def adopt_settings(self) -> ListenOptions:
        """Go by the settings as they are now, and return what new connections are made with."""
        self.attendance.adopt_settings()
        return self.listen_options()

    @property
    def connection_count(self) -> int:
        """How many connections there are, strangers included."""
        return len(self.attendance.connections)

    def dismiss(self, reason: str) -> None:
        """End every connection with a sentence for its client."""
        for server in self.attendance.connections:
            server.disconnect(reason)

    async def watch_register(self) -> None:
        """Judge live identities again whenever the register has changed or a certificate has expired; never returns.

        A store that cannot be read ends nobody: it is tried again a second later.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.judge_live(datetime.now(UTC))
            except Deferred:
                pass  # what the store suffers from is told by the store, once
            except Exception as error:  # noqa: BLE001 - a watch that dies would leave the revoked inside for good
                if not self._is_blind:
                    journal.unexpected_error(self.journal, reference="watch", exception=error)
                self._is_blind = True
            else:
                self._is_blind = False

    async def tell_refused(self) -> None:
        """Write the logins that were refused into history, once a minute; never returns."""
        while True:
            await asyncio.sleep(_KNOCKS_SECONDS)
            self.note_refused(datetime.now(UTC))

    def note_refused(self, before: datetime | None = None) -> None:
        """Write the refused logins of the minutes over *before* into history, or all there are."""
        for minute, network, told in self.knocks.take(before or datetime.now(UTC) + _A_MINUTE):
            self.register.note_event(EventKind.LOGIN_REFUSED, actor=network, now=minute, detail=told)

    async def judge_live(self, now: datetime) -> None:
        """Judge every live identity that the register has changed since, or that expired, and end what fails."""
        now = self.latest.at(now)
        version = await self.register.register_version()
        if self._version is not None and version != self._version:
            journal.register_changed(self.journal, version=version)
        self._version = version
        for server in [server for server in self.attendance.live if server.needs_judging(version, now)]:
            await server.judge_again(version, now)
            # The register is read without waiting: thousands of identities must not hold up everybody's transfers.
            await asyncio.sleep(0)
