"""Making what `relay.keyring` loads: the keys of a relay, of its hosts and of an office that sends none.

Making never overwrites: a file that exists is kept as it is, what is missing is added, and each file appears whole
and synced or not at all (`relay.publishing`).  Only a rotation replaces a key, and keeps the one before until it has
been seen to work.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from relay.certificates import BACKDATED, CaKey, draw_serial, issue_host_certificate
from relay.errors import ConfigError
from relay.keyring import (
    AUDIT_FILE,
    AUDIT_WORD,
    HOST_ALGORITHMS,
    INDEX_WORD,
    MASTER_WORD,
    OLD_MASTER,
    SECRET_BYTES,
    TRUSTED_DIRECTORY,
    HostAlgorithm,
    Keyring,
    is_apart,
    load_keyring,
    load_masters,
    open_host_ca,
)
from relay.privatekeys import private_bytes, public_line
from relay.publishing import PRIVATE_MODE, PUBLIC_MODE, publish_file, publish_owned, sync_path
from relay.vault import MasterKey
from relay.x509files import ANCHORS_DIRECTORY, LISTS_DIRECTORY

RSA_BITS = 3072
DIRECTORY_MODE = 0o700

_HOST_KEY_MAKERS: dict[HostAlgorithm, Callable[[], CaKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, RSA_BITS),
}


def create_keyring(path: Path, *, passphrase: bytes | None = None) -> Keyring:
    """Make every key that *path* lacks, and load it.  No existing private key or certificate is changed.

    *passphrase* is that of the host CA, if it has one and certifies a host key now.  ConfigError where the directory
    cannot be written, or where what is there already cannot be loaded.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        path.chmod(DIRECTORY_MODE)
        sync_path(path.parent)
        for folder in (TRUSTED_DIRECTORY, ANCHORS_DIRECTORY, LISTS_DIRECTORY):
            (path / folder).mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        for name in ("user_ca", "host_ca", "receipt_key"):
            if not is_apart(path, name):
                publish_pair(path, name, ed25519.Ed25519PrivateKey.generate)
        _publish_host_keys(path, passphrase)
        publish_file(path / "master.key", _draw_secret(MASTER_WORD), PRIVATE_MODE)
        publish_file(path / "index.key", _draw_secret(INDEX_WORD, has_id=False), PRIVATE_MODE)
        publish_audit_key(path)
    except OSError as error:
        raise ConfigError(f"the keys cannot be written to {path}: {error.strerror}") from error
    return load_keyring(path)


def _publish_host_keys(path: Path, passphrase: bytes | None) -> None:
    ca: CaKey | None = None
    for name in HOST_ALGORITHMS:
        publish_pair(path, f"host_{name}_key", _HOST_KEY_MAKERS[name])
        if not (path / f"host_{name}_key-cert.pub").exists():
            ca = ca or open_host_ca(path, passphrase)
            publish_host_certificate(path, name, ca)


def publish_pair(path: Path, name: str, key: Callable[[], CaKey], passphrase: bytes | None = None) -> str:
    """Make sure of a private key and its public file; return the public line."""
    private = path / name
    if not private.exists():
        publish_file(private, private_bytes(key(), passphrase), PRIVATE_MODE)
    try:
        line = public_line(private.read_bytes())
    except ValueError:
        raise ConfigError(f"{private} holds no OpenSSH private key: put it back from your backup") from None
    publish_public(path, name, line)
    return line


def publish_public(path: Path, name: str, line: str) -> None:
    """Make the public file of *name* say *line*; one that does already is left as it is."""
    file = path / f"{name}.pub"
    if not file.exists() or file.read_text(encoding="utf-8", errors="replace").split()[:2] != line.split()[:2]:
        publish_file(file, f"{line} careplan-relay {name}\n".encode(), PUBLIC_MODE, overwrite=True)


def make_host_key(algorithm: HostAlgorithm) -> CaKey:
    """Make a new host key."""
    return _HOST_KEY_MAKERS[algorithm]()


def publish_host_certificate(path: Path, algorithm: HostAlgorithm, ca: CaKey) -> None:
    """Let *ca* certify a host key anew."""
    line = public_line((path / f"host_{algorithm}_key").read_bytes())
    made = issue_host_certificate(line, ca, serial=draw_serial(), valid_after=datetime.now(UTC) - BACKDATED)
    publish_file(path / f"host_{algorithm}_key-cert.pub", f"{made}\n".encode(), PUBLIC_MODE, overwrite=True)


def publish_audit_key(path: Path) -> None:
    """Make the key of the audit where *path* has none; the caller has seen that no history was sealed with one."""
    publish_owned(path / AUDIT_FILE, _draw_secret(AUDIT_WORD))


def _draw_secret(word: str, *, has_id: bool = True) -> bytes:
    """Draw a secret, as the line that `relay.keyring` reads: what it is, the id where it has one, and the secret."""
    secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    return (f"{word} {secrets.token_hex(4)} {secret}\n" if has_id else f"{word} {secret}\n").encode()


def begin_master_rotation(path: Path) -> tuple[MasterKey, MasterKey]:
    """Make a new master key beside the old one, or find those of a rotation that was begun; return old and new.

    The old one is kept as ``master.old.key`` before the new one takes its place: at no moment is either missing.
    ConfigError where the keys cannot be read or written.
    """
    masters = load_masters(path)
    current, old_file = path / "master.key", path / OLD_MASTER
    try:
        if len(masters) == 1:
            publish_owned(old_file, current.read_bytes(), overwrite=True)
            publish_owned(current, _draw_secret(MASTER_WORD), overwrite=True)
            masters = load_masters(path)
    except OSError as error:
        raise ConfigError(f"the keys cannot be written to {path}: {error.strerror}") from error
    new, old = masters
    return old, new


def destroy_old_master(path: Path) -> None:
    """Overwrite and remove the master key that was rotated out; nothing where there is none."""
    file = path / OLD_MASTER
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, bytes(file.stat().st_size), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        file.unlink()
        sync_path(path)


def draw_office_key() -> ec.EllipticCurvePrivateKey:
    """Draw a key for an office that sends none.

    ECDSA P-256, the one kind that every client's library accepts (CLIENTS section 4a).
    """
    return ec.generate_private_key(ec.SECP256R1())


def make_office_key() -> tuple[bytes, str]:
    """Make the key pair for an office that sends none: OpenSSH private key, and its public line."""
    private = private_bytes(draw_office_key())
    return private, public_line(private)
