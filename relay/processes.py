"""Processes: what the supervisor knows of each worker, and how it learns that one has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from enum import Enum

from relay.orders import Line


class State(Enum):
    """How far a worker has come."""

    STARTING = "starting"
    READY = "ready"


@dataclass(slots=True, eq=False)
class Worker:
    """A worker, from its fork to its burial; *failure* is why it ended, where that is known better than by its signal."""

    index: int
    pid: int
    line: Line
    state: State = State.STARTING
    started_at: float = field(default_factory=time.monotonic)
    beats: int = -1
    idle_ticks: int = 0
    failure: str = ""

    def be_ready(self) -> None:
        """Know that it takes connections: what it did not do before that says nothing of it now."""
        self.state = State.READY
        self.idle_ticks = 0

    def look(self, beats: int) -> int:
        """Know how often it has shown itself so far; return for how many looks that has been the same."""
        self.idle_ticks = self.idle_ticks + 1 if beats == self.beats else 0
        self.beats = beats
        return self.idle_ticks


def name_process(name: str) -> None:
    """Let ps and top tell the processes from each other."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:  # noqa: PTH123
        comm.write(name[:15])


def has_ended(worker: Worker) -> bool:
    """True where *worker* has ended and was not buried yet."""
    found = os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def reap(worker: Worker) -> str:
    """Return how *worker* has ended, in words; '' where it did so in peace."""
    _, status = os.waitpid(worker.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with {code}" if code else ""
