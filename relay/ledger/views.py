"""What was accepted, in the embedded store: reading it, what its recipient does with it, and listings."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from relay.errors import Refused
from relay.ledger.endings import CHUNKS_MOST
from relay.ledger.lineage import find_former, is_own
from relay.ledger.records import EntryRow, ListingCursor, ListingPage, Shelf, StoredPayload
from relay.ledger.rows import to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event, transfer_sql
from relay.ledger.words import refuse_ended
from relay.lifecycle import State, Step, advance
from relay.model import EventKind, Identity, OfficeNumber, PayloadId, PayloadUid, Transfer, TransferId, fold_name
from relay.ranges import keep_longest, merge_ranges

if TYPE_CHECKING:
    from relay.ledger.rows import Cell, Row

# Entries a page: some two milliseconds of the event loop.
_PAGE_ENTRIES = 512
# Above this a chunk is read in a thread; below it, crossing to one costs more than reading.
_INLINE_BYTES = 65_536
# Transfers that a thread reads before others get their turn: some 20 milliseconds.
_PAGE_TRANSFERS = 1000
# Rows a transaction, so that nobody waits behind many.
_LEAVING_ROWS = 256


class ViewVerbs:
    """The verbs of `relay.ledger.Ledger` that look at transfers, and those of collection."""

    _store: Store
    _sent_listed: timedelta

    async def open_payload(self, transfer: TransferId) -> StoredPayload:
        row = self._store.row(SQL["find_payload"], (transfer,))
        if row is None:
            raise LookupError(transfer)
        number, uid, wrapped, size, chunks = row
        return StoredPayload(
            PayloadId(number),
            PayloadUid(uid),
            wrapped,
            size,
            chunks,
        )

    async def read_chunk(self, payload: StoredPayload, number: int) -> bytes:
        return (await self.read_chunks(payload, range(number, number + 1), _as_it_is))[0]

    async def read_chunks(
        self, payload: StoredPayload, numbers: range, opened: Callable[[int, bytes], bytes]
    ) -> list[bytes]:
        def read(rows: Callable[[str, Sequence[Cell]], list[Row]]) -> list[bytes]:
            return [
                _open_chunk(rows(SQL["read_chunk"], (payload.id * CHUNKS_MOST + number,)), number, opened)
                for number in numbers
            ]

        if payload.size_bytes <= _INLINE_BYTES:
            return read(self._store.rows)
        return await self._store.at_once(lambda: read(self._store.rows_here))

    async def record_served(
        self, transfer: TransferId, ranges: Sequence[tuple[int, int]], *, identity: Identity, now: datetime
    ) -> Transfer:
        def work(connection: sqlite3.Connection) -> Transfer:
            found = self._of_recipient(connection, transfer, identity)
            refuse_ended(found)
            if found.state is not State.ACCEPTED:
                return found
            row = connection.execute(SQL["find_served"], (transfer,)).fetchone()
            covered = keep_longest(merge_ranges([*ranges, *(json.loads(row[0]) if row else [])]))
            if covered != [(0, found.size_bytes)]:
                connection.execute(SQL["put_served"], (transfer, json.dumps(covered)))
                if row is None:
                    append_event(
                        connection, EventKind.READ, now, actor=identity.office, office=found.sender, transfer=transfer,
                        detail="in part",
                    )  # fmt: skip
                return found
            connection.execute(SQL["mark_collected"], (advance(found.state, Step.COLLECT), to_cell(now), transfer))
            if row:
                connection.execute(SQL["delete_served"], (transfer,))
            append_event(
                connection, EventKind.COLLECTED, now, actor=identity.office, office=found.sender, transfer=transfer,
                detail=str(identity.certificate_serial),
            )  # fmt: skip
            return self._of_recipient(connection, transfer, identity)

        return await self._store.change(work)

    async def move_shelf(
        self, transfer: TransferId, to: Shelf, *, identity: Identity, now: datetime, may_discard: bool = False
    ) -> Transfer:
        def work(connection: sqlite3.Connection) -> Transfer:
            found = self._of_recipient(connection, transfer, identity, statement="find_shown")
            is_removal = to is Shelf.DONE
            if is_removal == found.is_removed:
                return found
            if is_removal and found.state is State.ACCEPTED:
                if not may_discard:
                    raise Refused("transfer.not_collected")
                connection.execute(
                    SQL["discard_transfer"], (advance(found.state, Step.DISCARD), to_cell(now), transfer)
                )
            else:
                connection.execute(SQL["set_shelf"], ("done" if is_removal else "receive", transfer))
            kind = EventKind.REMOVED if is_removal else EventKind.RESTORED
            append_event(connection, kind, now, actor=identity.office, office=found.sender, transfer=transfer)
            return self._of_recipient(connection, transfer, identity)

        return await self._store.change(work)

    def _of_recipient(
        self, connection: sqlite3.Connection, transfer: TransferId, identity: Identity, statement: str = "find_transfer"
    ) -> Transfer:
        """Return the transfer; LookupError where it is not *identity*'s, whatever led here."""
        row = connection.execute(transfer_sql(statement), (transfer,)).fetchone()
        found = None if row is None else self._store.names.transfer(row)
        if found is None or not is_own(connection, identity.office, found.recipient):
            raise LookupError(transfer)
        return found

    def version(self) -> int:
        row = self._store.row("PRAGMA data_version")
        assert row is not None
        return int(row[0])

    async def find_transfer(self, transfer: TransferId) -> Transfer | None:
        return self._maybe(self._store.row(transfer_sql("find_transfer"), (transfer,)))

    async def find_sent(self, sender: OfficeNumber, recipient: OfficeNumber, name: str) -> Transfer | None:
        key = self._store.vault.index("identity", sender, recipient, fold_name(name))
        return self._maybe(self._store.row(transfer_sql("find_by_identity"), (key,)))

    async def find_delivered(self, recipient: OfficeNumber, delivered_name: str) -> Transfer | None:
        found = self._find_delivered(recipient, delivered_name)
        if found is None:
            for former in find_former(self._store.rows, recipient):
                found = found or self._find_delivered(former, delivered_name)
        return found

    def _find_delivered(self, recipient: OfficeNumber, delivered_name: str) -> Transfer | None:
        key = self._store.vault.index("delivered", recipient, fold_name(delivered_name))
        return self._maybe(self._store.row(transfer_sql("find_by_delivered"), (key,)))

    def _maybe(self, row: Row | None) -> Transfer | None:
        return None if row is None else self._store.names.transfer(row)

    async def list_shelf(self, office: OfficeNumber, shelf: Shelf, cursor: ListingCursor | None = None) -> ListingPage:
        statement = "list_new" if shelf is Shelf.NEW else "list_shelf"
        return self._page(statement, cursor, as_sent=False, office=office, shelf=shelf.value)

    async def list_sent(
        self, office: OfficeNumber, folder: OfficeNumber | None, *, now: datetime, cursor: ListingCursor | None = None
    ) -> ListingPage:
        after = to_cell(now - self._sent_listed)
        return self._page(
            "list_outbox",
            cursor,
            as_sent=True,
            office=office,
            folder=folder,
            in_folder=folder is not None,
            collected_after=after,
        )

    def _page(self, statement: str, cursor: ListingCursor | None, *, as_sent: bool, **parameters: Cell) -> ListingPage:
        if cursor is None:
            newest = self._store.row(SQL["newest_transfer"])
            assert newest is not None
            office = OfficeNumber(str(parameters["office"]))
            # What came under an earlier number came earlier, and is read first.
            cursor = ListingCursor(newest[0], None, (*find_former(self._store.rows, office), office))
        sender, serial, number = cursor.key or ("", "", 0)
        rows = self._store.rows(
            transfer_sql(statement),
            {
                **parameters,
                "office": cursor.numbers[0],
                "newest": cursor.newest,
                "sender": sender,
                "serial": serial,
                "id": number,
                "limit": _PAGE_ENTRIES,
            },
        )
        entries = self._open_names(rows, as_sent=as_sent)
        if len(rows) < _PAGE_ENTRIES:
            rest = cursor.numbers[1:]
            return ListingPage(entries, ListingCursor(cursor.newest, None, rest) if rest else None)
        number, _, sender, _, serial, *_ = rows[-1]
        return ListingPage(entries, ListingCursor(cursor.newest, (sender, serial, number), cursor.numbers))

    def _open_names(self, rows: list[Row], *, as_sent: bool) -> Sequence[EntryRow]:
        """Return *rows* with the names that are sealed in them; those of the standard, which nearly all are, are not."""
        sealed = [row[0] for row in rows if row[1] is None]
        if not sealed:
            return rows
        read = self._store.names.entry_name
        found = self._store.rows(transfer_sql("list_names"), (json.dumps(sealed),))
        names = dict(read(row, as_sent=as_sent) for row in found)
        return [
            row if row[1] is not None else (row[0], names[row[0]], *row[2:])
            for row in rows
            # Between the two statements somebody may have deleted one.
            if row[1] is not None or row[0] in names
        ]

    async def leave_outbox(self, *, now: datetime) -> int:
        before, left = to_cell(now - self._sent_listed), 0
        while True:
            count = await self._store.change(lambda connection: _leave_outbox(connection, before), is_durable=False)
            left += count
            if count < _LEAVING_ROWS:
                return left

    async def list_receipted(self, office: OfficeNumber, *, since: datetime, until: datetime) -> list[TransferId]:
        cells = (office, to_cell(since), to_cell(until))
        rows = await self._store.in_thread(lambda: self._store.rows_here(SQL["list_receipted"], cells))
        return [TransferId(number) for (number,) in rows]

    async def list_receipt_months(self, office: OfficeNumber) -> list[str]:
        rows = await self._store.in_thread(lambda: self._store.rows_here(SQL["list_receipt_months"], (office,)))
        return [month for (month,) in rows]

    async def list_folders(self, office: OfficeNumber) -> list[OfficeNumber]:
        return [OfficeNumber(folder) for (folder,) in self._store.rows(SQL["list_folders"], (office,))]

    async def list_transfers(
        self,
        *,
        sender: OfficeNumber | None = None,
        recipient: OfficeNumber | None = None,
        state: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Transfer]:
        # Only what was asked for stands in the statement, or SQLite would use no index.
        given: dict[str, Cell] = {"sender": sender, "recipient": recipient, "state": state}
        conditions = [f"t.{column} = :{column}" for column, value in given.items() if value is not None]
        for name, moment, sign in (("since", since, ">="), ("until", until, "<")):
            if moment is not None:
                conditions.append(f"t.accepted_at {sign} :{name}")
                given[name] = to_cell(moment)
        where = " AND ".join(conditions) or "1"
        if limit is not None and limit <= _PAGE_TRANSFERS:
            rows = self._store.rows(transfer_sql("list_transfers", where=where), {**given, "limit": limit})
            return [self._store.names.transfer(row) for row in rows]
        return await self._read_many(SQL["list_transfer_ids"].format(where=where), given, limit)

    async def _read_many(self, sql: str, given: dict[str, Cell], limit: int | None) -> list[Transfer]:
        """Read transfers page by page in threads: there may be 100,000, and others need these threads in between."""
        store = self._store
        ids = await store.in_thread(lambda: [number for (number,) in store.rows_here(sql, given)][:limit])
        found: list[Transfer] = []
        for start in range(0, len(ids), _PAGE_TRANSFERS):
            page = json.dumps(ids[start : start + _PAGE_TRANSFERS])
            found += await store.in_thread(partial(self._read_page, page))
        return found

    def _read_page(self, ids: str) -> list[Transfer]:
        rows = self._store.rows_here(transfer_sql("list_transfers_by_id"), {"ids": ids})
        return [self._store.names.transfer(row) for row in rows]

    async def oldest_fact(self, office: OfficeNumber) -> datetime | None:
        row = await self._store.row_in_thread(SQL["oldest_fact"], (office,))
        return None if row is None or row[0] is None else to_time(row[0])


def _leave_outbox(connection: sqlite3.Connection, before: int) -> int:
    return connection.execute(SQL["leave_outbox"], (before, _LEAVING_ROWS)).rowcount


def _open_chunk(rows: Sequence[Row], number: int, opened: Callable[[int, bytes], bytes]) -> bytes:
    if not rows:
        raise LookupError(number)
    sealed: bytes = rows[0][0]
    return opened(number, sealed)


def _as_it_is(_: int, sealed: bytes) -> bytes:
    return sealed
