"""A register as a CSV file: bytes in, offices out, or every line that is wrong.

Columns as in the ministry-like lists operators have: ``office_number, name_ja, prefecture, service_types, status``,
in any order; others are ignored.  UTF-8 with or without a byte order mark, or code page 932 as Excel writes it.
Nothing is guessed: a number that lost its leading zero in a spreadsheet is a fault, not mended.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relay.model import Office, OfficeNumber, OfficeStatus
from relay.standard.offices import SERVICE_TYPE, explain_office_number, parse_office_number

COLUMNS = ("office_number", "name_ja", "prefecture", "service_types", "status")
NAME_CHARACTERS = 200

_SERVICE_TYPES = re.compile(rf"{SERVICE_TYPE}(\|{SERVICE_TYPE})*")
# An office ends by a command, not by a list.
_STATUSES = {status.value: status for status in OfficeStatus if not status.has_ended}


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with one line; *line* counts from 1, the headings included."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class RegisterFile:
    """What a file holds: *offices* count only where there are no *faults*."""

    offices: tuple[Office, ...]
    faults: tuple[LineFault, ...]


def parse_register(data: bytes) -> RegisterFile:
    """Read the whole of a register file; never raises, every line that is wrong is in `RegisterFile.faults`."""
    text = _decode(data)
    if not isinstance(text, str):
        return RegisterFile((), tuple(text))
    faults: list[LineFault] = []
    offices: dict[OfficeNumber, tuple[int, Office]] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        places = _read_headings(next(reader, []), faults)
        for cells in reader if places else ():
            if any(cells):
                _take(cells, reader.line_num, places, offices, faults)
    except csv.Error as error:
        faults.append(LineFault(reader.line_num, f"is no CSV: {error}"))
    if not faults and not offices:
        faults.append(LineFault(1, "there are no offices in this file"))
    return RegisterFile(tuple(office for _, office in offices.values()), tuple(faults))


def _decode(data: bytes) -> str | list[LineFault]:
    for encoding in ("utf-8-sig", "cp932"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    # Which of the two it was meant to be: the one that fails on fewer lines.  A line end is never half a character.
    lines = data.split(b"\n")
    failed = min((_undecodable(lines, encoding) for encoding in ("utf-8", "cp932")), key=len)
    return [LineFault(line, "holds bytes that are neither UTF-8 nor Shift-JIS (cp932)") for line in failed]


def _undecodable(lines: list[bytes], encoding: str) -> list[int]:
    failed = []
    for number, line in enumerate(lines, 1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            failed.append(number)
    return failed


def _read_headings(cells: list[str], faults: list[LineFault]) -> Mapping[str, int]:
    """Return where each column stands, or nothing with a fault."""
    places = {cell.strip(): place for place, cell in enumerate(cells)}
    if missing := [name for name in COLUMNS if name not in places]:
        faults.append(LineFault(1, f"the headings lack {', '.join(missing)} (needed: {','.join(COLUMNS)})"))
        return {}
    return {"": len(cells), **places}


def _take(
    cells: list[str],
    line: int,
    places: Mapping[str, int],
    offices: dict[OfficeNumber, tuple[int, Office]],
    faults: list[LineFault],
) -> None:
    """Add the office of one record to *offices*, or what is wrong with it to *faults*."""
    if len(cells) != places[""]:
        faults.append(LineFault(line, f"has {len(cells)} columns where the headings have {places['']}"))
        return
    number_text, name, prefecture, services, status = (cells[places[column]].strip() for column in COLUMNS)
    number = parse_office_number(number_text)
    found = list(_find_faults(name, prefecture, services, status))
    if number is None:
        why = explain_office_number(number_text)
        found.insert(0, f"{number_text[:20]!r}: {why.en if why else ''}")
    elif number in offices:
        found.append(f"office {number} stands in line {offices[number][0]} already")
    if found or number is None:
        faults.append(LineFault(line, "; ".join(found)))
        return
    types = tuple(services.upper().split("|")) if services else ()
    offices[number] = line, Office(number, name, prefecture, types, _STATUSES[status.lower()])


def _find_faults(name: str, prefecture: str, services: str, status: str) -> Iterator[str]:
    if fault := find_name_fault(name):
        yield f"name_ja {fault}"
    if not prefecture.isprintable() or len(prefecture) > NAME_CHARACTERS:
        yield "prefecture has control characters or is too long"
    if services and not _SERVICE_TYPES.fullmatch(services.upper()):
        yield f"service_types {services[:20]!r}: two characters each, with | between them"
    if status.lower() not in _STATUSES:
        yield f"status {status[:20]!r}: {' or '.join(_STATUSES)}"


def find_name_fault(name: str) -> str:
    """Say what keeps *name* from being the name of an office; nothing where it is fine."""
    if not name:
        return "is empty"
    if len(name) > NAME_CHARACTERS:
        return f"has more than {NAME_CHARACTERS} characters"
    # U+3000 is the blank of Japanese names, and unprintable to Python.
    return "" if name.replace("\u3000", " ").isprintable() else "has control characters"
