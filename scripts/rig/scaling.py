"""Workload (h): from one worker process to as many as there are processors.

The load program runs on the same machine.  Wall time is measured only for as many workers as leave it as many processors of
its own (two of four, four of eight); CPU a session says everywhere what sharing costs.

Not all of that is the relay's: with one worker some processors have nothing to do, and what runs on the others is cheaper
for it.  So the same computation is measured in turn with it, in two processes at once (a worker, and the clients that keep
it busy) and in as many as there are processors (`rig.pressure`).
"""

import os

from rig.apart import pinned
from rig.figures import Figure
from rig.load import prepared
from rig.machine import tell
from rig.pressure import measure_pressure
from rig.processes import connections_by_process
from rig.sides import Bench
from rig.workloads import Measure, connect_and_put, split

_CPU_TARGET, _WALL_TARGET = 1.18, 0.85
_SPREAD_SESSIONS = 160
# One worker, and the load processes, which together do as much for a session as it does.
_BUSY_WITH_ONE = 2


def measure_scaling(bench: Bench) -> tuple[list[Figure], float]:
    """Measure (a) with one worker, two, four and so on, and how connections spread over them."""
    cores = os.cpu_count() or 1
    counts = sorted({1, 2, cores // 2, cores} - {0})
    found: dict[int, Measure] = {}
    pressure: dict[int, float] = {}
    for turn in range(bench.amounts.rounds):
        for count in counts:
            tell(f"(h) {count} of {cores} workers, {turn + 1} of {bench.amounts.rounds}")
            measure = connect_and_put(bench.with_workers(count), bench.amounts)["a"]
            earlier = found.get(count, measure)
            found[count] = Measure(
                min(measure.cpu_seconds, earlier.cpu_seconds),
                min(measure.wall_seconds, earlier.wall_seconds),
                load_share=max(measure.load_share, earlier.load_share),
            )
        for processes in (_BUSY_WITH_ONE, cores):
            tell(f"(h) the same computation in {processes} processes at once")
            took = measure_pressure(processes)
            pressure[processes] = min(took, pressure.get(processes, took))
    figures = [_cpu_line(found, count, is_judged=count == cores) for count in counts[1:]]
    figures += _pressure_lines(found, pressure, cores)
    # Each worker and the client that keeps it busy need a processor of their own.
    figures += [_wall_line(bench, count) for count in counts[1:] if cores >= 2 * count]
    figures += _spread_lines(bench, cores)
    return figures, max(each.load_share for each in found.values())


def _cpu_line(found: dict[int, Measure], count: int, *, is_judged: bool) -> Figure:
    ours, alone = 1000 * found[count].cpu_seconds, 1000 * found[1].cpu_seconds
    text = f"connect, put 10 KB, disconnect with {count} workers: server CPU"
    return Figure("h", text, "ms", ours, {"1 worker": alone}, _CPU_TARGET if is_judged else None)


def _pressure_lines(found: dict[int, Measure], pressure: dict[int, float], cores: int) -> list[Figure]:
    """Tell the machine's part of what more workers cost, and what is left for the relay."""
    ours, few = 1000 * pressure[cores], 1000 * pressure[_BUSY_WITH_ONE]
    text = f"the same computation in {cores} processes at once: CPU of each"
    machine = Figure("h", text, "ms", ours, {f"in {_BUSY_WITH_ONE}": few})
    whole = found[cores].cpu_seconds / found[1].cpu_seconds
    text = f"server CPU with {cores} workers to that with 1, without the machine's part"
    return [machine, Figure("h", text, "×", whole * few / ours)]


def _wall_line(bench: Bench, count: int) -> Figure:
    """Measure sessions a second with one worker and with *count*, the servers and the load on processors of their own."""
    rates = {}
    for workers in (1, count):
        tell(f"(h) {workers} workers on processors of their own")
        processors = sorted(os.sched_getaffinity(0))
        side = pinned(bench.with_workers(workers), processors[:workers], processors[workers:])
        rates[workers] = max(
            1 / connect_and_put(side, bench.amounts)["a"].wall_seconds for _ in range(bench.amounts.rounds)
        )
    text = f"sessions a second with {count} workers, each on a processor of its own"
    others = {f"{count} × 1 worker": count * rates[1]}
    return Figure("h", text, "1/s", rates[count], others, _WALL_TARGET, is_floor=True)


def _spread_lines(bench: Bench, workers: int) -> list[Figure]:
    side = bench.with_workers(workers)
    tell(f"(h) how {_SPREAD_SESSIONS} connections spread over {workers} workers")
    with side.start() as server, prepared(split(side, server, "idle", _SPREAD_SESSIONS)) as load:
        load.go()
        held = connections_by_process(server.pid, server.port)
    text = f"{_SPREAD_SESSIONS} connections over {workers} workers ({', '.join(map(str, held))}): the fullest"
    return [Figure("h", text, "connections", held[0], {"an even share": _SPREAD_SESSIONS / workers})]
