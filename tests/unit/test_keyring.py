"""The keyring is made once, never overwritten, and loaded whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from relay.certificates import FOREVER, parse_certificate_line
from relay.errors import ConfigError
from relay.keymaking import create_keyring, make_office_key
from relay.keyring import Keyring, list_missing, load_keyring
from relay.publishing import publish_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keyring made once, because RSA keys take their time."""
    path = tmp_path_factory.mktemp("made") / "home" / "keys"
    create_keyring(path)
    return path


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """A keyring on disk that a test may spoil."""
    return shutil.copytree(made, tmp_path / "keys")


def contents(path: Path) -> dict[str, bytes]:
    """Every file below *path* with its bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def fault(path: Path) -> str:
    """What loading *path* complains about."""
    with pytest.raises(ConfigError) as caught:
        load_keyring(path)
    return str(caught.value)


def test_a_new_keyring_holds_everything_the_relay_needs(keys: Path) -> None:
    """CA, host keys with certificates in order of preference, master key and index key."""
    keyring = load_keyring(keys)
    assert [key.algorithm for key in keyring.host_keys] == ["ed25519", "ecdsa", "rsa"]
    assert keyring.user_ca_fingerprints == {keyring.user_ca_fingerprint}
    assert asyncssh.import_private_key(keyring.user_ca).get_fingerprint() == keyring.user_ca_fingerprint
    assert len(keyring.master.key) == len(keyring.index_key) == 32
    assert keyring.master.key != keyring.index_key
    host_ca = asyncssh.import_public_key(keyring.host_ca).get_fingerprint()
    for key in keyring.host_keys:
        offered = parse_certificate_line(key.certificate.decode())
        assert (offered.type, offered.ca_fingerprint, offered.valid_before) == ("host", host_ca, FOREVER)
        asyncssh.load_keypairs([(key.private, key.certificate)])
    assert list_missing(keys) == ()


def test_private_files_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    """0600 for files with a secret, 0700 for the directory, also under umask 0 and 0277."""
    for number, umask in enumerate((0, 0o277)):
        before = os.umask(umask)
        try:
            create_keyring(tmp_path / str(number) if umask == 0 else make_directory(tmp_path / str(number)))
        finally:
            os.umask(before)
    for number in range(2):
        path = tmp_path / str(number)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.iterdir() if file.is_file()}
        assert {modes[name] for name in modes if not name.endswith(".pub")} == {0o600}
        assert {modes[name] for name in modes if name.endswith(".pub")} == {0o644}


def make_directory(path: Path) -> Path:
    """A directory that exists before the keyring does."""
    path.mkdir(0o700)
    path.chmod(0o755)
    return path


def test_making_again_changes_nothing(keys: Path) -> None:
    """`relay init` twice leaves every byte as it was."""
    before = contents(keys)
    create_keyring(keys)
    assert contents(keys) == before


def test_what_is_missing_is_added_and_the_rest_kept(keys: Path) -> None:
    """A lost public file or host certificate is made again from what is there."""
    before = contents(keys)
    for name in ("user_ca.pub", "host_rsa_key-cert.pub", "host_ecdsa_key", "host_ecdsa_key-cert.pub"):
        (keys / name).unlink()
    (keys / "host_ecdsa_key.pub").unlink()
    assert list_missing(keys) == ("host_ecdsa_key",)
    create_keyring(keys)
    after = contents(keys)
    assert after["user_ca.pub"] == before["user_ca.pub"]
    assert after["host_ecdsa_key"] != before["host_ecdsa_key"]
    unchanged = [name for name in before if "ecdsa" not in name and "rsa" not in name]
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


def test_nothing_half_written_stays_behind(keys: Path) -> None:
    """Drafts are gone once the files are there."""
    assert not [name for name in contents(keys) if name.startswith(".")]


@pytest.mark.parametrize("name", ["user_ca", "host_ca", "host_rsa_key", "master.key", "index.key"])
def test_a_secret_that_others_can_read_stops_the_start_and_says_the_chmod(keys: Path, name: str) -> None:
    """The message is the command that mends it."""
    for mode in (0o644, 0o640, 0o602):
        (keys / name).chmod(mode)
        assert f"chmod 600 {keys / name}" in fault(keys)
    (keys / name).chmod(0o400)
    load_keyring(keys)


def test_a_directory_that_others_can_write_stops_the_start(keys: Path) -> None:
    """Whoever can rename in keys/ can put his own CA there."""
    keys.chmod(0o770)
    assert f"chmod 700 {keys}" in fault(keys)


def test_all_faults_are_told_at_once(keys: Path) -> None:
    """Three things wrong are three lines, not three attempts."""
    (keys / "master.key").unlink()
    (keys / "host_rsa_key").unlink()
    (keys / "index.key").chmod(0o644)
    text = fault(keys)
    assert len(text.splitlines()) == 3
    assert "master.key is missing: put it back from your backup" in text
    assert "host_rsa_key is missing: `relay init` makes it" in text


@pytest.mark.parametrize(
    "name", ["host_ed25519_key-cert.pub", "host_rsa_key", "user_ca", "receipt_key", "master.key", "audit.key"]
)
def test_a_disk_that_fails_is_not_taken_for_a_wrong_key(keys: Path, name: str) -> None:
    """One line that sends to the disk, and none that has anybody remove or replace a file that may be in order."""
    (keys / name).unlink()
    # The kernel answers whoever reads this from its beginning with EIO.
    (keys / name).symlink_to("/proc/self/mem")
    (line,) = fault(keys).splitlines()
    assert f"{keys / name} cannot be read: Input/output error" in line
    assert "look at the disk" in line
    assert "remove it" not in line


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda keys: (keys / "host_rsa_key-cert.pub").unlink(),
            "host_rsa_key-cert.pub is missing: `relay init` makes it",
        ),
        (lambda keys: (keys / "host_rsa_key").write_bytes(b"garbage"), "put it back from your backup"),
    ],
    ids=["certificate missing", "key damaged"],
)
def test_what_follows_from_a_fault_is_not_told_beside_it(
    keys: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    """A certificate is not to be removed because its key is damaged, nor because it is not there."""
    spoil(keys)
    (line,) = fault(keys).splitlines()
    assert expected in line


def test_no_keys_at_all_points_to_init(tmp_path: Path) -> None:
    """A fresh machine is told what to do."""
    assert "run `relay init` first" in fault(tmp_path / "keys")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("user_ca", b"not a key"),
        ("user_ca", b""),
        ("host_ed25519_key", b"\xff" * 50),
        ("host_ed25519_key-cert.pub", b"ssh-ed25519 AAAA"),
        ("master.key", b"careplan-relay-master-key 1a2b AAAA"),
        ("master.key", b"\xff\xfe"),
        ("index.key", b""),
    ],
)
def test_a_broken_file_is_named(keys: Path, name: str, data: bytes) -> None:
    """Whatever a file holds instead, the message names the file and quotes nothing of it."""
    (keys / name).write_bytes(data)
    text = fault(keys)
    assert name in text
    assert "AAAA" not in text


def test_master_and_index_key_cannot_be_exchanged(keys: Path) -> None:
    """Swapped secrets would look like a store that was tampered with."""
    master, index = (keys / "master.key").read_bytes(), (keys / "index.key").read_bytes()
    (keys / "master.key").write_bytes(index)
    (keys / "index.key").write_bytes(master)
    assert len(fault(keys).splitlines()) == 2


def test_a_host_certificate_of_another_key_is_noticed(keys: Path) -> None:
    """Clients would refuse it, with a message about something else."""
    (keys / "host_rsa_key-cert.pub").write_bytes((keys / "host_ecdsa_key-cert.pub").read_bytes())
    assert "host_rsa_key-cert.pub is not for" in fault(keys)


def test_cas_of_others_are_trusted_beside_our_own(keys: Path) -> None:
    """Each keys/trusted_user_cas/*.pub adds its fingerprint; a file that is no key stops the start."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    file = keys / "trusted_user_cas" / "before-2026.pub"
    file.write_bytes(other.export_public_key())
    keyring = load_keyring(keys)
    assert keyring.user_ca_fingerprints == {keyring.user_ca_fingerprint, other.get_fingerprint()}
    assert len(keyring.trusted_user_cas) == 2
    file.chmod(0o666)
    assert f"chmod 644 {file}" in fault(keys)
    file.chmod(0o644)
    file.write_text("oops")
    assert "before-2026.pub holds no CA" in fault(keys)


def test_no_secret_shows_in_a_repr(keys: Path) -> None:
    """A keyring in a traceback or a journal tells nothing."""
    keyring: Keyring = load_keyring(keys)
    text = repr(keyring)
    assert "PRIVATE" not in text
    assert repr(keyring.index_key) not in text
    assert repr(keyring.master.key) not in text


def test_publishing_does_not_replace_unless_told(tmp_path: Path) -> None:
    """A file appears whole, an existing one stays, and nothing else lies about."""
    file = tmp_path / "a"
    assert publish_file(file, b"one", 0o600)
    assert not publish_file(file, b"two", 0o600)
    assert file.read_bytes() == b"one"
    assert publish_file(file, b"three", 0o644, overwrite=True)
    assert file.read_bytes() == b"three"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208 - hidden files too


def test_a_key_made_for_an_office_is_of_the_kind_that_every_client_takes() -> None:
    """ECDSA P-256 in OpenSSH's format, without a passphrase."""
    private, line = make_office_key()
    assert line.startswith("ecdsa-sha2-nistp256 ")
    assert private.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert load_ssh_private_key(private, None)


def test_a_directory_that_cannot_be_made_is_told_in_words(tmp_path: Path) -> None:
    """A file in the way is a ConfigError, not a traceback."""
    (tmp_path / "keys").write_text("")
    with pytest.raises(ConfigError, match="keys cannot be written"):
        create_keyring(tmp_path / "keys")
