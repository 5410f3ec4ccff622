"""The workloads (a) to (e) of the bench, each run against a server that was started for it alone.

A workload returns measures; what they cost on one server only means something beside the other's.
"""

import filecmp
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rig.load import Login, Task, prepared
from rig.offices import name_report, render_report, render_serial
from rig.processes import cpu_seconds, pss_bytes, tree_size, wait_for_tree
from rig.servers import HOST, RigError, Running

# Reading a server's memory while it still tidies up after the last login would count that too.
_SETTLE_SECONDS = 1.0
LOAD_PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Measure:
    """What one line of the table shows of one server; 0 where the line does not measure it."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything is done."""

    connections: int
    files: int
    large_bytes: int
    idle_sessions: int
    listings: int


# The large file's size is no multiple of a request's, as of 260,119 files in 260,120.
FULL = Amounts(200, 2000, 512 * 1024 * 1024 + 7, 120, 20)
QUICK = Amounts(80, 600, 64 * 1024 * 1024 + 7, 40, 5)


class Numbers:
    """Hands out numbers for files, each once; their serials are made of them."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> int:
        """Take *count* numbers in a row and return the first."""
        first = self._next
        self._next += count
        return first


@dataclass(frozen=True, slots=True)
class Side:
    """A server, its clients and its directories of 1,000 and 10,000 files.

    *start* runs it afresh; *folders* maps a number of files to the office that sees them and the path.
    """

    label: str
    start: Callable[[], AbstractContextManager[Running]]
    senders: Sequence[Login]
    recipient: Login
    folders: Mapping[int, tuple[Login, str]]
    numbers: Numbers
    known_hosts: Path
    scratch: Path


def connect_and_put(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """(a) Connect, authenticate by certificate, put one file of 10 KB, disconnect."""
    with side.start() as server:
        idle = tree_size(server.pid)
        _warm_up(side, server)
        wait_for_tree(server.pid, idle)
        with prepared(_split(side, server, "connect", amounts.connections, concurrency=8)) as load:
            before = cpu_seconds(server.pid)
            wall = load.go()
        wait_for_tree(server.pid, idle)
        cpu = cpu_seconds(server.pid) - before
    return {"a": Measure(cpu / amounts.connections, wall / amounts.connections)}


def upload(side: Side, amounts: Amounts, *, is_text: bool = False) -> dict[str, Measure]:
    """(b) Put files of 10 KB over open sessions: slips, or the same bytes as texts."""
    with side.start() as server:
        _warm_up(side, server)
        with prepared(_split(side, server, "upload", amounts.files, concurrency=16, is_text=is_text)) as load:
            before = cpu_seconds(server.pid)
            wall = load.go()
            cpu = cpu_seconds(server.pid) - before
    return {"b": Measure(cpu / amounts.files, wall / amounts.files)}


def transfer_large(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """(c) Put and get one large file with the OpenSSH client."""
    source, copy = side.scratch / "large.pdf", side.scratch / "copy.pdf"
    source.write_bytes(render_report(amounts.large_bytes))
    sender = side.senders[0]
    name = name_report(sender.office, side.recipient.office, render_serial(side.numbers.take(1)))
    with side.start() as server:
        put = _run_sftp(side, server, sender, f"put {source} send/{name}")
        get = _run_sftp(side, server, side.recipient, f"get {server.inbox}/{name} {copy}")
    if not filecmp.cmp(source, copy, shallow=False):
        raise RigError(f"{side.label} gave back other bytes than were put")
    source.unlink()
    copy.unlink()
    return {"c put": put, "c get": get}


def idle_memory(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """(d) Memory of an idle session: what the tree has more with many of them than with a few.

    With a few rather than none, or what a server keeps from its first logins would hide what the next ones take.
    """
    with (
        side.start() as server,
        prepared(_split(side, server, "idle", amounts.idle_sessions // 4)) as few,
        prepared(_split(side, server, "idle", amounts.idle_sessions)) as many,
    ):
        few.go()
        time.sleep(_SETTLE_SECONDS)
        before = pss_bytes(server.pid)
        many.go()
        time.sleep(_SETTLE_SECONDS)
        grown = pss_bytes(server.pid) - before
    return {"d": Measure(memory_bytes=grown / amounts.idle_sessions)}


def list_directories(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """(e) List a directory of 1,000 files, and one of 10,000, over an open session."""
    found: dict[str, Measure] = {}
    for files, (login, path) in side.folders.items():
        with side.start() as server:
            task = Task("list", HOST, server.port, server.user, (login,), amounts.listings, path=path, expected=files)
            with prepared([task]) as load:
                before = cpu_seconds(server.pid)
                wall = load.go()
                cpu = cpu_seconds(server.pid) - before
        found[f"e {files:,}"] = Measure(cpu / amounts.listings, wall / amounts.listings)
    return found


WORKLOADS: Mapping[str, Callable[[Side, Amounts], dict[str, Measure]]] = {
    "a": connect_and_put,
    "b": upload,
    "c": transfer_large,
    "d": idle_memory,
    "e": list_directories,
}


def fill(side: Side, recipient: Login, files: int) -> None:
    """Upload *files* files for *recipient*, for listing them later."""
    with (
        side.start() as server,
        prepared(_split(side, server, "upload", files, concurrency=16, recipient=recipient)) as load,
    ):
        load.go()


def _split(
    side: Side,
    server: Running,
    work: str,
    count: int,
    *,
    concurrency: int = 1,
    recipient: Login | None = None,
    is_text: bool = False,
) -> list[Task]:
    """Deal the work to several load processes, so that the server is what is busy."""
    share = -(-count // LOAD_PROCESSES)
    counts = [min(share, count - share * place) for place in range(LOAD_PROCESSES)]
    return [
        Task(
            work,
            HOST,
            server.port,
            server.user,
            tuple(side.senders[place::LOAD_PROCESSES]),
            part,
            concurrency,
            (recipient or side.recipient).office,
            side.numbers.take(part),
            is_text=is_text,
        )
        for place, part in enumerate(counts)
        if part > 0
    ]


def _warm_up(side: Side, server: Running) -> None:
    """Let the server do everything once that it only does once."""
    with prepared(_split(side, server, "connect", 2 * LOAD_PROCESSES)) as load:
        load.go()


def _run_sftp(side: Side, server: Running, login: Login, command: str) -> Measure:
    options = [f"IdentityFile={login.key}", f"UserKnownHostsFile={side.known_hosts}", "IdentitiesOnly=yes"]
    options += ["StrictHostKeyChecking=yes", "BatchMode=yes", "LogLevel=ERROR"]
    arguments = [part for option in options for part in ("-o", option)]
    target = f"{server.user or login.office}@{HOST}"
    idle = tree_size(server.pid)
    before, started = cpu_seconds(server.pid), time.perf_counter()
    done = subprocess.run(
        ["sftp", "-F", "none", "-q", "-b", "-", "-P", str(server.port), *arguments, target],
        input=f"{command}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - started
    if done.returncode != 0:
        raise RigError(f"sftp failed on {side.label}: {command}\n{done.stderr}")
    wait_for_tree(server.pid, idle)
    return Measure(cpu_seconds(server.pid) - before, wall)
