"""Enrolment: an invitation and a key become a certificate, over the relay's own SSH port.

The one exception to login by certificate.  Who connects as ``enroll`` logs in with the very key that is to be
certified, so the login's signature proves that he has it; he gets one channel with one subsystem, no tree, and as
long as for a login.  He says one line of JSON, ``{"code": …}``, and is told one line: the certificate and what his
programs need to know, or why not.  Whose answer is lost asks again with the same code and key, and is told the same.
Until it ends the connection counts among the strangers of its network.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime

import asyncssh

from relay import journal
from relay.authority import open_user_ca
from relay.certificates import fingerprint_of_line
from relay.config import Config
from relay.errors import ConfigError, Deferred, Refused
from relay.invitation import read_code
from relay.issuing import Wish, sign
from relay.journal import Journal
from relay.keyring import Keyring
from relay.ledger import Ledger
from relay.model import Certificate, CertificateId

USER = "enroll"
SUBSYSTEM = b"enroll"
# A request holds a code of some 70 characters.
_REQUEST_BYTES = 1024


class EnrolmentDesk:
    """Turns invitations into certificates."""

    def __init__(
        self, ledger: Ledger, config: Config, keyring: Callable[[], Keyring], clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._keyring = keyring
        self._clock = clock

    async def enrol(self, request: bytes, public_line: str, journal_: Journal) -> dict[str, object]:
        """Answer one request of who has proven that key; Refused in words where nothing comes of it."""
        try:
            code = read_code(str(json.loads(request)["code"]))
        except (ValueError, KeyError, TypeError) as error:
            raise Refused("enrolment.wrong_code", detail=str(error)) from error
        keyring = self._keyring()
        if not code.is_of(keyring.host_cas):
            raise Refused("enrolment.wrong_code", detail="the code of another relay")
        now = self._clock()
        key = fingerprint_of_line(public_line)
        invitation = await self._ledger.try_invitation(code.id, code.digest, key=key, now=now)
        if invitation.certificate is not None:
            return await self._tell_again(invitation.certificate, keyring)
        try:
            ca = open_user_ca(keyring)
        except ConfigError as error:
            raise Refused("enrolment.unavailable", detail=str(error)) from error
        wish = Wish(public_line, invitation.offices, invitation.valid_seconds, label=invitation.label)
        certificate = sign(ca, wish, now=now)
        most = self._config.certificates.valid_per_office
        await self._ledger.record_enrolment(invitation.id, certificate, most=most, now=now)
        journal.enrolled(journal_, office=invitation.offices[0], invitation=invitation.id, serial=certificate.serial)
        return await self._tell(certificate, keyring)

    async def _tell_again(self, which: CertificateId, keyring: Keyring) -> dict[str, object]:
        """Answer whoever enrolled with this key and code before, and did not get the answer."""
        known = await self._ledger.find_certificate(*which)
        if known is None:
            raise Refused("enrolment.used")
        return await self._tell(known, keyring)

    async def _tell(self, certificate: Certificate, keyring: Keyring) -> dict[str, object]:
        office = await self._ledger.find_office(certificate.offices[0])
        return {
            "certificate": certificate.line,
            "host_cas": list(keyring.host_cas),
            "offices": list(certificate.offices),
            "name": office.name if office else "",
            "valid_before": certificate.valid_before.isoformat(timespec="seconds"),
        }


class EnrolmentSession(asyncssh.SSHServerSession[bytes]):
    """The one channel of an enrolment: a line in, a line out."""

    def __init__(
        self, desk: EnrolmentDesk, public_line: str, journal_: Journal, disconnect: Callable[[str], None]
    ) -> None:
        self._desk = desk
        self._line = public_line
        self._journal = journal_
        self._disconnect = disconnect
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._said = bytearray()
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Take the channel."""
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        """Allow what the channel lets through."""
        return subsystem.encode() == SUBSYSTEM

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Gather the request up to its line end, and answer it once."""
        if datatype is not None or self._answering is not None:
            return
        self._said += data
        if b"\n" in self._said or len(self._said) > _REQUEST_BYTES:
            request = bytes(self._said[:_REQUEST_BYTES])
            self._answering = asyncio.create_task(self._answer(request), name="enrolment")

    def eof_received(self) -> bool:
        """Keep our side open for the answer."""
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh names it
        """Let go of the channel; what was recorded stays recorded, and the code is used."""
        self._channel = None

    async def _answer(self, request: bytes) -> None:
        try:
            told = await self._desk.enrol(request, self._line, self._journal)
            status = 0
        except (Refused, Deferred) as error:
            journal.enrolment_refused(self._journal, code=error.code, detail=error.detail or "")
            row = error.finding.row
            told = {
                "error": error.code,
                "message_ja": error.finding.message_ja,
                "message_en": error.finding.message_en,
                "remedy_ja": row.remedy_ja,
                "remedy_en": row.remedy_en,
            }
            status = 1
        except Exception as error:  # noqa: BLE001 - the one wrapper at this edge
            journal.unexpected_error(self._journal, reference="enrolment", exception=error)
            self._disconnect("The relay failed; please try again later")
            return
        if self._channel is not None:
            self._channel.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")
            self._channel.exit(status)
