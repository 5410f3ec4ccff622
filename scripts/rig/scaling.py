"""Workload (h): from one worker process to as many as there are processors.

The load program runs on the same machine.  Wall time is measured only for as many workers as leave it as many processors of
its own (two of four, four of eight); CPU a session says everywhere what sharing costs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rig.figures import Figure
from rig.load import prepared
from rig.machine import tell
from rig.processes import connections_by_process
from rig.servers import Running
from rig.sides import Bench
from rig.workloads import Measure, Side, connect_and_put, split

_CPU_TARGET, _WALL_TARGET = 1.18, 0.85
_SPREAD_SESSIONS = 160


def measure_scaling(bench: Bench) -> tuple[list[Figure], float]:
    """Measure (a) with one worker, two, four and so on, and how connections spread over them."""
    cores = os.cpu_count() or 1
    counts = sorted({1, 2, cores // 2, cores} - {0})
    found: dict[int, Measure] = {}
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
    figures = [_cpu_line(found, count, is_judged=count == cores) for count in counts[1:]]
    # Each worker and the client that keeps it busy need a processor of their own.
    figures += [_wall_line(bench, count) for count in counts[1:] if cores >= 2 * count]
    figures += _spread_lines(bench, cores)
    return figures, max(each.load_share for each in found.values())


def _cpu_line(found: dict[int, Measure], count: int, *, is_judged: bool) -> Figure:
    ours, alone = 1000 * found[count].cpu_seconds, 1000 * found[1].cpu_seconds
    text = f"connect, put 10 KB, disconnect with {count} workers: server CPU"
    return Figure("h", text, "ms", ours, {"1 worker": alone}, _CPU_TARGET if is_judged else None)


def _wall_line(bench: Bench, count: int) -> Figure:
    """Measure sessions a second with one worker and with *count*, the servers and the load on processors of their own."""
    rates = {}
    for workers in (1, count):
        tell(f"(h) {workers} workers on processors of their own")
        side = _pinned(bench.with_workers(workers), workers)
        rates[workers] = max(
            1 / connect_and_put(side, bench.amounts)["a"].wall_seconds for _ in range(bench.amounts.rounds)
        )
    text = f"sessions a second with {count} workers, each on a processor of its own"
    others = {f"{count} × 1 worker": count * rates[1]}
    return Figure("h", text, "1/s", rates[count], others, _WALL_TARGET, is_floor=True)


def _pinned(side: Side, workers: int) -> Side:
    """Return *side* with its server kept on the first processors and whatever is started beside it on the others."""

    @contextmanager
    def start() -> Iterator[Running]:
        everything = os.sched_getaffinity(0)
        processors = sorted(everything)
        try:
            # A process that is started inherits it, with all threads it will have.
            os.sched_setaffinity(0, processors[:workers])
            with side.start() as server:
                os.sched_setaffinity(0, processors[workers:])
                yield server
        finally:
            os.sched_setaffinity(0, everything)

    return replace(side, start=start)


def _spread_lines(bench: Bench, workers: int) -> list[Figure]:
    side = bench.with_workers(workers)
    tell(f"(h) how {_SPREAD_SESSIONS} connections spread over {workers} workers")
    with side.start() as server, prepared(split(side, server, "idle", _SPREAD_SESSIONS)) as load:
        load.go()
        held = connections_by_process(server.pid, server.port)
    text = f"{_SPREAD_SESSIONS} connections over {workers} workers ({', '.join(map(str, held))}): the fullest"
    return [Figure("h", text, "connections", held[0], {"an even share": _SPREAD_SESSIONS / workers})]
