"""Damage: one change to a conforming file is found and named by its own code, or stands in the list of those that cannot be.

The files are made up, so each seed is another file.  A mutation says in which kind it is tried, what it does to the
records, and which code names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.content import start_check
from relay.naming import NamingRules, parse_name
from relay.standard.layouts import layout
from relay.standard.making import (
    DEFAULT_MONTHS,
    MadeFile,
    Order,
    choose_serial,
    invent_partners,
    make_unit,
)

RULES = NamingRules(frozenset({"csv"}))
UNITS = {
    "UPPLAN": ("UPPLAN", "UPSIKYU", "UPHOSOKU"), "UPHOSOKU": ("UPHOSOKU",), "UPJSK": ("UPJSK",),
    "UP2KYO": ("UP2KYO",), "DLTPLAN": ("DLTPLAN",), "UPSIKYU": ("UPSIKYU",), "UPKIHON": ("UPKIHON",),
}  # fmt: skip
# Text in quotes; none of the items that are changed below holds a comma, a quote or a line end.
Records = list[list[bytes]]
Change = Callable[[Records, Random], Records]


def make(kind: str, seed: int, persons: int = 3) -> MadeFile:
    """Make a file of *kind*, 4.1."""
    kinds = UNITS[kind]
    month = DEFAULT_MONTHS["4.1"]
    (partners,) = invent_partners(kinds, 1, seed)
    order = Order("4.1", kinds, partners, month, choose_serial(kinds, month, 0), persons, seed)
    return next(iter(make_unit(order)))


def find_codes(name: str, content: bytes) -> list[str]:
    """Return the codes of everything found in *content* under *name*."""
    check = start_check(parse_name(name, RULES), {})
    check.feed(content)
    return [judged.finding.code for judged in check.find_all()]


def take_apart(content: bytes) -> Records:
    """Return the items of each record as they stand, quotes included; text may hold commas, quotes and line ends."""
    records: Records = [[]]
    item = b""
    is_open = False
    for piece in content.replace(b"\r\n", b"\n").decode("cp932"):
        is_open ^= piece == '"'
        if not is_open and piece in ",\n":
            records[-1].append(item)
            item = b""
            if piece == "\n":
                records.append([])
        else:
            item += b"\r\n" if piece == "\n" else piece.encode("cp932")
    assert records.pop() == []
    assert item == b""
    return records


def put_together(records: Records) -> bytes:
    """Write records as they were."""
    return b"".join(b",".join(record) + b"\r\n" for record in records)


def setting(item: int, value: bytes, *, everywhere: bool = False) -> Change:
    """Change one item, in one record or in all."""

    def change(records: Records, random: Random) -> Records:
        for record in records if everywhere else [random.choice(records)]:
            record[item - 1] = value
        return records

    return change


def dropping_an_item(records: Records, random: Random) -> Records:
    """Lose one item of one record."""
    record = random.choice(records)
    del record[random.randrange(3, len(record))]
    return records


def adding_an_item(records: Records, random: Random) -> Records:
    """Put one more item into one record."""
    random.choice(records).append(b"")
    return records


def adding_a_stranger(records: Records, random: Random) -> Records:
    """Add a line of somebody whom another provider alone serves."""
    line = list(random.choice(records))
    line[2], line[19] = b"9876543210", b"0178500005"
    records.insert(random.randrange(len(records) + 1), line)
    return records


def repeating_a_record(records: Records, random: Random) -> Records:
    """Write one record twice."""
    records.insert(random.randrange(len(records) + 1), list(random.choice(records)))
    return records


def adding_headings(records: Records, _random: Random) -> Records:
    """Put the names of the items into a first record."""
    names = [item.name_ja.encode("cp932") for item in layout("4.1", "UPPLAN")]
    return [names, *records]


def breaking_a_quote(records: Records, random: Random) -> Records:
    """Write something behind a closing quote."""
    random.choice(records)[6] += b"x"
    return records


FOUND: Mapping[str, tuple[str, Change, str]] = {
    "an item lost": ("UPPLAN", dropping_an_item, "content.field_count"),
    "an item too many": ("UPPLAN", adding_an_item, "content.field_count"),
    "headings": ("UPPLAN", adding_headings, "content.header_row"),
    "a mark inside of a line": ("UPPLAN", breaking_a_quote, "content.quote"),
    "another month in one record": ("UPPLAN", setting(5, b"202508"), "content.month_mismatch"),
    "another month everywhere": ("UPSIKYU", setting(5, b"202508", everywhere=True), "content.month_mismatch"),
    "another month to delete": ("DLTPLAN", setting(4, b"202506"), "content.month_mismatch"),
    "another version in one record": ("UP2KYO", setting(1, b"202208"), "content.version_mixed"),
    "the older version": ("UP2KYO", setting(1, b"202208", everywhere=True), "content.version_name_mismatch"),
    # Where that version has fewer items, it is their number that is wrong.
    "the older version of a shorter record": ("UPPLAN", setting(1, b"202208"), "content.field_count"),
    "a version of nobody's": ("UPPLAN", setting(1, b"202410", everywhere=True), "content.version_unknown"),
    "an insurer cut short": ("UPPLAN", setting(2, b"1999"), "content.key_item"),
    "an insured without its zero": ("UPPLAN", setting(3, b"123456789"), "content.key_item"),
    "an insured with another letter": ("DLTPLAN", setting(3, b"K123456789"), "content.key_item"),
    "a stranger": ("UPPLAN", adding_a_stranger, "content.unrelated_person"),
    "a required item emptied": ("UPPLAN", setting(4, b""), "content.required_item"),
    "a date that is none": ("UPJSK", setting(4, b"20250231"), "content.item_format"),
    "a time that is none": ("UPPLAN", setting(12, b"2561"), "content.item_format"),
    "a code out of the list": ("UPPLAN", setting(23, b"7"), "content.item_format"),
    "an item too long": ("UPPLAN", setting(14, b"100"), "content.item_length"),
    "a day of another month": ("UPPLAN", setting(10, b"20250801"), "content.date_outside_month"),
    "results of another office": ("UPJSK", setting(20, b"0178500005"), "content.result_office"),
    "neither plan nor month": ("UPHOSOKU", setting(63, b"000000", everywhere=True), "content.link_item"),
    "one line number twice": ("UP2KYO", setting(13, b"1", everywhere=True), "content.repeated_line"),
    "a record twice": ("UPPLAN", repeating_a_record, "content.duplicate_record"),
    "an external character": ("UPPLAN", setting(7, b'"\xf0\x40"'), "content.external_character"),
    "a block of zeros": ("UPPLAN", setting(7, b'"' + bytes(9) + b'"'), "content.control_character"),
    "a bare CR": ("UPPLAN", setting(7, b'"a\rb"'), "content.line_end"),
    "bytes of no character": ("UPPLAN", setting(7, b'"\xfd\xfe"'), "content.encoding"),
}


@pytest.mark.parametrize("what", FOUND)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_a_change_is_found_and_named_by_its_own_code(what: str, seed: int) -> None:
    """Wherever in whichever file the change is made, its code is among the findings; before it there was none."""
    kind, change, code = FOUND[what]
    made = make(kind, seed)
    assert find_codes(made.name, made.content) == []
    changed = put_together(change(take_apart(made.content), Random(seed)))
    assert code in find_codes(made.name, changed)


WHOLE: Mapping[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing at all": (lambda _: b"", "content.empty"),
    "blanks alone": (lambda _: b" \r\n \r\n", "content.empty"),
    "UTF-8": (lambda content: content.decode("cp932").encode("utf-8"), "content.encoding"),
    "a byte order mark": (lambda content: b"\xef\xbb\xbf" + content, "content.encoding"),
    "UTF-16": (lambda content: content.decode("cp932").encode("utf-16"), "content.encoding"),
    "CR CR LF": (lambda content: content.replace(b"\r\n", b"\r\r\n"), "content.line_end"),
    "CR alone": (lambda content: content.replace(b"\r\n", b"\r"), "content.line_end"),
    "a DOS end mark": (lambda content: content + b"\x1a", "content.dos_end_mark"),
    "zeros at the end": (lambda content: content + bytes(512), "content.control_character"),
    "a quote that stays open": (lambda content: content + b'202407,"', "content.truncated"),
    "half a record": (lambda content: content[: -(len(content) // 3)].rpartition(b",")[0], "content.truncated"),
}


@pytest.mark.parametrize("what", WHOLE)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_what_befalls_a_whole_file_is_named(what: str, seed: int) -> None:
    """Another encoding, other line ends, a cut, an end mark: the code says which."""
    change, code = WHOLE[what]
    made = make("UPPLAN", seed)
    assert code in find_codes(made.name, change(made.content))


# What no rule can see, and why.
UNSEEN: Mapping[str, tuple[str, Change]] = {
    # A cut between two records leaves a conforming file: nothing in it says how many there should be.
    "the last record lost": ("UPPLAN", lambda records, _: records[:-1]),
    # The order of records has no meaning.
    "records in another order": ("UPPLAN", lambda records, _: records[::-1]),
    # Any value of the right form may be meant.
    "another day of the month": ("UPJSK", setting(4, b"20250704")),
    "another number of units": ("UPPLAN", setting(8, b"999")),
    "another name": ("UPPLAN", setting(7, b'"\x8c\xa9\x96{"')),
    # 保険者番号 and the codes of services carry no check that the standard confirms.
    "another service code": ("UPPLAN", setting(15, b"119999")),
}


@pytest.mark.parametrize("what", UNSEEN)
def test_what_cannot_be_seen_is_listed(what: str) -> None:
    """These changes leave a conforming file; should one of them be found one day, it moves to the others."""
    kind, change = UNSEEN[what]
    made = make(kind, 11)
    changed = put_together(change(take_apart(made.content), Random(11)))
    assert changed != made.content
    assert find_codes(made.name, changed) == []
