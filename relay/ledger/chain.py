"""Chain: whether the store's log is whole, as far as SQLite reads it.

Each frame carries a checksum of all before it (SQLite's Database File Format, section 4), and the log's index says how many frames
count (WAL-mode File Format, section 2.1).  SQLite itself looks at the checksums only after a crash: what a disk has lost of
a log that is in use it reads as it comes.

The index's file stays open once it was opened (`open_for_good`).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

# Of the log's header the size of a page and the salts, of a frame's header the number of its page and the salts.
WAL_HEADER = struct.Struct(">8xI4x8s8x")
WAL_FRAME = struct.Struct(">I4x8s8x")
_PAGE_BYTES_MOST = 65_536
_SUMS = struct.Struct(">II")
# Where the checksums lie in either header, and how much of a frame's header they are of.
_HEADER_SUMS_AT, _FRAME_SUMS_AT, _FRAME_SUMMED = 24, 16, 8
# How many frames count, and the checksums of the last of them; in the order of this machine's bytes.
_INDEX = struct.Struct("=16xI4xII")
# How many frames count, and how many of them are in the store (section 2.2).
_FOLDED = struct.Struct("=16xI76xI")
_WORD = 0xFFFFFFFF
# Descriptors that stay open, by device and inode.
_OPENED: dict[tuple[int, int], int] = {}


def parse_log_header(header: bytes) -> tuple[int, bytes]:
    """Return the size of the log's pages and its salts; 0 where it is not begun, so that nothing in it counts."""
    if len(header) < WAL_HEADER.size:
        return 0, b""
    page_bytes, salts = WAL_HEADER.unpack(header)
    return (page_bytes if page_bytes <= _PAGE_BYTES_MOST else 0), salts


def is_whole(log: int, index: Path) -> bool:
    """True where all frames of the open file *log* that count by *index* are as they were written; takes a second for some ten MiB.

    Nobody may be writing to the log.
    """
    if not index.exists():
        # Nobody has the store open: whoever opens it looks at the checksums.
        return True
    found = os.pread(open_for_good(index), _INDEX.size, 0)
    frames, *last = _INDEX.unpack(found) if len(found) == _INDEX.size else (0, 0, 0)
    return _has_frames(log, frames, tuple(last))


def count_unfolded(index: Path) -> int:
    """Return how many of the log's frames are not in the store yet, by its *index*."""
    found = os.pread(open_for_good(index), _FOLDED.size, 0)
    frames, folded = _FOLDED.unpack(found) if len(found) == _FOLDED.size else (0, 0)
    return int(frames - folded)


def open_for_good(path: Path) -> int:
    """Return a descriptor of *path*, to read and write, that stays open for as long as this process runs.

    So for the store and its index: closing one would take from this process the locks that SQLite's own connections have on
    the file (fcntl(2)).
    """
    status = path.stat()
    key = (status.st_dev, status.st_ino)
    if key not in _OPENED:
        _OPENED[key] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return _OPENED[key]


def _has_frames(log: int, count: int, last: tuple[int, ...]) -> bool:
    """True where the first *count* frames hold together and end with the checksums *last*.

    What stands behind them otherwise may be a commit that was given up, which holds together as well.
    """
    if count == 0:
        return True
    header = os.pread(log, WAL_HEADER.size, 0)
    page_bytes, salts = parse_log_header(header)
    if not page_bytes:
        return False
    # Which of the two orders of bytes is summed up was the writer's choice.
    order = ">" if header[3] & 1 else "<"
    sums = _sum_up(header[:_HEADER_SUMS_AT], (0, 0), order)
    if sums != _SUMS.unpack_from(header, _HEADER_SUMS_AT):
        return False
    size = WAL_FRAME.size + page_bytes
    for number in range(count):
        frame = os.pread(log, size, WAL_HEADER.size + number * size)
        if len(frame) < size or WAL_FRAME.unpack_from(frame)[1] != salts:
            return False
        sums = _sum_up(frame[:_FRAME_SUMMED] + frame[WAL_FRAME.size :], sums, order)
        if sums != _SUMS.unpack_from(frame, _FRAME_SUMS_AT):
            return False
    return sums == last


def _sum_up(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return first, second
