"""The latest time that this server has seen: what is over stays over when the clock is set back.

Whoever can set the relay's clock back would otherwise bring certificates to life again whose end has come.  It holds in
all workers, those that come later included, as long as the server lives: a clock that was wrong ahead and put right is put right here by a restart, which the journal
says.  Nothing is kept beyond, or one slip of a clock could lock everybody out for good.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from relay import journal
from relay.common import Common
from relay.journal import Journal

# Clocks are put right by some seconds all the time.
_TOLERANCE = timedelta(minutes=1)


class LatestTime:
    """A clock for judging ends by: it never goes back."""

    def __init__(self, journal_: Journal, common: Common) -> None:
        self._journal = journal_
        self._common = common
        self._latest: datetime | None = None
        self._is_told = False

    def at(self, now: datetime) -> datetime:
        """Return *now*, or the latest time that was seen before where that is later; journalled once each time."""
        latest = self._latest = self._everybodys(now)
        if now >= latest:
            self._is_told = False
        elif latest - now > _TOLERANCE and not self._is_told:
            self._is_told = True
            if self._common.say_once("clock_set_back", "", _TOLERANCE.total_seconds()):
                journal.clock_set_back(self._journal, now=now, latest=latest)
        return latest

    def _everybodys(self, now: datetime) -> datetime:
        """Return the latest time that any worker has seen, *now* included."""
        latest = now if self._latest is None else max(now, self._latest)
        # A moment that never passes: seconds since 1970 are more than those since the machine was started.
        with self._common.moment("latest time", "", time.monotonic()) as seen:
            if seen.at > latest.timestamp():
                return datetime.fromtimestamp(seen.at, UTC)
            seen.at = latest.timestamp()
        return latest
