"""The audit in the embedded store: history that changes nothing else, the anchor, and reading it all for a judgement."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from relay.audit import Batch, EventRow
from relay.errors import ConfigError
from relay.keymaking import publish_audit_key
from relay.keyring import AUDIT_FILE
from relay.ledger import storefile
from relay.ledger.anchor import has_audit
from relay.ledger.migrations import check_form, read_form
from relay.ledger.rows import Cell, Row
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event
from relay.ledger.trail import batch_of, event_row_of
from relay.model import EventKind, OfficeNumber, TransferId

# Rows a statement: no read lasts longer than a few milliseconds, so that the log can be emptied in between.
_PAGE_ROWS = 4_096
_GUARDS = frozenset(
    f"{table}_is_append_only_{what}" for table in ("event", "audit_batch") for what in ("update", "delete", "insert")
)


_CONDITIONS = {
    "office": "(office = :office OR actor = :office)",
    "actor": "actor IN (:actor, 'operator ' || :actor)",
    "kind": "kind = :kind",
    "transfer": "transfer = :transfer",
    "since": "at >= :since",
    "until": "at < :until",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events to show; None asks for nothing.  Times are microseconds since 1970."""

    office: str | None = None
    actor: str | None = None
    kind: str | None = None
    transfer: int | None = None
    since: int | None = None
    until: int | None = None


class AuditVerbs:
    """The verbs of `relay.ledger.Ledger` that write history alone and keep the anchor."""

    _store: Store

    async def record_event(self, kind: EventKind, *, actor: str, detail: str, now: datetime) -> None:
        def work(connection: sqlite3.Connection) -> None:
            append_event(connection, kind, now, actor=actor, detail=detail)

        await self._store.change(work)

    def note_event(
        self,
        kind: EventKind,
        *,
        actor: str,
        now: datetime,
        office: OfficeNumber | None = None,
        transfer: TransferId | None = None,
        detail: str = "",
    ) -> None:
        def work(connection: sqlite3.Connection) -> None:
            append_event(connection, kind, now, actor=actor, office=office, transfer=transfer, detail=detail)

        self._store.ride(work)

    async def count_batches(self) -> int:
        row = self._store.row(SQL["newest_batch"])
        return 0 if row is None else int(row[0])

    async def advance_anchor(self) -> str | None:
        return await self._store.advance_anchor()

    @property
    def anchor_trouble(self) -> str | None:
        return None if self._store.keeper is None else self._store.keeper.trouble

    async def accept_store(self, *, actor: str, detail: str, now: datetime) -> None:
        await self.record_event(EventKind.ANCHOR_ACCEPTED, actor=actor, detail=detail, now=now)
        keeper, store = self._store.keeper, self._store
        assert keeper is not None
        await store.in_thread(lambda: keeper.accept(store.rows_here))


def ensure_audit_key(keys: Path, store: Path) -> bool:
    """Make the key of the audit for a relay from before there was one; True where that was done.

    ConfigError where history was sealed with a key that is gone: a new one would make all of it look forged.
    """
    if not keys.is_dir() or (keys / AUDIT_FILE).exists():
        return False
    if has_audit(store):
        raise ConfigError(
            f"{keys / AUDIT_FILE} is missing, and the history in {store} is sealed with it: put it back from your backup"
        )
    publish_audit_key(keys)
    return True


# --- reading it all ----------------------------------------------------------------------------------------------


class History:
    """A store's history as it lies there, for a judgement or an export; reads only, a page at a time.

    What is written after it was opened is left out.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        # Somebody may have written what is no text; it has to be seen as it is.
        connection.text_factory = bytes
        self._connection = connection
        # One statement, one moment: no event of it may be newer than its batch.
        self.newest_batch, self.newest_event = connection.execute(SQL["newest_of_history"]).fetchone()

    def batches(self, after: int = 0) -> Iterator[Batch]:
        """Yield the batches in order."""
        while rows := self._page("list_batches", after, self.newest_batch, numbers=6):
            yield from map(batch_of, rows)
            after = rows[-1][0]

    def events(self, after: int = 0, until: int | None = None) -> Iterator[EventRow]:
        """Yield the events in order."""
        last = self.newest_event if until is None else until
        while rows := self._page("list_event_rows", after, last, numbers=2):
            yield from map(event_row_of, rows)
            after = rows[-1][0]

    def find_event(self, number: int) -> EventRow | None:
        """Return an event, None where there is none of that number."""
        row = self._connection.execute(SQL["find_event_row"], (number,)).fetchone()
        return None if row is None else event_row_of(row)

    def find_batch_of(self, number: int) -> Batch | None:
        """Return the batch that holds an event, None where none does."""
        low, high = 1, self.newest_batch
        while low <= high:
            middle = (low + high) // 2
            row = self._connection.execute(SQL["find_batch"], (middle,)).fetchone()
            if row is None:
                return None
            batch = batch_of(row)
            if batch.first_event <= number <= batch.last_event:
                return batch
            low, high = (middle + 1, high) if batch.last_event < number else (low, middle - 1)
        return None

    def select(self, wanted: Wanted, limit: int | None, *, oldest_first: bool) -> list[EventRow]:
        """Return the events that are *wanted*, newest first unless *oldest_first*."""
        conditions = [sql for name, sql in _CONDITIONS.items() if getattr(wanted, name) is not None]
        statement = SQL["list_oldest_history" if oldest_first else "list_newest_history"]
        cells = {name: getattr(wanted, name) for name in _CONDITIONS}
        sql = statement.format(where=" AND ".join(conditions) or "1")
        rows = self._connection.execute(sql, {**cells, "limit": -1 if limit is None else limit})
        return [event_row_of(row) for row in rows]

    def rows(self, sql: str, cells: Sequence[Cell]) -> list[Row]:
        """Return all rows of a quick look-up."""
        return self._connection.execute(sql, cells).fetchall()

    def missing_guards(self) -> frozenset[str]:
        """Return the triggers that keep history append-only and are not there."""
        found = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        return _GUARDS - {name.decode("utf-8", "replace") for (name,) in found}

    def _page(self, statement: str, after: int, last: int, *, numbers: int) -> list[tuple[int, ...]]:
        """Return rows, whose first *numbers* columns are numbers as long as the file is whole."""
        rows = self._connection.execute(SQL[statement], (after, last, _PAGE_ROWS)).fetchall()
        if any(None in row[:numbers] for row in rows):
            raise sqlite3.DatabaseError("it is damaged: there are rows in history without their numbers")
        return rows


@contextmanager
def open_history(path: Path) -> Iterator[History]:
    """Open the store at *path* for reading its history; ConfigError where it cannot be read."""
    with storefile.peeked(path) as connection:
        check_form(path, read_form(connection))
        yield History(connection)
