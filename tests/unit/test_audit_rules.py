"""The audit's rules by themselves: no two rows look alike to a seal, a mark survives paper, refused logins are counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit import AuditKey, EventRow, Mark, judge_history, read_mark
from relay.cli.installation import describe_command
from relay.doorkeeper import ELSEWHERE, Knocks

KEY = AuditKey("a1", bytes(range(32)))
NOW = datetime(2026, 7, 31, 15, 30, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
_NUMBERS = st.integers(-(2**63), 2**63 - 1)
_TEXTS = st.binary(max_size=12)
ROWS = st.builds(EventRow, _NUMBERS, _NUMBERS, _TEXTS, _TEXTS, st.none() | _TEXTS, st.none() | _NUMBERS, _TEXTS)


@given(one=ROWS, two=ROWS)
def test_two_rows_that_differ_have_different_bytes(one: EventRow, two: EventRow) -> None:
    """Also where a text moves from one column to the next, or nothing stands where an empty text did."""
    assert (one == two) == (one.encode() == two.encode())
    assert one.encode() != replace(one, kind=one.kind + one.actor, actor=b"").encode() or not one.actor
    assert (one.office is None) == (one.encode() != replace(one, office=one.office or b"").encode())
    assert (one.transfer is None) == (one.encode() != replace(one, transfer=one.transfer or 0).encode())


def test_a_store_without_history_holds() -> None:
    """There is nothing yet, and nothing is missing."""
    assert list(judge_history([], [], KEY)) == []


def test_a_mark_comes_back_from_paper() -> None:
    """Whatever blanks and line ends a mail put into it."""
    mark = Mark(1234, 5678, 1_785_511_820_000_000, bytes(range(32)))
    text = mark.write(KEY)
    assert read_mark(f"  {text[:40]}\n{text[40:]} ", KEY) == mark


@pytest.mark.parametrize("place", [15, 20, 26, 60, -1])
def test_a_slip_of_the_pen_in_a_mark_is_told(place: int) -> None:
    """A digit that was misread is no tampering."""
    text = Mark(1234, 5678, 1_785_511_820_000_000, bytes(range(32))).write(KEY)
    wrong = "1" if text[place] != "1" else "2"
    with pytest.raises(ValueError, match="a character of it is wrong"):
        read_mark(text[:place] + wrong + (text[place + 1 :] if place != -1 else ""), KEY)
    with pytest.raises(ValueError, match="a character of it is wrong"):
        read_mark(text, AuditKey("a2", bytes(32)))
    with pytest.raises(ValueError, match="relay audit head"):
        read_mark("relay-audit-1", KEY)


def test_refused_logins_are_counted_by_network_and_minute() -> None:
    """A /24, a /64 and each reason; a minute that is not over is not told."""
    knocks = Knocks()
    for address in ("192.0.2.7", "192.0.2.9", "::ffff:192.0.2.1"):
        knocks.count(address, "bad signature", NOW)
    knocks.count("192.0.2.7", "unknown office", NOW)
    knocks.count("2001:db8::1", "bad signature", NOW)
    knocks.count("192.0.2.7", "bad signature", NOW + MINUTE)
    minute = NOW.replace(second=0)
    assert knocks.take(NOW) == []
    assert knocks.take(NOW + MINUTE) == [
        (minute, "192.0.2.0/24", "4 refused: bad signature 3, unknown office 1"),
        (minute, "2001:db8::/64", "1 refused: bad signature 1"),
    ]
    assert knocks.take(NOW + 2 * MINUTE) == [(minute + MINUTE, "192.0.2.0/24", "1 refused: bad signature 1")]


def test_a_flood_from_everywhere_is_told_in_a_bounded_number_of_lines() -> None:
    """Ten thousand networks in a minute are 65 lines, and no refusal is lost from the count."""
    knocks = Knocks()
    for number in range(10_000):
        knocks.count(f"10.{number // 250}.{number % 250}.1", "bad signature", NOW)
    told = knocks.take(NOW + MINUTE)
    assert len(told) == 65
    assert sum(int(text.split()[0]) for _, _, text in told) == 10_000
    assert [text for _, network, text in told if network == ELSEWHERE] == ["9936 refused: bad signature 9936"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--home", "/srv/山田", "transfer", "show", "17", "--reveal"], "transfer show 17 --reveal"),
        (["office", "add", "0178515854", "--name", "山田ケア", "--home=/srv"], "office add 0178515854 --name …"),
        (["cert", "revoke", "123", "--reason", "stolen", "-y"], "cert revoke 123 --reason … -y"),
        (
            ["cert", "issue", "01A8516384", "--valid=365d", "--out=/home/yamada"],
            "cert issue 01A8516384 --valid=365d --out=…",
        ),
        (["山田", "list"], "… list"),
    ],
)
def test_a_command_is_told_without_what_may_be_a_name(arguments: list[str], told: str) -> None:
    """Its words, its options and numbers; a path, a reason and a name are not."""
    assert describe_command(arguments) == told
