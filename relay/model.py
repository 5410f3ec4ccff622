"""The relay's nouns as frozen records and ids.

Values only: nothing here reads a clock, a disk or a network, and nothing changes after it was made.  Times are
aware and in UTC, sizes are bytes, digests are 32 raw bytes of SHA-256.  The words are those of the glossary in
``ARCHITECTURE.md``.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, NewType

from relay.errors import Finding
from relay.lifecycle import State

# Ten characters, the third one sometimes a letter: 事業所番号 (standard, section 6).
OfficeNumber = NewType("OfficeNumber", str)
# 受付番号: what a clerk reads out on the telephone.
TransferId = NewType("TransferId", int)
# Names one sealed payload for good; random, so that it can be authenticated before anything is stored.
PayloadUid = NewType("PayloadUid", bytes)
# The row under which the chunks of a payload lie in the store.
PayloadId = NewType("PayloadId", int)


class OfficeStatus(StrEnum):
    """Whether an office takes part at present."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    # For good, but for `OfficeEnd.until`.
    CLOSED = "closed"
    MOVED = "moved"

    @property
    def has_ended(self) -> bool:
        """True where the office takes part no more under this number."""
        return self in (OfficeStatus.CLOSED, OfficeStatus.MOVED)


@dataclass(frozen=True, slots=True)
class OfficeEnd:
    """From when an office is closed, or has *successor* for its number; until then it may still log in."""

    at: datetime
    until: datetime
    successor: OfficeNumber | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Office:
    """A party that sends and receives; *service_types* are the codes it is registered for, in no order.

    *end* of one that is active still is planned.
    """

    number: OfficeNumber
    name: str
    prefecture: str
    service_types: tuple[str, ...]
    status: OfficeStatus = OfficeStatus.ACTIVE
    end: OfficeEnd | None = None

    @property
    def is_active(self) -> bool:
        """True while the office takes part under this number without reserve."""
        return self.status is OfficeStatus.ACTIVE

    def may_log_in(self, now: datetime) -> bool:
        """True while its certificates open the door: a closed office may collect for a while what waits for it."""
        return self.is_active or (self.status.has_ended and self.end is not None and now < self.end.until)

    def may_exchange(self, now: datetime) -> bool:
        """True while it may send and be sent to under this number: one that has changed does so for a while."""
        return self.is_active or (self.status is OfficeStatus.MOVED and self.end is not None and now < self.end.until)


class RevocationCause(StrEnum):
    """Why a certificate was revoked."""

    UNSPECIFIED = "unspecified"
    STOLEN = "stolen"
    LOST = "lost"
    REPLACED = "replaced"
    LEFT = "left"
    MISTAKE = "mistake"

    @property
    def is_of_the_key(self) -> bool:
        """True where somebody else may hold the key: it is never certified again."""
        return self in (RevocationCause.STOLEN, RevocationCause.LOST)


class CertificateKind(StrEnum):
    """Who made a certificate, and so who can renew it."""

    OPENSSH = "openssh"
    # Of an outside CA; the register knows it from its first login on.
    X509 = "x509"


class CertificateId(NamedTuple):
    """What names a certificate: a serial is unique within its CA only."""

    ca_fingerprint: str
    serial: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the register knows of one user certificate.

    *ca_fingerprint* and *key_fingerprint* are ``SHA256:…`` as ``ssh-keygen -l`` prints them.  *offices* are the
    principals.  An X.509 certificate has a number made of its digest for a *serial*, its own is in *key_id*, and it was
    "issued" when it was met.  *parent* is the certificate that its holder was logged in with when it was renewed.  *name* is that
    of its file in ``certificate/`` without ``-cert.pub``, *line* the certificate itself, where the register keeps it.
    """

    ca_fingerprint: str
    serial: int
    key_id: str
    key_fingerprint: str
    offices: tuple[OfficeNumber, ...]
    valid_after: datetime
    valid_before: datetime
    issued_at: datetime
    label: str = ""
    revoked_at: datetime | None = None
    revoke_reason: str = ""
    revoke_cause: RevocationCause | None = None
    parent: CertificateId | None = None
    name: str = ""
    line: str = field(default="", repr=False)
    kind: CertificateKind = CertificateKind.OPENSSH

    @property
    def id(self) -> CertificateId:
        """What names it."""
        return CertificateId(self.ca_fingerprint, self.serial)

    def is_valid(self, now: datetime) -> bool:
        """True while it lets an active office in."""
        return self.revoked_at is None and self.valid_after <= now < self.valid_before


@dataclass(frozen=True, slots=True)
class Identity:
    """An office and the certificate it proved itself with, for one connection.

    *source_address* are the networks that the certificate is limited to.
    """

    office: OfficeNumber
    ca_fingerprint: str
    certificate_serial: int
    key_id: str
    valid_before: datetime
    source_address: str | None = None

    @property
    def certificate(self) -> CertificateId:
        """What names the certificate."""
        return CertificateId(self.ca_fingerprint, self.certificate_serial)


class Grammar(StrEnum):
    """By which rule a name was understood (DESIGN section 6)."""

    STANDARD_41 = "standard-4.1"
    STANDARD_32 = "standard-3.2"
    GENERAL = "general"
    OPERATOR = "operator"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Address:
    """What a file name says, before anybody asked the register.

    *name* is NFC and otherwise as the sender wrote it.  *kind* is the standard's kind, ``MESSAGE`` for a unit's
    message, else the extension in capitals (``PDF``): it never holds anything personal.  *sender* is None where
    the name does not say it.  *serial* and *month* are the digits of the name.
    """

    name: str
    grammar: Grammar
    kind: str
    recipient: OfficeNumber
    sender: OfficeNumber | None = None
    sender_service: str | None = None
    recipient_service: str | None = None
    serial: str | None = None
    month: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def is_standard(self) -> bool:
        """True for the care-plan standard's own files: their names hold nothing personal."""
        return self.grammar in (Grammar.STANDARD_41, Grammar.STANDARD_32)

    @property
    def is_free(self) -> bool:
        """True where the name does not itself hold its sender and a serial, so that it may come every month."""
        return self.sender is None or self.serial is None


@dataclass(frozen=True, slots=True)
class Route:
    """A decision: this address, from this sender, goes to this office; *findings* warn and stop nothing.

    The services are the types that the register has of both offices; empty where it has none.
    """

    address: Address
    sender: OfficeNumber
    recipient: OfficeNumber
    findings: tuple[Finding, ...] = ()
    sender_services: tuple[str, ...] = ()
    recipient_services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transfer:
    """One accepted file, as the ledger tells it.

    *name* is what the sender called it, *delivered_name* what the recipient sees.  *size_bytes* and *sha256* are
    those of the content as it arrived.  *client_mtime* is the time the sender's program gave, if it gave one.
    *completes* is the transfer that was cut off where this one is the whole of it.  *reported_at* is when somebody said
    that it had gone to the wrong office, after it was collected: no directory of the recipient's shows it since then.
    """

    id: TransferId
    sender: OfficeNumber
    recipient: OfficeNumber
    name: str
    delivered_name: str
    grammar: Grammar
    kind: str
    serial: str | None
    month: str | None
    in_folder: bool
    state: State
    is_removed: bool
    size_bytes: int
    sha256: bytes
    accepted_at: datetime
    client_mtime: datetime | None = None
    collected_at: datetime | None = None
    ended_at: datetime | None = None
    findings: tuple[Finding, ...] = ()
    completes: TransferId | None = None
    is_held: bool = False
    reported_at: datetime | None = None

    @property
    def is_standard(self) -> bool:
        """True for the care-plan standard's own files."""
        return self.grammar in (Grammar.STANDARD_41, Grammar.STANDARD_32)

    @property
    def public_name(self) -> str:
        """The name where it may be shown to anybody: a name that is not the standard's is told as ``*.pdf``."""
        if self.is_standard:
            return self.name
        return "*." + self.name.rpartition(".")[2].lower() if "." in self.name else "*"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal that is kept: what was refused, why, how often.  *name* is escaped where it was illegal."""

    office: OfficeNumber
    name: str
    finding: Finding
    first_at: datetime
    last_at: datetime
    count: int
    number: int = 0


# Stands in the history for what time did, not a person.
RELAY_ACTOR = "relay"


class EventKind(StrEnum):
    """What can happen to a transfer, an office or the relay; the rows of the ledger's history."""

    LOGIN = "login"
    LOGIN_REFUSED = "login.refused"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    LISTED = "listed"
    READ = "read"
    COLLECTED = "collected"
    REMOVED = "removed"
    RESTORED = "restored"
    RECALLED = "recalled"
    HELD = "held"
    RELEASED = "released"
    RETURNED = "returned"
    REPORTED = "reported"
    SUPERSEDED = "superseded"
    DESTROYED = "destroyed"
    EXPIRY_NOTICED = "expiry.noticed"
    EXPIRED = "expired"
    UPLOAD_EXPIRED = "upload.expired"
    OFFICE_ADDED = "office.added"
    OFFICE_CHANGED = "office.changed"
    OFFICE_SUSPENDED = "office.suspended"
    OFFICE_RESUMED = "office.resumed"
    OFFICE_END_PLANNED = "office.end_planned"
    OFFICE_CLOSED = "office.closed"
    OFFICE_MOVED = "office.moved"
    OFFICE_REOPENED = "office.reopened"
    MAIL_CHANGED = "office.mail"
    MAIL_GIVEN_UP = "mail.given_up"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_MET = "certificate.met"
    INVITED = "certificate.invited"
    INVITATION_TRIED = "invitation.tried"
    INVITATION_ENDED = "invitation.cancelled"
    CERTIFICATE_REVOKED = "certificate.revoked"
    KEY_REVOKED = "key.revoked"
    KEYS_CHANGED = "keys.changed"
    NAMES_REVEALED = "names.revealed"
    STORE_RESTORED = "store.restored"
    KEY_ROTATED = "key.rotated"
    KEY_DESTROYED = "key.destroyed"
    NOTICE_ADDED = "notice.added"
    NOTICE_REMOVED = "notice.removed"
    COMMAND = "command"
    SERVER_STARTED = "server.started"
    SERVER_STOPPED = "server.stopped"
    ANCHOR_BEGUN = "anchor.begun"
    ANCHOR_ACCEPTED = "anchor.accepted"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of history, written in the transaction of what it tells; *actor* is who did it.

    That is an office, an operator by his login name, a network of which nobody logged in, or the relay itself.
    """

    id: int
    at: datetime
    kind: EventKind
    actor: str
    office: OfficeNumber | None = None
    transfer: TransferId | None = None
    detail: str = ""


def fold_name(name: str) -> str:
    """Fold *name* for comparing: NFC, letter case gone, NFC again because folding can undo it."""
    if name.isascii():
        return name.casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
