"""``relay check``: what the relay would say to files, before anybody sends them.

Offline: no server, no store, no home.  What a vendor runs in its tests, and what a clerk's script runs before an
upload.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.terminal import CommandRefused, console
from relay.errors import Severity
from relay.model import Office, OfficeNumber

if TYPE_CHECKING:
    from relay.cli.check_judging import FileReport, Judge, UnitReport

WARNED = 1
REFUSED = 2


def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", exists=True, help="Files, and folders with files.", show_default=False),
    ],
    *,
    as_office: Annotated[
        str | None, typer.Option("--as", metavar="OFFICE", help="Who would send them.", show_default="as the names say")
    ] = None,
    register: Annotated[
        Path | None,
        typer.Option(
            "--offices",
            metavar="REGISTER.csv",
            exists=True,
            dir_okay=False,
            help="Who takes part: columns office_number, name_ja, prefecture, service_types, status.",
            show_default="offices are not looked up",
        ),
    ] = None,
    with_units: Annotated[bool, typer.Option("--units", help="Also say which units the files are.")] = False,
    is_strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where there are warnings.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines instead: one object a file, then one a unit.")
    ] = False,
    day: Annotated[
        datetime | None,
        typer.Option("--on", metavar="DATE", formats=["%Y-%m-%d"], help="As if sent that day.", show_default="today"),
    ] = None,
) -> None:
    """Say what the relay would say to these files, without sending them.

    Names, offices and content are checked as on the server, and everything that is found is listed.
    A file in a folder send/OFFICE/ may have any name.
    Folders are searched; what begins with a dot is left out.

    Exit code 0; 1 for warnings with --strict; 2 where a file would be refused.
    """
    from relay.cli.check_judging import judge_units
    from relay.cli.check_report import print_json_line, print_reports

    judge = _build_judge(as_office, register, day, with_units=with_units)
    reports: list[FileReport] = []
    for report in _judge_all(judge, _find_files(files), is_quiet=as_json and console().is_terminal):
        reports.append(report)
        if as_json:
            print_json_line(report)
    units = list(judge_units(reports)) if with_units else []
    if as_json:
        for unit in units:
            print_json_line(unit)
    else:
        print_reports(reports, units, with_units=with_units)
    raise typer.Exit(_exit_code([*reports, *units], is_strict=is_strict))


def _build_judge(as_office: str | None, register: Path | None, day: datetime | None, *, with_units: bool) -> Judge:
    from relay.cli.check_judging import Judge
    from relay.config import NamesSettings
    from relay.naming import NamingRules

    offices = None if register is None else _read_register(register)
    return Judge(
        rules=NamingRules(frozenset(NamesSettings().extensions)),
        now=datetime.now().astimezone() if day is None else datetime.combine(day, time(12)).astimezone(),
        sender=_read_sender(as_office, offices),
        offices=offices,
        with_persons=with_units,
    )


def _exit_code(reports: Iterable[FileReport | UnitReport], *, is_strict: bool) -> int:
    verdicts = {report.verdict for report in reports}
    if "refuse" in verdicts:
        return REFUSED
    return WARNED if is_strict and Severity.WARN in verdicts else 0


def _read_sender(text: str | None, offices: Mapping[OfficeNumber, Office] | None) -> OfficeNumber | None:
    if text is None:
        return None
    from relay.cli.installation import read_office_number

    number = read_office_number(text)
    if offices is not None and number not in offices:
        raise CommandRefused(f"office {number} is not in the register, so nobody can send as it")
    return number


def _read_register(path: Path) -> Mapping[OfficeNumber, Office]:
    from relay.cli.register_file import parse_register

    parsed = parse_register(path.read_bytes())
    for fault in parsed.faults:
        typer.echo(f"{path.name}:{fault.line}: {fault.text}", err=True)
    if parsed.faults:
        raise CommandRefused(f"{path.name} is no register; nothing was checked")
    return {office.number: office for office in parsed.offices}


def _find_files(given: Sequence[Path]) -> list[Path]:
    """Return every file once, folders searched, in the order given and sorted within a folder."""
    found: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            found.update(dict.fromkeys(_walk(path)))
        elif path.is_file():
            found[path] = None
        else:
            raise CommandRefused(f"{path} is neither a file nor a folder")
    if not found:
        raise CommandRefused("there are no files here")
    return list(found)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _judge_all(judge: Judge, paths: Sequence[Path], *, is_quiet: bool) -> Iterator[FileReport]:
    with _progress(len(paths), is_quiet=is_quiet) as advance:
        for path in paths:
            yield judge.judge(path)
            advance()


@contextmanager
def _progress(total: int, *, is_quiet: bool) -> Iterator[Callable[[], None]]:
    """Show a bar on the terminal; a call says that one more file is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    err = console(stderr=True)
    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_hidden = is_quiet or not err.is_terminal
    # What is printed meanwhile belongs to stdout, which may be a pipe; rich would take it over.
    with Progress(*columns, console=err, transient=True, redirect_stdout=False, disable=is_hidden) as bar:
        task = bar.add_task("checking", total=total)
        yield lambda: bar.advance(task)
