"""The log is copied into the store beside those who commit, by one at a time, and what fails at it costs nobody anything."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import NOW, Shop, open_shop, plan_name

from relay.errors import Deferred
from relay.ledger import commit, foldahead, storefile
from relay.ledger.chain import count_unfolded
from relay.ledger.storefile import FoldingLock, StoreLock
from relay.vault import CHUNK_BYTES

PATIENCE_SECONDS = 20
_FOLDED_BYTES = 600_000
_LARGE, _SMALL = bytes(4 * CHUNK_BYTES), bytes(1_000)


class Copying:
    """What is copied ahead: begins when it may, and cannot be synced if it shall fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = threading.Event()
        self.may_begin = threading.Event()
        # What of it shall fail: SQLite's own syncs, or the one behind it.
        self.failing = ""
        self._checkpoint = storefile.checkpoint
        monkeypatch.setattr(storefile, "checkpoint", self.checkpoint)
        monkeypatch.setattr(foldahead, "os", self)
        # However long it takes.
        monkeypatch.setattr(commit, "_PATIENT_TIMES", 1_000)

    def checkpoint(self, connection: sqlite3.Connection, mode: str) -> bool:
        """Checkpoint, beside others when it may."""
        if mode == "PASSIVE":
            self.is_reached.set()
            assert self.may_begin.wait(PATIENCE_SECONDS)
            if self.failing == "checkpoint":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
        return self._checkpoint(connection, mode)

    def fdatasync(self, file: int) -> None:
        """Sync, or fail."""
        if self.failing == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(file)

    async def reached(self) -> None:
        """Wait until it would begin."""
        assert await asyncio.to_thread(self.is_reached.wait, PATIENCE_SECONDS)


class Many:
    """Sends large files at once, as it is when the log is copied ahead, and small ones."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._sent: list[bytes] = []

    async def send(self, *contents: bytes) -> None:
        """Send them together; all are accepted."""
        first = len(self._sent)
        self._sent += contents
        await asyncio.gather(*(self._send(content, plan_name(first + at)) for at, content in enumerate(contents)))

    async def _send(self, content: bytes, name: str) -> None:
        parcel = self._shop.parcel(content, name)
        if content is _LARGE:
            await parcel.stage(self._shop.ledger)
        await self._shop.ledger.commit_transfer(parcel.draft(), now=NOW)

    async def check(self) -> None:
        """AssertionError unless the log gets folded, and everything that was sent is there, and whole."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while storefile.is_wal_longer(self._shop.path, _FOLDED_BYTES):
                await self.send(_SMALL)
        transfers = await self._shop.ledger.list_transfers(limit=10_000)
        assert sorted([await self._shop.content(each.id) for each in transfers]) == sorted(self._sent)
        with closing(sqlite3.connect(self._shop.path)) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_commits_go_on_while_the_log_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes; nobody folds meanwhile, also not where there is little to do."""
    copying = Copying(monkeypatch)
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES)
    async with shop.ledger:
        many = Many(shop)
        await many.send(_LARGE)
        await copying.reached()
        length = storefile.wal_bytes(shop.path)
        for contents in ([_LARGE], [_SMALL] * 5, [_SMALL]):
            await many.send(*contents)
        assert storefile.wal_bytes(shop.path) > length + len(_LARGE)
        copying.may_begin.set()
        await many.check()


async def test_one_worker_copies_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others leave the log to it, and commit; so does this one while it is at it."""
    copying = Copying(monkeypatch)
    copying.may_begin.set()
    shop = await open_shop(tmp_path, checkpoint_bytes=1 << 30)
    other = FoldingLock(shop.path)
    async with shop.ledger:
        many = Many(shop)
        assert other.try_acquire()
        shop.ledger._store._writer._checkpoint_bytes = _FOLDED_BYTES
        for contents in ([_LARGE, _LARGE], [_SMALL] * 5, [_SMALL]):
            await many.send(*contents)
        assert storefile.is_wal_longer(shop.path, len(_LARGE))
        # One for whom a thread was to be had late, and one who no longer waits for that.
        writer = shop.ledger._store._writer
        await asyncio.to_thread(writer._fold_ahead._copy)
        monkeypatch.setattr(writer._lock, "wait_seconds", 0.01)
        assert not await writer._checkpoint()
        assert not copying.is_reached.is_set()
        assert storefile.is_wal_longer(shop.path, len(_LARGE))
        other.release()
        await many.send(_LARGE)
        await many.check()
        assert copying.is_reached.is_set()
    other.close()


async def test_a_log_of_which_nothing_is_left_to_copy_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So SQLite would lose commits, if somebody began it anew under the copying."""
    copying = Copying(monkeypatch)
    shop = await open_shop(tmp_path, checkpoint_bytes=1 << 30)
    async with shop.ledger:
        await Many(shop).send(_LARGE)
        with closing(sqlite3.connect(shop.path)) as store:
            store.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        ahead, lock = shop.ledger._store._writer._fold_ahead, shop.ledger._store._lock
        copying.may_begin.set()
        assert count_unfolded(storefile.index_of(shop.path)) == 0
        await asyncio.to_thread(ahead._copy)
        assert not copying.is_reached.is_set()
        await shop.send(name=plan_name(99))
        assert count_unfolded(storefile.index_of(shop.path)) > 0
        # Nor one of which memory alone may have some.
        lock.doubt()
        await asyncio.to_thread(ahead._copy)
        assert not copying.is_reached.is_set()
        lock.doubt_no_more()
        await asyncio.to_thread(ahead._copy)
        assert copying.is_reached.is_set()


@pytest.mark.parametrize("failing", ["checkpoint", "sync"])
async def test_a_copy_that_could_not_be_synced_is_known_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Nobody waits for it; what is committed from then on is kept, and the operator hears of it."""
    heard: list[str | None] = []
    copying = Copying(monkeypatch)
    copying.failing = failing
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES, on_trouble=heard.append)
    async with shop.ledger:
        many = Many(shop)
        await many.send(_LARGE)
        await copying.reached()
        assert not storefile.is_doubted(shop.path)
        copying.may_begin.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not heard:  # noqa: ASYNC110 - the writer tells nobody
                await asyncio.sleep(0)
        assert "replace it" in (heard[0] or "")
        copying.failing = ""
        await many.send(_LARGE)
        assert not storefile.is_doubted(shop.path)
        await many.check()
    assert heard[1:] == [None]


@pytest.mark.parametrize("lack", ["thread", "connection", "index"])
async def test_the_log_is_folded_where_it_cannot_be_copied_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """No thread is to be had, no connection or no descriptor: all the same nothing grows without end."""
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES)
    async with shop.ledger:
        many = Many(shop)
        if lack == "thread":
            start = threading.Thread.start
            monkeypatch.setattr(threading.Thread, "start", lambda thread: _start(thread, start))
        if lack == "connection":
            monkeypatch.setattr(storefile, "open_writer", lambda _: sqlite3.connect("/nowhere/at/all"))
        if lack == "index":
            monkeypatch.setattr(foldahead, "count_unfolded", lambda _: os.close(-1))
        for _ in range(4):
            await many.send(_LARGE)
        await many.check()


def _start(thread: threading.Thread, start: Callable[[threading.Thread], None]) -> None:
    if thread.name.startswith("fold-ahead"):
        raise RuntimeError("can't start new thread")
    start(thread)


async def test_who_writes_the_log_anew_waits_for_who_copies_it(shop: Shop) -> None:
    """For as long as for the store's lock; then what it was for is answered, and nothing keeps the store."""
    await shop.send()
    other, copying = StoreLock(shop.path, 0.01), FoldingLock(shop.path)
    assert copying.try_acquire()
    other.doubt()
    with other.held(), pytest.raises(Deferred, match="busy"):
        storefile.settle(shop.path, other)
    shop.ledger._store._lock.wait_seconds = 0.01
    with pytest.raises(Deferred):
        await shop.send(name=plan_name(1))
    copying.close()
    await shop.send(name=plan_name(1))
    assert not other.is_doubted
    other.close()


async def test_a_doubt_that_comes_while_it_is_waited_is_looked_at(shop: Shop) -> None:
    """Who copied may have met what the disk has forgotten."""
    await shop.send()
    other, copying = StoreLock(shop.path, PATIENCE_SECONDS), FoldingLock(shop.path)
    is_waiting = threading.Event()
    other._folding.try_acquire = _told(other._folding.try_acquire, is_waiting)  # type: ignore[method-assign]
    assert copying.try_acquire()
    with other.held():
        settling = asyncio.create_task(asyncio.to_thread(storefile.settle, shop.path, other))
        assert await asyncio.to_thread(is_waiting.wait, PATIENCE_SECONDS)
        shop.ledger._store._lock.doubt()
        copying.close()
        await settling
    assert not other.is_doubted
    other.close()


def _told(call: Callable[[], bool], done: threading.Event) -> Callable[[], bool]:
    def told() -> bool:
        answer = call()
        done.set()
        return answer

    return told


async def test_a_log_that_has_become_very_long_is_not_left_to_who_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would grow without end beside one that hangs: it is folded under the store's lock, as without anybody."""
    copying = Copying(monkeypatch)
    monkeypatch.setattr(commit, "_PATIENT_TIMES", 1)
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES)
    async with shop.ledger:
        many = Many(shop)
        await many.send(_LARGE, _LARGE)
        await many.check()
    assert not copying.is_reached.is_set()
