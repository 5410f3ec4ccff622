"""The machine a figure was taken on: what it is, how busy it was, and what one sync of its disk takes."""

import os
import platform
import signal
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# Of 10 KB each: what a small file is to a log.
_SYNCS = 100
_SYNC_BYTES = 10 * 1024
# Other work on a machine shows as load; so much for each core is next to none.
_QUIET_LOAD = 0.25


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts that stand under every table; *sync_seconds* is the median of a write of 10 KB and its fdatasync."""

    at: datetime
    processor: str
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    file_system: str
    sync_seconds: float
    load_at_start: float

    @property
    def is_quiet(self) -> bool:
        """True where nothing else seemed to run at the start."""
        return self.load_at_start <= _QUIET_LOAD * self.cores

    def describe(self) -> str:
        """Say it in one line."""
        return (
            f"{self.at:%Y-%m-%d %H:%M} UTC, {self.processor}, {self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB, "
            f"Linux {self.kernel}, Python {self.python}, {self.file_system}, one sync {self.sync_seconds * 1000:.2f} ms, "
            f"load at start {self.load_at_start:.2f}"
        )

    def warning(self) -> str:
        """Say what is to be thought of the figures of a busy machine; nothing of a quiet one."""
        if self.is_quiet:
            return ""
        return (
            f"The machine was not quiet (load {self.load_at_start:.2f} on {self.cores} cores before the bench began): times, "
            "and most of all p99, are worse than they would be; ratios of CPU less so."
        )


def look_at_machine(folder: Path) -> Machine:
    """Find out what this machine is; *folder* is where the stores will lie."""
    return Machine(
        at=datetime.now(UTC),
        processor=_read_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        python=platform.python_version(),
        file_system=_find_file_system(folder.resolve()),
        sync_seconds=_time_sync(folder),
        load_at_start=os.getloadavg()[0],
    )


def tell(text: str) -> None:
    """Say on standard error what is going on."""
    print(f"… {text}", file=sys.stderr, flush=True)


def end_as_by_hand() -> None:
    """Let SIGTERM do what Ctrl-C does: everything that was started is ended, every folder removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _time_sync(folder: Path) -> float:
    path = folder / "sync-probe"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            file.write(bytes(_SYNC_BYTES))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    path.unlink()
    return statistics.median(took)


def _read_field(file: str, name: str) -> str:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _find_file_system(folder: Path) -> str:
    """Return the type of the file system under *folder*: the deepest mount point above it."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, found, *_ = line.split(" ")
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind
