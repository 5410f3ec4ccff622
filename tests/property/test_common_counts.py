"""The counts that workers share, against a model: whatever happens in whatever order, and with processes that die."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import subprocess
import sys
from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.common import Common, Tally

WORKERS = 3
MOST = 4
workers = st.integers(0, WORKERS - 1)
scopes = st.sampled_from(["a", "b", "c"])


class Counts(RuleBasedStateMachine):
    """Three workers that count, look, die at any moment and come again; beside it, what each of them has."""

    def __init__(self) -> None:
        super().__init__()
        self.supervisor = Common.create(WORKERS)
        self.commons: list[Common] = []
        self.held: dict[tuple[int, str], Tally] = {}
        self.model: Counter[tuple[int, str]] = Counter()

    def teardown(self) -> None:
        """Let go of the memory."""
        self.supervisor.close()

    @initialize()
    def begin(self) -> None:
        """Three workers attach."""
        self.commons = [Common.attach(self.supervisor.fileno(), index) for index in range(WORKERS)]

    def tally(self, worker: int, scope: str) -> Tally:
        """Return the tally of *worker*, which it keeps from then on."""
        if (worker, scope) not in self.held:
            self.held[worker, scope] = self.commons[worker].count("limit", scope)
        return self.held[worker, scope]

    def total(self, scope: str) -> int:
        """Return what there is of *scope* in the model."""
        return sum(self.model[worker, scope] for worker in range(WORKERS))

    @rule(worker=workers, scope=scopes, more=st.integers(1, 3))
    def take(self, worker: int, scope: str, more: int) -> None:
        """One that asks is let in exactly where there is room."""
        is_room = self.total(scope) + more <= MOST
        assert self.tally(worker, scope).take(MOST, more) is is_room
        self.model[worker, scope] += more * is_room

    @rule(worker=workers, scope=scopes)
    def give_back(self, worker: int, scope: str) -> None:
        """One goes."""
        if self.model[worker, scope]:
            self.tally(worker, scope).add(-1)
            self.model[worker, scope] -= 1

    @rule(worker=workers, scope=scopes)
    def leave(self, worker: int, scope: str) -> None:
        """The last one of a scope goes, with all that is left."""
        if (worker, scope) in self.held:
            self.held.pop((worker, scope)).close()
            self.model[worker, scope] = 0

    @rule(worker=workers, comes_again=st.booleans())
    def die(self, worker: int, comes_again: bool) -> None:  # noqa: FBT001 - hypothesis names it
        """A worker is gone without a word; the supervisor clears, or the next one in its place does."""
        for scope in ("a", "b", "c"):
            self.held.pop((worker, scope), None)
            self.model[worker, scope] = 0
        if not comes_again:
            self.supervisor.clear(worker)
        self.commons[worker] = Common.attach(self.supervisor.fileno(), worker)

    @rule(worker=workers, number=st.integers(0, 40_000))
    def disturb(self, worker: int, number: int) -> None:
        """Something else is counted and given up, and leaves a key behind."""
        self.commons[worker].count("other", str(number)).close()

    @invariant()
    def all_see_the_same(self) -> None:
        """Each worker sees the sum, and where the others have something."""
        for common in self.commons:
            for scope in ("a", "b", "c"):
                assert common.total("limit", scope) == self.total(scope)
                others = [index for index in range(WORKERS) if index != common.index and self.model[index, scope]]
                assert common.whereabouts("limit", scope) == others


TestCounts = Counts.TestCase
TestCounts.settings = settings(max_examples=30, stateful_step_count=40)

# Takes and gives back as fast as it can.  While it has one it says so in a witness, which is looked at by all of them
# under a lock of its own: more of them at once than there may be is a failure.
_GREEDY = """
import fcntl, mmap, os, sys
from relay.common import Common
memory, index, witness, most, rounds = map(int, sys.argv[1:6])
lock = os.open(f"/proc/self/fd/{witness}", os.O_RDWR)
cells = mmap.mmap(witness, 4096)
common = Common.attach(memory, index)
tally = common.count("greed")
print("begun", flush=True)
had = 0
while had < rounds:
    if tally.take(most):
        fcntl.flock(lock, fcntl.LOCK_EX)
        cells[index] = 1
        at_once = sum(cells[:16])
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert at_once <= most, at_once
        had += 1
        fcntl.flock(lock, fcntl.LOCK_EX)
        cells[index] = 0
        fcntl.flock(lock, fcntl.LOCK_UN)
        tally.add(-1)
"""


def test_processes_that_ask_at_once_never_have_more_than_there_may_be() -> None:
    """Four processes want what two may have, one is killed on its way and replaced: never three, and nobody starves."""
    most, rounds = 2, 2_000
    supervisor = Common.create(4)
    witness = os.memfd_create("witness")
    os.ftruncate(witness, 4096)

    def start(index: int) -> subprocess.Popen[bytes]:
        told = (supervisor.fileno(), index, witness, most, rounds)
        command = [sys.executable, "-c", _GREEDY, *map(str, told)]
        return subprocess.Popen(command, pass_fds=(*supervisor.fds, witness), stdout=subprocess.PIPE)

    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(start(index)) for index in range(4)]
        victim = running.pop()
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"begun\n"
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        # What it said last must not outlive it, in the witness as in the memory.
        lock = os.open(f"/proc/self/fd/{witness}", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        mmap.mmap(witness, 4096)[3] = 0
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
        supervisor.clear(3)
        running.append(stack.enter_context(start(3)))
        assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert supervisor.total("greed") == 0
    os.close(witness)
    supervisor.close()
