"""Figures in the embedded store: what waits and since when, who uses it, and with what."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from relay.ledger.figures import AGES, Backlog, KindUse, MonthUse, PrefectureUse, SoftwareUse, Waiting
from relay.ledger.rows import to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import Store
from relay.model import CertificateId, OfficeNumber, TransferId, fold_name

if TYPE_CHECKING:
    from relay.ledger.rows import Cell, Row

# Programs of one office in one month that are told apart, and characters of the name of one.
_PROGRAMS_MOST = 20
_SOFTWARE_CHARACTERS = 64
_JAPAN = timedelta(hours=9)


class CountingVerbs:
    """The verbs of `relay.ledger.figures.Figures`."""

    _store: Store

    def note_use(self, office: OfficeNumber, software: str, *, now: datetime) -> None:
        given = {"month": _month(now), "office": office, "software": name_software(software), "most": _PROGRAMS_MOST}
        self._store.ride(lambda connection: connection.execute(SQL["count_login"], given))

    async def count_waiting(self, *, now: datetime) -> list[Waiting]:
        return await self._store.in_thread(lambda: self._count_waiting(now))

    def _count_waiting(self, now: datetime) -> list[Waiting]:
        rows = self._store.rows_here(SQL["waiting_by_age"], self._bounds(now))
        oldest = json.dumps([row[-1] for row in rows])
        since = {number: to_time(at) for number, at in self._store.rows_here(SQL["accepted_times"], (oldest,))}
        return [Waiting(OfficeNumber(row[0]), tuple(row[1:-1]), since[row[-1]]) for row in rows if row[-1] in since]

    async def measure_backlog(self, *, now: datetime) -> Backlog:
        return await self._store.in_thread(lambda: self._measure_backlog(now))

    def _measure_backlog(self, now: datetime) -> Backlog:
        total, *younger, oldest = self._store.rows_here(SQL["waiting_in_all"], self._bounds(now))[0]
        if not total:
            return Backlog()
        times = self._store.rows_here(SQL["nearest_accepted"], (oldest,))
        # From how many are younger than each age to how many are of it.
        counts = tuple(more - fewer for fewer, more in pairwise((0, *younger, total)))
        return Backlog(counts, to_time(times[0][1]) if times else None)

    def _bounds(self, now: datetime) -> dict[str, Cell]:
        return {f"b{n}": self._store.newest_before(now - age) for n, age in enumerate(AGES)}

    async def probe(self) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["probe_store"])

        self._store.row(SQL["newest_transfer"])
        await self._store.change(work, is_durable=False)

    async def use_by_prefecture(self, *, since: datetime) -> list[PrefectureUse]:
        return [PrefectureUse(*row) for row in await self._rows("use_by_prefecture", _month(since))]

    async def use_by_month(self, *, since: datetime) -> list[MonthUse]:
        used = {row[0]: row[1:] for row in await self._rows("use_by_month", _month(since))}
        sent = {row[0]: row[1:] for row in await self._rows("transfers_by_month", to_cell(since))}
        months = sorted({*used, *sent})
        return [MonthUse(month, *used.get(month, (0, 0)), *sent.get(month, (0, 0, 0))) for month in months]

    async def use_by_kind(self, *, since: datetime) -> list[KindUse]:
        return [KindUse(*row) for row in await self._rows("transfers_by_kind", to_cell(since))]

    async def use_by_software(self, *, since: datetime) -> list[SoftwareUse]:
        return [SoftwareUse(*row) for row in await self._rows("use_by_software", _month(since))]

    async def _rows(self, statement: str, since: Cell) -> list[Row]:
        return await self._store.in_thread(lambda: self._store.rows_here(SQL[statement], {"since": since}))

    async def first_listed(self, transfer: TransferId, recipient: OfficeNumber) -> datetime | None:
        given: dict[str, Cell] = {"transfer": transfer, "office": recipient}
        rows = await self._store.in_thread(lambda: self._store.rows_here(SQL["first_listed"], given))
        return to_time(rows[0][0]) if rows and rows[0][0] is not None else None

    async def sent_with(self, transfer: TransferId) -> CertificateId | None:
        row = self._store.row(SQL["sent_with"], (transfer,))
        return None if row is None else CertificateId(*row)

    async def list_named(self, sender: OfficeNumber, recipient: OfficeNumber, name: str) -> Sequence[TransferId]:
        key = self._store.vault.index("identity", sender, recipient, fold_name(name))
        return [TransferId(number) for (number,) in self._store.rows(SQL["transfers_of_identity"], (key,))]


def name_software(client_version: str) -> str:
    """Return what a program calls itself, without ``SSH-2.0-``, fit for a column of a table."""
    name = client_version.removeprefix("SSH-2.0-").strip()
    return "".join(each if each.isprintable() else "?" for each in name[:_SOFTWARE_CHARACTERS]) or "unnamed"


def _month(at: datetime) -> str:
    return f"{at + _JAPAN:%Y-%m}"
