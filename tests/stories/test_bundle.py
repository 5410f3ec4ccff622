"""A bundle: one zip and one passphrase, with which an office that can make nothing by itself gets in."""

from __future__ import annotations

import base64
import json
import re
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from house import (
    CARE_MANAGER,
    HOME_HELP,
    HOST,
    SUSPENDED,
    House,
    MakeHouse,
    general_name,
    pdf,
    relay_command,
    run_program,
)
from keyboard import Terminal
from programs import need
from rich.cells import cell_len

from relay.model import EventKind

FOLDER = f"careplan-{CARE_MANAGER}"
PORT = 2222
PAGE = "はじめにお読みください.txt"
PASSPHRASE = re.compile(r"[0-9abcdefghjkmnpqrstvwxyz]{5}(?:-[0-9abcdefghjkmnpqrstvwxyz]{5}){3}")


@pytest.fixture
def idle(make_house: MakeHouse) -> House:
    """Return a relay that nobody serves."""
    return make_house()


def make_bundle(house: House, *options: str) -> dict[str, Any]:
    """Let the operator make a bundle, and read what the command says."""
    made = house.relay(
        *("cert", "bundle", CARE_MANAGER, "--host", HOST, "--port", str(house.port or PORT), "--json", *options)
    )
    assert made.returncode == 0, made.stderr
    said: dict[str, Any] = json.loads(made.stdout)
    return said


def unpack(said: dict[str, Any], where: Path) -> Path:
    """Unpack a bundle as `unzip` on Unix does, modes included; return the folder in it."""
    with zipfile.ZipFile(said["bundle"]) as archive:
        for entry in archive.infolist():
            Path(archive.extract(entry, where)).chmod(stat.S_IMODE(entry.external_attr >> 16))
    return where / FOLDER


def passphrase_file(folder: Path, passphrase: str) -> Path:
    """Write a passphrase where puttygen reads one."""
    file = folder / f"passphrase-{len(list(folder.iterdir()))}"
    file.write_text(f"{passphrase}\n")
    return file


def refuses(house: House, *options: str) -> str:
    """Return what the command says where it refuses."""
    done = house.relay("cert", "bundle", *options)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    return done.stderr


def test_psftp_gets_in_with_the_key_file_and_the_authority_of_a_bundle(house: House, tmp_path: Path) -> None:
    """PuTTY's psftp asks for the passphrase and for nothing else, and what it puts is relayed."""
    need("psftp")
    said = make_bundle(house)
    folder = unpack(said, tmp_path)
    # What regedit would put into the registry, where PuTTY on Unix looks for it.
    lines = (folder / "putty-host-ca.reg").read_text().splitlines()
    values = dict(re.fullmatch(r'"(\w+)"=(?:dword:0+|")(.*?)"?', line).groups() for line in lines[3:])  # type: ignore[union-attr]
    store = tmp_path / "windows" / ".putty" / "sshhostcas" / lines[2].rpartition("\\")[2].rstrip("]")
    store.parent.mkdir(parents=True)
    store.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    (folder / (name := general_name("pdf"))).write_bytes(pdf())
    command = ["psftp", "-noagent", "-P", str(house.port), "-i", f"{CARE_MANAGER}.ppk", f"{CARE_MANAGER}@{HOST}"]
    with Terminal(command, cwd=folder, HOME=str(tmp_path / "windows")) as keyboard:
        keyboard.wait_for("Passphrase for key")
        keyboard.type(f"{said['passphrase']}\n")
        keyboard.wait_for("psftp> ")
        keyboard.type(f"put {name} send/{name}\n")
        keyboard.wait_for("psftp> ")
        keyboard.type("quit\n")
        shown = keyboard.read_to_end()
    assert "host key" not in shown.lower(), shown
    assert [(one.sender, one.recipient) for one in house.transfers()] == [(CARE_MANAGER, HOME_HELP)]


def test_sftp_gets_in_from_the_folder_of_a_bundle(house: House, tmp_path: Path) -> None:
    """`sftp -F config relay` needs the passphrase and nothing else, wherever the folder lies; another one opens nothing."""
    need("sftp")
    said = make_bundle(house)
    folder = unpack(said, tmp_path / "a folder") / "openssh"
    command = ["sftp", "-F", "config", "-oBatchMode=no", "-b", "-", "relay"]
    for passphrase, code in ((said["passphrase"], 0), (said["passphrase"].upper(), 255)):
        asked = tmp_path / "ask"
        asked.write_text(f"#!/bin/sh\necho {passphrase}\n")
        asked.chmod(0o700)
        environment = {"SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force", "SSH_AUTH_SOCK": ""}
        done = run_program(command, cwd=folder, env=environment, input="ls -1\n", stdin=None)
        assert (done.returncode, "receive" in done.stdout) == (code, code == 0), done.stderr


def test_puttygen_finds_key_and_certificate_in_one_file(idle: House, tmp_path: Path) -> None:
    """PPK version 3: the certificate of the register, the key of OpenSSH's file, behind Argon2id and the passphrase."""
    need("puttygen", "ssh-keygen")
    said = make_bundle(idle, "--label", "事務室")
    folder = unpack(said, tmp_path)
    ppk, openssh = folder / f"{CARE_MANAGER}.ppk", folder / "openssh"
    certificate = (openssh / "id_relay-cert.pub").read_text()
    head = ppk.read_text().splitlines()
    assert head[0] == "PuTTY-User-Key-File-3: ecdsa-sha2-nistp256-cert-v01@openssh.com"
    assert (head[1], "Key-Derivation: Argon2id" in head) == ("Encryption: aes256-cbc", True)
    right, wrong = passphrase_file(tmp_path, said["passphrase"]), passphrase_file(tmp_path, "x" + said["passphrase"])
    assert run_program(["puttygen", str(ppk), "-L"]).stdout.split()[:2] == certificate.split()[:2]
    told = run_program(["puttygen", str(ppk), "--cert-info"]).stdout
    assert f"Valid user names: {CARE_MANAGER}\n" in told
    assert f"Certificate serial number: {said['serial']}\n" in told
    taken_out = ["-O", "private-openssh-new", "--new-passphrase", "/dev/null", "-o", str(tmp_path / "bare")]
    refused = run_program(["puttygen", str(ppk), "--old-passphrase", str(wrong), *taken_out])
    assert (refused.returncode, (tmp_path / "bare").exists()) == (1, False)
    done = run_program(["puttygen", str(ppk), "--old-passphrase", str(right), *taken_out])
    assert done.returncode == 0, done.stderr
    same = run_program(["ssh-keygen", "-y", "-P", said["passphrase"], "-f", str(openssh / "id_relay")])
    assert run_program(["ssh-keygen", "-y", "-f", str(tmp_path / "bare")]).stdout.split()[:2] == same.stdout.split()[:2]
    # The MAC covers what is readable as well.
    ppk.write_text(ppk.read_text().replace(f"Comment: {CARE_MANAGER}", f"Comment: {HOME_HELP}"))
    assert run_program(["puttygen", str(ppk), "--old-passphrase", str(right), *taken_out]).returncode == 1


def test_no_disk_ever_holds_the_key_unencrypted_or_the_passphrase(idle: House, tmp_path: Path) -> None:
    """Of all that the command writes to whatever file, none is the key in any form, nor the passphrase but on the screen."""
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace cannot be used here")
    record = tmp_path / "record"
    traced = "trace=write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendfile,mmap"
    done = run_program(
        [
            *("strace", "-f", "-qq", "-yy", "-xx", "-s", "1000000", "-e", traced, "-o", str(record)),
            *(*relay_command(idle.path), "cert", "bundle", CARE_MANAGER, "--host", HOST, "--json"),
        ],
        env=idle.environment,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    key = load_ssh_private_key(
        (unpack(said, tmp_path) / "openssh" / "id_relay").read_bytes(), said["passphrase"].encode()
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    # base64 of the key in a PEM or the like begins at one of three places; what is left is still 29 bytes of it.
    encoded = [base64.b64encode(scalar[shift:])[:-4] for shift in range(3)]
    secrets = [scalar, scalar.hex().encode(), *encoded, said["passphrase"].encode()]
    # strace writes every byte as \\xNN; lines of a PEM are joined, so that no secret hides at their end.
    calls = [
        re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), line).replace(b"\n", b"")
        for line in record.read_bytes().splitlines()
    ]
    assert any(b"write" in call and f"{CARE_MANAGER}.zip".encode() in call for call in calls)
    told = [call for call in calls if any(secret in call for secret in secrets)]
    # To the pipe that its caller reads, once.
    assert [re.search(rb"\w+\(1<pipe:", call) is not None for call in told] == [True], told
    # The index of the store's log is the one file that is written through memory, and holds no content.
    shared = [call for call in calls if b"MAP_SHARED" in call and b"PROT_WRITE" in call]
    assert all(b"-shm>" in call for call in shared), shared
    kept = [file for file in idle.path.rglob("*") if file.is_file()]
    assert not [file for file in kept if any(secret in file.read_bytes() for secret in secrets)]


def test_the_zip_is_whole_for_its_owner_alone_and_reads_on_windows(idle: House, tmp_path: Path) -> None:
    """Mode 0600; names in ASCII, the page's marked as UTF-8; keys inside for their owner alone; text as Notepad wants it."""
    said = make_bundle(idle, "--label", "事務室")
    file = Path(said["bundle"])
    assert (file, stat.S_IMODE(file.stat().st_mode)) == (idle.path / "issued" / f"{CARE_MANAGER}.zip", 0o600)
    assert [each.name for each in file.parent.iterdir() if each.name.startswith(".")] == []
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        modes = {entry.filename.removeprefix(f"{FOLDER}/"): entry.external_attr >> 16 for entry in archive.infolist()}
        page = archive.read(f"{FOLDER}/{PAGE}")
        strange = [entry for entry in archive.infolist() if not entry.filename.isascii()]
    assert [name for name, mode in modes.items() if mode == stat.S_IFREG | 0o600] == [
        f"{CARE_MANAGER}.ppk",
        "openssh/id_relay",
    ]
    assert [(entry.filename, bool(entry.flag_bits & 0x800)) for entry in strange] == [(f"{FOLDER}/{PAGE}", True)]
    text = page.decode("utf-8-sig")
    assert page.startswith(b"\xef\xbb\xbf")
    assert text.count("\n") == text.count("\r\n")
    assert said["passphrase"] not in text
    assert max(map(cell_len, text.splitlines())) <= 80
    # Every file that the page names is there, and every fact that has to be typed.
    for name in ("winscp.ini", f"{CARE_MANAGER}.ppk", "putty-host-ca.reg", "host-ca.pub"):
        assert (name in text, name in modes) == (True, True), name
    for fact in (HOST, str(PORT), CARE_MANAGER, FOLDER, "みほん野居宅介護支援事業所"):
        assert fact in text, fact
    for public in (idle.path / "keys").glob("host_*_key.pub"):
        assert asyncssh.read_public_key(public).get_fingerprint() in text
    need("unzip")
    assert run_program(["unzip", "-q", str(file), "-d", str(tmp_path)]).returncode == 0
    for name in (f"{CARE_MANAGER}.ppk", "openssh/id_relay"):
        assert stat.S_IMODE((tmp_path / FOLDER / name).stat().st_mode) == 0o600


def test_winscp_is_told_site_and_authorities(idle: House, tmp_path: Path) -> None:
    """winscp.ini as WinSCP writes it: a site with its key in the user's own folder; two authorities while one takes over."""
    assert idle.relay("key", "rotate", "--host-ca", "--yes").returncode == 0
    said = make_bundle(idle)
    folder = unpack(said, tmp_path)
    sections: dict[str, dict[str, str]] = {}
    for line in (folder / "winscp.ini").read_bytes().decode("ascii").split("\r\n"):
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line:
            name, _, value = line.partition("=")
            section[name] = unquote(value)
    site = sections.pop(f"Sessions\\{FOLDER}")
    assert site["PublicKeyFile"] == f"%USERPROFILE%\\{FOLDER}\\{CARE_MANAGER}.ppk"
    assert (site["HostName"], site["PortNumber"], site["UserName"]) == (HOST, str(PORT), CARE_MANAGER)
    assert list(sections) == ["SshHostCAs\\careplan-relay", "SshHostCAs\\careplan-relay-2"]
    assert "host-ca-2.pub も、Name を careplan-relay-2 にして" in (folder / PAGE).read_text("utf-8-sig")
    files = [(folder / name).read_text().split()[1] for name in ("host-ca.pub", "host-ca-2.pub")]
    assert [each["PublicKey"] for each in sections.values()] == files
    assert {each["Validity"] for each in sections.values()} == {f"{HOST} && port:{PORT}"}
    hosts = (folder / "openssh" / "known_hosts").read_text().splitlines()
    assert [line.split()[:2] for line in hosts] == [["@cert-authority", f"[{HOST}]:{PORT}"]] * 2


def test_a_bundle_is_refused_before_anything_is_made(idle: House) -> None:
    """An existing zip, an office that nobody knows, a relay whose name nobody has told: exit code 2, no certificate."""
    before = len(idle.ask(lambda ledger: ledger.list_certificates()))
    first = make_bundle(idle)
    zipped = Path(first["bundle"]).read_bytes()
    assert "--force" in refuses(idle, CARE_MANAGER, "--host", HOST)
    assert "not registered" in refuses(idle, "3178516104", "--host", HOST)
    assert "no span" in refuses(idle, CARE_MANAGER, "--force", "--valid", "365")
    assert "--host" in refuses(idle, CARE_MANAGER, "--force", "--host", "a b\nUser x")
    assert len(idle.ask(lambda ledger: ledger.list_certificates())) == before + 1
    assert Path(first["bundle"]).read_bytes() == zipped
    again = make_bundle(idle, "--force", "--valid", "30d")
    assert (again["passphrase"] != first["passphrase"], Path(first["bundle"]).read_bytes() != zipped) == (True, True)


def test_a_relay_that_listens_everywhere_asks_for_its_name(make_house: MakeHouse) -> None:
    """Nobody can type 0.0.0.0; on a loopback address the command warns, and does what it was told."""
    house = make_house(server={"host": "0.0.0.0"})
    assert "say with --host" in refuses(house, CARE_MANAGER)
    near = make_house()
    done = near.relay("cert", "bundle", SUSPENDED)
    assert done.returncode == 0, done.stderr
    assert "only this machine reaches" in done.stderr
    assert f"office {SUSPENDED} is suspended" in done.stderr
    assert len(PASSPHRASE.findall(done.stdout)) == 1


def test_a_bundle_that_cannot_be_written_leaves_no_good_certificate(idle: House) -> None:
    """The record comes first; what nobody holds is revoked with its reason, and both are in the history."""
    done = idle.relay("cert", "bundle", CARE_MANAGER, "--host", HOST, "--out", "/proc/nowhere/bundle.zip")
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True), done.stderr
    assert not PASSPHRASE.search(done.stdout + done.stderr)
    newest = idle.ask(lambda ledger: ledger.list_certificates(office=CARE_MANAGER))[0]
    assert (newest.revoked_at is not None, newest.revoke_reason) == (True, "its file could not be written")
    kinds = [event.kind for event in idle.events()]
    assert kinds[-2:] == [EventKind.CERTIFICATE_ISSUED, EventKind.CERTIFICATE_REVOKED]
