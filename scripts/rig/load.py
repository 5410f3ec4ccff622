"""The load program, seen from the bench: clients in processes of their own, the same for every server.

A load process (`rig.clients`) reads one line of JSON that says what to do, prepares, says ``ready``, and on ``go`` does
the work and answers with one line of JSON; sessions it opened stay open until its input ends.  What is measured about
the server is measured by the parent between ``ready`` and the answer.

The load must not be what is slow: every answer says which share of one processor its process used.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FILE_BYTES = 10 * 1024
# So that the server is what is busy; one process of them, on one processor, drives the relay hardly faster than it goes.
LOAD_PROCESSES = 2

_SCRIPTS = Path(__file__).resolve().parent.parent


class LoadError(Exception):
    """The load program failed; what it said is on standard error."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in: the office, and where its private key lies, with the certificate beside it.

    *source* is an address of this machine to come from; any where it is empty.
    """

    office: str
    key: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What one load process does, as *work* says.

    ``connect``  a connection for each of *count* files; ``login`` the same without the file
    ``upload``   *count* files over *concurrency* open sessions; with *seconds*, as many as they can in that time
    ``relayed``  files put by the senders and got by *readers*, lane by lane, out of *path*
    ``paced``    *rate* files a second for *seconds*, at random moments; one in *look_every* goes to one of *readers*,
                 which looks for it in *path* right after its OK and then reads it to its end
    ``idle``     *count* open sessions; ``list`` *path*, *count* times, *expected* names at least
    ``knock``    tries to connect and put one file, again and again, until it was answered OK
    ``until lost`` uploads until the server is gone

    Files of *file_bytes* go to *recipient*, or to the office of a reader; they are numbered from *first*.  With
    *is_text* the same bytes go under names of texts, with *asks_sync* the server is asked to sync before CLOSE.
    *is_bare* logs in with the key alone, for a server that knows no certificates.
    """

    work: str
    host: str
    port: int
    user: str | None
    logins: tuple[Login, ...]
    count: int = 0
    concurrency: int = 1
    recipient: str = ""
    first: int = 0
    path: str = ""
    expected: int = 0
    is_text: bool = False
    is_bare: bool = False
    asks_sync: bool = False
    readers: tuple[Login, ...] = ()
    file_bytes: int = FILE_BYTES
    rate: float = 0.0
    seconds: float = 0.0
    look_every: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What load processes did together; *spans* are lists of seconds (and ``names`` of how many a listing had).

    *busiest* is the largest share of a processor that one of them used: near 1 it, not the server, was the limit.
    """

    wall_seconds: float
    busiest: float
    done: int
    spans: Mapping[str, Sequence[float]]


@dataclass(slots=True)
class Load:
    """Running load processes that have prepared and wait."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def go(self) -> Outcome:
        """Let all of them work, to the end of the slowest."""
        self.begin()
        return self.finish()

    def begin(self) -> None:
        """Let all of them work."""
        for process in self.processes:
            _write_line(process, "go")

    def finish(self) -> Outcome:
        """Wait for what they have begun."""
        answers = [json.loads(_read_line(process)) for process in self.processes]
        spans: dict[str, list[float]] = {}
        for answer in answers:
            for name, seconds in answer["spans"].items():
                spans.setdefault(name, []).extend(seconds)
        wall = max(answer["wall"] for answer in answers)
        busiest = max(answer["cpu"] / max(answer["wall"], 1e-9) for answer in answers)
        return Outcome(wall, busiest, sum(answer["done"] for answer in answers), spans)


@contextlib.contextmanager
def prepared(tasks: Sequence["DataclassInstance"], *, module: str = "rig.clients") -> Iterator[Load]:
    """Start a load process, which runs *module*, for each task; sessions stay open until the end of the block."""
    load = Load()
    try:
        for task in tasks:
            command = [sys.executable, "-m", module]
            pipe = subprocess.PIPE
            load.processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=_SCRIPTS))
            _write_line(load.processes[-1], json.dumps(asdict(task)))
        for process in load.processes:
            if _read_line(process) != "ready":
                raise LoadError("a load process is not ready")
        yield load
    finally:
        for process in load.processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process in load.processes:
            _end(process)


# Leaving thousands of sessions takes a while; a load process whose server was killed may hang for ever.
_LEAVES_WITHIN_SECONDS = 60


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(_LEAVES_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _write_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise LoadError(f"a load process ended with exit code {process.wait()}")
    return line.strip()
