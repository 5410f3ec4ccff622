"""Private key files in OpenSSH's form: made, and read as far as they can be without their passphrase.

The public half stands in front, in the clear (PROTOCOL.key): which CA a locked file is, it says by itself.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from relay.certificates import CaKey

# How such a file begins; behind it cipher, key derivation, its options, and the public key.
_CONTAINER = b"openssh-key-v1\0"
_CONTAINER_FIELDS = 4
_KIND = "OPENSSH PRIVATE KEY"
_BEGIN = f"-----BEGIN {_KIND}-----"


def private_bytes(key: CaKey, passphrase: bytes | None = None) -> bytes:
    """Return an OpenSSH private key file, encrypted where there is a passphrase."""
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection)


def public_line(private: bytes) -> str:
    """Return the public line of an OpenSSH private key file without opening it; ValueError where it is none."""
    blob = _read_container(private)[3]
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii")
    return f"{kind} {base64.b64encode(blob).decode()}"


def has_passphrase(private: bytes) -> bool:
    """Tell whether an OpenSSH private key file needs a passphrase; ValueError where it is none."""
    return _read_container(private)[0] != b"none"


def _read_container(private: bytes) -> list[bytes]:
    """Return cipher, key derivation, its options and the public key (PROTOCOL.key)."""
    lines = private.decode("ascii", errors="replace").strip().splitlines()
    if not lines or lines[0] != _BEGIN:
        raise ValueError("no OpenSSH private key")
    data = base64.b64decode("".join(lines[1:-1]), validate=True)
    if not data.startswith(_CONTAINER):
        raise ValueError("no OpenSSH private key")
    at, fields = len(_CONTAINER), list[bytes]()
    while len(fields) < _CONTAINER_FIELDS:
        # One number, how many keys there are, stands before the key itself.
        at += 4 if len(fields) == _CONTAINER_FIELDS - 1 else 0
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + length > len(data):
            raise ValueError("a damaged private key")
        fields.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return fields
