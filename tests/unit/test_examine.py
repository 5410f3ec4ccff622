"""What was signed on a machine apart is looked at before the register learns of it."""

from __future__ import annotations

import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.certificates import CertificateRejected, examine_certificate
from relay.offered import fingerprint_of_line

OFFICE = "0178512687"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a stranger's CA and a key, made by the real ssh-keygen."""
    path = tmp_path_factory.mktemp("examine")
    for name in ("ca", "stranger", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path / name)], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(path / "short")], check=True)
    return path


def sign(folder: Path, *options: str, key: str = "id") -> str:
    """Sign with ssh-keygen and return the certificate's line."""
    subprocess.run(["ssh-keygen", "-q", "-I", "x", *options, f"{key}.pub"], cwd=folder, check=True)
    return (folder / f"{key}-cert.pub").read_text()


def examine(folder: Path, line: str) -> int:
    """Examine a certificate with one CA trusted; return its serial."""
    trusted = frozenset({fingerprint_of_line((folder / "ca.pub").read_text())})
    return examine_certificate(line, trusted, now=datetime.now(UTC)).serial


def test_good_certificate_is_taken_as_it_is(folder: Path) -> None:
    """Of the trusted CA, for an office, with a serial; limits of address are no fault."""
    assert examine(folder, sign(folder, "-s", "ca", "-n", OFFICE, "-z", "7")) == 7
    assert examine(folder, sign(folder, "-s", "ca", "-n", OFFICE, "-z", "8", "-O", "source-address=10.0.0.0/8")) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-s", "stranger", "-n", OFFICE, "-z", "7"], "no trusted CA"),
        (["-s", "ca", "-n", OFFICE], "serial 0"),
        (["-s", "ca", "-n", OFFICE, "-z", str(2**63)], "serial"),
        (["-s", "ca", "-z", "7"], "names no principal"),
        (["-s", "ca", "-n", OFFICE, "-z", "7", "-h"], "not a user's"),
        (["-s", "ca", "-n", OFFICE, "-z", "7", "-V", "-2d:-1d"], "expired at"),
        (["-s", "ca", "-n", OFFICE, "-z", "7", "-O", "force-command=internal-sftp"], "force-command"),
        (["-s", "ca", "-n", OFFICE, "-z", "7", "-O", "critical:unheard-of@example.com=1"], "unknown critical option"),
    ],
)
def test_what_could_never_open_the_door_is_rejected(folder: Path, options: list[str], words: str) -> None:
    """By each of the rules that hold at login."""
    with pytest.raises(CertificateRejected, match=words):
        examine(folder, sign(folder, *options))


def test_short_key_is_rejected(folder: Path) -> None:
    """RSA of 1024 bits."""
    with pytest.raises(CertificateRejected, match="1024 bits"):
        examine(folder, sign(folder, "-s", "ca", "-n", OFFICE, "-z", "7", key="short"))


def test_every_changed_byte_breaks_the_signature(folder: Path) -> None:
    """Whatever is changed after signing, it is rejected; and so is half of it."""
    word, data, *_ = sign(folder, "-s", "ca", "-n", OFFICE, "-z", "7").split()
    whole = base64.b64decode(data)
    for at in range(40, len(whole), 7):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(CertificateRejected):
            examine(folder, f"{word} {base64.b64encode(changed).decode()}")
    with pytest.raises(CertificateRejected):
        examine(folder, f"{word} {base64.b64encode(whole[: len(whole) // 2]).decode()}")
