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
    """Memory of the process and its descendants, swapped out or not; what they share is counted once (PSS)."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss:", "SwapPss:")))
    return total


def connections_by_process(pid: int, port: int) -> list[int]:
    """Count the connections to *port* that each process of the tree serves, the most first; idle processes left out.

    A connection that a child has inherited and not closed is counted where it is used: in the youngest process.
    """
    inodes = _established(port)
    found = []
    for process in reversed(_tree(pid)):
        held = _socket_inodes(process.pid) & inodes
        inodes -= held
        if held:
            found.append(len(held))
    return sorted(found, reverse=True)


_ESTABLISHED = "01"


def _established(port: int) -> set[str]:
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(fields[9])
    return inodes


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def descriptors(pid: int) -> int:
    """Count the open files of the process and its descendants."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            total += sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())
    return total


def tree_pids(pid: int) -> list[int]:
    """Name the process and its descendants, parents first."""
    return [process.pid for process in _tree(pid)]


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
