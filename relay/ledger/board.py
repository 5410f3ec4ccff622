"""Notices in the embedded store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from relay.ledger.bulletin import Notice
from relay.ledger.rows import to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event, transfer_sql
from relay.model import RELAY_ACTOR, EventKind, OfficeNumber, Transfer, TransferId

if TYPE_CHECKING:
    from relay.ledger.rows import Cell, Row

# Rows a transaction.
_STEP_ROWS = 32


class BoardVerbs:
    """The verbs of `relay.ledger.bulletin.Bulletin`."""

    _store: Store

    async def add_notice(self, notice: Notice, *, actor: str, now: datetime) -> int:
        return await self._store.change(lambda connection: put_notice(connection, notice, actor, now))

    async def remove_notice(self, number: int, *, actor: str, now: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL["delete_notice"], (number,)).rowcount != 1:
                return False
            append_event(connection, EventKind.NOTICE_REMOVED, now, actor=actor, detail=f"notice {number}")
            return True

        return await self._store.change(work)

    async def list_notices(self) -> Sequence[Notice]:
        return [_notice_of(row) for row in self._store.rows(SQL["list_notices"])]

    async def list_notices_for(self, office: OfficeNumber, *, now: datetime) -> Sequence[Notice]:
        return [_notice_of(row) for row in self._store.rows(SQL["list_notices_for"], (to_cell(now), office))]

    async def give_notices(self, tenths: int, *, before: datetime, now: datetime) -> int:
        numbers = await self._store.numbers_due("list_unnoticed", before, tenths)
        count = 0
        for start in range(0, len(numbers), _STEP_ROWS):
            step = numbers[start : start + _STEP_ROWS]
            count += await self._store.change(partial(_give_notices, numbers=step, tenths=tenths, now=now))
        return count

    async def forget_notices(self) -> int:
        numbers = await self._numbers("list_over_notices", ())
        for start in range(0, len(numbers), _STEP_ROWS):
            cells = [(number,) for number in numbers[start : start + _STEP_ROWS]]
            await self._store.change(partial(_delete_many, statement="forget_expiry_notices", cells=cells))
        return len(numbers)

    async def list_noticed(self, office: OfficeNumber, *, limit: int) -> Sequence[Transfer]:
        store = self._store

        def read() -> list[Transfer]:
            rows = store.rows_here(transfer_sql("list_noticed"), (office, limit))
            return [store.names.transfer(row) for row in rows]

        return await store.in_thread(read)

    async def has_noticed(self, office: OfficeNumber) -> bool:
        row = self._store.row(SQL["has_noticed"], (office,))
        return row is not None and bool(row[0])

    async def forget_notes(self, *, before: datetime) -> int:
        cells = (to_cell(before),)
        return await self._store.change(
            lambda connection: connection.execute(SQL["forget_old_notes"], cells).rowcount, is_durable=False
        )

    async def forget_refusals(self, *, before: datetime) -> int:
        count = 0
        while numbers := await self._numbers("list_old_refusals", (to_cell(before), _STEP_ROWS)):
            cells = [(number, to_cell(before)) for number in numbers]
            await self._store.change(partial(_delete_many, statement="delete_refusal", cells=cells))
            count += len(numbers)
        return count

    async def _numbers(self, statement: str, cells: Sequence[Cell]) -> list[int]:
        store = self._store
        return await store.in_thread(lambda: [int(row[0]) for row in store.rows_here(SQL[statement], cells)])


def put_notice(connection: sqlite3.Connection, notice: Notice, actor: str, now: datetime) -> int:
    """Keep *notice* in the running transaction; returns its number."""
    until = None if notice.until_at is None else to_cell(notice.until_at)
    cells = (notice.title, notice.text, to_cell(notice.from_at), until, notice.office, notice.prefecture, notice.about)
    number = connection.execute(SQL["insert_notice"], cells).lastrowid
    assert number is not None
    connection.executemany(SQL["put_audience"], [(number, office) for office in notice.audience])
    append_event(connection, EventKind.NOTICE_ADDED, now, actor=actor, office=notice.office, detail=f"notice {number}")
    return number


def _give_notices(connection: sqlite3.Connection, *, numbers: Sequence[int], tenths: int, now: datetime) -> int:
    count = 0
    for number in numbers:
        if connection.execute(SQL["put_expiry_notice"], (number, tenths)).rowcount == 1:
            append_event(
                connection, EventKind.EXPIRY_NOTICED, now, actor=RELAY_ACTOR, transfer=TransferId(number),
                detail=f"{tenths}/10",
            )  # fmt: skip
            count += 1
    return count


def _delete_many(connection: sqlite3.Connection, *, statement: str, cells: Sequence[tuple[int, ...]]) -> None:
    connection.executemany(SQL[statement], cells)


def _notice_of(row: Row) -> Notice:
    number, title, text, begins, ends, office, prefecture, about = row
    return Notice(
        title,
        text,
        to_time(begins),
        None if ends is None else to_time(ends),
        None if office is None else OfficeNumber(office),
        prefecture,
        number,
        None if about is None else OfficeNumber(about),
    )
