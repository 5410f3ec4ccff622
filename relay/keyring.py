"""The keyring: the secrets in ``keys/``, loaded whole or not at all (`relay.keymaking` makes them).

``keys/`` holds the user CA (it signs the certificates of offices), the host CA, three host keys with their
certificates, the key that signs receipts, the master key of the vault, the key of the index and the key that seals
the audit.  Whoever has a copy of it and of the store can read everything; whoever has the store alone can read nothing.

The private halves of the two CAs may be missing where they are kept on a machine apart, and may have a passphrase
(`relay.authority` opens them); the server needs the one of the user CA only to renew certificates.

Loading checks everything and reports all faults at once in a ConfigError that says what to type.  No secret shows in a
message or a repr.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from relay.audit import AuditKey
from relay.certificates import (
    CaKey,
    CertificateRejected,
    fingerprint_of_line,
    load_ca_key,
    load_certifiable_key,
    parse_certificate_line,
)
from relay.errors import ConfigError
from relay.privatekeys import has_passphrase, public_line
from relay.vault import MasterKey, Vault
from relay.x509 import Trust
from relay.x509files import load_trust, stamp_files

HostAlgorithm = Literal["ed25519", "ecdsa", "rsa"]
# In the order in which they are offered: best first, RSA for the oldest libraries.
HOST_ALGORITHMS: tuple[HostAlgorithm, ...] = ("ed25519", "ecdsa", "rsa")
SECRET_BYTES = 32
TRUSTED_DIRECTORY = "trusted_user_cas"

# The first word keeps the two from being exchanged by hand, which would look like a broken store.
MASTER_WORD = "careplan-relay-master-key"
INDEX_WORD = "careplan-relay-index-key"
AUDIT_WORD = "careplan-relay-audit-key"
AUDIT_FILE = "audit.key"
_PRIVATE_FILES = (
    *("user_ca", "host_ca", *(f"host_{name}_key" for name in HOST_ALGORITHMS)),
    *("receipt_key", "master.key", "index.key", AUDIT_FILE),
)
# Only their public halves are needed here: the private ones may be kept on a machine apart.
_MAY_BE_APART = ("user_ca", "host_ca")
# While offices learn the line of a new host CA, host keys still show certificates of the one before.
HOST_CA_BEFORE = "host_ca_before"
# There only while the master key is being rotated.
OLD_MASTER = "master.old.key"
# What only `create_keyring` can make: without them nothing that was sealed or signed before is of use.
IRREPLACEABLE_FILES = ("user_ca", "master.key", "index.key")


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

    *user_ca* is the OpenSSH private key file of our own CA, None where it is kept apart.  *trusted_user_cas* are
    OpenSSH public lines, our own first, *user_ca_fingerprints* the same as ``SHA256:…``.  *host_cas* are public
    lines for ``known_hosts``, the current one first.  *receipt_key* is the private key file that receipts are signed
    with, *receipt_line* its public line.  *x509* is what is trusted of outside CAs, at another door.
    """

    path: Path
    user_ca: bytes | None = field(repr=False)
    user_ca_fingerprint: str
    user_ca_fingerprints: frozenset[str]
    trusted_user_cas: tuple[str, ...]
    host_cas: tuple[str, ...]
    host_keys: tuple[HostKey, ...]
    receipt_key: bytes = field(repr=False)
    receipt_line: str
    master: MasterKey
    older_masters: tuple[MasterKey, ...]
    index_key: bytes = field(repr=False)
    audit_key: AuditKey
    x509: Trust

    @property
    def host_ca(self) -> str:
        """The public line of the current host CA."""
        return self.host_cas[0]

    def open_vault(self) -> Vault:
        """Return a vault with these keys, which finds by itself what a rotation of the master key makes."""
        return Vault(
            self.master, self.index_key, older=self.older_masters, find_masters=lambda: find_masters(self.path)
        )


def list_missing(path: Path) -> tuple[str, ...]:
    """Return the names of the private files that *path* does not hold; all of them where it does not exist."""
    return tuple(name for name in _PRIVATE_FILES if not (path / name).exists() and not is_apart(path, name))


def is_apart(path: Path, name: str) -> bool:
    """True where the private half of a CA was taken elsewhere, and its public half says which CA it is."""
    return name in _MAY_BE_APART and not (path / name).exists() and (path / f"{name}.pub").exists()


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
    user_ca, own = _load_ca(path, "user_ca", faults)
    host_cas = tuple(
        _load_ca(path, name, faults)[1]
        for name in ("host_ca", HOST_CA_BEFORE)
        if name != HOST_CA_BEFORE or (path / f"{name}.pub").exists()
    )
    receipt_key = _load_private(path / "receipt_key", faults)
    faults.raise_if_any()
    trusted = tuple(dict.fromkeys((own, *_load_trusted(path / TRUSTED_DIRECTORY, faults))))
    host_keys = tuple(key for name in HOST_ALGORITHMS if (key := _load_host_key(path, name, host_cas, faults)))
    master, *older = _load_masters(path, faults)
    _, index_key = _load_secret(path / "index.key", INDEX_WORD, 0, faults)
    audit_id, audit_key = _load_secret(path / AUDIT_FILE, AUDIT_WORD, 1, faults)
    x509 = load_trust(path, faults.add)
    faults.raise_if_any()
    return Keyring(
        path=path,
        user_ca=user_ca,
        user_ca_fingerprint=fingerprint_of_line(own),
        user_ca_fingerprints=frozenset(map(fingerprint_of_line, trusted)),
        trusted_user_cas=trusted,
        host_cas=host_cas,
        host_keys=host_keys,
        receipt_key=receipt_key,
        receipt_line=public_line(receipt_key),
        master=master,
        older_masters=tuple(older),
        index_key=index_key,
        audit_key=AuditKey(audit_id, audit_key),
        x509=x509,
    )


def find_masters(path: Path) -> tuple[MasterKey, ...]:
    """Return the same as `load_masters`; none where they cannot be read."""
    try:
        return load_masters(path)
    except ConfigError:
        return ()


def load_masters(path: Path) -> tuple[MasterKey, ...]:
    """Return the master keys that *path* holds now, the newest first: two during a rotation.

    ConfigError where one is missing or does not hold what it should.
    """
    faults = _Faults()
    masters = _load_masters(path, faults)
    faults.raise_if_any()
    return masters


def stamp_keyring(path: Path) -> tuple[int, ...]:
    """Return something that changes whenever a file in *path* is made, replaced or removed."""
    folders = (path, path / TRUSTED_DIRECTORY)
    return (*(folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders), *stamp_files(path))


def open_host_ca(path: Path, passphrase: bytes | None) -> CaKey:
    """Return the host CA that certifies at present: the one before, as long as offices know no other.

    ConfigError where its private half is not here, or the passphrase is missing or wrong.
    """
    name = HOST_CA_BEFORE if (path / f"{HOST_CA_BEFORE}.pub").exists() else "host_ca"
    return open_ca(path / name, passphrase)


def open_ca(file: Path, passphrase: bytes | None) -> CaKey:
    """Return a CA's private key; ConfigError as `open_host_ca`."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{file} is not here: it is kept on a machine apart, where it can sign") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    try:
        needs_one = has_passphrase(data)
        if needs_one and passphrase is None:
            raise ConfigError(
                f"{file} has a passphrase: give it in RELAY_CA_PASSPHRASE or in a file named by "
                "RELAY_CA_PASSPHRASE_FILE, or as the systemd credential ca_passphrase"
            )
        return load_ca_key(data, passphrase if needs_one else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "the passphrase is wrong, or the file is damaged" if passphrase else "it holds no OpenSSH private key"
        raise ConfigError(f"{file} cannot be opened: {why}") from None


class _Faults:
    """What is wrong with the keyring, gathered so that it is told at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._spoiled: set[Path] = set()

    def add(self, line: str, *about: Path) -> None:
        """Tell of a fault; not where one of the files that it is *about* is spoiled, as it then only follows from that."""
        if self._spoiled.isdisjoint(about):
            self._lines.append(line)

    def spoil(self, file: Path, line: str) -> None:
        """Tell of a fault with which nothing can be known of what *file* holds."""
        self.add(line, file)
        self._spoiled.add(file)

    def raise_if_any(self) -> None:
        if self._lines:
            raise ConfigError("\n".join(self._lines))


def _check_modes(path: Path, faults: _Faults) -> None:
    """Check what is there and who may touch it, before any of it is read."""
    for directory in (path, path / TRUSTED_DIRECTORY):
        if directory.exists() and directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            faults.add(f"{directory} can be written by others, who could exchange keys: chmod 700 {directory}")
    for name in (*_PRIVATE_FILES, OLD_MASTER):
        file = path / name
        if is_apart(path, name):
            continue
        if not file.exists():
            if name == OLD_MASTER:
                continue
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
        faults.spoil(path, f"{path} is missing: `relay init` makes it")
    except PermissionError as error:
        faults.spoil(path, f"{path} cannot be read: {error.strerror}. It has to belong to whoever runs the relay")
    except OSError as error:
        faults.spoil(
            path,
            f"{path} cannot be read: {error.strerror}. That is the disk's fault, not the key's: look at the disk (`dmesg`), "
            "and leave the file as it is; if it stays so, put it back from your backup, on another disk",
        )
    return b""


def _load_private(path: Path, faults: _Faults) -> bytes:
    """Return the bytes of an OpenSSH private key that was seen to load."""
    data = _read(path, faults)
    try:
        load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        faults.spoil(path, f"{path} holds no OpenSSH private key without a passphrase: put it back from your backup")
    return data


def _load_ca(path: Path, name: str, faults: _Faults) -> tuple[bytes | None, str]:
    """Return a CA's private key file, None where it is kept apart, and its public line."""
    file = path / name
    try:
        if file.exists():
            data = _read(file, faults)
            if not has_passphrase(data):
                load_ssh_private_key(data, None)
            return data, public_line(data)
        public = path / f"{name}.pub"
        line = " ".join(_read(public, faults).decode(errors="replace").split()[:2])
        load_certifiable_key(line)
    except (ValueError, UnsupportedAlgorithm):
        faults.add(f"{file} holds no OpenSSH private key: put it back from your backup", file)
    except CertificateRejected:
        faults.add(f"{public} holds no public key: put it back from your backup", public)
    else:
        return None, line
    return None, ""


def _load_trusted(path: Path, faults: _Faults) -> Iterator[str]:
    """Yield the CAs of others that the operator trusts, a public key a file."""
    for file in sorted(path.glob("*.pub")) if path.is_dir() else ():
        if file.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            faults.add(f"{file} can be written by others: chmod 644 {file}")
        for line in _read(file, faults).decode(errors="replace").splitlines() or [""]:
            try:
                load_certifiable_key(line)
            except CertificateRejected as rejected:
                faults.add(f"{file} holds no CA that can be trusted: {rejected.detail}", file)
            else:
                yield " ".join(line.split()[:2])


def _load_host_key(path: Path, name: HostAlgorithm, host_cas: tuple[str, ...], faults: _Faults) -> HostKey | None:
    file = path / f"host_{name}_key"
    certificate_file = path / f"host_{name}_key-cert.pub"
    private, certificate = _load_private(file, faults), _read(certificate_file, faults)
    try:
        line = public_line(private)
        offered = parse_certificate_line(certificate.decode(errors="replace"))
    except (ValueError, UnsupportedAlgorithm, CertificateRejected):
        faults.add(f"{certificate_file} holds no certificate: remove it and run `relay init`", file, certificate_file)
        return None
    is_ours = offered.ca_fingerprint in map(fingerprint_of_line, host_cas)
    if offered.key_fingerprint != fingerprint_of_line(line) or not is_ours:
        faults.add(f"{certificate_file} is not for {file} and host_ca: remove it and run `relay init`")
    return HostKey(name, private, certificate, line)


def _load_masters(path: Path, faults: _Faults) -> tuple[MasterKey, ...]:
    """Return the master key and, during a rotation, the one before it."""
    masters = [MasterKey(*_load_secret(path / "master.key", MASTER_WORD, 1, faults))]
    old = path / OLD_MASTER
    # No key holds a zero: `destroy_old_master` was stopped before it had removed the file, or in the middle of it.
    if old.is_file() and b"\0" not in _read(old, faults):
        older = MasterKey(*_load_secret(old, MASTER_WORD, 1, faults))
        # The same one twice: a rotation that was stopped before it had drawn the new key.
        masters += [older] if older.id != masters[0].id else []
    return tuple(masters)


def _load_secret(path: Path, word: str, labels: int, faults: _Faults) -> tuple[str, bytes]:
    """Return the label and the 32 bytes of a line ``word [label] base64``."""
    words = _read(path, faults).decode(errors="replace").split()
    try:
        secret = base64.b64decode(words[-1], validate=True)
    except (IndexError, ValueError):
        secret = b""
    if len(words) != labels + 2 or words[0] != word or len(secret) != SECRET_BYTES:
        faults.add(f"{path} does not hold a {word}: put it back from your backup", path)
        return "", b""
    return words[1], secret
