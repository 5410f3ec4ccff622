"""The bench: the relay beside OpenSSH's own server, on this machine, in one run, under the same load program.

Run by `./scripts/bench`, which says how.  Figures of two machines, or of two runs, are not to be compared; the
ratios of one run are.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from rig.checking import measure_checking
from rig.crowd import measure_crowd
from rig.durability import measure_durability
from rig.fairness import measure_fairness
from rig.figures import Figure, as_json, describe_figures, show_figures, write_markdown
from rig.floor import measure_floor
from rig.latency import measure_latency
from rig.load import LoadError
from rig.machine import Machine, end_as_by_hand, look_at_machine, tell
from rig.proof import measure_load_program
from rig.published import FIGURES, README, Run, add_run, publish, read_runs, show_in_readme, write_runs
from rig.recovery import measure_recovery
from rig.roundtrip import measure_round_trips
from rig.scaling import measure_scaling
from rig.servers import RigError
from rig.sides import Bench, compare, prepare
from rig.storesize import Sizes, measure_sizes, plot_sizes
from rig.workloads import FULL, QUICK, WORKLOADS, Amounts

NOTE = (
    "Ours includes routing by name, checking the content, sealing (AES-256-GCM), history and syncing to stable storage "
    "before every OK; OpenSSH's does none of it."
)
_EXPLAINED = (
    NOTE,
    (
        "A ratio is ours divided by the first of theirs. Times are the best of the rounds unless a line says otherwise, servers in turn; memory is the "
        "median, PSS of the process tree. Server CPU is that of the whole process tree."
    ),
)
_OTHERS = ("f", "g", "h", "i", "j", "k", "l", "m", "n", "check", "floor", "load")
ALL = (*WORKLOADS, *_OTHERS)
# What is measured of one beside the large store belongs to both letters.
_LARGE_STORE = {"i", "l"}
_PLOT = "store-size.svg"


@dataclass(slots=True)
class Results:
    """What was found so far; *busiest* is the largest share of a processor that a load process used, by workload."""

    machine: Machine
    figures: list[Figure] = field(default_factory=list)
    busiest: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    sizes: Sizes | None = None


def main() -> int:
    """Prepare the servers, run the workloads, print the table."""
    wanted = _parse_arguments()
    end_as_by_hand()
    amounts = QUICK if wanted.quick else FULL
    only = wanted.only.split(",") if wanted.only else list(ALL)
    where = Path(wanted.folder).resolve()
    results = Results(look_at_machine(where))
    tell(results.machine.describe())
    if results.machine.warning():
        tell(results.machine.warning())
    try:
        with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=where) as folder:
            # The other servers' sessions run as another user, who has to get to his files.
            Path(folder).chmod(0o711)
            bench = prepare(Path(folder), amounts, listings="e" in only)
            _measure(bench, only, results, is_plotted=wanted.plot is not None)
    except RigError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Every server has ended by now, and the folder is gone.
        print("stopped", file=sys.stderr)
        return 130
    _report(wanted, amounts, results)
    return 1 if results.failures else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="The relay beside OpenSSH's server, under one load.")
    parser.add_argument("--quick", action="store_true", help="less of everything: for seeing that it runs")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the figures as a table of a page")
    parser.add_argument("--publish", action="store_true", help="write all of it into tests/figures/ and README.md")
    parser.add_argument("--plot", metavar="FILE", help="draw cost against size of the store: .svg, .png or .pdf")
    parser.add_argument("--only", metavar="a,b,…", default="", help=f"some of the workloads {', '.join(ALL)}")
    parser.add_argument("--folder", default="/var/tmp", help="where the servers keep their files: on a disk")  # noqa: S108
    wanted = parser.parse_args()
    if wanted.only and not set(wanted.only.split(",")) <= set(ALL):
        parser.error(f"--only takes some of {','.join(ALL)}")
    if wanted.publish and not wanted.plot:
        FIGURES.mkdir(parents=True, exist_ok=True)
        wanted.plot = str(FIGURES / _PLOT)
    elif wanted.plot and wanted.only and not set(wanted.only.split(",")) & _LARGE_STORE:
        parser.error("--plot draws what (i) measures")
    return wanted


def _measure(bench: Bench, only: Sequence[str], results: Results, *, is_plotted: bool) -> None:
    """Run the workloads; one that fails is told and does not keep the others from running."""
    for name in only:
        try:
            figures, busiest = _run(bench, name, results, is_plotted=is_plotted)
        except (RigError, LoadError) as error:
            results.failures.append(f"({name}) {error}")
            tell(results.failures[-1])
            continue
        results.figures += figures
        results.busiest[name] = busiest


def _run(bench: Bench, name: str, results: Results, *, is_plotted: bool) -> tuple[list[Figure], float]:
    if name in WORKLOADS:
        return compare(bench, name)
    if name in _LARGE_STORE:
        if results.sizes is None:
            results.sizes, results.busiest["i"] = measure_sizes(bench, is_plotted=is_plotted)
        return [figure for figure in results.sizes.figures() if figure.workload == name], 0.0
    if name == "g":
        return measure_latency(bench, results.machine.sync_seconds)
    others: Mapping[str, Callable[[Bench], tuple[list[Figure], float]]] = {
        "f": measure_durability,
        "h": measure_scaling,
        "j": measure_crowd,
        "k": measure_round_trips,
        "m": measure_recovery,
        "n": measure_fairness,
        "check": measure_checking,
        "floor": measure_floor,
        "load": measure_load_program,
    }
    return others[name](bench)


def _report(wanted: argparse.Namespace, amounts: Amounts, results: Results) -> None:
    command = f"./scripts/bench {shlex.join(sys.argv[1:])}".rstrip()
    if wanted.plot and results.sizes:
        plot_sizes(results.sizes, Path(wanted.plot))
    told = {
        "command": command,
        "machine": asdict(results.machine) | {"at": results.machine.at.isoformat()},
        "warning": results.machine.warning(),
        "note": NOTE,
        "amounts": asdict(amounts),
        "figures": describe_figures(results.figures),
        "busiest_load_process": results.busiest,
        "failures": results.failures,
    }
    source = _describe_source(command, results)
    sentences = [source, *_EXPLAINED, _count(results.figures)]
    if wanted.publish:
        _publish(results, source, told)
    if wanted.json:
        print(as_json(told))
    elif wanted.markdown:
        print("\n\n".join([*sentences, write_markdown(results.figures)]))
    else:
        console = Console(width=None if sys.stdout.isatty() else 170)
        show_figures(console, results.figures)
        for sentence in sentences:
            console.print(sentence, highlight=False)


def _publish(results: Results, source: str, told: Mapping[str, object]) -> None:
    runs = add_run(read_runs(), Run(source, results.figures, told))
    page, raw = write_runs(runs)
    plot = f"\n\n![Cost against the size of the store]({_PLOT})" if (FIGURES / _PLOT).exists() else ""
    publish("bench", "Figures of the bench", "\n\n".join([*_EXPLAINED, f"{page}{plot}"]), raw)
    figures = sorted((figure for run in runs for figure in run.figures), key=_place)
    sentences = [*(run.describe() for run in runs), *_EXPLAINED, _count(figures)]
    text = README.read_text(encoding="utf-8")
    README.write_text(show_in_readme(text, figures, sentences), encoding="utf-8")


def _place(figure: Figure) -> int:
    return ALL.index(figure.workload.partition(" ")[0])


def _describe_source(command: str, results: Results) -> str:
    busiest = max(results.busiest.values(), default=0.0)
    sentences = [f"`{command}` on {results.machine.describe()}.", results.machine.warning()]
    sentences.append(f"The busiest load process used {busiest:.0%} of a processor; see also (load).")
    sentences += [f"Failed: {failure}" for failure in results.failures]
    return " ".join(sentence for sentence in sentences if sentence)


def _count(figures: Sequence[Figure]) -> str:
    met = sum(figure.verdict == "met" for figure in figures)
    missed = [f"({figure.workload}) {figure.text}" for figure in figures if figure.verdict == "missed"]
    return f"{met} targets met, {len(missed)} missed{': ' if missed else ''}{'; '.join(missed)}."


if __name__ == "__main__":
    sys.exit(main())
