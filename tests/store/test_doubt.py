"""In doubt: what the disk may have forgotten is written anew before anything is promised, and nothing is taken on a gap."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import Shop, open_shop, plan_name

from relay.errors import ConfigError, Deferred
from relay.ledger import storefile
from relay.ledger.chain import is_whole
from relay.ledger.sqlite import upgrade_store


async def test_the_doubt_of_one_is_the_doubt_of_all(shop: Shop) -> None:
    """Another process had a sync that failed: the next commit, whosoever it is, first writes the log anew."""
    await shop.send()
    other = storefile.StoreLock(shop.path, 1.0)
    other.doubt()
    assert shop.ledger._store._lock.is_doubted
    sent = await shop.send(name=plan_name(1))
    assert not other.is_doubted
    other.close()
    assert await shop.content(sent.id) == b"content"


async def test_a_store_in_doubt_takes_nothing_and_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk cannot keep what is written anew, each is told to try again, and who closes the store keeps its log."""
    desk = await open_shop(tmp_path)
    sent = await desk.send()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fail)
        desk.ledger._store._lock.doubt()
        with pytest.raises(Deferred):
            await desk.send(name=plan_name(1))
        await desk.ledger.close()
    assert storefile.wal_bytes(desk.path) > 0
    assert storefile.is_doubted(desk.path)
    again = await desk.reopen()
    async with again.ledger:
        await again.send(name=plan_name(1))
        assert not storefile.is_doubted(desk.path)
        assert await again.content(sent.id) == b"content"


async def test_a_look_into_a_store_in_doubt_leaves_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that only reads, alone with what a relay left behind on a disk that still fails, folds nothing of it.

    Once the disk is well again nothing of that stands in the way of an upgrade.
    """
    desk = await open_shop(tmp_path)
    await desk.send()
    left = tmp_path / "left"
    left.mkdir()
    path = left / desk.path.name
    for whole, copy in ((desk.path, path), (storefile.log_of(desk.path), storefile.log_of(path))):
        shutil.copy(whole, copy)
    await desk.ledger.close()
    lock = storefile.StoreLock(path, 1.0)
    lock.doubt()
    lock.close()
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", _fail)
        with storefile.peeked(path) as reader:
            assert reader.execute("SELECT count(*) FROM transfer").fetchone() == (1,)
    assert storefile.wal_bytes(path) > 0
    assert storefile.is_doubted(path)
    upgrade_store(path, lambda _: None)
    assert not storefile.is_doubted(path)


async def test_who_closes_a_store_in_doubt_settles_that_before_the_log_goes(tmp_path: Path) -> None:
    """What is folded into the store and removed was on the disk before, whoever was in doubt."""
    desk = await open_shop(tmp_path)
    sent = await desk.send()
    other = storefile.StoreLock(desk.path, 1.0)
    other.doubt()
    await desk.ledger.close()
    assert not other.is_doubted
    other.close()
    assert storefile.wal_bytes(desk.path) == 0
    again = await desk.reopen()
    async with again.ledger:
        assert await again.content(sent.id) == b"content"


@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
async def test_a_log_of_which_memory_has_lost_some_is_not_taken_for_whole(tmp_path: Path, part: float) -> None:
    """In doubt every byte that counts is looked at: nothing is promised on top of a gap, and without the gap all goes on."""
    heard: list[str | None] = []
    desk = await open_shop(tmp_path, on_trouble=heard.append)
    async with desk.ledger:
        await asyncio.gather(*(desk.send(bytes(3_000), plan_name(number)) for number in range(20)))
        log = storefile.log_of(desk.path)
        at = int(storefile.wal_bytes(desk.path) * part)
        with log.open("r+b", buffering=0) as file:
            kept = os.pread(file.fileno(), 8, at)
            os.pwrite(file.fileno(), bytes(each ^ 1 for each in kept), at)
            desk.ledger._store._lock.doubt()
            with pytest.raises(Deferred):
                await desk.send(name=plan_name(50))
            os.pwrite(file.fileno(), kept, at)
        await desk.send(name=plan_name(50))
    assert "Stop the relay and start it again" in (heard[0] or "")
    assert heard[1:] == [None]


def test_a_log_with_other_frames_that_hold_together_is_not_taken_for_whole(tmp_path: Path) -> None:
    """A commit that was given up stood where the last one is, and the disk gives it back: same salts, sums that fit."""
    given_up, kept = tmp_path / "given-up.db", tmp_path / "kept.db"
    log = storefile.log_of(kept)
    with closing(_open_with_log(given_up)) as one:
        one.execute("CREATE TABLE word (word)")
        shutil.copy(given_up, kept)
        shutil.copy(storefile.log_of(given_up), log)
        with closing(_open_with_log(kept)) as other, log.open("r+b", buffering=0) as file:
            one.execute("INSERT INTO word VALUES ('given up')")
            other.execute("INSERT INTO word VALUES ('kept')")
            index = tmp_path / "kept.db-shm"
            assert is_whole(file.fileno(), index)
            os.pwrite(file.fileno(), storefile.log_of(given_up).read_bytes(), 0)
            assert not is_whole(file.fileno(), index)


def _open_with_log(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


async def test_a_disk_that_also_fails_to_write_anew_is_told_of_as_one_that_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator reads at once that it will do so again, not only that it failed."""
    heard: list[str | None] = []
    desk = await open_shop(tmp_path, on_trouble=heard.append)
    async with desk.ledger:
        desk.ledger._store._lock.doubt()
        with monkeypatch.context() as failing:
            failing.setattr(os, "fdatasync", _fail)
            with pytest.raises(Deferred):
                await desk.send()
        assert "replace it" in (heard[0] or "")
        await desk.send()
    assert heard[1:] == [None]


async def test_an_upgrade_that_is_refused_leaves_a_store_in_doubt(tmp_path: Path) -> None:
    """Who has the store open looks at the log before anything is promised on top of it."""
    desk = await open_shop(tmp_path)
    async with desk.ledger:
        desk.ledger._store._lock.doubt()
        with pytest.raises(ConfigError, match="Stop the relay"):
            upgrade_store(desk.path, lambda _: None)
        assert storefile.is_doubted(desk.path)


async def test_who_reads_a_gap_says_what_ends_it_and_not_that_a_backup_is_needed(tmp_path: Path) -> None:
    """What SQLite calls damaged heals by a start, as long as the disk may have forgotten something."""
    heard: list[str | None] = []
    desk = await open_shop(tmp_path, on_trouble=heard.append)
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    async with desk.ledger:
        store = desk.ledger._store
        store._lock.doubt()
        failure = store._fail(error)
        assert isinstance(failure, Deferred)
        assert failure.code == "server.busy"
        assert "Stop the relay and start it again" in (heard[0] or "")
        await desk.send()


def _fail(_file: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
