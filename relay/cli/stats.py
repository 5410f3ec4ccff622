"""``relay stats``: how the relay is adopted, by prefecture, month, kind of file and software.

The table by prefecture has the columns of the existing system's own: code, prefecture, offices, offices using it, percent
with one decimal, and the sum.  An office uses the relay when it has logged in within the time asked for.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len

from relay.cli.installation import HomeOption, Installation, open_installation, run
from relay.cli.office import PREFECTURES
from relay.cli.terminal import (
    Column,
    CommandRefused,
    JsonOption,
    console,
    parse_since,
    print_json,
    print_table,
    say,
    say_size,
)
from relay.ledger.figures import PrefectureUse

TOTAL = "合計"
_ELSEWHERE = "不明"
_LATELY = timedelta(days=93)
_BAR = "█"
_BAR_MOST = 60
_GAP = 2

Cell = str | int | Decimal | None
Row = dict[str, Cell]


class StatsBy(StrEnum):
    """What figures can be told by."""

    PREFECTURE = "prefecture"
    MONTH = "month"
    KIND = "kind"
    SOFTWARE = "software"


@dataclass(frozen=True, slots=True)
class Look:
    """How one table is shown: a title for each column, and which one its bars are about."""

    titles: Mapping[str, str]
    label: str
    bar: str


_LOOKS: Mapping[StatsBy, Look] = {
    StatsBy.PREFECTURE: Look(
        {"prefecture_code": "Code", "prefecture_ja": "Prefecture", "offices": "Offices", "using_offices": "Using", "percent": "%"},
        "prefecture_ja",
        "percent",
    ),
    StatsBy.MONTH: Look(
        {"month": "Month", "using_offices": "Using", "logins": "Logins", "files": "Files", "collected": "Collected", "size_bytes": "Size"},
        "month",
        "files",
    ),
    StatsBy.KIND: Look(
        {"kind": "Kind", "files": "Files", "collected": "Collected", "size_bytes": "Size", "senders": "Senders"}, "kind", "files"
    ),
    StatsBy.SOFTWARE: Look(
        {"software": "Software", "offices": "Offices", "logins": "Logins", "last_month": "Last seen"}, "software", "offices"
    ),
}  # fmt: skip


def stats(
    by: Annotated[
        StatsBy, typer.Argument(metavar="BY", help=f"By {', '.join(StatsBy)}.", show_default="prefecture")
    ] = StatsBy.PREFECTURE,
    *,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Since 2026-04-01, or 1y ago.", show_default="93d")
    ] = None,
    chart: Annotated[bool, typer.Option("--chart", help="Draw bars.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV (UTF-8) instead.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Show how the relay is used: which part of the offices, since when, for what and with what.

    An office uses the relay when it logged in within the time asked for; months are Japan's.
    """
    if as_csv + as_json + chart > 1:
        raise CommandRefused("--chart, --csv and --json are three ways to show the same: choose one")
    rows = run(_stats(home, by, since))
    if as_json:
        print_json(
            [{name: float(cell) if isinstance(cell, Decimal) else cell for name, cell in row.items()} for row in rows]
        )
    elif as_csv:
        sys.stdout.write(render_csv(rows, _LOOKS[by]))
    elif not rows:
        say("nothing was used in that time")
    elif chart:
        _print_chart(rows, _LOOKS[by])
    else:
        _print(rows, _LOOKS[by])


async def _stats(home: Path, by: StatsBy, since: str | None) -> list[Row]:
    async with open_installation(home) as relay:
        return await _collect(relay, by, since)


async def _collect(relay: Installation, by: StatsBy, since: str | None) -> list[Row]:
    begin = parse_since(since, relay.now) if since else relay.now - _LATELY
    match by:
        case StatsBy.PREFECTURE:
            return tabulate_prefectures(await relay.ledger.use_by_prefecture(since=begin))
        case StatsBy.MONTH:
            return [
                {"month": each.month, "using_offices": each.using, "logins": each.logins, "files": each.transfers,
                 "collected": each.collected, "size_bytes": each.size_bytes}
                for each in await relay.ledger.use_by_month(since=begin)
            ]  # fmt: skip
        case StatsBy.KIND:
            kinds = sorted(await relay.ledger.use_by_kind(since=begin), key=lambda each: (-each.transfers, each.kind))
            return [
                {"kind": each.kind, "files": each.transfers, "collected": each.collected, "size_bytes": each.size_bytes,
                 "senders": each.senders}
                for each in kinds
            ]  # fmt: skip
        case StatsBy.SOFTWARE:
            programs = await relay.ledger.use_by_software(since=begin)
            programs.sort(key=lambda each: (-each.offices, -each.logins, each.software))
            return [
                {
                    "software": each.software,
                    "offices": each.offices,
                    "logins": each.logins,
                    "last_month": each.last_month,
                }
                for each in programs
            ]


def tabulate_prefectures(found: Sequence[PrefectureUse]) -> list[Row]:
    """Return the rows of the prefectures in the order of their codes, and their sum, as the existing system tells them.

    A prefecture is known with or without its 都・府・県; what is none stands behind them, without a code.
    """
    counts: dict[str, tuple[int, int]] = {}
    for each in found:
        name = _shorten(each.prefecture)
        offices, using = counts.get(name, (0, 0))
        counts[name] = offices + each.offices, using + each.using
    rows = [_row(f"{place:02d}", name, *counts[name]) for place, name in enumerate(_NAMES, 1) if name in counts]
    if _ELSEWHERE in counts:
        rows.append(_row("", _ELSEWHERE, *counts[_ELSEWHERE]))
    if rows:
        rows.append(_row("total", TOTAL, *(sum(column) for column in zip(*counts.values(), strict=True))))
    return rows


def _row(code: str, name: str, offices: int, using: int) -> Row:
    percent = (Decimal(100 * using) / Decimal(offices)).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return {
        "prefecture_code": code,
        "prefecture_ja": name,
        "offices": offices,
        "using_offices": using,
        "percent": percent,
    }


_NAMES = tuple(name if name == "北海道" else name[:-1] for name in PREFECTURES)


def _shorten(prefecture: str) -> str:
    name = prefecture.strip()
    if name in _NAMES:
        return name
    return _NAMES[PREFECTURES.index(name)] if name in PREFECTURES else _ELSEWHERE


def render_csv(rows: Sequence[Row], look: Look) -> str:
    """Return *rows* as CSV with a head; a name that a spreadsheet would run is defused."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(look.titles)
    for row in rows:
        writer.writerow([_defuse(row[name]) for name in look.titles])
    return out.getvalue()


def _defuse(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t")) else cell


def _say(name: str, cell: Cell) -> str:
    if name == "size_bytes" and isinstance(cell, int):
        return say_size(cell)
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _print(rows: Sequence[Row], look: Look) -> None:
    columns = [
        Column(title, justify="left" if isinstance(rows[0][name], str) else "right", is_flexible=name == "software")
        for name, title in look.titles.items()
    ]
    print_table(columns, [[_say(name, row[name]) for name in look.titles] for row in rows])


def _print_chart(rows: Sequence[Row], look: Look) -> None:
    """Draw one bar a row, the longest as long as there is room."""
    bars = [row for row in rows if row.get("prefecture_code") != "total"]
    numbers = [float(cell) if isinstance(cell := row[look.bar], int | Decimal) else 0.0 for row in bars]
    texts = [_say(look.bar, row[look.bar]) for row in bars]
    labels = [str(row[look.label]) for row in bars]
    widest, longest = max(map(cell_len, labels)), max(map(len, texts))
    room = min(_BAR_MOST, max(10, console().width - widest - longest - 2 * _GAP - 1))
    most = max(numbers) or 1.0
    for label, number, text in zip(labels, numbers, texts, strict=True):
        bar = _BAR * round(room * number / most)
        say(f"{label}{' ' * (widest - cell_len(label) + _GAP)}{text:>{longest}}  {bar}".rstrip())
