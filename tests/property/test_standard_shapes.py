"""Shapes: what is read from the shapes of many records at once is what each record says by itself.

A file that arrives record by record never has enough records of one shape together, so that each is taken apart; all
but in one piece, it is read by its shapes.  Both must find the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standard_files import (
    DAY_CARE,
    HELPERS,
    MANAGER,
    OLD_SLIP,
    RESULTS,
    SLIP,
    judge,
    slip,
    write,
)

from relay.content import start_check
from relay.errors import TABLE, Severity
from relay.naming import NamingRules, parse_name
from relay.standard.grids import Grid, read_grid
from relay.standard.plans import plan_for
from relay.standard.records import RecordReader
from relay.standard.shapes import ShapeReader

RULES = NamingRules(frozenset({"csv"}))
ONLY_WARNED = {code: Severity.WARN for code in TABLE if code.startswith("content.")}

# Less than a record, and more than what tells formats apart.
_FIRST_BYTES = 20

# Values that are right somewhere, and others that are right nowhere.
VALUES = [
    "", " ", "　", "0", "1", "9", "100", "0900", "9999", "2560", "20260702", "20260801", "20260631", "202607", "202608", "000000",
    "00000000", "202407", "202208", "019992", "0000000001", "H000000002", HELPERS, DAY_CARE, MANAGER, "111211", "仮名　ケア子",
    "ｶﾅ", '"1"', '"仮名"', '"a,b"', '"a""b"', '"a\r\nb"', '"', 'a"', "1,2", "\ue000", "\0", "\1", "１", "a" * 70, "漢" * 70, "\r", "é",
]  # fmt: skip


def encode(records: Sequence[Sequence[str]], end: str) -> bytes:
    """Write *records* in MS932, with F040 for what has no place there and E9 for what is no character."""
    text = "".join(",".join(record) + end for record in records)
    return b"".join(
        b"\xf0\x40" if character == "\ue000" else b"\xe9\xff" if character == "é" else character.encode("cp932")
        for character in text
    )


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A slip or results of some persons, with some items changed, some in many records, and another way to quote."""
    name = draw(st.sampled_from([SLIP, RESULTS, OLD_SLIP]))
    kind: dict[str, str] = {"month": "202502", "version": "202208"} if name == OLD_SLIP else {}
    count = draw(st.integers(6, 40))
    persons = draw(st.lists(st.sampled_from(["0000000001", "H000000002", "0000000003"]), min_size=1, max_size=3))
    rows = [
        (persons[number % len(persons)], f"{number % 28 + 1:02}", draw(st.sampled_from([HELPERS, HELPERS, DAY_CARE])))
        for number in range(count)
    ]
    records = slip(*rows, **kind)
    width = len(records[0])
    for place in draw(st.lists(st.integers(0, width - 1), max_size=3, unique=True)):
        value = draw(st.sampled_from(VALUES))
        for record in draw(st.sampled_from([records, records[-1:], records[2:3], records[1::2]])):
            record[place] = value
    for place in draw(st.lists(st.integers(0, width - 1), max_size=4, unique=True)):
        for record in records[draw(st.sampled_from([0, count // 2])) :]:
            if '"' not in record[place]:
                record[place] = f'"{record[place]}"'
    data = encode(records, draw(st.sampled_from(["\r\n", "\n"])))
    return name, data[: draw(st.sampled_from([len(data), -1, -2, -30]))] if draw(st.booleans()) else data


def all_but_whole(data: bytes) -> list[bytes]:
    """Return *data* in two pieces, because what comes in one is looked at as a whole first."""
    return [data[:_FIRST_BYTES], data[_FIRST_BYTES:]]


def line_by_line(data: bytes) -> Iterator[bytes]:
    """Yield *data* in pieces that end with a line."""
    yield from (
        data.splitlines(keepends=True)
        if b"\r" not in data.replace(b"\r\n", b"")
        else (data[at : at + 1] for at in range(len(data)))
    )


@given(files())
def test_records_read_together_say_what_each_says_alone(file: tuple[str, bytes]) -> None:
    """The same codes, lines, items and counts, whether or not anything refuses the file."""
    name, data = file
    for severities in ({}, ONLY_WARNED):
        assert judge(name, *all_but_whole(data), severities=severities) == judge(
            name, *line_by_line(data), severities=severities
        )


@pytest.mark.parametrize("value", VALUES, ids=ascii)
@pytest.mark.parametrize("place", [1, 6, 9, 18])
def test_a_value_in_all_records_or_in_the_last_is_what_it_is_alone(value: str, place: int) -> None:
    """Whatever stands in an item, in all lines of a shape or in one more shape."""
    for changed in (slice(None), slice(-1, None)):
        records = slip(*((f"{number % 3 + 1:010}", f"{number % 28 + 1:02}", HELPERS) for number in range(20)))
        for record in records[changed]:
            record[place] = value
        data = encode(records, "\r\n")
        assert judge(SLIP, *all_but_whole(data), severities=ONLY_WARNED) == judge(
            SLIP, *line_by_line(data), severities=ONLY_WARNED
        )


@given(files())
def test_the_persons_of_a_file_are_the_same_however_it_is_read(file: tuple[str, bytes]) -> None:
    """Whom a file is about is told in the same order, in one piece and record by record."""
    name, data = file
    rosters = []
    for pieces in (all_but_whole(data), list(line_by_line(data))):
        check = start_check(parse_name(name, RULES), ONLY_WARNED)
        for piece in pieces:
            check.feed(piece)
        check.find_all()
        roster = check.gist.roster
        assert roster is not None
        rosters.append((list(roster), roster.is_partial))
    assert rosters[0] == rosters[1]


def tell(grid: Grid, width: int) -> list[object]:
    """Return everything that *grid* tells of its records."""
    columns = [(grid.values(place), list(grid.column(place))) for place in range(width)]
    return [columns, list(grid.records), list(grid.distinct((1, 2, width - 6))), list(grid.distinct((2,)))]


@given(files())
def test_a_grid_read_by_shapes_is_the_one_read_by_items(file: tuple[str, bytes]) -> None:
    """Where both ways to read can be gone, they tell the same of every column; what is right stays so."""
    name, data = file
    address = parse_name(name, RULES)
    plan = plan_for(address.kind, "3.2" if name == OLD_SLIP else "4.1")
    raw = RecordReader().feed(data)
    assert plan is not None
    assert raw is not None
    shaped = ShapeReader(plan).read(raw.data)
    if shaped is None:
        return
    plain = read_grid(raw.data, len(plan.items))
    assert plain is not None
    assert tell(shaped, len(plan.items)) == tell(plain, len(plan.items))
    assert shaped.is_right(plan) == plain.is_right(plan)


def test_an_ordinary_slip_is_read_by_its_shapes() -> None:
    """Quoted or not, with both kinds of line ends: or what is compared above would be one thing."""
    rows = [(f"{number % 3 + 1:010}", f"{number % 28 + 1:02}", HELPERS) for number in range(30)]
    plan = plan_for("UPPLAN", "4.1")
    assert plan is not None
    plain = slip(*rows)
    quoted = [[f'"{item}"' for item in record] for record in plain]
    for records in (plain, quoted, plain[:15] + quoted[15:]):
        for end in ("\r\n", "\n"):
            assert ShapeReader(plan).read(write(records, end)) is not None
