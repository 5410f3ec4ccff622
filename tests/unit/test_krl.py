"""The revocation list is one that OpenSSH itself reads, and says of each key what the relay says."""

from __future__ import annotations

import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.krl import RevokedKeys, RevokedOfCa, write_krl
from relay.offered import fingerprint_of_line

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def keygen(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real ssh-keygen."""
    return subprocess.run(["ssh-keygen", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CAs, four keys, and a certificate of each key by each CA."""
    path = tmp_path_factory.mktemp("krl")
    for ca in ("ca1", "ca2"):
        keygen("-q", "-t", "ed25519", "-N", "", "-f", path / ca)
    for number in range(4):
        keygen("-q", "-t", "ecdsa", "-N", "", "-f", path / f"k{number}")
        for ca in ("ca1", "ca2"):
            made = keygen(
                "-q", "-s", path / ca, "-I", f"id {number}", "-z", 2**62 + number, "-n", "x", path / f"k{number}.pub"
            )
            assert made.returncode == 0, made.stderr
            (path / f"k{number}-cert.pub").rename(path / f"{ca}-k{number}-cert.pub")
    return path


def is_revoked(krl: Path, file: Path) -> bool:
    """Ask ssh-keygen."""
    asked = keygen("-Q", "-f", krl, file)
    assert asked.stdout.strip().endswith(("REVOKED", "ok")), asked
    assert asked.returncode == asked.stdout.strip().endswith("REVOKED")
    return bool(asked.returncode)


def test_openssh_reads_serials_key_ids_and_keys(files: Path, tmp_path: Path) -> None:
    """A serial and a key id are revoked for their CA alone, a key for everybody, and nothing else is."""
    ca = base64.b64decode((files / "ca1.pub").read_text().split()[1])
    revoked = RevokedKeys(
        {ca: RevokedOfCa(serials=[2**62, 0], key_ids=["id 1"])}, [fingerprint_of_line((files / "k2.pub").read_text())]
    )
    krl = tmp_path / "krl"
    krl.write_bytes(write_krl(revoked, version=7, now=NOW, comment="失効"))
    assert [is_revoked(krl, files / f"ca1-k{number}-cert.pub") for number in range(4)] == [True, True, True, False]
    assert [is_revoked(krl, files / f"ca2-k{number}-cert.pub") for number in range(4)] == [False, False, True, False]
    assert [is_revoked(krl, files / f"k{number}.pub") for number in range(4)] == [False, False, True, False]
    listed = keygen("-Q", "-l", "-f", krl).stdout
    assert "KRL version 7" in listed
    assert f"serial: {2**62}\n" in listed


def test_empty_list_revokes_nothing(files: Path, tmp_path: Path) -> None:
    """A relay that never revoked anything has a list too."""
    krl = tmp_path / "krl"
    krl.write_bytes(write_krl(RevokedKeys(), version=0, now=NOW))
    assert not is_revoked(krl, files / "k0.pub")


def test_many_serials_and_the_same_bytes_again(files: Path, tmp_path: Path) -> None:
    """Ten thousand serials are read, and the same facts in another order are the same file."""
    ca = base64.b64decode((files / "ca1.pub").read_text().split()[1])
    serials = [*range(1, 10_001), 2**62 + 3]
    made = [write_krl(RevokedKeys({ca: RevokedOfCa(order)}), version=1, now=NOW) for order in (serials, serials[::-1])]
    assert made[0] == made[1]
    krl = tmp_path / "krl"
    krl.write_bytes(made[0])
    assert is_revoked(krl, files / "ca1-k3-cert.pub")
    assert not is_revoked(krl, files / "ca1-k2-cert.pub")
