"""Head start: the disk begins to write what a checkpoint copies while that is still copying.

A checkpoint copies pages of the log into the store's file, in memory, and then syncs that file.  Only there does the disk begin,
with all of it at once, while the store's lock is held.  Told in between to begin, it has most of it behind it by then.

This promises nothing and takes nothing away: sync_file_range(2) with SYNC_FILE_RANGE_WRITE starts writing what is dirty,
waits for nothing, and reports no failure of the disk to anybody who would then be the only one to know (see `relay.ledger.doubt`).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from relay.ledger.chain import open_for_good

# In so long a checkpoint copies some two MiB.
_EVERY_SECONDS = 0.002
# SYNC_FILE_RANGE_WRITE, from <fcntl.h>.
_WRITE = 2


def _find_call() -> Callable[[int], object] | None:
    """Return what has the disk begin to write a whole file; None where the C library has no such call."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda file: call(file, 0, 0, _WRITE)


class HeadStart:
    """What has the disk begin with one store's file, for one process; used by the threads that checkpoint, one at a time."""

    def __init__(self, store: Path) -> None:
        """Do so for *store*, in a thread of its own."""
        self._store = store
        self._begin = _find_call()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="head-start")

    @contextmanager
    def given(self) -> Iterator[None]:
        """Have the disk write beside this block; without it where no thread can be had or the file cannot be opened."""
        is_over = threading.Event()
        with suppress(RuntimeError, MemoryError):
            self._thread.submit(self._go_ahead, is_over)
        try:
            yield
        finally:
            is_over.set()

    def _go_ahead(self, is_over: threading.Event) -> None:
        if self._begin is None:
            return
        with suppress(OSError):
            file = open_for_good(self._store)
            while not is_over.wait(_EVERY_SECONDS):
                self._begin(file)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()
