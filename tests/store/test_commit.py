"""Group commit: who waits together fails alone, who stops waiting loses nothing, and a step that fails changes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from ledgers import NOW, B, Shop, identity, large, open_shop, plan_name

from relay.common import Common
from relay.errors import Deferred, Refused
from relay.ledger import Shelf, commit, disktime, storefile
from relay.ledger.commit import _TOGETHER_SECONDS, Writer
from relay.ledger.disktime import DiskTime
from relay.ledger.trail import Trail
from relay.lineup import Lineup
from relay.model import EventKind, Transfer, TransferId
from relay.vault import CHUNK_BYTES

# A verb takes a few turns of the event loop, and many more while COMMIT waits for the disk.
TURNS = 40


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Shop]:
    """Return an open embedded ledger that waits half a second for a lock."""
    opened = await open_shop(tmp_path, lock_wait_seconds=0.5)
    async with opened.ledger:
        yield opened


@pytest.fixture(params=["slow", "quick"])
def disk_is(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the event loop go on beside all commits, or stand still for small ones, as it does where the disk is quick."""
    monkeypatch.setattr(DiskTime, "is_quick", request.param == "quick")
    return str(request.param)


def _break(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE office SET name = 'half done'")
    raise RuntimeError("a defect")


def _violate(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE office SET name = 'half done'")
    connection.execute("UPDATE office SET status = 'no such status'")


# --- one batch ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("disk_is")
@pytest.mark.parametrize(("work", "error"), [(_break, RuntimeError), (_violate, sqlite3.IntegrityError)])
async def test_one_that_raises_fails_alone(
    desk: Shop, work: Callable[[sqlite3.Connection], None], error: type[Exception]
) -> None:
    """A defect in the middle of a batch is its own: those before and behind it are committed, of it nothing."""
    before = [asyncio.ensure_future(desk.send(b"m", plan_name(n))) for n in range(5)]
    await asyncio.sleep(0)
    broken = desk.ledger._store.change(work)
    behind = [asyncio.ensure_future(desk.send(b"m", plan_name(n))) for n in range(5, 10)]
    sent = await asyncio.gather(*before, *behind)
    with pytest.raises(error):
        await broken
    assert len({each.id for each in sent}) == 10
    assert len(await desk.ledger.list_transfers()) == 10
    assert all(office.name != "half done" for office in await desk.ledger.list_offices())


async def test_refusals_in_a_batch_are_each_ones_own(desk: Shop) -> None:
    """Conflicts, refusals and lost uploads beside honest ones: each gets its own answer from one transaction."""
    await desk.send(b"first")
    gone = desk.parcel(large())
    await gone.stage(desk.ledger)
    await desk.ledger.discard_staged(gone.staged)  # type: ignore[arg-type]
    gone.name = plan_name(5)
    answers = await asyncio.gather(
        desk.send(b"other"),
        desk.send(b"second", plan_name(1)),
        desk.ledger.commit_transfer(gone.draft(), now=NOW),
        desk.send(b"third", plan_name(2)),
        desk.ledger.move_shelf(TransferId(99), Shelf.DONE, identity=identity(B), now=NOW),
        return_exceptions=True,
    )
    codes = [each.code if isinstance(each, Refused) else type(each).__name__ for each in answers]
    assert codes == ["transfer.conflict", "Transfer", "upload.unfinished", "Transfer", "LookupError"]


async def test_those_who_wait_together_are_told_each_by_an_exception_of_its_own(desk: Shop) -> None:
    """A locked store defers the whole batch; nobody shares an exception, whose traceback would grow with each."""
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(*(desk.send(b"m", plan_name(n)) for n in range(4)), return_exceptions=True)
    assert [each.code for each in answers if isinstance(each, Deferred)] == ["server.busy"] * 4
    assert len({id(each) for each in answers}) == 4
    assert await desk.ledger.list_transfers() == []
    await asyncio.gather(*(desk.send(b"m", plan_name(n)) for n in range(4)))


@pytest.mark.usefixtures("disk_is")
async def test_a_batch_is_one_transaction(desk: Shop) -> None:
    """What waits together is written together: another process sees none of it or all."""
    seen = []
    work = [asyncio.ensure_future(desk.send(b"m", plan_name(n))) for n in range(50)]
    with closing(sqlite3.connect(desk.path)) as other:
        while not all(each.done() for each in work):
            await asyncio.sleep(0)
            seen.append(other.execute("SELECT count(*) FROM transfer").fetchone()[0])
    await asyncio.gather(*work)
    assert set(seen) <= {0, 50}


async def test_a_long_batch_is_cut_where_another_worker_waits(tmp_path: Path) -> None:
    """Each work takes longer than a worker has: with one waiting, each is a commit; with none, they are one together."""
    supervisor = Common.create(2)
    lineups = [Lineup(Common.attach(supervisor.fileno(), index)) for index in range(2)]
    desk = await open_shop(tmp_path, lineup=lineups[0])

    def work_slowly(number: int) -> int:
        time.sleep(2 * _TOGETHER_SECONDS)
        return number

    async with desk.ledger:
        meters = desk.ledger._store._writer._meters
        for is_awaited, expected in ((False, 1), (True, 4)):
            if is_awaited:
                lineups[1].enter(time.monotonic() + 5.0)
            before = meters.transactions
            answers = [desk.ledger._store.change(lambda _, number=number: work_slowly(number)) for number in range(4)]
            assert await asyncio.gather(*answers) == [0, 1, 2, 3]
            assert meters.transactions - before == expected
    supervisor.close()


# --- what the event loop does meanwhile ----------------------------------------------------------------------------


@dataclass
class Disk:
    """Keeps each COMMIT waiting for so many *seconds*, and notes how often the event loop turned around in each."""

    seconds: float = 0.0
    turns: list[int] = field(default_factory=list)
    turned: int = 0

    def attach(self, desk: Shop) -> None:
        """Let the next COMMITs of *desk* be kept waiting."""
        connection = desk.ledger._store._writer._connection
        assert connection is not None
        connection.set_trace_callback(self._note)

    def _note(self, statement: str) -> None:
        if statement == "COMMIT":
            before = self.turned
            time.sleep(self.seconds)
            self.turns.append(self.turned - before)

    async def watch(self, done: Awaitable[object]) -> None:
        """Count the turns of the event loop until *done*."""
        task = asyncio.ensure_future(done)
        while not task.done():
            await asyncio.sleep(0.001)
            self.turned += 1
        await task


async def test_event_loop_stands_still_for_a_commit_of_a_quick_disk_and_of_no_other(
    desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that meets a disk which is quick no more is waited for; beside those behind it the loop goes on."""
    monkeypatch.setattr(disktime, "STILL_SECONDS", 30.0)
    await desk.send()
    disk, disk_time = Disk(seconds=0.2), desk.ledger._store._writer._disk_time
    disk.attach(desk)
    while not disk_time.is_quick:
        with disk_time.counted(is_synced=True):
            pass
    for number in (1, 2):
        await disk.watch(desk.send(name=plan_name(number)))
    assert disk.turns[0] == 0
    assert disk.turns[1] > 0


@pytest.mark.parametrize("disk_is", ["quick"], indirect=True)
@pytest.mark.usefixtures("disk_is")
async def test_event_loop_does_not_stand_still_for_long(desk: Shop) -> None:
    """A disk that hangs has the loop for a moment; then everybody else goes on."""
    await desk.send()
    disk = Disk(seconds=0.5)
    disk.attach(desk)
    await disk.watch(desk.send(name=plan_name(1)))
    assert disk.turns[0] > 0


@pytest.mark.parametrize("disk_is", ["quick"], indirect=True)
@pytest.mark.usefixtures("disk_is")
async def test_event_loop_never_stands_still_for_the_bytes_of_a_large_file(
    desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However quick the disk is, it goes on beside staged chunks, and beside the commit that has to sync them."""
    monkeypatch.setattr(disktime, "STILL_SECONDS", 30.0)
    await desk.send()
    disk = Disk(seconds=0.1)
    disk.attach(desk)
    parcel = desk.parcel(bytes(2 * CHUNK_BYTES + 1), plan_name(7))
    await disk.watch(parcel.stage(desk.ledger))
    await disk.watch(desk.ledger.commit_transfer(parcel.draft(), now=NOW))
    assert all(disk.turns)
    disk.turns.clear()
    await disk.watch(desk.send(name=plan_name(8)))
    assert disk.turns == [0]


async def test_no_memory_to_wait_for_a_commit_leaves_lock_and_connection_to_who_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can have the lock before the thread has let go of it."""
    desk = await open_shop(tmp_path)
    async with desk.ledger:
        await desk.send()
        order: list[str] = []
        with monkeypatch.context() as short:
            short.setattr(DiskTime, "is_quick", True)
            short.setattr(commit, "wait", _have_no_memory)
            settle, give_up = Trail.settle, Writer._give_up

            def settle_late(self: Trail) -> None:
                time.sleep(0.3)
                settle(self)
                order.append("committed")

            def note(self: Writer, error: BaseException) -> None:
                order.append("given up")
                give_up(self, error)

            short.setattr(Trail, "settle", settle_late)
            short.setattr(Writer, "_give_up", note)
            with pytest.raises(Deferred):
                await desk.send(name=plan_name(1))
        assert order == ["committed", "given up"]
        await desk.send(name=plan_name(1))
        await _check_sound(desk)


async def test_no_thread_to_look_at_the_log_leaves_the_lock_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes between taking it and the transaction, nobody else is kept waiting for it."""
    desk = await open_shop(tmp_path)
    other = storefile.StoreLock(desk.path, 1.0)
    async with desk.ledger:
        other.doubt()
        with monkeypatch.context() as short:
            short.setattr(Writer, "_in_thread", _have_no_thread)
            with pytest.raises(RuntimeError):
                await desk.send()
        with other.held():
            pass
        await desk.send()
    other.close()


async def _have_no_thread(_: Writer, *__: object) -> None:
    raise RuntimeError("can't start new thread")


def _have_no_memory(waited_for: list[Future[None]], _: float) -> None:
    while not waited_for[0].running():
        time.sleep(0.001)
    raise MemoryError


# --- cancelled ---------------------------------------------------------------------------------------------------


def _verbs(desk: Shop, sent: Transfer) -> dict[str, Callable[[], Awaitable[object]]]:
    ledger = desk.ledger

    async def staged_commit() -> object:
        parcel = desk.parcel(bytes(2 * CHUNK_BYTES + 1), plan_name(7))
        await parcel.stage(ledger)
        return await ledger.commit_transfer(parcel.draft(), now=NOW)

    return {
        "commit": lambda: ledger.commit_transfer(desk.parcel(b"new", plan_name(8)).draft(), now=NOW),
        "staged commit": staged_commit,
        "collect": lambda: ledger.record_served(sent.id, [(0, 7)], identity=identity(B), now=NOW),
        "event": lambda: ledger.record_event(EventKind.NAMES_REVEALED, actor="op", detail="", now=NOW),
    }


@pytest.mark.usefixtures("disk_is")
@pytest.mark.parametrize("verb", ["commit", "staged commit", "collect", "event"])
async def test_a_caller_that_is_cancelled_anywhere_leaves_nothing_by_half(tmp_path: Path, verb: str) -> None:
    """At each turn of the loop: what is there afterwards is there whole, and the same call works afterwards."""
    for turn in range(TURNS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        desk = await open_shop(folder)
        async with desk.ledger:
            sent = await desk.send()
            task = asyncio.ensure_future(_verbs(desk, sent)[verb]())  # type: ignore[arg-type]
            for _ in range(turn):
                await asyncio.sleep(0)
            was_done = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await desk.ledger._store.change(lambda _: None)  # behind whatever was still under way
            await _check_sound(desk)
            await _verbs(desk, sent)[verb]()
            await _check_sound(desk)
        if was_done:
            return


async def _check_sound(desk: Shop) -> None:
    for transfer in await desk.ledger.list_transfers():
        assert len(await desk.content(transfer.id)) == transfer.size_bytes
        kinds = [event.kind for event in await desk.ledger.list_events(transfer=transfer.id)]
        assert kinds == [EventKind.ACCEPTED] + [EventKind.COLLECTED] * (transfer.collected_at is not None)
    with closing(sqlite3.connect(desk.path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_the_work_of_who_stopped_waiting_is_done_all_the_same(desk: Shop) -> None:
    """A client that hangs up during its commit may find its file delivered: whole, once."""
    task = asyncio.ensure_future(desk.send())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = await desk.ledger.commit_transfer(desk.parcel().draft(), now=NOW)
    assert again.is_repeat
    assert await desk.content(again.transfer.id) == b"content"


# --- closing -----------------------------------------------------------------------------------------------------


async def test_closing_writes_what_is_waiting_first(tmp_path: Path) -> None:
    """What was asked before the end is answered; what is asked after it is deferred."""
    desk = await open_shop(tmp_path)
    work = [asyncio.ensure_future(desk.send(b"m", plan_name(n))) for n in range(20)]
    await asyncio.sleep(0)
    await desk.ledger.close()
    assert len({each.id for each in await asyncio.gather(*work)}) == 20
    with pytest.raises(Deferred):
        await desk.send(b"late", plan_name(99))


async def test_closing_that_is_cancelled_does_not_cancel_the_writer(tmp_path: Path) -> None:
    """An impatient caller of close() costs nobody a commit; closing again ends it."""
    desk = await open_shop(tmp_path)
    work = [asyncio.ensure_future(desk.send(b"m", plan_name(n))) for n in range(20)]
    await asyncio.sleep(0)
    closing_ = asyncio.ensure_future(desk.ledger.close())
    await asyncio.sleep(0)
    closing_.cancel()
    await asyncio.gather(closing_, return_exceptions=True)
    assert len({each.id for each in await asyncio.gather(*work)}) == 20
    await desk.ledger.close()
    again = await desk.reopen()
    async with again.ledger:
        assert len(await again.ledger.list_transfers()) == 20


async def test_closing_while_another_keeps_the_lock(tmp_path: Path) -> None:
    """The ledger closes without folding the log, and nothing is lost by it."""
    desk = await open_shop(tmp_path, lock_wait_seconds=0.05)
    sent = await desk.send()
    lock = storefile.StoreLock(desk.path, 1.0)
    with lock.held():
        await desk.ledger.close()
    lock.close()
    again = await desk.reopen()
    async with again.ledger:
        assert await again.content(sent.id) == b"content"


async def test_trouble_is_told_once_and_its_end_once(tmp_path: Path) -> None:
    """The operator hears of the first failure and of the first success after it, not of each client's."""
    heard: list[str | None] = []
    desk = await open_shop(tmp_path, lock_wait_seconds=0.05, on_trouble=heard.append)
    async with desk.ledger:
        with closing(sqlite3.connect(desk.path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                with pytest.raises(Deferred):
                    await desk.send()
            assert len(heard) == 1
        await desk.send()
        await desk.send(name=plan_name(1))
    assert len(heard) == 2
    assert heard[1] is None


async def test_two_processes_take_turns(desk: Shop) -> None:
    """Two ledgers on one store write at once, checkpoint at once, and lose nothing."""
    other = await desk.reopen(checkpoint_bytes=65_536, lock_wait_seconds=30.0)
    again = await desk.reopen(checkpoint_bytes=65_536, lock_wait_seconds=30.0)
    async with other.ledger, again.ledger:
        await asyncio.gather(*(_send_many(place, at) for at, place in enumerate((other, again))))
        found = await desk.ledger.list_transfers()
        assert len(found) == 200
        assert {len(await desk.content(each.id)) for each in found} == {5_000}


async def _send_many(place: Shop, at: int) -> None:
    for number in range(100):
        await place.send(bytes(5_000), plan_name(1_000 * at + number))
