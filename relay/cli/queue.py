"""``relay queue``: what nobody has collected yet, by office and age, as mail people know it from qshape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import (
    Column,
    JsonOption,
    LimitOption,
    ReverseOption,
    Tone,
    console,
    effective_limit,
    json_time,
    note_rows,
    print_json,
    print_table,
    say,
    say_time,
    zoned,
)
from relay.ledger.figures import AGE_NAMES, Waiting
from relay.model import OfficeNumber

# Narrower than that the names of the offices have no room beside seven columns of numbers.
_NAME_COLUMNS = 100
# Who waits a week has probably not noticed.
_LATE = AGE_NAMES.index("<1M")


class QueueOrder(StrEnum):
    """What the queue can be sorted by."""

    TOTAL = "total"
    OLDEST = "oldest"
    OFFICE = "office"


_KEYS: Mapping[QueueOrder, Callable[[Waiting], tuple[object, ...]]] = {
    QueueOrder.TOTAL: lambda each: (-each.total, each.office),
    QueueOrder.OLDEST: lambda each: (each.oldest_at, each.office),
    QueueOrder.OFFICE: lambda each: (each.office,),
}


def queue(
    *,
    sort: Annotated[
        QueueOrder, typer.Option(metavar="BY", help=f"Sort by {', '.join(QueueOrder)}.")
    ] = QueueOrder.TOTAL,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Show what waits to be collected: a row an office, a column an age.

    The first row is the sum of all offices, also of those that --limit leaves out.
    """
    found, names = run(_queue(home))
    found.sort(key=_KEYS[sort], reverse=reverse)
    shown = found[: effective_limit(limit, as_json=as_json)]
    if as_json:
        print_json([_describe(each, names) for each in shown])
    elif not found:
        say("nothing waits: every file was collected")
    else:
        _print(found, shown, names, note_rows(len(shown), effective_limit(limit, as_json=False), "offices", len(found)))


async def _queue(home: Path) -> tuple[list[Waiting], dict[OfficeNumber, str]]:
    async with open_installation(home) as relay:
        found = await relay.ledger.count_waiting(now=relay.now)
        offices = [await relay.ledger.find_office(each.office) for each in found]
        return found, {office.number: office.name for office in offices if office is not None}


def _describe(each: Waiting, names: Mapping[OfficeNumber, str]) -> dict[str, object]:
    return {
        "office": each.office,
        "name": names.get(each.office, ""),
        "total": each.total,
        "ages": dict(zip(AGE_NAMES, each.counts, strict=True)),
        "oldest_at": json_time(each.oldest_at),
    }


def _print(found: list[Waiting], shown: list[Waiting], names: Mapping[OfficeNumber, str], note: str) -> None:
    is_wide = console().width >= _NAME_COLUMNS
    columns = [
        Column("Office"),
        *([Column("Name", is_flexible=True)] if is_wide else []),
        Column("Total", justify="right"),
    ]
    columns += [Column(age, justify="right") for age in AGE_NAMES]
    columns.append(Column(zoned("Oldest")))
    sums = [sum(column) for column in zip(*(each.counts for each in found), strict=True)]
    rows = [_row("TOTAL", "", sums, min(each.oldest_at for each in found), is_wide=is_wide)]
    rows += [
        _row(each.office, names.get(each.office, "-"), [*each.counts], each.oldest_at, is_wide=is_wide)
        for each in shown
    ]
    print_table(columns, rows, note=note)


def _row(office: str, name: str, counts: list[int], oldest_at: datetime, *, is_wide: bool) -> list[str | Text]:
    cells = [_say_count(count, is_late=place >= _LATE) for place, count in enumerate(counts)]
    head: list[str | Text] = [office, name] if is_wide else [office]
    return [*head, f"{sum(counts):,}", *cells, say_time(oldest_at, with_zone=False)]


def _say_count(count: int, *, is_late: bool) -> Text:
    return Text(f"{count:,}" if count else ".", style=(Tone.BAD if is_late else "") if count else Tone.FADED)
