"""Letters: what a mail to an office says, when it is due, and which addresses it may go to.  Pure.

A letter holds names of offices and counts of files, nothing else of any transfer: no file name, no person, no number
of anything.  Whatever stands in its headers was checked here to be one word of plain ASCII, or is encoded by the
standard library as RFC 2047 has it, so nothing that an office is called can add a header or a recipient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum

from relay.model import OfficeNumber
from relay.standard.serials import JAPAN

# More generous than RFC 5321's dot-atom: Japanese mobile carriers gave out addresses with dots in a row.
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_LOCAL}@(?:{_LABEL}\.)+{_LABEL}")
_ADDRESS_CHARACTERS = 254  # RFC 5321 section 4.5.3.1.3, without the brackets
_SENDERS_NAMED = 30
_RETRY_MOST = timedelta(hours=4)
_DOUBLINGS_MOST = 16


class MailPer(StrEnum):
    """How often an office is told."""

    ARRIVAL = "arrival"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where an office wants to be told, and how often."""

    address: str
    per: MailPer


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When letters go: *gather* after the first arrival that one tells of, or at *day_at* in Japan."""

    gather: timedelta
    day_at: time
    retry: timedelta

    def due_per_arrival(self, now: datetime) -> datetime:
        """Return when a letter about what arrives *now* is due; what arrives until then goes with it."""
        return now + self.gather

    def due_per_day(self, now: datetime) -> datetime:
        """Return the next time of the daily letter."""
        local = now.astimezone(JAPAN)
        today = datetime.combine(local.date(), self.day_at, JAPAN)
        return today if today > local else today + timedelta(days=1)

    def retry_after(self, tries: int) -> timedelta:
        """Return how long to wait after so many tries that failed: doubled each time, four hours at most."""
        return min(_RETRY_MOST, self.retry * (1 << min(tries - 1, _DOUBLINGS_MOST)))


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail on its way; *arrivals* are the senders' names with the number of files, *tries* count this one.

    *news* is how much the office's お知らせ.txt has to tell besides.
    """

    office: OfficeNumber
    office_name: str
    mailbox: str
    message_id: str
    made_at: datetime
    tries: int
    arrivals: tuple[tuple[str, int], ...]
    news: int = 0

    @property
    def count(self) -> int:
        """Of how many files it tells."""
        return sum(count for _name, count in self.arrivals)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an office has not been told yet: in a mail that was *tries* times tried, and still to be put into one."""

    office: OfficeNumber
    name: str
    per: MailPer
    tries: int
    retry_at: datetime | None
    answer: str
    in_mail: int
    gathering: int
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Letterhead:
    """From whom letters come; *name*, *telephone* and *hours* are the operator's, and may be empty."""

    sender: str
    name: str
    telephone: str
    hours: str


def parse_address(text: str) -> str:
    """Return *text* where it is a mail address of ASCII characters; ValueError otherwise."""
    if len(text) > _ADDRESS_CHARACTERS or not _ADDRESS.fullmatch(text):
        raise ValueError("must be a mail address such as office@example.jp")
    return text


def write_message_id(random: str, sender: str) -> str:
    """Return a Message-ID of *random*, which must be unique, in the sender's domain."""
    return f"<{random}@{sender.rpartition('@')[2]}>"


def write_letter(letter: Letter, head: Letterhead) -> bytes:
    """Return the mail as it is sent.  The same letter gives the same bytes each time that it is tried."""
    count = letter.count
    subject = f"新しいファイルが{count}件届きました / {count} new file{'' if count == 1 else 's'} arrived"
    if not count:
        subject = "運営者からのお知らせがあります / There is news from the operator"
    return write_mail(
        subject, _say_letter(letter, head), letter.mailbox, head, message_id=letter.message_id, at=letter.made_at
    )


def write_test(address: str, head: Letterhead, *, message_id: str, at: datetime) -> bytes:
    """Return a mail that shows that mail arrives."""
    text = (
        "このメールは、ケアプランデータの中継サーバーからのお知らせが届くことを確かめるための試験です。\n"
        "ファイルは届いていません。何もしていただく必要はありません。\n\n"
        "This is a test of the mails that the care plan relay sends. No file has arrived; there is nothing to do.\n"
    )
    return write_mail("試験のメールです / This is a test", text, address, head, message_id=message_id, at=at)


def write_mail(subject: str, text: str, address: str, head: Letterhead, *, message_id: str, at: datetime) -> bytes:
    """Return a mail of plain text in UTF-8, with the headers of what a program sends by itself (RFC 3834)."""
    message = EmailMessage(policy=SMTP)
    user, _, domain = parse_address(head.sender).rpartition("@")
    message["From"] = Address(_one_line(head.name), user, domain)
    message["To"] = Address("", *parse_address(address).rsplit("@", 1))
    message["Subject"] = subject
    message["Date"] = format_datetime(at.astimezone(JAPAN))
    message["Message-ID"] = message_id
    message["Auto-Submitted"] = "auto-generated"
    # Exchange answers by itself whatever does not carry this.
    message["X-Auto-Response-Suppress"] = "All"
    # Base64 comes through every server as it is, and no line of it can be the lone dot that ends a mail.
    message.set_content(text, charset="utf-8", cte="base64")
    return message.as_bytes()


def _say_letter(letter: Letter, head: Letterhead) -> str:
    name, count = _one_line(letter.office_name), letter.count
    listed = [(_one_line(sender), files) for sender, files in letter.arrivals[:_SENDERS_NAMED]]
    more = letter.arrivals[_SENDERS_NAMED:]
    rest = sum(files for _sender, files in more)
    japanese = [f"　{sender}から {files}件" for sender, files in listed]
    english = [f"  {files} from {sender}" for sender, files in listed]
    if more:
        japanese.append(f"　ほか{len(more)}事業所から {rest}件")
        english.append(f"  {rest} from {len(more)} more offices")
    files_ja = [
        f"新しいファイルが{count}件届きました。",
        *japanese,
        "",
        "いつもお使いのソフトで受信するか、WinSCPなどで接続して receive フォルダーからお受け取りください。",
        "すでにお受け取りのときは、何もしていただく必要はありません。",
        "件数は届いたときのものです。その後に送信元が取り消したファイルも含みます。",
    ]
    files_en = [
        f"{count} new file{' has' if count == 1 else 's have'} arrived.",
        *english,
        "",
        "Please fetch them with your usual program, or from the folder receive, for example with WinSCP.",
        "If you have done so already, there is nothing to do. Files that were taken back since are counted too.",
    ]
    between = [""] if count and letter.news else []
    return "\n".join(
        [
            f"{name} 御中",
            "",
            *(files_ja if count else []),
            *between,
            *(_NEWS_JA if letter.news else []),
            *_say_contact(head, "お問い合わせ・お知らせの停止:", "このメールは自動で送っています。返信はできません。"),
            "",
            "----",
            f"{name}:",
            *(files_en if count else []),
            *between,
            *(_NEWS_EN if letter.news else []),
            *_say_contact(
                head, "Questions, or no more mails:", "This mail was sent by a program; please do not reply."
            ),
            "",
        ]
    )


_NEWS_JA = (
    "運営者からのお知らせがあります。",
    "WinSCPなどで接続して、最初の画面にある「お知らせ.txt」をお読みください。",
)
_NEWS_EN = (
    "There is news from the operator.",
    "Please connect, for example with WinSCP, and read お知らせ.txt, which you see first.",
)


def _say_contact(head: Letterhead, lead: str, end: str) -> Sequence[str]:
    contact = [_one_line(part) for part in (head.name, head.telephone, head.hours) if part]
    return [" ".join([lead, *contact]), end] if contact else [end]


def _one_line(text: str) -> str:
    """Return *text* without anything that could begin a line or turn the direction of writing."""
    return "".join(character if character.isprintable() else " " for character in text)
