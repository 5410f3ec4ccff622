"""Outside CAs and their revocation lists, as files under ``keys/``.

Of a CA that the operator trusts every fault is told, since he has just put it there; only its dates are not one, because
a relay that does not start on the day a CA ends would shut out everybody else.  Revocation lists come and go by
themselves, fetched by a script: one that cannot be read is named with the reason, and is no fault of the keyring.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from relay.crl import UNREADABLE, RevocationList, parse_list
from relay.offered import CertificateRejected
from relay.x509 import Link, Trust, check_anchor, parse_link

ANCHORS_DIRECTORY = "trusted_x509_cas"
LISTS_DIRECTORY = "x509_crls"
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
# Each folder, and the endings of the files that are read there.
_ENDINGS = {ANCHORS_DIRECTORY: (".pem",), LISTS_DIRECTORY: (".crl", ".pem")}


def load_trust(keys: Path, add_fault: Callable[[str], None]) -> Trust:
    """Read what *keys* says of outside CAs; *add_fault* is told what the operator has to mend."""
    for folder in _ENDINGS:
        if (keys / folder).is_dir() and (keys / folder).stat().st_mode & _WRITABLE:
            add_fault(f"{keys / folder} can be written by others, who could exchange files: chmod 700 {keys / folder}")
    try:
        anchor_files, list_files = (_find(keys, folder) for folder in _ENDINGS)
    except OSError as error:
        add_fault(f"{error.filename} cannot be read: {error.strerror}")
        return Trust()
    anchors = tuple(anchor for file in anchor_files for anchor in _load_anchors(file, add_fault))
    lists: dict[str, RevocationList] = {}
    unusable: dict[str, str] = {}
    for file in list_files:
        try:
            lists[file.name] = parse_list(file.read_bytes())
        except OSError as error:
            unusable[file.name] = error.strerror or "it cannot be read"
        except ValueError as error:
            unusable[file.name] = str(error)
    return Trust(anchors, lists, unusable)


def stamp_files(keys: Path) -> tuple[int, ...]:
    """Return something that changes whenever such a file is made, replaced, removed or written over."""
    stamp: list[int] = []
    # What was removed since it was listed, or cannot be read: the next look finds another stamp, and loading says why.
    for folder in _ENDINGS:
        with contextlib.suppress(OSError):
            for file in _find(keys, folder):
                found = file.stat()
                stamp += [found.st_ino, found.st_size, found.st_mtime_ns]
    return tuple(stamp)


def _find(keys: Path, folder: str) -> list[Path]:
    path = keys / folder
    return sorted(file for file in path.iterdir() if file.suffix in _ENDINGS[folder]) if path.is_dir() else []


def _load_anchors(file: Path, add_fault: Callable[[str], None]) -> Iterator[Link]:
    """Yield the CAs of a PEM file; more than one may stand in it."""
    try:
        if file.stat().st_mode & _WRITABLE:
            add_fault(f"{file} can be written by others: chmod 644 {file}")
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        add_fault(f"{file} cannot be read: {error.strerror}")
        return
    except UNREADABLE:
        add_fault(f"{file} holds no certificate of a CA (PEM: it begins with -----BEGIN CERTIFICATE-----)")
        return
    for certificate in certificates:
        try:
            anchor = parse_link(certificate.public_bytes(Encoding.DER))
            check_anchor(anchor)
        except CertificateRejected as rejected:
            add_fault(f"{file} holds no CA that can be trusted: {rejected.detail}")
        else:
            yield anchor
