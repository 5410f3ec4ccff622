"""The key revocation list: what was revoked, in the form that OpenSSH reads (PROTOCOL.krl).

The relay asks its own register at every login and needs no such list.  It is for everybody else who trusts the
relay's CA: an OpenSSH server's ``RevokedKeys``, and an auditor with ``ssh-keygen -Q -l -f``.

Not signed: OpenSSH never verified signatures of these lists, and ignores them since 9.4.  Who needs one signs the
file with ``ssh-keygen -Y sign``.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

_MAGIC = b"SSHKRL\n\0"
_FORMAT_VERSION = 1
_SECTION_CERTIFICATES = 1
_SECTION_FINGERPRINT_SHA256 = 5
_CERTIFICATES_SERIAL_LIST = 0x20
_CERTIFICATES_KEY_ID = 0x23
_SHA256_PREFIX = "SHA256:"


@dataclass(frozen=True, slots=True)
class RevokedOfCa:
    """What one CA's certificates are revoked by: serials and key ids."""

    serials: Sequence[int] = ()
    key_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class RevokedKeys:
    """Everything for one list: by CA (the wire bytes of its public key), and keys by their ``SHA256:…``."""

    by_ca: Mapping[bytes, RevokedOfCa] = field(default_factory=dict)
    keys: Sequence[str] = ()


def write_krl(revoked: RevokedKeys, *, version: int, now: datetime, comment: str = "") -> bytes:
    """Return the list as a file.

    *version* must grow from one list to the next.  The same facts make the same bytes.
    """
    parts = [_MAGIC, struct.pack(">IQQQ", _FORMAT_VERSION, version, int(now.timestamp()), 0)]
    parts += [_string(b""), _string(comment.encode())]
    for ca_key, of_ca in sorted(revoked.by_ca.items()):
        body = _string(ca_key) + _string(b"")
        # 0 is what a certificate without a serial has: OpenSSH refuses it in a list.
        if serials := sorted({serial for serial in of_ca.serials if serial}):
            body += _section(_CERTIFICATES_SERIAL_LIST, struct.pack(f">{len(serials)}Q", *serials))
        if of_ca.key_ids:
            body += _section(_CERTIFICATES_KEY_ID, _strings(sorted({key_id.encode() for key_id in of_ca.key_ids})))
        parts.append(_section(_SECTION_CERTIFICATES, body))
    if revoked.keys:
        parts.append(_section(_SECTION_FINGERPRINT_SHA256, _strings(sorted(set(map(_digest, revoked.keys))))))
    return b"".join(parts)


def _digest(fingerprint: str) -> bytes:
    data = fingerprint.removeprefix(_SHA256_PREFIX)
    return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)


def _section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _string(body)


def _strings(values: Iterable[bytes]) -> bytes:
    return b"".join(map(_string, values))


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
