"""Fold ahead: while a large file comes, most of the log is copied into the store's file beside those who commit.

A checkpoint copies the log's pages into the store's file and syncs that, and all who commit wait for it.  SQLite also does it
beside them (PASSIVE), up to where the log ended when it began.  Once that is synced, the checkpoint that has the
`StoreLock`, behind which the log is begun anew, finds little left to do.

Two things must not happen meanwhile.  The *folding lock* keeps from them all who checkpoint, or write the log anew:

* **A second checkpoint.**  Before SQLite 3.51.3 commits are lost where a checkpoint begins with a log of which nothing is left
  to copy, and somebody begins that anew under it: the checkpoint marks as copied what is not (sqlite.org/wal.html,
  section 11).  So there is one at a time, and this one begins with something to copy: until it has done that itself,
  nobody may begin the log anew.  What takes no such lock must not run beside it (`relay.succession` sees to that).
* **Pages of before.**  Who writes the store's pages again, because a sync had failed, must not write what is older than what is
  copied beside him (see `relay.ledger.doubt`).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from relay.ledger import storefile
from relay.ledger.chain import count_unfolded, open_for_good
from relay.ledger.headstart import HeadStart


class FoldAhead:
    """The copying of one process; used by its event loop."""

    def __init__(
        self,
        store: Path,
        lock: storefile.StoreLock,
        head_start: HeadStart,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """Copy into *store*; *on_end* is called in the event loop when that is done, with what went wrong."""
        self._store = store
        self._lock = lock
        self._head_start = head_start
        self._on_end = on_end
        # To look whether somebody copies; who does has one of his own.
        self._folding: storefile.FoldingLock | None = None
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fold-ahead")
        self._copying: asyncio.Future[None] | None = None

    def goes_on(self, *, is_worth: bool) -> bool:
        """True while somebody copies; begins where it *is_worth* that.  False where the log should be folded now."""
        if self._copying is not None:
            return True
        try:
            if self._folding is None:
                self._folding = storefile.FoldingLock(self._store)
            if not self._folding.try_acquire():
                return True
            self._folding.release()
            if is_worth and not self._lock.is_doubted:
                copying = asyncio.get_running_loop().run_in_executor(self._thread, self._copy)
                copying.add_done_callback(self._ended)
                self._copying = copying
        except (OSError, RuntimeError, MemoryError):
            # No descriptor or no thread is to be had: then the log is folded as it is otherwise.
            return False
        return self._copying is not None

    def _copy(self) -> None:
        # All of it under a lock taken here: one for which no thread was to be had at first may still get one, later.
        with closing(storefile.FoldingLock(self._store)) as folding:
            if not folding.try_acquire():
                return
            try:
                self._copy_alone()
            except BaseException as error:
                if storefile.is_disk_failure(error):
                    self._lock.doubt()
                self._let_go()
                raise

    def _copy_alone(self) -> None:
        if self._connection is None:
            self._connection = storefile.open_writer(self._store)
            # A connection that has read nothing yet has no log to copy, and hears of no failure before it.
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        file = open_for_good(self._store)
        if not self._lock.is_doubted and count_unfolded(storefile.index_of(self._store)) > 0:
            with self._head_start.given():
                storefile.checkpoint(self._connection, "PASSIVE")
                try:
                    os.fdatasync(file)
                except OSError:
                    self._lock.doubt()
                    raise

    def _ended(self, copying: asyncio.Future[None]) -> None:
        self._copying = None
        self._on_end(copying.exception())

    def _let_go(self) -> None:
        """Close the connection, which is never the last one to the store: a reader stays open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._copying is not None:
            await asyncio.wait([self._copying])
        self._thread.shutdown()
        self._let_go()
        if self._folding is not None:
            self._folding.close()
