"""Certificates: whether an OpenSSH user certificate opens the door, and how one is made.

Judging applies every rule of DESIGN section 5 to what `relay.offered` has parsed, and returns the `Identity` or
raises `CertificateRejected`.  Issuing takes a public key line and returns a certificate line and its record.

What is *not* judged here is cryptography: that the CA's signature covers the certificate, and that the client holds
the key, is asyncssh's verdict.  A judgement is worth nothing without it.  Nor is a reason for the client's ears
before that: `CertificateRejected.told` may be said only once the signature was good.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_private_key,
    load_ssh_public_identity,
    load_ssh_public_key,
)

from relay.model import Certificate, CertificateId, Identity, Office, OfficeNumber
from relay.offered import (
    CERTIFICATE_KINDS,
    CERTIFICATE_SUFFIX,
    FOREVER,
    KEY_FIELDS,
    CertificateRejected,
    OfferedCertificate,
    Reason,
    Told,
    check_holder,
    fingerprint,
    fingerprint_of_line,
    malformed,
    parse_certificate,
    parse_certificate_line,
    signature_algorithm,
)

__all__ = [
    "BACKDATED",
    "FOREVER",
    "CaKey",
    "CertificateRejected",
    "OfferedCertificate",
    "Reason",
    "Told",
    "draw_serial",
    "examine_certificate",
    "fingerprint",
    "fingerprint_of_line",
    "issue_certificate",
    "issue_host_certificate",
    "judge_certificate",
    "load_ca_key",
    "load_certifiable_key",
    "parse_certificate",
    "parse_certificate_line",
    "plan_validity",
    "signature_algorithm",
]

RSA_BITS_LEAST = 2048
# Verifying beyond this size is work for an attacker to give us.
RSA_BITS_MOST = 16384
# Clocks of offices run behind; "not yet valid" by a second is a support call (LESSONS).
BACKDATED = timedelta(minutes=5)
FOREVER_SECONDS = 2**64 - 1

_ACCEPTED_KEYS = frozenset(
    {"ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}
)
# ``ssh-rsa`` as a *signature* is SHA-1, and so is ``ssh-dss``: neither stands here.
_ACCEPTED_SIGNATURES = (_ACCEPTED_KEYS - {"ssh-rsa"}) | {"rsa-sha2-256", "rsa-sha2-512"}
CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
IssuedKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def judge_certificate(
    offered: OfferedCertificate,
    *,
    office: OfficeNumber,
    trusted: frozenset[str],
    known: Certificate | None,
    holder: Office | None,
    peer_address: str,
    signature_algorithm: str | None,
    now: datetime,
) -> Identity:
    """Return who this is, or raise CertificateRejected with the first rule that fails.

    *known* is what the register has under this CA and serial, *holder* the office of the user name, *trusted* the
    fingerprints of the CAs.  *signature_algorithm* is None for a probe, which proves nothing: bind no identity then.
    """
    _check_key(offered.key_algorithm, offered.key_bits)
    _check_signatures(offered, signature_algorithm)
    _check_claims(offered, office, trusted)
    _check_register(offered, office, known)
    until = check_holder(office, holder, now)
    _check_validity(offered, now)
    _check_source_address(offered, peer_address)
    return Identity(
        office=office,
        ca_fingerprint=offered.ca_fingerprint,
        certificate_serial=offered.serial,
        key_id=offered.key_id,
        valid_before=min(offered.valid_before, until),
        source_address=dict(offered.critical_options).get("source-address"),
    )


def _check_key(algorithm: str, bits: int | None) -> None:
    if algorithm not in _ACCEPTED_KEYS:
        raise CertificateRejected(
            Reason.KEY_ALGORITHM, f"{algorithm} keys are not accepted: use ECDSA, Ed25519 or RSA of 2048 bits or more"
        )
    if bits is not None and not RSA_BITS_LEAST <= bits <= RSA_BITS_MOST:
        raise CertificateRejected(
            Reason.KEY_SIZE, f"an RSA key of {bits} bits is not accepted: {RSA_BITS_LEAST} to {RSA_BITS_MOST}"
        )


def _check_signatures(offered: OfferedCertificate, signature_algorithm: str | None) -> None:
    # Certificate names (…-cert-v01@openssh.com) turn up here as well, depending on the client's library.
    for who, algorithm in (("the CA's", offered.ca_signature_algorithm), ("the client's", signature_algorithm)):
        if algorithm is not None and algorithm.removesuffix(CERTIFICATE_SUFFIX) not in _ACCEPTED_SIGNATURES:
            raise CertificateRejected(
                Reason.SIGNATURE_ALGORITHM, f"{who} signature was made with {algorithm}, which is not accepted"
            )


def _check_claims(offered: OfferedCertificate, office: OfficeNumber | None, trusted: frozenset[str]) -> None:
    """Check what the certificate says of itself, without the register; *office* is None where nobody is logging in."""
    if offered.ca_fingerprint not in trusted:
        raise CertificateRejected(Reason.UNKNOWN_CA, f"signed by {offered.ca_fingerprint}, which is no trusted CA")
    if offered.key_fingerprint in trusted:
        # Whoever signs for everybody has no business at the door, and its key none on a machine that logs in.
        raise CertificateRejected(Reason.CA_KEY, "the certified key is a CA's own")
    if offered.type != "user":
        raise CertificateRejected(Reason.NOT_A_USER_CERTIFICATE, f"a {offered.type} certificate, not a user's")
    if not offered.principals:
        raise CertificateRejected(Reason.NO_PRINCIPALS, "it names no principal, so it would be anybody's")
    if office is not None and office not in offered.principals:
        raise CertificateRejected(
            Reason.WRONG_PRINCIPAL, f"issued for {', '.join(offered.principals[:5])}, not for {office}"
        )
    for name, _ in offered.critical_options:
        if name == "force-command":
            raise CertificateRejected(Reason.FORCE_COMMAND, "force-command would break the SFTP subsystem")
        if name != "source-address":
            raise CertificateRejected(Reason.CRITICAL_OPTION, f"unknown critical option {name!r}")


def _check_register(offered: OfferedCertificate, office: OfficeNumber, known: Certificate | None) -> None:
    serial = offered.serial
    if known is None or (known.ca_fingerprint, known.serial) != (offered.ca_fingerprint, serial):
        raise CertificateRejected(Reason.UNKNOWN_SERIAL, f"serial {serial} of this CA is not in the register")
    if known.key_fingerprint != offered.key_fingerprint or office not in known.offices:
        raise CertificateRejected(
            Reason.UNKNOWN_SERIAL, f"serial {serial} is in the register for another key or other offices"
        )
    if known.revoked_at is not None:
        detail = f"serial {serial} was revoked at {known.revoked_at.isoformat()}"
        raise CertificateRejected(Reason.REVOKED, detail, told="revoked")


def _check_validity(offered: OfferedCertificate, now: datetime) -> None:
    # Both clocks are named: a wrong one, ours included, is otherwise taken for a wrong key.
    if now < offered.valid_after:
        raise CertificateRejected(
            Reason.NOT_YET_VALID, f"valid from {offered.valid_after.isoformat()}, here it is {now.isoformat()}"
        )
    if now >= offered.valid_before:
        raise CertificateRejected(
            Reason.EXPIRED,
            f"expired at {offered.valid_before.isoformat()}, here it is {now.isoformat()}",
            told="expired",
        )


def _check_source_address(offered: OfferedCertificate, peer_address: str) -> None:
    allowed = dict(offered.critical_options).get("source-address")
    if allowed is None:
        return
    try:
        peer = ipaddress.ip_address(peer_address.partition("%")[0])
        networks = [ipaddress.ip_network(part.strip()) for part in allowed.split(",")]
    except ValueError as error:
        raise CertificateRejected(Reason.SOURCE_ADDRESS, f"source-address cannot be judged: {error}") from None
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
        # A socket that listens on both families shows IPv4 clients like this.
        peer = peer.ipv4_mapped
    if not any(peer in network for network in networks):
        raise CertificateRejected(Reason.SOURCE_ADDRESS, f"{peer_address} is not within {allowed}")


def examine_certificate(line: str, trusted: frozenset[str], *, now: datetime) -> OfferedCertificate:
    """Return what a certificate that was signed elsewhere claims, seen to be such that the register may know it.

    CertificateRejected where it could never open the door, whoever came with it: another CA, a bad signature, no
    user's, nobody's, over already, with a serial that the register cannot hold.
    """
    offered = parse_certificate_line(line)
    _check_key(offered.key_algorithm, offered.key_bits)
    _check_signatures(offered, None)
    _check_claims(offered, None, trusted)
    if not 0 < offered.serial < 2**63:
        raise malformed(f"serial {offered.serial} is not between 1 and 2^63-1")
    if now >= offered.valid_before:
        _check_validity(offered, now)
    try:
        identity = load_ssh_public_identity(" ".join(line.split()[:2]).encode())
        assert isinstance(identity, SSHCertificate)
        identity.verify_cert_signature()
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        raise CertificateRejected(Reason.BAD_SIGNATURE, "the CA's signature is not good") from None
    return offered


def draw_serial() -> int:
    """Return a random serial of 63 bits, never 0: the store's integers are signed, and 0 means "none" to OpenSSH."""
    return secrets.randbelow(2**63 - 1) + 1


def plan_validity(now: datetime, valid_seconds: int) -> tuple[datetime, datetime]:
    """Return from when until when a certificate issued *now* is valid; it begins `BACKDATED`."""
    start = now.replace(microsecond=0)
    return start - BACKDATED, start + timedelta(seconds=valid_seconds)


def issue_certificate(
    public_key_line: str,
    ca: CaKey | bytes,
    *,
    serial: int,
    key_id: str,
    offices: Sequence[OfficeNumber],
    valid_after: datetime,
    valid_before: datetime,
    label: str = "",
    name: str = "",
    parent: CertificateId | None = None,
    issued_at: datetime | None = None,
    source_address: str | None = None,
) -> tuple[str, Certificate]:
    """Sign an office's public key; return the line of ``-cert.pub`` and the record for the register.

    *ca* is a key, or an OpenSSH private key file's bytes.  *source_address* limits from where it may be used (CIDR
    blocks, with commas).  CertificateRejected where the key is none that the door
    would accept; ValueError where nobody is named.  The record must be in the register before the certificate is
    of any use.
    """
    if not offices:
        raise ValueError("a certificate without principals would be anybody's")
    key = load_certifiable_key(public_key_line)
    line = _sign(
        key,
        ca,
        type_=SSHCertificateType.USER,
        principals=offices,
        serial=serial,
        key_id=key_id,
        valid=(valid_after, valid_before),
        source_address=source_address,
    )
    offered = parse_certificate_line(line)
    comment = "".join(public_key_line.split(maxsplit=2)[2:]).strip()
    record = Certificate(
        ca_fingerprint=offered.ca_fingerprint,
        serial=serial,
        key_id=key_id,
        key_fingerprint=offered.key_fingerprint,
        offices=tuple(offices),
        valid_after=offered.valid_after,
        valid_before=offered.valid_before,
        issued_at=issued_at or offered.valid_after + BACKDATED,
        label=label,
        name=name,
        parent=parent,
        line=f"{line} {comment}".rstrip(),
    )
    return record.line, record


def issue_host_certificate(public_key_line: str, ca: CaKey | bytes, *, serial: int, valid_after: datetime) -> str:
    """Sign the relay's own host key, for every name and for good.

    The relay cannot know the names it is reached by, and the CA signs nothing but this relay: offices limit it to
    the relay's address in their ``known_hosts`` line.
    """
    key = load_certifiable_key(public_key_line)
    return _sign(
        key,
        ca,
        type_=SSHCertificateType.HOST,
        principals=(),
        serial=serial,
        key_id="careplan-relay",
        valid=(valid_after, FOREVER),
    )


def load_ca_key(private: bytes, passphrase: bytes | None = None) -> CaKey:
    """Open an OpenSSH private key file; ValueError or TypeError where it or its passphrase is not right."""
    ca = load_ssh_private_key(private, passphrase)
    if not isinstance(ca, (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise TypeError("a CA key is Ed25519, ECDSA or RSA")
    return ca


def judge_enrolling_key(key_data: bytes, signature_algorithm: str | None) -> str:
    """Return the OpenSSH line of a bare key that asks to be certified; CertificateRejected where it never could be.

    *signature_algorithm* is that of the login's signature, None for a probe.
    """
    length = int.from_bytes(key_data[:4], "big")
    algorithm = key_data[4 : 4 + length].decode("ascii", errors="replace")
    line = f"{algorithm} {base64.b64encode(key_data).decode()}"
    load_certifiable_key(line)
    if signature_algorithm is not None and signature_algorithm not in _ACCEPTED_SIGNATURES:
        raise CertificateRejected(Reason.SIGNATURE_ALGORITHM, f"a signature by {signature_algorithm}")
    return line


def load_certifiable_key(public_key_line: str) -> IssuedKey:
    """Return the key of an OpenSSH public key line; CertificateRejected where the door would not accept it."""
    words = public_key_line.split()
    if words and words[0] in KEY_FIELDS:
        _check_key(words[0], None)
    if words and words[0] in CERTIFICATE_KINDS:
        raise malformed("this is a certificate already; the public key is needed")
    try:
        key = load_ssh_public_key(" ".join(words[:2]).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise malformed("this is no OpenSSH public key (a line beginning with ssh-… or ecdsa-…)") from None
    if isinstance(key, rsa.RSAPublicKey):
        _check_key("ssh-rsa", key.key_size)
        return key
    if isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        return key
    raise CertificateRejected(Reason.KEY_ALGORITHM, f"{words[0]} keys are not accepted")


def _sign(
    key: IssuedKey,
    ca: CaKey | bytes,
    *,
    type_: SSHCertificateType,
    principals: Sequence[str],
    serial: int,
    key_id: str,
    valid: tuple[datetime, datetime],
    source_address: str | None = None,
) -> str:
    if isinstance(ca, bytes):
        ca = load_ca_key(ca)
    after, before = (FOREVER_SECONDS if at >= FOREVER else int(at.timestamp()) for at in valid)
    builder = SSHCertificateBuilder().public_key(key).type(type_).serial(serial).key_id(key_id.encode())
    # No extensions: the relay grants SFTP and nothing that an extension could permit.
    builder = builder.valid_after(after).valid_before(before)
    if principals:
        builder = builder.valid_principals([principal.encode() for principal in principals])
    else:
        builder = builder.valid_for_all_principals()  # type: ignore[no-untyped-call]  # cryptography forgot to annotate
    if source_address is not None:
        builder = builder.add_critical_option(b"source-address", source_address.encode())
    return builder.sign(ca).public_bytes().decode()
