"""The bench: the relay beside OpenSSH's own server, on this machine, in one run, under the same load program.

Run by `./scripts/bench`, which says how.  Figures of two machines, or of two runs, are not to be compared; the
ratios of one run are.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rig.checking import CheckCost, measure_checking
from rig.load import FILE_BYTES, Login
from rig.offices import CARE_MANAGER, HOME_HELP, make_office, name_slip, render_register, render_serial, render_slip
from rig.servers import OpenSshHome, RelayHome, RigError
from rig.workloads import FULL, QUICK, WORKLOADS, Amounts, Measure, Numbers, Side, fill

NOTE = (
    "Ours includes routing by name, checking the content, sealing (AES-256-GCM) and syncing to stable storage "
    "before every OK; OpenSSH's does none of it."
)
LISTED = (1_000, 10_000)
SENDERS = 8

# What each line shows, and which of its two ratios issue 2 set a goal for.
LINES: Mapping[str, tuple[str, str, float]] = {
    "a": ("(a) connect, put 10 KB, disconnect", "cpu", 0.30),
    "b": ("(b) 10 KB file, open session", "cpu", 1.5),
    "c put": ("(c) put one large file (PDF)", "wall", 2.5),
    "c get": ("(c) get one large file (PDF)", "wall", 1.5),
    "d": ("(d) memory of an idle session", "memory", 0.05),
    "e 1,000": ("(e) list 1,000 files", "cpu", 1.5),
    "e 10,000": ("(e) list 10,000 files", "cpu", 1.5),
}
# Not beside OpenSSH, which checks nothing; the goal is for what an upload of 10 KB costs more.
CHECK = "check"
CHECK_GOAL_SECONDS = 0.000_15
FIELDS = {"cpu": "cpu_seconds", "wall": "wall_seconds", "memory": "memory_bytes"}


def main() -> int:
    """Prepare both servers, run the workloads on each, print the table."""
    wanted = _parse_arguments()
    amounts = QUICK if wanted.quick else FULL
    only = wanted.only.split(",") if wanted.only else [*WORKLOADS, CHECK]
    rounds = 1 if wanted.quick else 3
    try:
        with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=Path(wanted.folder).resolve()) as folder:
            # OpenSSH's sessions run as another user, who has to get to his files.
            Path(folder).chmod(0o711)
            sides = _prepare(Path(folder), listings="e" in only)
            relay, openssh = _measure(sides, [name for name in only if name != CHECK], amounts, rounds=rounds)
            check = _measure_check(sides[0], amounts, rounds=rounds) if CHECK in only else None
    except RigError as error:
        print(error, file=sys.stderr)
        return 1
    if wanted.json:
        print(_as_json(relay, openssh, amounts, check))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    if relay:
        _show(console, relay, openssh, amounts)
    if check:
        console.print(_describe_check(check))
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="The relay beside OpenSSH's server, under one load.")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: for seeing that it runs")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--only", metavar="a,b,…", default="", help="some of the workloads a, b, c, d, e, check")
    parser.add_argument("--folder", default="/var/tmp", help="where both servers keep their files: on a disk")  # noqa: S108
    wanted = parser.parse_args()
    if wanted.only and not set(wanted.only.split(",")) <= {*WORKLOADS, CHECK}:
        parser.error(f"--only takes some of {','.join([*WORKLOADS, CHECK])}")
    return wanted


def _prepare(folder: Path, *, listings: bool) -> tuple[Side, Side]:
    _tell("preparing both servers")
    senders = [make_office(2000 + n, f"ケアプランみほん野{n}", CARE_MANAGER) for n in range(SENDERS)]
    readers = [make_office(3000 + n, f"ヘルパーみほん野{n}", HOME_HELP) for n in range(1 + len(LISTED))]
    home = RelayHome(folder / "relay")
    register = folder / "offices.csv"
    register.write_text(render_register([*senders, *readers]), encoding="utf-8")
    home.initialise(register)
    numbers = [office.number for office in [*senders, *readers]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        logins = [Login(number, str(key)) for number, key in zip(numbers, pool.map(home.issue, numbers), strict=True)]
    sending, recipient, listing = logins[:SENDERS], logins[SENDERS], logins[SENDERS + 1 :]

    sshd = OpenSshHome(folder / "openssh", home.home / "keys", numbers)
    ours = {files: (login, "receive") for files, login in zip(LISTED, listing, strict=True)}
    theirs = {files: (login, f"listed-{files}") for files, login in zip(LISTED, listing, strict=True)}
    relay_side = Side("relay", home.serve, sending, recipient, ours, Numbers(), home.known_hosts, folder)
    sshd_side = Side("OpenSSH", sshd.serve, sending, recipient, theirs, Numbers(), home.known_hosts, folder)
    if listings:
        _tell("uploading what is going to be listed")
        for files, (reader, path) in theirs.items():
            fill(relay_side, reader, files)
            _fill_directory(sshd.files / path, sending[0].office, reader.office, files)
    return relay_side, sshd_side


def _fill_directory(directory: Path, sender: str, reader: str, files: int) -> None:
    directory.mkdir()
    content = render_slip(sender, reader, FILE_BYTES)
    for index in range(files):
        (directory / name_slip(sender, reader, render_serial(index))).write_bytes(content)


def _measure(
    sides: tuple[Side, Side], only: Sequence[str], amounts: Amounts, *, rounds: int
) -> list[dict[str, Measure]]:
    """Run every workload on both in turn, *rounds* times, and keep what each line showed."""
    found: list[dict[str, list[Measure]]] = [{}, {}]
    for name in only:
        for turn in range(rounds):
            for side, seen in zip(sides, found, strict=True):
                _tell(f"({name}) {side.label}, {turn + 1} of {rounds}")
                for line, measure in WORKLOADS[name](side, amounts).items():
                    seen.setdefault(line, []).append(measure)
    return [{line: _summarise(measures) for line, measures in seen.items()} for seen in found]


def _measure_check(relay: Side, amounts: Amounts, *, rounds: int) -> CheckCost:
    _tell(f"({CHECK}) relay")
    return measure_checking(relay, RelayHome(relay.scratch / "relay"), amounts, rounds=rounds)


def _summarise(measures: Sequence[Measure]) -> Measure:
    """Take the best times, which a busy neighbour disturbed least, and the median memory."""
    return Measure(
        min(measure.cpu_seconds for measure in measures),
        min(measure.wall_seconds for measure in measures),
        statistics.median(measure.memory_bytes for measure in measures),
    )


def _show(console: Console, relay: Mapping[str, Measure], openssh: Mapping[str, Measure], amounts: Amounts) -> None:
    table = Table(title=f"relay / OpenSSH on {platform.machine()}, {os.cpu_count()} processors")
    table.add_column("one of")
    for heading in ("server CPU", "ratio", "wall", "ratio", "memory", "ratio", "goal"):
        table.add_column(heading, justify="right")
    for line, ours in relay.items():
        text, goal_for, goal = LINES[line]
        cells = [text]
        for kind, field in FIELDS.items():
            pair = getattr(ours, field), getattr(openssh[line], field)
            cells += ["", ""] if pair[1] == 0 else [_write_pair(kind, *pair), f"{pair[0] / pair[1]:.2f}"]
        table.add_row(*cells, f"{goal_for} ≤ {goal:.2f}")
    console.print(table)
    console.print(NOTE)
    console.print(_describe(amounts))
    console.print("Times are the best of the rounds, both servers in turn; memory is the median.")


def _write_pair(kind: str, ours: float, theirs: float) -> str:
    unit, scale = ("KB", 1 / 1024) if kind == "memory" else ("ms", 1000.0)
    return f"{ours * scale:,.2f} / {theirs * scale:,.2f} {unit}"


def _describe(amounts: Amounts) -> str:
    return (
        f"(a) {amounts.connections} connections, 16 at a time; (b) {amounts.files} files over 32 sessions; "
        f"(c) {amounts.large_bytes // 2**20} MB, with OpenSSH's client; "
        f"(d) {amounts.idle_sessions} sessions, PSS of the process tree; (e) {amounts.listings} listings of each."
    )


def _describe_check(cost: CheckCost) -> str:
    return (
        f"(check) relay check reads {cost.bytes_per_second / 1e6:,.1f} MB/s; a slip of 10 KB costs the server "
        f"{cost.added_cpu_seconds * 1000:.2f} ms of CPU more than the same bytes as a text, its entry in a unit included "
        f"(goal ≤ {CHECK_GOAL_SECONDS * 1000:.2f} ms)."
    )


def _as_json(
    relay: Mapping[str, Measure], openssh: Mapping[str, Measure], amounts: Amounts, check: CheckCost | None
) -> str:
    lines = {}
    for line, ours in relay.items():
        both = {"relay": asdict(ours), "openssh": asdict(openssh[line])}
        ratios = {
            kind: both["relay"][field] / both["openssh"][field]
            for kind, field in FIELDS.items()
            if both["openssh"][field]
        }
        lines[line] = {"what": LINES[line][0], **both, "ratios": ratios, "goal": dict([LINES[line][1:]])}
    told = {"lines": lines, "note": NOTE, "amounts": asdict(amounts), CHECK: asdict(check) if check else None}
    return json.dumps(told, ensure_ascii=False, indent=2)


def _tell(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
