"""Invitations: one string that is told by letter or telephone, and opens the way to one certificate.

It holds an id (40 bits), a secret (128 bits), the first 80 bits of the host CA's SHA-256 fingerprint, and 12 bits by
which a slip of the pen is noticed before anything is sent: 52 characters in groups of four.  The alphabet is
Crockford's: no I, L, O or U, and whoever writes one of those, small letters or full-width ones is understood.

The secret is kept as a digest alone.  Pure but for the random source; ``scripts/enroll`` reads the same form with
nothing but Python, and a test holds the two together.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from relay.model import CertificateId, OfficeNumber

ID_BYTES = 5
SECRET_BYTES = 16
CA_BYTES = 10
# Wrong secrets for one id after which it is dead: a guess has one chance in 2^125.
WRONG_MOST = 5

# Crockford's: what cannot be taken for something else, on paper or over the telephone.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MEANT = str.maketrans("ILO", "110")
_BYTES = ID_BYTES + SECRET_BYTES + CA_BYTES
_CHECK_BITS = 12
_BITS = _BYTES * 8 + _CHECK_BITS
_CHARACTERS = _BITS // 5
_GROUP = 4


@dataclass(frozen=True, slots=True)
class Code:
    """What a code holds; *id* as it is shown to the operator."""

    id: str
    secret: bytes
    ca_prefix: bytes

    @property
    def digest(self) -> bytes:
        """What the store keeps of the secret; 128 random bits need no salt and no slow hash."""
        return hashlib.sha256(b"relay-invitation " + self.id.encode() + self.secret).digest()

    def is_of(self, host_cas: Iterable[str]) -> bool:
        """True where one of these CAs' public lines is the one the code was made for."""
        return any(ca_prefix(line) == self.ca_prefix for line in host_cas)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation as the store keeps it; times in UTC.  *wrong* counts secrets that were not its own."""

    id: str
    digest: bytes
    offices: tuple[OfficeNumber, ...]
    label: str
    valid_seconds: int
    made_at: datetime
    expires_at: datetime
    wrong: int = 0
    used_at: datetime | None = None
    cancelled_at: datetime | None = None
    certificate: CertificateId | None = None

    def standing(self, now: datetime) -> str:
        """Return ``used``, ``cancelled``, ``blocked``, ``expired`` or ``open``."""
        if self.used_at is not None:
            return "used"
        if self.cancelled_at is not None:
            return "cancelled"
        if self.wrong >= WRONG_MOST:
            return "blocked"
        return "expired" if now >= self.expires_at else "open"


def draw_code(host_ca: str) -> Code:
    """Draw a new code for the relay whose host CA has that public line."""
    return Code(_encode_id(secrets.token_bytes(ID_BYTES)), secrets.token_bytes(SECRET_BYTES), ca_prefix(host_ca))


def write_code(code: Code) -> str:
    """Return the string that is handed over."""
    data = _decode_id(code.id) + code.secret + code.ca_prefix
    number = int.from_bytes(data, "big") << _CHECK_BITS | _check(data)
    text = _characters(number, _CHARACTERS)
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def read_code(text: str) -> Code:
    """Read a code as somebody typed it; ValueError says what is wrong with it, in English."""
    clean = clean_code(text)
    if len(clean) != _CHARACTERS:
        raise ValueError(f"a code has {_CHARACTERS} letters and digits, this one has {len(clean)}")
    number = 0
    for character in clean:
        if character not in ALPHABET:
            raise ValueError(f"a code has no {character!r} in it")
        number = number << 5 | ALPHABET.index(character)
    data = (number >> _CHECK_BITS).to_bytes(_BYTES, "big")
    if number & ((1 << _CHECK_BITS) - 1) != _check(data):
        raise ValueError("a letter or digit of the code is wrong")
    secret_end = ID_BYTES + SECRET_BYTES
    return Code(_encode_id(data[:ID_BYTES]), data[ID_BYTES:secret_end], data[secret_end:])


def clean_code(text: str) -> str:
    """Return *text* in capitals, without blanks and hyphens, with the letters that were meant."""
    plain = unicodedata.normalize("NFKC", text).upper()
    return "".join(character for character in plain if character.isalnum()).translate(_MEANT)


def ca_prefix(public_line: str) -> bytes:
    """Return the first 80 bits of a public key's SHA-256 fingerprint."""
    return hashlib.sha256(base64.b64decode(public_line.split()[1])).digest()[:CA_BYTES]


def _check(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:2], "big") >> (16 - _CHECK_BITS)


def _characters(number: int, count: int) -> str:
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(count)))


def _encode_id(data: bytes) -> str:
    return _characters(int.from_bytes(data, "big"), ID_BYTES * 8 // 5)


def _decode_id(text: str) -> bytes:
    number = 0
    for character in text:
        number = number << 5 | ALPHABET.index(character)
    return number.to_bytes(ID_BYTES, "big")
