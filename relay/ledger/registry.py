"""The register's part of the ledger's protocol: offices, certificates, and what was revoked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relay.model import (
    Certificate,
    CertificateId,
    EventKind,
    Office,
    OfficeNumber,
    OfficeStatus,
    RevocationCause,
    TransferId,
)


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What an import of the register did, in offices; *ended* are among them and stay closed, or changed."""

    added: int
    updated: int
    unchanged: int
    suspended: int
    ended: int = 0


class Register(Protocol):
    """The offices and their certificates."""

    async def find_office(self, number: OfficeNumber) -> Office | None:
        """Return the office, or None where it is not registered."""

    async def list_offices(
        self,
        *,
        status: OfficeStatus | None = None,
        prefecture: str | None = None,
        after: OfficeNumber | None = None,
        limit: int | None = None,
    ) -> list[Office]:
        """Return offices in order of their number, from behind *after*."""

    async def count_offices(self) -> dict[OfficeStatus, int]:
        """Return how many offices there are in each status."""

    async def record_office(self, office: Office, *, actor: str, now: datetime) -> bool:
        """Add *office* or change what is known of it; True where it is new."""

    async def import_offices(
        self,
        offices: Sequence[Office],
        *,
        suspend_missing: bool,
        actor: str,
        now: datetime,
        progress: Callable[[int], None] | None = None,
    ) -> ImportCounts:
        """Add and change all of *offices* in one transaction; *progress* hears how many are done.

        An office that is not in *offices* is left alone, or suspended with *suspend_missing*.
        """

    async def record_office_status(
        self, number: OfficeNumber, status: OfficeStatus, *, actor: str, now: datetime
    ) -> bool:
        """Set the status, to active or suspended; False where it was so already.

        LookupError where the office is unknown, ValueError where it has ended (`Closing.reopen_office`).
        """

    async def record_certificate(
        self, certificate: Certificate, *, actor: str, most: int | None = None, needs_new_key: bool = False
    ) -> None:
        """Make *certificate* known.  ValueError where its CA and serial are taken.

        As things stand in that transaction, Refused ``certificate.revoked_key`` where its key was revoked;
        ``certificate.used_key`` with *needs_new_key* where there is a certificate for it; ``certificate.too_many``
        where an office would hold more than *most* that are not over; ``office.revoked`` or ``office.expired`` where
        its parent is no longer good.
        """

    async def find_certificate(self, ca_fingerprint: str, serial: int) -> Certificate | None:
        """Return what is known of the certificate, or None."""

    async def list_certificates(
        self,
        *,
        office: OfficeNumber | None = None,
        serial: int | None = None,
        key_fingerprint: str | None = None,
        key_id: str | None = None,
        is_revoked: bool | None = None,
        limit: int | None = None,
    ) -> list[Certificate]:
        """Return certificates, newest first."""

    async def revoke_certificate(
        self, ca_fingerprint: str, serial: int, *, reason: str, actor: str, now: datetime
    ) -> bool:
        """Revoke one and what was renewed from it; False where it was revoked already.  LookupError if unknown."""

    async def revoke_certificates(
        self,
        targets: Sequence[CertificateId],
        *,
        keys: Sequence[str] = (),
        cause: RevocationCause = RevocationCause.UNSPECIFIED,
        reason: str = "",
        keep_renewed: bool = False,
        actor: str,
        now: datetime,
    ) -> list[Certificate]:
        """Revoke *targets*, every certificate of *keys*, and what was renewed from any of them; return which were good.

        What was renewed from a certificate that was revoked before goes as well, unless *keep_renewed*: whoever gave
        a stolen one up must not have saved its offspring.  *keys* (``SHA256:…``), and with a *cause* that is of the
        key those of all that is revoked, are never certified again.  LookupError where a target is unknown.
        """

    async def list_revoked_keys(self) -> list[str]:
        """Return the keys that are never certified again, as ``SHA256:…``."""

    async def register_version(self) -> int:
        """Return a number that grows with every change of the register, by whatever process."""

    def note_event(
        self,
        kind: EventKind,
        *,
        actor: str,
        now: datetime,
        office: OfficeNumber | None = None,
        transfer: TransferId | None = None,
        detail: str = "",
    ) -> None:
        """Write a line of history with the next transaction, within a second; waits for nothing and never raises.

        It stands before all that is recorded later.  A crash within that second may cost it.
        """

    def note_use(self, office: OfficeNumber, software: str, *, now: datetime) -> None:
        """Count a login of *office* with that program in this month, in the manner of `note_event`."""
