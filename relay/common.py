"""Memory that all worker processes share: what counts for all of them, and the moments that all of them go by.

The supervisor makes it (`Common.create`) and hands `Common.fds` down; a worker attaches to it by the number of its
first descriptor and takes the place of its own.  Nothing of it is in the store, so what holds before a login costs
nobody a write; nothing of it survives the supervisor, and no promise to an office rests on it.

* A **count** (`Common.count`) is what this worker has under one limit in one scope; everybody sees the sum.  Each
  worker writes only its own column, 8 bytes at a time, so one that is killed at any instant leaves a number and no
  debris, and `Common.clear` takes back all that it had.  `Tally.take` never lets more through than there may be,
  however many ask at once.
* A **moment** (`Common.moment`) is one number that all workers read and write: when a bucket is full again, until
  when something was told.  Once it has passed it means nothing, and its room is somebody else's.  CLOCK_MONOTONIC
  is the machine's, so all workers mean the same by it.

Both lie in tables of fixed size under keyed digests: whoever chooses a scope cannot aim at another's.  Where a table
is full, what does not fit counts for this worker alone, and `on_full` is told.

What must be one step (placing a key, moving a moment) is done under a record lock, which the kernel takes back from
the dead.  It is held for microseconds and never over an await; where somebody keeps it all the same (stopped by a
debugger, say) the others go on without it rather than stand still.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import secrets
import socket
import stat
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

PLACES_MOST: Final = 256
# The supervisor looks and clears; it has nothing of its own to count.
NOBODY: Final = -1
# Marks this form of the memory: a program of another version makes its own.
_MAGIC: Final = 0x52454C41_59000003
_KEY_BYTES = 16
_WORD = 8
_HEADER_WORDS = 2048
# In the header: mark, workers, places; behind them the key (in bytes), the descriptors of the inboxes with their inodes,
# and which process has each place.
_KEY_AT, _ENDS_AT, _PIDS_AT = 64, 16, 1536
# Also there: when the store's lock was given back, when its log was emptied, and since when each place waits for the lock
# (`relay.lineup`).
_GIVEN_BACK_AT, _EMPTIED_AT, _LINE_AT = 3, 4, 1792
# Certificates, offices and networks that have something open, and open uploads; some thousands on a busy day.
_COUNT_ROWS = 32_768
# Offices that sent something within a minute, and limits that were told in the last one.
_MOMENT_ROWS = 16_384
# A key lies in one of two buckets of so many rows.
_BUCKET = 8
_PIN = 1 << 32
_COUNT_MASK = _PIN - 1
# Whoever holds the lock for so long has been stopped; after that it is asked once, not waited for, for a second.
_LOCK_SECONDS = 0.05
_LOCK_AGAIN_SECONDS = 1.0
_SLACK_SECONDS = 0.05
# Remembered are those of short scopes: a path may be as long as whoever sends it likes.
_KEYS_KEPT, _KEY_CHARACTERS = 1024, 512


class _Rows:
    """A table of keys in two-choice buckets; a row is free where nothing is counted in it."""

    def __init__(self, keys: memoryview, is_free: Callable[[int], bool]) -> None:
        self._keys = keys
        self._buckets = len(keys) // _BUCKET
        self._is_free = is_free

    def find(self, key: int) -> int:
        """Return the row of *key*, -1 where it has none."""
        first = key % self._buckets * _BUCKET
        keys = self._keys[first : first + _BUCKET].tolist()
        if key in keys:
            return int(first + keys.index(key))
        first = (key >> 32) % self._buckets * _BUCKET
        keys = self._keys[first : first + _BUCKET].tolist()
        return int(first + keys.index(key)) if key in keys else -1

    def place(self, key: int) -> int:
        """Return the row of *key*, a free one if it had none; -1 where none is left.  Under the lock."""
        row = self.find(key)
        if row < 0:
            row = self._find_free(key % self._buckets * _BUCKET)
            row = self._find_free((key >> 32) % self._buckets * _BUCKET) if row < 0 else row
            if row >= 0:
                # One store: whoever dies here leaves a key with nothing under it, which is a free row.
                self._keys[row] = key
        return row

    def _find_free(self, first: int) -> int:
        for row in range(first, first + _BUCKET):
            if self._is_free(row):
                return row
        return -1


class Tally:
    """What this worker has under one limit in one scope; one object a worker, however many count with it."""

    __slots__ = ("_all", "_cells", "_common", "_name", "_row", "_step", "_users", "own")

    def __init__(self, common: Common, name: tuple[str, str], row: int) -> None:
        """Count in *row*, or, where that is -1, for this worker alone."""
        self.own = 0
        self._common = common
        self._name = name
        self._users = 0
        self._row = max(row, 0)
        self._cells, self._all, self._step = common.columns() if row >= 0 else _column_of_one()

    @property
    def total(self) -> int:
        """How much all workers have together."""
        return sum(self._all[self._row :: self._step]) & _COUNT_MASK

    @property
    def elsewhere(self) -> int:
        """How much the other workers have."""
        return self.total - self.own

    def add(self, change: int) -> None:
        """Count so much more, or less."""
        self.own += change
        # Always the whole number, so that nothing that was ever written here has to be right.
        self._cells[self._row] = _PIN + self.own

    def take(self, most: int, more: int = 1) -> bool:
        """Count *more* where all workers then have at most *most*; False, and nothing is counted, otherwise."""
        # Counted before it is looked at: of two that do so at once, at least one sees the other.
        self.add(more)
        if self.total <= most:
            return True
        self.add(-more)
        # Both may have seen each other and gone back, with room for one: now one behind the other.
        with self._common.lock:
            self.add(more)
            if self.total <= most:
                return True
            self.add(-more)
            return False

    def join(self) -> Self:
        """Keep the place of this tally until one more `close`."""
        self._users += 1
        self.add(0)
        return self

    def close(self) -> None:
        """Give up the place, with the last one who counts here; what is counted afterwards nobody sees."""
        self._users -= 1
        if self._users == 0:
            self.own = 0
            self._cells[self._row] = 0
            self._row, (self._cells, self._all, self._step) = 0, _column_of_one()
            self._common.forget(self._name)


def _column_of_one() -> tuple[memoryview, memoryview, int]:
    cells = memoryview(bytearray(_WORD)).cast("Q")
    return cells, cells, 1


class Moment:
    """A number of seconds that is read and set as one: what *at* is set to inside of ``with`` stays."""

    __slots__ = ("_common", "_key", "_now", "_row", "at")

    def __init__(self, common: Common, key: int, now: float) -> None:
        """Prepare to hold what stands under *key*; where that is nothing, *now*."""
        self._common = common
        self._key = key
        self._now = self.at = now

    def __enter__(self) -> Self:
        self._common.lock.__enter__()
        self._row, self.at = self._common.read_moment(self._key, self._now)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._common.write_moment(self._key, self._row, self.at, self._now)
        finally:
            self._common.lock.__exit__(kind, error, trace)


class _Lock:
    """A record lock on the shared memory; one process at a time, and not for ever."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._is_held = False
        self._depth = 0
        self._again_at = 0.0

    def __enter__(self) -> Self:
        self._depth += 1
        if self._fd is not None and self._depth == 1:
            self._is_held = self._try() or self._wait(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._is_held and self._depth == 0 and self._fd is not None:
            self._is_held = False
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _try(self) -> bool:
        assert self._fd is not None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _wait(self, fd: int) -> bool:
        del fd
        now = time.monotonic()
        if now < self._again_at:
            return False
        while time.monotonic() < now + _LOCK_SECONDS:
            os.sched_yield()
            if self._try():
                return True
        self._again_at = time.monotonic() + _LOCK_AGAIN_SECONDS
        return False


class Common:
    """The shared memory, as one process sees it; see the module."""

    def __init__(self, memory: mmap.mmap, fd: int | None, index: int) -> None:
        """Take the place *index* in *memory*; made by `create`, `attach` or `alone`."""
        self._memory = memory
        self._fd = fd
        self.index = index
        self.lock = _Lock(fd)
        # Told the name of a table each time that something did not fit into it.
        self.on_full: Callable[[str], None] = lambda _table: None
        words = memoryview(memory).cast("Q")
        self._header = words[:_HEADER_WORDS]
        # How many workers share what there is, and how many places they may have.
        self.workers, self.places = self._header[1], self._header[2]
        self.line = self._header[_LINE_AT : _LINE_AT + self.places]
        # Called when another worker calls this one to the store.
        self.on_called: Callable[[], None] = lambda: None
        self._digest_key = bytes(memory[_KEY_AT : _KEY_AT + _KEY_BYTES])
        ends = [_HEADER_WORDS, _HEADER_WORDS + _COUNT_ROWS]
        ends.append(ends[-1] + _COUNT_ROWS * self.places)
        ends.append(ends[-1] + _MOMENT_ROWS)
        self._counts = words[ends[1] : ends[2]]
        own = max(index, 0) * _COUNT_ROWS
        self._own = self._counts[own : own + _COUNT_ROWS]
        self._count_rows = _Rows(words[ends[0] : ends[1]], self._is_uncounted)
        self._moment_rows = _Rows(words[ends[2] : ends[3]], self._is_past)
        self._moments = memoryview(memory)[ends[3] * _WORD : (ends[3] + _MOMENT_ROWS) * _WORD].cast("d")
        self._now = 0.0
        # One name is asked for several times on the way of an upload.
        self._kept_key = lru_cache(_KEYS_KEPT)(self._digest)
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._spilled_moments: dict[int, float] = {}
        # The two ends of each worker's inbox: where it reads, where others write.  None where nobody can be asked.
        self.inboxes = self._find_inboxes()
        if index != NOBODY:
            self.clear(index)
            self._header[_PIDS_AT + index] = os.getpid()

    # --- where it comes from -------------------------------------------------------------------------------------

    @classmethod
    def create(cls, workers: int, places: int | None = None) -> Common:
        """Make the memory for so many workers, in the supervisor: what it makes is open as long as it is not closed.

        *places*, where there may be more of them for a while: two servers, while one hands over to the other.
        """
        places = places or workers
        if not 1 <= workers <= places <= PLACES_MOST:
            raise ValueError(f"{workers} workers in {places} places: there can be 1 to {PLACES_MOST}")
        fd = os.memfd_create("careplan-relay", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        size = _size_bytes(places)
        os.ftruncate(fd, size)
        # A file that somebody shortened would kill whoever reads behind its end.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        memory = mmap.mmap(fd, size)
        inboxes = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(places)]
        ends = [(inner.detach(), outer.detach()) for inner, outer in inboxes]
        _write_header(memory, workers, places, ends)
        return cls(memory, fd, NOBODY)

    @classmethod
    def attach(cls, fd: int, index: int) -> Common:
        """Take the place *index* in the memory behind *fd*, where nothing counts yet; ValueError where it is none of ours."""
        size = os.fstat(fd).st_size
        memory = mmap.mmap(fd, size)
        mark, _, places = struct.unpack_from("=3Q", memory) if size >= _HEADER_WORDS * _WORD else (0, 0, 0)
        if mark != _MAGIC or not NOBODY <= index < places:
            raise ValueError("this memory was made by another version of the relay, or for fewer workers")
        return cls(memory, fd, index)

    @classmethod
    def alone(cls) -> Common:
        """Return memory of this process alone: the same counts, seen by nobody else."""
        memory = mmap.mmap(-1, _size_bytes(1))
        _write_header(memory, 1, 1, [])
        return cls(memory, None, 0)

    def fileno(self) -> int:
        """Return the descriptor that `attach` asks for; ValueError where the memory is that of this process alone."""
        if self._fd is None:
            raise ValueError("memory that is not shared")
        return self._fd

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that a worker inherits under the same numbers: `fileno` and the ends of all inboxes."""
        return () if self._fd is None else (self._fd, *(end for pair in self.inboxes for end in pair))

    def _find_inboxes(self) -> list[tuple[int, int]]:
        """Return the ends of the inboxes; none where not all were inherited, or their numbers are something else now."""
        words = self._header[_ENDS_AT : _ENDS_AT + 4 * self.places].tolist()
        if self._fd is None or any(_inode(fd) != inode for fd, inode in zip(words[::2], words[1::2], strict=True)):
            return []
        return list(zip(words[::4], words[2::4], strict=True))

    def close(self) -> None:
        """Close the descriptors of this process; the memory lives on in whoever else has it."""
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    def clear(self, index: int) -> None:
        """Take back everything that worker *index* has: it has died, or begins."""
        first = index * _COUNT_ROWS
        self._counts[first : first + _COUNT_ROWS] = memoryview(bytes(_COUNT_ROWS * _WORD)).cast("Q")
        self._header[_PIDS_AT + index] = 0
        self.line[index] = 0

    def are_free(self, first: int, count: int) -> bool:
        """True where nobody has any of *count* places from *first* on: each was cleared after its worker's death."""
        return not any(self._header[_PIDS_AT + first : _PIDS_AT + first + count])

    @property
    def given_back_at(self) -> int:
        """When the store's lock was given back, in nanoseconds of CLOCK_MONOTONIC; 0 while somebody has it."""
        return self._header[_GIVEN_BACK_AT]

    @given_back_at.setter
    def given_back_at(self, moment: int) -> None:
        self._header[_GIVEN_BACK_AT] = moment

    @property
    def emptied_at(self) -> int:
        """When the store's log was last emptied, in nanoseconds of CLOCK_MONOTONIC; 0 where nobody has done so yet."""
        return self._header[_EMPTIED_AT]

    @emptied_at.setter
    def emptied_at(self, moment: int) -> None:
        self._header[_EMPTIED_AT] = moment

    # --- counts --------------------------------------------------------------------------------------------------

    def count(self, limit: str, scope: str = "") -> Tally:
        """Return what counts for *limit* in *scope*, with a place that is kept until its `Tally.close`."""
        tally = self._tallies.get((limit, scope))
        if tally is not None:
            return tally.join()
        key = self._key(limit, scope)
        with self.lock:
            row = self._count_rows.place(key)
            tally = self._tallies[limit, scope] = Tally(self, (limit, scope), row).join()
        if row < 0:
            self.on_full("counts")
        return tally

    def forget(self, name: tuple[str, str]) -> None:
        """Know a tally no more that has given up its place."""
        del self._tallies[name]

    def total(self, limit: str, scope: str = "") -> int:
        """Return how much all workers have under *limit* in *scope*, without counting there."""
        row = self._count_rows.find(self._key(limit, scope))
        return 0 if row < 0 else sum(self._counts[row::_COUNT_ROWS]) & _COUNT_MASK

    def whereabouts(self, limit: str, scope: str = "") -> list[int]:
        """Return the other workers that have anything under *limit* in *scope*."""
        if self.places == 1:
            return []
        row = self._count_rows.find(self._key(limit, scope))
        if row < 0:
            return []
        counts = self._counts[row::_COUNT_ROWS].tolist()
        return [index for index, count in enumerate(counts) if count & _COUNT_MASK and index != self.index]

    def columns(self) -> tuple[memoryview, memoryview, int]:
        """Return where this worker counts, where all do, and how far the cells of one row are apart."""
        return self._own, self._counts, _COUNT_ROWS

    def _is_uncounted(self, row: int) -> bool:
        return not any(self._counts[row::_COUNT_ROWS])

    # --- moments -------------------------------------------------------------------------------------------------

    def moment(self, limit: str, scope: str, now: float) -> Moment:
        """Return the moment of *limit* in *scope*, *now* or in the past where there is none, to be held by ``with``."""
        return Moment(self, self._key(limit, scope), now)

    def read_moment(self, key: int, now: float) -> tuple[int, float]:
        """Return the row of *key*, -1 where it has none, and what stands in it.  Under the lock."""
        row = self._moment_rows.find(key)
        return row, self._moments[row] if row >= 0 else self._spilled_moments.get(key, now)

    def write_moment(self, key: int, row: int, at: float, now: float) -> None:
        """Set what stands in *row*, or in a free one; a moment that has passed needs none.  Under the lock."""
        if row < 0 and at > now:
            self._now = now
            row = self._moment_rows.place(key)
        if row >= 0:
            self._moments[row] = at
            self._spilled_moments.pop(key, None)
        elif at > now:
            self._spill_moment(key, at, now)

    def _spill_moment(self, key: int, at: float, now: float) -> None:
        self.on_full("moments")
        if len(self._spilled_moments) >= _MOMENT_ROWS:
            self._spilled_moments = {each: kept for each, kept in self._spilled_moments.items() if kept > now}
        self._spilled_moments[key] = at

    def _is_past(self, row: int) -> bool:
        return bool(self._moments[row] <= self._now)

    def say_once(self, what: str, scope: str, seconds: float) -> bool:
        """True where no other worker has said *what* of *scope* and its time is not over: then we say it, for *seconds*.

        Who says something remembers that himself; this keeps the others from repeating it.
        """
        if self.places == 1:
            return True
        now = time.monotonic()
        with self.moment(f"said {what}", scope, now) as until:
            # Less than nothing: whoever said it last compares with another clock.
            if until.at > now + _SLACK_SECONDS:
                return False
            until.at = now + seconds
        return True

    def _key(self, limit: str, scope: str) -> int:
        return self._kept_key(limit, scope) if len(scope) <= _KEY_CHARACTERS else self._digest(limit, scope)

    def _digest(self, limit: str, scope: str) -> int:
        digest = hashlib.blake2b(
            f"{limit}\0{scope}".encode("utf-8", "surrogatepass"), digest_size=_WORD, key=self._digest_key
        )
        return int.from_bytes(digest.digest(), "little") or 1


def _inode(fd: int) -> int:
    """Return which socket *fd* is, 0 where it is none of ours: a number may be anything in another process."""
    try:
        found = os.fstat(fd)
    except OSError:
        return 0
    return found.st_ino if stat.S_ISSOCK(found.st_mode) else 0


def _size_bytes(places: int) -> int:
    words = _HEADER_WORDS + _COUNT_ROWS * (1 + places) + 2 * _MOMENT_ROWS
    return -(-words * _WORD // mmap.PAGESIZE) * mmap.PAGESIZE


def _write_header(memory: mmap.mmap, workers: int, places: int, ends: list[tuple[int, int]]) -> None:
    key = secrets.token_bytes(_KEY_BYTES)
    words = [_MAGIC, workers, places, *(word for pair in ends for end in pair for word in (end, _inode(end)))]
    packed = struct.pack(f"={len(words)}Q", *words)
    memory[: 3 * _WORD] = packed[: 3 * _WORD]
    memory[_KEY_AT : _KEY_AT + _KEY_BYTES] = key
    memory[_ENDS_AT * _WORD : _ENDS_AT * _WORD + len(packed) - 3 * _WORD] = packed[3 * _WORD :]
