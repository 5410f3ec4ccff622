"""An operator throws somebody out: by whatever is known of the certificate, while its holder is logged in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, Pass, run_program

WAYS = ("serial", "key file", "certificate file", "fingerprint", "key id", "office", "label")


def revoke_by(house: House, way: str, held: Pass) -> None:
    """Revoke *held* by one of `WAYS`, at the command line."""
    assert held.record is not None
    public = held.key.with_name(held.key.name + ".pub")
    run_program(["sh", "-c", f"ssh-keygen -y -f {held.key} > {public}"])
    selector = {
        "serial": [str(held.record.serial)],
        "key file": ["--key", str(public)],
        "certificate file": ["--key", str(held.certificate)],
        "fingerprint": ["--key", held.record.key_fingerprint],
        "key id": ["--key-id", held.record.key_id],
        "office": ["--office", held.office],
        "label": ["--office", held.office, "--label", held.record.label],
    }[way]
    done = house.relay("cert", "revoke", *selector, "--cause", "stolen", "--reason", "盗難", "--yes")
    assert done.returncode == 0, done.stderr
    assert "is revoked" in done.stdout


async def test_revoked_by_anything_the_open_session_ends_and_a_bystander_stays(house: House, tmp_path: Path) -> None:
    """However it is named, its session ends in words, another office's goes on, and OpenSSH reads the same in the list."""
    revoked: list[Path] = []
    async with house.connect(HOME_HELP) as bystander:
        for way in WAYS:
            held = house.certificate(DAY_CARE, label=f"受付 {way}", algorithm="ecdsa-sha2-nistp256")
            async with house.connect(DAY_CARE, pass_=held) as caller:
                await asyncio.to_thread(revoke_by, house, way, held)
                async with asyncio.timeout(30):
                    await caller.connection.wait_closed()
            with pytest.raises(asyncssh.PermissionDenied):
                async with house.dial(DAY_CARE, pass_=held):
                    pass
            revoked.append(held.certificate)
        assert await bystander.sftp.listdir("/new")
        krl = tmp_path / "krl"
        assert house.relay("cert", "krl", str(krl)).returncode == 0
        for certificate in revoked:
            asked = run_program(["ssh-keygen", "-Q", "-f", str(krl), str(certificate)])
            assert asked.stdout.endswith("REVOKED\n")
        good = house.certificate(HOME_HELP)
        assert run_program(["ssh-keygen", "-Q", "-f", str(krl), str(good.certificate)]).returncode == 0
    ended = house.journal_lines("identity.ended")
    assert len(ended) == len(WAYS)
    assert {line["office"] for line in ended} == {DAY_CARE}


async def test_one_of_several_certificates_is_revoked_without_the_others(house: House) -> None:
    """Front desk, care software and script of one office: the front desk's PC is stolen, and the others go on."""
    passes = {label: house.certificate(CARE_MANAGER, label=label) for label in ("受付", "ケアソフト", "スクリプト")}
    listed = house.relay("cert", "list", CARE_MANAGER).stdout
    assert all(label in listed for label in passes)
    assert "Days" in listed
    assert house.relay("cert", "revoke", "--office", CARE_MANAGER, "--label", "受付", "--yes").returncode == 0
    with pytest.raises(asyncssh.PermissionDenied):
        async with house.dial(pass_=passes["受付"]):
            pass
    for label in ("ケアソフト", "スクリプト"):
        async with house.connect(pass_=passes[label]) as caller:
            assert await caller.sftp.listdir("/")


def test_what_is_not_clear_is_not_revoked(house: House) -> None:
    """Nothing, two things, or something unknown: exit code 2, and everybody stays in."""
    for arguments in (
        ["1", "--office", CARE_MANAGER],
        ["--office", CARE_MANAGER, "--label", "nobody has this"],
        ["--key", "SHA256:abc"],
        ["--key-id", "nobody"],
    ):
        assert house.relay("cert", "revoke", *arguments, "--yes").returncode == 2, arguments
    assert house.relay("cert", "revoke", "--office", CARE_MANAGER).returncode == 2, "it asks first"
    assert house.sftp(CARE_MANAGER, "ls").returncode == 0
