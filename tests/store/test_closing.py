"""The ledger's contract for closings and new numbers: what waits, what was sent, who sees it, and how it is undone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import time, timedelta
from pathlib import Path

import pytest
from ledgers import CLOSED, NOW, SECOND, A, B, C, Shop, identity, open_shop, plan_name

from relay.config import HousekeepingSettings
from relay.errors import Refused
from relay.housekeeping import go_round
from relay.invitation import Invitation
from relay.ledger import Shelf
from relay.ledger.bulletin import Notice
from relay.letters import Mailbox, MailPer, Rhythm
from relay.lifecycle import State
from relay.model import Office, OfficeEnd, OfficeNumber, OfficeStatus, Transfer

DAY = timedelta(days=1)
D, E = OfficeNumber("0178503736"), OfficeNumber("1378503733")
SETTINGS = HousekeepingSettings()


async def end(
    shop: Shop, office: OfficeNumber, successor: OfficeNumber | None = None, *, day: float = 0, days: int = 31
) -> Office:
    """Let *office* end so many days from now, for good after so many more."""
    at = NOW + day * DAY
    newcomer = None if successor is None else Office(successor, "新しい番号", "東京都", ("11",))
    ended = OfficeEnd(at, at + days * DAY, successor, "届出")
    return await shop.ledger.plan_end(office, ended, newcomer=newcomer, actor="operator", now=NOW)


async def names(shop: Shop, office: OfficeNumber, shelf: Shelf = Shelf.NEW) -> list[str]:
    """Return what *office* sees there, page by page."""
    found: list[str] = []
    page = await shop.ledger.list_shelf(office, shelf)
    while True:
        found += [entry.name for entry in page.entries]
        if page.cursor is None:
            return found
        page = await shop.ledger.list_shelf(office, shelf, page.cursor)


async def refusal(shop: Shop, sender: OfficeNumber, recipient: OfficeNumber, number: int = 90) -> str:
    """Return with which code a file is refused."""
    with pytest.raises(Refused) as refused:
        await shop.send(name=plan_name(number, sender, recipient), sender=sender, recipient=recipient)
    return refused.value.code


async def state(shop: Shop, sent: Transfer) -> State:
    """Return what became of *sent*."""
    found = await shop.ledger.find_transfer(sent.id)
    assert found is not None
    return found.state


async def test_a_closed_office_collects_for_a_while_and_then_its_files_go_back(shop: Shop) -> None:
    """Nothing new to it or from it; what it had sent is delivered; what it has not collected is its senders' again."""
    kept, left = [await shop.send(name=plan_name(number)) for number in (1, 2)]
    own = await shop.send(name=plan_name(3, B, C), sender=B, recipient=C)
    closed = await end(shop, B)
    assert closed.status is OfficeStatus.CLOSED
    assert (closed.may_log_in(NOW + 30 * DAY), closed.may_log_in(NOW + 31 * DAY)) == (True, False)
    assert await refusal(shop, A, B) == "route.recipient_closed"
    assert await refusal(shop, B, C) == "office.collect_only"
    assert (await shop.collect(kept)).state is State.COLLECTED
    recalled = await shop.send(name=plan_name(4, C, A), sender=C, recipient=A)
    assert (await shop.ledger.recall_transfer(recalled.id, identity=identity(C), now=NOW)).state is State.RECALLED
    await go_round(shop.ledger, SETTINGS, NOW + 30 * DAY)
    assert await state(shop, left) is State.ACCEPTED
    assert (await go_round(shop.ledger, SETTINGS, NOW + 31 * DAY)).stranded == 1
    assert await state(shop, left) is State.RETURNED
    assert await state(shop, own) is State.ACCEPTED, "what a closed office had sent is delivered as ever"
    (incident,) = await shop.ledger.list_incidents(A, since=NOW)
    assert "廃止" in incident.reason


async def test_a_plan_takes_place_on_its_day_and_can_be_taken_back_before_and_after(shop: Shop) -> None:
    """Until the day everything is as ever; an office that is kept out gets no time to collect."""
    planned = await end(shop, B, day=10)
    assert (planned.status, planned.end is None) == (OfficeStatus.ACTIVE, False)
    assert (await shop.send(name=plan_name(1))).state is State.ACCEPTED
    assert (await shop.ledger.reopen_office(B, reason="x", actor="operator", now=NOW)).end is None
    assert (await go_round(shop.ledger, SETTINGS, NOW + 11 * DAY)).ended == 0
    await end(shop, B, day=10)
    await end(shop, CLOSED, day=10)
    assert (await go_round(shop.ledger, SETTINGS, NOW + 10 * DAY)).ended == 2
    assert await refusal(shop, A, B) == "route.recipient_closed"
    shut = await shop.ledger.find_office(CLOSED)
    assert shut is not None
    assert (shut.status, shut.may_log_in(NOW + 10 * DAY)) == (OfficeStatus.CLOSED, False)
    again = await shop.ledger.reopen_office(B, reason="x", actor="operator", now=NOW)
    assert again.is_active
    assert (await shop.send(name=plan_name(2))).state is State.ACCEPTED
    with pytest.raises(ValueError, match="no end"):
        await shop.ledger.reopen_office(B, reason="x", actor="operator", now=NOW)


async def test_under_its_new_number_an_office_has_what_was_sent_to_the_old_one(shop: Shop) -> None:
    """Under the same names, earlier numbers first, to collect, put away and count once; the old login sees it as well."""
    waiting = await shop.send(name=plan_name(1))
    await end(shop, B, D)
    later = await shop.send(name=plan_name(2), content=b"a month before the change")
    free = await shop.send(name="提供票.pdf", is_free=True, recipient=B)
    fresh = await shop.send(name=plan_name(3, A, D), recipient=D)
    assert await names(shop, D) == [*await names(shop, B), fresh.name]
    assert set(await names(shop, B)) == {waiting.name, later.name, free.delivered_name}
    assert await shop.ledger.find_delivered(D, waiting.name) == waiting
    assert await shop.ledger.find_delivered(C, waiting.name) is None
    read = await shop.ledger.record_served(waiting.id, [(0, waiting.size_bytes)], identity=identity(D), now=NOW)
    assert (read.state, read.recipient) == (State.COLLECTED, B)
    assert (await shop.ledger.move_shelf(read.id, Shelf.DONE, identity=identity(D), now=NOW)).is_removed
    assert await names(shop, B, Shelf.DONE) == [waiting.name]
    assert (await shop.send(name=plan_name(1))).id == waiting.id, "the same name is the same transfer as ever"
    with pytest.raises(LookupError):
        await shop.ledger.record_served(later.id, [(0, 1)], identity=identity(C), now=NOW)
    # The time of the old number goes by: nothing is taken for it, and what waited is not lost.
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute("UPDATE office SET until_at = ends_at WHERE number = ?", (B,))
    assert await refusal(shop, A, B) == "route.recipient_moved"
    assert later.name in await names(shop, D)


async def test_under_its_new_number_an_office_takes_back_what_it_sent_under_the_old_one(shop: Shop) -> None:
    """It is in send/ and recall/ of both; nobody else can."""
    sent = await shop.send(name=plan_name(1, B, C), sender=B, recipient=C)
    await end(shop, B, D)
    listed = await shop.ledger.list_sent(D, None, now=NOW)
    assert listed.cursor is not None or listed.entries
    with pytest.raises(LookupError):
        await shop.ledger.recall_transfer(sent.id, identity=identity(A), now=NOW)
    await shop.ledger.recall_transfer(sent.id, identity=identity(D), now=NOW)
    assert (await shop.ledger.list_recalled(B, since=NOW - SECOND)).entries[0].id == sent.id


async def test_numbers_change_again_and_never_in_a_circle(shop: Shop) -> None:
    """A to B to C: the last one sees all, and is named to whoever sends to the first; undone, each has its own again."""
    first = await shop.send(name=plan_name(1))
    await end(shop, B, D)
    second = await shop.send(name=plan_name(2, A, D), recipient=D)
    with pytest.raises(ValueError, match="moved"):
        await end(shop, D, B)
    await end(shop, D, E)
    assert await names(shop, E) == [first.name, second.name]
    assert await shop.ledger.list_former(E) == (B, D)
    old = await shop.ledger.find_office(B)
    assert old is not None
    last = await shop.ledger.find_successor(old)
    assert last is not None
    assert (last.number, last.prefecture) == (E, "東京都")
    for wrong in (B, D):
        with pytest.raises(ValueError, match="moved"):
            await end(shop, E, wrong)
    with pytest.raises(ValueError, match="suspended"):
        await end(shop, E, CLOSED)
    await shop.ledger.reopen_office(D, reason="x", actor="operator", now=NOW)
    assert await names(shop, E) == []
    assert await names(shop, D) == [first.name, second.name]
    # The last in the line closes: nobody can be sent to by any of the numbers.
    await end(shop, D)
    assert await refusal(shop, A, B) == "route.recipient_closed"


async def test_a_list_from_elsewhere_opens_no_office_again(shop: Shop) -> None:
    """Neither an import that still has it as active, nor a resume; what else the list says is taken over."""
    await end(shop, B)
    await end(shop, C, D)
    offices = [Office(number, "別の名前", "北海道", ("11",)) for number in (A, B, C)]
    counts = await shop.ledger.import_offices(offices, suspend_missing=True, actor="operator", now=NOW)
    assert (counts.updated, counts.ended, counts.suspended) == (3, 2, 1)
    for number, status in ((B, OfficeStatus.CLOSED), (C, OfficeStatus.MOVED), (D, OfficeStatus.SUSPENDED)):
        found = await shop.ledger.find_office(number)
        assert found is not None
        assert found.status is status
    for status in (OfficeStatus.ACTIVE, OfficeStatus.SUSPENDED):
        with pytest.raises(ValueError, match="closed"):
            await shop.ledger.record_office_status(B, status, actor="operator", now=NOW)


async def test_figures_and_invitations_go_with_the_number(shop: Shop) -> None:
    """An office that changes its number is one office, in its new prefecture, and uses the relay as before."""
    invitation = Invitation("1", bytes(32), (B,), "", 3600, NOW, NOW + DAY)
    await shop.ledger.record_invitation(invitation, actor="operator")
    shop.ledger.note_use(B, "software", now=NOW)
    holdings = await shop.ledger.count_holdings(B, now=NOW)
    assert (holdings.waiting, holdings.certificates, holdings.invitations, holdings.has_traffic) == (0, 1, 1, False)
    await end(shop, B, D)
    assert (await shop.ledger.list_invitations())[0].cancelled_at == NOW
    used = {row.prefecture: (row.offices, row.using) for row in await shop.ledger.use_by_prefecture(since=NOW)}
    assert used == {"北海道": (2, 0), "東京都": (1, 1)}
    assert (await shop.ledger.count_holdings(B, now=NOW)).has_traffic


async def test_partners_are_told_until_it_is_undone(tmp_path: Path) -> None:
    """Who exchanged files lately reads the notice and gets a line of mail; nobody else does; a reopening takes its place."""
    rhythm = Rhythm(timedelta(minutes=5), time(8, 0), timedelta(minutes=1))
    shop = await open_shop(tmp_path, mail=rhythm)
    async with shop.ledger as ledger:
        await ledger.record_mailbox(A, Mailbox("a@example.jp", MailPer.ARRIVAL), actor="test", now=NOW)
        await ledger.record_mailbox(C, Mailbox("c@example.jp", MailPer.ARRIVAL), actor="test", now=NOW)
        await shop.send()
        partners = tuple(await ledger.list_partners(B, since=NOW - DAY))
        assert partners == (A,)
        assert await ledger.list_partners(B, since=NOW + DAY) == []
        notices = [
            Notice("廃止", "x", NOW, NOW + DAY, about=B, audience=partners),
            Notice("廃止", "y", NOW, NOW + DAY, office=B, about=B),
        ]
        plan = OfficeEnd(NOW + DAY, NOW + 2 * DAY)
        for _ in range(2):
            await ledger.plan_end(B, plan, notices=notices, actor="operator", now=NOW)
        for office, text in ((A, ["x"]), (B, ["y"]), (C, [])):
            assert [notice.text for notice in await ledger.list_notices_for(office, now=NOW)] == text
        assert await ledger.list_notices_for(A, now=NOW + DAY) == []
        letter = await ledger.take_letter(rhythm, lambda: "<1@x>", now=NOW + timedelta(hours=1))
        assert letter is not None
        assert (letter.office, letter.count, letter.news) == (A, 0, 2)
        assert await ledger.take_letter(rhythm, lambda: "<2@x>", now=NOW + timedelta(minutes=59)) is None
        await ledger.reopen_office(
            B, reason="x", notices=[Notice("", "z", NOW, about=B, audience=(A,))], actor="operator", now=NOW
        )
        assert [notice.text for notice in await ledger.list_notices()] == ["z"]


async def test_mail_about_the_old_number_goes_where_the_office_is_told(tmp_path: Path) -> None:
    """To the old number's address while it has one, else to the new number's."""
    rhythm = Rhythm(timedelta(minutes=5), time(8, 0), timedelta(minutes=1))
    shop = await open_shop(tmp_path, mail=rhythm)
    async with shop.ledger as ledger:
        await end(shop, B, D)
        await ledger.record_mailbox(D, Mailbox("d@example.jp", MailPer.ARRIVAL), actor="test", now=NOW)
        await shop.send()
        letter = await ledger.take_letter(rhythm, lambda: "<1@x>", now=NOW + timedelta(hours=1))
        assert letter is not None
        assert (letter.office, letter.count) == (D, 1)
