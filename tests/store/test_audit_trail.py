"""How history is sealed as it is written: with what it tells, one batch a transaction, and never by half."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from ledgers import AUDIT_KEY, NOW, SECOND, A, B, identity, open_shop, plan_name

from relay.audit import AuditKey, FaultKind, judge_history
from relay.errors import ConfigError, finding
from relay.keymaking import create_keyring
from relay.keyring import load_keyring
from relay.ledger import SealedChunk
from relay.ledger.anchor import AnchorDamagedError, read_anchor
from relay.ledger.auditing import ensure_audit_key, open_history
from relay.ledger.sqlite import create_store, open_ledger, upgrade_store
from relay.ledger.trail import append_event
from relay.model import EventKind
from relay.vault import new_key, new_uid


def faults(path: Path, key: AuditKey = AUDIT_KEY) -> list[FaultKind]:
    """Judge the history in the store at *path*."""
    with open_history(path) as history:
        return [fault.kind for fault in judge_history(history.batches(), history.events(), key)]


def batches(path: Path) -> list[tuple[int, int, int, int]]:
    """Return writer, number, first and last event of every batch."""
    with open_history(path) as history:
        return [(batch.writer, batch.number, batch.first_event, batch.last_event) for batch in history.batches()]


async def test_what_is_written_together_is_sealed_together(tmp_path: Path) -> None:
    """Eight uploads at once are one transaction, and one batch of eight events."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        before = batches(shop.path)[-1]
        await asyncio.gather(*(shop.send(b"m", plan_name(number)) for number in range(8)))
        writer, number, _, last = before
        assert batches(shop.path)[-1] == (writer, number + 1, last + 1, last + 8)
    assert faults(shop.path) == []


async def test_a_transaction_that_tells_nothing_has_no_batch(tmp_path: Path) -> None:
    """Chunks of an upload in progress are no history."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        before = batches(shop.path)
        await shop.ledger.stage_chunks(None, new_uid(), A, [SealedChunk(0, bytes(99))], now=NOW)
        await shop.ledger.note_attempt(A, "x.pdf", now=NOW)
        assert batches(shop.path) == before


async def test_what_fails_leaves_no_gap_and_no_seal(tmp_path: Path) -> None:
    """A defect beside honest work rolls back events and batch; what is done again is sealed, by a new writer."""
    shop = await open_shop(tmp_path)

    def broken(connection: sqlite3.Connection) -> None:
        append_event(connection, EventKind.COMMAND, NOW, actor="never", detail="")
        raise RuntimeError("a defect")

    async with shop.ledger:
        first = asyncio.ensure_future(shop.send(b"m", plan_name(1)))
        await asyncio.sleep(0)
        failing = shop.ledger._store.change(broken)
        second = asyncio.ensure_future(shop.send(b"m", plan_name(2)))
        await asyncio.gather(first, second)
        with pytest.raises(RuntimeError):
            await failing
        events = await shop.ledger.list_events()
    assert [event.kind for event in events[-2:]] == [EventKind.ACCEPTED] * 2
    assert all(event.actor != "never" for event in events)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert len({writer for writer, *_ in batches(shop.path)}) > 1
    assert faults(shop.path) == []


async def test_history_is_never_written_without_a_sync(tmp_path: Path) -> None:
    """The anchor may name what is committed: work that a power cut may undo must not tell anything."""
    shop = await open_shop(tmp_path)

    def tell(connection: sqlite3.Connection) -> None:
        append_event(connection, EventKind.COMMAND, NOW, actor="x", detail="")

    async with shop.ledger:
        with pytest.raises(RuntimeError, match="durable"):
            await shop.ledger._store.change(tell, is_durable=False)
    assert faults(shop.path) == []


# --- what nobody waits for ---------------------------------------------------------------------------------------


async def test_a_login_goes_with_the_next_transaction_in_front_of_it(tmp_path: Path) -> None:
    """No commit of its own, and in history it stands before what was done with it."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        before = len(batches(shop.path))
        for office in (A, B):
            shop.ledger.note_event(EventKind.LOGIN, actor=office, office=office, now=NOW, detail="7 from 192.0.2.7")
        await shop.send()
        kinds = [event.kind for event in await shop.ledger.list_events()][-3:]
        assert kinds == [EventKind.LOGIN, EventKind.LOGIN, EventKind.ACCEPTED]
        assert len(batches(shop.path)) == before + 1


async def test_a_login_after_which_nothing_happens_is_written_all_the_same(tmp_path: Path) -> None:
    """By itself after a second, and at once when the ledger is closed."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        before = len(await shop.ledger.list_events())
        shop.ledger.note_event(EventKind.LOGIN, actor=A, now=NOW)
        async with asyncio.timeout(60):
            # The writer tells nobody that it has written: the store is asked.
            while len(await shop.ledger.list_events()) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        shop.ledger.note_event(EventKind.LOGIN, actor=B, now=NOW)
    again = await shop.reopen()
    async with again.ledger:
        assert [event.actor for event in await again.ledger.list_events()][-2:] == [A, B]


# --- what is told ------------------------------------------------------------------------------------------------


async def test_a_refusal_that_repeats_for_ever_does_not_fill_history(tmp_path: Path) -> None:
    """The first, second, fourth, eighth … time is told, with the count."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        for _ in range(9):
            await shop.ledger.record_refusal(A, "x.pdf", finding("content.empty"), now=NOW)
        told = [event.detail for event in await shop.ledger.list_events() if event.kind is EventKind.REFUSED]
    assert told == ["content.empty", "content.empty, 2 times", "content.empty, 4 times", "content.empty, 8 times"]


async def test_what_time_does_is_told(tmp_path: Path) -> None:
    """An upload that expired and a key that was destroyed, by the relay itself."""
    from relay.ledger import Partial

    shop = await open_shop(tmp_path)
    async with shop.ledger:
        sent = await shop.send()
        await shop.ledger.recall_transfer(sent.id, identity=identity(A), now=NOW)
        await shop.ledger.destroy_ended(before=NOW + SECOND, now=NOW + SECOND)
        uid = new_uid()
        key = shop.vault.wrap_key(new_key(), uid, size_bytes=0, chunk_count=0)
        left = Partial(A, "x.pdf", None, None, uid, b"holder", key, 71, False, False, None, NOW)
        await shop.ledger.save_partial(left, [SealedChunk(0, bytes(99))], now=NOW)
        later = NOW + timedelta(days=2)
        assert await shop.ledger.expire_partials(before=later, now=later) == 1
        told = [(event.kind, event.actor, event.transfer) for event in await shop.ledger.list_events()][-2:]
    assert told == [(EventKind.DESTROYED, "relay", sent.id), (EventKind.UPLOAD_EXPIRED, "relay", None)]


# --- the anchor --------------------------------------------------------------------------------------------------


async def test_the_anchor_follows_and_never_goes_back(tmp_path: Path) -> None:
    """It names the newest batch; for a store that does not hold what it names it stays as it is, until accepted."""
    anchor = tmp_path / "elsewhere" / "anchor"
    shop = await open_shop(tmp_path, anchor=anchor)
    copy = tmp_path / "copy.db"
    async with shop.ledger:
        with closing(sqlite3.connect(shop.path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        await shop.send()
        assert await shop.ledger.advance_anchor() is None
        known = read_anchor(anchor, AUDIT_KEY)
        assert known is not None
        assert known.mark.batch == len(batches(shop.path))
    for suffix in ("-wal", "-shm"):
        shop.path.with_name(shop.path.name + suffix).unlink(missing_ok=True)
    copy.replace(shop.path)
    again = await shop.reopen(anchor=anchor)
    async with again.ledger:
        trouble = await again.ledger.advance_anchor()
        assert trouble is not None
        assert f"does not hold batch {known.mark.batch}" in trouble
        assert read_anchor(anchor, AUDIT_KEY) == known
        for number in range(20):
            await again.send(b"m", plan_name(number))
        assert await again.ledger.advance_anchor() == trouble
        assert again.ledger.anchor_trouble == trouble
        await again.ledger.accept_store(actor="operator x", detail="restored", now=NOW)
        assert await again.ledger.advance_anchor() is None
    renewed = read_anchor(anchor, AUDIT_KEY)
    assert renewed is not None
    assert renewed.mark.batch == len(batches(shop.path)) > known.mark.batch


async def test_an_anchor_of_somebody_else_is_not_believed_and_not_overwritten(tmp_path: Path) -> None:
    """Any change of the file, and one that was written with another key."""
    anchor = tmp_path / "anchor"
    shop = await open_shop(tmp_path, anchor=anchor)
    async with shop.ledger:
        await shop.ledger.advance_anchor()
    good = anchor.read_bytes()
    with pytest.raises(AnchorDamagedError):
        read_anchor(anchor, AuditKey(AUDIT_KEY.id, bytes(32)))
    for bad in (good[:-20], good.replace(b".1.", b".2.", 1) + b"x", b"", good.replace(b"written 2", b"written 3")):
        anchor.write_bytes(bad)
        with pytest.raises(AnchorDamagedError):
            read_anchor(anchor, AUDIT_KEY)
    again = await shop.reopen(anchor=anchor)
    async with again.ledger:
        await again.send()
        assert "no anchor that was written" in str(await again.ledger.advance_anchor())
    assert anchor.read_bytes() == bad


# --- relays from before ------------------------------------------------------------------------------------------


async def test_what_was_written_before_there_was_an_audit_is_sealed_by_the_first_batch(tmp_path: Path) -> None:
    """A store of the first form, brought forward: its old events are then as safe as the new ones."""
    from relay.vault import MasterKey, Vault

    path = tmp_path / "relay.db"
    with closing(sqlite3.connect(path)) as connection:
        text = (Path(__file__).parent / "data" / "form-1.sql").read_text("utf-8")
        connection.executescript("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;" + text)
    upgrade_store(path, lambda _step: None)
    vault = Vault(MasterKey("m1", bytes(32)), bytes(32))
    async with await open_ledger(path, vault, AUDIT_KEY) as ledger:
        old = await ledger.list_events()
        assert old
        assert faults(path) == [FaultKind.EVENT_ADDED]
        await ledger.record_event(EventKind.COMMAND, actor="operator x", detail="", now=NOW)
    assert batches(path) == [(1, 1, old[0].id, old[-1].id + 1)]
    assert faults(path) == []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER event_is_append_only_update")
        connection.execute("UPDATE event SET actor = 'x' WHERE id = ?", (old[0].id,))
        connection.commit()
    assert faults(path) == [FaultKind.EVENT_CHANGED]


async def test_a_lost_key_is_never_replaced_in_silence(tmp_path: Path) -> None:
    """A relay without history gets one; where history was sealed the operator is asked for his backup."""
    from ledgers import new_vault

    keys, store = tmp_path / "keys", tmp_path / "relay.db"
    create_keyring(keys)
    (keys / "audit.key").unlink()
    create_store(store)
    assert ensure_audit_key(keys, store)
    assert not ensure_audit_key(keys, store)
    key = load_keyring(keys).audit_key
    async with await open_ledger(store, new_vault(), key) as ledger:
        await ledger.record_event(EventKind.COMMAND, actor="operator x", detail="", now=NOW)
    assert faults(store, key) == []
    assert faults(store, AuditKey("other", key.key)) == [FaultKind.OTHER_KEY]
    (keys / "audit.key").unlink()
    with pytest.raises(ConfigError, match="put it back from your backup"):
        ensure_audit_key(keys, store)
    assert not (keys / "audit.key").exists()


async def test_an_actor_may_be_named_in_any_script(tmp_path: Path) -> None:
    """Japanese, and what SQLite might cut at."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        for actor in ("operator 山田", "operator a\0b", "operator 🙂", ""):
            await shop.ledger.record_event(EventKind.COMMAND, actor=actor, detail=actor, now=NOW)
    assert faults(shop.path) == []
