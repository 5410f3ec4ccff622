"""Public keys as offices send them: OpenSSH, PuTTY and PEM files become one OpenSSH line.

Read from whatever people and programs make of a ``.pub`` file; refused, in words for a clerk, is everything else, and
above all a private key.  Whether the key is good enough to be certified is for `relay.certificates` to say.
"""

from __future__ import annotations

import base64

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from relay.errors import Refused

# Ten times the file of an RSA key of 16384 bits.
KEY_FILE_BYTES = 16 * 1024

_PUTTY_BEGIN = "---- BEGIN SSH2 PUBLIC KEY ----"
_PEM_BEGIN = "-----BEGIN"
_PUTTY_END = "---- END SSH2 PUBLIC KEY ----"
# What people send by mistake.
_PRIVATE_MARKS = ("PRIVATE KEY-----", "PuTTY-User-Key-File")


def read_public_key(data: bytes) -> str:
    """Return the OpenSSH line of a public key file.

    Refused ``certificate.private_key`` or ``certificate.not_a_key``.
    """
    text = _decode(data)
    refuse_at_once(data)
    if text.startswith(_PUTTY_BEGIN):
        return _from_putty(text)
    if text.startswith(_PEM_BEGIN):
        return _from_pem(text.encode())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise _not_a_key(
            f"鍵が{len(lines)}行あります。1行必要です", f"one key is needed, the file has {len(lines)} lines"
        )
    return lines[0].strip()


def refuse_at_once(data: bytes) -> None:
    """Refuse what can already be seen to be no public key from how it begins, or from its size.

    Several programs notice an error while they write and none when they close (CLIENTS section 2c).
    """
    if len(data) > KEY_FILE_BYTES:
        raise _not_a_key("大きすぎます", "it is too large")
    text = _decode(data)
    if any(mark in text for mark in _PRIVATE_MARKS):
        raise Refused("certificate.private_key")
    if "\0" in text or "\ufffd" in text:
        raise _not_a_key("文字のファイルではありません", "it is no text")


def _decode(data: bytes) -> str:
    # Notepad writes UTF-16 with a byte order mark when it feels like it.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(encoding, errors="replace").strip()


def _not_a_key(why_ja: str, why: str) -> Refused:
    return Refused("certificate.not_a_key", why_ja=why_ja, why=why)


def _from_putty(text: str) -> str:
    """Read RFC 4716, what PuTTYgen's "Save public key" writes."""
    comment, body, is_continued = "", "", False
    for line in text.splitlines()[1:]:
        if line.strip() == _PUTTY_END:
            break
        if is_continued or ":" in line:
            if line.startswith("Comment:"):
                comment = line.removeprefix("Comment:").strip().strip('"')
            is_continued = line.endswith("\\")
        else:
            body += line.strip()
    try:
        blob = base64.b64decode(body, validate=True)
        kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii")
    except ValueError:
        kind = ""
    if not kind:
        raise _not_a_key("PuTTY の公開鍵が壊れています", "this PuTTY public key is damaged")
    return f"{kind} {body} {comment}".strip()


def _from_pem(data: bytes) -> str:
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, rsa.RSAPublicKey)):
        raise _not_a_key("使える公開鍵が入っていません", "this PEM file holds no ECDSA, Ed25519 or RSA public key")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
