"""Whoever can write to the store but has not keys/audit.key: whatever he does to history is found, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import AUDIT_KEY, NOW, SECOND, A, B, Shop, identity, open_shop, plan_name

from relay.audit import Fault, FaultKind, Mark, judge_history, sign_head
from relay.ledger.anchor import newest_mark
from relay.ledger.auditing import History
from relay.ledger.trail import batch_of
from relay.model import EventKind

EVENT_COLUMNS = ("id", "at", "kind", "actor", "office", "transfer", "detail")
BATCH_COLUMNS = (
    *("id", "writer", "number", "first_event", "last_event", "at", "key_id"),
    *("previous", "own_previous", "head", "mac"),
)
COLUMNS = {"event": EVENT_COLUMNS, "audit_batch": BATCH_COLUMNS}


class Archive:
    """A store with a history by several writers, whole copies of it from earlier, and what the anchor says."""

    def __init__(self, shop: Shop, older: tuple[bytes, ...], mark: Mark) -> None:
        # No dataclass: hypothesis would print all of the store.
        self.store, self.vault, self.older, self.mark = _bytes_of(shop.path), shop.vault, older, mark

    def open(self, store: bytes | None = None) -> sqlite3.Connection:
        """Open a copy whose guards are gone, as somebody opens it who wants to change history."""
        connection = in_memory(self.store if store is None else store)
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        return connection

    def judge(self, connection: sqlite3.Connection) -> list[Fault]:
        """Judge what lies there, as `relay audit verify` does."""
        history = History(connection)
        marks = [("the anchor", self.mark)]
        return list(judge_history(history.batches(), history.events(), AUDIT_KEY, marks))


def in_memory(store: bytes) -> sqlite3.Connection:
    """Open a copy in memory, where there can be no log beside it: bytes 18 and 19 of the header say so."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(store[:18] + b"\x01\x01" + store[20:])
    return connection


async def live(folder: Path) -> Archive:
    """Let five openings of one store write history side by side and one after the other, alone and in batches."""
    shop = await open_shop(folder)
    older: list[bytes] = []
    async with shop.ledger:
        for turn in range(5):
            other = await shop.reopen()
            async with other.ledger:
                await busy(shop, other, turn)
            if turn < 4:
                older.append(_bytes_of(shop.path))
    with closing(sqlite3.connect(shop.path)) as connection:
        mark = newest_mark(lambda sql, cells: connection.execute(sql, cells).fetchall(), AUDIT_KEY)
    assert mark is not None
    return Archive(shop, tuple(older), mark)


async def busy(shop: Shop, other: Shop, turn: int) -> None:
    """Let both write history, alone and together."""
    sent = await asyncio.gather(*(shop.send(b"m", plan_name(10 * turn + number)) for number in range(4)))
    await other.collect(sent[0])
    await other.ledger.recall_transfer(sent[1].id, identity=identity(A), now=NOW)
    shop.ledger.note_event(EventKind.LOGIN, actor=B, office=B, now=NOW, detail="7 from 192.0.2.7")
    await shop.ledger.record_served(sent[2].id, [(0, 1)], identity=identity(B), now=NOW + SECOND)
    await other.ledger.record_event(EventKind.NAMES_REVEALED, actor="operator 山田", detail=str(turn), now=NOW)


def _bytes_of(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        return b"" + connection.serialize()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Return a history of some sixty events, made once."""
    from house import run_aside

    return run_aside(live(tmp_path_factory.mktemp("archive")))


def ids_of(connection: sqlite3.Connection, table: str) -> list[int]:
    """Return the rows of *table* by their ids."""
    return [number for (number,) in connection.execute(f"SELECT id FROM {table} ORDER BY id")]


def test_history_that_nobody_touched_holds(archive: Archive) -> None:
    """Several writers, batches of one and of many, and every older copy by itself: no fault."""
    with closing(archive.open()) as connection:
        assert archive.judge(connection) == []
        assert len(ids_of(connection, "event")) > 50
        assert connection.execute("SELECT count(DISTINCT writer), max(number) > 1 FROM audit_batch").fetchone() == (
            6,
            1,
        )
        assert connection.execute("SELECT max(last_event - first_event) > 1 FROM audit_batch").fetchone() == (1,)
    for copy in archive.older:
        with closing(archive.open(copy)) as connection:
            history = History(connection)
            assert list(judge_history(history.batches(), history.events(), AUDIT_KEY)) == []


# --- one change ----------------------------------------------------------------------------------------------------


def other_value(value: object, draw: st.DataObject) -> object:
    """Return another value of the same type: a flipped bit where it is bytes, another text or number."""
    if isinstance(value, bytes):
        bit = draw.draw(st.integers(0, 8 * len(value) - 1))
        return bytes(byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(value))
    if isinstance(value, int):
        return draw.draw(st.integers(-(2**63), 2**63 - 1).filter(lambda other: other != value))
    return draw.draw(st.text(max_size=20).filter(lambda other: other != value))


@given(data=st.data())
def test_any_cell_that_is_changed_is_found_and_its_batch_named(archive: Archive, data: st.DataObject) -> None:
    """One bit of a seal, one letter of a name, one microsecond: the fault is told, at the batch that holds it."""
    with closing(archive.open()) as connection:
        table = data.draw(st.sampled_from(["event", "audit_batch"]))
        number = data.draw(st.sampled_from(ids_of(connection, table)))
        column = data.draw(st.sampled_from([name for name in COLUMNS[table] if name != "id"]))
        (value,) = connection.execute(f"SELECT {column} FROM {table} WHERE id = ?", (number,)).fetchone()
        if value is not None or column in ("office", "transfer"):
            new = other_value(0 if value is None and column == "transfer" else "" if value is None else value, data)
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (new, number))
        faults = archive.judge(connection)
        assert faults
        batch = number if table == "audit_batch" else _holder(archive, number)
        assert batch in {fault.batch for fault in faults}


def _holder(archive: Archive, event: int) -> int:
    with closing(archive.open()) as connection:
        found = History(connection).find_batch_of(event)
    assert found is not None
    return found.id


@given(data=st.data())
def test_rows_that_are_missing_are_found(archive: Archive, data: st.DataObject) -> None:
    """Some events, some batches, or both, from anywhere."""
    with closing(archive.open()) as connection:
        for table in data.draw(st.sampled_from([("event",), ("audit_batch",), ("event", "audit_batch")])):
            gone = data.draw(st.sets(st.sampled_from(ids_of(connection, table)), min_size=1))
            connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in gone])
        assert archive.judge(connection)


@given(data=st.data())
def test_two_rows_that_changed_places_are_found(archive: Archive, data: st.DataObject) -> None:
    """Events within a batch, between batches, between writers; and whole batches."""
    with closing(archive.open()) as connection:
        table = data.draw(st.sampled_from(["event", "audit_batch"]))
        one, two = data.draw(st.lists(st.sampled_from(ids_of(connection, table)), min_size=2, max_size=2, unique=True))
        names = ", ".join(COLUMNS[table][1:])
        rows = [connection.execute(f"SELECT {names} FROM {table} WHERE id = ?", (n,)).fetchone() for n in (one, two)]
        marks = ", ".join("?" * len(rows[0]))
        connection.execute(f"UPDATE {table} SET ({names}) = ({marks}) WHERE id = ?", (*rows[1], one))
        connection.execute(f"UPDATE {table} SET ({names}) = ({marks}) WHERE id = ?", (*rows[0], two))
        if rows[0] == rows[1]:
            assert archive.judge(connection) == []
        else:
            assert archive.judge(connection)


@given(data=st.data())
def test_an_event_that_was_put_in_is_found(archive: Archive, data: st.DataObject) -> None:
    """At the end, or in the middle with all behind it moved on."""
    with closing(archive.open()) as connection:
        numbers = ids_of(connection, "event")
        place = data.draw(st.integers(1, numbers[-1] + 1))
        for number in reversed([number for number in numbers if number >= place]):
            connection.execute("UPDATE event SET id = ? WHERE id = ?", (number + 1, number))
        if data.draw(st.booleans()):
            connection.execute("UPDATE audit_batch SET first_event = first_event + 1 WHERE first_event > ?", (place,))
            connection.execute("UPDATE audit_batch SET last_event = last_event + 1 WHERE last_event >= ?", (place,))
        connection.execute("INSERT INTO event VALUES (?, 0, 'collected', ?, ?, 1, '')", (place, B, A))
        assert archive.judge(connection)


# --- more than rows ------------------------------------------------------------------------------------------------


@given(data=st.data(), closes_gaps=st.booleans())
def test_a_writer_that_was_removed_is_found(archive: Archive, data: st.DataObject, closes_gaps: bool) -> None:  # noqa: FBT001
    """All batches and events of any writer, the newest included; also where the rest is numbered anew."""
    with closing(archive.open()) as connection:
        writers = [w for (w,) in connection.execute("SELECT DISTINCT writer FROM audit_batch ORDER BY 1")]
        writer = data.draw(st.sampled_from(writers))
        spans = connection.execute("SELECT first_event, last_event FROM audit_batch WHERE writer = ?", (writer,))
        connection.executemany("DELETE FROM event WHERE id BETWEEN ? AND ?", spans.fetchall())
        connection.execute("DELETE FROM audit_batch WHERE writer = ?", (writer,))
        if closes_gaps:
            renumber(connection)
        assert archive.judge(connection)


def renumber(connection: sqlite3.Connection) -> None:
    """Give events and batches ids without a gap, and let batches, and their writers, name the new ones."""
    events = {old: new for new, old in enumerate(ids_of(connection, "event"), 1)}
    batches = {old: new for new, old in enumerate(ids_of(connection, "audit_batch"), 1)}
    for table, numbers in (("event", events), ("audit_batch", batches)):
        for old, new in numbers.items():
            connection.execute(f"UPDATE {table} SET id = ? WHERE id = ?", (new, old))
    for number, writer, first, last in connection.execute(
        "SELECT id, writer, first_event, last_event FROM audit_batch"
    ).fetchall():
        cells = (batches.get(writer, number), events.get(first, first), events.get(last, last), number)
        connection.execute("UPDATE audit_batch SET writer = ?, first_event = ?, last_event = ? WHERE id = ?", cells)


@given(data=st.data())
def test_an_end_that_was_cut_off_is_found(archive: Archive, data: st.DataObject) -> None:
    """Batches and their events from any place to the end: what is left holds by itself, and the anchor tells."""
    with closing(archive.open()) as connection:
        keep = data.draw(st.integers(0, archive.mark.batch - 1))
        connection.execute("DELETE FROM audit_batch WHERE id > ?", (keep,))
        last = connection.execute("SELECT coalesce(max(last_event), 0) FROM audit_batch").fetchone()
        connection.execute("DELETE FROM event WHERE id > ?", last)
        faults = archive.judge(connection)
    assert [fault.kind for fault in faults] == [FaultKind.CUT_OFF]
    assert (faults[0].first, faults[0].last) == (keep + 1, archive.mark.batch)


@pytest.mark.parametrize("place", range(4))
async def test_an_older_copy_that_was_put_back_is_found(archive: Archive, place: int, tmp_path: Path) -> None:
    """As it was, and also after the relay itself went on writing in it."""
    with closing(archive.open(archive.older[place])) as connection:
        assert [fault.kind for fault in archive.judge(connection)] == [FaultKind.CUT_OFF]
    path = tmp_path / "relay.db"
    path.write_bytes(archive.older[place])
    shop = await Shop(path, archive.vault, None).reopen()  # type: ignore[arg-type]
    async with shop.ledger:
        for number in range(60):
            await shop.ledger.record_event(EventKind.COMMAND, actor="operator x", detail=str(number), now=NOW)
    with closing(sqlite3.connect(path)) as connection:
        assert [fault.kind for fault in archive.judge(connection)] == [FaultKind.REPLACED]


async def go_on(archive: Archive, path: Path, word: str) -> bytes:
    """Let the relay itself go on from the oldest copy, and return the store that this makes."""
    path.write_bytes(archive.older[0])
    shop = await Shop(path, archive.vault, None).reopen()  # type: ignore[arg-type]
    async with shop.ledger:
        for number in range(3):
            await shop.ledger.record_event(EventKind.COMMAND, actor=word, detail=str(number), now=NOW)
    return _bytes_of(path)


@pytest.mark.parametrize("place", range(2))
async def test_a_batch_from_another_continuation_is_found(archive: Archive, place: int, tmp_path: Path) -> None:
    """Sealed with the right key, with the right numbers: but not what the next batch was written behind."""
    forks = [await go_on(archive, tmp_path / f"{word}.db", word) for word in ("one", "two")]
    with closing(archive.open(forks[0])) as one, closing(archive.open(forks[1])) as two:
        number = ids_of(one, "audit_batch")[-3 + place]
        for table, first, last in (
            ("audit_batch", number, number),
            (
                "event",
                *one.execute("SELECT first_event, last_event FROM audit_batch WHERE id = ?", (number,)).fetchone(),
            ),
        ):
            names = COLUMNS[table]
            rows = two.execute(
                f"SELECT {', '.join(names)} FROM {table} WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchall()
            one.execute(f"DELETE FROM {table} WHERE id BETWEEN ? AND ?", (first, last))
            one.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", rows)
        history = History(one)
        faults = list(judge_history(history.batches(), history.events(), AUDIT_KEY))
    assert (FaultKind.BATCH_MOVED, number + 1) in {(fault.kind, fault.batch) for fault in faults}


@given(data=st.data(), replays=st.booleans())
def test_history_written_anew_without_the_key_is_found(archive: Archive, data: st.DataObject, replays: bool) -> None:  # noqa: FBT001
    """From any batch on, with every head computed as the relay does; under another key, or with seals of before."""
    key = AUDIT_KEY if replays else replace(AUDIT_KEY, key=os.urandom(32))
    with closing(archive.open()) as connection:
        start = data.draw(st.sampled_from(ids_of(connection, "audit_batch")))
        connection.execute(
            "UPDATE event SET detail = detail || '.' WHERE id = (SELECT first_event FROM audit_batch WHERE id = ?)",
            (start,),
        )
        rewrite(connection, start, None if replays else lambda head: sign_head(head, key))
        faults = archive.judge(connection)
    assert start in {fault.batch for fault in faults}


def rewrite(connection: sqlite3.Connection, start: int, seal: Callable[[bytes], bytes] | None) -> None:
    """Compute every head from *start* on anew; seals are made by *seal*, or left."""
    import hashlib

    from relay.ledger.statements import SQL
    from relay.ledger.trail import event_row_of

    own: dict[int, bytes] = {}
    previous = bytes(32)
    for row in connection.execute(SQL["list_batches"], (0, 1 << 62, -1)).fetchall():
        batch = batch_of(row)
        if batch.id >= start:
            rows = connection.execute(SQL["list_event_rows"], (batch.first_event - 1, batch.last_event, -1)).fetchall()
            digest = hashlib.sha256(b"".join(event_row_of(each).encode() for each in rows)).digest()
            batch = replace(batch, previous=previous, own_previous=own.get(batch.writer, bytes(32)))
            head = batch.compute_head(digest)
            mac = batch.mac if seal is None else seal(head)
            connection.execute(
                "UPDATE audit_batch SET previous = ?, own_previous = ?, head = ?, mac = ? WHERE id = ?",
                (batch.previous, batch.own_previous, head, mac, batch.id),
            )
            batch = replace(batch, head=head)
        own[batch.writer] = previous = batch.head


def test_two_guarded_tables_let_nobody_replace_a_row(archive: Archive) -> None:
    """INSERT OR REPLACE asks no trigger for DELETE, and is refused all the same; so is every other change."""
    with closing(in_memory(archive.store)) as connection:
        for sql in (
            "INSERT OR REPLACE INTO event SELECT 1, at, kind, actor, office, transfer, 'x' FROM event WHERE id = 2",
            "INSERT OR REPLACE INTO audit_batch SELECT * FROM audit_batch WHERE id = 2",
            "UPDATE event SET detail = 'x'",
            "UPDATE audit_batch SET at = 0",
            "DELETE FROM event",
            "DELETE FROM audit_batch",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="history is append-only"):
                connection.execute(sql)
        assert archive.judge(connection) == []
