"""A task is cancelled at each of its suspensions in intake, collection and commit: nothing half, nothing held.

The task is really cancelled, by the event loop: while it waits, or after what it waited for has come and before it goes
on.  The second is where a lock or a place is lost that was just given.  After each: the session ends as one does whose
connection is lost, the writer goes on, nothing is held, the next upload gets through, and no promise is broken.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from abort_judge import Fetch, Told, digest
from deeds import LARGE, SMALL, Play
from house import CARE_MANAGER, HOME_HELP, PATIENCE_SECONDS, general_name
from indoors import Indoors, identity_of, open_indoors, prepared_store

from relay import journal
from relay.buffers import Buffers
from relay.ledger import Shelf
from relay.manners import Manners
from relay.model import Transfer
from relay.upload import Upload

__all__ = ["prepared_store"]

_STEPS_MOST = 500
_WRITE_BYTES = 200_000


class Cancelling:
    """Runs a coroutine, and cancels its task at the Nth suspension; *is_late* once what it waits for has come."""

    def __init__(self, work: Coroutine[Any, Any, None], at: int, *, is_late: bool) -> None:
        self._work, self._at, self._is_late = work, at, is_late
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        step: Callable[[], Any] = lambda: self._work.send(None)  # noqa: E731 - it changes at each turn
        while True:
            try:
                waited_for = step()
            except StopIteration:
                return
            self.suspensions += 1
            if self.suspensions == self._at:
                if self._is_late and waited_for is not None:
                    # Called before the task's own callback, which is added when this is given to it.
                    waited_for.add_done_callback(lambda _: task.cancel())
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001 - it belongs into the coroutine
                step = lambda error=error: self._work.throw(error)  # noqa: E731
            else:
                step = lambda: self._work.send(None)  # noqa: E731


@dataclass
class Desk:
    """One office's hands at intake and collection, as its session has them."""

    play: Play
    relay: Indoors
    uploads: list[Upload]
    buffers: Buffers

    async def upload(self, content: bytes, *, number: int = 0, suffix: str = "", is_afresh: bool = True) -> None:
        """Open, write and close; noted is what was told, where *suffix* makes it no temporary name."""
        intake, identity = self.relay.desks.intake, identity_of(CARE_MANAGER)
        if not suffix:
            self.play.note(content, Told.NOTHING, number)
        upload = await intake.open(
            general_name(number=number) + suffix, None, identity, Manners(), journal.new_journal(),
            is_afresh=is_afresh, buffers=self.buffers,
        )  # fmt: skip
        self.uploads.append(upload)
        for at in range(upload.size_bytes, len(content), _WRITE_BYTES):
            data = content[at : at + _WRITE_BYTES]
            if not upload.write_now(at, data):
                await upload.write(at, data)
        await upload.close()
        intake.forget(upload, identity)
        if not suffix:
            self.play.note(content, Told.DONE, number)

    async def transfer(self) -> Transfer:
        """Return the transfer that was made of the first name."""
        return next(each for each in await self.relay.ledger.list_transfers() if each.name == general_name())

    async def leave(self) -> None:
        """End as a session does whose connection is lost."""
        for upload in self.uploads:
            await upload.leave("the test")
            self.relay.desks.intake.forget(upload, identity_of(CARE_MANAGER))
        self.uploads.clear()


async def _send_small(desk: Desk) -> None:
    await desk.upload(SMALL)


async def _send_large(desk: Desk) -> None:
    await desk.upload(LARGE)


async def _rename(desk: Desk) -> None:
    desk.play.note(LARGE, Told.NOTHING)
    await desk.upload(LARGE, suffix=".part")
    intake, identity = desk.relay.desks.intake, identity_of(CARE_MANAGER)
    await intake.rename(f"{general_name()}.part", general_name(), None, identity, journal.new_journal())
    desk.play.note(LARGE, Told.DONE)


async def _leave_a_part(desk: Desk) -> None:
    desk.play.note(LARGE, Told.NOTHING)
    upload = await desk.relay.desks.intake.open(
        general_name(), None, identity_of(CARE_MANAGER), Manners(), journal.new_journal(), is_afresh=True,
        buffers=desk.buffers,
    )  # fmt: skip
    desk.uploads.append(upload)
    for at in (0, _WRITE_BYTES):
        await upload.write(at, LARGE[at : at + _WRITE_BYTES])
    await desk.leave()


async def _resume(desk: Desk) -> None:
    await desk.upload(LARGE, is_afresh=False)


async def _collect(desk: Desk) -> None:
    play, identity = desk.play, identity_of(HOME_HELP)
    transfer = await desk.transfer()
    reading = await desk.relay.desks.collection.open(transfer, identity, journal.new_journal())
    data = bytearray()
    while part := await reading.read(len(data), _WRITE_BYTES):
        reading.note_served(len(data), len(part))
        data += part
    # Its CLOSE has arrived: counted or not, it has every byte.
    play.fetches.append(Fetch(HOME_HELP, transfer.name, digest(bytes(data)), Told.NOTHING))
    await reading.close()
    play.fetches.append(replace(play.fetches[-1], told=Told.DONE))


async def _put_away(desk: Desk) -> None:
    transfer = await desk.transfer()
    collection = desk.relay.desks.collection
    await collection.move(transfer, Shelf.DONE, identity_of(HOME_HELP), journal.new_journal())


async def _send_and_collect(desk: Desk) -> None:
    await _send_large(desk)
    await _collect(desk)


async def _recall(desk: Desk) -> None:
    claims, name = desk.play.claims, general_name()
    claims[name] = replace(claims[name], taken_back=claims[name].taken_back or Told.NOTHING)
    transfer = await desk.transfer()
    await desk.relay.desks.intake.recall(transfer, identity_of(CARE_MANAGER), journal.new_journal())
    claims[name] = replace(claims[name], taken_back=Told.DONE)


Deed = tuple[Callable[[Desk], Coroutine[Any, Any, None]], Callable[[Desk], Awaitable[None]] | None]
DEEDS: dict[str, Deed] = {
    "send_small": (_send_small, None),
    "send_large": (_send_large, None),
    "send_again": (_send_large, _send_large),
    "rename": (_rename, None),
    "resume": (_resume, _leave_a_part),
    "collect": (_collect, _send_large),
    "put_away": (_put_away, _send_and_collect),
    "recall": (_recall, _send_large),
}


class Trial:
    """One deed, cancelled once at every suspension, each time on a store of its own."""

    def __init__(self, deed: Deed, folder: Path, prepared: Path, *, is_late: bool) -> None:
        self._do, self._prepare = deed
        self._folder, self._prepared, self._is_late = folder, prepared, is_late

    async def run(self) -> int:
        """Cancel at the Nth suspension for N from 1 on, until the deed comes to its end; return how many there were."""
        for at in range(1, _STEPS_MOST):
            if not await asyncio.wait_for(self._try(at), PATIENCE_SECONDS):
                return at - 1
        raise AssertionError("it never comes to its end")

    async def _try(self, at: int) -> bool:
        store = self._folder / "relay.db"
        for old in self._folder.glob("relay.db*"):
            old.unlink()
        shutil.copy(self._prepared, store)
        async with open_indoors(store) as relay:
            desk = Desk(Play(relay), relay, [], relay.desks.intake.lend_buffers())
            if self._prepare is not None:
                await self._prepare(desk)
            is_met = await self._cancel(desk, at)
            await desk.leave()
            await relay.check_idle()
            assert desk.buffers.holds_nothing
            await desk.upload(SMALL, number=9)
            await self._do(desk)
            await relay.check_idle()
        async with open_indoors(store) as relay:
            desk.play.relay = relay
            broken = await desk.play.judge()
            assert not broken, f"suspension {at}: {broken}"
        return is_met

    async def _cancel(self, desk: Desk, at: int) -> bool:
        """Do it and cancel it there; False where it came to its end before."""
        cancelling = Cancelling(self._do(desk), at, is_late=self._is_late)

        async def run() -> None:
            await cancelling

        task = asyncio.create_task(run())
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        return cancelling.suspensions >= at


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("is_late", [False, True], ids=["waiting", "woken"])
async def test_a_task_may_be_cancelled_at_any_await(
    tmp_path: Path,
    prepared_store: Path,
    deed: str,
    is_late: bool,  # noqa: FBT001 - pytest names it
) -> None:
    """Nothing is half done, the writer lives, locks and buffers are free, and the next upload gets through."""
    steps = await Trial(DEEDS[deed], tmp_path, prepared_store, is_late=is_late).run()
    print(f"{deed}: cancelled at {steps} suspensions")  # noqa: T201 - pytest -s
    assert steps > 0
