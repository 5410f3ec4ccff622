"""A disk that fails one sync and then goes on: what it should have kept lies in memory alone, and nobody is told again.

So Linux does.  The offices are told to try again; what they are answered OK from then on must not stand on what the disk
has forgotten.  Everything that the relay writes is recorded (`recorder`), the sync that fails loses what it should have kept,
the power goes after each OK, and the relay's own code opens what is left.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest
import raw_sftp as sftp
from abort_judge import Act, Deed
from aftermath import examine
from busy_offices import Notebook, content_of
from disk import Disk, Loss, lend_folder, play
from house import HOME_HELP, House, MakeHouse, general_name, pdf, wait_for
from raw_sftp import RawSftp, open_raw
from recorder import Part, Recorder

from relay.ledger.logsync import _AHEAD_BYTES
from relay.ledger.storefile import StoreLock
from relay.vault import CHUNK_BYTES

# Some forty files; a quarter where little is done.
_FOLDED_BYTES = 4_000_000
_LARGE = pdf(3 * _AHEAD_BYTES)


@dataclass
class Desk:
    """A house whose files are recorded, and what its offices were told."""

    house: House
    recorder: Recorder
    notebook: Notebook = field(init=False)
    before: Disk = field(init=False)
    # Since when a sync was to fail.
    failing: int = 0

    def __post_init__(self) -> None:
        """Start it."""
        self.before, self.notebook = Disk(self.house.path), Notebook(lambda: self.recorder.position)
        self.recorder.serve(self.house)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[RawSftp]:
        """Log in."""
        async with self.house.dial() as connection, open_raw(connection) as raw:
            yield raw

    async def send(self, raw: RawSftp, number: int) -> sftp.Reply:
        """Send the small file of that number; what is not answered OK may be there or not."""
        name = general_name(number=number)
        content = self.notebook.contents[name] = content_of(number, 10_000)
        began, deeds = self.recorder.position, self.notebook.deeds.setdefault(name, [])
        deeds.append(Deed(Act.SEND, began))
        reply = await raw.put(f"/send/{name}", content)
        if reply.code == sftp.OK:
            deeds[-1] = Deed(Act.SEND, began, self.recorder.position, is_ok=True)
        else:
            assert reply.text.startswith("server.busy: "), reply.text
        return reply

    async def send_until_kept(self, raw: RawSftp, number: int) -> None:
        """Send it until it is answered OK, and then one more."""
        async with asyncio.timeout(60):
            while (await self.send(raw, number)).code != sftp.OK:
                pass
        assert (await self.send(raw, number + 1)).code == sftp.OK

    async def stage(self, raw: RawSftp, number: int, chunks: int = 6) -> bytes:
        """Begin a large file, of which the store then has chunks and has promised nothing; return its handle."""
        handle, before = await raw.open(f"/send/{general_name(number=number)}"), self.log()
        await self.write(raw, handle, 0, chunks * CHUNK_BYTES)
        wait_for(lambda: self.log() != before, "chunks of it in the log")
        return handle

    @staticmethod
    async def write(raw: RawSftp, handle: bytes, start: int, end: int) -> None:
        """Write so much of the large file."""
        for at in range(start, end, 32_000):
            data = _LARGE[at : min(at + 32_000, end)]
            assert (await raw.call(sftp.WRITE, handle, sftp.Long(at), data)).code == sftp.OK

    def log(self) -> tuple[int, bytes]:
        """Return how long the store's log is, and the salts, which are others whenever it is begun anew."""
        log = self.house.config.store.path.with_name("relay.db-wal")
        return (log.stat().st_size, log.read_bytes()[16:24]) if log.exists() else (0, b"")

    def fail_next_sync(self, part: Part, *, is_last: bool = False) -> None:
        """Let the next sync of that file fail."""
        self.failing = self.recorder.position
        self.recorder.fail_next_sync(part, is_last=is_last)

    @contextmanager
    def somebody_reading(self) -> Iterator[None]:
        """Let a program read the store as it is now, for so long."""
        with closing(sqlite3.connect(self.house.config.store.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM transfer").fetchall()
            yield
            reader.execute("ROLLBACK")

    def check_told(self) -> None:
        """AssertionError unless the operator was told once what his disk does, and that the relay has gone on."""
        self.house.wait_for_event("store.recovered")
        (told,) = self.house.journal_lines("store.failed")
        assert "could not keep what was written to it" in told["cause"]
        assert "`relay backup FILE`" in told["cause"]

    async def faults(self) -> list[str]:
        """End the server, and return what is wrong where the power goes after the first OKs since the failure, and the last."""
        if self.house.process is not None:
            assert self.house.stop() == 0
        answered = sorted(deed.answered for deeds in self.notebook.deeds.values() for deed in deeds if deed.answered)
        since = [each for each in answered if each > self.failing]
        disk, cuts = self.before.copy(), sorted({*since[:4], *since[-3:], self.recorder.position + 1})
        faults: list[str] = []
        with lend_folder() as folder:
            for cut in play(disk, self.recorder.changes(), cuts):
                home = folder / "home"
                disk.leave(home, Loss.ALL, random.Random(0), are_ordered=True)
                faults += [f"{cut}: {fault}" for fault in await examine(home, self.notebook, cut, [])]
                shutil.rmtree(home)
        return faults


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """Return the means to record what a house does to its files."""
    return Recorder(tmp_path)


async def test_a_commit_whose_sync_fails_takes_nothing_of_the_next_ones_along(
    make_house: MakeHouse, recorder: Recorder
) -> None:
    """Chunks of a large file lay in the log unsynced: what is committed behind them is kept all the same."""
    desk = Desk(make_house(), recorder)
    async with desk.session() as raw, desk.session() as other:
        await desk.stage(other, 90)
        desk.fail_next_sync(Part.LOG)
        assert (await desk.send(raw, 1)).code == sftp.FAILURE
        assert recorder.has_failed
        await desk.send_until_kept(raw, 1)
    desk.check_told()
    assert await desk.faults() == []


async def test_a_log_synced_ahead_that_fails_takes_nothing_along(make_house: MakeHouse, recorder: Recorder) -> None:
    """What fails while a large file comes, where nobody waits for it, is known to those who commit after it."""
    desk = Desk(make_house(store={"checkpoint_bytes": 1 << 30}), recorder)
    async with desk.session() as raw, desk.session() as other:
        handle = await desk.stage(other, 90)
        desk.fail_next_sync(Part.LOG)
        await desk.write(other, handle, 6 * CHUNK_BYTES, len(_LARGE))
        wait_for(lambda: recorder.has_failed, "a sync that fails")
        await desk.send_until_kept(raw, 1)
    desk.check_told()
    assert await desk.faults() == []


async def test_a_server_started_after_a_sync_that_failed_keeps_what_it_answers(
    make_house: MakeHouse, recorder: Recorder
) -> None:
    """Killed where it failed, it finds in memory what the disk does not have; what it adds to that is kept."""
    desk = Desk(make_house(), recorder)
    async with desk.session() as raw:
        await desk.send_until_kept(raw, 1)
        desk.fail_next_sync(Part.LOG, is_last=True)
        with pytest.raises((EOFError, asyncssh.Error)):
            await desk.send(raw, 3)
    desk.house.kill()
    recorder.serve(desk.house)
    async with desk.session() as raw:
        await desk.send_until_kept(raw, 4)
    assert await desk.faults() == []


async def test_a_checkpoint_that_could_not_sync_the_log_loses_nothing(
    make_house: MakeHouse, recorder: Recorder
) -> None:
    """Nobody was waiting for what it should have kept; what is committed behind that is kept all the same."""
    desk = Desk(make_house(store={"checkpoint_bytes": _FOLDED_BYTES // 2}), recorder)
    async with desk.session() as raw, desk.session() as other:
        assert (await desk.send(raw, 1)).code == sftp.OK
        desk.fail_next_sync(Part.LOG)
        await desk.stage(other, 90, 12)
        wait_for(lambda: recorder.has_failed, "a checkpoint that fails")
        await desk.send_until_kept(raw, 2)
    desk.check_told()
    assert await desk.faults() == []


async def test_a_checkpoint_that_could_not_sync_the_store_loses_nothing(
    make_house: MakeHouse, recorder: Recorder
) -> None:
    """It is done again; and so is what an earlier one had copied without a sync, because a reader kept it from its end."""
    desk = Desk(make_house(store={"checkpoint_bytes": _FOLDED_BYTES}), recorder)
    async with desk.session() as raw:
        for number in range(3):
            assert (await desk.send(raw, number)).code == sftp.OK
        begun, salts = desk.log()
        assert begun < _FOLDED_BYTES // 4
        with desk.somebody_reading():
            # What lies in the log by now is brought into the store, without a sync as there is more to come.
            for number in range(10, 25):
                assert (await desk.send(raw, number)).code == sftp.OK
            assert desk.log()[0] > _FOLDED_BYTES // 4
        desk.fail_next_sync(Part.STORE)
        number = 30
        async with asyncio.timeout(60):
            while desk.log()[1] == salts or not recorder.has_failed:
                # Nobody knows which of them a checkpoint fails behind.
                await desk.send(raw, number)
                number += 1
        # From here on the log that had all of it is gone for certain.
        await desk.send_until_kept(raw, number)
    desk.check_told()
    assert await desk.faults() == []


async def test_what_memory_has_not_kept_either_is_left_behind_by_a_start(make_house: MakeHouse) -> None:
    """Until then nothing is accepted on top of the gap, and the operator reads what to do; nothing that was answered OK is lost."""
    house = make_house()
    house.start()
    kept, lost = general_name(number=1), general_name(number=2)
    async with house.dial() as connection, open_raw(connection) as raw, open_raw(connection) as other:
        assert (await raw.put(f"/send/{kept}", content_of(1, 10_000))).code == sftp.OK
        log = house.config.store.path.with_name("relay.db-wal")
        before = log.stat().st_size
        handle = await other.open(f"/send/{general_name(number=90)}")
        await Desk.write(other, handle, 0, 6 * CHUNK_BYTES)
        wait_for(lambda: log.stat().st_size > before + 2 * CHUNK_BYTES, "chunks of it in the log")
        lock = StoreLock(house.config.store.path, 10.0)
        with lock.held(), log.open("r+b", buffering=0) as file:
            file.seek(before + CHUNK_BYTES)
            file.write(bytes(4_096))
            lock.doubt()
        assert (await raw.put(f"/send/{lost}", content_of(2, 10_000))).text.startswith("server.busy: ")
    lock.close()
    assert "Stop the relay and start it again" in house.wait_for_event("store.failed")["cause"]
    house.restart()
    async with house.dial() as connection, open_raw(connection) as raw:
        assert (await raw.put(f"/send/{lost}", content_of(2, 10_000))).code == sftp.OK
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        assert set(await raw.list("/new")) - {".", ".."} == {kept, lost}
        assert await raw.get(f"/receive/{kept}") == content_of(1, 10_000)
    with closing(sqlite3.connect(house.config.store.path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
