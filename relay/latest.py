"""The latest time that this process has seen: what is over stays over when the clock is set back.

Whoever can set the relay's clock back would otherwise bring certificates to life again whose end has come.  It holds as
long as the process lives: a clock that was wrong ahead and put right is put right here by a restart, which the journal
says.  Nothing is kept beyond, or one slip of a clock could lock everybody out for good.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from relay import journal
from relay.journal import Journal

# Clocks are put right by some seconds all the time.
_TOLERANCE = timedelta(minutes=1)


class LatestTime:
    """A clock for judging ends by: it never goes back."""

    def __init__(self, journal_: Journal) -> None:
        self._journal = journal_
        self._latest: datetime | None = None
        self._is_told = False

    def at(self, now: datetime) -> datetime:
        """Return *now*, or the latest time that was seen before where that is later; journalled once each time."""
        if self._latest is None or now >= self._latest:
            self._latest, self._is_told = now, False
        elif self._latest - now > _TOLERANCE and not self._is_told:
            self._is_told = True
            journal.clock_set_back(self._journal, now=now, latest=self._latest)
        return self._latest
