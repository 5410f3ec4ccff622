"""The ledger's contract: what every engine keeps, verb by verb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from ledgers import CLOSED, NOBODY, NOW, SECOND, A, B, C, Shop, identity, large

from relay.errors import Refused, finding
from relay.ledger import Shelf
from relay.lifecycle import State
from relay.model import EventKind
from relay.vault import CHUNK_BYTES


async def _refusal(work: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


# --- accepting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5_000, CHUNK_BYTES, CHUNK_BYTES + 1])
async def test_what_was_accepted_is_there_whole(shop: Shop, size: int) -> None:
    """Bytes, record, event and the place in the recipient's directories come together."""
    sent = await shop.send(bytes(size))
    assert await shop.content(sent.id) == bytes(size)
    assert await shop.ledger.find_transfer(sent.id) == sent
    assert await shop.ledger.find_sent(A, B, sent.name) == sent
    assert await shop.ledger.find_delivered(B, sent.name) == sent
    assert [entry.id for entry in (await shop.ledger.list_shelf(B, Shelf.NEW)).entries] == [sent.id]
    assert [entry.id for entry in (await shop.ledger.list_shelf(B, Shelf.RECEIVE)).entries] == [sent.id]
    assert [entry.id for entry in (await shop.ledger.list_sent(A, None, now=NOW)).entries] == [sent.id]
    (event,) = await shop.ledger.list_events(transfer=sent.id)
    assert (event.kind, event.actor, event.office, event.at) == (EventKind.ACCEPTED, A, B, NOW)


async def test_it_survives_closing_the_ledger(shop: Shop) -> None:
    """What was answered is read back by the next process, byte for byte."""
    content = large()
    sent = await shop.send(content)
    await shop.ledger.close()
    again = await shop.reopen()
    async with again.ledger:
        assert await again.content(sent.id) == content
        assert await again.ledger.find_transfer(sent.id) == sent


async def test_nobody_else_sees_it(shop: Shop) -> None:
    """Neither the sender nor a third office has it in a directory of arrivals."""
    sent = await shop.send()
    for office in (A, C):
        for shelf in Shelf:
            assert (await shop.ledger.list_shelf(office, shelf)).entries == ()
        assert await shop.ledger.find_delivered(office, sent.name) is None
    assert await shop.ledger.find_sent(B, A, sent.name) is None
    assert (await shop.ledger.list_sent(B, None, now=NOW)).entries == ()


async def test_the_same_bytes_again_are_the_same_transfer(shop: Shop) -> None:
    """The client that lost our reply is right to retry, before and after collection, in any letter case."""
    sent = await shop.send()
    again = await shop.ledger.commit_transfer(shop.parcel(name=sent.name.lower()).draft(), now=NOW + SECOND)
    assert (again.transfer, again.is_repeat) == (sent, True)
    collected = await shop.collect(sent)
    again = await shop.ledger.commit_transfer(shop.parcel().draft(), now=NOW + SECOND)
    assert (again.transfer, again.is_repeat) == (collected, True)
    assert len((await shop.ledger.list_shelf(B, Shelf.RECEIVE)).entries) == 1
    assert len(await shop.ledger.list_transfers()) == 1


async def test_a_repeat_leaves_no_bytes_behind(shop: Shop) -> None:
    """The staged chunks of a repeat are removed, and the first transfer's stay."""
    content = large()
    sent = await shop.send(content)
    again = shop.parcel(content)
    staged = await again.stage(shop.ledger)
    assert (await shop.ledger.commit_transfer(again.draft(), now=NOW)).is_repeat
    with pytest.raises(LookupError):
        await shop.ledger.read_staged(staged, 0)
    assert await shop.content(sent.id) == content


async def test_other_bytes_under_a_live_name_are_a_conflict(shop: Shop) -> None:
    """Nothing is overwritten: accepted or collected, the second is refused with the time of the first, in Japan."""
    sent = await shop.send()
    refused = await _refusal(shop.send(b"other"))
    assert refused.code == "transfer.conflict"
    assert "2026-08-01 00:30" in refused.client_text
    await shop.collect(sent)
    assert (await _refusal(shop.send(b"other"))).code == "transfer.conflict"
    assert await shop.content(sent.id) == b"content"


async def test_two_sessions_at_once_end_in_one_transfer(shop: Shop) -> None:
    """However many send the same at the same moment, through two processes, one is new and the others repeat it."""
    second = await shop.reopen()
    async with second.ledger:
        places = (shop, second) * 10
        answers = await asyncio.gather(
            *(place.ledger.commit_transfer(place.parcel(b"same").draft(), now=NOW) for place in places)
        )
    assert len({answer.transfer.id for answer in answers}) == 1
    assert sum(not answer.is_repeat for answer in answers) == 1
    assert len(await shop.ledger.list_events(transfer=answers[0].transfer.id)) == 1


async def test_two_sessions_with_other_bytes_end_in_one_transfer_and_one_conflict(shop: Shop) -> None:
    """In one batch the first wins and the second is refused; both know it."""
    first, second = await asyncio.gather(shop.send(b"one"), shop.send(b"two"), return_exceptions=True)
    assert isinstance(second, Refused)
    assert second.code == "transfer.conflict"
    assert not isinstance(first, BaseException)
    assert await shop.content(first.id) == b"one"


async def test_the_same_name_to_or_from_another_office_is_another_transfer(shop: Shop) -> None:
    """Identity is sender, recipient and name; a free name says none of the first two."""
    parcels = [
        shop.parcel(b"1", "提供票.pdf", is_free=True),
        shop.parcel(b"2", "提供票.pdf", is_free=True, recipient=C),
        shop.parcel(b"3", "提供票.pdf", is_free=True, sender=C),
    ]
    answers = [await shop.ledger.commit_transfer(parcel.draft(), now=NOW) for parcel in parcels]
    assert not any(answer.is_repeat for answer in answers)
    assert len({answer.transfer.id for answer in answers}) == 3


# --- free names --------------------------------------------------------------------------------------------------


async def test_a_free_name_is_delivered_behind_its_sender_and_the_time_in_japan(shop: Shop) -> None:
    """The recipient sees who sent it; the sender goes on seeing its own name."""
    sent = await shop.send(name="提供票.pdf", is_free=True)
    assert sent.delivered_name == f"{A}_20260801003000_提供票.pdf"
    (shown,) = (await shop.ledger.list_shelf(B, Shelf.NEW)).entries
    assert shown.name == sent.delivered_name
    (own,) = (await shop.ledger.list_sent(A, B, now=NOW)).entries
    assert own.name == "提供票.pdf"
    assert (await shop.ledger.list_sent(A, None, now=NOW)).entries == ()
    assert await shop.ledger.list_folders(A) == [B]
    assert await shop.ledger.find_delivered(B, sent.delivered_name) == sent
    assert await shop.ledger.find_delivered(B, "提供票.pdf") is None


async def test_a_free_name_may_come_again_once_it_was_collected(shop: Shop) -> None:
    """提供票.pdf comes every month; before it is collected, other bytes under it are a conflict."""
    first = await shop.send(b"July", "提供票.pdf", is_free=True)
    assert (await _refusal(shop.send(b"August", "提供票.pdf", is_free=True))).code == "transfer.conflict"
    await shop.collect(first)
    second = await shop.send(b"August", "提供票.pdf", is_free=True)
    assert second.id != first.id
    assert await shop.ledger.find_sent(A, B, "提供票.pdf") == second
    assert (await shop.content(first.id), await shop.content(second.id)) == (b"July", b"August")
    (own,) = (await shop.ledger.list_sent(A, B, now=NOW)).entries
    assert own.id == second.id


async def test_free_names_of_the_same_second_are_delivered_under_different_names(shop: Shop) -> None:
    """The second in the delivered name is moved on until it is free: nobody's file hides behind another's."""
    delivered = set()
    for round_ in range(3):
        sent = await shop.send(bytes([round_ + 1]), "提供票.pdf", is_free=True)
        delivered.add(sent.delivered_name)
        await shop.collect(sent)
    assert len(delivered) == 3
    for name in delivered:
        assert await shop.ledger.find_delivered(B, name) is not None


async def test_a_free_name_is_kept_sealed(shop: Shop) -> None:
    """A name that may hold a person's is nowhere in the store's file, and everywhere where the offices look."""
    sent = await shop.send(name="山田花子.pdf", is_free=True)
    assert (await shop.ledger.find_transfer(sent.id)) == sent
    await shop.ledger.record_refusal(A, "山田花子.pdf", finding("content.empty"), now=NOW)
    await shop.ledger.close()
    assert "山田花子".encode() not in shop.path.read_bytes()


async def test_thrown_away_unread_and_sent_again(shop: Shop) -> None:
    """A name that its recipient discarded comes again as a new transfer, and takes the place of the old one."""
    sent = await shop.send()
    discarded = await shop.ledger.move_shelf(sent.id, Shelf.DONE, identity=identity(B), now=NOW, may_discard=True)
    assert discarded.state is State.DISCARDED
    again = await shop.send()
    assert again.id != sent.id
    assert [entry.id for entry in (await shop.ledger.list_shelf(B, Shelf.RECEIVE)).entries] == [again.id]
    assert (await shop.ledger.list_shelf(B, Shelf.DONE)).entries == ()
    with pytest.raises(LookupError):
        await shop.ledger.move_shelf(sent.id, Shelf.RECEIVE, identity=identity(B), now=NOW)
    assert await shop.ledger.find_sent(A, B, sent.name) == again


async def test_a_delivered_name_is_given_once(shop: Shop) -> None:
    """A name that is as another one was delivered is refused, and the first stays what it is."""
    free = await shop.send(b"free", "x.csv", is_free=True)
    refused = await _refusal(shop.send(b"other", free.delivered_name))
    assert refused.code == "transfer.conflict"
    assert await shop.content(free.id) == b"free"


# --- as things stand in that moment ------------------------------------------------------------------------------


async def test_who_may_not_send_or_receive_any_more_is_refused_in_the_commit(shop: Shop) -> None:
    """Suspended, unknown or revoked since OPEN: nothing is accepted, and the sentence says which."""
    assert (await _refusal(shop.send(recipient=CLOSED))).code == "route.recipient_suspended"
    assert (await _refusal(shop.send(recipient=NOBODY))).code == "route.recipient_unknown"
    assert (await _refusal(shop.send(sender=CLOSED))).code == "office.suspended"
    await shop.ledger.revoke_certificate("SHA256:ca", int(A), reason="lost", actor="op", now=NOW)
    assert (await _refusal(shop.send())).code == "office.revoked"
    assert await shop.ledger.list_transfers() == []
