"""The log is copied into the store beside those who commit, by one at a time, and what fails at it costs nobody anything."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest
from ledgers import Shop, open_shop, plan_name

from relay.errors import Deferred
from relay.ledger import foldahead, storefile
from relay.ledger.chain import count_unfolded
from relay.ledger.storefile import FoldingLock, StoreLock

PATIENCE_SECONDS = 60
_FOLDED_BYTES = 400_000
_CONTENT = bytes(30_000)


class Copying:
    """What is copied ahead: begins when it may, and cannot be synced if it shall fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = threading.Event()
        self.may_begin = threading.Event()
        self.shall_fail = False
        self._checkpoint = storefile.checkpoint
        monkeypatch.setattr(storefile, "checkpoint", self.checkpoint)
        monkeypatch.setattr(foldahead, "os", self)

    def checkpoint(self, connection: sqlite3.Connection, mode: str) -> bool:
        """Checkpoint, beside others when it may."""
        if mode == "PASSIVE":
            self.is_reached.set()
            assert self.may_begin.wait(PATIENCE_SECONDS)
        return self._checkpoint(connection, mode)

    def fdatasync(self, file: int) -> None:
        """Sync, or fail."""
        if self.shall_fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(file)

    async def reached(self) -> None:
        """Wait until it would begin."""
        assert await asyncio.to_thread(self.is_reached.wait, PATIENCE_SECONDS)


class Many:
    """Sends many at once, as it is when the log is copied ahead."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._count = 0

    async def send(self, count: int = 30) -> None:
        """Send so many, all of which are accepted."""
        numbers = range(self._count, self._count + count)
        self._count += count
        await asyncio.gather(*(self._shop.send(_CONTENT, plan_name(number)) for number in numbers))

    async def check(self) -> None:
        """AssertionError unless the log gets folded, and everything that was sent is there, and whole."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while storefile.is_wal_longer(self._shop.path, _FOLDED_BYTES):
                await self.send(1)
        transfers = await self._shop.ledger.list_transfers(limit=10_000)
        assert len(transfers) == self._count
        assert {await self._shop.content(each.id) for each in transfers} == {_CONTENT}
        with closing(sqlite3.connect(self._shop.path)) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_commits_go_on_while_the_log_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes; nobody folds meanwhile, also not where there is little to do."""
    copying = Copying(monkeypatch)
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES)
    async with shop.ledger:
        many = Many(shop)
        await many.send()
        await copying.reached()
        length = storefile.wal_bytes(shop.path)
        for count in (30, 1, 1):
            await many.send(count)
        assert storefile.wal_bytes(shop.path) > length + 30 * len(_CONTENT)
        copying.may_begin.set()
        await many.check()


async def test_one_worker_copies_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others leave the log to it, and commit; so does this one while it is at it."""
    copying = Copying(monkeypatch)
    copying.may_begin.set()
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES)
    other = FoldingLock(shop.path)
    async with shop.ledger:
        many = Many(shop)
        assert other.try_acquire()
        for count in (30, 30, 1):
            await many.send(count)
        assert storefile.is_wal_longer(shop.path, 60 * len(_CONTENT))
        assert not copying.is_reached.is_set()
        other.release()
        await many.send()
        await many.check()
        assert copying.is_reached.is_set()
    other.close()


async def test_a_log_of_which_nothing_is_left_to_copy_is_not_copied(tmp_path: Path) -> None:
    """So SQLite would lose commits, if somebody began it anew under the copying."""
    shop = await open_shop(tmp_path, checkpoint_bytes=1 << 30)
    async with shop.ledger:
        await Many(shop).send()
        ahead = shop.ledger._store._writer._fold_ahead
        assert count_unfolded(storefile.index_of(shop.path)) > 0
        with closing(sqlite3.connect(shop.path)) as store:
            store.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        assert count_unfolded(storefile.index_of(shop.path)) == 0
        assert not ahead.goes_on(is_worth=True)
        other = FoldingLock(shop.path)
        assert other.try_acquire()
        other.close()


async def test_a_copy_that_could_not_be_synced_is_known_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it; what is committed from then on is kept, and the operator hears of it."""
    heard: list[str | None] = []
    copying = Copying(monkeypatch)
    copying.shall_fail = True
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES, on_trouble=heard.append)
    async with shop.ledger:
        many = Many(shop)
        await many.send()
        await copying.reached()
        assert not storefile.is_doubted(shop.path)
        copying.may_begin.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not heard:  # noqa: ASYNC110 - the writer tells nobody
                await asyncio.sleep(0)
        assert "replace it" in (heard[0] or "")
        copying.shall_fail = False
        await many.send()
        assert not storefile.is_doubted(shop.path)
        await many.check()
    assert heard[1:] == [None]


class _NoThread(ThreadPoolExecutor):
    def submit(self, *_: object, **__: object) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("lack", ["thread", "connection", "index"])
async def test_the_log_is_folded_where_it_cannot_be_copied_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """No thread is to be had, no connection or no descriptor: all the same nothing grows without end."""
    shop = await open_shop(tmp_path, checkpoint_bytes=_FOLDED_BYTES)
    async with shop.ledger:
        many = Many(shop)
        if lack == "thread":
            monkeypatch.setattr(shop.ledger._store._writer._fold_ahead, "_thread", _NoThread())
        if lack == "connection":
            monkeypatch.setattr(storefile, "open_writer", lambda _: sqlite3.connect("/nowhere/at/all"))
        if lack == "index":
            monkeypatch.setattr(foldahead, "count_unfolded", lambda _: os.close(-1))
        for _ in range(4):
            await many.send()
        await many.check()


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
