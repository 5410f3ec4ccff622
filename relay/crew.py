"""Crew: what the processes of one server know of each other, in memory that they share.

It is made before the first worker and inherited by all.  Each worker writes its own place alone, one whole number at
a time, so nobody waits and no lock is needed: who reads sees each number as it was a moment ago.  A worker's longer
word of itself (`relay.census`) is written beside the one before, which stays readable until the new one is whole,
even if the worker is killed in the middle.

Nothing that an office was promised lies here, only what is known again a second after a start: who is alive, and who
has how many connections.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
import zlib

# A place has a line of the processor's cache to itself.
_PLACE = 8
_PID, _BEATS, _CONNECTIONS, _IS_OPEN, _WRITTEN = range(5)
_WORD_BYTES = 8
# Number, length and checksum, in front of each word.
_HEAD = struct.Struct("=QQL")


class Crew:
    """The places of *size* workers."""

    def __init__(self, size: int) -> None:
        """Make the memory; a process that is forked later has it as well."""
        self.size = size
        self.started_at = time.time()
        # One place more, for the supervisor.
        self._cells = memoryview(mmap.mmap(-1, (size + 1) * _PLACE * _WORD_BYTES)).cast("q")
        self._pages = [_Page() for _ in range(size + 1)]
        self._kept = [_Page() for _ in range(size)]
        self._bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(size)]

    def enter(self, index: int, pid: int) -> None:
        """Give the place *index* to a new worker."""
        self._cells[index * _PLACE + _PID] = pid

    def leave(self, index: int) -> None:
        """Clear the place of a worker that has ended."""
        for cell in (_PID, _CONNECTIONS, _IS_OPEN):
            self._cells[index * _PLACE + cell] = 0
        self._pages[index].clear()
        self._kept[index].clear()

    def pid(self, index: int) -> int:
        """Return the process that has the place, 0 where nobody has."""
        return self._cells[index * _PLACE + _PID]

    # --- who is alive, and who takes connections -----------------------------------------------------------------

    def beat(self, index: int) -> None:
        """Show that the worker does what it has to do."""
        self._cells[index * _PLACE + _BEATS] += 1

    def beats(self, index: int) -> int:
        """Return how often the worker has shown itself."""
        return self._cells[index * _PLACE + _BEATS]

    def open(self, index: int, *, is_open: bool) -> None:
        """Know whether the worker takes connections."""
        self._cells[index * _PLACE + _IS_OPEN] = is_open

    def note_connections(self, index: int, count: int) -> None:
        """Know how many connections the worker has."""
        self._cells[index * _PLACE + _CONNECTIONS] = count

    def has_less_busy(self, index: int, count: int) -> bool:
        """Tell whether another worker that takes connections has fewer than *count*."""
        return any(
            self._cells[other * _PLACE + _IS_OPEN] and self._cells[other * _PLACE + _CONNECTIONS] < count
            for other in range(self.size)
            if other != index
        )

    # --- the workers' words of themselves ------------------------------------------------------------------------

    def ring(self, index: int) -> None:
        """Ask the worker to write."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._bells[index], 1)

    def bell(self, index: int) -> int:
        """Return the descriptor that the worker waits on to be asked."""
        return self._bells[index]

    def hush(self, index: int) -> None:
        """Know that the worker was asked."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bells[index])

    def write(self, index: int, data: bytes) -> None:
        """Write the worker's word; `written` changes when it can be read."""
        self._pages[index].write(data)
        self._cells[index * _PLACE + _WRITTEN] += 1

    def written(self, index: int) -> int:
        """Return how often the worker has written."""
        return self._cells[index * _PLACE + _WRITTEN]

    def read(self, index: int) -> bytes:
        """Return the worker's last whole word, nothing where it has not written yet."""
        return self._pages[index].read()

    def keep(self, index: int, data: bytes) -> None:
        """Write what is to be kept of the worker should it end now."""
        self._kept[index].write(data)

    def read_kept(self, index: int) -> bytes:
        """Return what is to be kept of the worker."""
        return self._kept[index].read()

    # --- what the supervisor writes ------------------------------------------------------------------------------

    @property
    def burials(self) -> int:
        """How often a worker's count was begun, or ended, to be added to the past: odd in between."""
        return self._cells[self.size * _PLACE]

    @burials.setter
    def burials(self, count: int) -> None:
        self._cells[self.size * _PLACE] = count

    @property
    def deaths(self) -> int:
        """How many workers have died."""
        return self._cells[self.size * _PLACE + 1]

    @deaths.setter
    def deaths(self, count: int) -> None:
        self._cells[self.size * _PLACE + 1] = count

    def write_past(self, data: bytes) -> None:
        """Keep what those that ended have counted."""
        self._pages[self.size].write(data)

    def read_past(self) -> bytes:
        """Return what those that ended have counted."""
        return self._pages[self.size].read()


class _Page:
    """Room for a word of any length and the one before it."""

    def __init__(self) -> None:
        self._files = [os.memfd_create("relay-crew", os.MFD_CLOEXEC) for _ in range(2)]
        self._number = 0

    def write(self, data: bytes) -> None:
        if not self._number:
            # A worker that has just come does not know how far the one before it had counted.
            self._number = max(self._words())[0]
        self._number += 1
        head = _HEAD.pack(self._number, len(data), zlib.crc32(data))
        os.pwrite(self._files[self._number % 2], head + data, 0)

    def read(self) -> bytes:
        return max(self._words())[1]

    def clear(self) -> None:
        for file in self._files:
            os.ftruncate(file, 0)

    def _words(self) -> list[tuple[int, bytes]]:
        found = [(0, b"")]
        for file in self._files:
            raw = os.pread(file, os.fstat(file).st_size, 0)
            if len(raw) >= _HEAD.size:
                number, length, checksum = _HEAD.unpack_from(raw)
                data = raw[_HEAD.size : _HEAD.size + length]
                if zlib.crc32(data) == checksum and len(data) == length:
                    found.append((number, data))
        return found
