"""Public keys as offices send them: OpenSSH, PuTTY and PEM files become one OpenSSH line."""

from __future__ import annotations

import base64

from relay.cli.terminal import CommandRefused

_PUTTY_BEGIN = "---- BEGIN SSH2 PUBLIC KEY ----"
_PUTTY_END = "---- END SSH2 PUBLIC KEY ----"
# What people send by mistake.
_PRIVATE_MARKS = ("PRIVATE KEY-----", "PuTTY-User-Key-File")


def read_public_key(data: bytes) -> str:
    """Return the OpenSSH line of a public key file; whether the key is good enough is for issuing to say.

    CommandRefused where it is no public key, and above all where it is a private one.
    """
    # Notepad writes UTF-16 with a byte order mark when it feels like it.
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace").strip()
    if any(mark in text for mark in _PRIVATE_MARKS):
        raise CommandRefused("this is a private key: it should never leave its office; the .pub file is needed")
    if text.startswith(_PUTTY_BEGIN):
        return _from_putty(text)
    if text.startswith("-----BEGIN"):
        return _from_pem(text.encode())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise CommandRefused(f"one public key is needed, the file has {len(lines)} lines")
    return lines[0].strip()


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
        raise CommandRefused("this PuTTY public key is damaged")
    return f"{kind} {body} {comment}".strip()


def _from_pem(data: bytes) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, rsa.RSAPublicKey)):
        raise CommandRefused("this PEM file holds no ECDSA, Ed25519 or RSA public key")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
