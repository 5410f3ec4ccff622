"""Shapes: records that differ in nothing but their digits, read without taking each of them apart.

Slips and results say much the same in every record; other days, times and numbers of persons stand at the same
places.  With every digit made a 0 their lines are few different ones, their *shapes*.  Where a shape has its commas
and quotation marks, and whether it is all characters, is told once for all its lines; every item of them then stands
between the same two bytes.  What is the same in many records is cut out as one text, a run of items, so that only
different texts are taken apart.

`ShapeReader` returns None for anything else, and for what is not plain beyond doubt: `relay.standard.grids` then
reads it item by item.  It never judges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate
from operator import itemgetter

from relay.standard.characters import is_plain
from relay.standard.grids import Grid, Row
from relay.standard.plans import Plan

_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_MARKS = b'"\r'
# Each item closed in itself, and no mark and no comma in any text.
CLOSED = re.compile(rb'(?:"[^",]*"|[^",]*)(?:,(?:"[^",]*"|[^",]*))*')
# With more different shapes than one in so many records, telling them costs what it spares.
_RECORDS_PER_SHAPE = 6
# So many are remembered of one file.
_MOST_KNOWN = 1_000

# Where the text of each of the plan's runs stands in every record of one shape, its quotation marks taken out.
_Borders = tuple[slice, ...]


class ShapedGrid(Grid):
    """Records of few shapes, by columns; *texts* are those of each of the plan's runs, one for each record."""

    __slots__ = ("_different", "_plan", "_texts")

    def __init__(self, plan: Plan, texts: Sequence[Sequence[bytes]], records: Sequence[bytes]) -> None:
        super().__init__(records)
        self._plan = plan
        self._texts = texts
        self._different = [set(run) for run in texts]

    def values(self, place: int) -> AbstractSet[bytes]:
        """Return the different values of the column at *place*."""
        run, at = self._plan.where[place]
        return {text.split(b",")[at] for text in self._different[run]}

    def column(self, place: int) -> Sequence[bytes]:
        """Return the values of the column at *place*, one for each record."""
        run, at = self._plan.where[place]
        return [text.split(b",")[at] for text in self._texts[run]]

    def distinct(self, places: Sequence[int]) -> Mapping[Row, None]:
        """Return the different rows that the records have in *places*, in order."""
        found = [self._plan.where[place] for place in places]
        runs = sorted({run for run, _ in found})
        cuts = [(runs.index(run), at) for run, at in found]
        different = dict.fromkeys(zip(*[self._texts[run] for run in runs], strict=True))
        split = ([text.split(b",") for text in row] for row in different)
        return dict.fromkeys(tuple([row[run][at] for run, at in cuts]) for row in split)

    def is_right(self, plan: Plan) -> bool:
        """Say whether all items are right by *plan* beyond doubt."""
        return plan is self._plan and all(
            right.fullmatch(b"\n".join(texts)) for right, texts in zip(plan.right_runs, self._different, strict=True)
        )


class ShapeReader:
    """Reads the records of one file by their shapes."""

    __slots__ = ("_known", "_plan")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # None for a shape that takes a closer look.
        self._known: dict[bytes, _Borders | None] = {}

    def read(self, data: bytes) -> ShapedGrid | None:
        """Read *data*, lines with their ends, if they are plainly nothing but records of few shapes."""
        shapes = data.translate(_DIGITS_AS_ZERO).split(b"\n")
        if not shapes[-1]:
            shapes.pop()
        different = set(shapes)
        if len(different) * _RECORDS_PER_SHAPE > len(shapes):
            return None
        unknown = different.difference(self._known)
        if unknown and not is_plain(b"\n".join(unknown)):
            return None
        borders: dict[bytes, _Borders] = {}
        for shape in different:
            found = self._known[shape] if shape in self._known else self._measure(shape)
            if found is None:
                return None
            borders[shape] = found
        records = data.translate(None, _MARKS).split(b"\n")
        del records[len(shapes) :]
        return ShapedGrid(self._plan, _cut(records, shapes, borders), records)

    def _measure(self, shape: bytes) -> _Borders | None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        borders = self._known[shape] = _find_borders(shape.removesuffix(b"\r"), self._plan)
        return borders


def _find_borders(shape: bytes, plan: Plan) -> _Borders | None:
    """Return where the runs stand in records of *shape*, which is all characters.

    None unless it has all its items and each is closed in itself.
    """
    if shape.count(b",") + 1 != len(plan.items) or b"\r" in shape:
        return None
    if b'"' in shape and not CLOSED.fullmatch(shape):
        return None
    # How long the items are up to each; in front of the n-th stand n commas as well.
    lengths = [0, *accumulate(map(len, shape.translate(None, _MARKS).split(b",")))]
    cuts = [slice(lengths[start] + start, lengths[end] + end - 1) for start, end in plan.runs]
    # The last one ends where the record does, in every shape.
    return *cuts[:-1], slice(cuts[-1].start, None)


def _cut(records: Sequence[bytes], shapes: Sequence[bytes], borders: Mapping[bytes, _Borders]) -> list[list[bytes]]:
    """Return the texts of each run, in as few lists as can be: many small ones would call the garbage collector."""
    different = list(borders.values())
    texts = []
    for run, cut in enumerate(different[0]):
        if all(other[run] == cut for other in different):
            texts.append([*map(itemgetter(cut), records)])
        else:
            texts.append([record[borders[shape][run]] for record, shape in zip(records, shapes, strict=True)])
    return texts
