"""The keyring: the secrets in ``keys/``, made once, loaded whole or not at all.

``keys/`` holds the user CA (it signs the certificates of offices), the host CA, three host keys with their
certificates, the key that signs receipts, the master key of the vault, the key of the index and the key that seals
the audit.  Whoever has a copy of it and of the store can read everything; whoever has the store alone can read nothing.

The private halves of the two CAs may be missing where they are kept on a machine apart, and may have a passphrase
(`relay.authority` opens them); the server needs the one of the user CA only to renew certificates.

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
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from relay.audit import AuditKey
from relay.certificates import (
    BACKDATED,
    CaKey,
    CertificateRejected,
    draw_serial,
    fingerprint_of_line,
    issue_host_certificate,
    load_ca_key,
    load_certifiable_key,
    parse_certificate_line,
)
from relay.errors import ConfigError
from relay.privatekeys import has_passphrase, private_bytes, public_line
from relay.vault import MasterKey, Vault
from relay.x509 import Trust
from relay.x509files import ANCHORS_DIRECTORY, LISTS_DIRECTORY, load_trust, stamp_files

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
_AUDIT_WORD = "careplan-relay-audit-key"
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

_HOST_KEY_MAKERS: dict[HostAlgorithm, Callable[[], CaKey]] = {
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
    return tuple(name for name in _PRIVATE_FILES if not (path / name).exists() and not _is_apart(path, name))


def _is_apart(path: Path, name: str) -> bool:
    """True where the private half of a CA was taken elsewhere, and its public half says which CA it is."""
    return name in _MAY_BE_APART and not (path / name).exists() and (path / f"{name}.pub").exists()


def create_keyring(path: Path, *, passphrase: bytes | None = None) -> Keyring:
    """Make every key that *path* lacks, and load it.  No existing private key or certificate is changed.

    *passphrase* is that of the host CA, if it has one and certifies a host key now.  ConfigError where the directory
    cannot be written, or where what is there already cannot be loaded.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        path.chmod(DIRECTORY_MODE)
        _sync_directory(path.parent)
        for folder in (TRUSTED_DIRECTORY, ANCHORS_DIRECTORY, LISTS_DIRECTORY):
            (path / folder).mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        for name in ("user_ca", "host_ca", "receipt_key"):
            if not _is_apart(path, name):
                publish_pair(path, name, ed25519.Ed25519PrivateKey.generate)
        _publish_host_keys(path, passphrase)
        _publish_secret(path / "master.key", f"{_MASTER_WORD} {secrets.token_hex(4)}")
        _publish_secret(path / "index.key", _INDEX_WORD)
        publish_audit_key(path)
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
    _, index_key = _load_secret(path / "index.key", _INDEX_WORD, 0, faults)
    audit_id, audit_key = _load_secret(path / AUDIT_FILE, _AUDIT_WORD, 1, faults)
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
    """Return the master keys that *path* holds now, the newest first; none where they cannot be read."""
    faults = _Faults()
    masters = _load_masters(path, faults)
    return () if faults else masters


def begin_master_rotation(path: Path) -> tuple[MasterKey, MasterKey]:
    """Make a new master key beside the old one, or find those of a rotation that was begun; return old and new.

    The old one is kept as ``master.old.key`` before the new one takes its place: at no moment is either missing.
    ConfigError where the keys cannot be read or written.
    """
    faults = _Faults()
    masters = _load_masters(path, faults)
    faults.raise_if_any()
    current, old_file = path / "master.key", path / OLD_MASTER
    try:
        if len(masters) == 1:
            _publish_owned(old_file, current.read_bytes(), overwrite=True)
            secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
            _publish_owned(current, f"{_MASTER_WORD} {secrets.token_hex(4)} {secret}\n".encode(), overwrite=True)
            masters = _load_masters(path, faults)
            faults.raise_if_any()
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
        _sync_directory(path)


def _publish_owned(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Publish a private file that belongs to whom its folder belongs to: root may have typed the command."""
    publish_file(path, data, PRIVATE_MODE, overwrite=overwrite)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def publish_audit_key(path: Path) -> None:
    """Make the key of the audit where *path* has none; the caller has seen that no history was sealed with one."""
    secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    _publish_owned(path / AUDIT_FILE, f"{_AUDIT_WORD} {secrets.token_hex(4)} {secret}\n".encode())


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


def draw_office_key() -> ec.EllipticCurvePrivateKey:
    """Draw a key for an office that sends none.

    ECDSA P-256, the one kind that every client's library accepts (CLIENTS section 4a).
    """
    return ec.generate_private_key(ec.SECP256R1())


def make_office_key() -> tuple[bytes, str]:
    """Make the key pair for an office that sends none: OpenSSH private key, and its public line."""
    private = private_bytes(draw_office_key())
    return private, public_line(private)


def stamp_keyring(path: Path) -> tuple[int, ...]:
    """Return something that changes whenever a file in *path* is made, replaced or removed."""
    folders = (path, path / TRUSTED_DIRECTORY)
    return (*(folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders), *stamp_files(path))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _publish_host_keys(path: Path, passphrase: bytes | None) -> None:
    ca: CaKey | None = None
    for name in HOST_ALGORITHMS:
        publish_pair(path, f"host_{name}_key", _HOST_KEY_MAKERS[name])
        if not (path / f"host_{name}_key-cert.pub").exists():
            ca = ca or open_host_ca(path, passphrase)
            publish_host_certificate(path, name, ca)


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

    def __bool__(self) -> bool:
        return bool(self._lines)

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
        if _is_apart(path, name):
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
        faults.add(f"{file} holds no OpenSSH private key: put it back from your backup")
    except CertificateRejected:
        faults.add(f"{public} holds no public key: put it back from your backup")
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
                faults.add(f"{file} holds no CA that can be trusted: {rejected.detail}")
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
        faults.add(f"{certificate_file} holds no certificate: remove it and run `relay init`")
        return None
    is_ours = offered.ca_fingerprint in map(fingerprint_of_line, host_cas)
    if offered.key_fingerprint != fingerprint_of_line(line) or not is_ours:
        faults.add(f"{certificate_file} is not for {file} and host_ca: remove it and run `relay init`")
    return HostKey(name, private, certificate, line)


def _load_masters(path: Path, faults: _Faults) -> tuple[MasterKey, ...]:
    """Return the master key and, during a rotation, the one before it."""
    masters = [MasterKey(*_load_secret(path / "master.key", _MASTER_WORD, 1, faults))]
    old = path / OLD_MASTER
    # No key holds a zero: `destroy_old_master` was stopped before it had removed the file, or in the middle of it.
    if old.is_file() and b"\0" not in _read(old, faults):
        older = MasterKey(*_load_secret(old, _MASTER_WORD, 1, faults))
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
        faults.add(f"{path} does not hold a {word}: put it back from your backup")
        return "", b""
    return words[1], secret
