"""What an office shows at an inspection: receipts that both sides find, that ssh-keygen accepts, and a month's page."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

import pytest
import raw_sftp as sftp
from house import (
    CARE_MANAGER,
    DAY_CARE,
    HOME_HELP,
    House,
    general_name,
    pdf,
    plan_csv,
    plan_name,
    relay_command,
    run_program,
)
from raw_sftp import RawSftp, open_raw

JAPAN = timezone(timedelta(hours=9))


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """Return a relay, serving."""
    house = make_house()
    house.start()
    return house


def months() -> list[str]:
    """Return the month of now in Japan, and the one before: midnight may pass while a test runs."""
    now = datetime.now(UTC).astimezone(JAPAN)
    return [f"{now:%Y-%m}", f"{now - timedelta(hours=1):%Y-%m}"]


async def fetch_receipts(raw: RawSftp, folder: Path) -> dict[str, Path]:
    """Fetch everything below receipts/, every size as the listing told it; returns the texts by number and step."""
    found: dict[str, Path] = {}
    folder.mkdir()
    for month in [name for name in await raw.list("/receipts") if name in months()]:
        for name in await raw.list(f"/receipts/{month}"):
            if name in (".", ".."):
                continue
            data = await raw.get(f"/receipts/{month}/{name}")
            assert (await raw.call(sftp.STAT, f"/receipts/{month}/{name}")).size == len(data)
            (folder / name).write_bytes(data)
            if name.endswith(".txt"):
                found[name.removesuffix(".txt").partition("-")[2]] = folder / name
    (folder / "allowed_signers").write_bytes(await raw.get("/receipts/allowed_signers"))
    return found


def is_good(text: Path, signers: Path | None = None) -> bool:
    """Ask stock ssh-keygen, with the allowed signers that lie in the tree."""
    signature = text.with_name(text.name + ".sig")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signers or text.parent / "allowed_signers"), "-I", "careplan-relay",
               "-n", "careplan-relay-receipt", "-s", str(signature)]  # fmt: skip
    with text.open("rb") as message:
        return subprocess.run(command, stdin=message, capture_output=True, check=False, timeout=60).returncode == 0


async def test_both_offices_find_the_receipts_of_each_step(house: House, tmp_path: Path) -> None:
    """Accepted, collected, taken back, refused: with numbers, digest and times; the third office finds nothing."""
    content = plan_csv()
    async with (
        house.dial() as one, house.dial(HOME_HELP) as two, house.dial(DAY_CARE) as three,
        open_raw(one) as ours, open_raw(two) as theirs, open_raw(three) as strangers,
    ):  # fmt: skip
        assert (await ours.put(f"/send/{plan_name()}", content)).code == sftp.OK
        assert (await ours.put(f"/send/{plan_name(number=1)}", content)).code == sftp.OK
        assert await theirs.get(f"/new/{plan_name()}") == content
        moved = await ours.call(sftp.RENAME, f"/send/{plan_name(number=1)}", f"/recall/{plan_name(number=1)}")
        assert moved.code == sftp.OK
        assert (await ours.put(f"/send/{HOME_HELP}/山田.pdf", pdf())).code == sftp.OK
        assert (await ours.put(f"/send/{general_name(number=9)}", b"this is no PDF")).code == sftp.FAILURE
        mine = await fetch_receipts(ours, tmp_path / "ours")
        yours = await fetch_receipts(theirs, tmp_path / "theirs")
        others = await fetch_receipts(strangers, tmp_path / "others")
        # What is somebody else's is not there, whoever names it.
        name = mine["00000001-accepted"].name
        for month in months():
            assert (await strangers.call(sftp.STAT, f"/receipts/{month}/{name}")).code == sftp.NO_SUCH_FILE
    steps = {"00000001-accepted", "00000001-collected", "00000002-accepted", "00000002-recalled", "00000003-accepted"}
    assert set(yours) == steps
    assert set(mine) == {*steps, "R00000001-refused"}
    assert others == {}
    assert all(is_good(text) for text in (*mine.values(), *yours.values()))
    assert all(mine[step].read_bytes() == yours[step].read_bytes() for step in steps)
    told = mine["00000001-collected"].read_text("utf-8-sig")
    for fact in (
        CARE_MANAGER,
        HOME_HELP,
        plan_name(),
        sha256(content).hexdigest(),
        "取得証",
        "Receipt: collected",
        "5000",
    ):
        assert fact in told
    assert "山田.pdf" in mine["00000003-accepted"].read_text("utf-8-sig")
    assert "content." in mine["R00000001-refused"].read_text("utf-8-sig")


async def test_a_receipt_that_was_changed_is_not_genuine(house: House, tmp_path: Path) -> None:
    """One byte of the text, or another relay's key: ssh-keygen and `relay receipt verify` refuse it in words."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        receipt = (await fetch_receipts(ours, tmp_path / "ours"))["00000001-accepted"]

    def verify(*more: str) -> subprocess.CompletedProcess[str]:
        return run_program([*relay_command(house.path), "receipt", "verify", str(receipt), *more])

    genuine = verify()
    assert genuine.returncode == 0, genuine.stderr
    assert "does not prove" in genuine.stdout
    assert json.loads(verify("--json").stdout)["is_genuine"] is True
    published = run_program([*relay_command(house.path), "receipt", "signers"]).stdout
    assert published.encode() == (receipt.parent / "allowed_signers").read_bytes()
    other = tmp_path / "other_signers"
    key = tmp_path / "key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    other.write_text('careplan-relay namespaces="careplan-relay-receipt" ' + key.with_suffix(".pub").read_text())
    assert "not among the allowed signers" in verify("--signers", str(other)).stderr
    assert not is_good(receipt, other)
    receipt.write_bytes(receipt.read_bytes().replace(b"5000", b"5001"))
    changed = verify()
    assert changed.returncode == 2
    assert "does not belong to this text" in changed.stderr
    assert not is_good(receipt)


async def test_receipts_are_the_relays_alone(house: House) -> None:
    """Nothing can be put there, removed or made; a month to come and a name that never was are not there."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        month = next(name for name in await ours.list("/receipts") if name in months())
        name = next(name for name in await ours.list(f"/receipts/{month}") if name.endswith(".txt"))
        for path in (f"/receipts/{month}/{name}", f"/receipts/{month}/x.txt", "/receipts/README.txt", "/receipts/x"):
            refused = await ours.put(path, b"mine")
            assert (refused.type, refused.code) in [(sftp.STATUS, sftp.FAILURE), (sftp.STATUS, sftp.DENIED)], path
        assert (await ours.call(sftp.REMOVE, f"/receipts/{month}/{name}")).code != sftp.OK
        assert (await ours.call(sftp.RENAME, f"/receipts/{month}/{name}", "/receipts/x")).code != sftp.OK
        for path in ("/receipts/2099-01", f"/receipts/{month}/20260101-00000001-accepted.txt",
                     f"/receipts/{month}/{name}.sig.sig", "/receipts/2020-13"):  # fmt: skip
            assert (await ours.call(sftp.STAT, path)).code == sftp.NO_SUCH_FILE, path
        assert "ssh-keygen -Y verify" in (await ours.get("/receipts/README.txt")).decode("utf-8-sig")


def test_a_month_on_one_page(house: House, tmp_path: Path) -> None:
    """As text and as HTML: what was sent, received and refused; names of persons only with --reveal, which is recorded."""

    async def fill() -> None:
        async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
            assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
            assert (
                await ours.put(f"/send/{HOME_HELP}/<山田>.pdf".replace("<", "＜").replace(">", "＞"), pdf())
            ).code == sftp.OK
            assert (await ours.put(f"/send/{general_name(number=9)}", b"this is no PDF")).code == sftp.FAILURE
            assert await theirs.get(f"/new/{plan_name()}") == plan_csv()

    asyncio.run(fill())
    month = months()[0]

    def report(*more: str) -> str:
        done = run_program([*relay_command(house.path), "report", CARE_MANAGER, "--month", month, *more])
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = report()
    assert "■ 送信（2件）" in text
    assert "■ 受信（0件）" in text
    assert "■ 受け付けられなかったもの（1件）" in text
    assert plan_name() in text
    assert sha256(plan_csv()).hexdigest() in text
    assert "山田" not in text
    assert "山田" in report("--reveal")
    revealed = [event for event in house.ask(lambda ledger: ledger.list_events()) if event.kind == "names.revealed"]
    assert [event.detail for event in revealed] == [f"report {CARE_MANAGER} {month}"]
    page = tmp_path / "page.html"
    assert "2 sent" in report("--html", "--output", str(page))
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    wrong = run_program([*relay_command(house.path), "report", CARE_MANAGER, "--month", "2026-13"])
    assert wrong.returncode == 2
