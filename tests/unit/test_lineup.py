"""The order in which workers come to the store, and that it is no more than a courtesy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from relay.common import Common
from relay.lineup import FILE_SECONDS, LATE_SECONDS_MOST, Lineup, Standing
from relay.neighbours import Neighbours

PATIENCE_SECONDS = 30.0


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time that was set."""
        return self.now


async def answer(question: bytes) -> bytes:
    """Answer nothing of interest."""
    return question


def give_back(holder: Lineup) -> None:
    """Let *holder* give the lock back, which nobody has taken since."""
    with holder.giving_back():
        pass


@pytest.fixture
def crew() -> Iterator[list[Common]]:
    """Return the memory of three workers, as each of them sees it."""
    supervisor = Common.create(3)
    yield [Common.attach(supervisor.fileno(), index) for index in range(3)]
    supervisor.close()


async def test_who_has_waited_longest_goes_first(crew: list[Common]) -> None:
    """The others go one after the other, in the order of their moments, when those before them have left."""
    lineups = [Lineup(common, Clock()) for common in crew]
    for lineup, since in zip(lineups, (990.0, 980.0, 995.0), strict=True):
        lineup.enter(since)
    came = []
    for _ in lineups:
        (first,) = [lineup for lineup in lineups if lineup not in came and lineup.may_go()]
        came.append(first)
        first.took()
        first.leave()
    assert came == [lineups[1], lineups[0], lineups[2]]


async def test_who_gives_the_lock_back_calls_the_first_and_nobody_else(crew: list[Common]) -> None:
    """The first one goes on at once, not when it looks the next time; the one behind it waits on."""
    with contextlib.ExitStack() as stack:
        for common in crew:
            stack.enter_context(Neighbours(common, answer).reachable())
        holder, second, first = (Lineup(common, Clock()) for common in crew)
        holder.took()
        second.enter(995.0)
        first.enter(990.0)
        waiting = [asyncio.create_task(each.wait(10 * PATIENCE_SECONDS)) for each in (first, second)]
        await asyncio.sleep(0)
        give_back(holder)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await waiting[0]
        assert first.may_go()
        assert not waiting[1].done()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_one_who_was_called_and_does_not_come_holds_nobody_up(crew: list[Common]) -> None:
    """A worker that hangs or was killed in the line is left behind a moment after the lock was given back."""
    clock = Clock()
    holder, dead, alive = (Lineup(common, clock) for common in crew)
    holder.took()
    dead.enter(990.0)
    alive.enter(995.0)
    give_back(holder)
    assert not alive.may_go()
    clock.now += 0.02
    assert alive.may_go()
    alive.took()
    assert not alive.may_go()


async def test_who_takes_the_lock_before_anybody_was_called_is_known_to_have_it(crew: list[Common]) -> None:
    """Between giving back and calling a busy worker may be kept for long; the order of those who wait holds all the same."""
    clock = Clock()
    holder, quick, last = (Lineup(common, clock) for common in crew)
    with holder.giving_back():
        quick.took()
    holder.enter(990.0)
    last.enter(995.0)
    clock.now += 0.02
    assert not last.may_go()


async def test_one_who_holds_the_lock_and_is_killed_holds_nobody_up(crew: list[Common]) -> None:
    """The kernel frees the lock and nobody is called; the place of the dead in the line is cleared, and a second is enough."""
    clock = Clock()
    dead, hanging, alive = (Lineup(common, clock) for common in crew)
    dead.took()
    dead.enter(980.0)
    hanging.enter(990.0)
    alive.enter(995.0)
    assert not hanging.may_go()
    crew[0].clear(0)
    assert hanging.may_go()
    assert not alive.may_go()
    clock.now += 1.5
    assert alive.may_go()


async def test_what_the_dead_left_in_the_line_is_left_out_in_the_end(crew: list[Common]) -> None:
    """Where nobody was left to clear the place of one who was killed, the line goes on as if it was empty."""
    clock = Clock()
    with Neighbours(crew[2], answer).reachable():
        holder, dead, alive = (Lineup(common, clock) for common in crew)
        dead.enter(clock.now)
        clock.now += 60.0
        holder.took()
        assert not holder.is_awaited
        alive.enter(clock.now)
        assert alive.may_go()
        assert not alive.is_awaited
        waiting = asyncio.create_task(alive.wait(10 * PATIENCE_SECONDS))
        await asyncio.sleep(0)
        give_back(holder)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await waiting


async def test_all_workers_know_when_one_has_emptied_the_log(crew: list[Common]) -> None:
    """It is the log of all: none empties it again before the time, whichever did, and nobody has where none did."""
    clock = Clock()
    lineups = [*(Lineup(common, clock) for common in crew), alone := Lineup(clock=clock)]
    assert not any(lineup.was_emptied(10.0) for lineup in lineups)
    lineups[1].emptied()
    assert [lineup.was_emptied(10.0) for lineup in lineups] == [True, True, True, False]
    alone.emptied()
    clock.now += 9.9
    assert all(lineup.was_emptied(10.0) for lineup in lineups)
    clock.now += 0.2
    assert not any(lineup.was_emptied(10.0) for lineup in lineups)


async def test_a_process_without_neighbours_waits_for_nobody() -> None:
    """A command, or the only worker, goes at once."""
    for lineup in (Lineup(), Lineup(Common.alone())):
        lineup.enter(1.0)
        assert lineup.may_go()
        give_back(lineup)


def test_who_comes_often_lines_up_behind_who_comes_now_and_then() -> None:
    """Each file counts for some time; who sends faster than that counts as late, and by a tenth of a second at most."""
    standing = Standing()
    now = 1000.0
    assert standing.line_up("one", now) == now
    assert standing.line_up("one", now) == pytest.approx(now + FILE_SECONDS)
    for _ in range(100):
        standing.line_up("one", now)
    assert standing.line_up("one", now) == pytest.approx(now + LATE_SECONDS_MOST)
    assert standing.line_up("another", now) == now
    elsewhere = Standing(workers=2)
    assert [elsewhere.line_up("one", now) for _ in range(2)] == pytest.approx([now, now + 2 * FILE_SECONDS])
    assert standing.line_up("one", now + 10 * LATE_SECONDS_MOST) == now + 10 * LATE_SECONDS_MOST
