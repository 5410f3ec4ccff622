"""What offices read in お知らせ.txt: the operator's notices, and files that wait too long; years pass in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, OfficeNumber, plan_csv, plan_name
from raw_sftp import open_raw

from relay.housekeeping import go_round
from relay.ledger.sqlite import SqliteLedger

NEWS = "お知らせ.txt"


async def look(house: House, office: OfficeNumber) -> str | None:
    """Return the page as *office* finds it at a new login, None where its root does not list it."""
    async with house.dial(office) as one, open_raw(one) as raw:
        listed = NEWS in await raw.list("/")
        told = await raw.call(sftp.STAT, f"/{NEWS}")
        assert (told.type == sftp.ATTRS) is listed
        if not listed:
            return None
        page = await raw.get(f"/{NEWS}")
        assert told.size == len(page)
        return page.decode("utf-8-sig")


async def test_a_notice_is_in_the_tree_of_those_it_is_for(house: House) -> None:
    """Added beside a running server it is there at the next login, newest first; removed, the page is gone."""
    assert await look(house, CARE_MANAGER) is None
    first = house.relay("notice", "add", "年末年始は電話窓口を休みます。", "--title", "年末年始")
    assert first.returncode == 0, first.stderr
    assert house.relay("notice", "add", "点検のご案内", "--office", DAY_CARE).returncode == 0
    assert house.relay("notice", "add", "東京の方へ", "--prefecture", "東京都").returncode == 0
    later = (datetime.now(UTC) + timedelta(days=40)).date().isoformat()
    assert house.relay("notice", "add", "まだ先の話", "--from", later).returncode == 0
    page, other = await look(house, CARE_MANAGER), await look(house, DAY_CARE)
    assert page is not None
    assert other is not None
    assert "年末年始は電話窓口を休みます。" in page
    assert other.index("点検のご案内") < other.index("年末年始")
    for absent in ("点検", "東京の方へ", "まだ先の話"):
        assert absent not in page
    kept = json.loads(house.relay("notice", "list", "--json").stdout)
    assert [one["number"] for one in kept] == [4, 3, 2, 1]
    assert house.relay("notice", "remove", "1").returncode == 0
    assert house.relay("notice", "remove", "1").returncode == 2
    assert await look(house, CARE_MANAGER) is None


async def test_what_makes_no_sense_is_refused_in_words(house: House) -> None:
    """Nothing is added, and the reason says what to write."""
    for arguments, why in (
        ([], "give the text"),
        (["x", "--until", "2020-01-01"], "--until is over"),
        (["x", "--office", "0178503736"], "not registered"),
    ):
        done = house.relay("notice", "add", *arguments)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    assert house.relay("notice", "list").stdout == "no notices\n"


async def test_both_offices_are_told_of_a_file_that_waits_and_of_its_end(make_house: Callable[..., House]) -> None:
    """At half of the time the page names it on both sides; after it the file is gone and both status files say so."""
    house = make_house()
    house.start()
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
    for days, told in ((40, False), (50, True)):
        _pass(house, days)
        for office in (CARE_MANAGER, HOME_HELP):
            page = await look(house, office)
            assert (page is not None) is told
            assert page is None or plan_name() in page
        assert await look(house, DAY_CARE) is None
    _pass(house, 94)
    for office, topic in ((CARE_MANAGER, "sent"), (HOME_HELP, "received")):
        assert await look(house, office) is None
        async with house.dial(office) as one, open_raw(one) as raw:
            (row,) = json.loads(await raw.get(f"/status/{topic}.json"))[topic]
            assert row["state"] == "expired"
            assert plan_name() not in await raw.list("/new" if office == HOME_HELP else "/send")
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
    assert [transfer.state.value for transfer in house.transfers()] == ["accepted", "expired"]


def _pass(house: House, days: int) -> None:
    """Let so many days pass from now, as the server's housekeeping would find it then."""
    settings, then = house.config.housekeeping, datetime.now(UTC) + timedelta(days=days)

    async def work(ledger: SqliteLedger) -> None:
        await go_round(ledger, settings, then)

    house.ask(work)
