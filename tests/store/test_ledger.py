"""The ledger's contract: what every engine keeps, verb by verb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ledgers import CLOSED, NOBODY, NOW, SECOND, A, B, C, Shop, identity, large, plan_name

from relay.errors import Refused, finding
from relay.ledger import ListingCursor, SealedChunk, Shelf
from relay.ledger.views import merge_ranges
from relay.lifecycle import State
from relay.model import EventKind, PayloadId, Transfer, TransferId
from relay.vault import CHUNK_BYTES, new_uid


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


# --- staging -----------------------------------------------------------------------------------------------------


async def test_staged_chunks_become_the_transfer(shop: Shop) -> None:
    """Chunks that were brought in while they arrived and the last ones with the commit make the whole file."""
    content = large(5)
    parcel = shop.parcel(content)
    staged = await parcel.stage(shop.ledger, 1, 0)
    assert await parcel.stage(shop.ledger, 2) == staged
    assert await shop.ledger.read_staged(staged, 1) == parcel.chunks[1].sealed
    sent = (await shop.ledger.commit_transfer(parcel.draft(), now=NOW)).transfer
    assert await shop.content(sent.id) == content


async def test_a_staged_upload_is_invisible(shop: Shop) -> None:
    """Until the commit no office sees anything of it."""
    await shop.parcel(large()).stage(shop.ledger)
    assert await shop.ledger.list_transfers() == []
    assert (await shop.ledger.list_shelf(B, Shelf.NEW)).entries == ()
    assert (await shop.ledger.list_sent(A, None, now=NOW)).entries == ()


async def test_a_staged_chunk_may_be_replaced(shop: Shop) -> None:
    """What a client writes over is sealed again under the same number, staged or with the commit."""
    content = bytearray(large(4))
    parcel = shop.parcel(bytes(content))
    staged = await parcel.stage(shop.ledger, 0, 1, 2)
    content[0:5] = b"first"
    content[CHUNK_BYTES : CHUNK_BYTES + 6] = b"second"
    again = [
        SealedChunk(
            number, parcel.sealer.seal_chunk(number, content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
        )
        for number in (0, 1)
    ]
    await shop.ledger.stage_chunks(staged, parcel.uid, A, again[:1], now=NOW)
    parcel.travelling.append(again[1])
    sent = (await shop.ledger.commit_transfer(parcel.draft(), now=NOW)).transfer
    assert await shop.content(sent.id) == bytes(content)


async def test_an_upload_that_was_shortened_keeps_nothing_behind_its_end(shop: Shop) -> None:
    """Chunks behind the new end are gone, more of them than fit a step, and the file is whole without them."""
    content = large(40)
    parcel = shop.parcel(content)
    staged = await parcel.stage(shop.ledger)
    short = shop.parcel(content[: CHUNK_BYTES + 7])
    short.uid, short.key, short.sealer, short.staged = parcel.uid, parcel.key, parcel.sealer, staged
    short.travelling = [SealedChunk(1, parcel.sealer.seal_chunk(1, short.content[CHUNK_BYTES:]))]
    sent = (await shop.ledger.commit_transfer(short.draft(), now=NOW)).transfer
    assert await shop.content(sent.id) == short.content
    with pytest.raises(LookupError):
        await shop.ledger.read_staged(staged, 2)


async def test_a_payload_that_lacks_a_chunk_is_no_transfer(shop: Shop) -> None:
    """A missing chunk is noticed in the commit, staged or not, and nothing of the file is accepted."""
    parcel = shop.parcel(large(3))
    del parcel.travelling[1]
    with pytest.raises(ValueError, match="chunks"):
        await shop.ledger.commit_transfer(parcel.draft(), now=NOW)
    parcel = shop.parcel(large(3))
    await parcel.stage(shop.ledger, 0, 2)
    parcel.travelling.clear()
    with pytest.raises(ValueError, match="chunks"):
        await shop.ledger.commit_transfer(parcel.draft(), now=NOW)
    assert await shop.ledger.list_transfers() == []


async def test_a_discarded_upload_is_gone(shop: Shop) -> None:
    """Nothing can be added to it, read from it or made of it any more, and discarding it again does no harm."""
    parcel = shop.parcel(large(40))
    staged = await parcel.stage(shop.ledger)
    await shop.ledger.discard_staged(staged)
    await shop.ledger.discard_staged(staged)
    await shop.ledger.discard_staged(PayloadId(999))
    with pytest.raises(LookupError):
        await shop.ledger.read_staged(staged, 0)
    with pytest.raises(LookupError):
        await parcel.stage(shop.ledger, 0)
    assert (await _refusal(shop.ledger.commit_transfer(parcel.draft(), now=NOW))).code == "upload.unfinished"


async def test_discarding_takes_nothing_from_what_was_committed(shop: Shop) -> None:
    """A connection that is lost while its commit is answered gives up an upload that is a transfer already."""
    content = large()
    parcel = shop.parcel(content)
    staged = await parcel.stage(shop.ledger)
    committing = asyncio.ensure_future(shop.ledger.commit_transfer(parcel.draft(), now=NOW))
    await asyncio.sleep(0)
    discarding = asyncio.ensure_future(shop.ledger.discard_staged(staged))
    sent = (await committing).transfer
    await discarding
    assert await shop.content(sent.id) == content


async def test_an_upload_belongs_to_its_uid(shop: Shop) -> None:
    """Who guesses the number of another upload in progress adds nothing to it."""
    staged = await shop.parcel(large()).stage(shop.ledger)
    with pytest.raises(LookupError):
        await shop.ledger.stage_chunks(staged, new_uid(), C, [], now=NOW)


async def test_only_uploads_left_alone_are_abandoned(shop: Shop) -> None:
    """Staged long ago and touched since: kept. Not touched: removed. Committed: untouched, however old."""
    old = NOW - timedelta(days=2)
    slow, left, content = shop.parcel(large()), shop.parcel(large(40)), large()
    kept = await slow.stage(shop.ledger, 0, now=old)
    gone = await left.stage(shop.ledger, now=old)
    await slow.stage(shop.ledger, 1, now=NOW)
    sent = await shop.send(content)
    assert await shop.ledger.remove_abandoned(before=NOW - timedelta(days=1)) == 1
    assert await shop.ledger.read_staged(kept, 0)
    with pytest.raises(LookupError):
        await shop.ledger.read_staged(gone, 0)
    assert await shop.ledger.remove_abandoned(before=NOW + timedelta(days=9)) == 1
    assert await shop.content(sent.id) == content


async def test_more_abandoned_uploads_than_one_page_are_removed_in_one_go(shop: Shop) -> None:
    """After a crash under load nothing waits for the next day."""
    for _ in range(70):
        await shop.parcel(b"x").stage(shop.ledger, 0)
    assert await shop.ledger.remove_abandoned(before=NOW + SECOND) == 70


async def test_a_touch_beats_the_housekeeper(shop: Shop) -> None:
    """An upload that is touched between the list of abandoned ones and its removal is kept."""
    slow = shop.parcel(large())
    staged = await slow.stage(shop.ledger, 0, now=NOW - timedelta(days=2))
    # Both wait for the same transaction: the chunk was submitted first.
    touching = asyncio.ensure_future(slow.stage(shop.ledger, 1, now=NOW))
    await asyncio.sleep(0)
    assert await shop.ledger.remove_abandoned(before=NOW - timedelta(days=1)) == 0
    assert await touching == staged
    assert (await shop.ledger.commit_transfer(slow.draft(), now=NOW)).transfer.id


# --- collecting --------------------------------------------------------------------------------------------------


async def test_collected_means_every_byte(shop: Shop) -> None:
    """Parts in any order, over several handles and processes, add up; one byte short is not collected."""
    sent = await shop.send(bytes(100))

    async def serve(*ranges: tuple[int, int]) -> Transfer:
        return await shop.ledger.record_served(sent.id, ranges, identity=identity(B), now=NOW + SECOND)

    assert (await serve((50, 100))).state is State.ACCEPTED
    assert (await serve((0, 10), (10, 49))).state is State.ACCEPTED
    assert [entry.id for entry in (await shop.ledger.list_shelf(B, Shelf.NEW)).entries] == [sent.id]
    done = await serve((49, 50))
    assert (done.state, done.collected_at) == (State.COLLECTED, NOW + SECOND)
    assert (await shop.ledger.list_shelf(B, Shelf.NEW)).entries == ()
    assert [entry.id for entry in (await shop.ledger.list_shelf(B, Shelf.RECEIVE)).entries] == [sent.id]
    again = await shop.ledger.record_served(sent.id, [(0, 100)], identity=identity(B), now=NOW + 2 * SECOND)
    assert again == done
    kinds = [event.kind for event in await shop.ledger.list_events(transfer=sent.id)]
    assert kinds == [EventKind.ACCEPTED, EventKind.COLLECTED]


async def test_thousands_of_gaps_are_not_kept(shop: Shop) -> None:
    """A program that reads every second byte neither fills the store nor ever counts as having read the rest."""
    sent = await shop.send(bytes(20_000))
    odd = [(at, at + 1) for at in range(0, 20_000, 2)]
    even = [(at, at + 1) for at in range(1, 20_000, 2)]
    await shop.ledger.record_served(sent.id, odd, identity=identity(B), now=NOW)
    after = await shop.ledger.record_served(sent.id, even, identity=identity(B), now=NOW)
    assert after.state is State.ACCEPTED
    assert (await shop.collect(sent)).state is State.COLLECTED


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], []),
        ([(5, 5)], []),
        ([(0, 5), (5, 9)], [(0, 9)]),
        ([(5, 9), (0, 4)], [(0, 4), (5, 9)]),
        ([(0, 9), (2, 3)], [(0, 9)]),
        ([(3, 6), (0, 4), (6, 7)], [(0, 7)]),
    ],
)
def test_ranges_are_merged(ranges: list[tuple[int, int]], merged: list[tuple[int, int]]) -> None:
    """Touching, overlapping and nested ranges become one; empty ones none."""
    assert merge_ranges(ranges) == merged


async def test_nobody_else_collects_or_moves(shop: Shop) -> None:
    """For the sender and a third office the transfer is not there to be read or moved."""
    sent = await shop.send()
    for office in (A, C):
        with pytest.raises(LookupError):
            await shop.ledger.record_served(sent.id, [(0, 7)], identity=identity(office), now=NOW)
        with pytest.raises(LookupError):
            await shop.ledger.move_shelf(sent.id, Shelf.DONE, identity=identity(office), now=NOW)
    with pytest.raises(LookupError):
        await shop.ledger.record_served(TransferId(999), [(0, 7)], identity=identity(B), now=NOW)
    assert await shop.ledger.find_transfer(sent.id) == sent


async def test_put_away_and_back(shop: Shop) -> None:
    """A collected file moves to done/ and back; moving it where it is does nothing and tells nothing."""
    sent = await shop.send()
    assert (await _refusal(_move(shop, sent.id, Shelf.DONE))).code == "transfer.not_collected"
    await shop.collect(sent)
    assert (await _move(shop, sent.id, Shelf.RECEIVE)).is_removed is False
    away = await _move(shop, sent.id, Shelf.DONE)
    assert away.is_removed
    assert away.state is State.COLLECTED
    assert (await shop.ledger.list_shelf(B, Shelf.RECEIVE)).entries == ()
    assert [entry.id for entry in (await shop.ledger.list_shelf(B, Shelf.DONE)).entries] == [sent.id]
    assert await _move(shop, sent.id, Shelf.DONE) == away
    assert not (await _move(shop, sent.id, Shelf.NEW)).is_removed
    kinds = [event.kind for event in await shop.ledger.list_events(transfer=sent.id)]
    assert kinds[2:] == [EventKind.REMOVED, EventKind.RESTORED]


async def _move(shop: Shop, transfer: TransferId, to: Shelf) -> Transfer:
    return await shop.ledger.move_shelf(transfer, to, identity=identity(B), now=NOW)


async def test_a_payload_that_is_not_there(shop: Shop) -> None:
    """Reading what does not exist is a LookupError, for the payload and for a chunk."""
    sent = await shop.send()
    with pytest.raises(LookupError):
        await shop.ledger.open_payload(TransferId(999))
    payload = await shop.ledger.open_payload(sent.id)
    with pytest.raises(LookupError):
        await shop.ledger.read_chunk(payload, 1)


# --- listings ----------------------------------------------------------------------------------------------------


async def test_a_listing_is_that_of_its_first_page(shop: Shop) -> None:
    """Paged by key: what arrives meanwhile is not in it, nothing is told twice, nothing is left out."""
    sent = [await shop.send(bytes([1, n % 256]), plan_name(n)) for n in reversed(range(40))]
    many = await asyncio.gather(*(shop.send(b"m", plan_name(n)) for n in range(1000, 2100)))
    page = await shop.ledger.list_shelf(B, Shelf.NEW)
    seen = list(page.entries)
    while page.cursor is not None:
        await shop.send(b"late", plan_name(500_000 + len(seen)))
        await shop.send(b"early", f"UPPLAN_202607_{A}_43_{B}_11_{10_000_000_000_000 + len(seen)}.CSV")
        page = await shop.ledger.list_shelf(B, Shelf.NEW, page.cursor)
        seen += page.entries
    assert {entry.id for entry in seen} == {each.id for each in (*sent, *many)}
    assert len(seen) == len(sent) + len(many)
    order = [(entry.sender, entry.serial, entry.id) for entry in seen]
    assert order == sorted(order)


async def test_listings_sort_by_sender_and_serial(shop: Shop) -> None:
    """Units are imported in ascending serial order within a sender."""
    for number, sender in ((5, A), (1, C), (3, A), (2, C)):
        await shop.send(name=plan_name(number, sender), sender=sender)
    names = [entry.name for entry in (await shop.ledger.list_shelf(B, Shelf.RECEIVE)).entries]
    assert names == [plan_name(n, s) for n, s in ((1, C), (2, C), (3, A), (5, A))]


async def test_the_out_tray_pages_too(shop: Shop) -> None:
    """send/ is told by number of the transfer, page after page, without those that came later."""
    sent = await asyncio.gather(*(shop.send(b"m", plan_name(n)) for n in range(600)))
    page = await shop.ledger.list_sent(A, None, now=NOW)
    assert page.cursor is not None
    await shop.send(b"late", plan_name(9_000))
    rest = await shop.ledger.list_sent(A, None, now=NOW, cursor=page.cursor)
    ids = [entry.id for entry in (*page.entries, *rest.entries)]
    assert ids == sorted(each.id for each in sent)
    assert rest.cursor is None


async def test_what_was_collected_stays_listed_for_a_day(shop: Shop) -> None:
    """In send/ it is listed until a day after its collection; its path still answers afterwards."""
    sent, waiting = await shop.send(), await shop.send(name=plan_name(1))
    await shop.collect(sent)
    listed = await shop.ledger.list_sent(A, None, now=NOW + timedelta(hours=23))
    assert [entry.id for entry in listed.entries] == [sent.id, waiting.id]
    later = NOW + timedelta(days=2)
    assert [entry.id for entry in (await shop.ledger.list_sent(A, None, now=later)).entries] == [waiting.id]
    assert await shop.ledger.leave_outbox(now=NOW) == 0
    assert await shop.ledger.leave_outbox(now=later) == 1
    assert [entry.id for entry in (await shop.ledger.list_sent(A, None, now=NOW)).entries] == [waiting.id]
    assert await shop.ledger.find_sent(A, B, sent.name) is not None


async def test_the_senders_own_time_is_shown_to_the_sender_alone(shop: Shop) -> None:
    """Clients set a time after the upload; the recipient's listing goes by acceptance."""
    sent = await shop.send()
    mtime = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    await shop.ledger.set_sent_mtime(sent.id, mtime)
    (own,) = (await shop.ledger.list_sent(A, None, now=NOW)).entries
    (arrived,) = (await shop.ledger.list_shelf(B, Shelf.NEW)).entries
    assert (own.changed_at, arrived.changed_at) == (int(mtime.timestamp()), int(NOW.timestamp()))


async def test_a_cursor_holds_for_a_listing_that_emptied(shop: Shop) -> None:
    """A page after everything has moved away is empty and the last."""
    page = await shop.ledger.list_shelf(B, Shelf.NEW, ListingCursor(99, ("9", "9", 99)))
    assert (page.entries, page.cursor) == ((), None)


async def test_transfers_are_found_by_what_is_asked(shop: Shop) -> None:
    """Newest first, by sender, recipient, state and time, at most so many."""
    first, second = await shop.send(), await shop.send(name=plan_name(1, C), sender=C)
    collected = await shop.collect(first)
    ask = shop.ledger.list_transfers
    assert await ask() == [second, collected]
    assert await ask(limit=1) == [second]
    assert await ask(sender=A) == [collected]
    assert await ask(recipient=B, state="accepted") == [second]
    assert await ask(recipient=C) == []
    assert await ask(since=NOW + SECOND) == []
    assert len(await ask(since=NOW)) == 2


# --- refusals ----------------------------------------------------------------------------------------------------


async def test_the_same_refusal_is_counted(shop: Shop) -> None:
    """Name, code and content the same: one row that counts, with the first and the last time."""
    broken = finding("content.truncated", kind="PDF")
    assert await shop.ledger.record_refusal(A, "x.pdf", broken, now=NOW) == 1
    assert await shop.ledger.record_refusal(A, "X.PDF", broken, now=NOW + SECOND) == 2
    assert await shop.ledger.record_refusal(B, "x.pdf", broken, now=NOW) == 1
    assert await shop.ledger.record_refusal(A, "x.pdf", finding("content.empty"), now=NOW) == 1
    newest, other = await shop.ledger.list_refusals(A, since=NOW)
    assert (newest.name, newest.finding, newest.count) == ("x.pdf", broken, 2)
    assert (newest.first_at, newest.last_at) == (NOW, NOW + SECOND)
    assert other.finding.code == "content.empty"
    assert len(await shop.ledger.list_refusals(A, since=NOW, limit=1)) == 1
    assert await shop.ledger.list_refusals(A, since=NOW + 2 * SECOND) == []


async def test_a_refusal_of_these_very_bytes_is_remembered(shop: Shop) -> None:
    """Asked by office, name, code and digest; anything else is another refusal."""
    digest = bytes(32)
    await shop.ledger.record_refusal(A, "x.pdf", finding("upload.looks_cut"), sha256=digest, now=NOW)
    assert await shop.ledger.was_refused(A, "X.pdf", "upload.looks_cut", digest)
    assert not await shop.ledger.was_refused(A, "x.pdf", "upload.looks_cut", bytes(31) + b"\1")
    assert not await shop.ledger.was_refused(B, "x.pdf", "upload.looks_cut", digest)
    assert not await shop.ledger.was_refused(A, "y.pdf", "upload.looks_cut", digest)
    assert not await shop.ledger.was_refused(A, "x.pdf", "content.empty", digest)


async def test_a_draft_keeps_its_findings_and_its_sent_time(shop: Shop) -> None:
    """What was only warned about and the client's time come back as they were given."""
    odd = (finding("name.check_digit", office="0178515855"), finding("name.serial_future", serial="2"))
    draft = replace(shop.parcel().draft(), findings=odd, client_mtime=NOW - timedelta(days=3))
    sent = (await shop.ledger.commit_transfer(draft, now=NOW)).transfer
    found = await shop.ledger.find_transfer(sent.id)
    assert found == sent
    assert found.findings == odd


async def test_events_without_a_transfer_are_kept_in_order(shop: Shop) -> None:
    """History is told oldest first, that of one transfer apart from the others'."""
    before = len(await shop.ledger.list_events())
    await shop.ledger.record_event(EventKind.NAMES_REVEALED, actor="op", detail="1-3", now=NOW)
    sent = await shop.send()
    events = await shop.ledger.list_events()
    assert [event.kind for event in events[before:]] == [EventKind.NAMES_REVEALED, EventKind.ACCEPTED]
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert len(await shop.ledger.list_events(limit=2)) == 2
    assert [event.transfer for event in await shop.ledger.list_events(transfer=sent.id)] == [sent.id]
    assert events[before].actor == "op"
