"""Workload (h): from one worker process to as many as there are processors.

The load program runs on the same machine.  Wall time is measured only for as many workers as leave it as many processors of
its own (two of four, four of eight); CPU a session says everywhere what sharing costs.

Not all of that is the relay's: with one worker some processors have nothing to do, and what runs on the others is cheaper
for it.  So the same computation is measured in turn with it, in two processes at once (a worker, and the clients that keep
it busy) and in as many as there are processors (`rig.pressure`).

The machine's own speed moves by more, within minutes, than what is looked for.  So what is compared is measured one after
the other, each is compared with the others of its round, and the median of the rounds counts.
"""

import os
import statistics
from collections.abc import Sequence

from rig.apart import pinned
from rig.figures import Figure
from rig.load import prepared
from rig.machine import tell
from rig.pressure import measure_pressure
from rig.processes import connections_by_process
from rig.sides import Bench
from rig.workloads import Measure, connect_and_put, split

_CPU_TARGET, _WALL_TARGET = 1.18, 0.85
# A round takes fifteen seconds, and two of the same code differ by a fifth.
_ROUNDS_FOLD = 3
_SPREAD_SESSIONS = 160
# One worker, and the load processes, which together do as much for a session as it does.
_BUSY_WITH_ONE = 2


def measure_scaling(bench: Bench) -> tuple[list[Figure], float]:
    """Measure (a) with one worker, two, four and so on, and how connections spread over them."""
    cores = os.cpu_count() or 1
    counts = sorted({1, 2, cores // 2, cores} - {0})
    found: dict[int, list[Measure]] = {count: [] for count in counts}
    pressure: dict[int, list[float]] = {_BUSY_WITH_ONE: [], cores: []}
    rounds = _ROUNDS_FOLD * bench.amounts.rounds
    for turn in range(rounds):
        for count, measures in found.items():
            tell(f"(h) {count} of {cores} workers, {turn + 1} of {rounds}")
            measures.append(connect_and_put(bench.with_workers(count), bench.amounts)["a"])
        for processes, took in pressure.items():
            tell(f"(h) the same computation in {processes} processes at once")
            took.append(1000 * measure_pressure(processes))
    spent = {count: [1000 * each.cpu_seconds for each in measures] for count, measures in found.items()}
    figures = []
    for count in counts[1:]:
        text = f"connect, put 10 KB, disconnect with {count} workers: server CPU"
        figures.append(_beside(text, "ms", spent[count], "1 worker", spent[1]))
    figures += _cpu_lines(spent[cores], spent[1], pressure[cores], pressure[_BUSY_WITH_ONE])
    # Each worker and the client that keeps it busy need a processor of their own.
    for count in counts[1:]:
        if cores >= 2 * count:
            figures += _wall_lines(bench, count, rounds)
    figures += _spread_lines(bench, cores)
    return figures, max(each.load_share for measures in found.values() for each in measures)


def _cpu_lines(
    all_: Sequence[float], one: Sequence[float], many: Sequence[float], few: Sequence[float]
) -> list[Figure]:
    """Tell what more workers cost, the machine's part of it, and what is left for the relay, from what each round took."""
    text = "server CPU of a session with as many workers as processors, to that with 1"
    left = [whole / part for whole, part in zip(_ratios(all_, one), _ratios(many, few), strict=True)]
    return [
        _in_rounds(text, _ratios(all_, one), _CPU_TARGET),
        _beside(
            "the same computation in as many processes as processors: CPU of each",
            "ms",
            many,
            f"in {_BUSY_WITH_ONE}",
            few,
        ),
        _in_rounds(f"{text}, without the machine's part", left),
    ]


def _wall_lines(bench: Bench, count: int, rounds: int) -> list[Figure]:
    """Measure sessions a second with one worker and with *count*, the servers and the load on processors of their own."""
    processors = sorted(os.sched_getaffinity(0))
    rates: dict[int, list[float]] = {1: [], count: []}
    for turn in range(rounds):
        for workers, seen in rates.items():
            tell(f"(h) {workers} workers on processors of their own, {turn + 1} of {rounds}")
            side = pinned(bench.with_workers(workers), processors[:workers], processors[workers:])
            seen.append(1 / connect_and_put(side, bench.amounts)["a"].wall_seconds)
    text = f"sessions a second with {count} workers, each on a processor of its own"
    linear = [count * rate for rate in rates[1]]
    return [
        _beside(text, "1/s", rates[count], f"{count} × 1 worker", linear),
        _in_rounds(f"{text}, to {count} times one", _ratios(rates[count], linear), _WALL_TARGET, is_floor=True),
    ]


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def _beside(text: str, unit: str, ours: Sequence[float], other: str, theirs: Sequence[float]) -> Figure:
    return Figure("h", text, unit, statistics.median(ours), {other: statistics.median(theirs)})


def _in_rounds(text: str, ratios: Sequence[float], target: float | None = None, *, is_floor: bool = False) -> Figure:
    line = f"{text}, median of {len(ratios)} round{'' if len(ratios) == 1 else 's'}"
    return Figure("h", line, "×", statistics.median(ratios), {}, target, is_floor=is_floor)


def _spread_lines(bench: Bench, workers: int) -> list[Figure]:
    side = bench.with_workers(workers)
    tell(f"(h) how {_SPREAD_SESSIONS} connections spread over {workers} workers")
    with side.start() as server, prepared(split(side, server, "idle", _SPREAD_SESSIONS)) as load:
        load.go()
        held = connections_by_process(server.pid, server.port)
    text = f"{_SPREAD_SESSIONS} connections over {workers} workers ({', '.join(map(str, held))}): the fullest"
    return [Figure("h", text, "connections", held[0], {"an even share": _SPREAD_SESSIONS / workers})]
