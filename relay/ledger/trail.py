"""The trail: history as it is written and sealed, inside the transaction of what it tells.

Every connection that writes has a trail.  `append_event` writes an event and adds it to the trail's running digest;
before COMMIT the group commit calls `Trail.seal` once, which binds all events of the transaction into one batch (see
`relay.audit`).  Events and batch are committed together, so that a crash leaves both or neither.

A trail is one writer of the audit.  It goes with its connection: after a COMMIT that failed nobody knows whether it
took place, so the next connection begins a new one instead of going on behind what may not be there.

The embedded store has one writer at a time by its lock, under which the newest batch of all writers is looked up; no
lock is taken for the audit.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from dataclasses import replace
from datetime import datetime

from relay.audit import NO_HEAD, AuditKey, Batch, EventRow, sign_head
from relay.ledger.rows import to_cell
from relay.ledger.statements import SQL
from relay.model import EventKind, OfficeNumber, TransferId


class WritingConnection(sqlite3.Connection):
    """A connection that may write; its trail is set by the group commit that opens it."""

    trail: Trail | None = None


class Trail:
    """The events of the running transaction, and the batches that this writer has sealed."""

    def __init__(self, key: AuditKey) -> None:
        self._key = key
        self._rows = hashlib.sha256()
        self._first: int | None = None
        self._last = 0
        # Of the newest committed batch, and of the one that the running transaction will make that.
        self._own: Batch | None = None
        self._made: Batch | None = None

    @property
    def has_events(self) -> bool:
        """True where the running transaction has written history."""
        return self._first is not None

    def add(self, row: EventRow) -> None:
        """Take an event of the running transaction into its batch."""
        if self._first is None:
            self._first = row.id
        self._last = row.id
        self._rows.update(row.encode())

    def seal(self, connection: sqlite3.Connection) -> None:
        """Write the batch of the running transaction, right before its COMMIT; does nothing where it has no event."""
        if self._first is None:
            return
        row = connection.execute(SQL["newest_batch"]).fetchone()
        newest = None if row is None else batch_of(row)
        if newest is None:
            self._take_in_older(connection)
        number = 1 if newest is None else newest.id + 1
        own = self._own
        batch = Batch(
            id=number,
            writer=number if own is None else own.writer,
            number=1 if own is None else own.number + 1,
            first_event=self._first,
            last_event=self._last,
            at=time.time_ns() // 1_000,
            key_id=self._key.id,
            previous=NO_HEAD if newest is None else newest.head,
            own_previous=NO_HEAD if own is None else own.head,
        )
        head = batch.compute_head(self._rows.digest())
        self._made = batch = replace(batch, head=head, mac=sign_head(head, self._key))
        connection.execute(
            SQL["insert_batch"],
            (batch.id, batch.writer, batch.number, batch.first_event, batch.last_event, batch.at, batch.key_id,
             batch.previous, batch.own_previous, batch.head, batch.mac),
        )  # fmt: skip

    def _take_in_older(self, connection: sqlite3.Connection) -> None:
        """Let the first batch of a store also hold what was written before there was an audit."""
        self._rows = hashlib.sha256()
        for number, row in enumerate(connection.execute(SQL["list_event_rows"], (0, self._last, -1))):
            event = event_row_of(row)
            if number == 0:
                self._first = event.id
            self._rows.update(event.encode())

    def settle(self) -> None:
        """Know that the transaction was committed."""
        if self._first is not None:
            self._own, self._made = self._made, None
            self._rows, self._first = hashlib.sha256(), None


def append_event(
    connection: sqlite3.Connection,
    kind: EventKind,
    now: datetime,
    *,
    actor: str,
    office: OfficeNumber | None = None,
    transfer: TransferId | None = None,
    detail: str = "",
) -> int:
    """Write a line of history in the running transaction, and return its number.

    The transaction must be one of `relay.ledger.commit.Writer`, which seals it.
    """
    assert isinstance(connection, WritingConnection)
    assert connection.trail is not None
    at = to_cell(now)
    number = connection.execute(SQL["insert_event"], (at, kind.value, actor, office, transfer, detail)).lastrowid
    assert number is not None
    office_bytes = None if office is None else office.encode()
    connection.trail.add(
        EventRow(number, at, kind.value.encode(), actor.encode(), office_bytes, transfer, detail.encode())
    )
    return number


def batch_of(row: tuple[object, ...]) -> Batch:
    """Read the columns of ``newest_batch``; what somebody put there need not have their types."""
    cells = [cell.decode("utf-8", "surrogateescape") if number == _KEY_ID and isinstance(cell, bytes) else cell
             for number, cell in enumerate(row)]  # fmt: skip
    return Batch(*cells)  # type: ignore[arg-type]


# The place of key_id among the columns: text, where the reader asks for bytes.
_KEY_ID = 6


def event_row_of(row: tuple[object, ...]) -> EventRow:
    """Read the columns of ``list_event_rows``."""
    return EventRow(*(cell.encode() if isinstance(cell, str) else cell for cell in row))  # type: ignore[arg-type]
