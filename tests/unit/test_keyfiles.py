"""Public keys come in the forms people send, and nothing else is taken for one."""

from __future__ import annotations

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refused
from relay.keyfiles import KEY_FILE_BYTES, read_public_key, refuse_at_once

KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
KEY_LINE = KEY.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
BODY = KEY_LINE.split()[1]


def test_a_public_key_is_read_as_openssh_putty_and_pem_write_it() -> None:
    """OpenSSH's line with its comment, PuTTYgen's file, OpenSSL's PEM, and Notepad's UTF-16."""
    assert read_public_key(f"{KEY_LINE} ケアソフト\n".encode()) == f"{KEY_LINE} ケアソフト"
    assert read_public_key(f"\ufeff{KEY_LINE}".encode("utf-16-le")) == KEY_LINE
    putty = (
        f'---- BEGIN SSH2 PUBLIC KEY ----\nComment: "pc-3"\n{BODY[:64]}\n{BODY[64:]}\n---- END SSH2 PUBLIC KEY ----\n'
    )
    assert read_public_key(putty.encode()) == f"{KEY_LINE} pc-3"
    assert read_public_key(KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)) == KEY_LINE


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "it was not kept"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "it was not kept"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "PEM"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\n!!!!\n", "damaged"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\nComment: x\n", "damaged"),
        (b"", "0 lines"),
        (b"ssh-ed25519 A\nssh-ed25519 B\n", "2 lines"),
    ],
)
def test_what_is_no_public_key_is_refused_in_words(data: bytes, words: str) -> None:
    """Above all a private key, sent by mistake."""
    with pytest.raises(Refused, match=words):
        read_public_key(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_refused(data: bytes) -> None:
    """Nothing but Refused comes out of a file somebody sent."""
    for whole in (data, b"---- BEGIN SSH2 PUBLIC KEY ----\n" + data, b"\xff\xfe" + base64.b64encode(data)):
        with contextlib.suppress(Refused):
            assert "\n" not in read_public_key(whole)


def test_what_can_be_seen_at_once_is_refused_at_once() -> None:
    """A private key, something binary or something large is refused by its first bytes; the start of a key is not."""
    for data in (b"-----BEGIN RSA PRIVATE KEY-----\nMII", b"PK\3\4\0\0\xff", KEY_LINE.encode() + b"x" * KEY_FILE_BYTES):
        with pytest.raises(Refused):
            refuse_at_once(data)
    refuse_at_once(KEY_LINE[:40].encode())
