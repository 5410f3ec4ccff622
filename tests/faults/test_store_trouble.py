"""A store in trouble: full, locked, broken for a moment. The client reads "try again", nothing is promised, it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
import raw_sftp as sftp
from faultshim import Ending, MakeHouse, Shim
from house import HOME_HELP, House, general_name, pdf
from raw_sftp import RawSftp, open_raw

from relay.vault import CHUNK_BYTES

SMALL, LARGE = pdf(10_000), pdf(4 * CHUNK_BYTES + 1_000)
FULL = ("server.storage_full", "保存場所がいっぱい", "nothing was accepted")
BUSY = ("server.busy", "混み合って", "nothing was accepted")


@asynccontextmanager
async def sender(house: House) -> AsyncIterator[RawSftp]:
    """Log in and open SFTP."""
    async with house.dial() as connection, open_raw(connection) as raw:
        yield raw


async def put(raw: RawSftp, number: int, content: bytes = SMALL) -> sftp.Reply:
    """Upload *content* under the name of *number* and return the last reply."""
    return await raw.put(f"/send/{general_name(number=number)}", content)


async def check_delivered(house: House, expected: dict[int, bytes]) -> None:
    """AssertionError unless the recipient finds exactly these, whole."""
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        names = {name for name in await raw.list("/new") if name not in (".", "..")}
        assert names == {general_name(number=number) for number in expected}
        for number, content in expected.items():
            assert await raw.get(f"/receive/{general_name(number=number)}") == content


def check_words(reply: sftp.Reply, words: tuple[str, ...]) -> None:
    """AssertionError unless *reply* is a failure with the sentence."""
    assert reply.code == sftp.FAILURE
    for word in words:
        assert word in reply.text, reply.text


# --- full --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(make_house: MakeHouse) -> Iterator[House]:
    """Return a house whose store lies on a disk of 24 MB of its own, not started."""
    house = make_house()
    data = house.config.store.path.parent
    store = house.config.store.path.read_bytes()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        house.config.store.path.write_bytes(store)
        yield house
        house.close()
        house.process = None
    finally:
        subprocess.run(["umount", "--lazy", str(data)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk up to *leave* bytes; return the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        # The relay writes as well: between a look at the disk and its filling there may be less of it.
        for _ in range(100):
            with contextlib.suppress(OSError):
                file.write(bytes(max(0, _room(folder) - leave)))
    return filler


def _room(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("leave", [0, 100_000, 500_000])
async def test_a_full_disk_promises_nothing_and_recovers(small_disk: House, content: bytes, leave: int) -> None:
    """Until space is back each upload that does not fit is told so, on the same session; then it goes through."""
    house = small_disk
    house.start()
    delivered: dict[int, bytes] = {}
    async with sender(house) as raw:
        assert (await put(raw, 0, content)).code == sftp.OK
        delivered[0] = content
        filler = fill(house.config.store.path.parent, leave)
        refused = []
        for number in range(1, 60):
            reply = await put(raw, number, content)
            if reply.code == sftp.OK:
                delivered[number] = content
            else:
                check_words(reply, FULL)
                refused.append(number)
            if len(refused) == 3:
                break
        assert len(refused) == 3, "the disk was never full"
        assert "send" in await raw.list("/")
        filler.unlink()
        for number in refused:
            assert (await put(raw, number, content)).code == sftp.OK
            delivered[number] = content
    await check_delivered(house, delivered)
    assert house.journal_lines("store.failed")
    house.wait_for_event("store.recovered")


async def test_a_limit_on_the_size_of_files_is_told_and_survived(make_house: MakeHouse) -> None:
    """RLIMIT_FSIZE, as systemd sets it: the log cannot grow any more; the client is told, and later it can."""
    house = make_house()
    house.start()
    async with sender(house) as raw:
        assert (await put(raw, 0)).code == sftp.OK
        wal = house.config.store.path.with_name("relay.db-wal").stat().st_size
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        for worker in house.workers():
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (wal + 4096, before[1]))
        check_words(await put(raw, 1), ("server.", "nothing was accepted"))
        for worker in house.workers():
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, before)
        assert (await put(raw, 1)).code == sftp.OK
    await check_delivered(house, {0: SMALL, 1: SMALL})


# --- locked ------------------------------------------------------------------------------------------------------


@contextmanager
def our_lock(store: Path) -> Iterator[None]:
    """Hold the lock of the relay's own processes, as a long import does."""
    with store.with_name("relay.db.lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def foreign_lock(store: Path) -> Iterator[None]:
    """Hold SQLite's lock in a program that knows nothing of ours."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


Lock = Callable[[Path], AbstractContextManager[None]]


@pytest.mark.parametrize("lock", [our_lock, foreign_lock], ids=["ours", "foreign"])
async def test_a_locked_store_is_waited_for_and_then_told(make_house: MakeHouse, lock: Lock) -> None:
    """CLOSE waits as long as it was set to, is then told in words, and goes through once the lock is gone."""
    house = make_house(store={"lock_wait_seconds": 0.5})
    house.start()
    store = house.config.store.path
    async with sender(house) as raw:
        with lock(store):
            began = asyncio.get_running_loop().time()
            check_words(await put(raw, 0), BUSY)
            assert asyncio.get_running_loop().time() - began >= 0.5
            # Who only looks waits for nobody.
            assert "send" in await raw.list("/")
        assert (await put(raw, 0)).code == sftp.OK
    await check_delivered(house, {0: SMALL})
    house.wait_for_event("store.recovered")


@pytest.mark.long
@pytest.mark.parametrize("lock", [our_lock, foreign_lock], ids=["ours", "foreign"])
async def test_a_store_that_is_locked_for_a_minute_is_told_once_and_goes_on(make_house: MakeHouse, lock: Lock) -> None:
    """With the settings as they come: each upload is told after ten seconds, on a session that lives, until it is over."""
    house = make_house()
    house.start()
    loop = asyncio.get_running_loop()
    async with sender(house) as raw:
        with lock(house.config.store.path):
            ends = loop.time() + 60
            while loop.time() < ends:
                check_words(await put(raw, 0), BUSY)
        assert (await put(raw, 0)).code == sftp.OK
    await check_delivered(house, {0: SMALL})
    house.wait_for_event("store.recovered")
    (told,) = house.journal_lines("store.failed")
    assert "`fuser -v" in told["cause"]


@pytest.mark.parametrize("lock", [our_lock, foreign_lock], ids=["ours", "foreign"])
async def test_a_lock_that_goes_in_time_is_not_noticed(make_house: MakeHouse, lock: Lock) -> None:
    """An upload that was closed while the store was locked is answered OK after the lock is gone."""
    house = make_house(store={"lock_wait_seconds": 30.0})
    house.start()
    async with sender(house) as raw:
        handle = await raw.open(f"/send/{general_name(number=0)}")
        assert (await raw.call(sftp.WRITE, handle, sftp.Long(0), SMALL)).code == sftp.OK
        with lock(house.config.store.path):
            closing_ = raw.ask(sftp.CLOSE, handle)
            await raw.list("/receive")
            assert not [reply for reply in raw.replies if reply.id == closing_]
        assert (await raw.reply_to(closing_)).code == sftp.OK
    await check_delivered(house, {0: SMALL})
    assert not house.journal_lines("store.failed")


# --- the Nth call fails ------------------------------------------------------------------------------------------


async def _fail_each(house: House, shim: Shim, content: bytes, steps: Awaitable[list[int]], code: int) -> None:
    """Let each of *steps* fail once, and see that the upload is told or got through, and the next one works."""
    delivered: dict[int, bytes] = {0: content}
    async with sender(house) as raw:
        told: list[str] = []
        for step in await steps:
            shim.arm(step, Ending.FAIL_ONCE, code)
            reply = await put(raw, step, content)
            shim.disarm()
            if reply.code != sftp.OK:
                check_words(reply, ("server.", "nothing was accepted"))
                told.append(reply.text)
                assert (await put(raw, step, content)).code == sftp.OK, f"after step {step}"
            delivered[step] = content
        assert len(told) > 3
        # A sync that fails does not tell SQLite why.
        assert any(FULL[0] in text for text in told) == (code == errno.ENOSPC)
    await check_delivered(house, delivered)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_any_failing_call_is_told_and_survived(
    make_house: MakeHouse, tmp_path: Path, content: bytes, code: int
) -> None:
    """Each write and sync of a commit fails once: no OK without the file, no file by half, and the next try gets through."""
    house, shim = make_house(), Shim(tmp_path)
    shim.serve(house)

    async def steps() -> list[int]:
        async with sender(house) as raw:
            with shim.counting() as counted:
                assert (await put(raw, 0, content)).code == sftp.OK
        total = counted[0]
        return (
            list(range(1, total + 1)) if total < 80 else [*range(1, total - 20, total // 20), *range(total - 20, total)]
        )

    await _fail_each(house, shim, content, steps(), code)
    with closing(sqlite3.connect(house.config.store.path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_disk_that_stays_broken_is_told_each_time(make_house: MakeHouse, tmp_path: Path) -> None:
    """While every write fails each upload is told so on sessions that live; afterwards all is well without a restart."""
    house, shim = make_house(), Shim(tmp_path)
    shim.serve(house)
    async with sender(house) as raw:
        shim.arm(1, Ending.FAIL_FROM_THERE, errno.EIO)
        for _ in range(5):
            check_words(await put(raw, 1), BUSY)
        shim.disarm()
        assert (await put(raw, 1)).code == sftp.OK
    await check_delivered(house, {1: SMALL})
    assert len(house.journal_lines("store.failed")) == len(house.journal_lines("store.recovered")) == 1
