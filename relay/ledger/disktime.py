"""Disk time: how long what is asked of the disk has taken lately, and so whether the event loop stands still for it.

It is done by a thread, which leaves the loop free, as a slow disk needs it.  A quick one needs it to be short: a thread waits
for a processor before it begins, and at each of its steps for the interpreter's lock, which a busy loop gives back only every
5 ms.  For all of that time of a COMMIT the store's lock is held and the other workers wait, and of a chunk that is in
memory that is most of what reading it costs.  So while they have taken little on average, the loop stands still until the
thread is done.

What a disk may cost that is quick no more: the loop stands still for some hundredths of a second, once.  From then on it
goes on beside, until the disk has been quick again for a while.  Every synced commit counts, and every chunk, however it ends.
For a disk that never was quick the loop never stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# A sync of a disk for servers takes 0.1 to 1 ms and the rest of COMMIT half of one, of a busy processor somewhat more; two
# chunks that are in memory half of one.
QUICK_SECONDS: Final = 0.003
# So much the latest one counts in the average.  One that took 15 ms among quick ones changes nothing.
_LATEST_PART: Final = 0.125
# And for so long at most the loop stands still, once, where a disk that was quick is no more.
STILL_SECONDS: Final = 0.03
# It counts as so long at most: after a disk has stood still, a dozen quick ones make it quick again.
_COUNTED_SECONDS: Final = 0.1


class DiskTime:
    """The average of what one process had of the disk lately; slow until that has been quick."""

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
                self.count(self._clock() - began)

    def count(self, seconds: float) -> None:
        """Count that it took so long."""
        took = min(seconds, _COUNTED_SECONDS)
        self._average += (took - self._average) * _LATEST_PART
