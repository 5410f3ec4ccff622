"""An office learns in time that its certificate ends: in its tree, in the status, and at login where that disturbs nobody."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

from house import CARE_MANAGER, HOST, House, MakeHouse, Pass, run_program
from programs import need
from raw_sftp import open_raw

NOTICE = "証明書の期限.txt"


def ending_in(house: House, days: float, label: str) -> Pass:
    """Return a certificate that ends in so many days."""
    return house.certificate(CARE_MANAGER, valid_before=datetime.now(UTC) + timedelta(days=days), label=label)


def say_at_login(house: House, held: Pass) -> str:
    """Log in with OpenSSH's sftp and return what its user reads besides what was asked for."""
    command = ["sftp", *house.openssh_options(CARE_MANAGER, pass_=held), f"-P{house.port}", "-b", "-"]
    done = run_program([*command, f"{CARE_MANAGER}@{HOST}"], input="ls\n", stdin=None)
    assert done.returncode == 0, done.stderr
    assert "証明書" not in done.stdout.replace(NOTICE, "")
    return done.stderr


def test_end_is_told_at_login_once_for_each_level_and_daily_at_last(house: House) -> None:
    """Nothing while it is far; then one line in two languages, and not again at the next login of the same day."""
    assert say_at_login(house, ending_in(house, 90, "遠い")) == ""
    for days, words in ((59.9, "60日"), (29.5, "30日"), (13.2, "14日"), (6.5, "7日"), (0.5, "1日")):
        held = ending_in(house, days, f"{days}")
        first = say_at_login(house, held)
        assert f"あと{words}です" in first
        assert "certificate/" in first
        assert "this certificate ends in" in first
        assert say_at_login(house, held) == ""


async def test_notice_lies_in_the_tree_and_in_the_status(house: House) -> None:
    """It names each certificate that ends and the one in use, and is not there while nothing ends."""
    async with house.connect() as caller:
        assert NOTICE not in await caller.sftp.listdir("/")
    soon, later = ending_in(house, 5, "受付"), ending_in(house, 40, "スクリプト")
    ending_in(house, 61, "遠い")
    async with house.connect(pass_=soon) as caller:
        assert NOTICE in await caller.sftp.listdir("/")
        async with caller.sftp.open(f"/{NOTICE}", "rb") as file:
            text = bytes(await file.read()).decode("utf-8-sig")  # type: ignore[arg-type]
        stat = await caller.sftp.stat(f"/{NOTICE}")
        async with caller.sftp.open("/status/certificate.csv", "rb") as file:
            rows = list(csv.DictReader(io.StringIO(bytes(await file.read()).decode("utf-8-sig"))))  # type: ignore[arg-type]
        async with caller.sftp.open("/status/certificate.json", "rb") as file:
            told = json.loads(bytes(await file.read()))["certificate"]  # type: ignore[arg-type]
    assert text.index("受付") < text.index("スクリプト")
    assert "遠い" not in text
    assert "あと5日）  受付  ← この接続で使用中" in text
    assert "<- in use now" in text
    assert soon.record is not None
    assert later.record is not None
    # It is news since the day on which the last level was reached.
    assert stat.mtime == int((soon.record.valid_before - timedelta(days=7)).timestamp())
    assert {row["用途"]: row["期限の予告（日前）"] for row in rows if row["用途"]} == {
        "受付": "7",
        "スクリプト": "60",
        "遠い": "",
    }
    assert {row["label"]: row["notice_days"] for row in told if row["label"]} == {
        "受付": 7,
        "スクリプト": 60,
        "遠い": None,
    }


def test_renewed_certificate_is_not_complained_of(house: House) -> None:
    """Who has renewed and uses the new one reads nothing of the old one."""
    now = datetime.now(UTC)
    given = {"valid_after": now - timedelta(days=360), "valid_before": now + timedelta(days=5)}
    old = house.certificate(CARE_MANAGER, label="受付", **given)
    new = house.path / "new"
    assert run_program(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(new)]).returncode == 0
    batch = f"put {new}.pub certificate/new.pub\nget certificate/new-cert.pub {new}-cert.pub\nls\n"
    command = ["sftp", *house.openssh_options(CARE_MANAGER, pass_=old), f"-P{house.port}", "-b", "-"]
    done = run_program([*command, f"{CARE_MANAGER}@{HOST}"], input=batch, stdin=None)
    assert done.returncode == 0, done.stderr
    assert NOTICE in done.stdout, "who still uses the old one goes on reading it"
    renewed = Pass(CARE_MANAGER, new, new.with_name("new-cert.pub"))
    assert say_at_login(house, renewed) == ""
    names = run_program(
        ["sftp", *house.openssh_options(pass_=renewed), f"-P{house.port}", "-b", "-", f"{CARE_MANAGER}@{HOST}"],
        input="ls\n",
        stdin=None,
    ).stdout
    assert NOTICE not in names


async def test_psftp_prints_it_too_and_others_hear_nothing(house: House) -> None:
    """PuTTY's program prints what comes on stderr; a client that might open a dialog or choke is sent nothing."""
    need("psftp", "puttygen")
    held = ending_in(house, 5, "受付")
    async with house.dial(pass_=held) as connection, open_raw(connection) as raw:
        assert await raw.list("/")
        assert raw.stderr == b""
    house._passes[CARE_MANAGER] = held
    assert "あと5日です" in house.psftp(CARE_MANAGER, "ls\n").stderr


def test_end_without_renewal_here_names_the_operator(make_house: MakeHouse) -> None:
    """Where certificates are not renewed over SFTP nobody is told to try."""
    house = make_house(certificates={"renewal": False})
    house.start()
    said = say_at_login(house, ending_in(house, 5, "受付"))
    assert "運営者に更新を依頼してください" in said
    assert "certificate/" not in said
