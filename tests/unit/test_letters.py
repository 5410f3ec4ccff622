"""Letters: their addresses, their times, and what may stand in them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from email import message_from_bytes, policy

import pytest

from relay.letters import Letter, Letterhead, Rhythm, parse_address, write_letter
from relay.model import OfficeNumber

NOON = datetime(2026, 7, 31, 12, 0, tzinfo=UTC)
RHYTHM = Rhythm(timedelta(minutes=5), time(8, 0), timedelta(minutes=1))
HEAD = Letterhead("relay@relay.example", "みほん中継センター", "", "")


def letter(office_name: str = "みほん", arrivals: tuple[tuple[str, int], ...] = (("みほん野", 2),)) -> Letter:
    """Return a letter to an office of that name."""
    return Letter(OfficeNumber("0178529384"), office_name, "a@example.jp", "<1@relay.example>", NOON, 1, arrivals)


@pytest.mark.parametrize("text", ["a@example.jp", "a..b.@docomo.example.jp", "x+y=z@sub.example.co.jp"])
def test_addresses_that_people_have_are_taken(text: str) -> None:
    """Carriers gave out addresses with dots in a row; they are passed on as they are."""
    assert parse_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a@b",
        "a b@example.jp",
        "a@example.jp\nBcc: x@example.jp",
        "a@example.jp\n",
        "a@example.jp\r",
        "<a@example.jp>",
        "a@example.jp, b@example.jp",
        "山田@example.jp",
        "a@-example.jp",
        '"a"@example.jp',
        "a@@example.jp",
        f"{'a' * 65}@example.jp",
        "a@" + "b." * 130 + "jp",
    ],
)
def test_nothing_else_is_an_address(text: str) -> None:
    """What could be more than one word of one header is refused."""
    with pytest.raises(ValueError, match="must be a mail address"):
        parse_address(text)


def test_no_name_of_an_office_or_operator_can_add_a_header() -> None:
    """Line ends and what turns the direction of writing become spaces; the headers are those that we wrote."""
    evil = "x\r\nBcc: thief@example.jp\r\n\r\n.\r\nMAIL FROM:<a@b>\u202e\u2028"
    raw = write_letter(letter(evil, ((evil, 1),)), Letterhead("relay@relay.example", evil, evil, evil))
    message = message_from_bytes(raw, policy=policy.default)
    assert set(message.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert [one.addr_spec for one in message["From"].addresses] == ["relay@relay.example"]
    assert [one.addr_spec for one in message["To"].addresses] == ["a@example.jp"]
    text = message.get_content()
    assert "\nBcc" not in text
    assert "\u202e" not in text
    assert all(len(line) <= 998 and line != b"." for line in raw.splitlines())


def test_many_senders_are_named_up_to_a_bound() -> None:
    """A letter stays one that a person reads, and its sum is right all the same."""
    raw = write_letter(letter(arrivals=tuple((f"事業所{n}", 2) for n in range(45))), HEAD)
    text = message_from_bytes(raw, policy=policy.default).get_content()
    assert "新しいファイルが90件届きました。" in text
    assert "　ほか15事業所から 30件" in text
    assert "  30 from 15 more offices" in text


def test_news_is_told_beside_files_or_alone() -> None:
    """A letter without files says in its subject that there is news, and where to read it; it counts no file."""
    both, alone = (
        message_from_bytes(write_letter(replace(letter(arrivals=arrivals), news=1), HEAD), policy=policy.default)
        for arrivals in ((("みほん野", 2),), ())
    )
    assert "新しいファイルが2件届きました。" in both.get_content()
    assert "件届きました" not in alone.get_content()
    for message in (both, alone):
        assert "お知らせ.txt" in message.get_content()
    assert "お知らせ" in alone["Subject"]


def test_the_daily_letter_goes_at_its_time_in_japan() -> None:
    """What arrives at the very time goes with the next day's letter."""
    eight = datetime(2026, 7, 31, 23, 0, tzinfo=UTC)
    assert RHYTHM.due_per_day(NOON) == eight
    assert RHYTHM.due_per_day(eight - timedelta(seconds=1)) == eight
    assert RHYTHM.due_per_day(eight) == eight + timedelta(days=1)


def test_tries_come_ever_more_rarely() -> None:
    """One minute, two, four; four hours at most, however often."""
    minutes = [RHYTHM.retry_after(tries) / timedelta(minutes=1) for tries in (1, 2, 3, 8, 9, 10_000)]
    assert minutes == [1, 2, 4, 128, 240, 240]
