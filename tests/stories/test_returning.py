"""A file went to the wrong office: the operator gives it back by telephone, or can only say that it was read already."""

from __future__ import annotations

import json
from typing import Any

import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, plan_csv, plan_name
from raw_sftp import Long, RawSftp, open_raw

from relay.lifecycle import State
from relay.model import EventKind, OfficeNumber

REASON = "宛先の間違いと送信元から電話"
WHY = ("--reason", REASON, "--yes")
NEWS = "/お知らせ.txt"


async def row(raw: RawSftp, topic: str) -> dict[str, Any]:
    """Return the newest row of a status file."""
    found: dict[str, Any] = json.loads(await raw.get(f"/status/{topic}.json"))[topic][0]
    return found


async def read_news(house: House, office: OfficeNumber) -> str:
    """Return what *office* reads in its news at a new login."""
    async with house.dial(office) as one, open_raw(one) as raw:
        return (await raw.get(NEWS)).decode("utf-8-sig")


async def test_a_file_that_nobody_collected_is_its_senders_again(house: House) -> None:
    """Whoever reads it at that moment is told; its sender reads why, has its bytes back, and sends the same name anew."""
    name, content = plan_name(), plan_csv(2_000_000)
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{name}", content)).code == sftp.OK
        handle = await theirs.open(f"/new/{name}", sftp.READING)
        assert (await theirs.call(sftp.READ, handle, Long(0), 1_000)).data
        done = house.relay("transfer", "return", "1", *WHY)
        assert done.returncode == 0, done.stderr
        assert (await theirs.call(sftp.READ, handle, Long(1_500_000), 1_000)).text.startswith("transfer.returned: ")
        assert (await theirs.call(sftp.CLOSE, handle)).text.startswith("transfer.returned: ")
        for folder in ("new", "receive", "done"):
            assert name not in await theirs.list(f"/{folder}")
            assert (await theirs.call(sftp.STAT, f"/{folder}/{name}")).code == sftp.NO_SUCH_FILE
        assert name not in await ours.list("/send")
        assert await ours.get(f"/recall/{name}") == content
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        for raw, topic in ((ours, "sent"), (theirs, "received")):
            told = await row(raw, topic)
            assert told["state"] == "returned"
            assert REASON in told["note_ja"]
            assert told["due_at"] is None
        again = house.relay("transfer", "return", "1", *WHY)
        assert "returned already: nothing was changed" in again.stdout
        # The right office, and then the same one after all.
        assert (await ours.put(f"/send/{plan_name(recipient=DAY_CARE)}", plan_csv(recipient=DAY_CARE))).code == sftp.OK
        assert (await ours.put(f"/send/{name}", content)).code == sftp.OK
        assert await theirs.get(f"/new/{name}") == content
    for office, words in ((CARE_MANAGER, "recall/ から1週間"), (HOME_HELP, "送信元へ返しました")):
        page = await read_news(house, office)
        assert words in page
        assert REASON in page
    assert [transfer.state for transfer in house.transfers()] == [State.COLLECTED, State.ACCEPTED, State.RETURNED]
    kinds = [event.kind for event in house.events() if event.transfer == 1]
    assert kinds.count(EventKind.RETURNED) == 1
    assert EventKind.READ in kinds, "that the wrong office was given bytes of it stands in history"
    told_by_trace = house.relay("trace", "1").stdout
    assert f"gave it back to its sender, uncollected ({REASON})" in told_by_trace
    assert "-returned.txt" in told_by_trace


async def test_a_held_file_is_news_to_both_and_can_be_returned(house: House) -> None:
    """Held first, as who answers the telephone does, then given back: each office reads the last that was done."""
    name = plan_name()
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{name}", plan_csv())).code == sftp.OK
        due = (await row(ours, "sent"))["due_at"]
        assert due is not None
    assert house.relay("transfer", "hold", "1", *WHY).returncode == 0
    for office in (CARE_MANAGER, HOME_HELP):
        page = await read_news(house, office)
        assert "運営者が止めているファイル" in page
        assert name in page
    assert house.relay("transfer", "return", "1", *WHY).returncode == 0
    for office in (CARE_MANAGER, HOME_HELP):
        assert "運営者が止めているファイル" not in await read_news(house, office)
    async with house.dial() as one, open_raw(one) as ours:
        # A sender who drags it himself meanwhile is told no.
        assert (await ours.call(sftp.RENAME, f"/send/{name}", f"/recall/{name}")).code == sftp.OK
    assert [transfer.state for transfer in house.transfers()] == [State.RETURNED]


async def test_what_was_collected_cannot_be_unread_but_is_marked(house: House) -> None:
    """The command says so; it stays collected, both sides read that it was misdirected, and a mistake is taken back."""
    name, content = plan_name(), plan_csv()
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{name}", content)).code == sftp.OK
        assert await theirs.get(f"/new/{name}") == content
        done = house.relay("transfer", "return", "1", *WHY)
        assert done.returncode == 0, done.stderr
        assert "cannot be undone" in done.stderr
        assert "noted as misdirected" in done.stdout
        assert name not in await theirs.list("/receive")
        assert (await theirs.call(sftp.STAT, f"/receive/{name}")).code == sftp.NO_SUCH_FILE
        # A program that sends it once more has its answer, and nobody gets anything.
        assert (await ours.put(f"/send/{name}", content)).code == sftp.OK
        assert name not in await theirs.list("/new")
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        for raw, topic, words in ((ours, "sent", "電話で確かめ"), (theirs, "received", "削除し")):
            told = await row(raw, topic)
            assert (told["state"], told["reported_at"] is not None) == ("collected", True)
            assert words in told["note_ja"]
            assert "誤送信の連絡あり" in (await raw.get(f"/status/{topic}.csv")).decode("utf-8-sig")
    assert "削除し" in await read_news(house, HOME_HELP)
    assert "should delete it" in house.relay("trace", "1").stdout
    assert [event.kind for event in house.events() if event.transfer == 1][-1] is EventKind.REPORTED
    assert house.relay("transfer", "release", "1", *WHY).returncode == 0
    async with house.dial(HOME_HELP) as two, open_raw(two) as theirs:
        assert await theirs.get(f"/receive/{name}") == content
        assert (await row(theirs, "received"))["reported_at"] is None
        assert (await theirs.call(sftp.STAT, NEWS)).code == sftp.NO_SUCH_FILE
