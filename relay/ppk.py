"""PuTTY's own key files, version 3, with the certificate inside (PuTTY's manual, appendix C).

PuTTY 0.78 and WinSCP 6.0, and what is newer, keep a certificate where such a file otherwise has the public key: the
algorithm is the certificate's, the public blob is the certificate, the private blob is that of the bare key.  So one
file is everything that these programs need.

Always with a passphrase: Argon2id, AES-256-CBC, HMAC-SHA-256.  Only ECDSA P-256, which is what the relay makes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

_ENCRYPTION = "aes256-cbc"
# As puttygen chooses them; the passphrase is drawn, so nothing hangs on how slow this is.
_MEMORY_KIB, _PASSES, _LANES = 8192, 13, 1
_SALT_BYTES = 16
_KEY_BYTES, _BLOCK_BYTES, _MAC_BYTES = 32, 16, 32
_LINE = 64


def check_ppk() -> None:
    """Raise UnsupportedAlgorithm where such files cannot be made here: before OpenSSL 3.2 there is no Argon2id."""
    _slow(bytes(_SALT_BYTES))


def write_ppk(key: ec.EllipticCurvePrivateKey, certificate_line: str, passphrase: str, *, comment: str) -> bytes:
    """Return the key file of *key*, whose certificate is the OpenSSH line *certificate_line*; *comment* is ASCII."""
    algorithm, encoded = certificate_line.split()[:2]
    public = base64.b64decode(encoded)
    private = _pad(_mpint(key.private_numbers().private_value))
    salt = secrets.token_bytes(_SALT_BYTES)
    aes_key, vector, mac_key = _derive(passphrase.encode(), salt)
    sealer = Cipher(algorithms.AES256(aes_key), modes.CBC(vector)).encryptor()
    sealed = sealer.update(private) + sealer.finalize()
    told = (algorithm.encode(), _ENCRYPTION.encode(), comment.encode("ascii"), public, private)
    mac = hmac.digest(mac_key, b"".join(map(_string, told)), hashlib.sha256)
    lines = [
        f"PuTTY-User-Key-File-3: {algorithm}",
        f"Encryption: {_ENCRYPTION}",
        f"Comment: {comment}",
        *_blob("Public-Lines", public),
        "Key-Derivation: Argon2id",
        f"Argon2-Memory: {_MEMORY_KIB}",
        f"Argon2-Passes: {_PASSES}",
        f"Argon2-Parallelism: {_LANES}",
        f"Argon2-Salt: {salt.hex()}",
        *_blob("Private-Lines", sealed),
        f"Private-MAC: {mac.hex()}",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _derive(passphrase: bytes, salt: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the key and the initial vector of the cipher, and the key of the MAC."""
    drawn = _slow(salt).derive(passphrase)
    return drawn[:_KEY_BYTES], drawn[_KEY_BYTES:-_MAC_BYTES], drawn[-_MAC_BYTES:]


def _slow(salt: bytes) -> Argon2id:
    length = _KEY_BYTES + _BLOCK_BYTES + _MAC_BYTES
    return Argon2id(salt=salt, length=length, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)


def _mpint(number: int) -> bytes:
    """Return a positive number as SSH writes it (RFC 4251, section 5): a leading zero bit says that it is positive."""
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _pad(data: bytes) -> bytes:
    return data + secrets.token_bytes(-len(data) % _BLOCK_BYTES)


def _blob(title: str, data: bytes) -> list[str]:
    text = base64.b64encode(data).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return [f"{title}: {len(lines)}", *lines]
