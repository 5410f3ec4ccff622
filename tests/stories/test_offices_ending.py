"""An office closes, another one changes its number: what its staff, its partners and the operator see, and how it is undone."""

from __future__ import annotations

import json
from typing import Any

import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, UNREGISTERED, House, general_name, plan_csv, plan_name
from raw_sftp import RawSftp, open_raw

from relay.lifecycle import State
from relay.model import EventKind, OfficeNumber

NEWS = "/お知らせ.txt"
WHY = ("--reason", "届出による", "--yes")
# Long ago, so that the time to collect is over as well.
LONG_AGO = ("--on", "2026-01-01", "--until", "2026-01-31")
NEW = UNREGISTERED


async def rows(raw: RawSftp, topic: str) -> list[dict[str, Any]]:
    """Return the rows of a status file."""
    found: list[dict[str, Any]] = json.loads(await raw.get(f"/status/{topic}.json"))[topic]
    return found


async def new(raw: RawSftp) -> list[str]:
    """Return the names in ``new/``."""
    return [name for name in await raw.list("/new") if name not in (".", "..")]


async def read_news(house: House, office: OfficeNumber, **how: Any) -> str:
    """Return what *office* reads in its news at a new login."""
    async with house.dial(office, **how) as one, open_raw(one) as raw:
        return (await raw.get(NEWS)).decode("utf-8-sig")


async def test_an_office_closes(house: House) -> None:
    """It collects what waits and sends no more; others are refused in words, and whoever exchanged files is told."""
    name, slip = plan_name(), plan_csv()
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{name}", slip)).code == sftp.OK
        assert (await ours.put(f"/send/{general_name()}", b"%PDF-1.4\n%%EOF\n")).code == sftp.OK
        looked = house.relay("office", "close", HOME_HELP, "--reason", "届出による", "--dry-run", "--json")
        assert looked.returncode == 0, looked.stderr
        would = json.loads(looked.stdout)
        assert (would["partners"], would["waiting"]) == ([CARE_MANAGER], 2)
        assert would["until_at"].endswith("T15:00:00Z"), "a day in Japan ends there"
        assert house.relay("office", "close", HOME_HELP, "--reason", "x").returncode == 2, "nobody was asked"
        assert (await ours.put(f"/send/{plan_name(number=1)}", slip)).code == sftp.OK
        done = house.relay("office", "close", HOME_HELP, *WHY)
        assert done.returncode == 0, done.stderr
        refused = await ours.put(f"/send/{plan_name(number=2)}", slip)
        assert refused.text.startswith("route.recipient_closed: 宛先の事業所 0178529384 は ")
        assert (await ours.call(sftp.STAT, f"/send/{HOME_HELP}")).code == sftp.NO_SUCH_FILE
        back = plan_name(HOME_HELP, CARE_MANAGER)
        refused = await theirs.put(f"/send/{back}", plan_csv(recipient=CARE_MANAGER, sender=HOME_HELP))
        assert refused.text.startswith("office.collect_only: ")
        assert await theirs.get(f"/new/{name}") == slip
    assert "廃止されました" in await read_news(house, CARE_MANAGER)
    assert "すべてダウンロードしてください" in await read_news(house, HOME_HELP)
    async with house.dial(DAY_CARE) as three, open_raw(three) as others:
        assert (await others.call(sftp.STAT, NEWS)).code == sftp.NO_SUCH_FILE, "no partner of it"
        assert HOME_HELP not in [row["number"] for row in await rows(others, "offices")]
    assert "closed since" in house.relay("office", "list").stdout
    assert house.relay("office", "suspend", HOME_HELP, "--yes").returncode == 2


async def test_the_time_of_a_closed_office_is_over(house: House) -> None:
    """Whoever is inside is logged out; what it has not collected is its senders' again; undone, it goes on."""
    name, slip = plan_name(), plan_csv()
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{name}", slip)).code == sftp.OK
        assert (await ours.put(f"/send/{general_name()}", b"%PDF-1.4\n%%EOF\n")).code == sftp.OK
    async with house.dial(HOME_HELP) as two, open_raw(two) as theirs:
        assert await theirs.get(f"/new/{name}") == slip
        assert house.relay("office", "close", HOME_HELP, *LONG_AGO, *WHY).returncode == 0
        house.wait_for_event("identity.ended")
    assert "接続できる期間も終わりました" in house.sftp(HOME_HELP, "ls\n").stderr
    done = house.relay("housekeeping", "run", "--yes", "--json")
    assert json.loads(done.stdout)["stranded"] == 1, done.stderr
    async with house.dial() as one, open_raw(one) as ours:
        told = {row["name"]: row["state"] for row in await rows(ours, "sent")}
        assert told == {name: "collected", general_name(): "returned"}
        assert await ours.get(f"/recall/{general_name()}")
    assert house.relay("office", "reopen", HOME_HELP, *WHY).returncode == 0
    async with house.dial(HOME_HELP) as two, open_raw(two) as theirs:
        assert "取り消されました" in (await theirs.get(NEWS)).decode("utf-8-sig")
    kinds = [event.kind for event in house.events() if event.office == HOME_HELP]
    assert [kind for kind in kinds if kind in (EventKind.OFFICE_CLOSED, EventKind.OFFICE_REOPENED)] == [
        EventKind.OFFICE_CLOSED,
        EventKind.OFFICE_REOPENED,
    ]


async def test_an_office_changes_its_number(house: House) -> None:
    """Both logins see what was sent to the old number, partners go on for a while and are told; then only the new one."""
    name, slip = plan_name(), plan_csv()
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{name}", slip)).code == sftp.OK
    done = house.relay("office", "move", HOME_HELP, NEW, *WHY)
    assert done.returncode == 0, done.stderr
    assert f"relay cert invite {NEW}" in done.stderr
    mine = house.certificate(NEW, label="新しい番号")
    async with house.dial() as one, house.dial(NEW, pass_=mine) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert await theirs.get(f"/new/{name}") == slip
        assert name in await theirs.list("/receive")
        (row,) = await rows(theirs, "received")
        assert "誤送信ではありません" in row["note_ja"]
        assert row["state"] == "collected"
        # Who has not heard of it yet goes on, and hears of it.
        assert (await ours.put(f"/send/{plan_name(number=1)}", slip)).code == sftp.OK
        assert (await ours.put(f"/send/{HOME_HELP}/報告.pdf", b"%PDF-1.4\n%%EOF\n")).code == sftp.OK
        assert len(await new(theirs)) == 2
        (warning,) = next(row for row in await rows(ours, "sent") if row["name"] == plan_name(number=1))["warnings"]
        assert warning["code"] == "route.recipient_moved"
        assert NEW in warning["message_ja"]
        offices = [row["number"] for row in await rows(ours, "offices")]
        assert (NEW in offices, HOME_HELP in offices) == (True, False)
        # Its two numbers are one office: it does not send to itself.
        refused = await theirs.put(f"/send/{plan_name(NEW, HOME_HELP)}", slip)
        assert refused.text.startswith("name.same_office: ")
        months = await theirs.list("/receipts")
        assert [folder for folder in months if folder.startswith("20")]
    async with house.dial(HOME_HELP) as old, open_raw(old) as theirs:
        assert len(await new(theirs)) == 2, "the old certificate goes on for a while"
        back = plan_name(HOME_HELP, CARE_MANAGER)
        assert (await theirs.put(f"/send/{back}", plan_csv(recipient=CARE_MANAGER, sender=HOME_HELP))).code == sftp.OK
    assert NEW in await read_news(house, CARE_MANAGER)
    assert "誤送信ではありません" in await read_news(house, NEW, pass_=mine)
    explained = house.relay("explain", plan_name(number=7), "--as", CARE_MANAGER)
    assert (explained.returncode, "route.recipient_moved" in explained.stdout) == (0, True)
    shown = json.loads(house.relay("office", "show", NEW, "--json").stdout)
    assert (shown["former"], shown["name_ja"]) == ([HOME_HELP], "みほん野ヘルパーステーション")
    assert "Its recipient has it." in house.relay("trace", "1").stdout


async def test_the_time_of_an_old_number_is_over(house: House) -> None:
    """Files named to it are refused with the new number, its login as well; what waited is still the office's."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
    assert house.relay("office", "move", HOME_HELP, NEW, *LONG_AGO, *WHY).returncode == 0
    async with house.dial() as one, open_raw(one) as ours:
        refused = await ours.put(f"/send/{plan_name(number=1)}", plan_csv())
        assert refused.text.startswith("route.recipient_moved: ")
        assert f"{NEW} に変わりました" in refused.text
    assert "新しい番号で接続してください" in house.sftp(HOME_HELP, "ls\n").stderr
    async with house.dial(NEW, pass_=house.certificate(NEW, label="新")) as two, open_raw(two) as theirs:
        assert await new(theirs) == [plan_name()]
        assert await theirs.get(f"/new/{plan_name()}") == plan_csv()
    assert [transfer.state for transfer in house.transfers()] == [State.COLLECTED]
    for arguments, why in (
        ([DAY_CARE, DAY_CARE], "the new number is the old one"),
        ([DAY_CARE, CARE_MANAGER], "--merge"),
        ([NEW, HOME_HELP], f"relay office reopen {HOME_HELP}"),
        ([HOME_HELP, DAY_CARE], "moved to"),
        ([DAY_CARE, NEW, "--name", "x"], "is registered"),
        ([DAY_CARE, HOME_HELP], "nothing can follow"),
    ):
        done = house.relay("office", "move", *arguments, *WHY)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr
