"""The country's busiest hour of a month, replayed against a relay on this machine: what share of it is carried.

Run by `./scripts/month-end`, which says how.
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rig.country import read_prefectures
from rig.figures import as_json
from rig.load import LoadError
from rig.machine import Machine, end_as_by_hand, look_at_machine, tell
from rig.monthend import ANSWERS, MOST_SECONDS, MonthEnd, Step
from rig.peakhour import country_rates, explain
from rig.published import publish
from rig.servers import RigError

_FIRST_SHARE = 0.1
_HEADINGS = ["share", "visits/s", *(f"{what} p50 / p99" for what in ANSWERS), "lost", "server cores", ""]
_TAKEN_TO_BE = "What the country's busiest hour is taken to be:"


def main() -> int:
    """Prepare the country, play its busiest hour, say what was carried."""
    wanted = _parse_arguments()
    end_as_by_hand()
    where = Path(wanted.folder).resolve()
    machine = look_at_machine(where)
    tell(machine.describe())
    try:
        with tempfile.TemporaryDirectory(prefix="relay-month-end-", dir=where) as folder:
            month = MonthEnd(Path(folder), fraction=wanted.fraction, register=wanted.register)
            with month.home.serve(workers=wanted.workers) as server:
                if wanted.speed is None:
                    steps = month.find_share(server, _FIRST_SHARE, wanted.seconds)
                else:
                    steps = [month.play(server, wanted.fraction * wanted.speed, wanted.seconds)]
    except (RigError, LoadError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Everything that was started has ended by now, and the folder is gone.
        print("stopped", file=sys.stderr)
        return 130
    if wanted.publish:
        command = f"./scripts/month-end {shlex.join(sys.argv[1:])}"
        publish(
            "month-end",
            "The busiest hour of a month",
            _write_page(command, machine, month, steps),
            _as_json(wanted, machine, month, steps),
        )
    if wanted.json:
        print(_as_json(wanted, machine, month, steps))
    else:
        _show(wanted, machine, month, steps)
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="month-end", description="The country's busiest hour against a relay here.")
    parser.add_argument("--fraction", type=float, default=0.02, help="the part of all offices that takes part (0.02)")
    parser.add_argument(
        "--speed", type=float, help="play once, so many times as fast as it happens; else as fast as it goes"
    )
    parser.add_argument("--seconds", type=float, help="how long each share is played (30; with --quick 6)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="worker processes (all processors)")
    parser.add_argument("--register", type=float, default=1.0, help="the part of the country that is registered (1)")
    parser.add_argument("--quick", action="store_true", help="in about a minute")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--publish", action="store_true", help="write it into tests/figures/ as well")
    parser.add_argument("--folder", default="/var/tmp", help="where the relay keeps its files: on a disk")  # noqa: S108
    wanted = parser.parse_args()
    if not 0 < wanted.fraction <= wanted.register <= 1:
        parser.error("--fraction and --register are parts of the country, and only who is registered can take part")
    wanted.seconds = wanted.seconds or (6.0 if wanted.quick else 30.0)
    if wanted.quick:
        wanted.fraction = min(wanted.fraction, 0.005)
    return wanted


def _show(wanted: argparse.Namespace, machine: Machine, month: MonthEnd, steps: Sequence[Step]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table(title=f"{month.offices:,} offices registered, {month.acting:,} take part, {wanted.workers} workers")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for cells in _rows(steps):
        table.add_row(*cells)
    console.print(table)
    for line in [*_conclude(machine, steps), "", _TAKEN_TO_BE, *explain()]:
        console.print(line, highlight=False)


def _write_page(command: str, machine: Machine, month: MonthEnd, steps: Sequence[Step]) -> str:
    rows = [_HEADINGS, ["---"] * len(_HEADINGS), *_rows(steps)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    parts = f"`{command}`: {month.offices:,} offices registered, {month.acting:,} of them take part."
    arithmetic = "\n".join(f"- {line}" for line in explain())
    return "\n\n".join([parts, *_conclude(machine, steps), table, _TAKEN_TO_BE, arithmetic])


def _rows(steps: Sequence[Step]) -> Iterator[list[str]]:
    for step in sorted(steps, key=lambda each: each.share):
        visits = (step.counts.get("login", 0) + step.counts.get("kept", 0)) / step.wall_seconds
        lost = step.counts.get("failed", 0) + step.counts.get("turned away", 0)
        yield [
            f"{step.share:.1%}",
            f"{visits:.1f}",
            *(
                f"{1000 * step.p50[what]:,.0f} / {1000 * step.p99[what]:,.0f} ms" if what in step.p99 else ""
                for what in ANSWERS
            ),
            str(lost),
            f"{step.server_cores:.2f}",
            "carried" if step.is_carried else "too much",
        ]


def _conclude(machine: Machine, steps: Sequence[Step]) -> list[str]:
    rates = country_rates()
    carried = [step for step in steps if step.is_carried]
    lines = []
    if carried:
        best = max(carried, key=lambda each: each.share)
        logins = best.counts.get("login", 0) / best.wall_seconds
        lines.append(
            f"This machine carries {best.share:.0%} of the whole country's busiest hour with every p99 below {MOST_SECONDS:g} s: "
            f"{best.share:.2f} × {rates.visits:.0f} visits a second, of which {logins:.0f} were cold logins when it was played."
        )
        lines.append(
            f"The load program ran on the same {machine.cores} processors: its busiest process used {best.load_share:.0%} of one and "
            f"began {1000 * best.late_p99:.0f} ms late at p99; the server used {best.server_cores:.1f}."
        )
    else:
        lines.append(f"No share that was tried was carried with every p99 below {MOST_SECONDS:g} s.")
    return [*lines, machine.describe() + ".", *([machine.warning()] if machine.warning() else [])]


def _as_json(wanted: argparse.Namespace, machine: Machine, month: MonthEnd, steps: Sequence[Step]) -> str:
    carried = [step.share for step in steps if step.is_carried]
    return as_json(
        {
            "machine": asdict(machine) | {"at": machine.at.isoformat()},
            "workers": wanted.workers,
            "prefectures": len(read_prefectures()),
            "offices": month.offices,
            "acting": month.acting,
            "country_in_a_second": asdict(country_rates()),
            "arithmetic": explain(),
            "steps": [asdict(step) | {"is_carried": step.is_carried} for step in steps],
            "carried_share": max(carried, default=None),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
