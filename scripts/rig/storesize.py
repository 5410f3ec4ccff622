"""Workloads (i) and (l): what a large store costs, at each upload, listing and login, and at the start of the server.

Two relays are made, one with some thirty offices and one with the whole country's register and a million transfers
(`rig.bigstore`).  Both do the same work, in turn, once a server that was just started has come to rest: what it counts
and tidies by itself, once in one minute or in ten, would otherwise be told as the cost of the first few listings.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Point:
    """What each work costs, in milliseconds of server CPU, at so many transfers; *start_ms* until the server listens."""

    transfers: int
    costs: Mapping[str, float]
    start_ms: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was measured: *small* is the store of the bench, *points* the large one as it grew."""

    offices: int
    small: Point
    points: Sequence[Point]

    def figures(self) -> list[Figure]:
        """Return the lines of (i) and (l)."""
        large = self.points[-1]
        size = f"{self.offices:,} offices and {large.transfers:,} transfers"
        lines = [
            Figure("i", f"{what} with {size}: server CPU", "ms", large.costs[what], {"empty store": cost}, _TARGET)
            for what, cost in self.small.costs.items()
        ]
        start = f"start until it listens, with {size}"
        return [*lines, Figure("l", start, "ms", large.start_ms, {"empty store": self.small.start_ms})]


def measure_sizes(bench: Bench, *, is_plotted: bool) -> tuple[Sizes, float]:
    """Make the large store and measure; where it is to be plotted, also while it grows."""
    small, _ = _make_relay(bench.folder / "small")
    large, home = _make_relay(bench.folder / "large")
    tell("(i) making the large store")
    store = BigStore(home, home.home.parent, fraction=bench.amounts.offices)
    points: list[Point] = []
    smalls: list[Point] = []
    busiest = 0.0
    for step in _STEPS if is_plotted else _STEPS[-1:]:
        store.grow(round(step * bench.amounts.transfers))
        # In turn, so that what else the machine does meets both.
        for side, found in ((large, points), (small, smalls)):
            point, share = _measure(side, bench.amounts, store.transfers if side is large else 0)
            found.append(point)
            busiest = max(busiest, share)
    return Sizes(store.offices, smalls[-1], points), busiest


def _make_relay(folder: Path) -> tuple[Side, RelayHome]:
    """Make a relay with one directory to list."""
    folder.mkdir()
    home = RelayHome(folder / "relay")
    side, _ = make_relay(folder, home, (_LISTED,))
    fill(side, side.folders[_LISTED][0], _LISTED)
    return side, home


def _measure(side: Side, amounts: Amounts, transfers: int) -> tuple[Point, float]:
    costs: dict[str, float] = {}
    starts, busiest = [], 0.0
    rested = replace(side, start=lambda: _rested(side))
    amounts = replace(amounts, listings=_LISTINGS_FOLD * amounts.listings)
    for turn in range(amounts.rounds):
        for what, work in _WORK.items():
            tell(f"(i) {what}, {transfers:,} transfers, {turn + 1} of {amounts.rounds}")
            measure = next(iter(work(rested, amounts).values()))
            cost = 1000 * measure.cpu_seconds
            costs[what] = min(cost, costs.get(what, cost))
            busiest = max(busiest, measure.load_share)
        with side.start() as server:
            starts.append(1000 * server.start_seconds)
    return Point(transfers, costs, min(starts)), busiest


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
    for what in sizes.small.costs:
        ratios = [point.costs[what] / sizes.small.costs[what] for point in sizes.points]
        axes.plot([max(1, point.transfers) for point in sizes.points], ratios, marker="o", label=what)
    axes.axhline(_TARGET, linestyle="--", color="grey", label=f"target {_TARGET}")
    axes.set(xscale="log", ylim=(0, None), xlabel=f"transfers, with {sizes.offices:,} offices")
    axes.set_ylabel("server CPU, empty store = 1")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
