"""``relay office import``: a whole register in one go, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.installation import HomeOption, Installation, open_installation, run
from relay.cli.terminal import CommandRefused, JsonOption, YesOption, confirm, console, print_json, say, warn
from relay.ledger import ImportCounts
from relay.model import Office, OfficeStatus

if TYPE_CHECKING:
    from relay.cli.register_file import RegisterFile


def import_offices(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            exists=True,
            dir_okay=False,
            help="Columns office_number, name_ja, prefecture, service_types (11|15), status; UTF-8 or cp932.",
            show_default=False,
        ),
    ],
    *,
    suspend_missing: Annotated[
        bool, typer.Option("--suspend-missing", help="Suspend active offices that the file lacks.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Add and change offices from a CSV file, all of them or none.

    Offices that the file lacks are left alone, unless --suspend-missing is given.
    Every line that is wrong is reported at once, and then nothing is changed.
    """
    run(_import(home, file.name, file.read_bytes(), suspend_missing=suspend_missing, yes=yes, as_json=as_json))


async def _import(home: Path, name: str, data: bytes, *, suspend_missing: bool, yes: bool, as_json: bool) -> None:
    from relay.cli.register_file import parse_register
    from relay.standard.offices import has_check_digit

    async with open_installation(home) as relay:
        parsed = parse_register(data)
        if parsed.faults:
            _report_faults(name, parsed, as_json=as_json)
        if suspend_missing:
            await _confirm_missing(relay, parsed.offices, yes=yes)
        with _progress(len(parsed.offices), is_shown=not as_json) as progress:
            counts = await relay.ledger.import_offices(
                parsed.offices, suspend_missing=suspend_missing, actor=relay.actor, now=relay.now, progress=progress
            )
    odd = sum(not has_check_digit(office.number) for office in parsed.offices)
    if as_json:
        print_json({**_describe(counts), "check_digit_warnings": odd, "faults": []})
        return
    say(
        f"{len(parsed.offices):,} offices read: {counts.added:,} added, {counts.updated:,} changed, "
        f"{counts.unchanged:,} as they were" + (f", {counts.suspended:,} suspended" if suspend_missing else "")
    )
    if counts.ended:
        warn(
            f"{counts.ended:,} of them closed or changed their number here, and stay so: `relay office reopen` undoes that"
        )
    if odd == 1:
        warn("1 number does not fit the check digit, as one in a thousand real ones does not")
    elif odd:
        warn(f"{odd:,} numbers do not fit the check digit, as one in a thousand real ones does not")


def _report_faults(name: str, parsed: RegisterFile, *, as_json: bool) -> None:
    """Print every fault and raise CommandRefused."""
    if as_json:
        print_json({"faults": [{"line": fault.line, "text": fault.text} for fault in parsed.faults]})
    else:
        for fault in parsed.faults:
            typer.echo(f"{name}:{fault.line}: {fault.text}", err=True)
    lines = "1 line is" if len(parsed.faults) == 1 else f"{len(parsed.faults):,} lines are"
    raise CommandRefused(f"{lines} wrong in {name}; nothing was changed")


async def _confirm_missing(relay: Installation, offices: tuple[Office, ...], *, yes: bool) -> None:
    listed = {office.number for office in offices}
    active = await relay.ledger.list_offices(status=OfficeStatus.ACTIVE)
    missing = sum(office.number not in listed for office in active)
    if missing:
        confirm(f"{missing:,} of {len(active):,} active offices are not in the file. Suspend them?", yes=yes)


@contextmanager
def _progress(total: int, *, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on the terminal; a call says how many offices are done, from whatever thread."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    err = console(stderr=True)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not (is_shown and err.is_terminal)) as bar:
        task = bar.add_task("importing", total=total)
        yield lambda done: bar.update(task, completed=done)


def _describe(counts: ImportCounts) -> dict[str, object]:
    return {
        "added": counts.added,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "suspended": counts.suspended,
        "ended": counts.ended,
    }
