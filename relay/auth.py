"""Login: a connection becomes an identity by its certificate, or nothing at all.

X.509 chains of outside CAs are the second road, where the operator has opened it: `relay.foreign` judges those instead.

The order is the guarantee.  For every key that a client offers

    1. the bytes are parsed (`relay.offered`),
    2. our rules and the register judge what they claim (`relay.certificates`),
    3. asyncssh verifies the CA's signature and the client's,
    4. the identity is bound, at once: nothing else runs between 3 and 4, and never without a signature.

The reason of a rejection is told to the journal in full.  The client hears only "expired", "revoked" or "suspended",
and only once its signature was good.  A bare key is what OpenSSH offers first: it is declined without a word.

Who has logged in stays judged: `relay.reception` asks again whenever the register has changed.

What a connection can take up is bounded here: the time of a login, signatures and probes, sessions.  Whether there is
room for it at all beside the others, and beside those of its certificate and its office, `relay.attendance` counts.
Who has logged in and opens no session is ended after a time.  A limit is journalled as a limit, so that it is not
taken for a wrong key.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

import asyncssh

from relay import edge, enrolment, journal, packets
from relay.certificates import (
    CertificateRejected,
    OfferedCertificate,
    Reason,
    fingerprint,
    fingerprint_of_line,
    judge_certificate,
    judge_enrolling_key,
    parse_certificate,
    signature_algorithm,
)
from relay.doorkeeper import PACKET_BYTES, WINDOW_BYTES
from relay.errors import Deferred
from relay.journal import LimitEnd
from relay.model import EventKind, Identity, OfficeNumber
from relay.reception import ConnectionFacts, Reception
from relay.standard.offices import parse_office_number
from relay.unwanted import Unwanted
from relay.x509 import OfferedChain, is_chain, parse_chain

_SERIALS = 2**63
_COME_AGAIN = "Too many connections at the moment; nothing was sent. Please try again in a minute"
_NOT_USED = "No SFTP session was open for a while; please connect again"
_TOO_MANY_SESSIONS = "too many sessions are open; close one, or try again later"


class OfficeServer(asyncssh.SSHServer):
    """One connection, from its first byte to its last."""

    def __init__(self, reception: Reception) -> None:
        """Wait for the connection."""
        self.id = secrets.token_hex(4)
        self.journal = reception.journal.bind(connection=self.id)
        self._reception = reception
        self._conn: asyncssh.SSHServerConnection | None = None
        self._gate: edge.ConnectionGate | None = None
        self._lane: packets.PacketLane | None = None
        self._peer = ""
        self._identity: Identity | None = None
        self._enrolling: str | None = None
        self._offered: OfferedCertificate | OfferedChain | None = None
        self._judged_version = -1
        self._failed_signatures = 0
        self._probes = 0
        self._sessions = 0
        self._uses = 0
        self._unused_timer: asyncio.TimerHandle | None = None
        self._unwanted = Unwanted()
        self._end = ""

    @property
    def identity(self) -> Identity | None:
        """Who has logged in."""
        return self._identity

    @property
    def office(self) -> OfficeNumber | None:
        """The office that has logged in."""
        return self._identity.office if self._identity else None

    @property
    def session_count(self) -> int:
        """How many channels are open."""
        return edge.count_channels(self._conn) if self._conn else 0

    def disconnect(self, reason: str, code: int = asyncssh.DISC_BY_APPLICATION) -> None:
        """End the connection with a sentence for the client."""
        self._end = self._end or reason
        if self._conn is None:
            return
        try:
            self._conn.disconnect(code, reason)
        except Exception:  # noqa: BLE001 - what there is not even a last packet without
            self._conn.abort()

    # --- the connection ----------------------------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Admit the connection or close it, and take hold of what asyncssh leaves open."""
        peername = conn.get_extra_info("peername")
        if peername is None:
            # Gone before we looked.
            conn.abort()
            return
        self._peer = str(peername[0])
        if not self._reception.attendance.receive(self, self._peer, datetime.now(UTC)):
            self._reception.knocks.count(self._peer, "no room", datetime.now(UTC))
            self._reception.meters.logins_rejected["no room"] += 1
            self._reception.farewells.bid(conn, _COME_AGAIN)
            return
        self._conn = conn
        journal.connection_opened(self.journal, peer=self._peer)
        self._gate = edge.ConnectionGate(conn, on_crime=self._punish, rekey_seconds=self._reception.rekey_seconds)
        edge.wrap_validation(conn, self._validate)
        edge.permit_repeated_service_request(conn)
        edge.judge_kex_guess(conn)
        edge.watch_requests(conn, self._note_unwanted)
        edge.watch_channels(conn, self._recount)
        edge.keep_options(conn)
        edge.offer_signatures(conn, self._reception.foreign.signature_algorithms)
        self._lane = packets.PacketLane(conn)
        self._gate.take_ahead = self._lane.take_ahead
        turnstile = self._reception.turnstile
        edge.take_turns(conn, turnstile.take_turn, turnstile.note_work)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; says nothing about whether the client was done."""
        if self._conn is None:
            return
        if edge.is_login_timeout(exc):
            self._report_limit("login_seconds")
        elif edge.is_keepalive_timeout(exc):
            self._report_limit("keepalive_count")
        self._stop_waiting()
        if self._gate is not None:
            self._gate.close()
        self._reception.attendance.forget(self, self.office)
        self._conn = None
        journal.connection_closed(self.journal, reason=self._end or str(exc or "closed by the client"))

    def _punish(self, crime: str) -> None:
        journal.protocol_error(self.journal, crime=crime)
        self.disconnect(crime, asyncssh.DISC_PROTOCOL_ERROR)

    def _report_limit(self, limit: str, scope: str = "", until: LimitEnd = LimitEnd.CONNECTED_AGAIN) -> None:
        """Journal a limit once for its *scope*: who runs into it goes on doing so, on many connections."""
        log, now = self._reception.attendance.limit_log, datetime.now(UTC)
        log.reached(self.journal, limit=limit, scope=scope or self._peer, until=until, now=now)

    # --- login -------------------------------------------------------------------------------------------------

    def begin_auth(self, username: str) -> bool:
        """Always ask for proof: False here would be a login without any.  Must not await (input would pile up)."""
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        """Say that certificates are the way in, though no authorized keys are configured."""
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Tell asyncssh which CAs are trusted."""
        del username
        return fingerprint(key.public_data) in self._reception.trusted

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Tell asyncssh whether a bare key will do: for an enrolment alone, which it is to be certified by."""
        del key
        return username == enrolment.USER and self._reception.open_enrolment is not None

    async def _validate(
        self, username: str, key_data: bytes, msg: bytes, signature: bytes, ask: edge.AskAsyncssh
    ) -> bool:
        """Answer one offer; no exception leaves this hook, because asyncssh would end the connection on it."""
        try:
            return await self._answer(_Offer(username, key_data, msg, signature), ask)
        except Deferred as deferred:
            # Not a wrong key: a client that is told so would bar itself, or call the help desk.
            journal.login_deferred(self.journal, code=deferred.code, detail=deferred.detail)
            self.disconnect(deferred.client_text)
        except Exception as error:  # noqa: BLE001 - the one wrapper at this edge
            journal.unexpected_error(self.journal, reference=self.id, exception=error)
            self._count_failure()
        return False

    async def _answer(self, offer: _Offer, ask: edge.AskAsyncssh) -> bool:
        if not offer.is_signed:
            self._count_probe()
        if self._end:
            return False
        try:
            await self._decide(offer, ask)
        except CertificateRejected as rejected:
            if rejected.reason is Reason.NO_CERTIFICATE:
                # Some libraries sign without asking first: still only an offer of a key, and nothing was verified.
                if offer.is_signed:
                    self._count_probe()
                return False
            return self._reject(offer, rejected)
        return True

    async def _decide(self, offer: _Offer, ask: edge.AskAsyncssh) -> None:
        """Bind the identity that *offer* proves, or raise; a probe proves nothing and binds nothing."""
        if offer.username == enrolment.USER and self._reception.open_enrolment is not None:
            await self._decide_enrolment(offer, ask)
            return
        offered: OfferedCertificate | OfferedChain
        if is_chain(offer.key_data):
            offered = self._reception.foreign.parse(offer.key_data)
        else:
            offered = parse_certificate(offer.key_data)
        office = parse_office_number(offer.username)
        if office is None:
            raise CertificateRejected(Reason.UNKNOWN_OFFICE, f"user name {offer.username!r} is no office number")
        algorithm = signature_algorithm(offer.signature) if offer.is_signed else None
        if isinstance(offered, OfferedChain):
            await self._decide_foreign(offer, offered, office, algorithm)
            return
        # Read before the rest: whatever changes from here on makes `Reception.judge_live` look again.
        version = await self._reception.register.register_version()
        identity = await self._judge(offered, office, algorithm, self._reception.latest.at(datetime.now(UTC)))
        # The name as typed is in the message that was signed; the certificate holds it in capitals.
        if not await ask(office):
            raise CertificateRejected(Reason.BAD_SIGNATURE, "the CA's or the client's signature is not good")
        if offer.is_signed:
            self._identity, self._offered, self._judged_version = identity, offered, version

    async def _decide_enrolment(self, offer: _Offer, ask: edge.AskAsyncssh) -> None:
        """Take hold of the bare key that *offer* proves, or raise."""
        algorithm = signature_algorithm(offer.signature) if offer.is_signed else None
        line = judge_enrolling_key(offer.key_data, algorithm)
        if not await ask(enrolment.USER):
            raise CertificateRejected(Reason.BAD_SIGNATURE, "the client's signature is not good")
        if offer.is_signed:
            self._enrolling = line

    async def _decide_foreign(
        self, offer: _Offer, offered: OfferedChain, office: OfficeNumber, algorithm: str | None
    ) -> None:
        """Do the same with an X.509 chain; asyncssh has no part in it."""
        foreign, now = self._reception.foreign, self._reception.latest.at(datetime.now(UTC))
        version = await self._reception.register.register_version()
        identity, is_known = await foreign.judge(offered, office, algorithm, now)
        if not offer.is_signed:
            return
        if self._conn is None or not offer.is_good_on(self._conn):
            raise CertificateRejected(Reason.BAD_SIGNATURE, "the client's signature is not good")
        if not is_known:
            await foreign.introduce(offered, identity, now)
            # That has waited: judged anew, so that here as well nothing runs between judging and binding.
            version = await self._reception.register.register_version()
            identity, _ = await foreign.judge(offered, office, algorithm, now)
        self._identity, self._offered, self._judged_version = identity, offered, version

    async def _judge(
        self, offered: OfferedCertificate, office: OfficeNumber, algorithm: str | None, now: datetime
    ) -> Identity:
        register, trusted = self._reception.register, self._reception.trusted
        known, holder = None, None
        # A stranger's CA is none of the store's business, and a serial that we never draw does not fit into it.
        if offered.ca_fingerprint in trusted and offered.serial < _SERIALS:
            known = await register.find_certificate(offered.ca_fingerprint, offered.serial)
            holder = await register.find_office(office)
        return judge_certificate(
            offered,
            office=office,
            trusted=trusted,
            known=known,
            holder=holder,
            peer_address=self._peer,
            signature_algorithm=algorithm,
            now=now,
        )

    def _reject(self, offer: _Offer, rejected: CertificateRejected) -> bool:
        """Journal the reason, and say aloud what the holder of the key may hear.

        A probe whose holder may hear it is answered True: the client signs only then.
        """
        may_hear = rejected.told is not None and self._conn is not None and offer.is_good_on(self._conn)
        if may_hear and not offer.is_signed:
            return True
        journal.login_rejected(self.journal, reason=rejected.reason, detail=rejected.detail)
        self._reception.knocks.count(self._peer, rejected.reason, datetime.now(UTC))
        self._reception.meters.logins_rejected[rejected.reason] += 1
        if may_hear and self._conn is not None:
            self._conn.send_auth_banner(rejected.sentence(offer.username) + "\r\n")
        if offer.is_signed:
            self._count_failure()
        return False

    def _count_probe(self) -> None:
        self._probes += 1
        if self._probes > self._reception.config.limits.key_probes:
            self._report_limit("key_probes")
            self.disconnect("Too many keys were offered", asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE)

    def _count_failure(self) -> None:
        self._failed_signatures += 1
        if self._failed_signatures >= self._reception.config.limits.failed_signatures:
            self._report_limit("failed_signatures")
            self.disconnect("Too many authentication failures", asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE)

    def auth_completed(self) -> None:
        """Welcome the identity.  Must not await: sessions can open before it would end."""
        identity, conn = self._identity, self._conn
        if conn is None:
            return
        if self._enrolling is not None and conn.get_extra_info("username") == enrolment.USER:
            self._welcome_enrolment(self._enrolling)
            return
        if identity is None or parse_office_number(conn.get_extra_info("username")) != identity.office:
            # Cannot be while asyncssh completes a login in the very step in which the hook answered.
            self._identity = None
            self._punish("a login was completed that nobody proved")
            return
        client_version = conn.get_extra_info("client_version", "")
        self._reception.attendance.welcome(self, identity)
        self._reception.meters.logins += 1
        self.journal = self.journal.bind(office=identity.office)
        journal.login_accepted(
            self.journal,
            office=identity.office,
            serial=identity.certificate_serial,
            key_id=identity.key_id,
            client_version=client_version,
        )
        # Not waited for: a login takes no commit of its own, it goes with the next one.
        self._reception.register.note_event(
            EventKind.LOGIN,
            actor=identity.office,
            office=identity.office,
            now=datetime.now(UTC),
            detail=f"{identity.certificate_serial} from {self._peer}",
        )
        self._reception.register.note_use(identity.office, client_version, now=datetime.now(UTC))
        if crowded := self._reception.attendance.find_crowded(identity):
            self._report_limit(*crowded, LimitEnd.SESSION_CLOSED)
            self.disconnect(_TOO_MANY_SESSIONS, asyncssh.DISC_TOO_MANY_CONNECTIONS)
        self._wait_for_use()

    def _welcome_enrolment(self, line: str) -> None:
        """Give as long as for a login to who asks for a certificate; he goes on counting among the strangers."""
        self._identity = None
        journal.enrolment_opened(self.journal, key=fingerprint_of_line(line))
        end = partial(self.disconnect, "The time for an enrolment is over; please try again")
        self._unused_timer = asyncio.get_running_loop().call_later(self._reception.config.server.login_seconds, end)

    def _open_enrolment(
        self, conn: asyncssh.SSHServerConnection, line: str
    ) -> tuple[edge.Channel, asyncssh.SSHServerSession[bytes]]:
        """Open the one channel of an enrolment."""
        opens = self._reception.open_enrolment
        if opens is None or self._sessions or self._end:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "one channel for one certificate"
            )
        self._sessions += 1
        channel = edge.open_channel(
            conn, window_bytes=WINDOW_BYTES, packet_bytes=PACKET_BYTES, allowed=enrolment.SUBSYSTEM
        )
        return channel, opens(line, self.journal, self.disconnect)

    # --- inside ------------------------------------------------------------------------------------------------

    def session_requested(self) -> tuple[edge.Channel, asyncssh.SSHServerSession[bytes]]:
        """Open an SFTP session for the identity, within its limits."""
        identity, conn, gate = self._identity, self._conn, self._gate
        if conn is not None and self._enrolling is not None:
            return self._open_enrolment(conn, self._enrolling)
        if identity is None or conn is None or gate is None or self._end:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not logged in")
        if self.session_count >= self._reception.config.limits.sessions_per_connection:
            self._refuse_session("sessions_per_connection", self.id)
        # A connection without a session holds a place already: its first one takes no other.
        if self.session_count and (crowded := self._reception.attendance.find_crowded(identity, sessions=1)):
            self._refuse_session(*crowded)
        self._sessions += 1
        facts = ConnectionFacts(
            id=self.id,
            peer=self._peer,
            client_version=conn.get_extra_info("client_version", ""),
            gate=gate,
            journal=self.journal.bind(session=self._sessions),
            disconnect=self.disconnect,
            note_use=self._note_use,
        )
        session = self._reception.open_session(identity, facts)
        channel = edge.open_channel(
            conn, window_bytes=WINDOW_BYTES, packet_bytes=PACKET_BYTES, on_refused=self._note_unwanted
        )
        if self._lane is not None:
            self._lane.adopt(channel, session)
        return channel, session

    def _recount(self) -> None:
        if self._identity is not None:
            self._reception.attendance.recount(self._identity.office)

    def _note_unwanted(self, request: str) -> None:
        self._unwanted.note(self.journal, request)

    def _refuse_session(self, limit: str, scope: str) -> NoReturn:
        self._report_limit(limit, scope, LimitEnd.SESSION_CLOSED)
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, _TOO_MANY_SESSIONS)

    def _note_use(self, is_begun: bool) -> None:  # noqa: FBT001 - a callback with one meaning
        """Know that a session was greeted, or that it ends; without any the connection is there for nothing."""
        self._uses += 1 if is_begun else -1
        if self._uses:
            self._stop_waiting()
        else:
            self._wait_for_use()

    def _wait_for_use(self) -> None:
        self._stop_waiting()
        if self._conn is not None:
            seconds = self._reception.config.server.unused_seconds
            self._unused_timer = asyncio.get_running_loop().call_later(seconds, self._end_unused)

    def _stop_waiting(self) -> None:
        if self._unused_timer is not None:
            self._unused_timer.cancel()
            self._unused_timer = None

    def _end_unused(self) -> None:
        self._report_limit("unused_seconds", self.office or "")
        self.disconnect(_NOT_USED)

    def needs_judging(self, version: int, now: datetime) -> bool:
        """Tell whether what this identity was judged by may no longer be so."""
        return self._identity is not None and (version != self._judged_version or now >= self._identity.valid_before)

    def forget_judgement(self) -> None:
        """Let the next look at the register judge this identity anew, though the register has not changed."""
        self._judged_version = -1

    async def judge_again(self, version: int, now: datetime) -> None:
        """Judge the live identity by the register as it is now, and end the connection where it fails."""
        identity, offered = self._identity, self._offered
        if identity is None or offered is None:
            return
        try:
            if isinstance(offered, OfferedChain):
                # It holds as long as its CA's lists do, and those are renewed.
                self._identity, _ = await self._reception.foreign.judge(offered, identity.office, None, now)
            else:
                # It may end earlier than the certificate by now, because its office does.
                self._identity = await self._judge(offered, identity.office, None, now)
        except CertificateRejected as rejected:
            if self._conn is not None:
                journal.identity_ended(
                    self.journal,
                    office=identity.office,
                    serial=identity.certificate_serial,
                    reason=f"{rejected.reason}: {rejected.detail}",
                )
                # By any other code asyncssh's clients, for one, would take it for a clean end.
                self.disconnect(rejected.sentence(identity.office), asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE)
        else:
            self._judged_version = version


@dataclass(frozen=True, slots=True)
class _Offer:
    """A key that the client offers for a user name; *msg* and *signature* are empty for a probe."""

    username: str
    key_data: bytes
    msg: bytes
    signature: bytes

    @property
    def is_signed(self) -> bool:
        return bool(self.msg)

    def is_good_on(self, conn: asyncssh.SSHServerConnection) -> bool:
        if is_chain(self.key_data):
            # Only of a chain that was seen to be good is anything said.
            key_data = parse_chain(self.key_data).leaf.key_data
            return not self.is_signed or edge.is_signed_by(conn, key_data, self.msg, self.signature)
        return edge.has_good_signature(conn, self.key_data, self.msg, self.signature)
