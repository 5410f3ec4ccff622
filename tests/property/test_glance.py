"""Glance: a file that is called right before it is taken apart is right, and about the persons it is about.

In pieces no file is looked at as a whole, so each is read both ways and must be the same: found, line, item, person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standard_files import (
    DAY_CARE,
    HELPERS,
    OLD_SLIP,
    RESULTS,
    RULES,
    SLIP,
    Sample,
    judge,
    judge_sample,
    samples,
    slip,
    write,
)

from relay.content import start_check
from relay.errors import TABLE, Finding, Severity
from relay.naming import parse_name
from relay.standard.glance import GLANCE_BYTES, glance, outline_for
from relay.standard.roster import Listed

ONLY_WARNED = {code: Severity.WARN for code in TABLE if code.startswith("content.")}
# Bytes that mean something, halves of characters, and characters of one byte that are none or odd.
TELLING = b'\0\1\4\t\n\r\x1a ",09AHz\x7f\x80\x81\x9f\xa0\xb1\xe9\xf0\xff'
# Longer than what tells formats apart, so that both pieces are read.
_FIRST_BYTES = 20

# Slips and results of a few pages.
LISTED = [
    each for each in samples()
    if each.name.startswith((b"UPPLAN", b"UPJSK")) and len(each.path.read_bytes()) in range(1, GLANCE_BYTES)
]  # fmt: skip

PERSONS = ["0000000001", "H000000002", "0000000003"]
NAMES: Mapping[str, dict[str, str]] = {SLIP: {}, RESULTS: {}, OLD_SLIP: {"month": "202502", "version": "202208"}}


def read(name: str, *pieces: bytes) -> tuple[Sequence[Finding], list[Listed], bool]:
    """Return everything that is found in a file of these *pieces*, and whom it is about."""
    check = start_check(parse_name(name, RULES), ONLY_WARNED)
    for piece in pieces:
        check.feed(piece)
    found = check.finish()
    roster = check.gist.roster
    assert roster is not None
    return found, list(roster), roster.is_partial


def is_seen_at_a_glance(name: str, data: bytes) -> bool:
    """Say whether the file is called right as a whole."""
    address = parse_name(name, RULES)
    outline = outline_for(address.kind, "3.2" if name == OLD_SLIP else "4.1")
    assert outline is not None
    return glance(data, address, outline) is not None


def require_same(name: str, data: bytes) -> None:
    """Require that *data* is read alike as a whole and in two pieces."""
    assert read(name, data) == read(name, data[:_FIRST_BYTES], data[_FIRST_BYTES:])


def ordinary(name: str) -> list[list[str]]:
    """Return the records of three persons, each with two services on eight days, one of them by whoever may be in it."""
    other = HELPERS if name == RESULTS else DAY_CARE
    days = [f"{day:02}" for day in range(1, 9)]
    own, others = (
        slip(*((person, day, provider) for person in PERSONS for day in days), **NAMES[name])
        for provider in (HELPERS, other)
    )
    for record in others:
        record[11] = "0930"
    return sorted(own + others, key=lambda record: record[2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", '"'])
def test_an_ordinary_file_is_seen_at_a_glance(name: str, end: str, mark: str) -> None:
    """With every kind of line end and way to quote: or what is compared below would be one thing."""
    data = write([[mark + item + mark for item in record] for record in ordinary(name)], end)
    assert is_seen_at_a_glance(name, data)
    require_same(name, data)
    assert not read(name, data)[0]


def test_what_is_wrong_at_one_byte_is_found_as_ever() -> None:
    """Each byte of a small slip exchanged for others that mean something, left out, and put in."""
    rows = [("0000000001", "02", HELPERS), ("0000000001", "03", HELPERS), ("0000000001", "02", DAY_CARE)]
    data = write([*slip(*rows), ['"x"' if item == "みほん" else item for item in slip(rows[1])[0]]])
    random = Random(5)
    seen = 0
    for place in range(len(data)):
        for byte in random.sample(TELLING, 5):
            other = bytes([byte])
            for changed in (data[:place] + other + data[place + 1 :], data[:place] + other + data[place:]):
                require_same(SLIP, changed)
                seen += is_seen_at_a_glance(SLIP, changed)
        require_same(SLIP, data[:place] + data[place + 1 :])
    assert seen


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A right file with some items, lines and bytes changed, in places that may be in all of them or in one."""
    name = draw(st.sampled_from(list(NAMES)))
    rows = st.tuples(st.sampled_from(PERSONS), st.integers(1, 31).map("{:02}".format), st.just(HELPERS))
    records = slip(*draw(st.lists(rows, min_size=1, max_size=12, unique=True)), **NAMES[name])
    records = sorted(records) if draw(st.booleans()) else records
    for place in draw(st.lists(st.integers(0, len(records[0]) - 1), max_size=3)):
        values = [
            "",
            "0",
            "1",
            "12",
            "9999",
            "20260702",
            "202607",
            DAY_CARE,
            "仮名",
            '"',
            '"a,b"',
            '"a""b"',
            "\r",
            "é",
            "x\ny",
        ]
        value = draw(st.sampled_from([*values, f'"{records[0][place]}"', records[0][place] + " "]))
        for record in draw(st.sampled_from([records, records[-1:], records[:1], records[::2]])):
            record[place] = value
    lines = [",".join(record) + draw(st.sampled_from(["\r\n", "\r\n", "\n"])) for record in records]
    for place in draw(st.lists(st.integers(0, len(lines) - 1), max_size=2)):
        lines.append(lines[place])
    data = bytearray("".join(lines).encode("cp932", "replace"))
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=2)):
        data[place] = draw(st.sampled_from(TELLING))
    return name, bytes(data)


@given(files())
def test_a_glance_finds_what_a_closer_look_finds(file: tuple[str, bytes]) -> None:
    """Whatever a file is, nothing is said of it as a whole that would not be said in pieces."""
    require_same(*file)


@pytest.mark.parametrize("sample", LISTED, ids=[each.label for each in LISTED])
def test_a_sample_is_read_alike_with_any_one_byte_changed(sample: Sample) -> None:
    """At places all over it, with bytes that mean something."""
    data, random = sample.path.read_bytes(), Random(7)
    for _ in range(60):
        place = random.randrange(len(data))
        changed = data[:place] + bytes([random.choice(TELLING)]) + data[place + 1 :]
        assert judge_sample(sample, changed) == judge_sample(sample, changed[:_FIRST_BYTES], changed[_FIRST_BYTES:])


def rewrite(line: bytes, place: int, mark: bytes) -> bytes:
    """Return *line* with its item at *place* between *mark*."""
    items = line.split(b",")
    items[place] = mark + items[place] + mark
    return b",".join(items)


# The same record once more: with another line end, and with other items quoted, in all three parts of a line.
ONCE_MORE: Mapping[str, Callable[[bytes], bytes]] = {
    "as it is": lambda line: line,
    "line end": lambda line: line.replace(b"\r", b""),
    "person": lambda line: rewrite(line, 1, b'"'),
    "day": lambda line: rewrite(line, 9, b'"'),
    "done": lambda line: rewrite(line, 16, b'"'),
    "provider": lambda line: rewrite(line, 20, b'"'),
}


@pytest.mark.parametrize("other", ONCE_MORE.values(), ids=list(ONCE_MORE))
def test_a_record_is_seen_to_stand_there_twice_however_it_is_written(other: Callable[[bytes], bytes]) -> None:
    """The first line once more behind the last one, which has another text quoted that makes it as long."""
    lines = write(ordinary(SLIP)).splitlines(keepends=True)
    for first in (lines[0], rewrite(lines[0], 15, b'"')):
        data = b"".join([first, *lines[1:], other(lines[0])])
        assert [each.code for each in read(SLIP, data)[0]] == ["content.duplicate_record"]
        require_same(SLIP, data)


def test_a_line_end_within_what_is_done_is_seen() -> None:
    """A line as long as the first in whose middle another ends, and a CR in a text."""
    records = slip(*(("0000000001", f"{day:02}", HELPERS) for day in range(1, 5)))
    short = ",".join(records[1][10:19]) + ","
    for broken, code in ((f"{short}\n{short}", "content.field_count"), (None, "content.line_end")):
        for record in records:
            record[17] = "x" * (len(short) + 1)
        lines = [",".join(record) + "\n" for record in records]
        if broken is None:
            lines[1] = lines[1].replace("xxx", "x\rx", 1)
        else:
            lines[1] = lines[1].replace(",".join(records[1][10:19]) + ",", broken)
            assert len(lines[1]) == len(lines[0])
        data = "".join(lines).encode("cp932")
        assert code in [each.code for each in read(SLIP, data)[0]]
        require_same(SLIP, data)


def test_a_quotation_mark_within_a_code_is_seen() -> None:
    """Although the code is right without it, in every line."""
    records = ordinary(SLIP)
    for record in records:
        record[14] = '11"12"11'
    assert "content.quote" in [each.code for each in read(SLIP, write(records))[0]]
    require_same(SLIP, write(records))


def test_results_of_two_types_are_told_apart() -> None:
    """One office, one file, services of two types: each is a part of its own of whom the file is about."""
    records = ordinary(RESULTS)
    for record in records[1::2]:
        record[14] = "151243"
    require_same(RESULTS, write(records))
    assert len({each.part for each in read(RESULTS, write(records))[1]}) == len({"11", "15"})


def test_utf_8_that_could_be_ms932_is_seen_as_what_it_is() -> None:
    """Where every byte of a text is a character of both, it is the kana that tell."""
    records = ordinary(SLIP)
    data = b"".join(
        ",".join([*record[:20], "アア", *record[21:]]).replace("仮名　ケア子", "アア").encode() + b"\n"
        for record in records
    )
    assert [each.code for each in read(SLIP, data)[0]] == ["content.encoding"]
    require_same(SLIP, data)


def test_a_file_longer_than_that_is_read_as_it_arrives() -> None:
    """Nothing of it is held for a look at the whole; what it says is the same."""
    data = write([record for day in range(1, 29) for record in ordinary(SLIP)])
    assert len(data) > GLANCE_BYTES
    assert judge(SLIP, data) == judge(SLIP, data[:9], data[9:])
