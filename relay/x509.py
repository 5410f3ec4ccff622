"""X.509 in SSH (RFC 6187): whether a certificate of an outside CA opens the door.

The bytes of a chain parse or `CertificateRejected` is raised, whatever they are: this runs before anybody has proven
anything.  A chain is a line, as RFC 6187 section 2 has it: each certificate is certified by the one behind it, the last
one by a CA that the operator trusts.  It is verified from that CA downwards, so a stranger's keys are never worked with.

Judged are the CA's signatures, dates, path lengths, usages and purposes, what the CA's lists say, and for which office
the operator's rules take it.  SHA-1 and RSA below 2048 bits are refused anywhere in the line.  So is what a wrong answer
could hide in: critical extensions that are not known here, and CAs whose names are constrained.

What is *not* judged here is that the client holds the key: that needs the connection.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relay.certificates import RSA_BITS_LEAST, RSA_BITS_MOST
from relay.crl import (
    DIGESTS,
    SIGNATURES,
    UNREADABLE,
    PublicKey,
    RevocationList,
    Standing,
    judge_standing,
    read_points,
)
from relay.model import Certificate, Identity, Office, OfficeNumber
from relay.offered import (
    CERTIFICATE_BYTES,
    FOREVER,
    CertificateRejected,
    Reason,
    WireReader,
    check_holder,
    fingerprint,
    malformed,
    read_text,
)
from relay.officerules import OfficeField, OfficeRule, find_offices

# The office's own, and the CAs between it and a trusted one; real ones have one or two of these.
CHAIN_CERTIFICATES = 6
# Key kinds as they come over the wire (RFC 6187 section 3), and the SSH key in the first certificate.  Which digest a
# login of x509v3-ssh-rsa is signed with is seen in its signature: SHA-1 is refused there.
_KINDS: Mapping[str, str] = {
    "x509v3-ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "x509v3-ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
    "x509v3-ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
    "x509v3-rsa2048-sha256": "ssh-rsa",
    "x509v3-ssh-rsa": "ssh-rsa",
}
# What clients are told that they may sign with.
SIGNATURE_ALGORITHMS = tuple(kind for kind in _KINDS if kind != "x509v3-ssh-rsa")
_RSA_SIGNATURES = frozenset({"rsa2048-sha256", "rsa-sha2-256", "rsa-sha2-512"})
_PREFIX = b"x509v3-"
_LENGTH = 4

_SECURE_SHELL_CLIENT = "1.3.6.1.5.5.7.3.21"
_TLS_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string
_ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
# Policies bind nobody who asked for none.
_KNOWN = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
    x509.CertificatePolicies,
    x509.CRLDistributionPoints,
    x509.AuthorityKeyIdentifier,
    x509.SubjectKeyIdentifier,
)
_SUBJECT_FIELDS: Mapping[OfficeField, x509.ObjectIdentifier] = {
    "subject.CN": NameOID.COMMON_NAME,
    "subject.OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "subject.O": NameOID.ORGANIZATION_NAME,
    "subject.serialNumber": NameOID.SERIAL_NUMBER,
    "subject.UID": NameOID.USER_ID,
}
# Where no usage is named, every one is allowed (RFC 5280 section 4.2.1.3).
_EVERY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=True,
    key_encipherment=True,
    data_encipherment=True,
    key_agreement=True,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Link:
    """One certificate of a chain, as far as it is judged; nothing of it was verified.

    *key_data* is its public key as SSH wire bytes.  *flaw* is what keeps it from ever being good, in words, and
    *weak_signature* the algorithm where it is not accepted; both may be empty.
    """

    certificate: x509.Certificate = field(repr=False)
    serial: int
    subject: x509.Name
    issuer: x509.Name
    valid_after: datetime
    valid_before: datetime
    key: PublicKey = field(repr=False)
    key_data: bytes = field(repr=False)
    is_ca: bool
    path_length: int | None
    may_sign_certificates: bool
    may_sign_lists: bool
    may_sign_data: bool
    purposes: frozenset[str] | None
    points: frozenset[str]
    claims: Mapping[OfficeField, tuple[str, ...]] = field(repr=False)
    weak_signature: str
    flaw: str


@dataclass(frozen=True, slots=True)
class OfferedChain:
    """What a client offers: *links* begin with its own certificate, *kind* is what RFC 6187 calls the whole."""

    kind: str
    links: tuple[Link, ...]

    @property
    def leaf(self) -> Link:
        """The client's own certificate."""
        return self.links[0]


@dataclass(frozen=True, slots=True)
class Trust:
    """Which outside CAs are trusted, and what they have revoked.

    *unusable* are the files of lists that could not be read, with the reason.
    """

    anchors: tuple[Link, ...] = ()
    lists: Mapping[str, RevocationList] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator asks of certificates of outside CAs."""

    rules: tuple[OfficeRule, ...]
    accepts_tls_client: bool
    needs_lists: bool


def is_chain(key_data: bytes) -> bool:
    """Tell whether a key is of a kind that RFC 6187 names, whatever follows."""
    return key_data.startswith(_PREFIX, _LENGTH)


def parse_chain(key_data: bytes) -> OfferedChain:
    """Read the wire bytes of RFC 6187 section 2; CertificateRejected for everything else.

    OCSP responses are allowed there and ignored.
    """
    if len(key_data) > CERTIFICATE_BYTES:
        raise malformed(f"{len(key_data)} bytes are too many")
    reader = WireReader(key_data)
    kind = read_text(reader.string(), "key type")
    if kind not in _KINDS:
        raise CertificateRejected(Reason.KEY_ALGORITHM, f"unknown kind of certificate {kind!r}")
    count = reader.number(4)
    if not 0 < count <= CHAIN_CERTIFICATES:
        raise malformed(f"a chain of {count} certificates")
    encoded = [reader.string() for _ in range(count)]
    responses = reader.number(4)
    if responses > count:
        raise malformed(f"{responses} OCSP responses for {count} certificates")
    for _ in range(responses):
        reader.string()
    reader.end()
    return OfferedChain(kind, tuple(map(parse_link, encoded)))


def parse_link(data: bytes) -> Link:
    """Read one certificate (DER); CertificateRejected for everything else."""
    try:
        return _read_link(x509.load_der_x509_certificate(data))
    except UNREADABLE as error:
        raise malformed(f"no X.509 certificate that is understood here: {_printable(str(error))}") from None


def check_anchor(anchor: Link) -> None:
    """Raise CertificateRejected where *anchor* is none that can be trusted; its dates are not looked at."""
    _check_ca(anchor, 0)
    _check_key(anchor)


def judge_chain(
    offered: OfferedChain,
    *,
    office: OfficeNumber,
    trust: Trust,
    terms: Terms,
    holder: Office | None,
    signature_algorithm: str | None,
    now: datetime,
) -> Identity:
    """Return who this is, or raise CertificateRejected with the first rule that fails; `check_known` is to follow.

    *holder* is the office of the user name.  *signature_algorithm* is None for a probe, which proves nothing.  The
    identity holds until its chain or, where lists are needed, one of them ends.
    """
    _check_login_key(offered, signature_algorithm)
    path = _find_path(offered.links, trust.anchors)
    _check_leaf(path, terms)
    _check_office(offered.leaf, office, terms)
    until = check_holder(office, holder, now)
    _check_dates(path, now)
    until = min(until, _check_lists(path, trust, terms, now))
    return Identity(
        office=office,
        ca_fingerprint=fingerprint(path[1].key_data),
        certificate_serial=number_of(offered.leaf),
        key_id=key_id_of(offered.leaf),
        valid_before=min(until, *(link.valid_before for link in path)),
    )


def check_known(offered: OfferedChain, office: OfficeNumber, known: Certificate) -> None:
    """Raise CertificateRejected where what the register has of this certificate keeps it out."""
    if known.key_fingerprint != fingerprint(offered.leaf.key_data) or office not in known.offices:
        raise CertificateRejected(
            Reason.UNKNOWN_SERIAL, f"number {known.serial} is in the register for another key or office"
        )
    if known.revoked_at is not None:
        detail = f"number {known.serial} was revoked here at {known.revoked_at.isoformat()}"
        raise CertificateRejected(Reason.REVOKED, detail, told="revoked")


def number_of(leaf: Link) -> int:
    """Return 63 bits of the certificate's SHA-256, never 0: what the register and transfers know it by.

    Its own serial has up to 159 bits, which no column holds.
    """
    digest = hashlib.sha256(leaf.certificate.public_bytes(Encoding.DER)).digest()
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def key_id_of(leaf: Link) -> str:
    """Return the certificate's own serial as `openssl x509 -serial` prints it; its subject may name a person."""
    digits = f"{leaf.serial:X}"
    return "x509 " + digits.rjust(len(digits) + len(digits) % 2, "0")


# --- reading -------------------------------------------------------------------------------------------------------


def _read_link(certificate: x509.Certificate) -> Link:
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise TypeError("its key is neither RSA, ECDSA nor Ed25519")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        raise ValueError(f"its key is on the curve {key.curve.name}")
    by_type = {type(extension.value): extension.value for extension in certificate.extensions}
    constraints = by_type.get(x509.BasicConstraints)
    usage = by_type.get(x509.KeyUsage, _EVERY_USAGE)
    assert isinstance(usage, x509.KeyUsage)
    purposes = by_type.get(x509.ExtendedKeyUsage)
    points = by_type.get(x509.CRLDistributionPoints)
    is_ca = isinstance(constraints, x509.BasicConstraints) and constraints.ca
    return Link(
        certificate=certificate,
        serial=certificate.serial_number,
        subject=certificate.subject,
        issuer=certificate.issuer,
        valid_after=certificate.not_valid_before_utc,
        valid_before=_end(certificate.not_valid_after_utc),
        key=key,
        key_data=base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]),
        is_ca=is_ca,
        path_length=constraints.path_length if isinstance(constraints, x509.BasicConstraints) else None,
        may_sign_certificates=usage.key_cert_sign,
        may_sign_lists=usage.crl_sign,
        may_sign_data=usage.digital_signature,
        purposes=frozenset(oid.dotted_string for oid in purposes)
        if isinstance(purposes, x509.ExtendedKeyUsage)
        else None,
        points=read_points(points) if isinstance(points, x509.CRLDistributionPoints) else frozenset(),
        claims=_read_claims(certificate.subject, by_type.get(x509.SubjectAlternativeName)),
        weak_signature=_find_weak_signature(certificate),
        flaw=_find_flaw(certificate),
    )


def _end(last: datetime) -> datetime:
    """Return the first moment at which it is over: its last second is within its time."""
    return FOREVER if last >= FOREVER.replace(tzinfo=UTC) else last + timedelta(seconds=1)


def _read_claims(subject: x509.Name, names: object) -> Mapping[OfficeField, tuple[str, ...]]:
    claims: dict[OfficeField, tuple[str, ...]] = {
        field_: tuple(each.value for each in subject.get_attributes_for_oid(oid) if isinstance(each.value, str))
        for field_, oid in _SUBJECT_FIELDS.items()
    }
    if isinstance(names, x509.SubjectAlternativeName):
        claims["san.dns"] = tuple(names.get_values_for_type(x509.DNSName))
        claims["san.uri"] = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
        claims["san.email"] = tuple(names.get_values_for_type(x509.RFC822Name))
    return claims


def _find_weak_signature(certificate: x509.Certificate) -> str:
    """Return what it was signed with where that is not accepted; the library may not know it either."""
    algorithm = certificate.signature_algorithm_oid
    if algorithm not in SIGNATURES:
        return algorithm.dotted_string
    digest = certificate.signature_hash_algorithm
    return digest.name if digest is not None and digest.name not in DIGESTS else ""


def _find_flaw(certificate: x509.Certificate) -> str:
    if certificate.version is not x509.Version.v3:
        return "it is of version 1, which cannot say what it is for"
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.NameConstraints):
            return "it constrains names, which is not understood here"
        if extension.critical and not isinstance(extension.value, _KNOWN):
            return f"its critical extension {extension.oid.dotted_string} is not understood here"
    return ""


# --- judging -------------------------------------------------------------------------------------------------------


def _check_login_key(offered: OfferedChain, signature_algorithm: str | None) -> None:
    kind = _KINDS[offered.kind]
    if not offered.leaf.key_data.startswith(kind.encode(), _LENGTH):
        raise malformed(f"the key is none of {offered.kind}")
    _check_key(offered.leaf)
    accepted = _RSA_SIGNATURES if kind == "ssh-rsa" else frozenset({kind})
    if signature_algorithm is not None and signature_algorithm not in accepted:
        raise CertificateRejected(
            Reason.SIGNATURE_ALGORITHM,
            f"the client's signature was made with {signature_algorithm}, which is not accepted",
        )


def _check_key(link: Link) -> None:
    if isinstance(link.key, rsa.RSAPublicKey) and not RSA_BITS_LEAST <= link.key.key_size <= RSA_BITS_MOST:
        raise CertificateRejected(
            Reason.KEY_SIZE,
            f"an RSA key of {link.key.key_size} bits is not accepted: {RSA_BITS_LEAST} to {RSA_BITS_MOST}",
        )


def _find_path(links: Sequence[Link], anchors: Sequence[Link]) -> tuple[Link, ...]:
    """Return the line from the client's certificate to a trusted CA, that one included, all signatures verified."""
    for place, link in enumerate(links):
        if place and links[place - 1].issuer != link.subject:
            raise CertificateRejected(Reason.CHAIN, f"certificate {place + 1} did not issue the one in front of it")
        for anchor in anchors:
            # Another CA of the same name, or the same one with an older key, signed something else.
            if anchor.subject == link.issuer and _is_signed_by(link, anchor):
                path = (*links[: place + 1], anchor)
                _verify(path)
                return path
    last = _name(links[-1].issuer)
    raise CertificateRejected(Reason.UNKNOWN_CA, f"{last} signed the last one, or is named by it, and is not trusted")


def _is_signed_by(link: Link, issuer: Link) -> bool:
    if link.weak_signature:
        raise CertificateRejected(
            Reason.SIGNATURE_ALGORITHM, f"a CA's signature was made with {link.weak_signature}, which is not accepted"
        )
    try:
        link.certificate.verify_directly_issued_by(issuer.certificate)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _verify(path: tuple[Link, ...]) -> None:
    """Check every CA of the line from the trusted one downwards, each before its key is used."""
    for place in range(len(path) - 1, 0, -1):
        _check_ca(path[place], place - 1)
        _check_key(path[place])
        # The first of these was verified to find the way.
        if place < len(path) - 1 and not _is_signed_by(path[place - 1], path[place]):
            raise CertificateRejected(Reason.BAD_SIGNATURE, f"the CA's signature of certificate {place} is not good")


def _check_ca(link: Link, below: int) -> None:
    """Check that *link* may certify, with *below* other CAs between it and the client's certificate."""
    name = _name(link.subject)
    if link.flaw:
        raise CertificateRejected(Reason.EXTENSION, f"{name}: {link.flaw}")
    if not link.is_ca:
        raise CertificateRejected(Reason.CHAIN, f"{name} is no CA")
    if not link.may_sign_certificates:
        raise CertificateRejected(Reason.CHAIN, f"the key of {name} is not for signing certificates")
    if link.path_length is not None and below > link.path_length:
        raise CertificateRejected(Reason.CHAIN, f"{name} allows {link.path_length} CAs below it, here are {below}")


def _check_leaf(path: tuple[Link, ...], terms: Terms) -> None:
    leaf, *issuers = path
    if leaf.flaw:
        raise CertificateRejected(Reason.EXTENSION, leaf.flaw)
    if leaf.is_ca:
        raise CertificateRejected(Reason.NOT_A_USER_CERTIFICATE, "a CA's certificate, not a user's")
    if not leaf.may_sign_data:
        raise CertificateRejected(Reason.PURPOSE, "its key is not for digital signatures")
    accepted = {_SECURE_SHELL_CLIENT, _ANY_PURPOSE} | ({_TLS_CLIENT} if terms.accepts_tls_client else set())
    # A CA that is limited to other purposes cannot give away what it has not; the trusted one is the operator's word.
    for link in (leaf, *issuers[:-1]):
        if link.purposes is not None and not link.purposes & accepted:
            hint = " (certificates.x509_tls_client)" if _TLS_CLIENT in link.purposes else ""
            raise CertificateRejected(Reason.PURPOSE, f"its purposes are {', '.join(sorted(link.purposes))}{hint}")


def _check_office(leaf: Link, office: OfficeNumber, terms: Terms) -> None:
    found = find_offices(terms.rules, leaf.claims)
    if not found:
        raise CertificateRejected(Reason.NO_OFFICE, "no rule of certificates.x509_offices finds an office in it")
    if len(found) > 1:
        raise CertificateRejected(Reason.SEVERAL_OFFICES, f"it names {', '.join(sorted(found)[:5])}")
    if office not in found:
        raise CertificateRejected(Reason.WRONG_PRINCIPAL, f"issued for {', '.join(found)}, not for {office}")


def _check_dates(path: tuple[Link, ...], now: datetime) -> None:
    for place, link in enumerate(path):
        who = "it is" if place == 0 else f"{_name(link.subject)} is"
        if now < link.valid_after:
            raise CertificateRejected(
                Reason.NOT_YET_VALID, f"{who} valid from {link.valid_after.isoformat()}, here it is {now.isoformat()}"
            )
        if now >= link.valid_before:
            detail = f"{who} over since {link.valid_before.isoformat()}, here it is {now.isoformat()}"
            raise CertificateRejected(Reason.EXPIRED, detail, told="expired")


def _check_lists(path: tuple[Link, ...], trust: Trust, terms: Terms, now: datetime) -> datetime:
    """Ask the lists of every CA of the line about what it issued; return until when their answers hold."""
    holds_until = FOREVER
    for place, (link, issuer) in enumerate(itertools.pairwise(path)):
        lists = tuple(trust.lists.values()) if issuer.may_sign_lists else ()
        standing, until = judge_standing(
            lists,
            link.serial,
            issuer=issuer.subject,
            key=issuer.key,
            key_data=issuer.key_data,
            points=link.points,
            is_ca=place > 0,
            now=now,
        )
        if standing is Standing.REVOKED:
            detail = f"{_name(issuer.subject)} has revoked {'it' if place == 0 else _name(link.subject)}"
            raise CertificateRejected(Reason.REVOKED, detail, told="revoked")
        if terms.needs_lists:
            if until is None:
                detail = f"no revocation list of {_name(issuer.subject)} holds now (keys/x509_crls)"
                raise CertificateRejected(Reason.UNCONFIRMED, detail, told="unconfirmed")
            holds_until = min(holds_until, until)
    return holds_until


def _name(name: x509.Name) -> str:
    return _printable(name.rfc4514_string())


def _printable(text: str) -> str:
    """Return *text* fit for the journal's eyes, whoever wrote it."""
    return "".join(each if each.isprintable() else "?" for each in text[:_NAME_CHARACTERS])
