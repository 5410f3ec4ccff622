"""Outside CAs for tests: X.509 certificates, chains and revocation lists, good ones and bad ones.

Whatever a real CA would not do is done with the same hands: every field can be set to anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY = timedelta(days=1)
SSH_CLIENT = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.21")
TLS_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
TLS_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def now() -> datetime:
    """Return this second."""
    return datetime.now(UTC).replace(microsecond=0)


def new_key() -> Key:
    """Make a key such as most CAs make."""
    return ec.generate_private_key(ec.SECP256R1())


def name_of(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """Return a name of these parts."""
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def usage(*allowed: str) -> x509.KeyUsage:
    """Return a key usage."""
    return x509.KeyUsage(**{each: each in allowed for each in _USAGES})


@dataclass
class Holder:
    """Somebody with a certificate: a CA, or an office; *issuer* is None where it certified itself."""

    key: Key
    certificate: x509.Certificate
    issuer: Holder | None = None

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate as a file."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def line(self) -> list[Holder]:
        """This one and the CAs above it, without the one that certified itself."""
        return [self, *(self.issuer.line if self.issuer and self.issuer.issuer else [])]

    @property
    def ssh_key(self) -> asyncssh.SSHKey:
        """The private key, for asyncssh."""
        return asyncssh.import_private_key(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def chain(self, *, kind: bytes = b"x509v3-ecdsa-sha2-nistp256", of: Sequence[Holder] | None = None) -> bytes:
        """Return the wire bytes of RFC 6187 section 2."""
        return wire_chain(kind, [one.der for one in (self.line if of is None else of)])

    def certify(self, name: str | x509.Name, *, key: Key | None = None, **chosen: object) -> Holder:
        """Give somebody a certificate."""
        key = key or new_key()
        return Holder(key, make_certificate(name, key, self, **chosen), self)  # type: ignore[arg-type]

    def certify_ca(self, name: str, *, key: Key | None = None, **chosen: object) -> Holder:
        """Make somebody a CA."""
        return self.certify(name, key=key, **{**_OF_CAS, **chosen})

    def list_revoked(
        self,
        revoked: Iterable[x509.Certificate] = (),
        *,
        key: Key | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """Return a revocation list (PEM), signed by *key* instead where given."""
        since = since or now() - DAY
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(since).next_update(until or now() + DAY)
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.serial_number).revocation_date(since)
            builder = builder.add_revoked_certificate(entry.build())
        for value, is_critical in extensions:
            builder = builder.add_extension(value, critical=is_critical)
        return builder.sign(key or self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


_OF_CAS: dict[str, object] = {"ca": True, "path_length": None, "key_usage": usage("key_cert_sign", "crl_sign")}


def make_root(name: str = "Outside Root", *, key: Key | None = None, **chosen: object) -> Holder:
    """Make a CA that certifies itself."""
    key = key or new_key()
    return Holder(key, make_certificate(name, key, None, **{**_OF_CAS, **chosen}))  # type: ignore[arg-type]


def make_certificate(
    name: str | x509.Name,
    key: Key,
    issuer: Holder | None,
    *,
    signing_key: Key | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    ca: bool = False,
    path_length: int | None = None,
    key_usage: x509.KeyUsage | None = usage("digital_signature"),  # noqa: B008 - a value
    purposes: Sequence[x509.ObjectIdentifier] = (),
    alternatives: Sequence[x509.GeneralName] = (),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    digest: hashes.HashAlgorithm = hashes.SHA256(),  # noqa: B008 - a value
) -> x509.Certificate:
    """Make a certificate; *signing_key* signs instead of the issuer's."""
    subject = name if isinstance(name, x509.Name) else name_of((NameOID.COMMON_NAME, name))
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.issuer_name(issuer.certificate.subject if issuer else subject)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(since or now() - DAY).not_valid_after(until or now() + 30 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    for value, is_critical in extensions:
        builder = builder.add_extension(value, critical=is_critical)
    return builder.sign(signing_key or (issuer.key if issuer else key), digest)


def wire_chain(kind: bytes, certificates: Sequence[bytes], responses: Sequence[bytes] = ()) -> bytes:
    """Return the wire bytes of a chain, whatever is in it."""

    def strings(values: Sequence[bytes]) -> bytes:
        return len(values).to_bytes(4, "big") + b"".join(len(one).to_bytes(4, "big") + one for one in values)

    return len(kind).to_bytes(4, "big") + kind + strings(certificates) + strings(responses)


def trust(keys: Path, *cas: Holder) -> None:
    """Put CAs where the relay looks for those it trusts."""
    for number, ca in enumerate(cas):
        (keys / "trusted_x509_cas" / f"ca{number}.pem").write_bytes(ca.pem)


def publish_lists(keys: Path, *lists: bytes) -> None:
    """Put revocation lists where the relay looks for them."""
    for number, one in enumerate(lists):
        (keys / "x509_crls" / f"list{number}.crl").write_bytes(one)
