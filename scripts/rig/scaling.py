"""Workload (h): from one worker process to as many as there are processors.

The load program runs on the same machine.  Only where there are enough processors to leave it its own can wall time scale
with the workers; CPU a session says everywhere what sharing costs.
"""

import os

from rig.figures import Figure
from rig.load import prepared
from rig.machine import tell
from rig.processes import connections_by_process
from rig.sides import Bench
from rig.workloads import Measure, connect_and_put, split

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
    figures += [_wall_line(found, count, cores) for count in counts[1:]]
    figures += _spread_lines(bench, cores)
    return figures, max(each.load_share for each in found.values())


def _cpu_line(found: dict[int, Measure], count: int, *, is_judged: bool) -> Figure:
    ours, alone = 1000 * found[count].cpu_seconds, 1000 * found[1].cpu_seconds
    text = f"connect, put 10 KB, disconnect with {count} workers: server CPU"
    return Figure("h", text, "ms", ours, {"1 worker": alone}, _CPU_TARGET if is_judged else None)


def _wall_line(found: dict[int, Measure], count: int, cores: int) -> Figure:
    ours, alone = (1 / found[number].wall_seconds for number in (count, 1))
    # Each worker and the client that keeps it busy need a processor of their own.
    has_room = cores >= 2 * count
    where = "" if has_room else ", not to be judged: the load program needs the same processors"
    text = f"sessions a second with {count} workers, of {count} times those with one{where}"
    return Figure(
        "h",
        text,
        "1/s",
        ours,
        {f"{count} × 1 worker": count * alone},
        _WALL_TARGET if has_room else None,
        is_floor=True,
    )


def _spread_lines(bench: Bench, workers: int) -> list[Figure]:
    side = bench.with_workers(workers)
    tell(f"(h) how {_SPREAD_SESSIONS} connections spread over {workers} workers")
    with side.start() as server, prepared(split(side, server, "idle", _SPREAD_SESSIONS)) as load:
        load.go()
        held = connections_by_process(server.pid, server.port)
    text = f"{_SPREAD_SESSIONS} connections over {workers} workers ({', '.join(map(str, held))}): the fullest"
    return [Figure("h", text, "connections", held[0], {"an even share": _SPREAD_SESSIONS / workers})]
