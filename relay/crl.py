"""Revocation lists of outside CAs (RFC 5280 section 5): what one says of a certificate, and whether it may say it.

A list counts only where its CA signed it, and for what it is about: parts and kinds that a list may be limited to
are respected, and one whose limits are not understood says nothing.  A list that has ended confirms nobody, but whom
it names stays out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
# What certificates and lists may be signed with.  SHA-1 and MD5 do not stand here.
SIGNATURES = frozenset(
    {
        x509.SignatureAlgorithmOID.RSA_WITH_SHA256,
        x509.SignatureAlgorithmOID.RSA_WITH_SHA384,
        x509.SignatureAlgorithmOID.RSA_WITH_SHA512,
        x509.SignatureAlgorithmOID.RSASSA_PSS,
        x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        x509.SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        x509.SignatureAlgorithmOID.ED25519,
    }
)
# RSASSA-PSS says its digest in its parameters.
DIGESTS = frozenset({"sha256", "sha384", "sha512"})
# Some hundred thousand revoked certificates.
LIST_BYTES = 16 * 1024 * 1024
# A CA's clock may be ahead of ours.
AHEAD = timedelta(minutes=5)

_PEM = b"-----BEGIN X509 CRL-----"
# What the libraries raise for bytes that are nearly a list or a certificate; warnings count where they are errors.
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    Warning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Standing(StrEnum):
    """What the lists say of a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    # Nobody says anything that counts at present.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list, as it was read; nothing of it was verified.

    *points* are the addresses that it is published at where it is about those certificates only that name one.
    """

    issuer: x509.Name
    this_update: datetime
    next_update: datetime
    points: frozenset[str] | None
    only_users: bool
    only_cas: bool
    entries: x509.CertificateRevocationList = field(repr=False)
    # Whether the key with these wire bytes signed it: a large list takes a while, and each login asks.
    _signed_by: dict[bytes, bool] = field(default_factory=dict, repr=False, compare=False)

    def is_signed_by(self, key: PublicKey, key_data: bytes) -> bool:
        """Tell whether the CA with this key signed the list; the answer is remembered."""
        if key_data not in self._signed_by:
            try:
                self._signed_by[key_data] = self.entries.is_signature_valid(key)
            except (*UNREADABLE, InvalidSignature):
                self._signed_by[key_data] = False
        return self._signed_by[key_data]

    def is_about(self, points: frozenset[str], *, is_ca: bool) -> bool:
        """Tell whether a certificate that names *points* would stand here, were it revoked."""
        if (self.only_users and is_ca) or (self.only_cas and not is_ca):
            return False
        return self.points is None or bool(self.points & points)


def parse_list(data: bytes) -> RevocationList:
    """Read a list, DER or PEM; ValueError says in words why it cannot be used."""
    if len(data) > LIST_BYTES:
        raise ValueError(f"{len(data)} bytes are too many for a revocation list")
    try:
        read = x509.load_pem_x509_crl if _PEM in data[:4096] else x509.load_der_x509_crl
        entries = read(data)
        issuer, this_update, next_update = entries.issuer, entries.last_update_utc, entries.next_update_utc
        extensions = list(entries.extensions)
        algorithm = entries.signature_algorithm_oid
        digest = entries.signature_hash_algorithm if algorithm in SIGNATURES else None
    except UNREADABLE as error:
        raise ValueError(f"it is no revocation list: {error}") from None
    if next_update is None:
        raise ValueError("it does not say until when it holds")
    if algorithm not in SIGNATURES or (digest is not None and digest.name not in DIGESTS):
        raise ValueError(f"it was signed with {algorithm.dotted_string}, which is not accepted")
    points, only_users, only_cas = _read_limits(extensions)
    return RevocationList(issuer, this_update, next_update, points, only_users, only_cas, entries)


def _read_limits(extensions: Iterable[x509.Extension[x509.ExtensionType]]) -> tuple[frozenset[str] | None, bool, bool]:
    limits: tuple[frozenset[str] | None, bool, bool] = None, False, False
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.IssuingDistributionPoint):
            if value.indirect_crl or value.only_some_reasons or value.only_contains_attribute_certs:
                raise ValueError("it holds certificates of other CAs, or not every reason")
            if value.relative_name:
                raise ValueError("its address is relative")
            points = None if value.full_name is None else _addresses(value.full_name)
            limits = points, value.only_contains_user_certs, value.only_contains_ca_certs
        elif isinstance(value, x509.DeltaCRLIndicator):
            raise ValueError(  # noqa: TRY004 - the list is at fault
                "it holds only what changed since another list: the whole one is needed"
            )
        elif extension.critical and not isinstance(value, x509.CRLNumber | x509.AuthorityKeyIdentifier):
            raise ValueError(f"its critical extension {extension.oid.dotted_string} is not understood")
    return limits


def read_points(value: x509.CRLDistributionPoints) -> frozenset[str]:
    """Return the addresses of the lists in which a certificate would stand."""
    return frozenset().union(*(_addresses(point.full_name or ()) for point in value))


def _addresses(names: Iterable[x509.GeneralName]) -> frozenset[str]:
    return frozenset(name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))


def judge_standing(
    lists: Sequence[RevocationList],
    serial: int,
    *,
    issuer: x509.Name,
    key: PublicKey,
    key_data: bytes,
    points: frozenset[str],
    is_ca: bool,
    now: datetime,
) -> tuple[Standing, datetime | None]:
    """Return what *lists* say of the certificate with *serial* of the CA *issuer*, and until when that holds."""
    until: datetime | None = None
    for one in lists:
        if one.issuer != issuer or not one.is_about(points, is_ca=is_ca) or not one.is_signed_by(key, key_data):
            continue
        if one.entries.get_revoked_certificate_by_serial_number(serial) is not None:
            return Standing.REVOKED, None
        if one.this_update <= now + AHEAD and now < one.next_update:
            until = max(until or one.next_update, one.next_update)
    return (Standing.UNKNOWN, None) if until is None else (Standing.GOOD, until)
