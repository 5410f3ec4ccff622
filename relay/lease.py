"""Lease: what one process at a time may do for a store, whichever one it is.

Housekeeping, mails and the audit's anchor are for the whole store: done by two at once they would do no harm, and
nothing but work.  The lease is a lock on a file beside the store.  It ends with the process that holds it, however
that ends, so the next one takes over without anybody's doing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from relay import journal
from relay.journal import Journal
from relay.ledger.storefile import leave_to_owner

_SUFFIX = ".duty"
_ASK_SECONDS = 0.5


class Lease:
    """The lease on one store; one object a process, made in it."""

    def __init__(self, store: Path, line: Journal) -> None:
        """Prepare for the store at *store*; nothing is held yet."""
        self._line = line
        self._is_told = False
        path = store.resolve()
        self._path = path.with_name(path.name + _SUFFIX)
        self._file: int | None = None

    async def take(self) -> None:
        """Return when the lease is ours; what keeps it from being had is told once, and tried again."""
        while not self._try():  # noqa: ASYNC110 - another process ends it
            await asyncio.sleep(_ASK_SECONDS)

    def _try(self) -> bool:
        try:
            return self._try_take()
        except OSError as error:
            if not self._is_told:
                journal.lease_failed(self._line, cause=str(error))
            self._is_told = True
            return False

    def _try_take(self) -> bool:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            leave_to_owner(self._path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
