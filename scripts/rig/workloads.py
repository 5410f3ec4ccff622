"""The workloads (a) to (e) of the bench, each run against a server that was started for it alone.

A workload returns measures; what they cost on one server only means something beside the others'.
"""

import filecmp
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from rig.load import LOAD_PROCESSES, Login, Outcome, Task, prepared
from rig.offices import name_report, render_report, render_serial
from rig.processes import cpu_seconds, pss_bytes, tree_size, wait_for_tree
from rig.servers import HOST, RigError, Running

# Reading a server's memory while it still tidies up after the last login would count that too.
SETTLE_SECONDS = 1.0
# Numbers that a load process may use up whose work is limited by time: more than it can.
_NUMBERS_IN_TIME = 500_000


@dataclass(frozen=True, slots=True)
class Measure:
    """What one line of the table shows of one server; 0 where the line does not measure it.

    *load_share* is the share of a processor that the busiest load process used.
    """

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: float = 0.0
    load_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything is done.

    *pace_seconds* is how long one run at a steady pace takes, *crowd* how many sessions are open at once, *offices* which
    part of the country's the large store has, and *transfers* how many it holds.
    """

    rounds: int
    connections: int
    files: int
    large_bytes: int
    idle_sessions: int
    listings: int
    listed: tuple[int, ...]
    pace_seconds: float
    crowd: int
    offices: float
    transfers: int


# The large file's size is no multiple of a request's, as of 260,119 files in 260,120.
FULL = Amounts(3, 200, 2000, 512 * 1024 * 1024 + 7, 120, 20, (1_000, 10_000), 30.0, 2_000, 1.0, 1_000_000)
QUICK = Amounts(1, 60, 400, 64 * 1024 * 1024 + 7, 40, 5, (1_000,), 4.0, 200, 0.02, 10_000)


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

    *start* runs it afresh; *folders* maps a number of files to the office that sees them and the path.  *readers* are
    further recipients, *new* is where they look for what has come.  *is_bare* where it takes keys without certificates.
    """

    label: str
    start: Callable[[], AbstractContextManager[Running]]
    senders: Sequence[Login]
    recipient: Login
    folders: Mapping[int, tuple[Login, str]]
    numbers: Numbers
    known_hosts: Path
    scratch: Path
    readers: Sequence[Login] = ()
    new: str = "send"
    is_bare: bool = False


def connect_and_put(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """(a) Connect, authenticate by certificate, put one file of 10 KB, disconnect."""
    with side.start() as server:
        idle = tree_size(server.pid)
        warm_up(side, server)
        wait_for_tree(server.pid, idle)
        with prepared(split(side, server, "connect", amounts.connections, concurrency=8)) as load:
            before = cpu_seconds(server.pid)
            outcome = load.go()
        wait_for_tree(server.pid, idle)
        cpu = cpu_seconds(server.pid) - before
    return {"a": measure_of(outcome, cpu)}


def upload(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """(b) Put files of 10 KB over open sessions."""
    with side.start() as server:
        warm_up(side, server)
        return {"b": _upload(side, server, amounts.files)}


def upload_in_turn(side: Side, files: int, pairs: int) -> Iterator[tuple[Measure, Measure]]:
    """Put *files* slips, and as many of the same bytes as texts, over open sessions of one server, *pairs* times.

    Either goes first as often as the other, so that what changes all the time meets both alike.
    """
    with side.start() as server:
        warm_up(side, server)
        for turn in range(pairs):
            order = (False, True) if turn % 2 else (True, False)
            found = {is_text: _upload(side, server, files, is_text=is_text) for is_text in order}
            yield found[False], found[True]


def _upload(side: Side, server: Running, files: int, *, is_text: bool = False) -> Measure:
    task = replace(task_of(side, server, "upload", files, concurrency=16), is_text=is_text)
    with prepared(deal(task, side.numbers)) as load:
        before = cpu_seconds(server.pid)
        outcome = load.go()
        return measure_of(outcome, cpu_seconds(server.pid) - before)


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
        prepared(split(side, server, "idle", amounts.idle_sessions // 4)) as few,
        prepared(split(side, server, "idle", amounts.idle_sessions)) as many,
    ):
        few.go()
        time.sleep(SETTLE_SECONDS)
        before = pss_bytes(server.pid)
        many.go()
        time.sleep(SETTLE_SECONDS)
        grown = pss_bytes(server.pid) - before
    return {"d": Measure(memory_bytes=grown / amounts.idle_sessions)}


def list_directories(side: Side, amounts: Amounts) -> dict[str, Measure]:
    """(e) List a directory of 1,000 files, and one of 10,000, over an open session."""
    found: dict[str, Measure] = {}
    for files, (login, path) in side.folders.items():
        with side.start() as server:
            task = replace(task_of(side, server, "list", amounts.listings), logins=(login,), path=path, expected=files)
            with prepared([task]) as load:
                before = cpu_seconds(server.pid)
                outcome = load.go()
                cpu = cpu_seconds(server.pid) - before
        found[f"e {files:,}"] = measure_of(outcome, cpu)
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
        prepared(
            deal(
                replace(task_of(side, server, "upload", files, concurrency=16), recipient=recipient.office),
                side.numbers,
            )
        ) as load,
    ):
        load.go()


def measure_of(outcome: Outcome, cpu: float) -> Measure:
    """Return what one of the things that were done cost."""
    return Measure(cpu / outcome.done, outcome.wall_seconds / outcome.done, load_share=outcome.busiest)


def task_of(side: Side, server: Running, work: str, count: int = 0, *, concurrency: int = 1) -> Task:
    """Return what all load processes together are to do; `deal` shares it out."""
    return Task(
        work,
        HOST,
        server.port,
        server.user,
        tuple(side.senders),
        count,
        concurrency,
        side.recipient.office,
        is_bare=side.is_bare,
    )


def deal(task: Task, numbers: Numbers, *, processes: int = LOAD_PROCESSES) -> list[Task]:
    """Share *task* out among several load processes, so that the server is what is busy.

    Its *concurrency* and its *rate* are those of each process.
    """
    share = -(-task.count // processes)
    counts = [min(share, task.count - share * place) for place in range(processes)]
    return [
        replace(
            task,
            count=part,
            logins=task.logins[place::processes] or task.logins,
            readers=task.readers[place::processes],
            first=numbers.take(part or _NUMBERS_IN_TIME),
        )
        for place, part in enumerate(counts)
        if part > 0 or not task.count
    ]


def split(side: Side, server: Running, work: str, count: int, *, concurrency: int = 1) -> list[Task]:
    """Share out the plain work."""
    return deal(task_of(side, server, work, count, concurrency=concurrency), side.numbers)


def warm_up(side: Side, server: Running) -> None:
    """Let the server do everything once that it only does once."""
    with prepared(split(side, server, "connect", 2 * LOAD_PROCESSES)) as load:
        load.go()


def openssh_options(side: Side, login: Login) -> list[str]:
    """Return what OpenSSH's client needs to be told for this server and this office."""
    options = [f"IdentityFile={login.key}", "IdentitiesOnly=yes", "BatchMode=yes", "LogLevel=ERROR"]
    # Who knows no certificates shows a host key that nobody here has seen.
    options += ["StrictHostKeyChecking=no"] if side.is_bare else ["StrictHostKeyChecking=yes"]
    options += [f"UserKnownHostsFile={'/dev/null' if side.is_bare else side.known_hosts}"]
    return [part for option in options for part in ("-o", option)]


def _run_sftp(side: Side, server: Running, login: Login, command: str) -> Measure:
    target = f"{server.user or login.office}@{HOST}"
    idle = tree_size(server.pid)
    before, started = cpu_seconds(server.pid), time.perf_counter()
    done = subprocess.run(
        ["sftp", "-F", "none", "-q", "-b", "-", "-P", str(server.port), *openssh_options(side, login), target],
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
