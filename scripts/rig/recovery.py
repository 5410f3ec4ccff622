"""Workload (m): the server is killed under full load and started again: how long until the next file is answered OK.

And whether it kept its word: everything that was answered OK before is in the recipient's ``new/``, and no more than what
was under way beside it.
"""

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace

from rig.figures import Figure
from rig.load import LOAD_PROCESSES, Login, Task, prepared
from rig.machine import tell
from rig.processes import tree_pids
from rig.servers import RigError, Running
from rig.sides import Bench
from rig.workloads import Side, deal, task_of, warm_up

_LANES = 16
_LOADED_SECONDS = 0.5


def measure_recovery(bench: Bench) -> tuple[list[Figure], float]:
    """Kill it as often as there are rounds, at least twice, and tell the worst."""
    waits, starts = [], []
    for turn in range(max(2, bench.amounts.rounds)):
        tell(f"(m) killed under load, {turn + 1}")
        wait, start = _kill_and_return(bench, bench.relay.readers[turn % len(bench.relay.readers)])
        waits.append(wait)
        starts.append(start)
    return [
        Figure("m", "from kill -9 under load to the next OK, the worst", "ms", 1000 * max(waits)),
        Figure("m", "from the new start until it says that all of it listens", "ms", 1000 * max(starts)),
    ], 0.0


def _kill_and_return(bench: Bench, reader: Login) -> tuple[float, float]:
    """Return how long it took until somebody was answered OK again, and until the server listened."""
    side, workers = replace(bench.relay, recipient=reader), os.cpu_count() or 1
    with ExitStack() as stack:
        server = stack.enter_context(bench.home.serve(workers=workers))
        warm_up(side, server)
        before = _count_new(side, server, reader)
        load = stack.enter_context(
            prepared(deal(task_of(side, server, "until lost", concurrency=_LANES), side.numbers))
        )
        # Ready to connect before the server is killed, so that only the server is waited for.
        knock = stack.enter_context(prepared(deal(task_of(side, server, "knock", 1), side.numbers, processes=1)))
        load.begin()
        time.sleep(_LOADED_SECONDS)
        # Parents first: nobody is left who would start another worker.
        for pid in tree_pids(server.pid):
            os.kill(pid, signal.SIGKILL)
        knock.begin()
        again = stack.enter_context(bench.home.serve(server.port, workers))
        waited = knock.finish().wall_seconds
        told = load.finish().done
        found = _count_new(side, again, reader) - before
        # The one of who knocked, and at most one a lane that was committed and whose answer was lost.
        if not told + 1 <= found <= told + 1 + _LANES * LOAD_PROCESSES:
            raise RigError(
                f"{told} files were answered OK before the server was killed, {found - 1} are there after it"
            )
        return waited, again.start_seconds


def _count_new(side: Side, server: Running, reader: Login) -> int:
    task: Task = replace(task_of(side, server, "list", 1), logins=(reader,), path=side.new)
    with prepared([task]) as load:
        return int(load.go().spans["names"][0])
