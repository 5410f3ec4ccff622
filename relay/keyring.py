"""The keyring: the secrets in ``keys/``, made once, loaded whole or not at all.

``keys/`` holds the user CA (it signs the certificates of offices), the host CA, three host keys with their
certificates, the master key of the vault and the key of the index.  Whoever has a copy of it and of the store can
read everything; whoever has the store alone can read nothing.

Making never overwrites: a file that exists is kept as it is, what is missing is added, and each file appears whole
and synced or not at all.  Loading checks everything and reports all faults at once in a ConfigError that says what
to type.  No secret shows in a message or a repr.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from relay.certificates import (
    BACKDATED,
    CertificateRejected,
    draw_serial,
    fingerprint_of_line,
    issue_host_certificate,
    load_certifiable_key,
    parse_certificate_line,
)
from relay.errors import ConfigError
from relay.vault import MasterKey

HostAlgorithm = Literal["ed25519", "ecdsa", "rsa"]
# In the order in which they are offered: best first, RSA for the oldest libraries.
HOST_ALGORITHMS: tuple[HostAlgorithm, ...] = ("ed25519", "ecdsa", "rsa")
RSA_BITS = 3072
SECRET_BYTES = 32
PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
DIRECTORY_MODE = 0o700
TRUSTED_DIRECTORY = "trusted_user_cas"

# The first word keeps the two from being exchanged by hand, which would look like a broken store.
_MASTER_WORD = "careplan-relay-master-key"
_INDEX_WORD = "careplan-relay-index-key"
_PRIVATE_FILES = ("user_ca", "host_ca", *(f"host_{name}_key" for name in HOST_ALGORITHMS), "master.key", "index.key")
# What only `create_keyring` can make: without them nothing that was sealed or signed before is of use.
IRREPLACEABLE_FILES = ("user_ca", "master.key", "index.key")

_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_HOST_KEY_MAKERS: dict[HostAlgorithm, Callable[[], _PrivateKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, RSA_BITS),
}


@dataclass(frozen=True, slots=True)
class HostKey:
    """One key that the relay proves itself with: OpenSSH private key, and the line of its host certificate."""

    algorithm: HostAlgorithm
    private: bytes = field(repr=False)
    certificate: bytes
    public_line: str


@dataclass(frozen=True, slots=True)
class Keyring:
    """Everything in ``keys/``, checked.

    *user_ca* is the OpenSSH private key file of our own CA.  *trusted_user_cas* are OpenSSH public lines, our own
    first, *user_ca_fingerprints* the same as ``SHA256:…``.  *host_ca* is a public line, for ``known_hosts``.
    """

    path: Path
    user_ca: bytes = field(repr=False)
    user_ca_fingerprint: str
    user_ca_fingerprints: frozenset[str]
    trusted_user_cas: tuple[str, ...]
    host_ca: str
    host_keys: tuple[HostKey, ...]
    master: MasterKey
    index_key: bytes = field(repr=False)


def list_missing(path: Path) -> tuple[str, ...]:
    """Return the names of the private files that *path* does not hold; all of them where it does not exist."""
    return tuple(name for name in _PRIVATE_FILES if not (path / name).exists())


def create_keyring(path: Path) -> Keyring:
    """Make every key that *path* lacks, and load it.  No existing file is changed.

    ConfigError where the directory cannot be written, or where what is there already cannot be loaded.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        path.chmod(DIRECTORY_MODE)
        _sync_directory(path.parent)
        (path / TRUSTED_DIRECTORY).mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        for name in ("user_ca", "host_ca"):
            _publish_pair(path, name, ed25519.Ed25519PrivateKey.generate)
        _publish_host_keys(path)
        _publish_secret(path / "master.key", f"{_MASTER_WORD} {secrets.token_hex(4)}")
        _publish_secret(path / "index.key", _INDEX_WORD)
    except OSError as error:
        raise ConfigError(f"the keys cannot be written to {path}: {error.strerror}") from error
    return load_keyring(path)


def load_keyring(path: Path) -> Keyring:
    """Read and check all of *path*.

    ConfigError names every fault: a file that is missing, may be read by others (with the chmod that mends it),
    or does not hold what it should.
    """
    faults = _Faults()
    if not path.is_dir():
        raise ConfigError(f"there are no keys in {path}: run `relay init` first")
    _check_modes(path, faults)
    faults.raise_if_any()
    user_ca, host_ca = (_load_private(path / name, faults) for name in ("user_ca", "host_ca"))
    faults.raise_if_any()
    own, host_line = _public_line(user_ca), _public_line(host_ca)
    trusted = (own, *_load_trusted(path / TRUSTED_DIRECTORY, faults))
    host_keys = tuple(key for name in HOST_ALGORITHMS if (key := _load_host_key(path, name, host_line, faults)))
    master_id, master = _load_secret(path / "master.key", _MASTER_WORD, 1, faults)
    _, index_key = _load_secret(path / "index.key", _INDEX_WORD, 0, faults)
    faults.raise_if_any()
    return Keyring(
        path=path,
        user_ca=user_ca,
        user_ca_fingerprint=fingerprint_of_line(own),
        user_ca_fingerprints=frozenset(map(fingerprint_of_line, trusted)),
        trusted_user_cas=trusted,
        host_ca=host_line,
        host_keys=host_keys,
        master=MasterKey(master_id, master),
        index_key=index_key,
    )


def publish_file(path: Path, data: bytes, mode: int, *, overwrite: bool = False) -> bool:
    """Make *path* hold *data*, whole and synced with its directory, or leave nothing behind.

    Without *overwrite* an existing file stays and False is returned, also when it appears at the same moment.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # The umask may have taken more than was asked for, never less: say it again.
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            draft.replace(path)
        else:
            # A link, because a rename would replace what is there.
            os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        _sync_directory(path.parent)
    return True


def make_office_key() -> tuple[bytes, str]:
    """Make the key pair for an office that sends none: OpenSSH private key, and its public line.

    ECDSA P-256, the one kind that every client's library accepts (CLIENTS section 4a).
    """
    private = _private_bytes(ec.generate_private_key(ec.SECP256R1()))
    return private, _public_line(private)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private_bytes(key: _PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _public_line(private: bytes) -> str:
    public = load_ssh_private_key(private, None).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _publish_pair(path: Path, name: str, key: Callable[[], _PrivateKey]) -> str:
    """Make sure of a private key and its public file; return the public line."""
    private = path / name
    if not private.exists():
        publish_file(private, _private_bytes(key()), PRIVATE_MODE)
    try:
        line = _public_line(private.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{private} holds no OpenSSH private key: put it back from your backup") from None
    publish_file(path / f"{name}.pub", f"{line} careplan-relay {name}\n".encode(), PUBLIC_MODE)
    return line


def _publish_host_keys(path: Path) -> None:
    ca = (path / "host_ca").read_bytes()
    valid_after = datetime.now(UTC) - BACKDATED
    for name in HOST_ALGORITHMS:
        line = _publish_pair(path, f"host_{name}_key", _HOST_KEY_MAKERS[name])
        certificate = path / f"host_{name}_key-cert.pub"
        if not certificate.exists():
            made = issue_host_certificate(line, ca, serial=draw_serial(), valid_after=valid_after)
            publish_file(certificate, f"{made}\n".encode(), PUBLIC_MODE)


def _publish_secret(path: Path, words: str) -> None:
    if not path.exists():
        secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        publish_file(path, f"{words} {secret}\n".encode(), PRIVATE_MODE)


class _Faults:
    """What is wrong with the keyring, gathered so that it is told at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        self._lines.append(line)

    def raise_if_any(self) -> None:
        if self._lines:
            raise ConfigError("\n".join(self._lines))


def _check_modes(path: Path, faults: _Faults) -> None:
    """Check what is there and who may touch it, before any of it is read."""
    for directory in (path, path / TRUSTED_DIRECTORY):
        if directory.exists() and directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            faults.add(f"{directory} can be written by others, who could exchange keys: chmod 700 {directory}")
    for name in _PRIVATE_FILES:
        file = path / name
        if not file.exists():
            mend = "put it back from your backup" if name in IRREPLACEABLE_FILES else "`relay init` makes it"
            faults.add(f"{file} is missing: {mend}")
        elif not file.is_file():
            faults.add(f"{file} is not a file")
        elif (mode := stat.S_IMODE(file.stat().st_mode)) & (stat.S_IRWXG | stat.S_IRWXO):
            faults.add(f"{file} can be read by others (mode {mode:04o}): chmod 600 {file}")


def _read(path: Path, faults: _Faults) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        faults.add(f"{path} is missing: `relay init` makes it")
    except OSError as error:
        faults.add(f"{path} cannot be read: {error.strerror}")
    return b""


def _load_private(path: Path, faults: _Faults) -> bytes:
    """Return the bytes of an OpenSSH private key that was seen to load."""
    data = _read(path, faults)
    try:
        load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        faults.add(f"{path} holds no OpenSSH private key without a passphrase: put it back from your backup")
    return data


def _load_trusted(path: Path, faults: _Faults) -> Iterator[str]:
    """Yield the CAs of others that the operator trusts, a public key a file."""
    for file in sorted(path.glob("*.pub")) if path.is_dir() else ():
        if file.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            faults.add(f"{file} can be written by others: chmod 644 {file}")
        for line in _read(file, faults).decode(errors="replace").splitlines() or [""]:
            try:
                load_certifiable_key(line)
            except CertificateRejected as rejected:
                faults.add(f"{file} holds no CA that can be trusted: {rejected.detail}")
            else:
                yield " ".join(line.split()[:2])


def _load_host_key(path: Path, name: HostAlgorithm, host_ca: str, faults: _Faults) -> HostKey | None:
    file = path / f"host_{name}_key"
    certificate_file = path / f"host_{name}_key-cert.pub"
    private, certificate = _load_private(file, faults), _read(certificate_file, faults)
    try:
        line = _public_line(private)
        offered = parse_certificate_line(certificate.decode(errors="replace"))
    except (ValueError, UnsupportedAlgorithm, CertificateRejected):
        faults.add(f"{certificate_file} holds no certificate: remove it and run `relay init`")
        return None
    if (offered.key_fingerprint, offered.ca_fingerprint) != (fingerprint_of_line(line), fingerprint_of_line(host_ca)):
        faults.add(f"{certificate_file} is not for {file} and host_ca: remove it and run `relay init`")
    return HostKey(name, private, certificate, line)


def _load_secret(path: Path, word: str, labels: int, faults: _Faults) -> tuple[str, bytes]:
    """Return the label and the 32 bytes of a line ``word [label] base64``."""
    words = _read(path, faults).decode(errors="replace").split()
    try:
        secret = base64.b64decode(words[-1], validate=True)
    except (IndexError, ValueError):
        secret = b""
    if len(words) != labels + 2 or words[0] != word or len(secret) != SECRET_BYTES:
        faults.add(f"{path} does not hold a {word}: put it back from your backup")
        return "", b""
    return words[1], secret
