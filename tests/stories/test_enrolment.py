"""An office gets its first certificate: with the script that it is given, and against those who have no invitation."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from house import CARE_MANAGER, HOME_HELP, HOST, Completed, House, relay_command, run_program

from relay.invitation import Code, read_code, write_code
from relay.model import EventKind

ENROLL = Path(__file__).parents[2] / "scripts" / "enroll"


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """Return a relay, serving."""
    house = make_house()
    house.start()
    return house


def invite(house: House, *more: str, office: str = HOME_HELP) -> str:
    """Return a new code, as the operator would hand it over."""
    made = run_program([*relay_command(house.path), "cert", "invite", office, "--json", *more])
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["code"])


def enroll(house: House, code: str, folder: Path) -> Completed:
    """Run the script that an office is given, with nothing of ours around it."""
    return run_program([sys.executable, "-I", str(ENROLL), f"{HOST}:{house.port}", code, "--folder", str(folder)])


async def ask(house: House, request: bytes, key: asyncssh.SSHKey | None = None) -> dict[str, Any]:
    """Say *request* as ``enroll`` with a fresh key, and return the answer."""
    async with asyncssh.connect(
        HOST, house.port, username="enroll", client_keys=[key or asyncssh.generate_private_key("ssh-ed25519")],
        known_hosts=str(house.known_hosts), agent_path=None, config=[],
    ) as conn:  # fmt: skip
        process = await conn.create_process(subsystem="enroll", encoding=None)
        process.stdin.write(request + b"\n")
        answer = await process.stdout.readline()
        return dict(json.loads(answer))


def request_of(code: str) -> bytes:
    """Return the line that the script says."""
    return json.dumps({"code": code}).encode()


def test_an_office_enrols_and_works(house: House, tmp_path: Path) -> None:
    """With a code typed in small letters: key, certificate, known_hosts and config, and OpenSSH's sftp gets in with them."""
    code = invite(house, "--label", "受付")
    folder = tmp_path / "office"
    done = enroll(house, code.lower().replace("-", " "), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert HOME_HELP in done.stdout
    assert (folder / "id_relay").stat().st_mode & 0o777 == 0o600
    listed = run_program(["sftp", "-F", str(folder / "config"), "-b", "-", "careplan-relay"], stdin=None, input="ls\n")
    assert "receive" in listed.stdout, listed.stderr
    again = enroll(house, code, tmp_path / "another")
    assert again.returncode == 1
    assert "もう使われています" in again.stderr
    assert "もう証明書があります" in enroll(house, code, folder).stderr
    told = json.loads(run_program([*relay_command(house.path), "cert", "invitations", "--json"]).stdout)
    assert [(one["standing"], one["label"]) for one in told] == [("used", "受付")]
    certificates = house.ask(lambda ledger: ledger.list_certificates(office=HOME_HELP))
    assert told[0]["serial"] == str(certificates[0].serial)
    assert certificates[0].label == "受付"
    kinds = [event.kind for event in house.ask(lambda ledger: ledger.list_events())]
    assert EventKind.INVITED in kinds


def test_an_enrolment_that_could_not_write_all_is_done_again(house: House, tmp_path: Path) -> None:
    """The same command with the same code finds the same key and ends well: the certificate is written last."""
    code, folder = invite(house), tmp_path / "office"
    in_the_way = folder / "config"
    in_the_way.mkdir(parents=True)
    first = enroll(house, code, folder)
    assert first.returncode == 1
    assert "同じコードで" in first.stderr
    key = (folder / "id_relay").read_bytes()
    in_the_way.rmdir()
    again = enroll(house, code, folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "id_relay").read_bytes() == key
    assert {"config", "known_hosts", "id_relay-cert.pub"} <= {each.name for each in folder.iterdir()}


def test_another_server_is_refused_before_anything_is_sent(make_house: Callable[..., House], tmp_path: Path) -> None:
    """A man in the middle, even another relay with a good CA of its own, sees neither key nor code."""
    ours, theirs = make_house(), make_house()
    # Houses are copies of one: the other one gets a host CA and host keys of its own.
    for file in (theirs.path / "keys").glob("host_*"):
        file.unlink()
    assert run_program([*relay_command(theirs.path), "init"]).returncode == 0
    code = invite(ours)
    theirs.start()
    done = enroll(theirs, code, tmp_path / "office")
    assert done.returncode == 1
    assert "横取り" in done.stderr
    assert not theirs.journal_lines("enrolment.opened")
    assert not (tmp_path / "office").exists()


async def test_five_wrong_tries_and_the_code_is_dead(house: House) -> None:
    """Guessed at from many connections at once: each is counted, and then the right secret is too late."""
    code = read_code(invite(house))
    guesses = [write_code(Code(code.id, bytes([n]) * 16, code.ca_prefix)) for n in range(8)]
    answers = await asyncio.gather(*(ask(house, request_of(guess)) for guess in guesses))
    assert {answer["error"] for answer in answers} == {"enrolment.wrong_code", "enrolment.blocked"}
    assert [answer["error"] for answer in answers].count("enrolment.wrong_code") == 5
    assert (await ask(house, request_of(write_code(code))))["error"] == "enrolment.blocked"
    async with house.ledger() as ledger:
        assert [event.kind for event in await ledger.list_events()].count(EventKind.INVITATION_TRIED) == 5
        before = await ledger.list_certificates(office=HOME_HELP)
    assert len(before) == 1


async def test_whose_answer_was_lost_asks_again_and_gets_the_same_certificate(house: House) -> None:
    """With the same code and the same key, as often as it takes; not with another key, and not once it was revoked."""
    code, key = invite(house), asyncssh.generate_private_key("ssh-ed25519")
    first, again, other = [
        await ask(house, request_of(code), each) for each in (key, key, asyncssh.generate_private_key("ssh-ed25519"))
    ]
    assert again == first
    assert first["certificate"]
    assert other["error"] == "enrolment.used"
    async with house.ledger() as ledger:
        (made,) = await ledger.list_certificates(key_fingerprint=key.get_fingerprint())
        await ledger.revoke_certificates([made.id], reason="lost", actor="operator", now=made.issued_at)
    assert (await ask(house, request_of(code), key))["error"] == "enrolment.used"


async def test_two_who_have_the_code_get_one_certificate(house: House) -> None:
    """At the same moment, with a key each: one is certified, the other is told that the code was used."""
    code = invite(house)
    answers = await asyncio.gather(*(ask(house, request_of(code)) for _ in range(6)))
    assert sorted("certificate" in answer for answer in answers) == [False] * 5 + [True]
    assert {answer.get("error") for answer in answers if "error" in answer} == {"enrolment.used"}


async def test_an_invitation_that_ended(house: House) -> None:
    """Expired, cancelled, unknown, for another relay, or no code at all: refused in words that say what to do."""
    expired, cancelled = invite(house), invite(house)
    with closing(sqlite3.connect(house.config.store.path)) as store, store:
        store.execute("UPDATE invitation SET expires_at = made_at WHERE id = ?", (read_code(expired).id,))
    ended = run_program(
        [*relay_command(house.path), "cert", "invitations", "--cancel", read_code(cancelled).id, "--yes"]
    )
    assert ended.returncode == 0, ended.stderr
    good = read_code(cancelled)
    unknown = write_code(Code("00000000", good.secret, good.ca_prefix))
    elsewhere = write_code(Code(good.id, good.secret, bytes(10)))
    said = {
        request_of(expired): "enrolment.expired",
        request_of(cancelled): "enrolment.cancelled",
        request_of(unknown): "enrolment.wrong_code",
        request_of(elsewhere): "enrolment.wrong_code",
        b"{}": "enrolment.wrong_code",
        b"[1]": "enrolment.wrong_code",
        b"\xff\xfe": "enrolment.wrong_code",
        b"x" * 5_000: "enrolment.wrong_code",
        b'{"code": ' + b"[" * 900: "enrolment.wrong_code",
    }
    for request, error in said.items():
        answer = await ask(house, request)
        assert answer["error"] == error, request[:50]
        assert answer["remedy_ja"]
    # The next one is answered as if nothing had been.
    assert "certificate" in await ask(house, request_of(invite(house)))


async def test_who_enrols_gets_nothing_else(house: House) -> None:
    """No tree, no shell, no second channel, no forwarding; and a bare key opens no other door."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    where: dict[str, Any] = {
        "known_hosts": str(house.known_hosts),
        "agent_path": None,
        "config": [],
        "client_keys": [key],
    }
    async with asyncssh.connect(HOST, house.port, username="enroll", **where) as conn:
        with pytest.raises(asyncssh.ChannelOpenError):
            await conn.create_process(subsystem="sftp")
        with pytest.raises(asyncssh.ChannelOpenError):
            await conn.create_process(subsystem="enroll")
        with pytest.raises(asyncssh.ChannelOpenError):
            await conn.open_connection("127.0.0.1", house.port)
    async with asyncssh.connect(HOST, house.port, username="enroll", **where) as conn:
        with pytest.raises(asyncssh.ChannelOpenError):
            await conn.create_process("id")
    for name in (HOME_HELP, "ENROLL", "root", "enroll "):
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(HOST, house.port, username=name, **where)
    weak = asyncssh.generate_private_key("ssh-rsa", key_size=1024)
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(HOST, house.port, username="enroll", **{**where, "client_keys": [weak]})


async def test_who_says_nothing_is_ended(make_house: Callable[..., House]) -> None:
    """After the time of a login: with no channel, with one and no word, with half a line."""
    house = make_house(server={"login_seconds": 2})
    house.start()
    key = asyncssh.generate_private_key("ssh-ed25519")
    where: dict[str, Any] = {
        "known_hosts": str(house.known_hosts),
        "agent_path": None,
        "config": [],
        "client_keys": [key],
    }
    for said in (None, b"", b'{"code":'):
        async with asyncssh.connect(HOST, house.port, username="enroll", **where) as conn, asyncio.timeout(60):
            if said is not None:
                process = await conn.create_process(subsystem="enroll", encoding=None)
                process.stdin.write(said)
            await conn.wait_closed()


async def test_a_key_that_was_certified_before_is_not_certified_again(house: House) -> None:
    """One key, one certificate: a second invitation needs a second key."""
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    assert "certificate" in await ask(house, request_of(invite(house)), key)
    answer = await ask(house, request_of(invite(house, office=CARE_MANAGER)), key)
    assert answer["error"] == "certificate.used_key"


async def test_without_the_ca_the_invitation_stays_good(house: House) -> None:
    """Where the CA's key is kept on a machine apart nothing is issued, and the code can be used later."""
    code = invite(house)
    private = house.path / "keys" / "user_ca"
    kept = private.read_bytes()
    private.unlink()
    assert (await ask(house, request_of(code)))["error"] == "enrolment.unavailable"
    private.write_bytes(kept)
    private.chmod(0o600)
    assert "certificate" in await ask(house, request_of(code))
