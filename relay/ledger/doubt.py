"""Doubt: what the disk may have forgotten is written to it again, before anything more is promised.

When a sync fails, Linux takes what it should have kept for written: it lies in memory alone, each descriptor that was open is
told once, and the next sync succeeds.  SQLite then goes on, and two of its files may have gaps:

* **the log.**  What is read of it after a power cut ends at the first gap, so all that is committed behind one is lost with it,
  however well it was synced.  Gaps are there where chunks of a large file were committed without a sync of their own,
  and where a relay that was killed left a commit whose sync had failed: the next start finds it whole, in memory.
* **the store's file.**  A checkpoint that fails is done again, but not what an earlier one had copied without a sync, because
  a reader kept it from its end; and then the log, which has it, is begun anew.

A process that begins to write therefore reads the log and writes the same bytes once more, and syncs them; after a failure
everybody does, and also those pages of the store that are in the log (`relay.ledger.storefile.settle`).  Memory still has
what the disk forgot, on ext4 and XFS at least, unless it was needed for something else: that is looked at first.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from relay.ledger.bytelock import set_byte_lock
from relay.ledger.chain import WAL_FRAME, WAL_HEADER, is_whole, open_for_good, parse_log_header

# Frames or pages that are read and written at once: half a MiB of the usual ones.
_TOGETHER = 64
# The bytes that SQLite locks to have the store for itself (File Locking, section 3).
_READERS_AT, _READERS_BYTES = 0x40000000 + 2, 510


class GapError(OSError):
    """Memory has not kept what the disk forgot of the log: only a start of all that have the store open mends that."""


def write_anew(store: Path, log: Path, index: Path | None, *, is_doubted: bool) -> None:
    """Write all of *log* anew and, where it *is_doubted*, those pages of *store* that are in it; nobody else may write to either.

    OSError where the disk still fails, `GapError` where there is something else in the log than *index* says; None
    where nobody has the store open, who would have to be told.
    """
    pages, page_bytes = _renew_log(log, index if is_doubted else None)
    if is_doubted:
        _renew_pages(store, pages, page_bytes)


def keep_log(store: Path) -> None:
    """See that the log stays what it is, whichever connection of this process is the last to close, or is closed by its end.

    SQLite would bring it into the store and remove it, if it could have the store for itself; a lock of its own open file
    (fcntl(2), F_OFD_SETLK) keeps even this process from that, until it ends or lets it go.
    """
    with suppress(OSError):
        set_byte_lock(open_for_good(store), fcntl.F_RDLCK, _READERS_AT, _READERS_BYTES)


def let_log_go(store: Path) -> None:
    """End what `keep_log` asked for: all that is in the log is on the disk."""
    with suppress(OSError):
        set_byte_lock(open_for_good(store), fcntl.F_UNLCK, _READERS_AT, _READERS_BYTES)


def _renew_log(log: Path, index: Path | None) -> tuple[set[int], int]:
    """Write every frame anew, as it is; return the numbers of the pages that they hold, from 0, and a page's size."""
    try:
        file = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return set(), 0
    try:
        if index is not None and not is_whole(file, index):
            raise GapError("some of the log is gone that is in use")
        header = os.pread(file, WAL_HEADER.size, 0)
        page_bytes, salts = parse_log_header(header)
        pages: set[int] = set()
        at = _write(file, header, 0)
        for frames, numbers in _read_frames(file, at, page_bytes, salts):
            at = _write(file, frames, at)
            pages.update(number - 1 for number in numbers)
        os.fdatasync(file)
    finally:
        os.close(file)
    return pages, page_bytes


def _read_frames(file: int, at: int, page_bytes: int, salts: bytes) -> Iterator[tuple[memoryview, list[int]]]:
    """Yield the log's frames, many at once, and which pages they hold; what lies behind them is of an earlier log."""
    frame_bytes = WAL_FRAME.size + page_bytes
    is_more = page_bytes > 0
    while is_more:
        piece = memoryview(os.pread(file, _TOGETHER * frame_bytes, at))
        heads = [WAL_FRAME.unpack_from(piece, each) for each in range(0, len(piece) - frame_bytes + 1, frame_bytes)]
        numbers = [number for number, _ in takewhile(lambda head: head[1] == salts, heads)]
        is_more = len(numbers) == _TOGETHER
        at += len(numbers) * frame_bytes
        yield piece[: len(numbers) * frame_bytes], numbers


def _renew_pages(store: Path, pages: set[int], page_bytes: int) -> None:
    file = open_for_good(store)
    for page in sorted(pages):
        # One that is in the log alone has no place in the store yet.
        _write(file, os.pread(file, page_bytes, page * page_bytes), page * page_bytes)
    os.fdatasync(file)


def _write(file: int, data: bytes | memoryview, at: int) -> int:
    """Write all of *data* there; return where it ends."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(file, rest, at)
        rest, at = rest[done:], at + done
    return at
