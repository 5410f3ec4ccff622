"""Workload (g): how long an answer takes at half of the load that the relay can bear.

First the highest rate is found, by uploading as fast as 64 sessions can.  Then files come at half of it, at random moments
and whether or not the earlier ones have been answered; for one in ten the recipient lists ``new/`` until it stands there.
Those have recipients of their own, each of which reads what it saw to its end and closes it, as an office's program does:
so it leaves ``new/``, and what is listed stays as short to the end of the run, and at the beginning of the next.  How long it
was is told.  The listing and fetching come on top of half of the highest rate, which is found by uploads alone.

That is done twice.  With as many workers as processors the clients run on the same processors as the relay, as the target
asks; they come late to their moments, and what they find is the machine's waiting as much as the relay's.  Then the workers
have half of the processors and the clients the other half, and half of what that can bear is asked of it.
"""

import os
from dataclasses import replace

from rig.apart import halves, pinned
from rig.figures import Figure, percentile
from rig.load import LOAD_PROCESSES, Outcome, prepared
from rig.machine import tell
from rig.servers import Running
from rig.sides import Bench
from rig.workloads import Side, deal, task_of, warm_up

_PERCENTILES = (50.0, 99.0, 99.9)
_CLOSE_TARGET_MS = 20.0
_LANES = 32
_LOOK_EVERY = 10


def measure_latency(bench: Bench, sync_seconds: float) -> tuple[list[Figure], float]:
    """(g) From CLOSE to OK, and from OK to visible, at half of the highest rate, beside the load program and apart from it."""
    forms = {f"{os.cpu_count() or 1} workers and the load on the same processors": bench.whole}
    servers, load = halves()
    if servers:
        apart = pinned(bench.with_workers(len(servers)), servers, load)
        forms[f"{len(servers)} workers on processors of their own"] = apart
    figures: list[Figure] = []
    busiest = 0.0
    for form, side in forms.items():
        found, used = _measure(bench, side, form, sync_seconds)
        figures += found
        busiest = max(busiest, used)
    return figures, busiest


def _measure(bench: Bench, side: Side, form: str, sync_seconds: float) -> tuple[list[Figure], float]:
    with side.start() as server:
        warm_up(side, server)
        tell(f"(g) looking for the highest rate, {form}")
        most = find_highest_rate(side, server, bench.amounts.pace_seconds / 3)
        tell(f"(g) {most:,.0f} files a second at most; now half of it for {bench.amounts.pace_seconds:.0f} s")
        outcome = keep_pace(side, server, most / 2, bench.amounts.pace_seconds)
    sync = f"a sync of this disk takes {sync_seconds * 1000:.2f} ms"
    figures = [Figure("g", f"highest rate of 10 KB files, open sessions, {form}", "files/s", most)]
    for name, what in (("close", "CLOSE to OK"), ("visible", "OK to visible in new/")):
        for percent in _PERCENTILES:
            is_judged = name == "close" and percent == 99.0  # noqa: PLR2004 - the percentile that has a target
            text = f"{what} at {most / 2:,.0f} files/s, p{percent:g}, {form}" + (f" ({sync})" if is_judged else "")
            value = 1000 * percentile(outcome.spans[name], percent)
            figures.append(Figure("g", text, "ms", value, target=_CLOSE_TARGET_MS if is_judged else None))
    names = percentile(outcome.spans["names"], 99.0)
    figures.append(Figure("g", f"names in the new/ that was listed and fetched from, p99, {form}", "names", names))
    late = 1000 * percentile(outcome.spans["late"], 99.0)
    figures.append(Figure("g", f"how late the load program began, p99, {form}", "ms", late))
    return figures, outcome.busiest


def find_highest_rate(side: Side, server: Running, seconds: float) -> float:
    """Upload as fast as can be and return how many files a second were answered OK."""
    whole = replace(task_of(side, server, "upload", concurrency=_LANES), seconds=seconds)
    with prepared(deal(whole, side.numbers)) as load:
        outcome = load.go()
    return outcome.done / outcome.wall_seconds


def keep_pace(side: Side, server: Running, rate: float, seconds: float) -> Outcome:
    """Upload *rate* files a second for so many seconds, all offices together; recipients fetch one in `_LOOK_EVERY`."""
    whole = replace(
        task_of(side, server, "paced", concurrency=_LANES),
        rate=rate / LOAD_PROCESSES,
        seconds=seconds,
        readers=tuple(side.readers),
        path=side.new,
        look_every=_LOOK_EVERY,
    )
    with prepared(deal(whole, side.numbers)) as load:
        return load.go()
