"""Authority: the CAs at work, exchanged and retired.

A CA is never exchanged at one moment for everybody.  Rotating the **user CA** makes a new one that signs from then
on; the one before stays trusted, and its certificates open the door, until it is retired.  Rotating the **host CA**
makes a new one that offices are told of, while the host keys go on showing certificates of the one before; retiring
that one changes them over.  A **host key** can be exchanged at any time: who trusts the CA notices nothing.

Every step is a file that appears whole, in an order in which a crash leaves a keyring that loads, or that loads after
the same step once more.  A server that runs sees the change within seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from relay.certificates import CaKey, CertificateRejected, fingerprint_of_line
from relay.errors import ConfigError
from relay.keymaking import make_host_key, publish_host_certificate, publish_public
from relay.keyring import HOST_CA_BEFORE, TRUSTED_DIRECTORY, HostAlgorithm, Keyring, load_keyring, open_ca, open_host_ca
from relay.privatekeys import has_passphrase, private_bytes, public_line
from relay.publishing import PRIVATE_MODE, PUBLIC_MODE, publish_file

# Where the passphrase of the CAs may come from, best last: whatever stands in the environment can be read in /proc.
PASSPHRASE_VARIABLE = "RELAY_CA_PASSPHRASE"  # noqa: S105 - the name of it
PASSPHRASE_FILE_VARIABLE = "RELAY_CA_PASSPHRASE_FILE"  # noqa: S105
CREDENTIAL = "ca_passphrase"

Ask = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class UserCa:
    """The user CA, open: what issuing needs."""

    key: CaKey
    fingerprint: str


def find_passphrase(environ: Mapping[str, str] = os.environ) -> bytes | None:
    """Return the passphrase of the CAs from a systemd credential, a file or the environment; None where none is said.

    ConfigError where a file is named that cannot be read.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    files = [Path(folder) / CREDENTIAL] if folder and (Path(folder) / CREDENTIAL).exists() else []
    if named := environ.get(PASSPHRASE_FILE_VARIABLE):
        files.append(Path(named))
    for file in files:
        try:
            return file.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise ConfigError(f"the passphrase of the CA cannot be read from {file}: {error.strerror}") from error
    said = environ.get(PASSPHRASE_VARIABLE)
    return said.encode() if said else None


def open_user_ca(keyring: Keyring, environ: Mapping[str, str] = os.environ, *, ask: Ask | None = None) -> UserCa:
    """Open the user CA; *ask* may ask somebody for a passphrase that is found nowhere.

    ConfigError where it is kept apart, or its passphrase is missing or wrong.
    """
    file = keyring.path / "user_ca"
    passphrase = None
    if keyring.user_ca is not None and has_passphrase(keyring.user_ca):
        passphrase = find_passphrase(environ)
        if passphrase is None and ask is not None:
            passphrase = ask(f"Passphrase of {file}").encode()
    return UserCa(open_ca(file, passphrase), keyring.user_ca_fingerprint)


def rotate_user_ca(path: Path, *, passphrase: bytes | None, new_line: str | None = None) -> Keyring:
    """Let a new user CA sign, and trust the one before until it is retired; its private key is destroyed.

    With *new_line* the new one is kept apart and that is its public half.  *passphrase* protects the new one.
    """
    before = load_keyring(path)
    old = before.trusted_user_cas[0]
    if new_line is not None and fingerprint_of_line(new_line) in before.user_ca_fingerprints:
        raise ConfigError("that CA is trusted already: a new one is needed")
    # First: from here on the old one is trusted whatever happens.
    name = f"user_ca-{_short(old)}.pub"
    publish_file(path / TRUSTED_DIRECTORY / name, f"{old} careplan-relay, rotated\n".encode(), PUBLIC_MODE)
    if new_line is None:
        private = private_bytes(ed25519.Ed25519PrivateKey.generate(), passphrase)
        publish_file(path / "user_ca", private, PRIVATE_MODE, overwrite=True)
        publish_public(path, "user_ca", public_line(private))
    else:
        publish_public(path, "user_ca", new_line)
        (path / "user_ca").unlink(missing_ok=True)
    return load_keyring(path)


def rotate_host_ca(path: Path, *, passphrase: bytes | None) -> Keyring:
    """Make a new host CA for offices to learn, while the one before goes on certifying the host keys.

    ConfigError where a rotation is under way already.
    """
    if (path / f"{HOST_CA_BEFORE}.pub").exists():
        raise ConfigError("a new host CA is being introduced already: first `relay key retire --host-ca`")
    before = load_keyring(path)
    if not (path / "host_ca").exists():
        raise ConfigError(f"{path / 'host_ca'} is not here: it is kept on a machine apart")
    publish_file(path / HOST_CA_BEFORE, (path / "host_ca").read_bytes(), PRIVATE_MODE, overwrite=True)
    publish_public(path, HOST_CA_BEFORE, before.host_ca)
    private = private_bytes(ed25519.Ed25519PrivateKey.generate(), passphrase)
    publish_file(path / "host_ca", private, PRIVATE_MODE, overwrite=True)
    publish_public(path, "host_ca", public_line(private))
    return load_keyring(path)


def retire_host_ca(path: Path, *, passphrase: bytes | None) -> Keyring:
    """Let the new host CA certify the host keys, and forget the one before.

    ConfigError where there is none before it.
    """
    if not (path / f"{HOST_CA_BEFORE}.pub").exists():
        raise ConfigError("there is no former host CA: `relay key rotate --host-ca` makes a new one")
    before = load_keyring(path)
    ca = open_ca(path / "host_ca", passphrase)
    for key in before.host_keys:
        publish_host_certificate(path, key.algorithm, ca)
    (path / HOST_CA_BEFORE).unlink(missing_ok=True)
    (path / f"{HOST_CA_BEFORE}.pub").unlink()
    return load_keyring(path)


def rotate_host_key(path: Path, algorithm: HostAlgorithm, *, passphrase: bytes | None) -> Keyring:
    """Exchange a host key, certified by the CA that offices trust."""
    # What could fail comes first: a key without its certificate would not load.
    ca = open_host_ca(path, passphrase)
    private = private_bytes(make_host_key(algorithm))
    publish_file(path / f"host_{algorithm}_key", private, PRIVATE_MODE, overwrite=True)
    publish_host_certificate(path, algorithm, ca)
    publish_public(path, f"host_{algorithm}_key", public_line(private))
    return load_keyring(path)


def retire_user_ca(path: Path, fingerprint: str) -> Keyring:
    """Trust a former user CA no more.  ConfigError where it is not trusted, or is the one that signs."""
    keyring = load_keyring(path)
    if fingerprint == keyring.user_ca_fingerprint:
        raise ConfigError("that is the CA that signs: first `relay key rotate --user-ca`")
    if fingerprint not in keyring.user_ca_fingerprints:
        raise ConfigError(f"{fingerprint} is no trusted CA; `relay key list` shows them")
    for file in sorted((path / TRUSTED_DIRECTORY).glob("*.pub")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if _fingerprint(line) != fingerprint]
        if not kept:
            file.unlink()
        elif kept != lines:
            publish_file(file, "".join(kept).encode(), PUBLIC_MODE, overwrite=True)
    return load_keyring(path)


def _fingerprint(line: str) -> str:
    try:
        return fingerprint_of_line(line)
    except CertificateRejected:
        return ""


def _short(line: str) -> str:
    """Return a part of a fingerprint that is fit for a file's name."""
    return "".join(character for character in fingerprint_of_line(line)[7:] if character.isalnum())[:12]
