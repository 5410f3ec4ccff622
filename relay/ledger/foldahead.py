"""Fold ahead: while much comes, most of the log is copied into the store's file beside those who commit.

A checkpoint copies the log's pages into the store's file and syncs that, and all who commit wait for it.  SQLite also does it
beside them (PASSIVE), up to where the log ended when it began.  Once that is synced, the checkpoint that has the
`StoreLock`, behind which the log is begun anew, finds little left to do.

Two things must not happen meanwhile.  The *folding lock* keeps from them all who checkpoint, or write the log anew:

* **A second checkpoint.**  Before SQLite 3.51.3 commits are lost where a checkpoint begins with a log of which nothing is left
  to copy, and somebody begins that anew under it: the checkpoint marks as copied what is not (sqlite.org/wal.html,
  section 11).  So there is one at a time, and this one begins with something to copy: until it has done that itself,
  nobody may begin the log anew.
* **Pages of before.**  Who writes the store's pages again, because a sync had failed, must not write what is older than what is
  copied beside him (see `relay.ledger.doubt`).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
        self._folding = storefile.FoldingLock(store)
        self._head_start = head_start
        self._on_end = on_end
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fold-ahead")
        self._copying: asyncio.Future[None] | None = None

    def goes_on(self, *, is_worth: bool) -> bool:
        """True while somebody copies; begins where it *is_worth* that.  False where the log should be folded now."""
        if self._copying is not None or not self._folding.try_acquire():
            return True
        begins = is_worth and not self._lock.is_doubted and self._begin()
        if not begins:
            self._folding.release()
        return begins

    def _begin(self) -> bool:
        try:
            if not count_unfolded(storefile.index_of(self._store)):
                return False
            file = open_for_good(self._store)
            self._copying = asyncio.get_running_loop().run_in_executor(self._thread, self._copy, file)
        except (OSError, RuntimeError, MemoryError):
            # No descriptor or no thread is to be had: then the log is folded as it is otherwise.
            return False
        self._copying.add_done_callback(self._ended)
        return True

    def _copy(self, file: int) -> None:
        try:
            if self._connection is None:
                self._connection = storefile.open_writer(self._store)
                # A connection that has read nothing yet has no log to copy.
                self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            with self._head_start.given():
                storefile.checkpoint(self._connection, "PASSIVE")
                os.fdatasync(file)
        except BaseException as error:
            if isinstance(error, OSError) or storefile.is_disk_failure(error):
                self._lock.doubt()
            self._let_go()
            raise
        finally:
            self._folding.release()

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
        self._folding.close()
