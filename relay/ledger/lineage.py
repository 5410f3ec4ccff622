"""Which numbers an office had before, and which one it has now, in the embedded store.

A number that was changed stays in the register, and everything that was sent under it stays where it is: the office
looks under all its numbers instead.  So nothing of a receipt, a name or history changes with a number.

That a number follows another is the operator's word and forms no circle (`relay.ledger.closings`); still no
look-up here would go round for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from relay.ledger.rows import Cell, Row, office_of
from relay.ledger.statements import SQL
from relay.model import Office, OfficeNumber, OfficeStatus

_Ask = Callable[[str, tuple[Cell, ...]], list[Row]]
# More changes of one number than anybody lives to see.
_MOST = 100


def find_former(ask: _Ask, office: OfficeNumber) -> tuple[OfficeNumber, ...]:
    """Return the numbers that *office* had before, the earlier ones first."""
    found: list[OfficeNumber] = []
    front = [office]
    while front and len(found) < _MOST:
        rows = [row for number in front for row in ask(SQL["former_numbers"], (number,))]
        front = [OfficeNumber(number) for (number,) in rows if number != office and number not in found]
        found = [*front, *found]
    return tuple(found)


def former_in(connection: sqlite3.Connection, office: OfficeNumber) -> tuple[OfficeNumber, ...]:
    """Return the same inside a transaction."""
    return find_former(lambda sql, cells: connection.execute(sql, cells).fetchall(), office)


def find_last(ask: _Ask, office: Office) -> Office | None:
    """Return the office that *office*, whose number was changed, is now; None where it was not."""
    last = office
    for _ in range(_MOST):
        if last.status is not OfficeStatus.MOVED or last.end is None or last.end.successor is None:
            break
        rows = ask(SQL["find_office"], (last.end.successor,))
        if not rows:
            break
        last = office_of(rows[0])
    return None if last is office else last


def successor_in(connection: sqlite3.Connection, office: Office) -> Office | None:
    """Return the same inside a transaction."""
    return find_last(lambda sql, cells: connection.execute(sql, cells).fetchall(), office)


def is_own(connection: sqlite3.Connection, office: OfficeNumber, number: OfficeNumber) -> bool:
    """True where *number* is that of *office*, or was."""
    return office == number or number in former_in(connection, office)
