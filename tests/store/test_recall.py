"""The ledger's contract for taking back: who is first has it, and what was taken back cannot be read."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import timedelta

import pytest
from ledgers import NOW, SECOND, A, B, C, Shop, identity, large, plan_name

from relay.errors import Refused
from relay.ledger import Shelf, storefile
from relay.lifecycle import State
from relay.model import EventKind, Transfer

LONG_AGO = NOW - timedelta(days=400)


async def recall(shop: Shop, sent: Transfer) -> Transfer:
    """Take *sent* back as its sender."""
    return await shop.ledger.recall_transfer(sent.id, identity=identity(sent.sender), now=NOW + SECOND)


def chunks(shop: Shop) -> int:
    """Return how many chunks there are in the store."""
    with closing(storefile.open_reader(shop.path)) as reader:
        (count,) = reader.execute("SELECT count(*) FROM chunk").fetchone()
        return int(count)


@pytest.mark.parametrize("size", [1, 3, 70])
async def test_what_was_taken_back_cannot_be_read(shop: Shop, size: int) -> None:
    """It leaves every directory, and its bytes the store, whether they are few or many."""
    sent = await shop.send(large(size))
    kept = await shop.ledger.open_payload(sent.id)
    recalled = await recall(shop, sent)
    assert (recalled.state, recalled.ended_at) == (State.RECALLED, NOW + SECOND)
    assert await shop.ledger.find_delivered(B, sent.name) is None
    for shelf in Shelf:
        assert (await shop.ledger.list_shelf(B, shelf)).entries == ()
    assert (await shop.ledger.list_sent(A, None, now=NOW)).entries == ()
    assert [entry.id for entry in (await shop.ledger.list_recalled(A, since=NOW)).entries] == [sent.id]
    assert chunks(shop) == 0
    with pytest.raises(LookupError):
        await shop.ledger.open_payload(sent.id)
    with pytest.raises(LookupError):
        await shop.ledger.read_chunk(kept, 0)
    assert [event.kind for event in await shop.ledger.list_events(transfer=sent.id)] == [
        EventKind.ACCEPTED,
        EventKind.RECALLED,
    ]


async def test_of_reading_and_taking_back_at_once_exactly_one_happens(shop: Shop) -> None:
    """Through two processes, many times: collected and refused, or recalled and refused."""
    second = await shop.reopen()
    async with second.ledger:
        for number in range(10):
            sent = await shop.send(name=plan_name(number))
            both = [second.collect(sent), recall(shop, sent)]
            read, taken = await asyncio.gather(*(both if number % 2 else both[::-1]), return_exceptions=True)
            refused = [each for each in (read, taken) if isinstance(each, Refused)]
            (done,) = [each for each in (read, taken) if isinstance(each, Transfer)]
            assert len(refused) == 1
            codes = {State.COLLECTED: "transfer.already_collected", State.RECALLED: "transfer.recalled"}
            assert refused[0].code == codes[done.state]
            assert await shop.ledger.find_transfer(sent.id) == done


async def test_only_its_sender_takes_back_and_once(shop: Shop) -> None:
    """Neither its recipient nor a third office; a second time changes nothing and tells nothing new."""
    sent = await shop.send()
    for office in (B, C):
        with pytest.raises(LookupError):
            await shop.ledger.recall_transfer(sent.id, identity=identity(office), now=NOW)
    recalled = await recall(shop, sent)
    again = await shop.ledger.recall_transfer(sent.id, identity=identity(A), now=NOW + 5 * SECOND)
    assert again == recalled
    assert len(await shop.ledger.list_events(transfer=sent.id)) == 2


async def test_what_ended_otherwise_is_not_taken_back(shop: Shop) -> None:
    """Thrown away unread by its recipient: there is nothing to take back."""
    sent = await shop.send()
    await shop.ledger.move_shelf(sent.id, Shelf.DONE, identity=identity(B), now=NOW, may_discard=True)
    with pytest.raises(LookupError):
        await recall(shop, sent)


async def test_a_name_goes_with_its_key_after_a_while(shop: Shop) -> None:
    """recall/ and status show a free name for a week; then its key is destroyed, and the record stays."""
    sent = await shop.send(name="山田花子.pdf", is_free=True)
    await recall(shop, sent)
    assert await shop.ledger.destroy_ended(before=NOW, now=NOW) == 0
    assert await shop.ledger.find_recalled(A, "山田花子.PDF", since=LONG_AGO) is not None
    assert await shop.ledger.find_recalled(A, "山田花子.pdf", since=NOW + 2 * SECOND) is None
    assert await shop.ledger.destroy_ended(before=NOW + 2 * SECOND, now=NOW) == 1
    assert await shop.ledger.find_recalled(A, "山田花子.pdf", since=LONG_AGO) is None
    assert (await shop.ledger.list_recalled(A, since=LONG_AGO)).entries == ()
    found = await shop.ledger.find_transfer(sent.id)
    assert found is not None
    assert (found.state, found.name) == (State.RECALLED, "*.pdf")


async def test_bytes_that_a_crash_left_are_destroyed_later(shop: Shop) -> None:
    """A server killed between two slices of a removal leaves chunks; the next round removes them."""
    sent = await shop.send(large(3))
    kept = await shop.ledger.open_payload(sent.id)
    await recall(shop, sent)
    with closing(storefile.open_writer(shop.path)) as writer:
        writer.execute("INSERT INTO chunk VALUES (?, x'00')", (kept.id * (1 << 20) + 2,))
    assert chunks(shop) == 1
    await shop.ledger.destroy_ended(before=LONG_AGO, now=NOW)
    assert chunks(shop) == 0
