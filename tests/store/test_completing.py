"""The ledger's contract for an interrupted upload that is repeated: its whole takes the place of its part."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ledgers import NOW, SECOND, A, B, Shop, identity, large, plan_name

from relay.errors import Refused
from relay.ledger import Accepted, Shelf
from relay.lifecycle import State
from relay.model import EventKind, Transfer

PART, WHOLE = b"part", b"part and the rest"
LATER = NOW + 5 * SECOND


async def complete(shop: Shop, part: Transfer, content: bytes = WHOLE, **how: object) -> Accepted:
    """Commit *content* as the whole of *part*."""
    draft = shop.parcel(content, part.name, **how).draft()
    return await shop.ledger.commit_transfer(replace(draft, completes=part.id), now=LATER)


@pytest.mark.parametrize("name", [plan_name(), "山田花子.pdf"])
async def test_a_part_that_nobody_collected_is_superseded(shop: Shop, name: str) -> None:
    """The whole takes its name; the part leaves every directory, its bytes the store, and a reader is told."""
    is_free = name != plan_name()
    part = await shop.send(PART, name, is_free=is_free)
    whole = (await complete(shop, part, is_free=is_free)).transfer
    assert (whole.state, whole.completes) == (State.ACCEPTED, part.id)
    old = await shop.ledger.find_transfer(part.id)
    assert old is not None
    assert (old.state, old.ended_at, old.name) == (State.SUPERSEDED, LATER, name)
    assert [entry.id for entry in (await shop.ledger.list_shelf(B, Shelf.NEW)).entries] == [whole.id]
    assert [entry.id for entry in (await shop.ledger.list_sent(A, B if is_free else None, now=LATER)).entries] == [
        whole.id
    ]
    assert await shop.content(whole.id) == WHOLE
    with pytest.raises(LookupError):
        await shop.ledger.open_payload(part.id)
    with pytest.raises(Refused) as caught:
        await shop.collect(part)
    assert caught.value.code == "transfer.superseded"
    kinds = [(event.transfer, event.kind) for event in await shop.ledger.list_events() if event.transfer]
    assert kinds == [(part.id, EventKind.ACCEPTED), (part.id, EventKind.SUPERSEDED), (whole.id, EventKind.ACCEPTED)]


async def test_a_part_that_was_collected_makes_room_for_its_whole(shop: Shop) -> None:
    """The recipient keeps the part behind sender and time, and finds the whole under the name itself."""
    part = await shop.collect(await shop.send(PART))
    whole = (await complete(shop, part)).transfer
    old = await shop.ledger.find_transfer(part.id)
    assert old is not None
    assert (whole.delivered_name, whole.completes) == (part.name, part.id)
    assert old.state is State.COLLECTED
    assert old.delivered_name == f"{A}_20260801003000_{part.name}"
    assert await shop.ledger.find_delivered(B, part.name) == whole
    assert await shop.ledger.find_delivered(B, old.delivered_name) == old
    assert await shop.content(part.id) == PART
    assert await shop.content(whole.id) == WHOLE
    assert (await shop.ledger.commit_transfer(shop.parcel(WHOLE).draft(), now=LATER)).is_repeat


async def test_of_many_wholes_at_once_one_is_delivered(shop: Shop) -> None:
    """Two processes repeat the interrupted upload at the same moment: one supersedes, the others repeat it."""
    second = await shop.reopen()
    async with second.ledger:
        part = await shop.send(PART)
        answers = await asyncio.gather(*(complete(place, part) for place in (shop, second) * 5))
    assert len({answer.transfer.id for answer in answers}) == 1
    assert sum(not answer.is_repeat for answer in answers) == 1
    assert len((await shop.ledger.list_shelf(B, Shelf.NEW)).entries) == 1


async def test_what_was_compared_is_what_is_replaced(shop: Shop) -> None:
    """Where another upload came between comparing and committing, it is a conflict and nothing changed."""
    part = await shop.send(PART)
    whole = (await complete(shop, part)).transfer
    with pytest.raises(Refused) as caught:
        await complete(shop, part, b"part and another rest")
    assert caught.value.code == "transfer.conflict"
    assert await shop.content(whole.id) == WHOLE


async def test_a_part_taken_back_meanwhile_is_not_completed(shop: Shop) -> None:
    """Then it is a new transfer, and names nothing."""
    part = await shop.send(PART)
    await shop.ledger.recall_transfer(part.id, identity=identity(A), now=NOW)
    assert (await complete(shop, part)).transfer.completes is None


async def test_the_bytes_of_a_large_part_go_too(shop: Shop) -> None:
    """However many chunks it has."""
    content = large(70)
    part = await shop.send(content)
    kept = await shop.ledger.open_payload(part.id)
    whole = (await complete(shop, part, content + b"more")).transfer
    with pytest.raises(LookupError):
        await shop.ledger.read_chunk(kept, 69)
    assert await shop.content(whole.id) == content + b"more"
