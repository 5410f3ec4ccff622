"""CAs and host keys are exchanged without a moment at which anybody is locked out, and opened with their passphrase."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.authority import (
    find_passphrase,
    open_user_ca,
    retire_host_ca,
    retire_user_ca,
    rotate_host_ca,
    rotate_host_key,
    rotate_user_ca,
)
from relay.certificates import fingerprint_of_line, issue_certificate, parse_certificate_line, plan_validity
from relay.errors import ConfigError
from relay.keymaking import create_keyring, make_office_key
from relay.keyring import Keyring, list_missing, load_keyring
from relay.model import OfficeNumber


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keyring made once, because RSA keys take their time."""
    path = tmp_path_factory.mktemp("made") / "keys"
    create_keyring(path)
    return path


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """A keyring on disk that a test may change."""
    return shutil.copytree(made, tmp_path / "keys")


def signer_of(keyring: Keyring, environ: dict[str, str] | None = None) -> str:
    """Return the fingerprint of the CA that a certificate is signed by now."""
    _, line = make_office_key()
    after, before = plan_validity(datetime.now(UTC), 60)
    ca = open_user_ca(keyring, environ or {})
    made, _ = issue_certificate(
        line,
        ca.key,
        serial=1,
        key_id="k",
        offices=[OfficeNumber("0178515854")],
        valid_after=after,
        valid_before=before,
    )
    return parse_certificate_line(made).ca_fingerprint


def host_signers(keyring: Keyring) -> set[str]:
    """Return the CAs that the host certificates are signed by."""
    return {parse_certificate_line(key.certificate.decode()).ca_fingerprint for key in keyring.host_keys}


def lock(file: Path, passphrase: str) -> None:
    """Give a private key a passphrase as an operator would."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(file)], check=True)


def test_new_user_ca_signs_and_the_one_before_is_trusted_until_it_is_retired(keys: Path) -> None:
    """The old private key is gone at once, the old certificates are good until the operator says otherwise."""
    before = load_keyring(keys)
    after = rotate_user_ca(keys, passphrase=None)
    assert signer_of(after) == after.user_ca_fingerprint != before.user_ca_fingerprint
    assert after.user_ca_fingerprints == {before.user_ca_fingerprint, after.user_ca_fingerprint}
    assert after.trusted_user_cas[0] != before.trusted_user_cas[0]
    assert before.user_ca not in {file.read_bytes() for file in keys.rglob("*") if file.is_file()}
    retired = retire_user_ca(keys, before.user_ca_fingerprint)
    assert retired.user_ca_fingerprints == {after.user_ca_fingerprint}
    with pytest.raises(ConfigError, match="no trusted CA"):
        retire_user_ca(keys, before.user_ca_fingerprint)
    with pytest.raises(ConfigError, match="the CA that signs"):
        retire_user_ca(keys, after.user_ca_fingerprint)


def test_user_ca_that_is_kept_apart_leaves_only_its_public_half(keys: Path) -> None:
    """Rotating to a public key takes the private one away; the keyring loads, init makes no other, signing says why."""
    _, line = make_office_key()
    after = rotate_user_ca(keys, passphrase=None, new_line=line)
    assert (after.user_ca, after.trusted_user_cas[0]) == (None, line)
    assert not (keys / "user_ca").exists()
    assert list_missing(keys) == ()
    assert create_keyring(keys).user_ca_fingerprint == fingerprint_of_line(line)
    with pytest.raises(ConfigError, match="kept on a machine apart"):
        open_user_ca(after)
    with pytest.raises(ConfigError, match="trusted already"):
        rotate_user_ca(keys, passphrase=None, new_line=line)


def test_new_host_ca_is_told_first_and_certifies_when_the_one_before_is_retired(keys: Path) -> None:
    """In between both lines are told, and what clients see is signed by the one that they know."""
    before = load_keyring(keys)
    old = fingerprint_of_line(before.host_ca)
    during = rotate_host_ca(keys, passphrase=None)
    assert during.host_cas[1:] == before.host_cas
    assert host_signers(during) == {old}
    with pytest.raises(ConfigError, match="already"):
        rotate_host_ca(keys, passphrase=None)
    assert host_signers(rotate_host_key(keys, "ecdsa", passphrase=None)) == {old}
    after = retire_host_ca(keys, passphrase=None)
    assert after.host_cas == during.host_cas[:1]
    assert host_signers(after) == {fingerprint_of_line(after.host_ca)} != {old}
    with pytest.raises(ConfigError, match="no former host CA"):
        retire_host_ca(keys, passphrase=None)


def test_host_key_is_exchanged_alone_and_certified_by_the_same_ca(keys: Path) -> None:
    """The others stay as they are."""
    before = load_keyring(keys)
    after = rotate_host_key(keys, "ed25519", passphrase=None)
    assert [new.public_line == old.public_line for new, old in zip(after.host_keys, before.host_keys, strict=True)] == [
        False,
        True,
        True,
    ]
    assert host_signers(after) == host_signers(before)


@pytest.mark.parametrize("source", ["credential", "file", "variable", "prompt"])
def test_ca_with_a_passphrase_is_opened_with_it_wherever_it_is_said(keys: Path, tmp_path: Path, source: str) -> None:
    """The keyring loads without it; signing takes it from systemd, a file, the environment or somebody's hands."""
    lock(keys / "user_ca", "ひみつ")
    keyring = load_keyring(keys)
    assert keyring.user_ca_fingerprint == fingerprint_of_line((keys / "user_ca.pub").read_text())
    with pytest.raises(ConfigError, match="has a passphrase"):
        open_user_ca(keyring, {})
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        open_user_ca(keyring, {"RELAY_CA_PASSPHRASE": "other"})
    (tmp_path / "ca_passphrase").write_text("ひみつ\n", encoding="utf-8")
    if source == "prompt":
        asked: list[str] = []
        open_user_ca(keyring, {}, ask=lambda question: asked.append(question) or "ひみつ")
        assert len(asked) == 1
        return
    environ = {
        "credential": {"CREDENTIALS_DIRECTORY": str(tmp_path)},
        "file": {"RELAY_CA_PASSPHRASE_FILE": str(tmp_path / "ca_passphrase")},
        "variable": {"RELAY_CA_PASSPHRASE": "ひみつ"},
    }[source]
    assert find_passphrase(environ) == "ひみつ".encode()
    assert signer_of(keyring, environ) == keyring.user_ca_fingerprint


def test_host_ca_with_a_passphrase_certifies_only_with_it(keys: Path) -> None:
    """Without it nothing is exchanged, not even half."""
    lock(keys / "host_ca", "secret")
    before = {file.name: file.read_bytes() for file in keys.iterdir() if file.is_file()}
    with pytest.raises(ConfigError, match="has a passphrase"):
        rotate_host_key(keys, "ed25519", passphrase=None)
    assert {file.name: file.read_bytes() for file in keys.iterdir() if file.is_file()} == before
    rotate_host_key(keys, "ed25519", passphrase=b"secret")
    rotated = rotate_host_ca(keys, passphrase=b"another")
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        retire_host_ca(keys, passphrase=b"secret")
    assert load_keyring(keys).host_cas == rotated.host_cas
    retire_host_ca(keys, passphrase=b"another")


def test_receipts_have_a_key_of_their_own(keys: Path) -> None:
    """Whoever may sign receipts may let nobody in, and the other way round."""
    keyring = load_keyring(keys)
    lines = {keyring.receipt_line, keyring.trusted_user_cas[0], keyring.host_ca}
    assert len(lines) == 3
    assert keyring.receipt_line.startswith("ssh-ed25519 ")
    assert "PRIVATE" not in repr(keyring)
