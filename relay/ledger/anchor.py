"""The anchor: how far history had come, kept in a file outside the store.

A chain of batches cannot tell that its newest end is missing, or that the whole store is an older copy of itself.
The anchor can: it names the newest batch with its head, which stands for the heads of all writers, and is signed with
the key of the audit.  It is written anew every few seconds and when a process lets go of the store; only what is on
stable storage is ever named, so that no crash makes the store look as if something was taken from it.

The anchor only moves forward.  Where the store does not hold the batch that it names, it stays as it is, because it
is the evidence; it is an operator who accepts such a store (``relay audit accept``), and history says so.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relay.audit import AuditKey, Mark, read_mark, sign_head
from relay.errors import ConfigError
from relay.ledger.rows import Cell, Row
from relay.ledger.statements import SQL
from relay.ledger.trail import batch_of
from relay.publishing import PRIVATE_MODE, publish_file

ReadRows = Callable[[str, Sequence[Cell]], list[Row]]

_FORM = "careplan-relay audit anchor 1"
_LINES = 4
# Whoever has read a file of a kilobyte has seen all of an anchor.
_BYTES_MOST = 1024


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the file says."""

    mark: Mark
    written_at: datetime


class AnchorDamagedError(Exception):
    """The file is there and is no anchor that was written with this key."""


def read_anchor(path: Path, key: AuditKey) -> Anchor | None:
    """Return the anchor, None where there is none; AnchorDamagedError and OSError otherwise."""
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES_MOST).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    body, _, mac = text.rpartition("mac ")
    if not hmac.compare_digest(_sign(body, key).encode(), mac.strip().encode()):
        raise AnchorDamagedError
    lines = body.splitlines()
    if len(lines) != _LINES or lines[0] != _FORM:
        raise AnchorDamagedError
    return Anchor(read_mark(lines[1], key), datetime.fromisoformat(lines[2].partition(" ")[2]))


def write_anchor(path: Path, mark: Mark, key: AuditKey, now: datetime, owner: Path) -> None:
    """Put *mark* into the file, whole and synced; root leaves it to whoever owns the file *owner*."""
    body = f"{_FORM}\n{mark.write(key)}\nwritten {now.isoformat(timespec='seconds')}\n# made by the relay: keep it\n"
    publish_file(path, f"{body}mac {_sign(body, key)}\n".encode("ascii"), PRIVATE_MODE, overwrite=True)
    if os.geteuid() == 0:
        held = owner.stat()
        os.chown(path, held.st_uid, held.st_gid)


def _sign(body: str, key: AuditKey) -> str:
    return hmac.digest(key.key, b"careplan-relay audit anchor\n" + body.encode("ascii", "replace"), "sha256").hex()


class AnchorKeeper:
    """Keeps one anchor in step with the store; used by one thread at a time.

    *trouble* says, in words, why the anchor could not be moved forward, None while all is well.
    """

    def __init__(self, path: Path, store: Path, key: AuditKey) -> None:
        self.path = path
        self.trouble: str | None = None
        self._store = store
        self._key = key
        self._known: Mark | None = None

    def is_missing(self) -> bool:
        """Tell whether there is no anchor."""
        return not self.path.exists()

    def advance(self, rows: ReadRows) -> None:
        """Bring the anchor up to the newest batch; what keeps it from that is *trouble*, and raises nothing."""
        try:
            newest = newest_mark(rows, self._key)
            if newest is not None and newest == self._known and not self.is_missing():
                return
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.path.parent):
                old = read_anchor(self.path, self._key)
                if old is not None and not holds(rows, old.mark):
                    self.trouble = (
                        f"the store does not hold batch {old.mark.batch}, which the audit's anchor {self.path} of "
                        f"{old.written_at:%Y-%m-%d %H:%M:%S} UTC names: it was cut off, replaced by an older copy, or "
                        "restored from a backup; `relay audit verify` says more"
                    )
                    return
                if newest is not None and (old is None or old.mark.batch < newest.batch):
                    write_anchor(self.path, newest, self._key, datetime.now(UTC), self._store)
            self._known, self.trouble = newest, None
        except (AnchorDamagedError, ValueError):
            self.trouble = f"{self.path} is no anchor that was written with this relay's keys/audit.key"
        except OSError as error:
            self.trouble = f"the audit's anchor {self.path} cannot be written: {error.strerror}"

    def accept(self, rows: ReadRows) -> None:
        """Begin the anchor anew with the store as it is; OSError where that cannot be."""
        newest = newest_mark(rows, self._key)
        if newest is not None:
            with _locked(self.path.parent):
                write_anchor(self.path, newest, self._key, datetime.now(UTC), self._store)
        self._known, self.trouble = newest, None


def newest_mark(rows: ReadRows, key: AuditKey) -> Mark | None:
    """Return a mark of the newest batch, None where there is none; ValueError where that batch is no work of ours."""
    found = rows(SQL["newest_batch"], ())
    if not found:
        return None
    batch = batch_of(found[0])
    if not hmac.compare_digest(sign_head(batch.head, key), batch.mac):
        raise ValueError(batch.id)
    return Mark(batch.id, batch.last_event, batch.at, batch.head)


def holds(rows: ReadRows, mark: Mark) -> bool:
    """Tell whether the store has the very batch that *mark* names."""
    found = rows(SQL["find_batch"], (mark.batch,))
    return bool(found) and batch_of(found[0]).head == mark.head


def has_audit(store: Path) -> bool:
    """Tell whether history in the store at *store* was sealed already; False where there is no store to tell."""
    from relay.ledger import storefile

    if not store.exists():
        return False
    try:
        with storefile.peeked(store) as reader:
            known = reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit_batch'").fetchone()
            return known is not None and reader.execute(SQL["newest_batch"]).fetchone() is not None
    except (ConfigError, sqlite3.Error):
        # Whoever opens it for good says what is wrong with it.
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time look at the anchor and replace it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
