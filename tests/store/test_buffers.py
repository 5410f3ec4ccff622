"""Many uploads at once in little memory: each arrives whole, nobody waits for ever, and nothing is held afterwards."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import NOW, A, B, Shop, identity, open_shop

from relay.buffers import Bounds, Buffers
from relay.config import Config
from relay.errors import Deferred, Refused
from relay.intake import Intake
from relay.journal import new_journal
from relay.manners import Manners
from relay.upload import Upload
from relay.vault import CHUNK_BYTES

PATIENCE_SECONDS = 60
TIGHT = Bounds(moving_bytes=CHUNK_BYTES, ahead_bytes=CHUNK_BYTES, resting=1)


def name(number: int) -> str:
    """Return another name for each number."""
    return f"MESSAGE_{A}_{B}_{20260731120000 + number}.txt"


async def open_upload(intake: Intake, number: int, buffers: Buffers) -> Upload:
    """Open an upload in the session of *buffers*."""
    return await intake.open(
        name(number), None, identity(A), Manners(), new_journal(), is_afresh=True, buffers=buffers
    )  # fmt: skip


def desk(shop: Shop) -> Intake:
    """Return an intake as a process has it."""
    return Intake(shop.ledger, shop.vault, Config(home=shop.path.parent), lambda: NOW)


async def received(shop: Shop) -> dict[str, bytes]:
    """Return what was accepted, by its name."""
    return {each.name: await shop.content(each.id) for each in await shop.ledger.list_transfers()}


def stored(shop: Shop) -> int:
    """Return what the office's files are counted as."""
    with closing(sqlite3.connect(shop.path)) as store:
        return int(store.execute("SELECT sum(stored_bytes) FROM payload").fetchone()[0] or 0)


pieces = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(st.integers(1, 50_000), st.sampled_from([CHUNK_BYTES, CHUNK_BYTES - 1]))),
    min_size=1,
    max_size=16,
)


@settings(max_examples=25, deadline=None)
@given(pieces=pieces, goes_back=st.integers(0, 3), fits=st.booleans())
def test_uploads_that_take_turns_arrive_byte_for_byte(
    pieces: list[tuple[int, int]], goes_back: int, *, fits: bool
) -> None:
    """With room for one open chunk, each turn puts another upload's into the store and fetches its own back."""

    async def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            shop = await open_shop(Path(folder))
            async with shop.ledger:
                intake, buffers = desk(shop), Buffers(TIGHT)
                expected: dict[int, bytearray] = {}
                uploads: dict[int, Upload] = {}
                for step, (number, length) in enumerate(pieces):
                    if number not in uploads:
                        uploads[number] = await open_upload(intake, number, buffers)
                        expected[number] = bytearray()
                    data = bytes([65 + step]) * length
                    at = max(0, len(expected[number]) - 1000 * goes_back)
                    if not (fits and uploads[number].write_now(at, data)):
                        await uploads[number].write(at, data)
                    expected[number][at : at + length] = data
                    assert uploads[number].size_bytes == len(expected[number])
                for number, upload in uploads.items():
                    if number == goes_back:
                        await upload.truncate(len(expected[number]) - 1)
                        del expected[number][-1]
                        if not expected[number]:
                            await upload.abort("empty")
                            continue
                    await upload.close()
                assert await received(shop) == {name(number): bytes(data) for number, data in expected.items() if data}
                assert stored(shop) == sum(len(data) for data in expected.values())
                assert buffers.holds_nothing

    asyncio.run(work())


async def test_nobody_waits_for_ever_where_one_byte_may_move(tmp_path: Path) -> None:
    """Two sessions with eight uploads each, all of them beyond every bound from the first chunk on."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        intake, process = desk(shop), Buffers(Bounds(moving_bytes=1, ahead_bytes=0, resting=1))
        sessions = [Buffers(Bounds(moving_bytes=1, ahead_bytes=0, resting=1), process) for _ in range(2)]
        content = b"".join(b"%08d\n" % each for each in range(90_000))

        async def send(number: int) -> None:
            upload = await open_upload(intake, number, sessions[number % 2])
            for at in range(0, len(content), 100_000):
                await upload.write(at, content[at : at + 100_000])
            await upload.close()

        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(send(number) for number in range(16)))
        assert await received(shop) == {name(number): content for number in range(16)}
        assert process.holds_nothing


async def test_a_session_that_is_alone_may_have_more_on_its_way_and_takes_nobodys_part() -> None:
    """Beyond its own part it has at most half of what may move at all, until others need that; then it waits for its own."""
    process = Buffers(Bounds(moving_bytes=8, ahead_bytes=0, resting=1))
    one, two = (Buffers(Bounds(moving_bytes=2, ahead_bytes=0, resting=1, lone_bytes=6), process) for _ in range(2))
    one.move(4)
    assert not one.is_full
    one.move(1)
    assert one.is_full
    assert not two.is_full
    two.move(1)
    waiting = asyncio.create_task(one.room())
    for change in (-1, 1, -1):
        one.move(change)
        await asyncio.sleep(0)
        assert not waiting.done()
    two.move(-1)
    one.move(-1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await waiting
    assert not one.is_full


async def test_a_store_that_fails_lets_everybody_go(tmp_path: Path) -> None:
    """Who waits for room is told to try again, and nothing stays counted."""
    shop = await open_shop(tmp_path, lock_wait_seconds=0.2)
    async with shop.ledger:
        intake, buffers = desk(shop), Buffers(TIGHT)
        uploads = [await open_upload(intake, number, buffers) for number in range(4)]

        async def send(upload: Upload) -> None:
            for at in range(0, 20 * CHUNK_BYTES, CHUNK_BYTES):
                await upload.write(at, bytes([65]) * CHUNK_BYTES)

        with shop.path.with_name(f"{shop.path.name}.lock").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            async with asyncio.timeout(PATIENCE_SECONDS):
                ended = await asyncio.gather(*(send(upload) for upload in uploads), return_exceptions=True)
        assert all(isinstance(each, Deferred) for each in ended), ended
        for upload in uploads:
            await upload.leave("gone")
        assert buffers.holds_nothing


async def test_what_is_ahead_is_bounded_for_all_uploads_of_a_session(tmp_path: Path) -> None:
    """The one that is too much is refused, the others go on; what is given back can be used again."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        intake, buffers = desk(shop), Buffers(TIGHT)
        one, two, three = [await open_upload(intake, number, buffers) for number in range(3)]
        await one.write(10, bytes(200_000))
        with pytest.raises(Refused, match=r"upload\.hole"):
            await two.write(10, bytes(100_000))
        await one.write(0, bytes(10))
        await three.write(10, bytes(200_000))
        await three.write(0, b"0123456789")
        await asyncio.gather(one.close(), three.close())
        await two.abort("refused")
        assert (await received(shop))[name(2)] == b"0123456789" + bytes(200_000)
        assert buffers.holds_nothing
