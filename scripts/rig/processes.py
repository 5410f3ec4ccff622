"""What a server costs: processor time and memory of its whole process tree, as the kernel counts them."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

# How long a server may take to reap the processes of connections that have ended.
_REAPED_WITHIN_SECONDS = 10.0

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# The kernel's number for the processor clock of another process (clock_getcpuclockid) is made of its pid and this.
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    children_ticks: int


def cpu_seconds(pid: int) -> float:
    """Processor time of the process and its descendants, those that have ended and were waited for included.

    Exact to far below a tick for what runs: a hundred processes that each worked for half a tick would else be
    a hundred times nothing.
    """
    total = 0.0
    for process in _tree(pid):
        total += process.children_ticks / _TICKS_PER_SECOND
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~process.pid << 3) | _CPUCLOCK_SCHED)
    return total


def pss_bytes(pid: int) -> int:
    """Memory of the process and its descendants; what they share is counted once (PSS)."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def tree_size(pid: int) -> int:
    """Count the process and its descendants."""
    return len(_tree(pid))


def wait_for_tree(pid: int, size: int) -> None:
    """Wait until no more than *size* processes are left, so that all ended ones have been counted."""
    until = time.monotonic() + _REAPED_WITHIN_SECONDS
    while tree_size(pid) > size and time.monotonic() < until:
        time.sleep(0.05)


def _tree(pid: int) -> list[_Process]:
    running = list(filter(None, map(_read_process, Path("/proc").glob("[0-9]*"))))
    found = [process for process in running if process.pid == pid]
    for member in found:
        found.extend(process for process in running if process.parent == member.pid)
    return found


def _read_process(folder: Path) -> _Process | None:
    try:
        # The name, in brackets, may hold blanks; what follows it does not.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return _Process(int(folder.name), int(fields[1]), sum(map(int, fields[13:15])))
