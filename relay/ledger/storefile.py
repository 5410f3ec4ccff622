"""The store's file: where it lies, who may write to it now, and how a connection to it is opened.

Nobody opens the database but through here.  Three rules of DESIGN section 2 are kept in this module:

* **The lock.**  `StoreLock` is held from before BEGIN IMMEDIATE until COMMIT has returned, by every connection of
  every process that writes or checkpoints.  SQLite's own waiting is unfair, and before 3.51.3 several
  connections writing and checkpointing at once can lose commits.  What copies ahead of a checkpoint has the
  `FoldingLock` instead (`relay.ledger.foldahead` says why that is enough).
* **The disk.**  A network file system is refused: its locks and its syncs do not hold what SQLite needs.
* **The form.**  Page size, vacuum and secure deletion are set when the file is made, and never after.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from relay.errors import ConfigError, Deferred
from relay.ledger.bytelock import set_byte_lock
from relay.ledger.chain import WAL_FRAME, WAL_HEADER, parse_log_header
from relay.ledger.doubt import keep_log, write_anew
from relay.ledger.migrations import apply_step, check_form, load_steps, read_form
from relay.ledger.trail import WritingConnection
from relay.publishing import sync_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Connection = TypeVar("_Connection", bound=sqlite3.Connection)

# SQLite's primary result codes (https://sqlite.org/rescode.html).
_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_DISK, _SQLITE_CORRUPT, _SQLITE_NO_DATABASE = 5, 6, 10, 11, 26

_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ocfs2",
        "gfs2",
        "orangefs",
        "coda",
        # Folders of the machine outside, seen from a virtual one.
        "vboxsf",
        "prl_fs",
        "vmhgfs",
    }
)
_NETWORK_FUSE = (
    "fuse.sshfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.glusterfs",
    "fuse.davfs",
    "fuse.gcsfuse",
    "fuse.juicefs",
    "fuse.vmhgfs",
    "fuse.grpcfuse",
)
_SHAKY = ("tmpfs", "ramfs", "fuse")
# Up to the mount point, in which blanks and other marks are written as octal numbers.
_MOUNT_FIELDS = 5
_OCTAL = re.compile(r"\\([0-7]{3})")
# A waiting process looks this often; the lock is held for milliseconds.
_LOCK_POLL_SECONDS = 0.002
# Whoever comes first after a crash reads the whole log, and whoever leaves last writes it back; nobody can read until then.
_PEEK_SECONDS = 5.0


def check_disk(path: Path) -> str | None:
    """Return a warning about the file system under *path*, or None; ConfigError where it is a network's."""
    kind = parse_file_system(_mount_table(), path.resolve())
    if kind in _NETWORK or kind.startswith(_NETWORK_FUSE):
        raise ConfigError(
            f"The store {path} lies on a network file system ({kind}), where a file that was answered OK could be lost. "
            "Set store.path in relay.toml to a folder on a local disk."
        )
    if kind.startswith(_SHAKY):
        return f"The store {path} lies on {kind}: what is stored there may not survive a power cut."
    return None


def parse_file_system(mounts: str, target: Path) -> str:
    """Return the type of the file system that holds *target*, '' where *mounts* does not tell.

    *mounts* is the text of proc(5)'s mountinfo, *target* absolute and without symbolic links.
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < _MOUNT_FIELDS:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        # Of several mounts on one point the last is on top.
        if target.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind


def _mount_table() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


class LockedDeferred(Deferred):
    """Somebody kept the store for longer than it is waited for."""


class FoldingLock:
    """The lock of who folds the log or writes it anew; two objects keep each other out within a process as well.

    Who waits for it has the `StoreLock`, and who has it without that waits for nothing: so nobody waits in a circle.
    """

    def __init__(self, store: Path) -> None:
        self._file = os.open(lock_of(store), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it."""
        try:
            set_byte_lock(self._file, fcntl.F_WRLCK, 0, 1)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go of the lock."""
        set_byte_lock(self._file, fcntl.F_UNLCK, 0, 1)

    def close(self) -> None:
        """Close the file, which also lets go of the lock."""
        os.close(self._file)


class StoreLock:
    """The one file lock over all writing; one object a process, never carried over a fork."""

    def __init__(self, store: Path, wait_seconds: float) -> None:
        path = lock_of(store)
        self._folding = FoldingLock(store)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            self._folding.close()
            raise
        leave_to_owner(path)
        self._is_doubting = False
        self.wait_seconds = wait_seconds

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go of the lock."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, waiting in this thread; Deferred ``server.busy`` where somebody keeps it too long."""
        self._wait_for(self.try_acquire, "locked")
        try:
            yield
        finally:
            self.release()

    @contextmanager
    def folding(self) -> Iterator[None]:
        """Be the only one to fold the log or to write it anew; the lock is held.  Waits and gives up as `held` does."""
        self._wait_for(self._folding.try_acquire, "folded")
        try:
            yield
        finally:
            self._folding.release()

    def _wait_for(self, try_acquire: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.wait_seconds
        while not try_acquire():
            if time.monotonic() > deadline:
                raise LockedDeferred("server.busy", detail=f"the store was {what} for {self.wait_seconds} s")
            time.sleep(_LOCK_POLL_SECONDS)

    def doubt(self) -> None:
        """Tell all processes, and those that come later, that the disk may have forgotten something (see `relay.ledger.doubt`).

        A length needs no room on the disk, and stays in memory for as long as what is in doubt does.
        """
        try:
            os.ftruncate(self._file, 1)
        except OSError:
            # Then at least this process knows.
            self._is_doubting = True

    @property
    def is_doubted(self) -> bool:
        """True where anybody is in doubt."""
        return self._is_doubting or os.fstat(self._file).st_size > 0

    def doubt_no_more(self) -> None:
        """Know that the disk has everything; the lock is held."""
        os.ftruncate(self._file, 0)
        self._is_doubting = False

    def close(self) -> None:
        """Close the lock file, which also lets go of the lock."""
        self._folding.close()
        os.close(self._file)


def is_doubted(path: Path) -> bool:
    """True where the disk may have forgotten some of the store at *path*, and nobody could write it anew since."""
    try:
        return lock_of(path).stat().st_size > 0
    except OSError:
        return False


def settle(path: Path, lock: StoreLock, *, is_open: bool = True) -> None:
    """See that the disk has what is in the store's log, and after a failure also what of it is in the store; *lock* is held.

    OSError where the disk still fails: the doubt then stays.  It stays as well unless *is_open*: where nobody has the store
    open, what it was in doubt for is not looked at, and the caller knows when that is so.
    """
    with lock.folding():
        # Looked at behind the wait: who copied meanwhile may have met what is to be doubted.
        is_doubted = lock.is_doubted
        write_anew(path, log_of(path), index_of(path) if is_open else None, is_doubted=is_doubted)
    if is_doubted and is_open:
        lock.doubt_no_more()


def leave_to_owner(path: Path) -> None:
    """Give what root has made to whoever owns the folder it is in: a service that is not root has to open it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        if path.stat().st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid)


def create_file(path: Path, page_bytes: int) -> None:
    """Make the store at *path*, whole or not at all; FileExistsError where there is one."""
    check_disk(path.parent)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A log without its store may hold what is not backed up, and would be played into the new one.
    for existing in (path, log_of(path)):
        if existing.exists():
            raise FileExistsError(existing)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for step in load_steps():
            apply_step(connection, step)
    finally:
        connection.close()
    draft.rename(path)
    sync_path(path.parent)


def open_checked(path: Path, wait_seconds: float) -> sqlite3.Connection:
    """Open the store for reading; ConfigError where there is none, it cannot be read, or has another form.

    The connection has read, and from then on no other one of this process is the last to close: only the last one
    writes the log back, which must not happen without the `StoreLock`.
    """
    if not path.exists():
        raise ConfigError(f"There is no store at {path}. Make one with `relay init`.")
    connection = _open_told(path)
    try:
        # Another process may be reading the log after a crash, or be the last one to leave.
        connection.execute(f"PRAGMA busy_timeout = {round(wait_seconds * 1000)}")
        form = read_form(connection)
        connection.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error as error:
        connection.close()
        raise _unreadable(path, error) from error
    try:
        check_form(path, form)
    except ConfigError:
        connection.close()
        raise
    return connection


# For who reads what does not hold together while the disk may have forgotten something.
GAP_ADVICE = (
    "The disk may have forgotten what was not yet answered OK: stop the relay, start it again, and look once more. "
    "Only if it is then still so, put the newest backup in its place with `relay restore FILE`."
)


@contextmanager
def peeked(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store, whatever its form, for a look; ConfigError where there is none or it cannot be read."""
    if not path.exists():
        raise ConfigError(f"There is no store at {path}. Make one with `relay init`.")
    connection = _open_told(path)
    try:
        connection.execute(f"PRAGMA busy_timeout = {round(_PEEK_SECONDS * 1000)}")
        yield connection
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    finally:
        # Whoever keeps the lock has the store open: this one then is not the last to close.
        lock = StoreLock(path.resolve(), 0.0)
        with suppress(Deferred, OSError), lock.held():
            if lock.is_doubted:
                settle(path.resolve(), lock)
            connection.close()
        if lock.is_doubted:
            keep_log(path)
        connection.close()
        lock.close()


def _open_told(path: Path) -> sqlite3.Connection:
    try:
        return open_reader(path)
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: sqlite3.Error) -> ConfigError:
    return ConfigError(f"The store {path} cannot be read ({error}). {_unreadable_advice(path, error)}")


def _unreadable_advice(path: Path, error: sqlite3.Error) -> str:
    if is_busy(error):
        return "Another program keeps it; end that one, then try again."
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (_SQLITE_CORRUPT, _SQLITE_NO_DATABASE):
        if is_doubted(path):
            return GAP_ADVICE
        return "It is damaged: look at the disk, then put the newest backup in its place with `relay restore FILE`."
    return "Look at the disk and at who may read the file and write to its folder; if it is damaged, restore it from a backup."


def is_busy(error: Exception) -> bool:
    """True where another program had the store at that moment, and nothing is wrong with it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (_SQLITE_BUSY, _SQLITE_LOCKED)


def is_disk_failure(error: BaseException) -> bool:
    """True where SQLite met a failure of the disk, of a sync among others."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == _SQLITE_DISK


def open_writer(path: Path) -> WritingConnection:
    """Open a connection for writing; every use of it needs the `StoreLock`, closing it included, but in `relay.ledger.foldahead`."""
    connection = _open(path, "rw", WritingConnection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -16384")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write; in WAL mode it waits for nobody."""
    connection = _open(path, "rw", sqlite3.Connection)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _open(path: Path, mode: str, kind: type[_Connection]) -> _Connection:
    # Used by one thread at a time, not always by the one that opened it: hence check_same_thread.
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=0,
        factory=kind,
    )
    connection.execute("PRAGMA busy_timeout = 0")
    return connection


def checkpoint(connection: sqlite3.Connection, mode: str = "TRUNCATE") -> bool:
    """Move what is in the log into the database file; the caller holds the `FoldingLock` and, but for PASSIVE, the `StoreLock`.

    PASSIVE leaves the log as it is, RESTART lets the next commit overwrite it from its beginning, TRUNCATE makes it empty.
    False where a reader keeps it from that.
    """
    (row,) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    return not row[0]


def wal_bytes(path: Path) -> int:
    """Return the size of the write-ahead log's file, 0 where it cannot be told."""
    try:
        return log_of(path).stat().st_size
    except OSError:
        return 0


def is_wal_longer(path: Path, most_bytes: int) -> bool:
    """True where more than *most_bytes* of the log have been written since it was last begun; False where it cannot be told.

    Behind what was written since may lie what was written before.  What tells them apart are the salts (SQLite's
    Database File Format, section 4): those of a frame are those of the log's header until it is begun anew.
    """
    if wal_bytes(path) <= most_bytes:
        return False
    try:
        with log_of(path).open("rb", buffering=0) as file:
            page_bytes, salts = parse_log_header(file.read(WAL_HEADER.size))
            if not page_bytes:
                return False
            frame_bytes = WAL_FRAME.size + page_bytes
            file.seek(WAL_HEADER.size + most_bytes // frame_bytes * frame_bytes)
            frame = file.read(WAL_FRAME.size)
    except OSError:
        return False
    return len(frame) == WAL_FRAME.size and WAL_FRAME.unpack(frame)[1] == salts


def lock_of(path: Path) -> Path:
    """Return where the lock of the store at *path* lies."""
    return path.with_name(path.name + ".lock")


def log_of(path: Path) -> Path:
    """Return where the write-ahead log of the store at *path* lies."""
    return path.with_name(path.name + "-wal")


def index_of(path: Path) -> Path:
    """Return where the index of that log lies, while somebody has the store open."""
    return path.with_name(path.name + "-shm")
