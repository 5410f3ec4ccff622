"""A file that is read straight on is fetched ahead of its READs: bounded, not past what the operator stopped, as it is."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest
import pytest_asyncio
from ledgers import NOW, B, Shop, identity, large, plan_name

from relay.collection import Collection, Reading
from relay.config import LimitSettings
from relay.errors import Deferred, Refused
from relay.journal import new_journal
from relay.ledger import disktime
from relay.ledger.endings import CHUNKS_MOST
from relay.model import Transfer
from relay.sftp.handles import Downloading, Handles
from relay.sftp.limits import Shares
from relay.tree import resolve_path
from relay.vault import CHUNK_BYTES

PATIENCE_SECONDS = 60
CHUNKS = 16
CONTENT = large(CHUNKS)
# Of a session, in chunks.
ROOM = 8


@pytest_asyncio.fixture
async def sent(shop: Shop) -> Transfer:
    """Return a file of many chunks."""
    return await shop.send(CONTENT)


async def open_reading(shop: Shop, transfer: Transfer) -> Reading:
    """Open it as its recipient, with all the room that a session has."""
    desk = Collection(shop.ledger, shop.vault, lambda: NOW, may_discard=False)
    reading = await desk.open(transfer, identity(B), new_journal())
    reading.allow(ROOM)
    return reading


async def read(reading: Reading, offset: int, length: int) -> bytes:
    """Read as a session does: what is at hand at once, anything else by waiting."""
    found = reading.read_now(offset, length)
    return bytes(await reading.read(offset, length) if found is None else found)


async def settled(reading: Reading) -> None:
    """Wait until nothing of it is on its way."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while reading.coming_count:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


async def read_on(reading: Reading, chunks: int) -> None:
    """Read so many chunks from the beginning, and wait for what is fetched ahead of the next."""
    for number in range(chunks):
        await read(reading, number * CHUNK_BYTES, CHUNK_BYTES)
    await settled(reading)


async def test_whatever_is_read_in_whatever_order_is_what_was_sent(shop: Shop, sent: Transfer) -> None:
    """Straight on, jumps, overlaps, reads over the end and rooms that change: the same bytes, never more than there is room for."""
    chance, reading, at, room = random.Random(11), await open_reading(shop, sent), 0, ROOM
    for _ in range(300):
        kind = chance.random()
        if kind < 0.1:
            room = chance.choice([2, 4, ROOM])
            reading.allow(room)
        elif kind < 0.2:
            at = chance.randrange(len(CONTENT) + 10)
        elif kind < 0.25:
            reading.forget()
        length = chance.choice([1, 32_768, CHUNK_BYTES, CHUNK_BYTES + 5, 2 * CHUNK_BYTES + 1])
        assert await read(reading, at, length) == CONTENT[at : at + length]
        assert reading.held_count + reading.coming_count <= room
        at = at + length if at < len(CONTENT) else 0
    reading.forget()
    assert (reading.held_count, reading.coming_count) == (0, 0)


async def test_it_is_fetched_ahead_only_where_it_is_read_straight_on(shop: Shop, sent: Transfer) -> None:
    """Whoever looks at a beginning costs one chunk more than that; who goes on gets the session's room; who jumps begins anew."""
    reading = await open_reading(shop, sent)
    held = []
    for number in (0, 1, 2, 3, 10):
        await read(reading, number * CHUNK_BYTES, CHUNK_BYTES)
        await settled(reading)
        held.append(reading.held_count)
    assert held[0] == 2
    assert held[3] >= ROOM - 1
    assert held[4] == 2
    assert reading.read_now(11 * CHUNK_BYTES, 1) == CONTENT[11 * CHUNK_BYTES : 11 * CHUNK_BYTES + 1]


async def test_what_the_operator_holds_is_not_read_on_though_it_is_at_hand(shop: Shop, sent: Transfer) -> None:
    """The chunk that is being read may be finished; the next one, fetched before the hold, is refused."""
    reading = await open_reading(shop, sent)
    await read_on(reading, 4)
    await shop.ledger.hold_transfer(sent.id, reason="宛先の間違い", actor="test", now=NOW)
    with pytest.raises(Refused) as caught:
        await read(reading, 4 * CHUNK_BYTES, CHUNK_BYTES)
    assert caught.value.code == "transfer.held"


async def test_what_others_commit_meanwhile_changes_nothing(shop: Shop, sent: Transfer) -> None:
    """The transfer is looked up again, and what is at hand is given."""
    reading = await open_reading(shop, sent)
    await read_on(reading, 4)
    await shop.send(b"another", plan_name(1))
    assert await read(reading, 4 * CHUNK_BYTES, CHUNK_BYTES) == CONTENT[4 * CHUNK_BYTES : 5 * CHUNK_BYTES]


async def test_a_damaged_chunk_shows_when_it_is_asked_for_and_not_before(shop: Shop, sent: Transfer) -> None:
    """What was fetched together with it is given; it itself is told as damage, each time."""
    payload = await shop.ledger.open_payload(sent.id)
    with closing(sqlite3.connect(shop.path)) as store:
        store.execute("UPDATE chunk SET sealed = zeroblob(100) WHERE id = ?", (payload.id * CHUNKS_MOST + 5,))
        assert store.total_changes == 1
        store.commit()
    reading = await open_reading(shop, sent)
    await read_on(reading, 5)
    for _ in range(2):
        with pytest.raises(Deferred) as caught:
            await read(reading, 5 * CHUNK_BYTES, CHUNK_BYTES)
        assert caught.value.code == "server.storage_damaged"
    assert await read(reading, 6 * CHUNK_BYTES, 1_000) == CONTENT[6 * CHUNK_BYTES : 6 * CHUNK_BYTES + 1_000]


@pytest.mark.parametrize("count", [2, 3, 6])
async def test_a_session_has_no_more_in_memory_with_many_files_open(shop: Shop, sent: Transfer, count: int) -> None:
    """Files read side by side share what one may have; those that stay behind let go, and get it back from the store."""
    handles, place = (
        Handles(100, Shares(LimitSettings()).join(identity(B))),
        resolve_path(b"/new/" + sent.name.encode()),
    )
    readings = [await open_reading(shop, replace(sent)) for _ in range(count)]
    names = [handles.add(Downloading(place, reading)) for reading in readings]
    for number in range(CHUNKS - 1):
        for reading in readings:
            handles.keep_warm(reading)
            at = number * CHUNK_BYTES
            assert await read(reading, at, CHUNK_BYTES) == CONTENT[at : at + CHUNK_BYTES]
            assert sum(each.held_count + each.coming_count for each in readings) <= ROOM
    for name in names[:-1]:
        handles.remove(name)
    await settled(readings[-1])
    assert await read(readings[-1], len(CONTENT) - 1, 10) == CONTENT[-1:]
    assert sum(each.held_count for each in readings[:-1]) == 0


@pytest.mark.parametrize(
    ("is_quick", "still_seconds", "goes_on"), [(True, 30, False), (True, 0.03, True), (False, 30, True)]
)
async def test_event_loop_stands_still_for_chunks_of_a_quick_disk_alone_and_not_for_long(
    shop: Shop,
    sent: Transfer,
    monkeypatch: pytest.MonkeyPatch,
    is_quick: bool,  # noqa: FBT001 - pytest gives it by its name
    still_seconds: float,
    goes_on: bool,  # noqa: FBT001
) -> None:
    """The one that meets a disk which is quick no more is waited for, for a moment; others go on beside all behind it."""
    monkeypatch.setattr(disktime, "STILL_SECONDS", still_seconds)
    payload, turns, inside = await shop.ledger.open_payload(sent.id), 0, []
    disk = shop.ledger._store._read_time
    while disk.is_quick is not is_quick:
        disk.count(0.0 if is_quick else 1.0)

    def open_slowly(_: int, sealed: bytes) -> bytes:
        before, until = turns, time.monotonic() + (PATIENCE_SECONDS if goes_on else 0.3)
        while turns == before and time.monotonic() < until:
            time.sleep(0.01)
        inside.append(turns - before)
        # Others must know before this one ends, however long it hangs.
        assert goes_on is not disk.is_quick
        return sealed

    reading = asyncio.ensure_future(shop.ledger.read_chunks(payload, range(3, 4), open_slowly))
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert bool(inside[0]) is goes_on
    assert not disk.is_quick
