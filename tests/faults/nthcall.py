"""Traps for the Nth call to the store, the disk, the clock and the random source, in the relay's own process.

The store is real: its connections are SQLite's, and only a call that is to fail never reaches it, or reaches it and is
then said to have failed.
"""

from __future__ import annotations

import errno
import io
import os
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from relay.ledger import storefile

# SQLite's primary result codes (https://sqlite.org/rescode.html).
BUSY, NO_MEMORY, IOERR, FULL = 5, 7, 10, 13


class Way(Enum):
    """Which calls end badly once the trap is set."""

    ONCE = "once"
    FROM_THERE = "from_there"


@dataclass
class Trap:
    """Counts calls while it is armed, and says which of them end badly."""

    calls: int = 0
    _at: int = 0
    _way: Way = Way.ONCE
    _is_armed: bool = False
    # How often it has sprung.
    sprung: int = 0

    def arm(self, at: int, way: Way) -> None:
        """Let the call *at*, counted from now, end badly, or all from there on."""
        self.calls, self.sprung, self._at, self._way, self._is_armed = 0, 0, at, way, True

    def disarm(self) -> None:
        """Let everything pass."""
        self._is_armed = False

    def springs(self) -> bool:
        """Count a call; True where it is to end badly."""
        if not self._is_armed:
            return False
        self.calls += 1
        is_met = self.calls == self._at or (self._way is Way.FROM_THERE and self.calls > self._at)
        self.sprung += is_met
        return is_met


def failure_of_store(code: int) -> Exception:
    """Return what SQLite raises."""
    if code == NO_MEMORY:
        return MemoryError()
    error = sqlite3.OperationalError({BUSY: "database is locked", IOERR: "disk I/O error", FULL: "full"}[code])
    error.sqlite_errorcode = code
    return error


def trap_store(patch: pytest.MonkeyPatch, trap: Trap, code: int, *, after_commit: bool = False) -> None:
    """Let calls of every connection that is opened from now on end with *code*.

    With *after_commit* only COMMIT is counted, and it fails after it has taken place: nobody can know then.
    """
    open_real, kinds = storefile._open, {}

    def failing(kind: Any) -> Any:
        class Failing(kind):  # type: ignore[misc]
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                is_met = (not after_commit or sql == "COMMIT") and trap.springs()
                if is_met and not after_commit:
                    raise failure_of_store(code)
                done: sqlite3.Cursor = super().execute(sql, *parameters)
                if is_met:
                    raise failure_of_store(code)
                return done

        return kinds.setdefault(kind, Failing)

    def open_failing(path: Path, mode: str, kind: Any) -> Any:
        return open_real(path, mode, failing(kind))

    patch.setattr(storefile, "_open", open_failing)


def trap_sqlite(patch: pytest.MonkeyPatch, trap: Trap, code: int) -> None:
    """Let calls of SQLite end with *code*, whoever opens what: opening, statements, scripts, copies of a whole store."""
    connect_real, kinds = sqlite3.connect, {}

    def failing(kind: Any) -> Any:
        def fail(name: str) -> Callable[..., Any]:
            def call(self: Any, *arguments: Any, **options: Any) -> Any:
                if trap.springs():
                    raise failure_of_store(code)
                return getattr(kind, name)(self, *arguments, **options)

            return call

        calls = {name: fail(name) for name in ("execute", "executemany", "executescript", "backup")}
        return kinds.setdefault(kind, type("Failing", (kind,), calls))

    def connect(*arguments: Any, factory: Any = sqlite3.Connection, **options: Any) -> Any:
        if trap.springs():
            raise failure_of_store(code)
        return connect_real(*arguments, factory=failing(factory), **options)

    patch.setattr(sqlite3, "connect", connect)


# The last one needs no room.
_DISK_CALLS = (
    (os, "open"), (os, "fsync"), (os, "pwrite"), (os, "link"), (os, "rename"), (os, "replace"), (io, "open"), (os, "unlink")
)  # fmt: skip


def trap_disk(patch: pytest.MonkeyPatch, trap: Trap, code: int) -> None:
    """Let what is asked of the disk beside SQLite end with *code*: opening, writing, syncing, naming."""

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if trap.springs():
                # A descriptor is no name.
                raise OSError(code, os.strerror(code), None if isinstance(arguments[0], int) else arguments[0])
            return real(*arguments, **options)

        return call

    for module, name in _DISK_CALLS if code == errno.EIO else _DISK_CALLS[:-1]:
        patch.setattr(module, name, failing(getattr(module, name)))


def trap_random(patch: pytest.MonkeyPatch, trap: Trap) -> None:
    """Let the system's random source fail, as `os` and `secrets` ask it."""
    real = os.urandom

    def failing(size: int) -> bytes:
        if trap.springs():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(size)

    patch.setattr(os, "urandom", failing)
    patch.setattr(random, "_urandom", failing)


@dataclass
class TrappedClock:
    """A clock that at the Nth question raises, or jumps by *jump* for good."""

    trap: Trap
    jump: timedelta | None = None
    _off: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        """Return the time."""
        if self.trap.springs():
            if self.jump is None:
                raise OverflowError("timestamp out of range for platform time_t")
            self._off += self.jump
        return datetime.now(UTC) + self._off


Clock = Callable[[], datetime]
