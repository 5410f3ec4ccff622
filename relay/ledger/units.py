"""Units in the embedded store: the parts that were committed with their transfers, read together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from relay.ledger.rows import to_cell
from relay.ledger.store import Store, transfer_sql
from relay.model import OfficeNumber, TransferId
from relay.unitparts import UnitPart

if TYPE_CHECKING:
    from relay.ledger.rows import Cell


class UnitVerbs:
    """The verbs of `relay.ledger.Ledger` that look at units."""

    _store: Store

    async def list_unit_parts(
        self,
        *,
        sender: OfficeNumber | None = None,
        recipient: OfficeNumber | None = None,
        serial: str | None = None,
        since: datetime | None = None,
        is_readable: bool = False,
    ) -> list[UnitPart]:
        sql, cells = _select("list_unit_parts", sender, recipient, serial, since)

        def read() -> list[UnitPart]:
            names = self._store.names
            return [names.unit_part(row, is_readable=is_readable) for row in self._store.rows_here(sql, cells)]

        return await self._store.in_thread(read)

    async def list_first_lines(
        self, *, sender: OfficeNumber | None = None, recipient: OfficeNumber | None = None, since: datetime
    ) -> Mapping[TransferId, str]:
        sql, cells = _select("list_first_lines", sender, recipient, None, since)

        def read() -> Mapping[TransferId, str]:
            names = self._store.names
            return dict(names.first_line(row) for row in self._store.rows_here(sql, cells))

        return await self._store.in_thread(read)


def _select(
    name: str,
    sender: OfficeNumber | None,
    recipient: OfficeNumber | None,
    serial: str | None,
    since: datetime | None,
) -> tuple[str, dict[str, Cell]]:
    # Only what was asked for stands in the statement, or SQLite would use no index; the shelves are all there are,
    # because the index that ends with the serial begins with them.
    given: dict[str, Cell] = {"sender": sender, "recipient": recipient, "serial": serial}
    conditions = [f"t.{column} = :{column}" for column, value in given.items() if value is not None]
    if serial is not None:
        conditions.append("t.shelf IN ('receive', 'done', 'none')")
    if since is not None:
        conditions.append("t.accepted_at >= :since")
    sql = transfer_sql(name, where=" AND ".join(conditions) or "1")
    return sql, {**given, "since": None if since is None else to_cell(since)}
