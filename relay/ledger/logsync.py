"""Log sync: what was written into the store's log and promises nothing yet is brought onto the disk beside the writing.

The staged chunks of a large file are committed without a sync of their own.  If nobody synced them before the next
checkpoint or the commit of the whole, that would wait for the disk with nothing else to do, and the file's client
with it: for the half of the time that a large file took.

This promises nothing.  SQLite's own syncs decide what is on stable storage, on its own descriptors, and find less left
to do.  What fails here may be told to nobody else, who opens the log later: so it is passed on (see `relay.ledger.doubt`).
The log alone is opened, never the database file, whose locks would be lost when it is closed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

# Of files of some megabytes nothing is synced that their commit would not have synced right away.
_AHEAD_BYTES = 4 * 1024 * 1024


class LogSync:
    """The syncing of one store's log by one process; used by the thread that commits, and by the loop while that does nothing."""

    def __init__(self, log: Path, on_failure: Callable[[], None] = lambda: None) -> None:
        """Sync *log*; *on_failure* is called, in any thread, where the disk could not."""
        self._log = log
        self._on_failure = on_failure
        self._unsynced_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-sync")
        self._running: Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """True where nothing that was committed waits for its sync or is being synced."""
        return not self._unsynced_bytes and (self._running is None or self._running.done())

    def committed(self, size_bytes: int, *, is_durable: bool) -> None:
        """Know that about *size_bytes* of payload were committed; begin to sync where enough has come together."""
        if is_durable:
            self._unsynced_bytes = 0
            return
        self._unsynced_bytes += size_bytes
        if self._unsynced_bytes >= _AHEAD_BYTES and (self._running is None or self._running.done()):
            self._unsynced_bytes = 0
            # What is committed stays so where no thread can be had for this: SQLite then syncs all of it by itself.
            with suppress(RuntimeError, MemoryError):
                self._running = self._thread.submit(self._sync)

    def _sync(self) -> None:
        with suppress(OSError):
            log = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fdatasync(log)
            except OSError:
                self._on_failure()
            finally:
                os.close(log)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()
