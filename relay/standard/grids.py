"""Grids: records of one length, read as columns of items.

Most files repeat themselves: the same persons, offices, dates and codes in every record.  So what costs much, telling
characters, quotation marks and forms, is done once for each different value of a column.

`read_grid` reads the plain case at once: if bytes are split at every comma and line end and then every value is
closed in itself, no comma and no line end can have been text.  It returns None for anything else, which then is read
record by record; it never judges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, repeat

from relay.standard.characters import is_plain
from relay.standard.items import COLUMN_END
from relay.standard.plans import Plan
from relay.standard.records import QUOTE

# What one record holds in some of its items.
Row = tuple[bytes, ...]


class Grid(ABC):
    """Records of one length, by columns; places count from 0.

    *records* are for telling two of them apart: the whole record without any quotation mark.
    """

    __slots__ = ("records",)

    def __init__(self, records: Sequence[bytes]) -> None:
        self.records = records

    @abstractmethod
    def values(self, place: int) -> AbstractSet[bytes]:
        """Return the different values of the column at *place*, with their quoting undone."""

    @abstractmethod
    def column(self, place: int) -> Sequence[bytes]:
        """Return the values of the column at *place*, one for each record, with their quoting undone."""

    @abstractmethod
    def is_right(self, plan: Plan) -> bool:
        """Say whether all items are right by *plan* beyond doubt; where it says no, they may be so all the same."""

    def distinct(self, places: Sequence[int]) -> Mapping[Row, None]:
        """Return the different rows that the records have in *places*, in order."""
        return dict.fromkeys(zip(*map(self.column, places), strict=True))


class ItemGrid(Grid):
    """Records of *width* items, taken apart into *items*; *values* are the different ones of each column."""

    __slots__ = ("_items", "_undone", "_values", "_width")

    def __init__(
        self,
        width: int,
        items: Sequence[bytes],
        values: Sequence[AbstractSet[bytes]],
        records: Sequence[bytes],
        undone: Mapping[int, Mapping[bytes, bytes]],
    ) -> None:
        super().__init__(records)
        self._width = width
        self._items = items
        self._values = values
        # For each column with quotation marks, what its values are without them.
        self._undone = undone

    def values(self, place: int) -> AbstractSet[bytes]:
        """Return the different values of the column at *place*, with their quoting undone."""
        return self._values[place]

    def column(self, place: int) -> Sequence[bytes]:
        """Return the values of the column at *place*, one for each record, with their quoting undone."""
        column = self._items[place :: self._width]
        undone = self._undone.get(place)
        return column if undone is None else [undone[value] for value in column]

    def is_right(self, plan: Plan) -> bool:
        """Say whether all items are right by *plan* beyond doubt."""
        columns = [b"\n".join(self._values[place]) for place, _ in plan.rules]
        return plan.right_columns.fullmatch(COLUMN_END.join(columns)) is not None


def make_grid(records: Sequence[bytes], width: int) -> ItemGrid:
    """Return *records*, which all have *width* items and whose quoting is undone, as a grid."""
    items = b",".join(records).split(b",")
    values = [set(items[place::width]) for place in range(width)]
    return ItemGrid(width, items, values, [record.replace(QUOTE, b"") for record in records], {})


def read_grid(data: bytes, width: int) -> ItemGrid | None:
    """Read *data* if it is plainly nothing but records of *width* items; None if that takes a closer look."""
    records = _split_lines(data)
    if set(map(bytes.count, records, repeat(b","))) != {width - 1}:
        return None
    items = b",".join(records).split(b",")
    values = [set(items[place::width]) for place in range(width)]
    different = b"\n".join(chain.from_iterable(values))
    # A CR that is left is no line end's.
    if b"\r" in different or not is_plain(different):
        return None
    if b'"' not in different:
        return ItemGrid(width, items, values, records, {})
    undone = _undo_values(values)
    return (
        None
        if undone is None
        else ItemGrid(width, items, values, b"\n".join(records).replace(b'"', b"").split(b"\n"), undone)
    )


def _split_lines(data: bytes) -> list[bytes]:
    """Return the lines of *data* without their ends; a CR that ends no line stays where it is."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if (returns := data.count(b"\r")) == 0:
        return lines
    # Much faster than to replace CRLF, where every line ends with it.
    if returns == len(lines) and all(map(bytes.endswith, lines, repeat(b"\r"))):
        return [line[:-1] for line in lines]
    return [line.removesuffix(b"\r") for line in lines]


def _undo_values(values: list[set[bytes]]) -> dict[int, dict[bytes, bytes]] | None:
    """Undo the quoting of *values*, in place; return for each column what became of them, None where one is odd."""
    undone: dict[int, dict[bytes, bytes]] = {}
    for place, column in enumerate(values):
        if b'"' not in b"".join(column):
            continue
        became: dict[bytes, bytes] = {}
        for value in column:
            plain = _undo(value)
            if plain is None:
                return None
            became[value] = plain
        undone[place] = became
        values[place] = set(became.values())
    return undone


def _undo(value: bytes) -> bytes | None:
    if b'"' not in value:
        return value
    inner = value[1:-1]
    if len(value) == 1 or not value.startswith(b'"') or not value.endswith(b'"'):
        return None
    if b'"' in inner:
        inner = inner.replace(b'""', QUOTE)
    return None if b'"' in inner else inner
