"""The ledger's contract for what was accepted: collected, moved, listed, refused and told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ledgers import NOW, SECOND, A, B, C, Shop, identity, plan_name

from relay.errors import Refused, finding
from relay.ledger import ListingCursor, Shelf
from relay.lifecycle import State
from relay.model import EventKind, Transfer, TransferId
from relay.ranges import merge_ranges


async def _refusal(work: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


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
    assert kinds == [EventKind.ACCEPTED, EventKind.READ, EventKind.COLLECTED]


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


async def test_sealed_names_are_listed_among_those_of_the_standard(shop: Shop) -> None:
    """Free names stand in their place of a page: opened, and to the recipient behind what they are delivered with."""
    plans = [await shop.send(name=plan_name(n)) for n in (1, 2)]
    free = [await shop.send(name=f"提供票 {n}.pdf", is_free=True) for n in range(3)]
    listed = (await shop.ledger.list_shelf(B, Shelf.NEW)).entries
    # Without a serial of their own they come first.
    assert [(entry.id, entry.name) for entry in listed] == [(each.id, each.delivered_name) for each in (*free, *plans)]
    assert all(each.delivered_name != each.name for each in free)
    sent = (await shop.ledger.list_sent(A, B, now=NOW)).entries
    assert [(entry.id, entry.name) for entry in sent] == [(each.id, each.name) for each in free]


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
    page = await shop.ledger.list_shelf(B, Shelf.NEW, ListingCursor(99, ("9", "9", 99), (B,)))
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
    """Asked by office, name, code, digest and time; anything else is another refusal."""
    digest, later = bytes(32), NOW + SECOND
    await shop.ledger.record_refusal(A, "x.pdf", finding("upload.looks_cut"), sha256=digest, now=NOW)
    ask = shop.ledger.was_refused
    assert await ask(A, "X.pdf", "upload.looks_cut", digest, before=later)
    assert not await ask(A, "x.pdf", "upload.looks_cut", digest, before=NOW - SECOND)
    assert not await ask(A, "x.pdf", "upload.looks_cut", bytes(31) + b"\1", before=later)
    assert not await ask(B, "x.pdf", "upload.looks_cut", digest, before=later)
    assert not await ask(A, "y.pdf", "upload.looks_cut", digest, before=later)
    assert not await ask(A, "x.pdf", "content.empty", digest, before=later)


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
