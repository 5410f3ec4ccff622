"""What an OpenSSH certificate claims: wire bytes in, `OfferedCertificate` out.

Either the bytes parse or `CertificateRejected` is raised, for any bytes whatever: this runs before anybody has
proven anything.  Nothing is verified and no certificate is judged here; `relay.certificates` does that.  What it and
`relay.x509` ask alike, whether the office itself may log in, is `check_holder`.

The parser is our own, because the libraries refuse without a name what the journal must name (DSA keys, unknown
critical options, force-command) and one of them lets an empty list of principals in for anybody.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from relay.errors import finding
from relay.model import Office, OfficeNumber, OfficeStatus

# Ten times a large certificate: RSA 16384, a hundred principals.  More is no certificate.
CERTIFICATE_BYTES = 32 * 1024
# Longer ones are read anew each time: what is kept of those that come again, of whomever, stays below 2 MiB.  The bytes
# of one certificate are not one text: a signature by ECDSA may have any number of zeros in front.
KEPT_BYTES = 2048
# As in OpenSSH; one company with more offices than that gets a second certificate.
PRINCIPALS = 256
TEXT_CHARACTERS = 1024
# What 0xffffffffffffffff, OpenSSH's "forever", and every time beyond the calendar become.
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"
# How many SSH strings the public key of each kind consists of, behind the nonce.
KEY_FIELDS = {
    "ssh-rsa": 2,
    "ssh-dss": 4,
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
# Security keys spell their certificates' names differently.
CERTIFICATE_KINDS = {name.removesuffix("@openssh.com") + CERTIFICATE_SUFFIX: name for name in KEY_FIELDS}
_TYPES: dict[int, Literal["user", "host"]] = {1: "user", 2: "host"}

Told = Literal["expired", "revoked", "suspended", "closed", "moved", "unconfirmed"]


class Reason(StrEnum):
    """Why a certificate does not open the door: a stable word for the journal."""

    MALFORMED = "malformed"
    NO_CERTIFICATE = "no_certificate"
    KEY_ALGORITHM = "key_algorithm"
    KEY_SIZE = "key_size"
    SIGNATURE_ALGORITHM = "signature_algorithm"
    UNKNOWN_CA = "unknown_ca"
    CA_KEY = "ca_key"
    NOT_A_USER_CERTIFICATE = "not_a_user_certificate"
    NO_PRINCIPALS = "no_principals"
    WRONG_PRINCIPAL = "wrong_principal"
    CRITICAL_OPTION = "critical_option"
    FORCE_COMMAND = "force_command"
    UNKNOWN_SERIAL = "unknown_serial"
    REVOKED = "revoked"
    UNKNOWN_OFFICE = "unknown_office"
    SUSPENDED = "suspended"
    # Its time to collect is over, or its number was changed and is over as well.
    CLOSED = "closed"
    MOVED = "moved"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    SOURCE_ADDRESS = "source_address"
    BAD_SIGNATURE = "bad_signature"
    # Of X.509 alone.
    CHAIN = "chain"
    EXTENSION = "extension"
    PURPOSE = "purpose"
    NO_OFFICE = "no_office"
    SEVERAL_OFFICES = "several_offices"
    UNCONFIRMED = "unconfirmed"


class CertificateRejected(Exception):
    """The certificate, or the key to be certified, is not accepted.

    *detail* is the whole reason, for the journal and the operator.  *told* is the one word that the client may
    hear once its signature was good, or None.
    """

    def __init__(self, reason: Reason, detail: str, *, told: Told | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.told: Told | None = told

    def sentence(self, office: str) -> str:
        """Return what the holder of the certificate may hear, in one line."""
        return finding(f"office.{self.told or 'revoked'}", office=office).client_text


def check_holder(office: OfficeNumber, holder: Office | None, now: datetime) -> datetime:
    """Return until when *holder* lets its certificates in; CertificateRejected where *office* may not log in now."""
    if holder is None or holder.number != office:
        raise CertificateRejected(Reason.UNKNOWN_OFFICE, f"office {office} is not registered")
    if holder.may_log_in(now):
        return holder.end.until if holder.status.has_ended and holder.end is not None else FOREVER
    if holder.status is OfficeStatus.CLOSED:
        raise CertificateRejected(Reason.CLOSED, f"office {office} has closed", told="closed")
    if holder.status is OfficeStatus.MOVED:
        raise CertificateRejected(Reason.MOVED, f"the number {office} was changed", told="moved")
    raise CertificateRejected(Reason.SUSPENDED, f"office {office} is suspended", told="suspended")


@dataclass(frozen=True, slots=True)
class OfferedCertificate:
    """What a certificate claims, before anything of it was verified.

    Fingerprints are ``SHA256:…`` as ``ssh-keygen -l`` prints them; times beyond the calendar are `FOREVER`.
    *public_key* and *ca_key* are wire bytes, *signed* is what *ca_signature* must cover.
    """

    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: datetime
    valid_before: datetime
    type: Literal["user", "host"]
    critical_options: tuple[tuple[str, str], ...]
    extensions: tuple[str, ...]
    key_algorithm: str
    key_bits: int | None
    key_fingerprint: str
    ca_fingerprint: str
    ca_signature_algorithm: str
    public_key: bytes = field(repr=False)
    ca_key: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    ca_signature: bytes = field(repr=False)


def parse_certificate(key_data: bytes) -> OfferedCertificate:
    """Read the wire bytes of an OpenSSH certificate, of any key kind (PROTOCOL.certkeys).

    CertificateRejected for everything else, and never another exception.
    """
    return _parse_kept(key_data) if len(key_data) <= KEPT_BYTES else _parse(key_data)


@lru_cache(maxsize=256)
def _parse_kept(key_data: bytes) -> OfferedCertificate:
    return _parse(key_data)


def _parse(key_data: bytes) -> OfferedCertificate:
    if len(key_data) > CERTIFICATE_BYTES:
        raise malformed(f"{len(key_data)} bytes are too many")
    reader = WireReader(key_data)
    kind = read_text(reader.string(), "key type")
    if kind in KEY_FIELDS:
        raise CertificateRejected(Reason.NO_CERTIFICATE, f"a bare {kind} key, no certificate")
    if kind not in CERTIFICATE_KINDS:
        raise CertificateRejected(Reason.KEY_ALGORITHM, f"unknown kind of certificate {kind!r}")
    algorithm = CERTIFICATE_KINDS[kind]
    reader.string()  # nonce
    public_key, bits = _read_key(reader, algorithm)
    serial, type_ = reader.number(8), reader.number(4)
    if type_ not in _TYPES:
        raise malformed(f"certificate type {type_}")
    key_id = read_text(reader.string(), "key id")
    principals = _read_principals(reader.string())
    valid_after, valid_before = (_at(reader.number(8)) for _ in range(2))
    critical_options = _read_options(reader.string(), "critical option")
    extensions = _read_options(reader.string(), "extension")
    reader.string()  # reserved
    ca_key = reader.string()
    signed = reader.consumed
    ca_signature = reader.string()
    reader.end()
    return OfferedCertificate(
        serial=serial,
        key_id=key_id,
        principals=principals,
        valid_after=valid_after,
        valid_before=valid_before,
        type=_TYPES[type_],
        critical_options=tuple((name, _option_text(name, data)) for name, data in critical_options),
        extensions=tuple(name for name, _ in extensions),
        key_algorithm=algorithm,
        key_bits=bits,
        key_fingerprint=fingerprint(public_key),
        ca_fingerprint=fingerprint(ca_key),
        ca_signature_algorithm=signature_algorithm(ca_signature),
        public_key=public_key,
        ca_key=ca_key,
        signed=signed,
        ca_signature=ca_signature,
    )


def parse_certificate_line(line: str) -> OfferedCertificate:
    """Read a certificate as it lies in a ``-cert.pub`` file; CertificateRejected as `parse_certificate`."""
    words = line.split()
    try:
        return parse_certificate(base64.b64decode(words[1], validate=True))
    except (IndexError, ValueError):
        raise malformed("this is no line of an OpenSSH certificate") from None


def signature_algorithm(signature: bytes) -> str:
    """Return the algorithm that an SSH signature blob says it was made with; CertificateRejected if it says none."""
    return read_text(WireReader(signature).string(), "signature algorithm")


def fingerprint(public_key: bytes) -> str:
    """Return ``SHA256:…`` of a public key's wire bytes, as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")


def fingerprint_of_line(public_key_line: str) -> str:
    """Return `fingerprint` of an OpenSSH public key line; CertificateRejected where it is none."""
    words = public_key_line.split()
    try:
        return fingerprint(base64.b64decode(words[1], validate=True))
    except (IndexError, ValueError):
        raise malformed("this is no OpenSSH public key") from None


class WireReader:
    """SSH wire data from front to back; runs out with CertificateRejected."""

    def __init__(self, data: bytes) -> None:
        """Begin in front."""
        self._data = data
        self._at = 0

    @property
    def consumed(self) -> bytes:
        """What was read so far."""
        return self._data[: self._at]

    @property
    def is_done(self) -> bool:
        """True at the end."""
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        """Read so many bytes."""
        if count > len(self._data) - self._at:
            raise malformed("it ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, count: int) -> int:
        """Read an unsigned number of so many bytes."""
        return int.from_bytes(self.take(count), "big")

    def string(self) -> bytes:
        """Read a string with its length in front."""
        return self.take(self.number(4))

    def end(self) -> None:
        """Demand that nothing follows."""
        if not self.is_done:
            raise malformed("bytes follow behind its end")


def malformed(why: str) -> CertificateRejected:
    """Return the rejection of bytes or lines that are no certificate or key at all."""
    return CertificateRejected(Reason.MALFORMED, f"not well-formed: {why}")


def read_text(data: bytes, what: str) -> str:
    """Decode *data* for the journal's eyes: control characters would write lines of their own there."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise malformed(f"the {what} is not UTF-8") from None
    # Python takes every blank but U+0020 for unprintable; a Japanese key id has U+3000.
    if len(text) > TEXT_CHARACTERS or not text.replace("\u3000", " ").isprintable():
        raise malformed(f"the {what} is too long or not printable")
    return text


def _read_key(reader: WireReader, algorithm: str) -> tuple[bytes, int | None]:
    """Return the wire bytes of the plain public key, and the bits of an RSA key."""
    fields = [reader.string() for _ in range(KEY_FIELDS[algorithm])]
    if algorithm.startswith("ecdsa-") and fields[0] != algorithm.removeprefix("ecdsa-sha2-").encode():
        raise malformed("the curve is not the one of the key type")
    bits = None
    if algorithm == "ssh-rsa":
        # A negative modulus has no bits worth having; `_check_key` refuses it as too small.
        bits = max(0, int.from_bytes(fields[1], "big", signed=True)).bit_length()
    parts = [algorithm.encode(), *fields]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts), bits


def _read_principals(data: bytes) -> tuple[str, ...]:
    reader, names = WireReader(data), []
    while not reader.is_done:
        names.append(read_text(reader.string(), "principal"))
        if len(names) > PRINCIPALS:
            raise malformed(f"more than {PRINCIPALS} principals")
    return tuple(names)


def _read_options(data: bytes, what: str) -> tuple[tuple[str, bytes], ...]:
    reader, options = WireReader(data), dict[str, bytes]()
    while not reader.is_done:
        name = read_text(reader.string(), what)
        if name in options:
            raise malformed(f"the {what} {name} stands twice")
        options[name] = reader.string()
    return tuple(options.items())


def _option_text(name: str, data: bytes) -> str:
    """Return an option's value: a string within the string, or nothing for one that is a mere flag."""
    if not data:
        return ""
    reader = WireReader(data)
    text = read_text(reader.string(), f"critical option {name}")
    reader.end()
    return text


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC) if seconds < FOREVER.timestamp() else FOREVER
