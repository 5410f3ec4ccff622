"""The ledger's contract for giving back: who is first has it, and what was given back is its sender's alone, for a while."""

from __future__ import annotations

import asyncio
from datetime import time, timedelta
from pathlib import Path

import pytest
from ledgers import NOW, SECOND, A, B, C, Shop, identity, large, open_shop, plan_name

from relay.errors import Refused
from relay.ledger import Shelf
from relay.ledger.intervening import IncidentKind
from relay.letters import Mailbox, MailPer, Rhythm
from relay.lifecycle import State
from relay.model import Transfer

WHY = {"reason": "by telephone", "actor": "operator", "now": NOW + SECOND}


async def give_back(shop: Shop, sent: Transfer) -> Transfer:
    """Give *sent* back as the operator."""
    return await shop.ledger.return_transfer(sent.id, **WHY)  # type: ignore[arg-type]


async def test_its_bytes_stay_for_its_sender_until_the_name_goes_as_well(shop: Shop) -> None:
    """They count for the sender's quota as long; then bytes, key and free name are gone, and the record stays."""
    content = large(40)
    sent = await shop.send(content, "お名前.pdf", is_free=True)
    assert (await give_back(shop, sent)).state is State.RETURNED
    for shelf in Shelf:
        assert (await shop.ledger.list_shelf(B, shelf)).entries == ()
    assert [entry.name for entry in (await shop.ledger.list_recalled(A, since=NOW)).entries] == ["お名前.pdf"]
    assert await shop.ledger.destroy_ended(before=NOW, now=NOW) == 0
    assert await shop.content(sent.id) == content
    assert await shop.ledger.stored_bytes(A) == len(content)
    assert await shop.ledger.destroy_ended(before=NOW + 2 * SECOND, now=NOW) == 1
    with pytest.raises(LookupError):
        await shop.ledger.open_payload(sent.id)
    assert await shop.ledger.stored_bytes(A) == 0
    found = await shop.ledger.find_transfer(sent.id)
    assert found is not None
    assert (found.state, found.name) == (State.RETURNED, "*.pdf")


async def test_of_reading_and_giving_back_at_once_exactly_one_happens(shop: Shop) -> None:
    """Through two processes, many times: collected and then only marked, or returned and the reading refused."""
    second = await shop.reopen()
    async with second.ledger:
        for number in range(10):
            sent = await shop.send(name=plan_name(number))
            both = [second.collect(sent), give_back(shop, sent)]
            done = await asyncio.gather(*(both if number % 2 else both[::-1]), return_exceptions=True)
            found = await shop.ledger.find_transfer(sent.id)
            assert found is not None
            refused = [each for each in done if isinstance(each, Refused)]
            if found.state is State.RETURNED:
                assert [each.code for each in refused] == ["transfer.returned"]
            else:
                assert (found.state, found.reported_at, refused) == (State.COLLECTED, NOW + SECOND, [])


async def test_the_same_name_is_a_new_transfer_and_a_marked_one_is_not_delivered_twice(shop: Shop) -> None:
    """Returned, the name is free; collected and marked, the same bytes are the same transfer as before."""
    first = await shop.send()
    await give_back(shop, first)
    again = await shop.send()
    assert again.id != first.id
    await shop.collect(again)
    marked = await give_back(shop, again)
    assert (marked.state, marked.reported_at) == (State.COLLECTED, NOW + SECOND)
    assert (await shop.send()).id == again.id
    assert await shop.ledger.find_delivered(B, first.name) is None
    kinds = [incident.kind for incident in await shop.ledger.list_incidents(A, since=NOW)]
    assert kinds == [IncidentKind.REPORTED, IncidentKind.RETURNED]
    assert await shop.ledger.list_incidents(C, since=NOW) == []
    # What is kept no longer can be marked as well, and the mark goes with a mistake.
    await shop.ledger.release_transfer(again.id, **WHY)  # type: ignore[arg-type]
    await shop.ledger.destroy_collected(before=NOW + timedelta(days=1), now=NOW + timedelta(days=1))
    assert (await give_back(shop, again)).state is State.DESTROYED
    assert (await shop.ledger.release_transfer(again.id, **WHY)).reported_at is None  # type: ignore[arg-type]


async def test_what_was_thrown_away_unread_can_be_given_back(shop: Shop) -> None:
    """It lies in done/ still: returned, its recipient can neither list nor read it there."""
    sent = await shop.send()
    await shop.ledger.move_shelf(sent.id, Shelf.DONE, identity=identity(B), now=NOW, may_discard=True)
    assert (await give_back(shop, sent)).state is State.RETURNED
    assert (await shop.ledger.list_shelf(B, Shelf.DONE)).entries == ()
    assert await shop.ledger.find_delivered(B, sent.name) is None
    assert await shop.content(sent.id) == b"content"


async def test_what_ended_otherwise_is_not_given_back(shop: Shop) -> None:
    """Taken back by its sender: there is nothing to give back; and nobody but its sender reads what was given back."""
    sent = await shop.send()
    await shop.ledger.recall_transfer(sent.id, identity=identity(A), now=NOW)
    with pytest.raises(LookupError):
        await give_back(shop, sent)
    other = await shop.send(name=plan_name(1))
    await give_back(shop, other)
    assert (await shop.ledger.recall_transfer(other.id, identity=identity(A), now=NOW)).state is State.RETURNED
    with pytest.raises(Refused, match="returned"):
        await shop.collect(other)
    with pytest.raises(LookupError):
        await shop.ledger.release_transfer(other.id, **WHY)  # type: ignore[arg-type]


async def test_who_wants_mail_is_told_to_look_at_the_news(tmp_path: Path) -> None:
    """One line in the next letter, whatever was done; an arrival that it tells of stays counted as it came."""
    rhythm = Rhythm(timedelta(minutes=5), time(8, 0), timedelta(minutes=1))
    shop = await open_shop(tmp_path, mail=rhythm)
    async with shop.ledger as ledger:
        await ledger.record_mailbox(A, Mailbox("a@example.jp", MailPer.ARRIVAL), actor="test", now=NOW)
        await ledger.record_mailbox(B, Mailbox("b@example.jp", MailPer.ARRIVAL), actor="test", now=NOW)
        await give_back(shop, await shop.send())
        letters = {}
        while letter := await ledger.take_letter(rhythm, lambda: f"<{len(letters)}@x>", now=NOW + timedelta(hours=1)):
            letters[letter.office] = (letter.count, letter.news)
            await ledger.settle_letter(letter)
    assert letters == {A: (0, 1), B: (1, 1)}
