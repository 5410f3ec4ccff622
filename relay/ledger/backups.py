"""Backups of the store: made while it is in use, looked through before they count, and put back.

A backup is one SQLite file: the store as it was at one moment, whichever transactions were under way.  It holds no
key; a store goes with the keys of its time.  It appears under its name only when it is whole, on the disk, and was
opened and read through once.

Putting one back never destroys what is there: the store that it replaces is kept beside it.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay.errors import ConfigError
from relay.ledger import migrations, storefile
from relay.ledger.rows import to_cell, to_time
from relay.publishing import sync_path

_TAKEN_AT = "backup_at"
_NAME = re.compile(r"relay-([0-9]{8}T[0-9]{6}Z)\.db")
# Some megabytes between two looks at the clock: Ctrl-C and the progress bar wait no longer than for that.
_STEP_PAGES = 1024
# What was promised after a backup is not in it.  Numbers go on far behind any that were told to offices meanwhile.
_NUMBERS_SKIPPED = 1_000_000
_NUMBERED = ("transfer", "refusal")
# Backups in a folder: all of the newest, then one a day.
_DAYS_KEPT = 31


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds: *taken_at* the moment it shows, *master_id* the key it needs (None where nothing is sealed)."""

    path: Path
    taken_at: datetime
    size_bytes: int
    form: int
    transfers: int
    newest_at: datetime | None
    master_id: str | None


def make_backup(
    store: Path,
    target: Path,
    *,
    now: datetime,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Backup:
    """Copy the store to *target* as it is at this moment, and read the copy through.

    *progress* hears how many pages are copied, and of how many.  FileExistsError where *target* is there; ConfigError
    where the store cannot be read or the copy does not hold what it should: nothing then lies at *target*.
    """
    is_there = target.exists()
    if is_there and not overwrite:
        raise FileExistsError(target)
    draft = target.with_name(f".{target.name}.part")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        _copy(store, draft, now, progress)
        backup = inspect_backup(draft)
        sync_path(draft)
        draft.replace(target)
        _keep_name(target, is_new=not is_there)
    finally:
        for file in (draft, draft.with_name(draft.name + "-journal"), draft.with_name(draft.name + "-wal")):
            # What stays is in nobody's way: the next backup of that name removes it.
            with suppress(OSError):
                file.unlink(missing_ok=True)
    return Backup(
        target, backup.taken_at, backup.size_bytes, backup.form, backup.transfers, backup.newest_at, backup.master_id
    )


def _keep_name(target: Path, *, is_new: bool) -> None:
    """Make sure of the name *target*; where that cannot be, whoever is told so finds no file in the way of the next."""
    try:
        sync_path(target.parent)
    except OSError:
        if is_new:
            target.unlink(missing_ok=True)
        raise


def _copy(store: Path, draft: Path, now: datetime, progress: Callable[[int, int], None]) -> None:
    with storefile.peeked(store) as source, closing(sqlite3.connect(draft, isolation_level=None)) as target:
        # Inside a transaction of its own the source stands still, and what others write does not begin it anew.
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM meta").fetchone()
        with _copying(store, draft):
            source.backup(
                target, pages=_STEP_PAGES, progress=lambda _status, left, total: progress(total - left, total)
            )
            source.execute("COMMIT")
            target.execute("PRAGMA journal_mode = DELETE")
            target.execute(
                "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
                (_TAKEN_AT, to_cell(now)),
            )


@contextmanager
def _copying(source: Path, draft: Path) -> Iterator[None]:
    """Say as ConfigError which two files, and so which two disks, it is about where SQLite cannot go on."""
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigError(
            f"{source} cannot be copied to {draft.parent} ({error}). See whether there is room, and whether both disks are sound."
        ) from error


def inspect_backup(path: Path) -> Backup:
    """Read a backup through; ConfigError where it is none, is damaged, or was made by a newer relay."""
    if not path.is_file():
        raise ConfigError(f"There is no backup at {path}.")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            form = migrations.read_form(connection)
            migrations.missing_steps(path, form)
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise ConfigError(f"The backup {path} is damaged: {verdict}.")
            return _describe(path, connection, form or 0)
    except sqlite3.Error as error:
        raise ConfigError(f"The backup {path} cannot be read ({error}).") from error


def _describe(path: Path, connection: sqlite3.Connection, form: int) -> Backup:
    taken = connection.execute("SELECT value FROM meta WHERE key = ?", (_TAKEN_AT,)).fetchone()
    newest, count = connection.execute("SELECT max(accepted_at), count(*) FROM transfer").fetchone()
    has_masters = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'master_key'").fetchone()
    statement = "SELECT id FROM master_key WHERE ended_at IS NULL" if has_masters else "SELECT NULL WHERE 0"
    master = (
        connection.execute(statement).fetchone()
        or connection.execute("SELECT master_id FROM payload WHERE master_id IS NOT NULL LIMIT 1").fetchone()
    )
    stat = path.stat()
    return Backup(
        path,
        # A copy that somebody made in another way says at least when it was written.
        datetime.fromtimestamp(stat.st_mtime, UTC) if taken is None else to_time(taken[0]),
        stat.st_size,
        form,
        count,
        None if newest is None else to_time(newest),
        None if master is None else master[0],
    )


def restore_backup(backup: Backup, store: Path, *, now: datetime, lock_wait_seconds: float) -> Path | None:
    """Put *backup* in the place of the store; returns where the store that was there is kept, None where there was none.

    ConfigError where another program has the store open, OSError where it cannot be written.
    """
    storefile.check_disk(store.parent)
    if not store.parent.exists():
        store.parent.mkdir(mode=0o700, parents=True)
        storefile.leave_to_owner(store.parent)
    draft = store.with_name(f".{store.name}.restored")
    _prepare(backup.path, draft)
    storefile.leave_to_owner(draft)
    with _nobody_inside(store, lock_wait_seconds):
        aside = _set_aside(store, now)
        draft.replace(store)
        sync_path(store.parent)
    return aside


def _prepare(source: Path, draft: Path) -> None:
    """Copy the backup into the store's folder, and make of it a store that goes on behind what was promised."""
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with _copying(source, draft):
        _copy_back(source, draft)
    for name in (draft.name + "-wal", draft.name + "-shm"):
        draft.with_name(name).unlink(missing_ok=True)
    sync_path(draft)


def _copy_back(source: Path, draft: Path) -> None:
    uri = f"{source.resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as old, closing(sqlite3.connect(draft, isolation_level=None)) as new:
        old.backup(new)
        new.execute("BEGIN")
        new.execute("DELETE FROM meta WHERE key = ?", (_TAKEN_AT,))
        new.execute("UPDATE meta SET value = value + 1 WHERE key = 'register_version'")
        for table in _NUMBERED:
            new.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT ?1, 0 "
                "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
                (table,),
            )
            new.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ?", (_NUMBERS_SKIPPED, table))
        new.execute("COMMIT")
        new.execute("PRAGMA journal_mode = WAL")


@contextmanager
def _nobody_inside(store: Path, lock_wait_seconds: float) -> Iterator[None]:
    """Hold the lock of the store while nobody else has it open; ConfigError where somebody has."""
    lock = storefile.StoreLock(store, lock_wait_seconds)
    try:
        with lock.held():
            if store.exists():
                migrations.refuse_if_open(store)
            yield
    finally:
        lock.close()


def _set_aside(store: Path, now: datetime) -> Path | None:
    """Give the store, with its log, another name; it keeps its own until another one takes its place.

    The log has gone for certain before that: it would be played into the new one.
    """
    logs = [store.with_name(store.name + ending) for ending in ("-wal", "-shm")]
    if not store.exists():
        for log in logs:
            log.unlink(missing_ok=True)
        sync_path(store.parent)
        return None
    # One that was cut off in this very second has left its own.
    while (aside := store.with_name(f"{store.name}.replaced-{now:%Y%m%dT%H%M%SZ}")).exists():
        now += timedelta(seconds=1)
    for log in logs:
        if log.exists():
            log.rename(aside.with_name(aside.name + log.name.removeprefix(store.name)))
    # A second name, where the disk has such: at no moment is there no store.
    try:
        os.link(store, aside)
    except FileExistsError:
        raise
    except OSError:
        store.rename(aside)
    sync_path(store.parent)
    return aside


def list_backups(folder: Path) -> list[Path]:
    """Return the backups in *folder* that were named by `name_backup`, the oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def name_backup(now: datetime) -> str:
    """Return the name of a backup of that moment."""
    return f"relay-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.db"


def plan_removal(backups: Sequence[Path], keep: int) -> list[Path]:
    """Return which backups go: all but the newest *keep*, and the newest of each of the last days before those."""
    older = list(backups[: max(0, len(backups) - keep)])
    last_of_day = {path.name[6:14]: path for path in older}
    kept = set(sorted(last_of_day.values())[-_DAYS_KEPT:])
    # The day on which the newest ones begin has one among them.
    if len(backups) > len(older):
        kept.discard(last_of_day.get(backups[len(older)].name[6:14], Path()))
    return [path for path in older if path not in kept]
