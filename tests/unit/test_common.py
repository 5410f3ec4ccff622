"""Memory that all workers share: counts, moments, and what becomes of a worker that dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay import journal
from relay.common import NOBODY, Common
from relay.latest import LatestTime
from relay.neighbours import Neighbours

# A worker that counts three in the memory it inherited, says so, and is killed with the lock in its hands.
_DIES_WITH_THE_LOCK = """
import os, signal, sys
from relay.common import Common
common = Common.attach(int(sys.argv[1]), 1)
common.count("sessions", "here").add(3)
with common.lock:
    print("counted", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_worker_sees_the_sum_and_what_the_others_have() -> None:
    """What two workers count under one limit and scope is one sum, and another scope is another sum."""
    supervisor = Common.create(2)
    first, second = (Common.attach(supervisor.fileno(), index) for index in range(2))
    here, there = first.count("sessions", "1312345678"), second.count("sessions", "1312345678")
    here.add(2)
    there.add(5)
    assert (here.total, here.elsewhere, there.elsewhere) == (7, 5, 2)
    assert second.count("sessions", "1398765432").total == 0
    assert first.whereabouts("sessions", "1312345678") == [1]
    there.close()
    assert here.total == 2
    assert first.whereabouts("sessions", "1312345678") == []
    supervisor.close()


def test_a_worker_killed_with_the_lock_in_its_hands_leaves_what_can_be_cleared() -> None:
    """The kernel takes the lock back from the dead, and `clear` takes back what it had counted."""
    supervisor = Common.create(2)
    alive = Common.attach(supervisor.fileno(), 0)
    ended = subprocess.run(
        [sys.executable, "-c", _DIES_WITH_THE_LOCK, str(supervisor.fileno())],
        pass_fds=supervisor.fds,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == (b"counted\n", -9)
    tally = alive.count("sessions", "here")
    assert tally.total == 3
    assert not supervisor.are_free(1, 1)
    supervisor.clear(1)
    assert supervisor.are_free(1, 1)
    assert tally.total == 0
    assert tally.take(1)
    assert not tally.take(1)
    supervisor.close()


def test_a_moment_is_read_and_set_by_all_and_means_nothing_once_it_has_passed() -> None:
    """A worker finds the moment that another one set, and after it the present."""
    supervisor = Common.create(2)
    first, second = (Common.attach(supervisor.fileno(), index) for index in range(2))
    with first.moment("pace", "1312345678", 100.0) as held:
        assert held.at == 100.0
        held.at = 130.0
    with second.moment("pace", "1312345678", 110.0) as held:
        assert held.at == 130.0
    with second.moment("pace", "1398765432", 110.0) as held:
        assert held.at == 110.0
    supervisor.close()


def test_what_does_not_fit_into_a_full_table_counts_for_its_worker_alone() -> None:
    """With every row taken one more limit still holds in this process, and the operator is told."""
    common = Common.alone()
    told: list[str] = []
    common.on_full = told.append
    kept = [common.count("filling", str(number)) for number in range(60_000)]
    assert set(told) == {"counts"}
    last = common.count("one", "more")
    assert last.take(1)
    assert not common.count("one", "more").take(1)
    for tally in kept:
        tally.close()
    assert last.total == 1


def test_memory_of_another_form_is_not_attached_to() -> None:
    """A descriptor of something else, or a place that there is not, is refused instead of written over."""
    other = os.memfd_create("other")
    os.ftruncate(other, 4096)
    with pytest.raises(ValueError, match="another version"):
        Common.attach(other, 0)
    os.close(other)
    supervisor = Common.create(1)
    with pytest.raises(ValueError, match="fewer workers"):
        Common.attach(supervisor.fileno(), 1)
    assert Common.attach(supervisor.fileno(), NOBODY).workers == 1
    supervisor.close()


def test_what_one_worker_said_no_other_repeats_until_its_time_is_over() -> None:
    """Each thing and scope is said once among all; who is alone says what he likes."""
    supervisor = Common.create(2)
    first, second = (Common.attach(supervisor.fileno(), index) for index in range(2))
    assert first.say_once("limit", "here", 1_000.0)
    assert not second.say_once("limit", "here", 1_000.0)
    assert second.say_once("limit", "there", 0.0)
    assert first.say_once("limit", "there", 1_000.0)
    assert all(Common.alone().say_once("limit", "here", 1_000.0) for _ in range(2))
    supervisor.close()


def test_a_worker_that_comes_later_knows_the_latest_time_that_others_have_seen() -> None:
    """A clock set back brings nothing to life again in a worker that was started since."""
    supervisor, line = Common.create(2), journal.new_journal()
    now = datetime(2026, 7, 1, 9, 0, 0, 250_000, tzinfo=UTC)
    first = LatestTime(line, Common.attach(supervisor.fileno(), 0))
    assert first.at(now) == now
    second = LatestTime(line, Common.attach(supervisor.fileno(), 1))
    assert second.at(now - timedelta(days=30)) == now
    later = now + timedelta(seconds=1)
    assert [each.at(later) for each in (second, first)] == [later, later]
    supervisor.close()


async def test_a_neighbour_answers_and_one_that_has_nothing_is_not_waited_for() -> None:
    """What was asked before somebody began in that place is answered by nobody; what is asked afterwards is."""
    supervisor = Common.create(2)
    asked: list[bytes] = []

    async def answer(question: bytes) -> bytes:
        asked.append(question)
        return question.upper()

    first, second = (Neighbours(Common.attach(supervisor.fileno(), index), answer) for index in range(2))
    looks = iter([True, False])
    with first.reachable():
        assert await first.ask(1, b"old", lambda: next(looks)) is None
        with second.reachable():
            said = await asyncio.gather(*(first.ask(1, b"new %d" % number, lambda: True) for number in range(50)))
            assert await second.ask(0, b"back", lambda: True) == b"BACK"
    assert said == [b"NEW %d" % number for number in range(50)]
    assert b"old" not in asked
    supervisor.close()


async def test_descriptors_that_were_not_inherited_are_not_written_to(tmp_path: Path) -> None:
    """Where a number of the memory's header is a file by now, nobody is asked, and the file stays as it is."""
    supervisor = Common.create(2)
    file = tmp_path / "file"
    file.write_bytes(b"untouched")
    descriptor = os.open(file, os.O_RDWR)
    os.dup2(descriptor, supervisor.inboxes[1][1])
    common = Common.attach(supervisor.fileno(), 0)
    assert common.inboxes == []

    async def answer(question: bytes) -> bytes:
        return question

    neighbours = Neighbours(common, answer)
    with neighbours.reachable():
        assert await neighbours.ask(1, b"anybody", lambda: True) is None
    assert file.read_bytes() == b"untouched"
    os.close(descriptor)
    supervisor.close()
