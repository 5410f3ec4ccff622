"""Begun: an answer whose first steps are taken at once, without a task of its own.

Most requests turn out to need no waiting: the store is read on the event loop, and what is written into an upload waits in
memory.  A task for each would cost more than some of them.  So a coroutine is run as far as it goes; where it ends, that
was all, and where it waits, a task awaits the rest of it as if it had run it from the beginning.

What runs ahead has no current task, so it must not ask for one: no `asyncio.timeout`, no task group in its first steps.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Generic[T]):
    """*work* as far as it goes without waiting; raises what it raises until then.

    *result* is what it returned, once it *is_done*; else it is to be awaited, once.
    """

    __slots__ = ("_waits_for", "_work", "is_done", "result")

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self.is_done = False
        self.result: T
        try:
            self._waits_for = work.send(None)
        except StopIteration as end:
            self.result, self.is_done = end.value, True

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for what the work waits for, and go on with it."""
        waits_for, work = self._waits_for, self._work
        try:
            while True:
                try:
                    come = yield waits_for
                except BaseException as error:  # noqa: BLE001 - it belongs into the work, a cancellation above all
                    waits_for = work.throw(error)
                else:
                    waits_for = work.send(come)
        except StopIteration as end:
            result: T = end.value
            return result
