"""Issuing: an office's public key becomes a certificate that is in the register before anybody has it.

The one way there is: the command line, a renewal over SFTP and an enrolment all come through `issue`.  A certificate
that nobody recorded opens no door, so the order cannot be got wrong; what the register forbids (a revoked key, too
many certificates, a parent that is no longer good) is judged in the transaction that records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.authority import UserCa
from relay.certificates import CertificateRejected, Reason, draw_serial, issue_certificate, plan_validity
from relay.errors import Refused
from relay.ledger import Register
from relay.model import Certificate, CertificateId, OfficeNumber


@dataclass(frozen=True, slots=True)
class Wish:
    """What a certificate is to be; *offices* are its principals, the first one gives its key id.

    *most* is how many valid ones an office may have with it; *needs_new_key* where no certificate may have been made
    for the key.  *parent*, *source_address*, *name* and *label* as in `relay.model`.
    """

    public_line: str
    offices: Sequence[OfficeNumber]
    valid_seconds: int
    label: str = ""
    name: str = ""
    parent: CertificateId | None = None
    source_address: str | None = None
    most: int | None = None
    needs_new_key: bool = False


async def issue(register: Register, ca: UserCa, wish: Wish, *, actor: str, now: datetime) -> Certificate:
    """Sign and record what *wish* says; the certificate is `Certificate.line`.

    Refused as `sign`, and as `Register.record_certificate` says.
    """
    record = sign(ca, wish, now=now)
    await register.record_certificate(record, actor=actor, most=wish.most, needs_new_key=wish.needs_new_key)
    return record


def sign(ca: UserCa, wish: Wish, *, now: datetime) -> Certificate:
    """Sign what *wish* says; it opens no door before somebody records it.

    Refused ``certificate.weak_key`` and ``certificate.not_a_key``.
    """
    serial = draw_serial()
    after, before = plan_validity(now, wish.valid_seconds)
    try:
        _, record = issue_certificate(
            wish.public_line,
            ca.key,
            serial=serial,
            key_id=f"{wish.offices[0]} {now:%Y-%m-%d} {serial}",
            offices=wish.offices,
            valid_after=after,
            valid_before=before,
            label=wish.label,
            name=wish.name,
            parent=wish.parent,
            issued_at=now,
            source_address=wish.source_address,
        )
    except CertificateRejected as rejected:
        raise _refusal(rejected) from rejected
    return record


def _refusal(rejected: CertificateRejected) -> Refused:
    if rejected.reason in (Reason.KEY_ALGORITHM, Reason.KEY_SIZE):
        return Refused("certificate.weak_key", kind=rejected.detail.split(" is not ")[0].split(" keys ")[0])
    return Refused("certificate.not_a_key", why_ja="鍵として読めません", why=rejected.detail)
