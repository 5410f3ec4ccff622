"""Mutations: any single thing that goes wrong with a conforming file is found and called by its right name.

What cannot be found is listed as well, with the reason, and is proved not to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standard_files import (
    ANNEX,
    DAY_CARE,
    DELETION,
    HELPERS,
    OLD_RESULTS,
    OLD_SLIP,
    PLAN_LINES,
    PLAN_SUPPLEMENT,
    RESULTS,
    RESULTS_DELETION,
    SLIP,
    judge,
    slip,
    write,
)

from relay.errors import TABLE, Severity

Records = list[list[str]]
Mutation = Callable[[Records], bytes]

SLIP_RECORDS = slip(
    ("0000000001", "02", HELPERS), ("0000000001", "03", DAY_CARE), ("H000000002", "02", HELPERS), ("0000000003", "09", HELPERS)
)  # fmt: skip


def item(number: int, value: str, record: int = 1) -> Mutation:
    """Return the mutation that sets an item; records count from 0, items from 1 as in the layout."""

    def mutate(records: Records) -> bytes:
        records[record][number - 1] = value
        return write(records)

    return mutate


def on_bytes(change: Callable[[bytes], bytes]) -> Mutation:
    """Return the mutation that changes the whole file."""
    return lambda records: change(write(records))


def drop(number: int) -> Mutation:
    """Return the mutation that leaves an item out of the second record."""

    def mutate(records: Records) -> bytes:
        del records[1][number - 1]
        return write(records)

    return mutate


def _double(records: Records) -> bytes:
    return write([*records, records[0]])


def _stranger(records: Records) -> bytes:
    records[3][19] = DAY_CARE
    return write(records)


def _old_version(records: Records) -> bytes:
    for record in records:
        record[0] = "202208"
    return write(records)


def _old_and_short(records: Records) -> bytes:
    for record in records:
        record[:] = ["202208", *record[1:-4]]
    return write(records)


def _header(records: Records) -> bytes:
    return write([["CSVバージョン", "保険者番号", "被保険者番号", *["項目"] * 22], *records])


def _to_utf8(data: bytes) -> bytes:
    return data.decode("cp932").encode()


REFUSED: Sequence[tuple[str, Mutation, str]] = [
    ("an item too few", drop(9), "content.field_count"),
    ("the version missing", drop(1), "content.field_count"),
    ("the last item missing, mid-file", drop(25), "content.field_count"),
    ("an item too many", item(9, "0,0"), "content.field_count"),
    ("an empty line between records", on_bytes(lambda data: data.replace(b"\r\n", b"\r\n\r\n", 1)), "content.field_count"),
    ("an item from another month", item(5, "202608"), "content.month_mismatch"),
    ("the month missing", item(5, ""), "content.month_mismatch"),
    ("another version", item(1, "202208"), "content.version_mixed"),
    ("another version in all records", _old_version, "content.version_name_mismatch"),
    ("another version, and of no edition's length", _old_and_short, "content.version_name_mismatch"),
    ("a version that never was", item(1, "202410"), "content.version_unknown"),
    ("an empty version", item(1, ""), "content.version_unknown"),
    ("an insurer too short", item(2, "01999"), "content.key_item"),
    ("an insured of nine digits", item(3, "123456789"), "content.key_item"),
    ("an insured with another letter", item(3, "J123456789"), "content.key_item"),
    ("an insured in full width", item(3, "１２３４５６７８９０"), "content.key_item"),
    ("no insured", item(3, ""), "content.key_item"),
    ("a person with no line of the recipient", _stranger, "content.unrelated_person"),
    ("headings", _header, "content.header_row"),
    ("UTF-8", on_bytes(_to_utf8), "content.encoding"),
    ("UTF-8 with a mark", on_bytes(lambda data: b"\xef\xbb\xbf" + _to_utf8(data)), "content.encoding"),
    ("UTF-8, cut", on_bytes(lambda data: _to_utf8(data)[:-150]), "content.encoding"),
    ("a mark before MS932", on_bytes(lambda data: b"\xef\xbb\xbf" + data), "content.encoding"),
    ("UTF-16", on_bytes(lambda data: data.decode("cp932").encode("utf-16")), "content.encoding"),
    ("UTF-16 without a mark", on_bytes(lambda data: data.decode("cp932").encode("utf-16-le")), "content.encoding"),
    ("EUC", on_bytes(lambda data: data.decode("cp932").encode("euc_jp")), "content.encoding"),
    ("a byte that is no character", on_bytes(lambda data: data.replace(b",387,", b",\x80,", 1)), "content.encoding"),
    ("another such byte", on_bytes(lambda data: data.replace(b",387,", b",\xfd,", 1)), "content.encoding"),
    ("no character of MS932", on_bytes(lambda data: data.replace(b",387,", b",\x81\xad,", 1)), "content.encoding"),
    ("NUL", on_bytes(lambda data: data.replace(b",387,", b",\0\0\0,", 1)), "content.control_character"),
    ("DEL", on_bytes(lambda data: data.replace(b",387,", b",\x7f,", 1)), "content.control_character"),
    ("a stand-in of ours", on_bytes(lambda data: data.replace(b",387,", b",\1,", 1)), "content.control_character"),
    ("two end marks", on_bytes(lambda data: data + b"\x1a\x1a"), "content.control_character"),
    ("only CR", on_bytes(lambda data: data.replace(b"\r\n", b"\r")), "content.line_end"),
    ("CR CR LF", on_bytes(lambda data: data.replace(b"\r\n", b"\r\r\n")), "content.line_end"),
    ("a quotation mark in an item", on_bytes(lambda data: data.replace(b",387,", b',3"7,', 1)), "content.quote"),
    ("text behind quotation marks", on_bytes(lambda data: data.replace(b",387,", b',"38"7,', 1)), "content.quote"),
    ("a mark that is not closed", on_bytes(lambda data: data.replace(b",387,", b',"387,', 1)), "content.quote"),
    ("a mark that nothing closes", on_bytes(lambda data: data[:-2] + b'"\r\n'), "content.truncated"),
    ("nothing", on_bytes(lambda _: b""), "content.empty"),
    ("blanks", on_bytes(lambda _: b" \r\n\r\n"), "content.empty"),
    ("cut in the last record", on_bytes(lambda data: data[:-20]), "content.truncated"),
    ("cut in a line end", on_bytes(lambda data: data[:-1]), "content.truncated"),
    ("cut in a character", on_bytes(lambda data: data[: data.rindex("家".encode("cp932")) + 1]), "content.truncated"),
]  # fmt: skip

WARNED: Sequence[tuple[str, Mutation, str, int | None]] = [
    ("a required item empty", item(4, ""), "content.required_item", 4),
    ("a required text blank", item(7, "　 "), "content.required_item", 7),
    ("an item too long", item(14, "100"), "content.item_length", 14),
    ("a date with slashes", item(4, "2026/06/22"), "content.item_format", 4),
    ("the 31st of June", item(4, "20260631"), "content.item_format", 4),
    ("29 February in no leap year", item(4, "20270229"), "content.item_format", 4),
    ("a time after midnight", item(12, "2560"), "content.item_format", 12),
    ("letters for a number", item(8, "abc"), "content.item_format", 8),
    ("a code that is none", item(23, "2"), "content.item_format", 23),
    ("thirty flags", item(11, "1" * 30), "content.item_format", 11),
    ("a mark in an unused item", item(25, "1"), "content.item_format", 25),
    ("a day of another month", item(10, "20260801"), "content.date_outside_month", 10),
    ("a record twice", _double, "content.duplicate_record", None),
    ("an external character", on_bytes(lambda data: data.replace("家".encode("cp932"), b"\xf0\x40", 1)),
     "content.external_character", None),
    ("an end mark of DOS", on_bytes(lambda data: data + b"\x1a"), "content.dos_end_mark", None),
]  # fmt: skip

# What nothing in a file can tell, and why.
UNFINDABLE: Sequence[tuple[str, Mutation]] = [
    ("a whole record missing: no record says how many there are", lambda records: write(records[:2] + records[3:])),
    ("cut between records: the same", on_bytes(lambda data: data[: data.rindex(b"\r\n", 0, -2) + 2])),
    ("records in another order: the standard asks for none", lambda records: write(records[::-1])),
    ("another person of the right form: nobody here knows who exists", item(3, "0000000009", 0)),
    ("another day of the month", item(10, "20260730")),
    ("another number of units", item(8, "388")),
    ("another text", item(7, "別名　ケア子")),
    ("an item in doubt that is too long (section 10)", item(19, "100")),
    ("a telephone for a text", item(18, "000-0000-0000")),
]


def records() -> Records:
    """Return fresh records of a conforming use slip."""
    fresh = [list(record) for record in SLIP_RECORDS]
    fresh[2][20] = '"みほん, ""の""\r\n家"'
    return fresh


def test_the_file_that_is_changed_conforms() -> None:
    """Nothing is said of the file from which every mutation starts."""
    assert judge(SLIP, write(records())).codes == ()


@pytest.mark.parametrize(("what", "mutate", "code"), REFUSED, ids=[what for what, *_ in REFUSED])
def test_a_mutation_is_refused_by_its_right_name(what: str, mutate: Mutation, code: str) -> None:
    """The first thing said of the file is what was done to it."""
    assert judge(SLIP, mutate(records())).codes == (code,)


@pytest.mark.parametrize(("what", "mutate", "code", "number"), WARNED, ids=[what for what, *_ in WARNED])
def test_a_mutation_is_warned_about_by_its_right_name(
    what: str, mutate: Mutation, code: str, number: int | None
) -> None:
    """The one thing said of the file is what was done to it, in the item to which it was done."""
    found = judge(SLIP, mutate(records()))
    assert found.codes == (code,)
    assert dict(found.findings[0].facts).get("item") == (str(number) if number else None)


@pytest.mark.parametrize(("why", "mutate"), UNFINDABLE, ids=[why for why, _ in UNFINDABLE])
def test_what_cannot_be_found_is_not(why: str, mutate: Mutation) -> None:
    """The list of what cannot be found is right: an entry that could be must leave it."""
    data = mutate(records())
    assert data != write(records())
    if why.startswith("another person"):
        # The recipient's other line of that person has to stay.
        data = data.replace(b",0000000001,", b",0000000009,")
    assert judge(SLIP, data).codes == ()


@given(st.lists(st.integers(0, 2000), max_size=8), st.sampled_from([*REFUSED, *[one[:3] for one in WARNED]]))
def test_a_mutation_is_found_however_the_file_is_split(places: list[int], mutation: tuple[str, Mutation, str]) -> None:
    """The same is found, at the same places, in one piece, in any pieces and byte by byte."""
    data = mutation[1](records())
    whole = judge(SLIP, data)
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    assert judge(SLIP, *(data[start:end] for start, end in pairwise(borders))) == whole
    assert judge(SLIP, *(data[place : place + 1] for place in range(len(data)))) == whole


TOKENS = [
    b'"', b",", b"\r\n", b"\n", b"\r", b"202407", b"202208", b"019992", b"0000000001", b"20260601", b"202607", b"",
    b" ", b"\x81\x40", b"\x95\x5c", b"\x82", b"\xf0\x40", b"\0", b"\1", b"\x1a", b"\x80", "漢字".encode(), b'""', b"," * 20,
    write(records()[:1]), write(records()[2:3]), write([["202407", "019992", "0000000001", "20260601"]]),
]  # fmt: skip

# Whatever is found is told, and nothing hides behind a refusal.
ONLY_WARNED = {code: Severity.WARN for code in TABLE if code.startswith("content.")}


@given(
    st.sampled_from([SLIP, DELETION, OLD_SLIP, RESULTS, ANNEX, PLAN_SUPPLEMENT, PLAN_LINES, RESULTS_DELETION, OLD_RESULTS]),
    st.lists(st.sampled_from(TOKENS), max_size=25),
    st.lists(st.integers(0, 2000), max_size=6),
)  # fmt: skip
def test_any_bytes_get_the_same_answer_however_they_are_split(
    name: str, tokens: list[bytes], places: list[int]
) -> None:
    """For whatever comes there is an answer, and it does not depend on the pieces."""
    data = b"".join(tokens)
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    for severities in ({}, ONLY_WARNED):
        whole = judge(name, data, severities=severities)
        assert judge(name, *(data[a:b] for a, b in pairwise(borders)), severities=severities) == whole
        assert judge(name, *(data[at : at + 1] for at in range(len(data))), severities=severities) == whole
