"""Workload (f): small, middling and larger files from sender to recipient, synced and not: what durability costs.

The relay has no setting that turns syncing off, and gets none for this: unsynced, its folder lies on a tmpfs, where a sync
does nothing.  OpenSSH's server never syncs by itself; synced, its client asks for it (``fsync@openssh.com``, as ``sftp -f``).
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rig.figures import Figure
from rig.load import Outcome, prepared
from rig.machine import tell
from rig.servers import RelayHome
from rig.sides import Bench, make_relay
from rig.workloads import Side, deal, task_of, warm_up

# Seven bytes less than 4, 32 and 256 KiB: whole files do not end where a request ends.
_SIZES = {"4 KiB": 4 * 1024 - 7, "32 KiB": 32 * 1024 - 7, "256 KiB": 256 * 1024 - 7}
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_LANES = 8


def measure_durability(bench: Bench) -> tuple[list[Figure], float]:
    """Measure wall time for a file, put, synced or not, and got by its recipient, many at once."""
    figures, busiest = [], 0.0
    with _relay_in_memory() as unsynced:
        for name, size in _SIZES.items():
            walls: dict[str, float] = {}
            runs = [("relay", bench.relay, False), ("OpenSSH", bench.openssh, True), ("bare", bench.openssh, False)]
            runs += [("memory", unsynced, False)] if unsynced else []
            for label, side, asks_sync in runs:
                tell(f"(f) {name}, {side.label}, {'not synced' if label in ('bare', 'memory') else 'synced'}")
                for _ in range(bench.amounts.rounds):
                    outcome = _relay_files(side, bench.amounts.files // 2, size, asks_sync=asks_sync)
                    wall = 1000 * outcome.wall_seconds / outcome.done
                    walls[label] = min(wall, walls.get(label, wall))
                    busiest = max(busiest, outcome.busiest)
            what = f"{name} put and got: wall time"
            figures.append(
                Figure("f", f"{what}, synced", "ms", walls["relay"], {"OpenSSH, asked to sync": walls["OpenSSH"]})
            )
            if "memory" in walls:
                figures.append(Figure("f", f"{what}, not synced", "ms", walls["memory"], {"OpenSSH": walls["bare"]}))
                figures.append(
                    Figure(
                        "f", f"{what}, what syncing costs", "ms", walls["relay"], {"relay on tmpfs": walls["memory"]}
                    )
                )
    return figures, busiest


@contextmanager
def _relay_in_memory() -> Iterator[Side | None]:
    """Make a relay whose folder lies in memory; None where there is no place for one."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < 2**30:
        tell("(f) there is no tmpfs at /dev/shm with a GiB free: nothing is measured unsynced")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=_MEMORY) as folder:
        side, _ = make_relay(Path(folder), RelayHome(Path(folder) / "relay"), ())
        yield replace(side, label="relay on tmpfs")


def _relay_files(side: Side, count: int, size: int, *, asks_sync: bool) -> Outcome:
    with side.start() as server:
        warm_up(side, server)
        whole = replace(
            task_of(side, server, "relayed", count, concurrency=_LANES),
            readers=tuple(side.readers),
            path=side.new,
            file_bytes=size,
            asks_sync=asks_sync,
        )
        with prepared(deal(whole, side.numbers)) as load:
            return load.go()
