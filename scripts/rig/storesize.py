"""Workloads (i) and (l): what a large store costs, at each upload, listing and login, and at the start of the server.

Two relays are made, one with some thirty offices and one with the whole country's register and a million transfers
(`rig.bigstore`).  Both do the same work, in turn, once a server that was just started has come to rest: what it counts
and tidies by itself, once in one minute or in ten, would otherwise be told as the cost of the first few listings.

Each is compared with the other of its round, and the median of the rounds counts: what else moves the machine's speed from
one minute to the next meets both of a round.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rig.bigstore import BigStore
from rig.figures import Figure
from rig.load import prepared
from rig.machine import tell
from rig.processes import cpu_seconds
from rig.servers import RelayHome, Running
from rig.sides import Bench, make_relay
from rig.workloads import Amounts, Measure, Side, fill, list_directories, measure_of, split, upload, warm_up

_TARGET = 1.2
_EMPTY = "empty store"
# A server is at rest that takes less than this part of a processor over a second; it is waited for no longer than so long.
_RESTING_SHARE = 0.1
_REST_WITHIN_SECONDS = 60.0
_LISTED = 1_000
# Listings for each that the comparison of servers makes: twenty are over in a tenth of a second, and tell of chance.
_LISTINGS_FOLD = 5
# At which sizes the plot has a point, as parts of the largest.
_STEPS = (0.0, 0.01, 0.1, 1.0)


def log_in(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """Connect, authenticate, open SFTP, disconnect."""
    with side.start() as server:
        warm_up(side, server)
        with prepared(split(side, server, "login", amounts.connections, concurrency=8)) as load:
            before = cpu_seconds(server.pid)
            outcome = load.go()
            cpu = cpu_seconds(server.pid) - before
    return {"login": measure_of(outcome, cpu)}


_WORK: Mapping[str, Callable[[Side, Amounts], dict[str, Measure]]] = {
    "upload of 10 KB": upload,
    f"listing of {_LISTED:,} files": list_directories,
    "login": log_in,
}


@dataclass(slots=True)
class Costs:
    """What one store's server took, round by round: milliseconds of CPU by work, and *start_ms* until it listens."""

    work: dict[str, list[float]] = field(default_factory=lambda: {what: [] for what in _WORK})
    start_ms: list[float] = field(default_factory=list)
    busiest: float = 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured while the large store held so many *transfers*, beside the small one."""

    transfers: int
    large: Costs
    small: Costs

    def ratio(self, what: str) -> float:
        """Return what the work costs in the large store for one of the small, in the median of the rounds."""
        pairs = zip(self.large.work[what], self.small.work[what], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was measured, as the large store grew."""

    offices: int
    points: Sequence[Point]

    def figures(self) -> list[Figure]:
        """Return the lines of (i) and (l)."""
        last = self.points[-1]
        size = f"with {self.offices:,} offices and {last.transfers:,} transfers"
        lines = []
        for what, large in last.large.work.items():
            small = statistics.median(last.small.work[what])
            text = f"{what} {size}: server CPU"
            lines.append(Figure("i", text, "ms", statistics.median(large), {_EMPTY: small}))
            rounds = f"median of {len(large)} round{'' if len(large) == 1 else 's'}"
            lines.append(Figure("i", f"{text}, to that of an {_EMPTY}, {rounds}", "×", last.ratio(what), {}, _TARGET))
        start = f"start until it listens, {size}"
        return [*lines, Figure("l", start, "ms", min(last.large.start_ms), {_EMPTY: min(last.small.start_ms)})]


def measure_sizes(bench: Bench, *, is_plotted: bool) -> tuple[Sizes, float]:
    """Make the large store and measure; where it is to be plotted, also while it grows."""
    small, _ = _make_relay(bench.folder / "small")
    large, home = _make_relay(bench.folder / "large")
    tell("(i) making the large store")
    store = BigStore(home, home.home.parent, fraction=bench.amounts.offices)
    points: list[Point] = []
    for step in _STEPS if is_plotted else _STEPS[-1:]:
        store.grow(round(step * bench.amounts.transfers))
        # The last is what the target is about; the others are points of a plot.
        rounds = 2 * bench.amounts.rounds - 1 if step == _STEPS[-1] else bench.amounts.rounds
        points.append(_measure(large, small, bench.amounts, rounds, store.transfers))
    busiest = max(costs.busiest for point in points for costs in (point.large, point.small))
    return Sizes(store.offices, points), busiest


def _make_relay(folder: Path) -> tuple[Side, RelayHome]:
    """Make a relay with one directory to list."""
    folder.mkdir()
    home = RelayHome(folder / "relay")
    side, _ = make_relay(folder, home, (_LISTED,))
    fill(side, side.folders[_LISTED][0], _LISTED)
    return side, home


def _measure(large: Side, small: Side, amounts: Amounts, rounds: int, transfers: int) -> Point:
    point = Point(transfers, Costs(), Costs())
    amounts = replace(amounts, listings=_LISTINGS_FOLD * amounts.listings)
    for turn in range(rounds):
        for what in _WORK:
            tell(f"(i) {what}, {transfers:,} transfers, {turn + 1} of {rounds}")
            for side, costs in ((large, point.large), (small, point.small)):
                _note(costs, what, side, amounts)
        for side, costs in ((large, point.large), (small, point.small)):
            with side.start() as server:
                costs.start_ms.append(1000 * server.start_seconds)
    return point


def _note(costs: Costs, what: str, side: Side, amounts: Amounts) -> None:
    rested = replace(side, start=lambda: _rested(side))
    measure = next(iter(_WORK[what](rested, amounts).values()))
    costs.work[what].append(1000 * measure.cpu_seconds)
    costs.busiest = max(costs.busiest, measure.load_share)


@contextmanager
def _rested(side: Side) -> Iterator[Running]:
    """Start the server, and wait until what it does by itself at its start is done."""
    with side.start() as server:
        until = time.monotonic() + _REST_WITHIN_SECONDS
        is_resting = False
        while not is_resting and time.monotonic() < until:
            before = cpu_seconds(server.pid)
            time.sleep(1.0)
            is_resting = cpu_seconds(server.pid) - before < _RESTING_SHARE
        yield server


def plot_sizes(sizes: Sizes, path: Path) -> None:
    """Draw what each work costs against how many transfers there are, each in parts of what it costs in an empty store."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for what in _WORK:
        ratios = [point.ratio(what) for point in sizes.points]
        axes.plot([max(1, point.transfers) for point in sizes.points], ratios, marker="o", label=what)
    axes.axhline(_TARGET, linestyle="--", color="grey", label=f"target {_TARGET}")
    axes.set(xscale="log", ylim=(0, None), xlabel=f"transfers, with {sizes.offices:,} offices")
    axes.set_ylabel("server CPU, empty store = 1")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
