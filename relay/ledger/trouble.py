"""Trouble: what a store that fails says to clients, and what its operator is told: what, of what, and what to do.

Trouble is told when it begins and when it is over, not for each client that meets it.  A store that is damaged does
not heal: that is told once, and nothing after it says that all is well again.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from relay.errors import Deferred
from relay.ledger.doubt import GapError
from relay.ledger.storefile import LockedDeferred

# SQLite's primary result codes (https://sqlite.org/rescode.html).
_BUSY, _LOCKED, _NO_MEMORY, _READ_ONLY, _CORRUPT, _FULL, _CANNOT_OPEN, _NO_DATABASE = 5, 6, 7, 8, 11, 13, 14, 26
# Extended ones: the sync of a file failed, or of its folder.
_NO_SYNC, _NO_FOLDER_SYNC = 1034, 1290
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Ill(StrEnum):
    """What a store may suffer from; the words say what an operator does about it."""

    FULL = (
        "Free some of the disk of {folder}, or put the store on a larger one. Until then nothing is accepted; what was "
        "accepted is safe, and the relay goes on by itself."
    )
    DAMAGED = (
        "It does not heal by itself. `relay doctor` looks through it; look at the disk, stop the relay, and put the newest "
        "backup in its place with `relay restore FILE`. What can still be read is served until then."
    )
    LOCKED = (
        "Another program keeps it: `fuser -v {path}` names that one. Until it ends nothing is accepted; then the relay "
        "goes on by itself."
    )
    NO_MEMORY = (
        "Give the relay more memory (MemoryMax= of its service), or let fewer connect (limits.connections_total). It "
        "goes on by itself."
    )
    UNREACHABLE = (
        "Look at the folder {folder}, at who may write there, and at how many files the relay may have open "
        "(LimitNOFILE= of its service). It goes on by itself."
    )
    DISK = (
        "The disk of {folder} fails, or may no longer be written to: look at it (`dmesg`, `mount`). Until then nothing is "
        "accepted; the relay goes on by itself when it works again."
    )
    FORGETFUL = (
        "The disk of {folder} could not keep what was written to it, and will do that again. What was answered OK is safe; "
        "before anything more is, the relay writes anew what may be missing. Make a backup on another disk now "
        "(`relay backup FILE`), look at this one (`dmesg`, `smartctl -a`), and replace it."
    )
    GAP = (
        "The disk of {folder} could not keep what was written to it, and memory has not kept it either. Nothing of it was "
        "answered OK. Stop the relay and start it again: it goes on with what is whole. Then make a backup on another disk "
        "(`relay backup FILE`), look at this one (`dmesg`, `smartctl -a`), and replace it."
    )
    OTHER = "Until that is so no more nothing is accepted; the relay goes on by itself."


_CODES = {Ill.FULL: "server.storage_full", Ill.DAMAGED: "server.storage_damaged"}
_ILLS = {
    _BUSY: Ill.LOCKED,
    _LOCKED: Ill.LOCKED,
    _NO_MEMORY: Ill.NO_MEMORY,
    _READ_ONLY: Ill.DISK,
    _CORRUPT: Ill.DAMAGED,
    _FULL: Ill.FULL,
    _CANNOT_OPEN: Ill.UNREACHABLE,
    _NO_DATABASE: Ill.DAMAGED,
    _NO_SYNC: Ill.FORGETFUL,
    _NO_FOLDER_SYNC: Ill.FORGETFUL,
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One failure of the store: *cause* in its own words, and what it suffers from."""

    cause: str
    ill: Ill

    @property
    def deferred(self) -> Deferred:
        """What to raise for whoever asked, who may try again; a new one each time."""
        return Deferred(_CODES.get(self.ill, "server.busy"), detail=self.cause)

    def advise(self, path: Path) -> str:
        """Say what to do about it."""
        return self.ill.format(path=path, folder=path.parent)


def diagnose(error: Exception) -> Trouble | None:
    """Return what is the matter where the store failed, None where our own code did."""
    if isinstance(error, Deferred):
        is_locked = isinstance(error, LockedDeferred)
        return Trouble(error.detail or error.code, Ill.LOCKED if is_locked else Ill.OTHER)
    if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
        return None
    if isinstance(error, MemoryError):
        return Trouble("no memory left", Ill.NO_MEMORY)
    if isinstance(error, OSError):
        is_gap, is_full = isinstance(error, GapError), error.errno in _NO_ROOM
        return Trouble(str(error), Ill.GAP if is_gap else Ill.FULL if is_full else Ill.DISK)
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)
        return Trouble(str(error), _ILLS.get(code) or _ILLS.get(code & 0xFF, Ill.DISK))
    return None


class TroubleLog:
    """Tells of trouble when it begins and of its end, once each, whoever meets it: the writer or a reader."""

    def __init__(self, path: Path, tell: Callable[[str | None], None]) -> None:
        self._path = path
        self._tell = tell
        self._troubled: set[str] = set()
        self._is_damaged = False
        self._has_gap = False
        # Readers in threads meet it as well.
        self._lock = threading.Lock()

    def failed(self, who: str, trouble: Trouble) -> None:
        """Tell of *trouble* that *who* has, unless it is known."""
        with self._lock:
            is_news = not self._troubled
            if trouble.ill is Ill.DAMAGED:
                is_news, self._is_damaged = not self._is_damaged, True
            else:
                self._troubled.add(who)
            if trouble.ill is Ill.GAP:
                # What is to be done about it is something else than what was said before.
                is_news, self._has_gap = not self._has_gap, True
            if is_news:
                self._tell(f"{self._path}: {trouble.cause}. {trouble.advise(self._path)}")

    def works(self, who: str) -> None:
        """Know that what *who* wanted was done; tells that all is well where nobody has trouble any more."""
        if who not in self._troubled:
            return
        with self._lock:
            self._troubled.discard(who)
            self._has_gap &= bool(self._troubled)
            if not self._troubled and not self._is_damaged:
                self._tell(None)
