from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from relay.model import OfficeNumber
from relay.turns import LATELY_SECONDS, Turns, turns_of_worker

GREEDY, OTHER = OfficeNumber("0178515854"), OfficeNumber("0178529384")
MANY, AT_ONCE = 32, 2


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time that was set."""
        return self.now


@dataclass
class Counter:
    """Files that take turns, each until it is let go; *order* is the one in which they got in."""

    turns: Turns
    inside: dict[int, asyncio.Event] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def come(self, office: OfficeNumber, count: int) -> None:
        """Let *count* files of *office* come, and go as far as they may."""
        first = len(self.tasks)
        self.tasks += [asyncio.create_task(self._commit(office, first + place)) for place in range(count)]
        await settle()

    async def go(self) -> None:
        """Let everybody who is inside end, until nobody is left."""
        while self.inside:
            for done in list(self.inside.values()):
                done.set()
            await settle()

    async def _commit(self, office: OfficeNumber, number: int) -> None:
        async with self.turns.taken(office):
            self.order.append(number)
            done = self.inside[number] = asyncio.Event()
            await done.wait()
            del self.inside[number]


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands."""
    return Clock()


@pytest.fixture
def counter(clock: Clock) -> Counter:
    """Return turns that nobody has taken."""
    return Counter(Turns(AT_ONCE, clock))


async def test_an_office_that_is_alone_waits_for_nothing(counter: Counter) -> None:
    """However many files it has in the commit at once."""
    await counter.come(GREEDY, MANY)
    assert len(counter.inside) == MANY
    await counter.go()


async def test_beside_another_office_an_office_has_so_many_turns_and_the_other_none_to_wait_for(
    counter: Counter,
) -> None:
    """The greedy one's files go in one after the other, in the order in which they came, until all are done."""
    await counter.come(OTHER, 1)
    await counter.come(GREEDY, MANY)
    assert sorted(counter.inside) == [0, *range(1, 1 + AT_ONCE)]
    await counter.come(OTHER, 1)
    assert MANY + 1 in counter.inside
    await counter.go()
    greedy = [number for number in counter.order if 1 <= number <= MANY]
    assert greedy == sorted(greedy)
    assert len(counter.order) == MANY + 2
    await asyncio.gather(*counter.tasks)


async def test_offices_that_send_alike_do_not_wait_for_each_other(counter: Counter) -> None:
    """One has as many turns as all others have together, so that many files are committed at once."""
    await counter.come(OTHER, MANY)
    await counter.come(GREEDY, MANY + 1)
    assert len(counter.inside) == 2 * MANY
    await counter.go()
    await asyncio.gather(*counter.tasks)


def test_many_workers_have_one_turn_each_for_an_office() -> None:
    """One that is everywhere would else have as many more as there are workers."""
    assert [turns_of_worker(workers) for workers in (1, 2, 8)] == [2, 1, 1]


async def test_an_office_is_alone_again_when_nobody_else_has_sent_for_a_while(counter: Counter, clock: Clock) -> None:
    """Then all that wait go in together with the next turn that ends."""
    await counter.come(OTHER, 1)
    await counter.go()
    await counter.come(GREEDY, MANY)
    assert len(counter.inside) == AT_ONCE
    clock.now += LATELY_SECONDS + 1
    counter.inside[1].set()
    await settle()
    assert len(counter.inside) == MANY - 1
    await counter.go()


@pytest.mark.parametrize("is_handed", [False, True], ids=["while it waits", "when its turn has just come"])
async def test_a_file_that_is_given_up_leaves_its_turn_to_the_next(counter: Counter, *, is_handed: bool) -> None:
    """Nothing is lost: as many as before get in, and all that were not given up are committed."""
    await counter.come(OTHER, 1)
    await counter.come(GREEDY, AT_ONCE + 3)
    given_up = counter.tasks[1 + AT_ONCE]
    if is_handed:
        # Its future is done, and it has not run since.
        counter.inside[1].set()
        await asyncio.sleep(0)
    given_up.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await given_up
    await counter.go()
    assert given_up.cancelled()
    assert len(counter.order) == 1 + AT_ONCE + 2
    assert not counter.turns._under_way
    assert not counter.turns._waiting
