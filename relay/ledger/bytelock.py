"""Byte lock: a lock on bytes of an open file (fcntl(2), F_OFD_SETLK).

It belongs to the open file, not to the process: so it also keeps other open files of the same process out, meets the locks
that SQLite has on the same bytes, and is the kernel's to take back from the dead.  flock(2) knows nothing of it.
"""

from __future__ import annotations

import fcntl
import os
import struct


def set_byte_lock(file: int, kind: int, start: int, count: int) -> None:
    """Set a lock of *kind* (F_RDLCK, F_WRLCK or F_UNLCK) on so many bytes; BlockingIOError where another one is in the way."""
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0))
