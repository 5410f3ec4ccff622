"""CAs and host keys are exchanged under a relay that serves, and no client that did as it was told is locked out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, HOST, SUSPENDED, Completed, House, MakeHouse, Pass, run_program

from relay.certificates import parse_certificate_line


def sftp(house: House, held: Pass, *options: str, batch: str = "ls /new\n") -> Completed:
    """Run the real sftp, which asks nobody about host keys."""
    # Of an option that is given twice OpenSSH takes the first.
    command = ["sftp", *options, *house.openssh_options(held.office, pass_=held), f"-P{house.port}", "-b", "-"]
    return run_program([*command, f"{held.office}@{HOST}"], input=batch, stdin=None)


def issued(house: House, office: str, folder: Path) -> Pass:
    """Return what `relay cert issue` makes now."""
    done = house.relay("cert", "issue", office, "--out", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return Pass(HOME_HELP, folder, folder.with_name(folder.name + "-cert.pub"))


def order(house: House, *arguments: str, **facts: int) -> Completed:
    """Give an order about keys and wait until the server has taken up what it should see then."""
    done = house.relay("key", *arguments, "--yes")
    assert done.returncode == 0, done.stderr
    house.wait_for(
        lambda: (lines := house.journal_lines("keys.reloaded")) and facts.items() <= lines[-1].items(), f"{facts}"
    )
    return done


def shows(house: House, kind: str) -> bool:
    """Tell whether the server shows the host key of that kind that is in ``keys/`` now, to whoever asks."""
    seen = run_program(["ssh-keyscan", "-p", str(house.port), "-t", kind, HOST]).stdout
    return (house.path / "keys" / f"host_{kind}_key.pub").read_text().split()[1] in seen


async def test_user_ca_is_exchanged_with_overlap_and_retired(house: House, tmp_path: Path) -> None:
    """New certificates open the door at once, old ones until the old CA is retired; then their open sessions end."""
    old = house.certificate(CARE_MANAGER)
    (former,) = [row["fingerprint"] for row in json.loads(house.relay("key", "list", "--json").stdout)[:1]]
    async with house.connect() as inside:
        await asyncio.to_thread(order, house, "rotate", "--user-ca", user_cas=2)
        new = issued(house, HOME_HELP, tmp_path / "new")
        assert parse_certificate_line(new.certificate.read_text()).ca_fingerprint != former
        for held in (old, new):
            done = await asyncio.to_thread(sftp, house, held)
            assert done.returncode == 0, done.stderr
        # Renewed with the old one, signed by the new CA.
        key = tmp_path / "renewed"
        assert run_program(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(key)]).returncode == 0
        await inside.sftp.put(f"{key}.pub", "/certificate/renewed.pub")
        await inside.sftp.get("/certificate/renewed-cert.pub", f"{key}-cert.pub")
        assert house.relay("key", "retire", former).returncode == 2, "it asks first"
        await asyncio.to_thread(house.relay, "key", "retire", former, "--yes")
        async with asyncio.timeout(30):
            await inside.connection.wait_closed()
    assert house.wait_for_event("identity.ended")["reason"].startswith("unknown_ca")
    assert (await asyncio.to_thread(sftp, house, old)).returncode != 0
    for held in (new, Pass(CARE_MANAGER, key, Path(f"{key}-cert.pub"))):
        assert (await asyncio.to_thread(sftp, house, held)).returncode == 0
    assert [event.detail.split()[0] for event in house.events() if event.kind == "keys.changed"] == ["user", "user"]


async def test_host_keys_and_host_ca_are_exchanged_under_strict_clients(house: House, tmp_path: Path) -> None:
    """StrictHostKeyChecking=yes all along: new host keys are no news, a new host CA is none to who has both lines."""
    mine = house.certificate(CARE_MANAGER)
    known = tmp_path / "known_hosts"

    def strict(lines: Path) -> Completed:
        return sftp(house, mine, f"-oUserKnownHostsFile={lines}")

    async with house.connect() as inside:
        before = {key.read_text() for key in (house.path / "keys").glob("host_*_key.pub")}
        done = await asyncio.to_thread(order, house, "rotate", "--host-key", "all", host_cas=1)
        assert done.stdout.count("SHA256:") == 3
        after = {key.read_text() for key in (house.path / "keys").glob("host_*_key.pub")}
        assert not before & after
        for kind, name in (("ed25519", "ssh-ed25519"), ("ecdsa", "ecdsa-sha2-nistp256"), ("rsa", "rsa-sha2-256")):
            await asyncio.to_thread(house.wait_for, lambda kind=kind: shows(house, kind), f"the new {kind} key")  # type: ignore[misc]
            seen = await asyncio.to_thread(sftp, house, mine, f"-oHostKeyAlgorithms={name}-cert-v01@openssh.com")
            assert seen.returncode == 0, seen.stderr
        await asyncio.to_thread(order, house, "rotate", "--host-ca", host_cas=2)
        assert (await asyncio.to_thread(strict, house.known_hosts)).returncode == 0, "who knows the old line"
        assert await inside.sftp.listdir("/new") is not None, "who is inside stays"
    done = sftp(house, mine, batch=f"get certificate/known_hosts {known}\n")
    assert done.returncode == 0, done.stderr
    lines = known.read_text().splitlines()
    assert len(lines) == 2
    # The relay of a test has another port than its settings say.
    known.write_text("".join(f"@cert-authority * {line.split(maxsplit=2)[2]}\n" for line in lines))
    assert (await asyncio.to_thread(strict, known)).returncode == 0
    await asyncio.to_thread(order, house, "retire", "--host-ca", host_cas=1)
    assert (await asyncio.to_thread(strict, known)).returncode == 0
    refused = await asyncio.to_thread(strict, house.known_hosts)
    assert refused.returncode != 0
    assert "Host key verification failed" in refused.stderr
    house.restart()
    assert (await asyncio.to_thread(strict, known)).returncode == 0


def test_certificate_that_is_signed_apart_opens_the_door_when_it_was_imported(house: House, tmp_path: Path) -> None:
    """No home, no store, no server where it is signed; refused before the import, in after it."""
    apart = tmp_path / "apart"
    apart.mkdir()
    assert (
        run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "machine apart", "-f", str(apart / "ca")]).returncode
        == 0
    )
    order(house, "rotate", "--user-ca", "--apart", str(apart / "ca.pub"), user_cas=2)
    assert not (house.path / "keys" / "user_ca").exists()
    assert "apart" in house.relay("key", "list").stdout
    assert "kept on a machine apart" in house.relay("cert", "issue", DAY_CARE, "--out", str(tmp_path / "x")).stderr
    assert run_program(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(apart / "id")]).returncode == 0
    command = ["cert", "sign", str(apart / "id.pub"), "--office", DAY_CARE, "--ca-key", str(apart / "ca")]
    command += ["--source-address", "127.0.0.0/8", "--valid", "30d"]
    relay = house.relay("--help").args[0]
    without = run_program([relay, *command], cwd=apart)
    assert "has a passphrase" in without.stderr, without.stderr
    signed = run_program([relay, *command], cwd=apart, env={"RELAY_CA_PASSPHRASE": "machine apart"})
    assert signed.returncode == 0, signed.stderr
    assert "opens no door before" in signed.stdout
    held = Pass(DAY_CARE, apart / "id", apart / "id-cert.pub")
    assert sftp(house, held).returncode != 0
    assert house.journal_lines("login.rejected")[-1]["reason"] == "unknown_serial"
    assert house.relay("cert", "import", str(held.certificate), "--label", "金庫").returncode == 0
    assert sftp(house, held).returncode == 0
    again = house.relay("cert", "import", str(held.certificate))
    assert (again.returncode, "known already" in again.stdout) == (0, True)
    (found,) = json.loads(house.relay("cert", "list", DAY_CARE, "--json").stdout)[:1]
    assert (found["label"], found["state"]) == ("金庫", "valid")


def test_certificate_of_a_stranger_is_not_imported(make_house: MakeHouse, tmp_path: Path) -> None:
    """By another CA, or for an office that nobody registered: refused in words, and nothing is recorded."""
    house = make_house()
    for name in ("stranger", "id"):
        assert run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]).returncode == 0
    ca = house.path / "keys" / "user_ca"
    for signer, office, words in (
        (tmp_path / "stranger", DAY_CARE, "no trusted CA"),
        (ca, "0178503736", "not registered"),
    ):
        made = run_program(
            ["ssh-keygen", "-q", "-I", "x", "-s", str(signer), "-n", office, "-z", "7", "id.pub"], cwd=tmp_path
        )
        assert made.returncode == 0, made.stderr
        done = house.relay("cert", "import", str(tmp_path / "id-cert.pub"))
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert house.ask(lambda ledger: ledger.list_certificates(serial=7)) == []


def test_server_opens_a_locked_ca_with_the_passphrase_that_it_is_given(make_house: MakeHouse, tmp_path: Path) -> None:
    """A file named by the environment; what is issued and renewed with it is good, and the journal knows nothing of it."""
    house = make_house()
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    lock = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "correct horse", "-f", str(house.path / "keys" / "user_ca")]
    assert run_program(lock).returncode == 0
    refused = house.relay("cert", "issue", HOME_HELP, "--out", str(tmp_path / "no"))
    assert (refused.returncode, "has a passphrase" in refused.stderr) == (1, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAY_CA_PASSPHRASE_FILE", str(secret))
        house.start()
        held = issued(house, HOME_HELP, tmp_path / "id")
        assert run_program(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "new")]).returncode == 0
        done = sftp(house, held, batch=f"put {tmp_path}/new.pub certificate/new.pub\nls certificate\n")
        assert done.returncode == 0, done.stderr
        assert "new-cert.pub" in done.stdout
    assert "correct horse" not in house.journal.read_text()
    assert SUSPENDED not in done.stdout


def test_orders_that_are_not_clear_change_nothing(make_house: MakeHouse) -> None:
    """No key, two keys, an unknown CA, nothing to retire: refused, and every file in keys/ is as it was."""
    house = make_house()
    before = {file: file.read_bytes() for file in (house.path / "keys").rglob("*") if file.is_file()}
    for arguments in (
        ["rotate"],
        ["rotate", "--user-ca", "--host-ca"],
        ["retire", "--host-ca"],
        ["retire", "SHA256:unknown"],
    ):
        assert house.relay("key", *arguments, "--yes").returncode in (1, 2), arguments
    assert {file: file.read_bytes() for file in (house.path / "keys").rglob("*") if file.is_file()} == before
