"""The form of the store: numbered steps, forward only, each whole or not at all.

A step is a file ``sql/NNNN_words.sql``; its first comment says in one line what it brings.  A new store is made by
carrying out all of them, so that a store that grew and a store that was made today cannot differ.  A step that was
released is never edited: what it did wrong is mended by the next one.

A store says its form in ``meta.schema_version``.  One that is older is brought forward by `upgrade_store`, which the
operator asks for (``relay db upgrade``) while nobody else has the store open; one that is newer is refused, because
this program cannot know what its rows promise.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from relay.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_FILE = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the store's form; *title* is what it brings, in a line."""

    number: int
    title: str
    sql: str


@cache
def load_steps() -> tuple[Step, ...]:
    """Return all steps this program knows, from 1 without a gap."""
    steps = []
    for file in resources.files("relay.ledger").joinpath("sql").iterdir():
        if match := _FILE.fullmatch(file.name):
            sql = file.read_text("utf-8")
            title = sql.partition("\n")[0].removeprefix("--").partition(".  ")[0].strip().rstrip(".")
            steps.append(Step(int(match[1]), title, sql))
    steps.sort(key=lambda step: step.number)
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise AssertionError(f"the steps of the store's form are not numbered 1, 2, …: {[s.number for s in steps]}")
    return tuple(steps)


def newest_form() -> int:
    """Return the form that this program reads and writes."""
    return len(load_steps())


def read_form(connection: sqlite3.Connection) -> int | None:
    """Return the form of an open store, None where the file is SQLite's but not a store; sqlite3.Error otherwise."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return None
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return None if row is None else int(row[0])


def check_form(path: Path, form: int | None) -> None:
    """ConfigError, with what to do, where the store at *path* has not the form that this program needs."""
    newest = newest_form()
    if form is None:
        raise ConfigError(
            f"{path} is a database, but no store of a relay. Set store.path in relay.toml to the right file."
        )
    if form > newest:
        raise ConfigError(
            f"The store {path} was last used by a newer relay (its form is {form}, this one knows forms up to {newest}). "
            "Install that version again, or restore a backup from before the upgrade."
        )
    if form < newest:
        raise ConfigError(
            f"The store {path} was made by an older relay (its form is {form}, this one needs {newest}). "
            "Stop the relay, make a backup, then run `relay db upgrade`; with --dry-run it only says what it would do."
        )


def missing_steps(path: Path, form: int | None) -> tuple[Step, ...]:
    """Return what a store of *form* lacks; ConfigError where it is newer than this program, or no store."""
    if form is None or form > newest_form():
        check_form(path, form)
    return load_steps()[form or 0 :]


def apply_step(connection: sqlite3.Connection, step: Step) -> None:
    """Carry out *step* in a transaction of its own; after any exception the store is as it was before."""
    # A step may make a table anew that others refer to: what refers to nothing is looked for at the end instead.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{step.sql}")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (step.number,))
        _check_references(connection, step)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_references(connection: sqlite3.Connection, step: Step) -> None:
    if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise ConfigError(f"step {step.number} would leave a row of {broken[0]} that refers to nothing")


def upgrade_store(path: Path, on_step: Callable[[Step], None] = lambda _step: None) -> int:
    """Bring the store at *path* to the newest form; return how many steps that took.

    The caller holds the `StoreLock`.  *on_step* hears each step when it is done.  ConfigError where somebody else has
    the store open, where it is newer than this program, or where a step does not fit what is there: the store then
    has the form of the last step that was heard of, and is whole.
    """
    with _alone(path) as connection:
        steps = missing_steps(path, read_form(connection))
        for step in steps:
            try:
                apply_step(connection, step)
            except (sqlite3.Error, ConfigError) as error:
                raise ConfigError(
                    f"The store {path} could not be brought to form {step.number}, and has form {step.number - 1} as "
                    f"before: {error}. Nothing was lost; keep to the older version and report this."
                ) from error
            on_step(step)
    return len(steps)


def refuse_if_open(path: Path) -> None:
    """ConfigError where another program has the store open; one that cannot be read at all is in nobody's hands."""
    try:
        with _alone(path):
            pass
    except ConfigError as error:
        if isinstance(error.__cause__, sqlite3.OperationalError):
            raise


@contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store for nobody but the caller; ConfigError where another program has it open."""
    if not path.exists():
        raise ConfigError(f"There is no store at {path}. Make one with `relay init`.")
    with closing(
        sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0)
    ) as opened:
        try:
            # Every open store holds a shared lock on the file; exclusive mode is only had where there is none.
            opened.execute("PRAGMA locking_mode = EXCLUSIVE")
            opened.execute("PRAGMA synchronous = FULL")
            opened.execute("PRAGMA secure_delete = ON")
            opened.execute("BEGIN EXCLUSIVE")
            opened.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise ConfigError(
                f"The store {path} is open in another program ({error}). Stop the relay, then try again."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"The store {path} cannot be read ({error}). Restore it from a backup.") from error
        yield opened
        # The log is written back, and the next one to open the store need not be alone.
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
