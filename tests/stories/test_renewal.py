"""An office exchanges its certificate by itself: a new public key in, a certificate out, old and new side by side."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import pytest
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, LETTERED, House, MakeHouse, Pass, run_program
from matrix_cells import PROGRAMS
from programs import need
from raw_sftp import CLOSE, OPEN, RENAME, STATUS, WRITE, WRITING, Long, Raw, open_raw

from relay.certificates import parse_certificate_line
from relay.model import Certificate, OfficeNumber

NO_ATTRIBUTES = b"\0\0\0\0"


def make_key(folder: Path, name: str, *options: str) -> Path:
    """Make a key with the real ssh-keygen; return its private half."""
    kind = options or ("-t", "ecdsa")
    made = run_program(["ssh-keygen", "-q", *kind, "-N", "", "-C", "受付", "-f", str(folder / name)])
    assert made.returncode == 0, made.stderr
    return folder / name


def certificates(house: House, office: OfficeNumber) -> list[Certificate]:
    """Return what the register has, newest first."""
    return house.ask(lambda ledger: ledger.list_certificates(office=office))


def as_pass(house: House, office: OfficeNumber, key: Path, certificate: Path) -> Pass:
    """Return a key and a certificate that were fetched."""
    line = certificate.read_text()
    found = house.ask(lambda ledger: ledger.list_certificates(serial=parse_certificate_line(line).serial))
    return Pass(office, key, certificate, found[0])


async def renew(house: House, held: Pass | None, key: Path, office: OfficeNumber = CARE_MANAGER) -> Pass:
    """Put the public half of *key* into ``certificate/`` and fetch what comes of it."""
    public = key.with_name(key.name + ".pub")
    certificate = key.with_name(key.name + "-cert.pub")
    async with house.connect(office, pass_=held) as caller:
        await caller.sftp.put(str(public), f"/certificate/{public.name}")
        await caller.sftp.get(f"/certificate/{certificate.name}", str(certificate))
    return await asyncio.to_thread(as_pass, house, office, key, certificate)


def gets_in(house: House, held: Pass) -> bool:
    """Tell whether OpenSSH's own sftp is let in."""
    return run_program(
        ["sftp", *house.openssh_options(held.office, pass_=held), f"-P{house.port}", "-b", "-", f"{held.office}@127.0.0.1"],
        input="ls /new\n",
        stdin=None,
    ).returncode == 0  # fmt: skip


def test_every_client_renews_and_logs_in_with_what_it_fetched(make_house: MakeHouse, tmp_path: Path) -> None:
    """Put new.pub, get new-cert.pub, with each program of the matrix; what came of it has the key and its parent."""
    house = make_house(certificates={"valid_per_office": 50})
    house.start()
    done: list[str] = []
    for number, program in enumerate(PROGRAMS.values()):
        if not all(map(shutil.which, program.needs)):
            continue
        key = make_key(tmp_path, f"new-{number}")
        public, fetched = tmp_path / f"{key.name}.pub", tmp_path / f"{key.name}-cert.pub"
        # sshfs says itself where this machine lets nobody mount anything.
        with contextlib.suppress(pytest.skip.Exception):
            said = program.put(house, CARE_MANAGER, public, f"certificate/{public.name}")
            assert said.is_done, (program.name, said.text)
            said = program.fetch(house, CARE_MANAGER, f"certificate/{fetched.name}", fetched)
            assert said.is_done, (program.name, said.text)
            assert gets_in(house, as_pass(house, CARE_MANAGER, key, fetched)), program.name
            done.append(program.name)
    found = certificates(house, CARE_MANAGER)
    assert {"sftp", "scp", "psftp", "WinSCP", "rclone 1.63", "paramiko", "asyncssh"} <= {*done}
    assert [one.parent for one in found] == [*[found[-1].id] * len(done), None]
    assert house.sftp(CARE_MANAGER, "ls /send").returncode == 0, "the old one is good beside the new ones"


def test_every_client_notices_that_a_private_key_is_refused(house: House, tmp_path: Path) -> None:
    """Whatever its file is called: no program believes that it was taken, and nothing of it is in the store."""
    key = make_key(tmp_path, "id")
    private = tmp_path / "mistake.pub"
    private.write_bytes(key.read_bytes())
    for program in PROGRAMS.values():
        if not all(map(shutil.which, program.needs)):
            continue
        with contextlib.suppress(pytest.skip.Exception):
            said = program.put(house, CARE_MANAGER, private, "certificate/mistake.pub")
            assert not said.is_done, (program.name, said.text)
    assert len(certificates(house, CARE_MANAGER)) == 1
    assert {line["code"] for line in house.journal_lines("certificate.refused")} <= {"certificate.private_key"}


async def test_renewed_certificate_is_for_the_same_offices_label_and_networks(house: House, tmp_path: Path) -> None:
    """Those of the parent's offices that still take part, its label, its source-address, no longer than it and the setting."""
    far = datetime.now(UTC) + timedelta(days=400)
    three = (CARE_MANAGER, HOME_HELP, DAY_CARE)
    ours = house.certificate(CARE_MANAGER, offices=three, label="ケアソフト", valid_before=far)
    assert house.relay("office", "suspend", DAY_CARE, "--yes").returncode == 0
    made = (await renew(house, ours, make_key(tmp_path, "new"))).record
    assert made is not None
    assert ours.record is not None
    assert (set(made.offices), made.label, made.parent) == ({CARE_MANAGER, HOME_HELP}, "ケアソフト", ours.record.id)
    assert timedelta(days=364) < made.valid_before - datetime.now(UTC) <= timedelta(days=365)
    assert parse_certificate_line(made.line).critical_options == ()
    own_key = make_key(tmp_path, "limited")
    signed = run_program(
        ["ssh-keygen", "-q", "-s", str(house.path / "keys" / "user_ca"), "-I", "limited", "-z", "77", "-n", LETTERED,
         "-O", "source-address=127.0.0.0/8", "-V", "-5m:+1d", f"{own_key}.pub"]
    )  # fmt: skip
    assert signed.returncode == 0, signed.stderr
    line = (tmp_path / "limited-cert.pub").read_text()
    offered = parse_certificate_line(line)
    record = replace(
        made, serial=77, offices=(LETTERED,), key_fingerprint=offered.key_fingerprint, parent=None, line=line, label="",
        key_id="limited", valid_after=offered.valid_after, valid_before=offered.valid_before,
    )  # fmt: skip
    await asyncio.to_thread(house.ask, lambda ledger: ledger.record_certificate(record, actor="test"))
    held = Pass(LETTERED, own_key, tmp_path / "limited-cert.pub", record)
    limited = (await renew(house, held, make_key(tmp_path, "limited2"), LETTERED)).record
    assert limited is not None
    assert dict(parse_certificate_line(limited.line).critical_options) == {"source-address": "127.0.0.0/8"}
    # That one was given for a day: it does not become one of a year.
    assert timedelta(hours=23) < limited.valid_before - datetime.now(UTC) <= timedelta(days=1)


async def test_renewal_made_with_a_stolen_key_ends_with_its_revocation(house: House, tmp_path: Path) -> None:
    """The thief renews, renews again and gives up the stolen one; revoking it ends everything that came of it."""
    stolen = house.certificate(CARE_MANAGER, label="盗まれたPC")
    bystander = house.certificate(CARE_MANAGER, label="受付")
    second = await renew(house, stolen, make_key(tmp_path, "second"))
    third = await renew(house, second, make_key(tmp_path, "third"))
    assert stolen.record is not None
    async with house.connect(pass_=third) as thief:
        for name in [str(name) for name in await thief.sftp.listdir("/certificate")]:
            if name.endswith("-cert.pub") and name != "third-cert.pub":
                # The bystander's is not the thief's to end.
                with contextlib.suppress(asyncssh.SFTPFailure):
                    await thief.sftp.remove(f"/certificate/{name}")
        ended = await asyncio.to_thread(house.ask, lambda ledger: ledger.find_certificate(*stolen.record.id))
        assert ended is not None
        assert ended.revoked_at is not None, "the thief has given it up"
        serial = str(stolen.record.serial)
        done = await asyncio.to_thread(house.relay, "cert", "revoke", serial, "--cause", "stolen", "--yes")
        assert done.returncode == 0, done.stderr
        async with asyncio.timeout(30):
            await thief.connection.wait_closed()
    assert not await asyncio.to_thread(gets_in, house, third)
    assert await asyncio.to_thread(gets_in, house, bystander)


async def test_name_of_what_was_given_up_means_nothing_else(house: House, tmp_path: Path) -> None:
    """A REMOVE that is repeated, as after a lost reply, gives nothing else up: no other certificate takes the name."""
    first = house.certificate(CARE_MANAGER, label="受付")
    second = await renew(house, first, make_key(tmp_path, "yearly"))
    (tmp_path / "again").mkdir()
    third = await renew(house, second, make_key(tmp_path / "again", "yearly"))
    fourth = await renew(house, third, make_key(tmp_path, "last"))
    async with house.connect(pass_=fourth) as caller:
        await caller.sftp.remove("/certificate/yearly-cert.pub")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await caller.sftp.remove("/certificate/yearly-cert.pub")
    assert not await asyncio.to_thread(gets_in, house, third)
    for held in (first, second, fourth):
        assert await asyncio.to_thread(gets_in, house, held)


async def test_old_one_is_given_up_by_who_holds_the_new_one_and_by_nobody_else(house: House, tmp_path: Path) -> None:
    """Not the one in use, not a colleague's, not the new one with the old key: each refused in words."""
    old = house.certificate(CARE_MANAGER, label="受付")
    other = house.certificate(CARE_MANAGER, label="スクリプト")
    new = await renew(house, old, make_key(tmp_path, "new"))
    assert old.record is not None
    assert other.record is not None
    async with house.connect(pass_=new) as caller:
        names = {str(name) for name in await caller.sftp.listdir("/certificate") if str(name).endswith("-cert.pub")}
        files = {parse_certificate_line(str(await read(caller.sftp, name))).serial: name for name in names}
        with pytest.raises(asyncssh.SFTPError, match=r"certificate\.in_use"):
            await caller.sftp.remove("/certificate/new-cert.pub")
        with pytest.raises(asyncssh.SFTPError, match=r"certificate\.not_replaced"):
            await caller.sftp.remove(f"/certificate/{files[other.record.serial]}")
        async with house.connect(pass_=old) as earlier:
            with pytest.raises(asyncssh.SFTPError, match=r"certificate\.not_replaced"):
                await earlier.sftp.remove("/certificate/new-cert.pub")
        await caller.sftp.remove(f"/certificate/{files[old.record.serial]}")
        assert files[old.record.serial] not in await caller.sftp.listdir("/certificate")
    assert not await asyncio.to_thread(gets_in, house, old)
    for held in (new, other):
        assert await asyncio.to_thread(gets_in, house, held)


async def read(sftp: asyncssh.SFTPClient, name: str) -> str:
    """Return what a file in ``certificate/`` holds."""
    async with sftp.open(f"/certificate/{name}") as file:
        return str(await file.read())


async def test_what_is_no_new_public_key_is_refused_in_words(house: House, tmp_path: Path) -> None:
    """A private key, DSA, a short RSA key, a plan, garbage, a used key, a revoked key: none makes a certificate."""
    key = make_key(tmp_path, "id")
    rsa = make_key(tmp_path, "rsa", "-t", "rsa", "-b", "1024")
    make_key(tmp_path, "dsa", "-t", "dsa")
    own = run_program(["ssh-keygen", "-y", "-f", str(house.certificate().key)]).stdout.encode()
    revoked = make_key(tmp_path, "revoked").with_name("revoked.pub")
    assert house.relay("cert", "revoke", "--key", str(revoked), "--cause", "lost", "--yes").returncode == 0
    whole = (tmp_path / "id.pub").read_bytes()
    before = len(certificates(house, CARE_MANAGER))
    async with house.dial() as connection, open_raw(connection) as raw:
        for name, data, code in (
            ("a.pub", key.read_bytes(), "certificate.private_key"),
            ("b.pub", b"PuTTY-User-Key-File-3: ecdsa\n", "certificate.private_key"),
            ("c.pub", (tmp_path / "dsa.pub").read_bytes(), "certificate.weak_key"),
            ("d.pub", rsa.with_name("rsa.pub").read_bytes(), "certificate.weak_key"),
            ("e.pub", b"", "certificate.not_a_key"),
            ("f.pub", b"ecdsa-sha2-nistp256 AAAA", "certificate.not_a_key"),
            ("g.pub", whole[:90], "certificate.not_a_key"),
            ("h.pub", bytes(range(256)), "certificate.not_a_key"),
            ("i.pub", whole * 200, "certificate.not_a_key"),
            ("j.pub", whole + whole, "certificate.not_a_key"),
            ("k.pub", own, "certificate.used_key"),
            ("l.pub", revoked.read_bytes(), "certificate.revoked_key"),
            ("id.txt", whole, "certificate.only_keys"),
            (".pub", whole, "certificate.only_keys"),
        ):
            opened = await raw.call(OPEN, f"/certificate/{name}", WRITING, Raw(NO_ATTRIBUTES))
            answers = [opened]
            if opened.type != STATUS:
                answers = [await raw.call(WRITE, opened.handle, Long(0), data)]
                answers.append(await raw.call(CLOSE, opened.handle))
            assert answers[-1].text.startswith(code), (name, answers[-1].text)
            assert " / " in answers[-1].text
            if code == "certificate.private_key":
                assert answers[0].text.startswith(code), "at the WRITE, which every program notices"
    assert len(certificates(house, CARE_MANAGER)) == before
    assert b"PRIVATE" not in house.config.store.path.read_bytes()


async def test_key_that_comes_twice_is_one_certificate(house: House, tmp_path: Path) -> None:
    """A program that repeats what it has sent gets what it got; under a temporary name it counts when it is renamed."""
    key = make_key(tmp_path, "new")
    data = (tmp_path / "new.pub").read_bytes()
    async with house.dial() as connection, open_raw(connection) as raw:
        temporary = "/certificate/new.pub.0a1b2c3d.partial"
        assert (await raw.put(temporary, data)).code == 0
        assert len(certificates(house, CARE_MANAGER)) == 1
        assert (await raw.call(RENAME, temporary, "/certificate/new.pub")).code == 0
        assert "new-cert.pub" in await raw.list("/certificate")
        assert (await raw.put("/certificate/new.pub", data)).code == 0
        assert (await raw.put("/certificate/again.pub", data)).code == 0
        assert len(certificates(house, CARE_MANAGER)) == 2
        line = (await raw.get("/certificate/new-cert.pub")).decode()
        # What a synchroniser sends back is taken and kept nowhere.
        assert (await raw.put("/certificate/new-cert.pub", b"whatever")).code == 0
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.get("/certificate/new-cert.pub")).decode() == line
    assert parse_certificate_line(line).key_fingerprint == asyncssh.read_public_key(f"{key}.pub").get_fingerprint()


async def test_key_in_puttys_form_is_taken(house: House, tmp_path: Path) -> None:
    """What PuTTYgen's "Save public key" writes."""
    need("puttygen")
    ppk, public = tmp_path / "new.ppk", tmp_path / "putty.pub"
    assert (
        run_program(["puttygen", "-t", "ecdsa", "-q", "--new-passphrase", "/dev/null", "-o", str(ppk)]).returncode == 0
    )
    assert run_program(["puttygen", str(ppk), "-p", "-o", str(public)]).returncode == 0
    assert public.read_text().startswith("---- BEGIN SSH2 PUBLIC KEY ----")
    async with house.connect() as caller:
        await caller.sftp.put(str(public), "/certificate/putty.pub")
        line = await read(caller.sftp, "putty-cert.pub")
    shown = run_program(["puttygen", str(ppk), "-L"]).stdout.split()
    key = asyncssh.import_public_key(" ".join(shown[:2]))
    assert parse_certificate_line(line).key_fingerprint == key.get_fingerprint()


async def test_valid_certificates_of_an_office_are_bounded(make_house: MakeHouse, tmp_path: Path) -> None:
    """A thief cannot make a thousand of them, and the sentence says the limit."""
    house = make_house(certificates={"valid_per_office": 2})
    house.start()
    await renew(house, None, make_key(tmp_path, "second"))
    with pytest.raises(asyncssh.SFTPError, match=r"certificate\.too_many: .* 2 "):
        await renew(house, None, make_key(tmp_path, "third"))


async def test_renewing_and_giving_up_in_a_circle_ends(make_house: MakeHouse, tmp_path: Path) -> None:
    """However few are valid at a time, the register is not filled: the sentence is that of too many."""
    house = make_house(certificates={"valid_per_office": 2})
    house.start()
    held = house.certificate(CARE_MANAGER, label="circle")
    assert house.relay("cert", "revoke", "--office", CARE_MANAGER, "--label", "", "--yes").returncode == 0
    for number in range(2):
        held = await renew(house, held, make_key(tmp_path, f"k{number}"))
        async with house.connect(pass_=held) as caller:
            for name in [str(name) for name in await caller.sftp.listdir("/certificate")]:
                if name.endswith("-cert.pub") and name != f"k{number}-cert.pub":
                    await caller.sftp.remove(f"/certificate/{name}")
    with pytest.raises(asyncssh.SFTPError, match=r"certificate\.too_many"):
        await renew(house, held, make_key(tmp_path, "last"))


async def test_key_that_is_opened_again_is_lost_to_its_first_handle(house: House, tmp_path: Path) -> None:
    """What counts is what was opened last; the handle before it can add nothing and submits nothing."""
    make_key(tmp_path, "new")
    data = (tmp_path / "new.pub").read_bytes()
    async with house.dial() as connection, open_raw(connection) as raw:
        first = await raw.open("/certificate/new.pub")
        assert (await raw.call(WRITE, first, Long(0), b"ecdsa-sha2-nistp256 ")).code == 0
        second = await raw.open("/certificate/new.pub")
        assert (await raw.call(WRITE, first, Long(20), b"AAAA")).code != 0
        assert (await raw.call(WRITE, second, Long(0), data)).code == 0
        assert (await raw.call(CLOSE, first)).code != 0
        assert (await raw.call(CLOSE, second)).code == 0
    assert len(certificates(house, CARE_MANAGER)) == 2


async def test_keys_that_are_written_at_once_are_few(house: House) -> None:
    """A session holds no more of them in memory, and says so; one that was closed makes room."""
    async with house.dial() as connection, open_raw(connection) as raw:
        handles = [await raw.open(f"/certificate/{number}.pub") for number in range(4)]
        full = await raw.call(OPEN, "/certificate/4.pub", WRITING, Raw(NO_ATTRIBUTES))
        assert full.text.startswith("limit.handles")
        assert (await raw.call(CLOSE, handles[0])).text.startswith("certificate.not_a_key")
        assert await raw.open("/certificate/4.pub")


async def test_relay_that_holds_no_ca_says_whom_to_ask(make_house: MakeHouse, tmp_path: Path) -> None:
    """Issuing is done on a machine apart: the key is refused in words, and everything else works."""
    house = make_house()
    house.certificate()
    (house.path / "keys" / "user_ca").rename(tmp_path / "user_ca")
    house.start()
    assert house.journal_lines("certificate.renewal_unavailable")
    with pytest.raises(asyncssh.SFTPError, match=r"certificate\.not_issued_here"):
        await renew(house, None, make_key(tmp_path, "new"))
    async with house.connect() as caller:
        text = io.BytesIO()
        async with caller.sftp.open("/certificate/更新のしかた.txt", "rb") as guide:
            text.write(bytes(await guide.read()))  # type: ignore[arg-type]
        assert "運営者" in text.getvalue().decode("utf-8-sig")
