"""Workload (j): two thousand sessions open at once, each silent, and what they keep in memory."""

import time
from dataclasses import replace

from rig.figures import Figure
from rig.inside import issue_logins
from rig.load import Login, prepared
from rig.machine import tell
from rig.offices import CARE_MANAGER, make_office, render_register
from rig.processes import pss_bytes
from rig.sides import SESSIONS_OF_ONE, Bench
from rig.workloads import SETTLE_SECONDS, Side, split

# OpenSSH's server takes two processes and some 5 MB for each: this many say what one costs.
_BESIDE_MOST = 200
_FIRST_OFFICE = 5000


def measure_crowd(bench: Bench) -> tuple[list[Figure], float]:
    """Open the sessions and read the memory of the whole process tree, what was swapped out included."""
    count = bench.amounts.crowd
    crowd = replace(bench.relay, senders=_make_crowd(bench, count))
    tell(f"(j) {count:,} sessions on the relay")
    ours, empty = _fill(crowd, count)
    beside_count = min(count, _BESIDE_MOST)
    tell(f"(j) {beside_count:,} sessions on OpenSSH")
    theirs, _ = _fill(bench.openssh, beside_count)
    return [
        Figure(
            "j",
            f"memory of the server with {count:,} open sessions (empty: {empty / 2**20:.0f} MB)",
            "MB",
            ours / 2**20,
        ),
        Figure(
            "j",
            f"the same for one session ({beside_count:,} on OpenSSH)",
            "KB",
            (ours - empty) / count / 1024,
            {"OpenSSH": theirs / beside_count / 1024},
        ),
    ], 0.0


def _make_crowd(bench: Bench, count: int) -> list[Login]:
    """Register and certify offices enough for *count* sessions, with no limit raised for it."""
    offices = [
        make_office(_FIRST_OFFICE + place, f"多数みほん野{place}", CARE_MANAGER)
        for place in range(-(-count // SESSIONS_OF_ONE) + 1)
    ]
    register = bench.folder / "crowd.csv"
    register.write_text(render_register(offices), encoding="utf-8")
    bench.home.relay("office", "import", str(register))
    return issue_logins(bench.home.home, [office.number for office in offices], bench.home.clients / "crowd")


def _fill(side: Side, count: int) -> tuple[float, float]:
    """Return the memory with *count* sessions, and without any."""
    with side.start() as server, prepared(split(side, server, "idle", count)) as load:
        time.sleep(SETTLE_SECONDS)
        empty = pss_bytes(server.pid)
        load.go()
        time.sleep(SETTLE_SECONDS)
        return pss_bytes(server.pid), empty
