"""Signatures in OpenSSH's own form (PROTOCOL.sshsig): made here, checked here, or by anybody with ``ssh-keygen -Y``.

Ed25519 only, which needs no random source: the same message signed with the same key is the same signature, byte for
byte, so a signed text can be made again whenever it is read and need not be stored.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.errors import RelayError

_MAGIC = b"SSHSIG"
_VERSION = 1
_HASH = b"sha512"
_KIND = b"ssh-ed25519"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE = 70
_NAMESPACES = re.compile(r'namespaces="([^"]*)"')
# A signature is some 300 bytes; what is much longer is none.
_MOST_BYTES = 10_000


class SignatureInvalid(RelayError):
    """A signature that does not stand: it is none, belongs to another text, or its key is not among the signers."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed: the name under which the key is allowed to, and the key's fingerprint (``SHA256:…``)."""

    principal: str
    fingerprint: str


def sign(message: bytes, key: Ed25519PrivateKey, *, namespace: str) -> bytes:
    """Return the armoured signature of *message*, as ``ssh-keygen -Y sign -n NAMESPACE`` makes it."""
    public = _public_blob(key.public_key())
    signature = key.sign(_signed_data(message, namespace.encode()))
    blob = (
        _MAGIC
        + struct.pack(">I", _VERSION)
        + _string(public)
        + _string(namespace.encode())
        + _string(b"")
        + _string(_HASH)
        + _string(_string(_KIND) + _string(signature))
    )
    text = base64.b64encode(blob).decode()
    lines = [_BEGIN, *(text[at : at + _LINE] for at in range(0, len(text), _LINE)), _END]
    return ("\n".join(lines) + "\n").encode()


def verify(message: bytes, armoured: bytes, signers: Iterable[str], *, namespace: str) -> Signer:
    """Check *armoured* against *message* and the lines of an allowed-signers file (ssh-keygen(1), ALLOWED SIGNERS).

    SignatureInvalid says in words why it does not stand.
    """
    public, signature = _parse(armoured, namespace.encode())
    principal = _find_principal(public, signers, namespace)
    try:
        Ed25519PublicKey.from_public_bytes(public[-32:]).verify(signature, _signed_data(message, namespace.encode()))
    except InvalidSignature:
        raise SignatureInvalid("the signature does not belong to this text: one of the two was changed") from None
    return Signer(principal, "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("="))


def signer_line(principal: str, public_line: str, *, namespace: str) -> str:
    """Return the line of an allowed-signers file that lets a key sign in one namespace."""
    return f'{principal} namespaces="{namespace}" {" ".join(public_line.split()[:2])}'


def _find_principal(public: bytes, signers: Iterable[str], namespace: str) -> str:
    wanted = base64.b64encode(public).decode()
    for line in signers:
        words = line.split()
        if line.lstrip().startswith("#") or wanted not in words[1:]:
            continue
        if (limited := _NAMESPACES.search(line)) is None or namespace in limited[1].split(","):
            return words[0]
    raise SignatureInvalid("it was signed with a key that is not among the allowed signers")


def _parse(armoured: bytes, namespace: bytes) -> tuple[bytes, bytes]:
    """Return the public key's blob and the signature; SignatureInvalid where it is none of ours."""
    lines = armoured[:_MOST_BYTES].decode("ascii", errors="replace").split()
    text = " ".join(lines)
    if not text.startswith(_BEGIN) or not text.endswith(_END):
        raise SignatureInvalid("this is no SSH signature")
    try:
        blob = base64.b64decode(text[len(_BEGIN) : -len(_END)].replace(" ", ""), validate=True)
        if blob[:6] != _MAGIC or blob[6:10] != struct.pack(">I", _VERSION):
            raise SignatureInvalid("this is no SSH signature of version 1")
        fields = _fields(blob[10:], 5)
        kind, signature = _fields(fields[4], 2)
    except (ValueError, struct.error):
        raise SignatureInvalid("this is a damaged SSH signature") from None
    if fields[1] != namespace:
        raise SignatureInvalid(f"it was signed for another purpose ({fields[1].decode(errors='replace')!r})")
    if fields[3] != _HASH or kind != _KIND or fields[0][:15] != _string(_KIND):
        raise SignatureInvalid("it was signed with another kind of key than a relay's")
    return fields[0], signature


def _fields(data: bytes, count: int) -> list[bytes]:
    """Return *count* length-prefixed strings and nothing behind them; ValueError otherwise."""
    found, at = [], 0
    for _ in range(count):
        (length,) = struct.unpack_from(">I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        if len(found[-1]) != length:
            raise ValueError("cut short")
        at += 4 + length
    if at != len(data):
        raise ValueError("too long")
    return found


def _signed_data(message: bytes, namespace: bytes) -> bytes:
    digest = hashlib.sha512(message).digest()
    return _MAGIC + _string(namespace) + _string(b"") + _string(_HASH) + _string(digest)


def _public_blob(key: Ed25519PublicKey) -> bytes:
    return base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
