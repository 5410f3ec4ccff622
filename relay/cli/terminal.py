"""What the commands show, and how: tables for people, JSON for programs, complaints on stderr.

Every table fits the terminal: what is too long for its column ends in an ellipsis, so that a row stays a row.
Where the output is no terminal nothing is shortened.  Times are local and say their zone; in JSON they are UTC.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.offered import FOREVER

# Wide enough for anything: a table takes only what it needs.
UNBOUNDED_COLUMNS = 10_000
# A screen or two; `--limit 0` shows all.
SHOWN_ROWS = 50
HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", min=0, metavar="N", help="Show N rows; 0 shows all.", show_default=f"{SHOWN_ROWS}, JSON all"
    ),
]
ReverseOption = Annotated[bool, typer.Option("--reverse", "-r", help="The other way round.")]

_SPAN = re.compile(r"([0-9]{1,6})([mhdwy])")
_UNIT = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_YEAR_DAYS = 365
# Blanks between two columns, and what a column of words needs to be worth its place.
_GAP = 2
_FLEXIBLE_LEAST = 6


class CommandRefused(Exception):
    """What was asked for is not done, and will not be by asking again: exit code 2."""


class CommandFailed(Exception):
    """What was asked for could not be done: exit code 1."""


class Tone(StrEnum):
    """What a word in a table means to the eye."""

    GOOD = "green"
    BAD = "red"
    FADED = "dim"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; a *flexible* one gives way where the terminal is narrow."""

    title: str
    justify: Literal["left", "right"] = "left"
    is_flexible: bool = False


def console(*, stderr: bool = False) -> Console:
    """Return the console; as wide as its terminal, or as needed where it is none."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=UNBOUNDED_COLUMNS)


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], *, note: str = "") -> None:
    """Print *rows*, one a line, and *note* below."""
    out = console()
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    columns, cells = _leave_out_empty(columns, cells, out.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for column, width in zip(columns, _share_width(columns, cells, out.width), strict=True):
        table.add_column(column.title, justify=column.justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        table.add_row(*row)
    _print_grid(out, table)
    if note:
        out.print(Text(note, style=Tone.FADED))


def _leave_out_empty(
    columns: Sequence[Column], cells: list[list[Text]], total: int
) -> tuple[Sequence[Column], list[list[Text]]]:
    """Where not all columns find room, leave out those that say nothing in any row."""
    natural = (max([cell_len(one.title), *(row[at].cell_len for row in cells)]) for at, one in enumerate(columns))
    if not cells or sum(natural) + _GAP * len(columns) <= total:
        return columns, cells
    kept = [at for at in range(len(columns)) if any(row[at].plain not in ("", "-") for row in cells)]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in cells]


def _share_width(columns: Sequence[Column], cells: Sequence[Sequence[Text]], total: int) -> list[int]:
    """Return the width of each column: digits that are cut off mislead, so only the flexible ones give way."""
    widths = [
        max([cell_len(column.title), *(row[place].cell_len for row in cells)]) for place, column in enumerate(columns)
    ]
    flexible = sorted((place for place, column in enumerate(columns) if column.is_flexible), key=lambda at: widths[at])
    rest = total - _GAP * len(columns) - sum(widths[place] for place in range(len(columns)) if place not in flexible)
    for done, place in enumerate(flexible):
        widths[place] = max(_FLEXIBLE_LEAST, min(widths[place], rest // (len(flexible) - done)))
        rest -= widths[place]
    return widths


def print_facts(facts: Iterable[tuple[str, str | Text]]) -> None:
    """Print names and values below each other; long values go on in their own column."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    _print_grid(console(), table)


def print_points(points: Iterable[tuple[Text, Text]], width: int) -> None:
    """Print a word of *width* columns before each text, which goes on behind it where it is longer than the line."""
    table = Table.grid(padding=0)
    table.add_column(no_wrap=True, width=width)
    table.add_column(overflow="fold")
    for word, text in points:
        table.add_row(word, text)
    _print_grid(console(), table)


def _print_grid(out: Console, table: Table) -> None:
    if out.is_terminal:
        out.print(table)
        return
    # Programs and files want no blanks at the ends of lines.
    with out.capture() as capture:
        out.print(table)
    for line in capture.get().splitlines():
        typer.echo(line.rstrip())


def print_json(value: object) -> None:
    """Print *value* for a program: UTF-8, Japanese as it is; a list with one entry a line."""
    if isinstance(value, list) and value:
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value)
        sys.stdout.write(f"[\n{lines}\n]\n")
    else:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def say(text: str) -> None:
    """Print a line of result."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print something to consider, on stderr."""
    console(stderr=True).print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)


def complain(text: str, remedy: str = "") -> None:
    """Print why nothing was done, on stderr."""
    err = console(stderr=True)
    err.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
    if remedy:
        err.print(Text(remedy), soft_wrap=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone at once; CommandRefused where nobody says yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandRefused(f"nobody can be asked here, so this needs --yes: {question}")
    if not typer.confirm(question):
        raise CommandRefused("nothing was changed")


def secret_asker() -> Callable[[str], str] | None:
    """Return how to ask for something that the screen must not show; None where nobody can be asked."""

    def ask(question: str) -> str:
        return str(typer.prompt(question, hide_input=True, err=True))

    return ask if sys.stdin.isatty() else None


def note_rows(shown: int, limit: int | None, what: str, total: int | None = None) -> str:
    """Say how many rows these are, and how to see the rest."""
    if limit and shown >= limit and (total is None or total > shown):
        of = "the first" if total is None else f"of {total:,}"
        counted = f"{shown:,} {of} {what}" if total is not None else f"{of} {shown:,} {what}"
        return f"{counted}; --limit 0 shows all"
    return f"{shown:,} {what.removesuffix('s') if shown == 1 else what}"


def effective_limit(limit: int | None, *, as_json: bool) -> int | None:
    """Return how many rows to take, or None for all of them."""
    if limit is None:
        return None if as_json else SHOWN_ROWS
    return limit or None


def say_time(at: datetime | None, *, with_zone: bool = True) -> str:
    """Say a time as the clock on the operator's wall shows it."""
    if at is None:
        return "-"
    if at >= FOREVER:
        return "forever"
    return at.astimezone().strftime("%Y-%m-%d %H:%M %Z" if with_zone else "%Y-%m-%d %H:%M")


def zoned(title: str) -> str:
    """Return a column's title with the zone of its times."""
    return f"{title} ({datetime.now().astimezone():%Z})"


def json_time(at: datetime | None) -> str | None:
    """Return a time for a program: ISO 8601 in UTC; None where there is none or no end."""
    return (
        None if at is None or at >= FOREVER else at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )


def say_size(size_bytes: int) -> str:
    """Say a size in at most nine characters, for a column of them."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:  # noqa: PLR2004 - three digits are enough
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def read_day(text: str, *, is_last: bool = False) -> datetime:
    """Return when a day begins in Japan, or with *is_last* when it is over; CommandRefused where *text* is none."""
    from relay.sheets import JAPAN

    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise CommandRefused(f"{text!r} is no day: write 2026-12-28") from None
    return datetime(day.year, day.month, day.day, tzinfo=JAPAN) + timedelta(days=1 if is_last else 0)


def end_of_day(at: datetime) -> datetime:
    """Return *at* where a day begins then in Japan, else when its day is over there."""
    from relay.sheets import JAPAN

    begin = at.astimezone(JAPAN).replace(hour=0, minute=0, second=0, microsecond=0)
    return begin if begin == at else begin + timedelta(days=1)


def parse_span(text: str) -> timedelta:
    """Read ``365d``, ``12h``, ``1y``; CommandRefused for anything else."""
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise CommandRefused(f"{text!r} is no span of time: write 30m, 12h, 365d, 52w or 1y")
    count, unit = int(match[1]), match[2]
    if unit == "y":
        return timedelta(days=count * _YEAR_DAYS)
    return timedelta(**{_UNIT[unit]: count})


def parse_since(text: str, now: datetime) -> datetime:
    """Read ``7d`` (so long ago) or ``2026-12-01`` (since that day began here); CommandRefused for anything else."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return now - parse_span(text)
    return datetime(day.year, day.month, day.day).astimezone()


def colour(word: str, tone: Tone | None) -> Text:
    """Return *word* in its tone."""
    return Text(word, style=cast(str, tone) if tone else "")
