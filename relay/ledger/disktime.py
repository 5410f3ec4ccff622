"""Disk time: how long COMMIT has taken lately, and so whether the event loop waits for it itself.

COMMIT is made by a thread, which leaves the loop free, as a slow disk needs it.  A quick one needs it to be short: that
thread waits for a processor before it begins, and then for the interpreter's lock, which a busy loop gives back only every
5 ms, and for all of that time the store's lock is held and the other workers wait.  So while commits have taken little
on average, the loop stands still until the thread is done.

What a disk may cost that is quick no more: the loop stands still for some hundredths of a second, once.  From then on it
goes on beside its commits, until the disk has been quick again for a while.  Every synced commit counts, however it ends.
For a disk that never was quick the loop never stands still.
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
        """True while the loop may stand still for the disk."""
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
