"""The embedded store: one reader, one writer and the vault, shared by all verbs of the ledger.

Lookups by key and pages of an index are read on the event loop: they take some ten microseconds where crossing
to a thread and back takes a hundred.  Large chunks are read in threads, because they may wait for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

from relay.audit import AuditKey
from relay.errors import ConfigError, Deferred
from relay.ledger import disktime, storefile
from relay.ledger.anchor import AnchorKeeper
from relay.ledger.commit import Writer
from relay.ledger.disktime import DiskTime
from relay.ledger.doubt import keep_log
from relay.ledger.rows import (
    CERTIFICATE_COLUMNS,
    DELIVERED_COLUMNS,
    NAME_COLUMNS,
    PARTIAL_COLUMNS,
    SENT_COLUMNS,
    TRANSFER_COLUMNS,
    Cell,
    NameReader,
    Row,
    to_cell,
)
from relay.ledger.statements import SQL
from relay.ledger.trail import append_event, batch_of
from relay.ledger.trouble import Ill, Trouble, TroubleLog, diagnose
from relay.model import OfficeNumber
from relay.vault import Vault, VaultError

__all__ = ["Store", "append_event", "transfer_sql"]

T = TypeVar("T")

_READ_THREADS = 2
# By so much a clock that was put right may have turned numbers and times of acceptance round; what it turned by more is
# due a little later.
_DISORDER = timedelta(days=1)
# Who has the trouble.
_READER = "reader"


class Store:
    """What the verbs stand on; see the module."""

    def __init__(
        self,
        path: Path,
        vault: Vault,
        writer: Writer,
        lock: storefile.StoreLock,
        reader: sqlite3.Connection,
        keeper: AnchorKeeper | None,
        troubles: TroubleLog,
    ) -> None:
        self.path = path
        self.keeper = keeper
        self.vault = vault
        self.names = NameReader(vault)
        self._writer = writer
        self._lock = lock
        self._reader = reader
        self._troubles = troubles
        self._is_closed = False
        self._threads = ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="read")
        self._read_time = DiskTime()
        self._of_thread = threading.local()
        self._thread_readers: list[sqlite3.Connection] = []

    def rows(self, sql: str, parameters: Sequence[Cell] | dict[str, Cell] = ()) -> list[Row]:
        """Return all rows of a quick look-up; Deferred where the store cannot be read."""
        try:
            found = self._reader.execute(sql, parameters).fetchall()
        except (sqlite3.Error, MemoryError) as error:
            raise self._fail(error) from error
        self._troubles.works(_READER)
        return found

    def _fail(self, error: Exception) -> Exception:
        """Return what to raise where the store could not be read, having told of it."""
        trouble = diagnose(error)
        if trouble is None:
            return error
        if trouble.ill is Ill.DAMAGED and self._lock.is_doubted:
            # Memory has lost some of the log: a start goes on with what is whole, and no backup is to take its place.
            trouble = Trouble(trouble.cause, Ill.GAP)
        self._troubles.failed(_READER, trouble)
        return trouble.deferred

    def row(self, sql: str, parameters: Sequence[Cell] | dict[str, Cell] = ()) -> Row | None:
        """Return the first row, or None."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def use_current_master(self, connection: sqlite3.Connection, now: datetime) -> str:
        """Make the vault wrap with the master key that the store has in use; returns its id.

        Called inside a transaction, before anything sealed by the vault itself is written in it.  Deferred where this
        process cannot have that key: it may not read ``keys/``, or has other ones.
        """
        row = connection.execute(SQL["master_in_use"]).fetchone()
        if row is None:
            connection.execute(SQL["put_master"], (self.vault.master_id, to_cell(now)))
        elif row[0] != self.vault.master_id:
            try:
                self.vault.use_master(row[0])
            except VaultError as error:
                raise Deferred("server.busy", detail=str(error)) from error
        return self.vault.master_id

    def check_master(self) -> None:
        """ConfigError where what lies in the store was sealed under keys that are not here."""
        row = self.row(SQL["master_in_use"]) or self.row(SQL["any_master_of_payload"])
        if row is None:
            return
        try:
            self.vault.use_master(row[0])
        except VaultError:
            raise ConfigError(
                f"The store {self.path} needs the master key {row[0]}, which is not in keys/. A store goes with the keys of "
                "its time: put back the backup of keys/ that was made before the key was rotated, or a newer store."
            ) from None

    def check_audit_key(self, key: AuditKey) -> None:
        """ConfigError where history was sealed with another key, as which it could never be verified again."""
        row = self.row(SQL["newest_batch"])
        if row is not None and batch_of(row).key_id != key.id:
            raise ConfigError(
                f"The history in the store {self.path} is sealed with another keys/audit.key (it is called "
                f"{batch_of(row).key_id}, this one {key.id}). Put back the audit.key that belongs to the store, from your "
                "backup of keys/."
            )

    def change(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        is_durable: bool = True,
        office: OfficeNumber | None = None,
        size_bytes: int = 0,
    ) -> asyncio.Future[T]:
        """Queue *work* for the next transaction (see `relay.ledger.commit.Writer.submit`)."""
        return self._writer.submit(work, is_durable=is_durable, office=office, size_bytes=size_bytes)

    def ride(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Let *work* go with the next transaction (see `relay.ledger.commit.Writer.ride`)."""
        self._writer.ride(work)

    async def advance_anchor(self) -> str | None:
        """Bring the anchor up to what is committed; returns what keeps it from that, in words."""
        keeper = self.keeper
        if keeper is None:
            return None
        try:
            await self.in_thread(lambda: keeper.advance(self.rows_here))
        except Deferred as deferred:
            return deferred.detail
        return keeper.trouble

    async def row_in_thread(self, sql: str, parameters: Sequence[Cell]) -> Row | None:
        """Return the first row, read where waiting for the disk holds up nobody."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._row_in_thread, sql, parameters)

    async def in_thread(self, read: Callable[[], T]) -> T:
        """Carry out *read*, which may use `rows_here`, in a thread: for many rows at once."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    async def at_once(self, read: Callable[[], T]) -> T:
        """Carry out *read* as `in_thread` does; the event loop stands still for it where such have been quick (`DiskTime`)."""
        asked = time.perf_counter()

        def carry_out() -> T:
            try:
                return read()
            finally:
                self._read_time.count(time.perf_counter() - asked)

        reading = self._threads.submit(carry_out)
        if self._read_time.is_quick:
            wait([reading], disktime.STILL_SECONDS)
            if not reading.done():
                # Known at once, not when it ends: those behind it must not stand still as long, one after the other.
                self._read_time.count(disktime.STILL_SECONDS)
        return reading.result() if reading.done() else await asyncio.wrap_future(reading)

    def _row_in_thread(self, sql: str, parameters: Sequence[Cell]) -> Row | None:
        return next(iter(self.rows_here(sql, parameters)), None)

    def rows_here(self, sql: str, parameters: Sequence[Cell] | dict[str, Cell]) -> list[Row]:
        """Return all rows, read by the connection of this thread, which must be one of `in_thread`."""
        try:
            reader: sqlite3.Connection | None = getattr(self._of_thread, "reader", None)
            if reader is None:
                reader = self._of_thread.reader = storefile.open_reader(self.path)
                self._thread_readers.append(reader)
            return reader.execute(sql, parameters).fetchall()
        except (sqlite3.Error, MemoryError) as error:
            raise self._fail(error) from error

    def newest_before(self, at: datetime) -> int:
        """Return the number of the last transfer accepted by then; in a thread of `in_thread`.

        Found by halving, because no index has the times: numbers ascend with them, but for clocks that were put right.
        """
        low, high, cell = 0, int(self.rows_here(SQL["newest_transfer"], ())[0][0]), to_cell(at)
        while low < high:
            middle = (low + high + 1) // 2
            row = next(iter(self.rows_here(SQL["nearest_accepted"], (middle,))), None)
            if row is None or row[1] <= cell:
                low = middle
            else:
                high = min(int(row[0]), middle) - 1
        return low

    async def numbers_due(self, statement: str, before: datetime, *cells: Cell) -> list[int]:
        """Return what *statement* finds of the transfers accepted before then.

        It gets that moment, *cells*, and last the number behind which none is looked up.
        """

        def read() -> list[int]:
            newest = self.newest_before(before + _DISORDER)
            if newest == 0:
                return []
            return [int(row[0]) for row in self.rows_here(SQL[statement], (to_cell(before), *cells, newest))]

        return await self.in_thread(read)

    async def close(self) -> None:
        """Write what is waiting and let go of everything; the second time there is nothing to do."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._writer.close()
        await self.advance_anchor()
        self._threads.shutdown()
        if self._lock.is_doubted:
            # The last connection to close would write back a log that is in doubt, and remove it: whoever comes next settles it.
            keep_log(self.path)
        # The last connection to close writes the log back and removes it: under the lock.  Where somebody else keeps
        # the lock, that one has the store open, and this is not the last.
        with contextlib.suppress(Deferred), self._lock.held():
            self._close_readers()
        self._close_readers()
        self._lock.close()

    def _close_readers(self) -> None:
        for reader in (*self._thread_readers, self._reader):
            reader.close()


@cache
def transfer_sql(name: str, **parts: str) -> str:
    """Return a statement of ``queries.sql`` with its column lists filled in."""
    columns = {"transfer": TRANSFER_COLUMNS, "sent": SENT_COLUMNS, "delivered": DELIVERED_COLUMNS, "name": NAME_COLUMNS,
               "partial": PARTIAL_COLUMNS, "certificate": CERTIFICATE_COLUMNS}  # fmt: skip
    return SQL[name].format(**columns, **parts)
