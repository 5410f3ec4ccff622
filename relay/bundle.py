"""Bundles: what an office needs to connect, in one zip for people who cannot run `scripts/enroll`.

The private key is drawn here and lies in the zip twice, for PuTTY and WinSCP and for OpenSSH, each time under one
passphrase, which is drawn too, and which nobody keeps.  Nothing is written to any disk here: what comes out is the
zip's bytes, in which nothing is secret that is not encrypted.

One folder in it, to be moved as a whole into the user's own, because WinSCP's site looks for the key there.  Its
names are ASCII, but for the page that is to be read first.
"""

from __future__ import annotations

import io
import secrets
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from relay.bundletext import PAGE_NAME, Facts, render_page
from relay.certificates import fingerprint_of_line
from relay.config import Config
from relay.connecting import Address, authority_lines
from relay.invitation import ALPHABET
from relay.keyring import Keyring
from relay.model import Certificate, Office
from relay.ppk import write_ppk
from relay.privatekeys import private_bytes
from relay.welcome import JAPAN

# Small letters, because what is typed unseen should need no shift key.
_CHARACTERS = ALPHABET.lower()
_GROUPS, _GROUP = 4, 5
_SECRET, _OPEN = 0o600, 0o644
# How PuTTY and WinSCP name the authority in their own lists.
_CA_NAME = "careplan-relay"
# WinSCP: SFTP, and never the old scp in its stead.
_SFTP_ONLY = 2
# What PuTTY and WinSCP write as %XX in the names and values that they store, beside what is not printable.
_MUNGED = " \\*?%"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the zip: its path there, its bytes, its mode."""

    path: str
    data: bytes
    mode: int


def draw_passphrase() -> str:
    """Draw a passphrase of 100 bits that can be told over the telephone."""
    groups = ("".join(secrets.choice(_CHARACTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)


def make_bundle(
    config: Config,
    keyring: Keyring,
    office: Office,
    address: Address,
    *,
    key: ec.EllipticCurvePrivateKey,
    certificate: Certificate,
    passphrase: str,
    now: datetime,
) -> bytes:
    """Return the zip for *office*, which reaches the relay at *address*; *certificate* is that of *key*."""
    folder = f"careplan-{office.number}"
    authorities = [line.split()[1] for line in keyring.host_cas]
    facts = Facts(
        folder=folder,
        host=address.host,
        port=address.port,
        valid_before=certificate.valid_before,
        host_keys=tuple(fingerprint_of_line(each.public_line) for each in keyring.host_keys),
        authority_files=tuple(_authority_file(place) for place in range(len(authorities))),
    )
    entries = [
        Entry(PAGE_NAME, render_page(config, office, facts), _OPEN),
        Entry(
            f"{office.number}.ppk", write_ppk(key, certificate.line, passphrase, comment=str(office.number)), _SECRET
        ),
        Entry("winscp.ini", _windows(_winscp_lines(folder, office, address, authorities)), _OPEN),
        Entry("putty-host-ca.reg", _windows(_registry_lines(address, authorities)), _OPEN),
        *(
            Entry(name, f"{' '.join(line.split()[:2])} {_CA_NAME}\n".encode(), _OPEN)
            for name, line in zip(facts.authority_files, keyring.host_cas, strict=True)
        ),
        Entry("openssh/id_relay", private_bytes(key, passphrase.encode()), _SECRET),
        Entry("openssh/id_relay-cert.pub", f"{certificate.line}\n".encode(), _OPEN),
        Entry("openssh/known_hosts", _lines(authority_lines(address, keyring.host_cas)), _OPEN),
        Entry("openssh/config", _lines(_openssh_lines(office, address)), _OPEN),
    ]
    return _pack(folder, entries, now)


def _authority_file(place: int) -> str:
    return f"host-ca-{place + 1}.pub" if place else "host-ca.pub"


def _winscp_lines(folder: str, office: Office, address: Address, authorities: Sequence[str]) -> Iterator[str]:
    """Yield what WinSCP's "Import Sites" reads, and for "Import/Restore Configuration" the authorities as well."""
    key = f"%USERPROFILE%\\{folder}\\{office.number}.ppk"
    yield f"[Sessions\\{folder}]"
    yield f"HostName={_munge(address.host)}"
    yield f"PortNumber={address.port}"
    yield f"UserName={office.number}"
    yield f"PublicKeyFile={_munge(key)}"
    yield f"FSProtocol={_SFTP_ONLY}"
    for name, blob in _named(authorities):
        yield ""
        yield f"[SshHostCAs\\{name}]"
        yield f"PublicKey={_munge(blob)}"
        yield f"Validity={_munge(_validity(address))}"
        yield from ("PermitRSASHA1=0", "PermitRSASHA256=1", "PermitRSASHA512=1")


def _registry_lines(address: Address, authorities: Sequence[str]) -> Iterator[str]:
    """Yield what makes PuTTY for Windows trust the authorities, and WinSCP where it is told to ask PuTTY."""
    yield "Windows Registry Editor Version 5.00"
    for name, blob in _named(authorities):
        yield ""
        yield f"[HKEY_CURRENT_USER\\Software\\SimonTatham\\PuTTY\\SshHostCAs\\{name}]"
        yield f'"PublicKey"="{blob}"'
        yield f'"Validity"="{_validity(address)}"'
        yield '"PermitRSASHA1"=dword:00000000'
        yield '"PermitRSASHA256"=dword:00000001'
        yield '"PermitRSASHA512"=dword:00000001'


def _openssh_lines(office: Office, address: Address) -> Iterator[str]:
    """Yield a configuration whose paths hold from the folder that it lies in, wherever that is."""
    yield "# In this folder: sftp -F config relay"
    yield "Host relay"
    yield f"    HostName {address.host.replace('%', '%%')}"
    yield f"    Port {address.port}"
    yield f"    User {office.number}"
    yield "    IdentityFile ./id_relay"
    yield "    CertificateFile ./id_relay-cert.pub"
    yield "    IdentitiesOnly yes"
    yield "    UserKnownHostsFile ./known_hosts"
    yield "    GlobalKnownHostsFile none"
    yield "    StrictHostKeyChecking yes"


def _named(authorities: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, blob in enumerate(authorities):
        yield (f"{_CA_NAME}-{place + 1}" if place else _CA_NAME), blob


def _validity(address: Address) -> str:
    """Return for which hosts PuTTY shall believe the authority: this relay, and nobody else."""
    return f"{address.host} && port:{address.port}"


def _munge(text: str) -> str:
    return "".join(f"%{ord(each):02X}" if each in _MUNGED else each for each in text)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _windows(lines: Iterable[str]) -> bytes:
    return _lines(lines).replace(b"\n", b"\r\n")


def _pack(folder: str, entries: Iterable[Entry], now: datetime) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(f"{folder}/{entry.path}", now.astimezone(JAPAN).timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            # Whoever unpacks it on Unix gets a key that OpenSSH does not call unprotected.
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | entry.mode) << 16
            archive.writestr(info, entry.data)
    return buffer.getvalue()
