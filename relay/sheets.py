"""Sheets: rows of facts as files that an office can open.

Every sheet comes twice.  The ``.csv`` is for people: Japanese headings and words, Japan time, a byte order mark so
that a spreadsheet reads it as UTF-8, and no cell that a spreadsheet would run.  The ``.json`` is for programs: codes,
UTC, and every name exactly as it is.  The same facts make the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Generic, TypeVar

from relay.errors import Finding

# Fixed, since Japan has no summer time and a small machine no table of zones.
JAPAN = timezone(timedelta(hours=9), "JST")
# Only the sender's software can mend a file.
_TO_RECIPIENT = "取り込めないときや、おかしいと思うときは、送信元の事業所に電話でお尋ねください。"
# Begin a formula in one spreadsheet or another; the full-width ones do in Japanese ones.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


@dataclass(frozen=True, slots=True)
class Told:
    """A word of ours: *code* for programs, *ja* for people."""

    code: str
    ja: str


Cell = str | int | bool | datetime | Told | tuple[str, ...] | tuple[Finding, ...] | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column: its name in JSON, its heading in CSV, and what stands in it."""

    key: str
    heading: str
    cell: Callable[[T], Cell]


def render_rows(columns: Sequence[Column[T]], rows: Sequence[T], *, as_csv: bool) -> str:
    """Render *rows* without what stands around them: see `join_rows`."""
    if not as_csv:
        facts = ({column.key: tell_program(column.cell(row)) for column in columns} for row in rows)
        return ",\n".join(json.dumps(fact, ensure_ascii=False) for fact in facts)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([tell_person(column.cell(row)) for column in columns] for row in rows)
    return text.getvalue()


def join_rows(name: str, parts: Sequence[str], columns: Sequence[Column[T]], *, as_csv: bool) -> bytes:
    """Put rendered rows together: a line a row, headings above them or brackets around them."""
    if as_csv:
        headings = ",".join(column.heading for column in columns)
        return "".join(["\ufeff", headings, "\r\n", *parts]).encode()
    rows = ",\n".join(part for part in parts if part)
    return f'{{"{name}": [\n{rows}\n]}}\n'.encode()


def tell_program(cell: Cell) -> object:
    """Return *cell* as JSON has it."""
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(cell, Told):
        return cell.code
    if isinstance(cell, tuple):
        return [_tell_finding(part) if isinstance(part, Finding) else part for part in cell]
    return cell


def advise(findings: Sequence[Finding], *, is_sent: bool) -> tuple[str, ...]:
    """Return what an office does about the warnings of a file that it sent, or was sent; each advice once."""
    if not findings:
        return ()
    return tuple(dict.fromkeys(found.row.advice_sent_ja for found in findings)) if is_sent else (_TO_RECIPIENT,)


def _tell_finding(finding: Finding) -> Mapping[str, str]:
    return {"code": finding.code, "message_ja": finding.message_ja, "message_en": finding.message_en}


def tell_person(cell: Cell) -> str | int:
    """Return *cell* as a spreadsheet shows it, and runs nothing."""
    if cell is None or isinstance(cell, bool):
        return "はい" if cell else ""
    if isinstance(cell, int):
        return cell
    if isinstance(cell, datetime):
        return cell.astimezone(JAPAN).strftime("%Y-%m-%d %H:%M:%S %Z")
    if isinstance(cell, Told):
        return cell.ja
    if isinstance(cell, tuple):
        cell = " / ".join(part.message_ja if isinstance(part, Finding) else part for part in cell)
    return "'" + cell if cell.lstrip(" \u3000").startswith(_FORMULA) else cell
