"""Invented offices, and files that they may send: legal names of the standard around well-formed records.

District 85 of the numbers occurs in no real one.  Persons, insurers and places are invented as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MONTH = "202607"
CARE_MANAGER = "43"
HOME_HELP = "11"

# Serials have one second's resolution: the n-th file of a bench is n seconds younger than this.
_FIRST_SERIAL = datetime(2026, 6, 1)  # noqa: DTZ001 - a serial is a local time without a zone


@dataclass(frozen=True, slots=True)
class Office:
    """A row of the register."""

    number: str
    name: str
    service_type: str
    status: str = "active"


def make_office(running: int, name: str, service_type: str, status: str = "active") -> Office:
    """Make an office whose number has the check digit of the standard."""
    return Office(add_check_digit(f"01785{running:04d}"), name, service_type, status)


def render_register(offices: Sequence[Office]) -> str:
    """Write the file that `relay office import` takes."""
    rows = [f"{o.number},{o.name},北海道,{o.service_type},{o.status}" for o in offices]
    return "\r\n".join(["office_number,name_ja,prefecture,service_types,status", *rows, ""])


def render_serial(index: int) -> str:
    """Give the *index*-th file its serial."""
    return f"{_FIRST_SERIAL + timedelta(seconds=index):%Y%m%d%H%M%S}"


def name_slip(sender: str, recipient: str, serial: str) -> str:
    """Name a use slip (提供票) that a care manager sends to a home-help office."""
    return f"UPPLAN_{MONTH}_{sender}_{CARE_MANAGER}_{recipient}_{HOME_HELP}_{serial}.CSV"


def name_results(sender: str, recipient: str, serial: str) -> str:
    """Name a result file (実績) that a home-help office sends back to its care manager."""
    return f"UPJSK_{MONTH}_{sender}_{HOME_HELP}_{recipient}_{CARE_MANAGER}_{serial}.CSV"


def name_report(sender: str, recipient: str, serial: str) -> str:
    """Name a report in the general form."""
    return f"REPORT_{sender}_{recipient}_{serial}.pdf"


def name_text(sender: str, recipient: str, serial: str) -> str:
    """Name a text in the general form."""
    return f"NOTE_{sender}_{recipient}_{serial}.txt"


def render_slip(sender: str, recipient: str, size_bytes: int) -> bytes:
    """Write a slip of exactly *size_bytes*: records of 25 items, each ended by CR LF, the last one's remark padded."""
    lines: list[bytes] = []
    room = size_bytes
    while room > 2 * len(line := _slip_line(sender, recipient, len(lines))):
        lines.append(line)
        room -= len(line)
    return b"".join([*lines, _slip_line(sender, recipient, len(lines), padding=room - len(line))])


def render_report(size_bytes: int) -> bytes:
    """Write a PDF that holds nothing but its first and last line and a long comment."""
    head, tail = b"%PDF-1.7\n%", b"\n%%EOF\n"
    return head + b"x" * (size_bytes - len(head) - len(tail)) + tail


def _slip_line(sender: str, recipient: str, index: int, padding: int = 0) -> bytes:
    day, hour = index % 31 + 1, 8 + index // 31 % 10
    name = "みほん野ヘルパーステーション" + "x" * padding
    return (
        f'202407,019992,8566335561,20260622,{MONTH},{sender},"仮名　ケア子",387,0,{MONTH}{day:02d},,'
        f'{hour:02d}00,{hour:02d}45,1,111211,,,"",,{recipient},"{name}",,0,{sender},\r\n'
    ).encode("cp932")


def add_check_digit(nine: str) -> str:
    """Return the office number that begins with these *nine* digits, by the rule of the standard."""
    products = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(nine))]
    return f"{nine}{-sum(product // 10 + product % 10 for product in products) % 10}"
