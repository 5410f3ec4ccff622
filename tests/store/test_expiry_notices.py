"""Notices before a file expires, and what is forgotten: once each, for both offices, whatever restarts in between."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

from ledgers import NOW, A, B, C, Shop, large, plan_name

from relay.config import HousekeepingSettings
from relay.errors import finding
from relay.housekeeping import go_round
from relay.ledger import storefile
from relay.model import EventKind

DAY = timedelta(days=1)
SETTINGS = HousekeepingSettings()


async def test_both_are_told_once_at_half_and_once_at_nine_tenths(shop: Shop) -> None:
    """Through a restart as well; a third office is told nothing, and after the end nobody is."""
    sent = await shop.send()
    second = await shop.reopen()
    async with second.ledger:
        for day, expected in ((46, 0), (47, 1), (48, 0), (83, 0), (84, 1), (92, 0)):
            ledger = (shop if day % 2 else second).ledger
            assert (await go_round(ledger, SETTINGS, NOW + day * DAY)).noticed == expected, day
            for office in (A, B):
                noticed = [one.id for one in await ledger.list_noticed(office, limit=9)]
                assert noticed == ([sent.id] if day > 46 else [])
            assert not await ledger.has_noticed(C)
    assert (await go_round(shop.ledger, SETTINGS, NOW + 94 * DAY)).expired == 1
    assert not await shop.ledger.has_noticed(A)
    told = [event.kind for event in await shop.ledger.list_events(transfer=sent.id)]
    assert told == [EventKind.ACCEPTED, *2 * [EventKind.EXPIRY_NOTICED], EventKind.EXPIRED]


async def test_what_was_collected_is_spoken_of_no_more(shop: Shop) -> None:
    """The page is empty at once, not at the next round."""
    sent = await shop.send()
    await go_round(shop.ledger, SETTINGS, NOW + 50 * DAY)
    assert await shop.ledger.has_noticed(B)
    await shop.collect(sent)
    assert not await shop.ledger.has_noticed(B)
    assert await shop.ledger.list_noticed(A, limit=9) == []


async def test_who_stood_still_past_both_moments_gives_the_later_notice_alone(shop: Shop) -> None:
    """A relay that was off for months does not tell the same thing twice."""
    await shop.send()
    assert (await go_round(shop.ledger, SETTINGS, NOW + 90 * DAY)).noticed == 1
    assert (await go_round(shop.ledger, SETTINGS, NOW + 91 * DAY)).noticed == 0


async def test_notes_go_after_a_week_and_refusals_after_years(shop: Shop) -> None:
    """The refusal stays in the status when its note has gone."""
    why = finding("content.empty")
    await shop.ledger.record_refusal(A, plan_name(), why, has_note=True, now=NOW)
    long_ago = NOW - 9999 * DAY
    await go_round(shop.ledger, SETTINGS, NOW + 8 * DAY)
    assert await shop.ledger.list_notes(A, None, since=long_ago) == []
    assert len(await shop.ledger.list_refusals(A, since=long_ago)) == 1
    await go_round(shop.ledger, SETTINGS, NOW + 732 * DAY)
    assert await shop.ledger.list_refusals(A, since=long_ago) == []


async def test_the_file_of_the_store_shrinks_by_what_is_told(shop: Shop) -> None:
    """What is free goes back but for a reserve, and the count is that of the file."""
    await shop.collect(await shop.send(large(100), name="提供票 山田花子.pdf", is_free=True))
    with closing(storefile.open_reader(shop.path)) as reader:
        (before,) = reader.execute("PRAGMA page_count").fetchone()
        done = await go_round(shop.ledger, SETTINGS, NOW + 32 * DAY)
        (after,) = reader.execute("PRAGMA page_count").fetchone()
        (name,) = reader.execute("SELECT name_sealed FROM transfer").fetchone()
    assert done.pages == before - after > 2_000
    assert name == b""
