"""What time does to files: they expire uncollected, lose their bytes once collected, and the store gives space back."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import pytest
import structlog
from ledgers import CLOSED, NOW, SECOND, A, B, C, Shop, identity, large, plan_name

from relay.config import HousekeepingSettings
from relay.errors import Refused, finding
from relay.housekeeping import Pause, go_round, plan_round
from relay.journal import new_journal
from relay.ledger import Partial, Shelf, storefile
from relay.ledger.upkeep import Chore, Due
from relay.lifecycle import State
from relay.model import EventKind, OfficeEnd, Transfer
from relay.vault import new_uid

SETTINGS = HousekeepingSettings()
DAY = timedelta(days=1)


def later(days: int) -> datetime:
    """Return a moment so many days and a second after the files came."""
    return NOW + days * DAY + SECOND


def count(shop: Shop, table: str) -> int:
    """Return how many rows a table has."""
    with closing(storefile.open_reader(shop.path)) as reader:
        return int(reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def state(shop: Shop, sent: Transfer) -> State:
    """Return what became of a file."""
    found = await shop.ledger.find_transfer(sent.id)
    assert found is not None
    return found.state


async def test_a_file_that_nobody_collects_expires(shop: Shop) -> None:
    """After its time and not before: gone from every directory, its bytes destroyed, told in history, free to be sent again."""
    small, big = await shop.send(), await shop.send(large(70), plan_name(1))
    assert (await go_round(shop.ledger, SETTINGS, later(92))).expired == 0
    assert await state(shop, small) is State.ACCEPTED
    done = await go_round(shop.ledger, SETTINGS, later(93))
    assert done.expired == 2
    assert await state(shop, small) is await state(shop, big) is State.EXPIRED
    assert count(shop, "chunk") == 0
    for shelf in Shelf:
        assert (await shop.ledger.list_shelf(B, shelf)).entries == ()
    assert (await shop.ledger.list_sent(A, None, now=later(93))).entries == ()
    events = [event.kind for event in await shop.ledger.list_events(transfer=small.id)]
    assert events == [EventKind.ACCEPTED, EventKind.EXPIRY_NOTICED, EventKind.EXPIRED]
    with pytest.raises(LookupError):
        await shop.ledger.open_payload(small.id)
    again = await shop.send(b"sent again")
    assert (again.id != small.id, again.state) == (True, State.ACCEPTED)
    # A week later its key goes as well.
    await go_round(shop.ledger, SETTINGS, later(101))
    assert count(shop, "payload") == 1


async def test_a_clock_that_was_put_back_lets_what_came_after_it_expire_in_time(shop: Shop) -> None:
    """Files that came after one with a later time are found when they are due, and that one is left alone."""
    ahead = shop.parcel(b"ahead", plan_name(1))
    due = shop.parcel(b"in time", plan_name(2))
    first = (await shop.ledger.commit_transfer(ahead.draft(), now=NOW + timedelta(hours=20))).transfer
    second = (await shop.ledger.commit_transfer(due.draft(), now=NOW)).transfer
    assert (await go_round(shop.ledger, SETTINGS, later(93))).expired == 1
    assert (await state(shop, first), await state(shop, second)) == (State.ACCEPTED, State.EXPIRED)


async def test_a_collected_file_loses_its_bytes_and_keeps_its_record(shop: Shop) -> None:
    """After its time: key and bytes are gone, a free name with them, and the same name cannot come twice."""
    plan, free = await shop.send(), await shop.send(b"%PDF", "山田.pdf", is_free=True)
    for each in (plan, free):
        await shop.collect(each)
    before = await shop.ledger.open_payload(plan.id)
    assert (await go_round(shop.ledger, SETTINGS, later(30))).destroyed == 0
    assert await shop.content(plan.id) == b"content"
    assert (await go_round(shop.ledger, SETTINGS, later(32))).destroyed == 2
    kept = await shop.ledger.find_transfer(plan.id)
    assert kept is not None
    assert (kept.state, kept.name, kept.collected_at) == (State.DESTROYED, plan.name, NOW + SECOND)
    hidden = await shop.ledger.find_transfer(free.id)
    assert hidden is not None
    assert hidden.name == "*.pdf"
    assert (count(shop, "chunk"), count(shop, "payload")) == (0, 0)
    with closing(sqlite3.connect(shop.path)) as connection:
        assert before.wrapped_key not in b"".join(
            row[0] for row in connection.execute("SELECT wrapped_key FROM payload WHERE wrapped_key IS NOT NULL")
        )
    assert (await shop.ledger.list_shelf(B, Shelf.DONE)).entries == ()
    with pytest.raises(Refused) as refused:
        await shop.send(b"other bytes")
    assert refused.value.code == "transfer.already_collected"
    assert (await shop.send(b"%PDF 2", "山田.pdf", is_free=True)).state is State.ACCEPTED
    assert await shop.ledger.stored_bytes(A) == len(b"%PDF 2")


async def test_what_was_thrown_away_unread_loses_its_bytes(shop: Shop) -> None:
    """It stays what it was, discarded, and leaves done/."""
    sent = await shop.send()
    await shop.ledger.move_shelf(sent.id, Shelf.DONE, identity=identity(B), now=NOW + SECOND, may_discard=True)
    assert (await go_round(shop.ledger, SETTINGS, later(32))).destroyed == 1
    assert await state(shop, sent) is State.DISCARDED
    assert (await shop.ledger.list_shelf(B, Shelf.DONE)).entries == ()
    assert count(shop, "payload") == 0


async def test_the_last_byte_and_the_expiry_meet(shop: Shop) -> None:
    """At the same moment exactly one wins, and both ways round the history says so."""
    for number in range(6):
        sent = await shop.send(name=plan_name(number))

        async def read(sent: Transfer = sent) -> object:
            return await shop.collect(sent)

        both = [read(), shop.ledger.expire_uncollected(before=later(1), now=later(1))]
        if number % 2:
            both.reverse()
        await asyncio.gather(*both, return_exceptions=True)
        kinds = [event.kind for event in await shop.ledger.list_events(transfer=sent.id)]
        assert kinds in ([EventKind.ACCEPTED, EventKind.COLLECTED], [EventKind.ACCEPTED, EventKind.EXPIRED])
        assert await state(shop, sent) in (State.COLLECTED, State.EXPIRED)


async def test_a_plan_says_what_a_round_does_and_changes_nothing(shop: Shop) -> None:
    """Counts, sizes and the oldest; kept for ever where the setting is 0."""
    waiting, read = await shop.send(large(2)), await shop.send(name=plan_name(1))
    await shop.collect(read)
    plan = await plan_round(shop.ledger, SETTINGS, later(100))
    assert plan[Chore.EXPIRED] == Due(1, waiting.size_bytes, NOW, NOW + 93 * DAY)
    assert plan[Chore.DESTROYED] == Due(1, read.size_bytes, NOW + SECOND, NOW + SECOND + 31 * DAY)
    assert await state(shop, waiting) is State.ACCEPTED
    forever = HousekeepingSettings(uncollected_days=0, collected_days=0)
    assert (await plan_round(shop.ledger, forever, later(9_000)))[Chore.EXPIRED] == Due(0, 0, NOW, None)
    done = await go_round(shop.ledger, forever, later(9_000))
    assert (done.expired, done.destroyed) == (0, 0)


async def fill_with_everything(shop: Shop) -> None:
    """Let every kind of thing lie in the store that time does something to."""
    ledger = shop.ledger
    sent = [await shop.send(large(3), plan_name(number)) for number in range(8)]
    await ledger.hold_transfer(sent[0].id, reason="misdirected", actor="test", now=NOW)
    for each in sent[1:3]:
        await shop.collect(each)
    await ledger.move_shelf(sent[3].id, Shelf.DONE, identity=identity(B), now=NOW + SECOND, may_discard=True)
    await ledger.recall_transfer(sent[4].id, identity=identity(A), now=NOW)
    for number in range(3):
        parcel = shop.parcel(large(4), plan_name(100 + number))
        await parcel.stage(ledger, now=NOW + number * DAY)
        if number:
            uid = new_uid()
            key = shop.vault.wrap_key(parcel.key, uid, size_bytes=0, chunk_count=0)
            partial = Partial(
                A, f"{parcel.name}.part", None, None, uid, bytes([number] * 16), key, 0,
                is_closed=False, looks_whole=False, client_mtime=None, touched_at=NOW,
            )  # fmt: skip
            await ledger.save_partial(partial, (), now=NOW + number * DAY)
    for number, has_note in enumerate((True, False, True)):
        why = finding("content.empty")
        await ledger.record_refusal(A, plan_name(200 + number), why, has_note=has_note, now=NOW + number * DAY)
    await ledger.note_attempt(A, plan_name(300), now=NOW)
    # One closes on the second day, and another one much later, when nobody has looked for long.
    for office, day in ((C, 1), (CLOSED, 95)):
        end = OfficeEnd(NOW + day * DAY, NOW + (day + 6) * DAY)
        await ledger.plan_end(office, end, actor="test", now=NOW)
    await shop.send(name=plan_name(400, recipient=C), recipient=C)


@pytest.mark.parametrize(
    "all_hours",
    [
        (0, 2, 25, 50, 24 * 3, 24 * 8, 24 * 10, 24 * 32, 24 * 47, 24 * 84, 24 * 94, 24 * 102, 24 * 735),
        (24 * 84, 24 * 94, 24 * 102, 24 * 735),
    ],
    ids=["day after day", "after standing still"],
)
async def test_a_plan_and_the_round_behind_it_say_the_same_of_everything(
    shop: Shop, all_hours: tuple[int, ...]
) -> None:
    """For years, chore by chore: what was foreseen is done, and when it was foreseen it is due."""
    await fill_with_everything(shop)
    seen: set[Chore] = set()
    for hours in all_hours:
        now = NOW + timedelta(hours=hours) + SECOND
        plan, before = await plan_round(shop.ledger, SETTINGS, now), await shop.ledger.read_rounds()
        done = await go_round(shop.ledger, SETTINGS, now)
        foreseen = {chore: due.count for chore, due in plan.items()}
        assert done.pages >= foreseen.pop(Chore.PAGES)
        assert {chore: count for chore, count in done.counts.items() if chore in foreseen} == foreseen, hours
        for chore, due in plan.items():
            if chore not in (Chore.PAGES, Chore.NOTICES_OVER, Chore.NOTICED, Chore.EXPIRED, Chore.UNLISTED):
                assert (due.next_at is not None and due.next_at < now) == bool(due.count), (hours, chore)
        kept = await shop.ledger.read_rounds()
        assert kept.last_at == now
        for chore, count in done.counts.items():
            assert kept.chores.get(chore) == ((now, count) if count else before.chores.get(chore)), chore
            if count:
                seen.add(chore)
    # What has lost its bytes after a long time has left send/ with them.
    assert seen | {Chore.UNLISTED} == set(Chore), "every chore had something to do"


def test_after_a_pause_of_days_a_round_waits_for_one_more() -> None:
    """Nobody knows whether the relay stood still or its clock leapt; told once, over after a day, or once a round was made."""
    elapsed = 1_000.0
    with structlog.testing.capture_logs() as lines:
        pause = Pause(new_journal(), lambda: elapsed)
        assert not pause.holds_up(None, NOW), "a new relay has nothing to wait for"
        assert not pause.holds_up(NOW - 2 * DAY + SECOND, NOW)
        assert pause.holds_up(NOW - 2 * DAY, NOW)
        elapsed += 86_399
        assert pause.holds_up(NOW - 2 * DAY, NOW + DAY - SECOND)
        elapsed += 1
        assert not pause.holds_up(NOW - 2 * DAY, NOW + DAY)
        # The operator has had a round made, and later the clock leaps again.
        assert not pause.holds_up(NOW + DAY, NOW + DAY)
        assert pause.holds_up(NOW + DAY, NOW + 90 * DAY)
    assert [line["event"] for line in lines] == 2 * ["housekeeping.waits"]


async def test_the_store_gives_space_back(shop: Shop) -> None:
    """What was taken up by large files goes back to the disk in the round that destroys them."""
    for number in range(4):
        await shop.collect(await shop.send(large(70), plan_name(number)))
    await shop.ledger.close()
    full = shop.path.stat().st_size
    again = await shop.reopen()
    async with again.ledger:
        done = await go_round(again.ledger, SETTINGS, later(32))
    assert done.destroyed == 4
    assert done.pages > 0
    assert shop.path.stat().st_size < full / 2
    with closing(sqlite3.connect(shop.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
