"""Disk time: how long COMMIT has taken lately, and so whether the event loop waits for it itself.

In a thread COMMIT leaves the loop free, which is what a slow disk needs.  A quick one needs it to be short: a thread
waits for a processor before it begins, and then for the interpreter's lock, which a busy loop gives back only every
5 ms, and for all of that time the store's lock is held and the other workers wait.  So while commits have taken little
on average, the loop makes them.

What a disk may cost that is quick no more: the loop stands still for the one commit that meets it.  From then on a
thread waits for it, until it has been quick again for a while.  Every synced commit counts, wherever it is made and
however it ends.  A disk that never was quick is never waited for by the loop.  One that hangs for a minute has that one
worker ended by its supervisor: nothing was promised for what it had in hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# A sync of a disk for servers takes 0.1 to 1 ms and the rest of COMMIT half of one, of a busy processor somewhat more.
QUICK_SECONDS: Final = 0.003
# So much the latest one counts in the average.  One that took 15 ms among quick ones changes nothing.
_LATEST_PART: Final = 0.125
# It counts as so long at most: after a disk has stood still, a dozen quick ones make it quick again.
_COUNTED_SECONDS: Final = 0.1


class DiskTime:
    """The average of one process's commits; slow until they have been quick."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Know nothing of the disk yet."""
        self._clock = clock
        self._average = 2 * QUICK_SECONDS

    @property
    def is_quick(self) -> bool:
        """True while the loop may wait for the disk itself."""
        return self._average <= QUICK_SECONDS

    @contextmanager
    def counted(self, *, is_synced: bool) -> Iterator[None]:
        """Count how long this block takes, where it waits for the disk."""
        began = self._clock()
        try:
            yield
        finally:
            if is_synced:
                took = min(self._clock() - began, _COUNTED_SECONDS)
                self._average += (took - self._average) * _LATEST_PART
