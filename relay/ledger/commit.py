"""Group commit: everything that is waiting is written in one transaction, synced once, then answered together.

One task a process writes.  It takes all that was submitted while the last commit was under way; under no load a
commit goes at once, under load the batch grows by itself, and no delay is ever added.

The statements of a batch run on the event loop: they touch pages in memory and take microseconds.  COMMIT, which
waits for the disk, runs in a thread of its own with the interpreter's lock released; for that of a small batch the loop
stands still where the disk is quick (`relay.ledger.disktime` says why), though never for long.
Running the statements in that thread as well was measured and is slower, because a busy loop gives the lock back only
every 5 ms and each statement asks for it; aiosqlite would add a crossing for every call.

What is guaranteed:

* `Writer.submit` returns after COMMIT has returned, with ``synchronous=FULL`` if any of the batch asked for it.
* The work of one caller cannot fail another's: a batch in which something unexpected is raised is rolled back and
  done again one by one.
* A caller that is cancelled stops waiting; its work is done or not done, never half.
* History that a batch writes is sealed by the same transaction (see `relay.ledger.trail`).
* A store that is full, locked or broken answers `Deferred`; the writer opens a fresh connection and goes on.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from relay.audit import AuditKey
from relay.errors import Deferred, Refused
from relay.ledger import disktime, storefile
from relay.ledger.disktime import DiskTime
from relay.ledger.doubt import GapError
from relay.ledger.foldahead import FoldAhead
from relay.ledger.headstart import HeadStart
from relay.ledger.logsync import LogSync
from relay.ledger.trail import Trail, WritingConnection
from relay.ledger.trouble import Ill, Trouble, TroubleLog, diagnose
from relay.lineup import Lineup, Standing
from relay.meters import Commit, Meters
from relay.model import OfficeNumber

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

# A larger batch gains nothing and makes the first in it wait.
_BATCH_MOST = 256
# Where other workers wait, one does its work for so long before it commits that: some forty files.
_TOGETHER_SECONDS = 0.01
# The lock is held for milliseconds; a program that ignores it may keep the store for longer.
_LOCK_POLL_SECONDS = 0.002
_BUSY_POLL_SECONDS = 0.02
# After so few, with nobody waiting, the log is folded when it has a quarter of what it may have: with 10 KB files that takes
# 8 ms instead of 23, for which those wait who come meanwhile.  Under full load, and while a large file comes, longer ones
# that are fewer cost less.
_FEW, _EARLY_PART = 4, 4
# Who copies ahead for too long, or hangs, is waited for when the log has so many times what it may have.
_PATIENT_TIMES = 4
# The event loop stands still for the commit of so few.  Under full load batches are larger: then it has something else to do
# meanwhile, and a worker that is alone gets a tenth more done.
_SHORT = 8
# A reader that stays keeps the log from being emptied; trying at every commit would only cost.
_CHECKPOINT_AGAIN_SECONDS = 1.0
# Between two that empty the log, those that come sooner let it be overwritten where it lies: taking its blocks and
# pages from the disk and from memory, only to ask for them again, is a fifth of what a large file costs the store.
# Behind the log's end then lies what was written before, also of what is destroyed now, until it is emptied again.
# It is the log of all workers, who wait for whichever empties it.
_EMPTY_AGAIN_SECONDS = 10.0
# What may wait rides with the next transaction, and goes by itself after so long.
_RIDE_SECONDS = 1.0
# Who has the trouble.
_WRITER = "writer"
# What a unit of work may raise about itself; it must do so before it has changed anything.
_VERDICTS = (Refused, LookupError, ValueError)
# How the store, its disk or its lock fails; the engine tells of no memory as MemoryError.
_FAILURES = (sqlite3.Error, OSError, MemoryError)


@dataclass(slots=True)
class _Item(Generic[T]):
    work: Work[T]
    is_durable: bool
    answer: asyncio.Future[T]
    size_bytes: int = 0
    result: T | None = None
    verdict: Exception | None = None
    queued_at: float = field(default_factory=time.monotonic)
    # Since when it counts as waiting, where workers wait for each other; what rides along does not wait.
    lined_up_at: float = math.inf


class Writer:
    """The one writer of this process; made and closed inside the event loop that uses it."""

    def __init__(
        self,
        path: Path,
        lock: storefile.StoreLock,
        audit_key: AuditKey,
        *,
        checkpoint_bytes: int,
        troubles: TroubleLog,
        meters: Meters | None = None,
        lineup: Lineup | None = None,
    ) -> None:
        self._path = path
        self._lock = lock
        self._audit_key = audit_key
        self._checkpoint_bytes = checkpoint_bytes
        self._troubles = troubles
        self._meters = meters or Meters()
        self._lineup = lineup or Lineup()
        self._standing = Standing(self._lineup.workers)
        # Since when the batch counts as waiting, and what goes along with it.
        self._lined_up_at = 0.0
        self._connection: WritingConnection | None = None
        self._waiting: deque[_Item[object]] = deque()
        self._riding: list[_Item[object]] = []
        self._departure: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._is_closing = False
        self._checkpoint_after = 0.0
        # The log was copied as far as it went, and what is left of it waits to be folded.
        self._is_folded_ahead = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._disk_time = DiskTime()
        self._log_sync = LogSync(storefile.log_of(path), lock.doubt)
        self._head_start = HeadStart(path)
        self._fold_ahead = FoldAhead(path, lock, self._head_start, self._folded_ahead)
        self._task = asyncio.create_task(self._run(), name="ledger-writer")

    def submit(
        self, work: Work[T], *, is_durable: bool = True, office: OfficeNumber | None = None, size_bytes: int = 0
    ) -> asyncio.Future[T]:
        """Queue *work* for the next transaction; the future is done once that is committed.

        *work* gets the connection inside the transaction.  It may raise `Refused`, LookupError or ValueError
        before it has changed anything; what else it raises is a defect.  With *is_durable* false a power cut may
        still undo it: for what promises nothing yet.  *office* is whose work it is, for what one office does often.
        *size_bytes* is how much of a payload it writes.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._is_closing:
            answer.set_exception(Deferred("server.busy", detail="the ledger is closing"))
        else:
            self._board()
            item = _Item(work, is_durable, answer, size_bytes)
            item.lined_up_at = item.queued_at if office is None else self._standing.line_up(office, item.queued_at)
            self._lined_up_at = min(self._lined_up_at, item.lined_up_at)
            self._waiting.append(item)  # type: ignore[arg-type]
            self._wake.set()
        return answer

    def ride(self, work: Work[object]) -> None:
        """Let *work* go with the next transaction, or alone after a second; nobody waits for it.

        It is durable, and comes before all that is submitted later.  What goes wrong with it is told as trouble.
        """
        if self._is_closing:
            return
        loop = asyncio.get_running_loop()
        item = _Item(work, True, loop.create_future())
        # Nobody asks for the outcome: a failure was told by `_report`.
        item.answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._riding.append(item)
        if self._departure is None:
            self._departure = loop.call_later(_RIDE_SECONDS, self._depart)

    def _board(self) -> None:
        self._waiting.extend(self._riding)
        self._riding.clear()
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None

    def _depart(self) -> None:
        self._board()
        self._wake.set()

    async def close(self) -> None:
        """Write what is waiting, fold the log into the database file, close."""
        self._is_closing = True
        self._depart()
        # Not `await self._task`: a caller that is cancelled here would cancel the writer, in the middle of a COMMIT.
        await asyncio.wait([self._task])
        await self._fold_ahead.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_connection)
        self._thread.shutdown()
        self._log_sync.close()
        self._head_start.close()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._is_folded_ahead:
                batch: list[_Item[object]] = []
                self._fill(batch)
                try:
                    if batch:
                        await self._write(batch, is_open=True)
                    await self._checkpoint_if_due(batch)
                except Exception as error:  # noqa: BLE001 - a writer that ends would leave all who come later without an answer
                    self._answer_failure(batch, error)
                    if diagnose(error) is None:
                        # It may be that nobody waits any more: then the event loop tells of it.
                        asyncio.get_running_loop().call_exception_handler({"exception": error, "message": "writer"})
            if self._is_closing:
                return

    def _fill(self, batch: list[_Item[object]]) -> None:
        """Take what waits into *batch*."""
        while self._waiting and len(batch) < _BATCH_MOST:
            batch.append(self._waiting.popleft())

    async def _write(self, batch: list[_Item[object]], *, is_open: bool = False) -> None:
        """Commit *batch* together; where that fails unexpectedly, one by one.

        While it *is_open*, what comes before it is written goes along: who had to wait for other workers does not let
        those wait for another round who came meanwhile.
        """
        try:
            await self._transact(batch, is_open=is_open)
        except Exception as error:  # noqa: BLE001 - whatever was raised must reach those who wait
            if len(batch) == 1 or diagnose(error) is not None:
                self._answer_failure(batch, error)
            else:
                for item in batch:
                    item.verdict = None
                    await self._write([item])
            return
        self._troubles.works(_WRITER)
        self._measure(batch)
        for item in batch:
            if item.answer.done():
                continue
            if item.verdict is not None:
                item.answer.set_exception(item.verdict)
            else:
                item.answer.set_result(item.result)

    def _measure(self, batch: list[_Item[object]]) -> None:
        now = time.monotonic()
        longest = 0.0
        for item in batch:
            if item.is_durable:
                waited = now - item.queued_at
                longest = max(longest, waited)
                self._meters.commit.observe(waited)
        self._meters.transactions += 1
        if longest:
            self._meters.commits.append(Commit(time.time(), longest, len(batch)))

    async def _transact(self, batch: list[_Item[object]], *, is_open: bool) -> None:
        connection = await self._begin(batch, is_open=is_open)
        commit: Future[None] | None = None
        try:
            self._do(batch, connection, is_open=is_open)
            is_durable = any(item.is_durable for item in batch)
            self._seal(connection, is_durable=is_durable)
            size_bytes = sum(item.size_bytes for item in batch)
            is_short = is_durable and len(batch) <= _SHORT and not size_bytes and self._log_sync.is_idle
            commit = self._thread.submit(self._commit, connection, size_bytes, is_durable)
            if is_short and self._disk_time.is_quick:
                # Standing still, the loop has neither the interpreter's lock nor a processor, for which the thread would wait.
                wait([commit], disktime.STILL_SECONDS)
            if commit.done():
                commit.result()
            else:
                await asyncio.wrap_future(commit)
        except BaseException as error:
            if commit is not None:
                _outlast(commit)
            self._give_up(error)
            self._release()
            raise

    def _do(self, batch: list[_Item[object]], connection: WritingConnection, *, is_open: bool) -> None:
        """Do the work of *batch*; of one that *is_open* what comes too late goes back, where other workers wait."""
        until = time.monotonic() + _TOGETHER_SECONDS
        for place, item in enumerate(batch, 1):
            try:
                item.result = item.work(connection)
            except _VERDICTS as verdict:
                item.verdict = verdict
            if is_open and place < len(batch) and time.monotonic() > until and self._lineup.is_awaited:
                self._waiting.extendleft(reversed(batch[place:]))
                del batch[place:]
                return

    def _commit(self, connection: WritingConnection, size_bytes: int, is_durable: bool) -> None:  # noqa: FBT001 - an executor gives no names
        """Commit, in the thread, and let go of the lock at once: a busy loop would only keep the other workers waiting."""
        with self._disk_time.counted(is_synced=is_durable):
            connection.execute("COMMIT")
        if connection.trail is not None:
            connection.trail.settle()
        self._release()
        self._log_sync.committed(size_bytes, is_durable=is_durable)

    @staticmethod
    def _seal(connection: WritingConnection, *, is_durable: bool) -> None:
        trail = connection.trail
        if trail is None or not trail.has_events:
            return
        if not is_durable:
            # The anchor may name every batch it sees: one that a power cut undoes would look as if it was taken away.
            raise RuntimeError("history is written by durable work only")
        trail.seal(connection)

    async def _begin(self, batch: list[_Item[object]], *, is_open: bool) -> WritingConnection:
        """Take the lock and begin; waits for other relays' commands, and for programs that ignore the lock."""
        deadline = asyncio.get_running_loop().time() + self._lock.wait_seconds
        while True:
            await self._acquire(deadline, batch)
            if is_open:
                self._fill(batch)
            is_durable = any(item.is_durable for item in batch)
            try:
                connection = await self._sound_connection()
                # Staged chunks need no sync of their own: the final commit's sync covers every earlier frame of the log.
                connection.execute("PRAGMA synchronous = FULL" if is_durable else "PRAGMA synchronous = NORMAL")
                connection.execute("BEGIN IMMEDIATE")
            except Exception as error:
                is_busy = storefile.is_busy(error)
                if not is_busy:
                    self._give_up(error)
                self._release()
                if not is_busy or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_BUSY_POLL_SECONDS)
            else:
                return connection

    async def _sound_connection(self) -> WritingConnection:
        """Return the connection; nothing that it finds in the store lies in memory alone because a sync failed."""
        is_doubted = self._lock.is_doubted
        if self._connection is None or is_doubted:
            self._drop_connection()
            try:
                await self._in_thread(storefile.settle, self._path, self._lock)
            except GapError:
                # What is to be done about that is something else.
                is_doubted = False
                raise
            finally:
                if is_doubted:
                    # Nobody may have waited for the sync that failed, and it is to be known.
                    self._troubles.failed(_WRITER, Trouble("a sync of the store failed", Ill.FORGETFUL))
            self._connection = self._open()
        return self._connection

    def _open(self) -> WritingConnection:
        connection = storefile.open_writer(self._path)
        connection.trail = Trail(self._audit_key)
        return connection

    async def _acquire(self, deadline: float, batch: Sequence[_Item[object]] = ()) -> None:
        """Take the lock for *batch* when it is this worker's turn."""
        lineup = self._lineup
        since = min((item.lined_up_at for item in batch), default=math.inf)
        self._lined_up_at = since if since < math.inf else time.monotonic()
        try:
            while True:
                # Again each time: somebody may have come meanwhile whose place is further in front.
                lineup.enter(self._lined_up_at)
                if lineup.may_go() and self._lock.try_acquire():
                    lineup.took()
                    return
                if asyncio.get_running_loop().time() > deadline:
                    raise storefile.LockedDeferred(
                        "server.busy", detail=f"the store was locked for {self._lock.wait_seconds} s"
                    )
                await lineup.wait(_LOCK_POLL_SECONDS)
        finally:
            lineup.leave()

    def _release(self) -> None:
        with self._lineup.giving_back():
            self._lock.release()

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _checkpoint_if_due(self, batch: Sequence[_Item[object]]) -> None:
        """Fold the log after *batch* where it is long: early where there is little to do, begun ahead where a large file comes."""
        is_folded_ahead, self._is_folded_ahead = self._is_folded_ahead, False
        most = self._checkpoint_bytes
        is_calm = len(batch) <= _FEW and not self._waiting and not self._lineup.is_awaited
        if is_calm and all(item.is_durable for item in batch):
            most //= _EARLY_PART
        now = asyncio.get_running_loop().time()
        if now < self._checkpoint_after or not storefile.is_wal_longer(self._path, most):
            return
        # Of small files alone the log fills slowly, and those who commit would wait longer for the disk than for the lock.
        is_worth = not is_folded_ahead and any(not item.is_durable for item in batch)
        is_patient = not storefile.is_wal_longer(self._path, _PATIENT_TIMES * self._checkpoint_bytes)
        if is_patient and self._fold_ahead.goes_on(is_worth=is_worth):
            return
        if not await self._checkpoint():
            self._checkpoint_after = now + _CHECKPOINT_AGAIN_SECONDS

    def _folded_ahead(self, error: BaseException | None) -> None:
        """Have what is left of the log folded, also where *error* came between: whoever meets it again tells of it."""
        if isinstance(error, Exception) and diagnose(error) is None:
            asyncio.get_running_loop().call_exception_handler({"exception": error, "message": "fold ahead"})
        self._is_folded_ahead = True
        self._wake.set()

    async def _checkpoint(self) -> bool:
        """Fold the log into the database file; False where that failed: it is tried again after a later commit."""
        try:
            await self._acquire(asyncio.get_running_loop().time() + self._lock.wait_seconds)
        except Deferred:
            return False
        except _FAILURES as error:
            self._report(error)
            return False
        try:
            return self._connection is None or await self._fold(await self._sound_connection())
        except Deferred:
            return False
        except _FAILURES as error:
            self._give_up(error)
            self._report(error)
            return False
        finally:
            self._release()

    async def _fold(self, connection: WritingConnection) -> bool:
        is_emptied = not self._lineup.was_emptied(_EMPTY_AGAIN_SECONDS)
        is_done = await self._in_thread(self._checkpoint_now, connection, "TRUNCATE" if is_emptied else "RESTART")
        if is_emptied and is_done:
            self._lineup.emptied()
        return is_done

    def _checkpoint_now(self, connection: WritingConnection, mode: str) -> bool:
        with self._lock.folding(), self._head_start.given():
            return storefile.checkpoint(connection, mode)

    def _answer_failure(self, batch: list[_Item[object]], error: Exception) -> None:
        self._report(error)
        trouble = diagnose(error)
        for item in batch:
            if not item.answer.done():
                # An exception of its own for each: what is raised twice collects the tracebacks of both.
                item.answer.set_exception(error if trouble is None else trouble.deferred)

    def _report(self, error: Exception) -> None:
        """Tell of what the store suffers from; a defect of ours is told by whoever waits for the answer."""
        trouble = diagnose(error)
        if trouble is not None:
            self._troubles.failed(_WRITER, trouble)

    def _give_up(self, error: BaseException) -> None:
        """Go on with a fresh connection after *error*; the lock is held."""
        self._drop_connection()
        if storefile.is_disk_failure(error):
            self._lock.doubt()

    def _drop_connection(self) -> None:
        """Roll back by closing: after a failed COMMIT nothing else is known to be clean.  The lock is held.

        It is never the last connection to the store, which would write the log back: a reader stays open.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _close_connection(self) -> None:
        """Fold the log into the file and close; what cannot be folded now stays in the log, where it is as safe."""
        if self._connection is None:
            return
        try:
            with self._lock.held():
                if self._lock.is_doubted:
                    storefile.settle(self._path, self._lock)
                with self._lock.folding():
                    storefile.checkpoint(self._connection, "TRUNCATE")
        except (Deferred, *_FAILURES) as error:
            if storefile.is_disk_failure(error):
                self._lock.doubt()
            self._report(error)
        self._connection.close()
        self._connection = None


def _outlast(commit: Future[None]) -> None:
    """Stand still until nothing is done by the thread that commits: lock and connection are its own until then.

    Who waited for it in a better way and could not, for want of memory, comes here.
    """
    while not commit.cancel() and not commit.done():
        time.sleep(_LOCK_POLL_SECONDS)
