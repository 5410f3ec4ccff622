"""Whether the load program is what is slow: the same work by one, two and three load processes.

If more of them get no more through, the server was the limit, not they.  How much of a processor the busiest of them used
stands under every table.
"""

from dataclasses import replace

from rig.figures import Figure
from rig.load import prepared
from rig.machine import tell
from rig.sides import Bench
from rig.workloads import deal, task_of, warm_up

_LANES = 32


def measure_load_program(bench: Bench) -> tuple[list[Figure], float]:
    """Upload small files with one, two and three load processes."""
    side = bench.whole
    rates: dict[int, float] = {}
    shares: dict[int, float] = {}
    for processes in (1, 2, 3):
        tell(f"(load) {processes} load processes")
        for _ in range(bench.amounts.rounds):
            with side.start() as server:
                warm_up(side, server)
                lanes = _LANES // processes
                whole = replace(
                    task_of(side, server, "upload", concurrency=lanes), seconds=bench.amounts.pace_seconds / 6
                )
                with prepared(deal(whole, side.numbers, processes=processes)) as load:
                    outcome = load.go()
            rate = outcome.done / outcome.wall_seconds
            if rate > rates.get(processes, 0.0):
                rates[processes], shares[processes] = rate, outcome.busiest
    used = ", ".join(f"{share:.0%}" for share in shares.values())
    text = f"10 KB files with 2 load processes (with 1, 2, 3 the busiest used {used} of a processor)"
    others = {"3 processes": rates[3], "1 process": rates[1]}
    return [Figure("load", text, "files/s", rates[2], others)], max(shares.values())
