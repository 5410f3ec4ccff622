"""A register file yields offices, or every line that is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cli.register_file import RegisterFile, parse_register
from relay.model import Office, OfficeNumber, OfficeStatus

HEADINGS = "office_number,name_ja,prefecture,service_types,status"
LINE = "01A8516384,みほん野通所・訪問サービス,北海道,A2|A6,active"
OFFICE = Office(OfficeNumber("01A8516384"), "みほん野通所・訪問サービス", "北海道", ("A2", "A6"))


def parse(*lines: str, encoding: str = "utf-8") -> RegisterFile:
    """Parse *lines* under the usual headings."""
    return parse_register("\n".join((HEADINGS, *lines)).encode(encoding))


def faults(*lines: str) -> list[tuple[int, str]]:
    """What is wrong with *lines*."""
    parsed = parse(*lines)
    return [(fault.line, fault.text) for fault in parsed.faults]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_both_encodings_are_read(encoding: str) -> None:
    """UTF-8 with and without its mark, and what Excel in Japan writes."""
    assert parse(LINE, encoding=encoding) == RegisterFile((OFFICE,), ())


def test_lower_case_blanks_column_order_and_crlf_are_forgiven() -> None:
    """What differs only in form means the same."""
    text = 'status,extra,service_types,prefecture,name_ja,office_number\r\nActive,x,a2|A6,北海道,"みほん野通所・訪問サービス", 01a8516384 \r\n\r\n'
    assert parse_register(text.encode()).offices == (OFFICE,)


def test_an_office_may_be_suspended_and_without_service_types() -> None:
    """Both columns are optional in meaning, not in form."""
    office = parse("0178515854,みほん野,,,suspended").offices[0]
    assert (office.status, office.service_types, office.prefecture) == (OfficeStatus.SUSPENDED, (), "")


def test_every_bad_line_is_reported_at_once() -> None:
    """Nine digits, a bad letter, a repeated number and the rest: all lines in one go, none of them taken."""
    found = faults(
        LINE,
        "178515854,みほん野,北海道,43,active",
        "01I8516384,みほん野,北海道,43,active",
        LINE,
        "0178515854,,北海道,43,active",
        "0178515854,みほん野,北海道,43 11,active",
        "0178515854,みほん野,北海道,43,aktiv",
        "0178515854,みほん野",
        "123,,北海道,4,x",
    )
    assert [line for line, _ in found] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert "leading 0 lost" in found[0][1]
    assert "I cannot be character 3" in found[1][1]
    assert "stands in line 2 already" in found[2][1]
    assert found[-1][1].count(";") == 3


def test_a_line_number_counts_lines_of_the_file() -> None:
    """A name with a line end inside quotes is one record of two lines."""
    assert faults('0178515854,"みほん\n野",北海道,43,active', "1,x,y,43,active")[0] == (
        3,
        "name_ja has control characters",
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "headings lack"),
        (b"office_number,name_ja\n", "headings lack prefecture"),
        (HEADINGS.encode(), "no offices"),
        (HEADINGS.encode() + b'\n"0178515854', "no CSV"),
        (HEADINGS.encode() + b"\n0178515854,\x81\x20,x,43,active\n", "neither UTF-8 nor"),
    ],
)
def test_a_file_that_is_no_register_says_so(data: bytes, words: str) -> None:
    """Wrong file, wrong encoding, nothing in it."""
    parsed = parse_register(data)
    assert words in parsed.faults[0].text


@given(st.binary(max_size=300))
def test_any_bytes_are_offices_or_faults(data: bytes) -> None:
    """Nothing escapes as an exception, and nothing is both."""
    for whole in (data, HEADINGS.encode() + b"\n" + data):
        parsed = parse_register(whole)
        assert parsed.faults or parsed.offices
