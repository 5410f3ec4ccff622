"""Crew: what the processes of one server know of each other, in memory that they share.

It is made before the first worker and inherited by all.  Each worker writes its own place alone, one whole number at
a time, so nobody waits and no lock is needed: who reads sees each number as it was a moment ago.

Nothing that an office was promised lies here, only what is known again a second after a start: who is alive, and who
has how many connections.
"""

from __future__ import annotations

import mmap

# A place has a line of the processor's cache to itself.
_PLACE = 8
_PID, _BEATS, _CONNECTIONS, _IS_OPEN = range(4)
_WORD_BYTES = 8


class Crew:
    """The places of *size* workers."""

    def __init__(self, size: int) -> None:
        """Make the memory; a process that is forked later has it as well."""
        self.size = size
        self._cells = memoryview(mmap.mmap(-1, size * _PLACE * _WORD_BYTES)).cast("q")

    def enter(self, index: int, pid: int) -> None:
        """Give the place *index* to a new worker."""
        self.leave(index)
        self._cells[index * _PLACE + _PID] = pid

    def leave(self, index: int) -> None:
        """Clear the place of a worker that has ended."""
        for cell in (_PID, _CONNECTIONS, _IS_OPEN):
            self._cells[index * _PLACE + cell] = 0

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

    def connections(self, index: int) -> int:
        """Return how many connections the worker had last."""
        return self._cells[index * _PLACE + _CONNECTIONS]

    def has_less_busy(self, index: int, count: int) -> bool:
        """Tell whether another worker that takes connections has fewer than *count*."""
        return any(
            self._cells[other * _PLACE + _IS_OPEN] and self._cells[other * _PLACE + _CONNECTIONS] < count
            for other in range(self.size)
            if other != index
        )
