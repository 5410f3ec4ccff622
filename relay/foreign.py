"""The second road in: certificates of outside CAs (X.509), where the operator has opened it.

An office's certificate becomes known to the register when its holder has proven the key for the first time.  From then
on it is one like any other: it is listed, it can be revoked here whatever its CA says, and transfers name it.  What
cannot be done with it is renewing: a certificate of ours would outlive what the outside CA revokes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from relay import journal
from relay.config import CertificateSettings
from relay.errors import Refused
from relay.journal import Journal
from relay.keyring import Keyring
from relay.ledger import Register
from relay.model import Certificate, CertificateKind, Identity, OfficeNumber
from relay.offered import CertificateRejected, Reason, fingerprint
from relay.x509 import (
    SIGNATURE_ALGORITHMS,
    OfferedChain,
    Terms,
    Trust,
    check_known,
    judge_chain,
    key_id_of,
    number_of,
    parse_chain,
)

LABEL = "X.509"


class ForeignDesk:
    """Judges certificates of outside CAs; one a process."""

    def __init__(self, register: Register, settings: CertificateSettings, journal_: Journal) -> None:
        """Trust nobody yet."""
        self._register = register
        self._journal = journal_
        self._is_open = settings.x509
        self._terms = Terms(
            rules=settings.office_rules,
            accepts_tls_client=settings.x509_tls_client,
            needs_lists=settings.x509_crl == "require",
        )
        self._trust = Trust()

    @property
    def signature_algorithms(self) -> tuple[str, ...]:
        """What clients are told that they may sign with, besides what every relay says."""
        return SIGNATURE_ALGORITHMS if self._is_open and self._trust.anchors else ()

    def adopt(self, keyring: Keyring, now: datetime) -> None:
        """Trust what *keyring* trusts.

        Of a list that cannot be read, perhaps because it is being written, what was read before goes on.
        """
        if not self._is_open:
            return
        new, before = keyring.x509, self._trust
        for file, reason in new.unusable.items():
            journal.revocation_list_unusable(self._journal, file=file, reason=reason)
        kept = {file: before.lists[file] for file in new.unusable if file in before.lists}
        self._trust = replace(new, lists={**new.lists, **kept})
        over = sum(not anchor.valid_after <= now < anchor.valid_before for anchor in new.anchors)
        if new != before:
            journal.outside_cas_trusted(
                self._journal, anchors=len(new.anchors), anchors_over=over, lists=len(self._trust.lists)
            )

    def parse(self, key_data: bytes) -> OfferedChain:
        """Read a chain; CertificateRejected where it is none, or where nobody is let in with one."""
        if not self.signature_algorithms:
            why = "keys/trusted_x509_cas is empty" if self._is_open else "certificates.x509 is off"
            raise CertificateRejected(Reason.KEY_ALGORITHM, f"X.509 certificates are not accepted: {why}")
        return parse_chain(key_data)

    async def judge(
        self, offered: OfferedChain, office: OfficeNumber, algorithm: str | None, now: datetime
    ) -> tuple[Identity, bool]:
        """Return who this is, as `relay.x509.judge_chain`, and whether the register knows the certificate."""
        identity = judge_chain(
            offered,
            office=office,
            trust=self._trust,
            terms=self._terms,
            holder=await self._register.find_office(office),
            signature_algorithm=algorithm,
            now=now,
        )
        known = await self._register.find_certificate(*identity.certificate)
        if known is not None:
            check_known(offered, office, known)
        return identity, known is not None

    async def introduce(self, offered: OfferedChain, identity: Identity, now: datetime) -> None:
        """Make the register know the certificate of *identity*, who has proven its key.

        CertificateRejected where the key was revoked before.
        """
        leaf = offered.leaf
        record = Certificate(
            ca_fingerprint=identity.ca_fingerprint,
            serial=number_of(leaf),
            key_id=key_id_of(leaf),
            key_fingerprint=fingerprint(leaf.key_data),
            offices=(identity.office,),
            valid_after=leaf.valid_after,
            valid_before=leaf.valid_before,
            issued_at=now,
            label=LABEL,
            kind=CertificateKind.X509,
        )
        try:
            await self._register.record_certificate(record, actor=identity.office)
        except Refused as refused:
            raise CertificateRejected(Reason.REVOKED, "its key was revoked here", told="revoked") from refused
        except ValueError:
            # Two logins at once: the other one was first.
            return
