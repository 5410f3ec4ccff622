"""What is begun at once is answered at once, and what has to wait goes on as any coroutine does."""

from __future__ import annotations

import asyncio

import pytest

from relay.sftp.begun import Begun


async def test_what_needs_no_waiting_is_done_at_once() -> None:
    """Its result is there before anything else runs; what it raises is raised there and then."""

    async def answer(divisor: int) -> int:
        return 6 // divisor

    begun = Begun(answer(2))
    assert begun.is_done
    assert begun.result == 3
    with pytest.raises(ZeroDivisionError):
        Begun(answer(0))


async def test_what_waits_goes_on_where_it_was() -> None:
    """It waits as often as it likes, for a future, for a turn of the loop, under a lock, and its result comes out."""
    lock, come = asyncio.Lock(), asyncio.get_running_loop().create_future()
    steps: list[str] = []

    async def work() -> str:
        async with lock:
            steps.append("begun")
            await asyncio.sleep(0)
            steps.append("turned")
            return str(await come)

    begun = Begun(work())
    assert (steps, begun.is_done, lock.locked()) == (["begun"], False, True)
    task = asyncio.create_task(_await(begun))
    while "turned" not in steps:  # noqa: ASYNC110 - the loop's turns are what is looked at
        await asyncio.sleep(0)
    come.set_result("there")
    assert await task == "there"
    assert not lock.locked()


async def test_a_future_that_comes_before_anybody_awaits_is_not_missed() -> None:
    """What was waited for may be there by the time the task begins."""
    come: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await come

    begun = Begun(work())
    come.set_result(7)
    assert await _await(begun) == 7


async def test_a_cancellation_reaches_what_was_begun() -> None:
    """It may refuse to end for it, and an error of what it waits for is its own to handle."""
    never, broken = (asyncio.get_running_loop().create_future() for _ in range(2))

    async def work() -> str:
        try:
            await never
        except asyncio.CancelledError:
            broken.set_exception(OSError("the disk"))
        try:
            await broken
        except OSError as error:
            return str(error)
        raise AssertionError

    task = asyncio.create_task(_await(Begun(work())))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "the disk"


async def _await(begun: Begun[str] | Begun[int]) -> str | int:
    return await begun
