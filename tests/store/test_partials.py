"""Unfinished uploads: who may go on, with which bytes, until when, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ledgers import NOW, SECOND, A, B, C, Shop, identity, open_shop

from relay.common import Common
from relay.config import Config, LimitSettings
from relay.errors import Deferred, Refused
from relay.intake import Intake
from relay.journal import new_journal
from relay.ledger import Accepted, Partial, Prospect
from relay.manners import Manners
from relay.model import OfficeNumber, OfficeStatus
from relay.upload import Upload
from relay.vault import CHUNK_BYTES

DAY = timedelta(days=1)
NAME = f"MESSAGE_{A}_{B}_20260731120000.txt"
OTHER = f"MESSAGE_{A}_{B}_20260731120001.txt"
PART = f"{NAME}.filepart"
OPENSSH, LFTP, WINSCP = Manners(ends_short=True), Manners(sets_size=True), Manners()
# Where uploads go wrong: at the seams of chunks.
BORDERS = [1, 4096, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES - 1, 2 * CHUNK_BYTES]

T = TypeVar("T")


def text(size: int, seed: int = 0) -> bytes:
    """Return so many bytes in which no part resembles another."""
    whole = b"".join(b"%08d\n" % number for number in range(seed, seed + size // 9 + 1))
    return whole[:size]


@dataclass
class Desk:
    """An intake as one process has it, with a clock that the test turns; another one on the same shop is a restart."""

    shop: Shop
    limits: LimitSettings = field(default_factory=LimitSettings)
    now: datetime = NOW
    common: Common | None = None

    def __post_init__(self) -> None:
        """Open it."""
        config = Config(home=self.shop.path.parent, limits=self.limits)
        self.intake = Intake(self.shop.ledger, self.shop.vault, config, lambda: self.now, common=self.common)
        self.journal = new_journal()

    async def open(
        self, path: str = NAME, *, afresh: bool = False, office: OfficeNumber = A, manners: Manners = WINSCP
    ) -> Upload:
        """Open an upload as *office*."""
        folder = OfficeNumber(path.partition("/")[0]) if "/" in path else None
        return await self.intake.open(path, folder, identity(office), manners, self.journal, is_afresh=afresh)

    async def put(self, content: bytes, path: str = PART, **how: object) -> Accepted | None:
        """Upload all of *content* and close it."""
        upload = await self.open(path, afresh=True, **how)  # type: ignore[arg-type]
        await write(upload, content)
        return await self.close(upload)

    async def close(self, upload: Upload) -> Accepted | None:
        """Close as the protocol floor does."""
        self.intake.forget(upload, identity(A))
        return await upload.close()

    async def leave(self, content: bytes, path: str = NAME, **how: object) -> Upload:
        """Upload *content* and lose the connection."""
        upload = await self.open(path, **how)  # type: ignore[arg-type]
        await write(upload, content)
        await upload.leave("lost")
        return upload

    async def rename(self, path: str = PART, target: str = NAME, office: OfficeNumber = A) -> Accepted:
        """Give what waits at *path* its final name."""
        return await self.intake.rename(path, target, None, identity(office), self.journal)

    async def partial(self, path: str = NAME, office: OfficeNumber = A) -> Partial | None:
        """Return what *office* finds unfinished at *path*."""
        return await self.intake.find_partial(path, identity(office))

    async def refused(self) -> list[tuple[str, str]]:
        """Return the refusals of A as name and code, the newest first."""
        rows = await self.shop.ledger.list_refusals(A, since=NOW - DAY)
        return [(row.name, row.finding.code) for row in rows]

    async def received(self) -> list[bytes]:
        """Return the bytes of everything that was accepted."""
        return [await self.shop.content(each.id) for each in await self.shop.ledger.list_transfers()]

    def chunks(self) -> int:
        """Return how many chunks lie in the store, of whatever upload or transfer."""
        with closing(sqlite3.connect(self.shop.path)) as store:
            return int(store.execute("SELECT count(*) FROM chunk").fetchone()[0])


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Return a desk on an open embedded ledger that waits a fifth of a second for a lock."""
    shop = await open_shop(tmp_path, lock_wait_seconds=0.2)
    async with shop.ledger:
        yield Desk(shop)


async def write(upload: Upload, content: bytes, at: int = 0, piece: int = 32_000) -> None:
    """Write *content* from *at* on, in pieces."""
    for start in range(0, len(content), piece):
        await upload.write(at + start, content[start : start + piece])


async def refusal(work: Awaitable[object]) -> str:
    """Return the code with which *work* is refused."""
    with pytest.raises(Refused) as caught:
        await work
    return caught.value.code


# --- going on ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Where an upload is cut off, and how its client comes back."""

    at: int
    overlap: int
    is_still_open: bool
    has_restarted: bool


cuts = st.builds(
    Cut,
    at=st.one_of(st.sampled_from(BORDERS), st.integers(1, 3 * CHUNK_BYTES)),
    overlap=st.one_of(st.just(0), st.integers(0, CHUNK_BYTES + 5)),
    is_still_open=st.booleans(),
    has_restarted=st.booleans(),
)


@settings(max_examples=30, deadline=None)
@given(
    size=st.one_of(st.sampled_from(BORDERS), st.integers(1, 3 * CHUNK_BYTES + 7)),
    cuts=st.lists(cuts, max_size=4),
    piece=st.sampled_from([4096, 30_000, 32_768, CHUNK_BYTES]),
    is_temporary=st.booleans(),
)
@example(size=2 * CHUNK_BYTES, cuts=[Cut(CHUNK_BYTES, 0, False, False)], piece=CHUNK_BYTES, is_temporary=False)
@example(size=3 * CHUNK_BYTES, cuts=[Cut(2 * CHUNK_BYTES, CHUNK_BYTES, True, True)], piece=4096, is_temporary=True)
def test_file_that_is_cut_off_anywhere_any_number_of_times_arrives_byte_for_byte(
    size: int, cuts: list[Cut], piece: int, *, is_temporary: bool
) -> None:
    """Whoever goes on where STAT says, or a little before, sends the file that he would have sent at once."""
    content, path = text(size), PART if is_temporary else NAME

    async def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            shop = await open_shop(Path(folder))
            async with shop.ledger:
                desk = Desk(shop)
                upload = await desk.open(path)
                for cut in sorted(cuts, key=lambda each: each.at):
                    await write(upload, content[upload.size_bytes : cut.at], upload.size_bytes, piece)
                    there = upload.size_bytes
                    if not cut.is_still_open:
                        await upload.leave("lost")
                    if cut.has_restarted and not cut.is_still_open:
                        desk = Desk(shop)
                    upload = await desk.open(path)
                    assert upload.size_bytes == there == min(max(cut.at, there), size)
                    again = max(0, there - cut.overlap)
                    await write(upload, content[again:there], again, piece)
                await write(upload, content[upload.size_bytes :], upload.size_bytes, piece)
                await desk.close(upload)
                if is_temporary:
                    assert await desk.received() == []
                    await desk.rename()
                assert await desk.received() == [content]
                assert desk.chunks() == -(-size // CHUNK_BYTES)

    asyncio.run(work())


async def test_opening_with_truncation_starts_afresh(desk: Desk) -> None:
    """Nothing of what was kept comes back, neither in the bytes nor in the store."""
    await desk.leave(text(3 * CHUNK_BYTES))
    upload = await desk.open(afresh=True)
    assert (upload.size_bytes, desk.chunks()) == (0, 0)
    await write(upload, b"short")
    await desk.close(upload)
    assert await desk.received() == [b"short"]


async def test_handle_that_was_overtaken_gets_errors_and_harms_nothing(desk: Desk) -> None:
    """Whatever the dead connection's handle still does after a resume, the resumed file arrives whole."""
    content = text(3 * CHUNK_BYTES + 10)
    old = await desk.open()
    await write(old, content[: CHUNK_BYTES + 9])
    new = await desk.open()
    assert new.size_bytes == CHUNK_BYTES + 9
    assert await refusal(old.write(0, b"wrong")) == "upload.unfinished"
    assert await refusal(old.write(CHUNK_BYTES + 9, b"wrong")) == "upload.unfinished"
    assert await refusal(old.truncate(5)) == "upload.unfinished"
    assert await refusal(old.close()) == "upload.unfinished"
    await old.abort("the connection died at last")
    await old.leave("the connection died at last")
    await write(new, content[new.size_bytes :], new.size_bytes)
    await desk.close(new)
    assert await desk.received() == [content]


@pytest.mark.parametrize("how", ["close", "abort", "leave"])
@pytest.mark.parametrize("path", [NAME, PART])
async def test_handle_that_was_overtaken_by_another_process_harms_nothing(desk: Desk, path: str, how: str) -> None:
    """The store alone decides who holds a partial: it takes nothing from the other one, and drops nothing of it."""
    content = text(4 * CHUNK_BYTES)
    await desk.leave(content[: 2 * CHUNK_BYTES], path)
    old = await desk.open(path)
    elsewhere = Desk(desk.shop)
    new = await elsewhere.open(path)
    await new.write(new.size_bytes, content[new.size_bytes : 3 * CHUNK_BYTES])
    await new.sync()
    await old.write(2 * CHUNK_BYTES, bytes(CHUNK_BYTES + 1))
    if how == "close":
        assert await refusal(old.close()) == "upload.unfinished"
    elif how == "abort":
        await old.abort("gone")
    else:
        await old.leave("gone")
    await new.write(3 * CHUNK_BYTES, content[3 * CHUNK_BYTES :])
    await elsewhere.close(new)
    if path == PART:
        await elsewhere.rename()
    assert await desk.received() == [content]


async def test_what_is_kept_by_another_worker_at_that_moment_is_gone_on_with(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection ends there between this one's look into the store and its look at what is open: nothing of it is lost."""
    supervisor, content = Common.create(2), text(3 * CHUNK_BYTES)
    here, there = (Desk(desk.shop, common=Common.attach(supervisor.fileno(), index)) for index in range(2))
    with there.intake.reachable(), here.intake.reachable():
        dying, survey = await there.open(), desk.shop.ledger.survey_upload
        await write(dying, content[: 2 * CHUNK_BYTES])

        async def survey_and_lose(*question: Any) -> Prospect:
            prospect = await survey(*question)
            await dying.leave("lost")
            there.intake.forget(dying, identity(A))
            return prospect

        with monkeypatch.context() as patch:
            patch.setattr(desk.shop.ledger, "survey_upload", survey_and_lose)
            upload = await here.open()
        assert upload.size_bytes == 2 * CHUNK_BYTES
        await write(upload, content[upload.size_bytes :], upload.size_bytes)
        await here.close(upload)
    supervisor.close()
    assert await desk.received() == [content]


async def test_partial_is_its_owners_alone(desk: Desk) -> None:
    """Another office finds, lists, takes over, renames and drops nothing of it, under whatever spelling."""
    await desk.leave(text(5_000))
    ledger = desk.shop.ledger
    for office in (B, C):
        assert await desk.partial(office=office) is None
        assert await ledger.list_partials(office, None) == []
        assert await ledger.take_over(office, NAME, bytes(16), now=NOW) is None
        assert not await desk.intake.drop(NAME, identity(office))
        assert await refusal(desk.rename(NAME, OTHER, office)) in ("tree.not_found", "name.sender_mismatch")
    mine = await desk.partial(NAME.lower())
    assert mine is not None
    assert mine.size_bytes == 5_000


async def test_hole_is_refused_at_the_close_of_a_temporary_name_too(desk: Desk) -> None:
    """A client that goes on behind what is there, because the beginning has expired, is told so before its RENAME."""
    upload = await desk.open(PART)
    await upload.write(5_000, b"end of a file")
    assert await refusal(desk.close(upload)) == "upload.hole"
    assert await refusal(desk.rename()) == "tree.not_found"
    assert await desk.received() == []


async def test_size_limit_counts_what_was_there_before(desk: Desk) -> None:
    """A resume does not get around the largest size of a file, and what it was refused for is not kept."""
    small = Desk(desk.shop, LimitSettings(upload_bytes=2 * CHUNK_BYTES))
    await small.leave(text(CHUNK_BYTES + 5))
    upload = await small.open()
    assert await refusal(write(upload, text(CHUNK_BYTES), CHUNK_BYTES + 5)) == "limit.size"
    assert await refusal(small.close(upload)) == "limit.size"
    assert (await desk.partial(), desk.chunks(), await desk.received()) == (None, 0, [])


# --- what looks cut ----------------------------------------------------------------------------------------------


async def test_what_looks_cut_is_kept_and_can_be_completed(desk: Desk) -> None:
    """A CLOSE behind full WRITEs alone is refused; going on from there makes a whole file of it."""
    content = text(2 * CHUNK_BYTES + 77)
    upload = await desk.open(afresh=True, manners=OPENSSH)
    await write(upload, content[: 2 * CHUNK_BYTES], piece=CHUNK_BYTES)
    assert await refusal(desk.close(upload)) == "upload.looks_cut"
    again = await desk.open(manners=OPENSSH)
    assert again.size_bytes == 2 * CHUNK_BYTES
    await write(again, content[2 * CHUNK_BYTES :], 2 * CHUNK_BYTES)
    await desk.close(again)
    assert await desk.received() == [content]


@pytest.mark.parametrize("manners", [OPENSSH, LFTP])
async def test_partial_that_is_closed_untouched_is_no_whole_file(desk: Desk, manners: Manners) -> None:
    """A resume that is interrupted before its first WRITE ends as cut off as it began."""
    await desk.leave(text(5_000))
    upload = await desk.open(manners=manners)
    assert await refusal(desk.close(upload)) == "upload.looks_cut"
    kept = await desk.partial()
    assert kept is not None
    assert kept.size_bytes == 5_000
    assert await desk.received() == []


async def test_cut_file_is_not_delivered_by_renaming_it_twice(desk: Desk) -> None:
    """A RENAME that is tried again reads the same sentence; only the same bytes, sent once more, are believed."""
    content = text(2 * CHUNK_BYTES)
    for _ in range(2):
        assert await desk.put(content, manners=LFTP) is None
        desk.now += SECOND
        if await desk.refused():
            break
        for _ in range(3):
            assert await refusal(desk.rename()) == "upload.looks_cut"
            desk.now += SECOND
        assert await desk.received() == []
    await desk.rename()
    assert await desk.received() == [content]


async def test_whole_file_that_is_added_to_and_cut_is_not_whole_any_more(desk: Desk) -> None:
    """What the first CLOSE said of a temporary file is no longer true once it is written to again."""
    await desk.put(text(5_000), manners=OPENSSH)
    upload = await desk.open(PART, manners=OPENSSH)
    await upload.write(5_000, text(32_768))
    await desk.close(upload)
    assert await refusal(desk.rename()) == "upload.looks_cut"


# --- renaming ----------------------------------------------------------------------------------------------------


async def test_repeated_rename_succeeds_only_if_it_is_that_rename(desk: Desk) -> None:
    """Same temporary name, same target: the first answer again.  Anything else was never renamed."""
    await desk.put(b"content")
    first = await desk.rename()
    again = await desk.rename()
    assert (first.is_repeat, again.is_repeat) == (False, True)
    assert again.transfer == first.transfer
    assert (await desk.rename(PART.upper().replace(".TXT.", ".txt."))).transfer == first.transfer
    assert await refusal(desk.rename(f"{NAME}.0a1b2c3d.partial")) == "tree.not_found"
    assert await refusal(desk.rename(PART, OTHER)) == "tree.not_found"
    assert await desk.received() == [b"content"]


async def test_rename_of_bytes_that_were_accepted_already_can_be_repeated_too(desk: Desk) -> None:
    """A client that sends all of it again under another temporary name and loses that reply as well is told OK."""
    await desk.put(b"content")
    await desk.rename()
    later = f"{NAME}.0a1b2c3d.partial"
    await desk.put(b"content", later)
    assert (await desk.rename(later)).is_repeat
    assert (await desk.rename(later)).is_repeat
    assert await desk.received() == [b"content"]


async def test_refused_rename_leaves_what_it_was_about(desk: Desk) -> None:
    """Under a conflict the staged file stays, reads the same sentence again, and can take another name."""
    await desk.put(b"first", NAME)
    await desk.put(b"second")
    assert await refusal(desk.rename()) == "transfer.conflict"
    assert await refusal(desk.rename()) == "transfer.conflict"
    assert (await desk.rename(PART, OTHER)).transfer.name == OTHER
    assert sorted(await desk.received()) == [b"first", b"second"]


async def test_upload_that_was_not_closed_is_not_renamed(desk: Desk) -> None:
    """Neither one that is still written nor one that was cut off becomes a transfer; each can go on afterwards."""
    upload = await desk.open(PART)
    await upload.write(0, b"beginning, ")
    assert await refusal(desk.rename()) == "upload.unfinished"
    await upload.leave("lost")
    assert await refusal(desk.rename()) == "upload.unfinished"
    again = await desk.open(PART)
    await again.write(again.size_bytes, b"end")
    await desk.close(again)
    await desk.rename()
    assert await desk.received() == [b"beginning, end"]


async def test_partial_of_a_suspended_office_is_not_promoted(desk: Desk) -> None:
    """Not by a RENAME, not by a CLOSE; when the office is active again, its files are still there."""
    await desk.put(b"staged")
    held = await desk.leave(b"left, ", OTHER)
    assert held.is_over
    open_still = await desk.open(OTHER)
    ledger = desk.shop.ledger
    await ledger.record_office_status(A, OfficeStatus.SUSPENDED, actor="op", now=NOW)
    assert await refusal(desk.rename()) == "office.suspended"
    await open_still.leave("sent away")
    assert await refusal(desk.open(OTHER)) == "office.suspended"
    assert await desk.received() == []
    await ledger.record_office_status(A, OfficeStatus.ACTIVE, actor="op", now=NOW)
    await desk.rename()
    assert await desk.received() == [b"staged"]
    assert (await desk.open(OTHER)).size_bytes == 6


async def test_time_that_is_set_before_the_rename_is_kept(desk: Desk) -> None:
    """Rclone sets it on the temporary name, and compares it with the final one at its next run."""
    await desk.put(b"content")
    sent_at = NOW - timedelta(days=40)
    assert await desk.intake.amend(PART, identity(A), size_bytes=7, client_mtime=sent_at)
    assert (await desk.rename()).transfer.client_mtime == sent_at


async def test_size_that_is_set_by_path_shortens_what_is_kept(desk: Desk) -> None:
    """Truncation by path is honoured, to nothing as well; making it longer would be a hole."""
    content = text(2 * CHUNK_BYTES + 9)
    await desk.put(content)
    amend = desk.intake.amend
    assert await refusal(amend(PART, identity(A), size_bytes=len(content) + 1, client_mtime=None)) == "upload.hole"
    assert await amend(PART, identity(A), size_bytes=CHUNK_BYTES + 3, client_mtime=None)
    await desk.rename()
    assert await desk.received() == [content[: CHUNK_BYTES + 3]]
    await desk.leave(content, OTHER)
    assert await amend(OTHER, identity(A), size_bytes=0, client_mtime=None)
    assert await desk.partial(OTHER) is None


# --- a store in trouble ------------------------------------------------------------------------------------------


async def test_what_the_store_did_not_take_is_not_kept_with_a_gap(desk: Desk) -> None:
    """Chunks that were on their way when the store failed are gone, and so is the claim to have them."""
    content = text(5 * CHUNK_BYTES)
    await desk.leave(content[: CHUNK_BYTES + 5])
    upload = await desk.open()
    with closing(sqlite3.connect(desk.shop.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        await write(upload, content[upload.size_bytes : 4 * CHUNK_BYTES], upload.size_bytes)
        with pytest.raises(Deferred):
            await upload.sync()
        await upload.leave("lost")
    kept = await desk.partial()
    assert kept is not None
    assert kept.size_bytes == CHUNK_BYTES + 5
    again = await desk.open()
    await write(again, content[again.size_bytes :], again.size_bytes)
    await desk.close(again)
    assert await desk.received() == [content]


async def test_rename_that_the_store_could_not_take_can_be_repeated(desk: Desk) -> None:
    """A busy store costs the RENAME, not the file that waits for it."""
    content = text(3 * CHUNK_BYTES)
    await desk.put(content)
    with closing(sqlite3.connect(desk.shop.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(Deferred):
            await desk.rename()
    await desk.rename()
    assert await desk.received() == [content]


# --- the end of it -----------------------------------------------------------------------------------------------


async def expire(desk: Desk, now: datetime) -> int:
    """Do what housekeeping does at *now*."""
    expired = await desk.shop.ledger.expire_partials(before=now - DAY, now=now)
    await desk.shop.ledger.remove_abandoned(before=now - DAY)
    return expired


async def test_partial_expires_after_a_day_and_its_owner_reads_of_it(desk: Desk) -> None:
    """Not before; then it is listed nowhere, its chunks are gone, and status/refused names the file that was meant."""
    await desk.leave(text(3 * CHUNK_BYTES))
    await desk.put(text(2 * CHUNK_BYTES), f"{OTHER}.0a1b2c3d.partial")
    assert await expire(desk, NOW + DAY) == 0
    assert desk.chunks() == 5
    assert await expire(desk, NOW + DAY + SECOND) == 2
    assert (await desk.shop.ledger.list_partials(A, None), desk.chunks()) == ([], 0)
    assert sorted(await desk.refused()) == [(NAME, "upload.unfinished"), (OTHER, "upload.unfinished")]
    assert (await desk.open()).size_bytes == 0
    assert await refusal(desk.rename(f"{OTHER}.0a1b2c3d.partial", OTHER)) == "tree.not_found"


async def test_every_partial_that_expires_is_told(desk: Desk) -> None:
    """Hundreds at once too: none is swept away as an abandoned upload without a word."""
    names = [f"MESSAGE_{A}_{B}_202607{1 + number // 24:02}{number % 24:02}0000.txt" for number in range(150)]
    for name in names:
        await desk.leave(b"x", name)
    assert await desk.shop.ledger.remove_abandoned(before=NOW + 2 * DAY) == 0
    assert await expire(desk, NOW + DAY + SECOND) == 150
    assert sorted(name for name, _ in await desk.refused()) == names
    assert desk.chunks() == 0


async def test_partial_that_was_taken_up_again_lives_as_long_as_bytes_arrive(desk: Desk) -> None:
    """A slow upload that was resumed just before its day is over does not expire under its client's hands."""
    content = text(4 * CHUNK_BYTES)
    await desk.leave(content[: 2 * CHUNK_BYTES])
    desk.now += DAY - SECOND
    upload = await desk.open()
    assert await expire(desk, NOW + DAY + SECOND) == 0
    desk.now += DAY - SECOND
    await upload.write(2 * CHUNK_BYTES, content[2 * CHUNK_BYTES : 3 * CHUNK_BYTES + 1])
    await upload._staging.settle()
    assert await expire(desk, desk.now + 2 * SECOND) == 0
    await write(upload, content[3 * CHUNK_BYTES + 1 :], 3 * CHUNK_BYTES + 1)
    await desk.close(upload)
    assert await desk.received() == [content]
    assert await desk.refused() == []


async def test_store_does_not_grow_by_what_was_given_up(desk: Desk) -> None:
    """Removed, replaced and expired uploads make room for the next ones."""

    def pages() -> int:
        with closing(sqlite3.connect(desk.shop.path)) as store:
            return int(store.execute("PRAGMA page_count").fetchone()[0])

    sizes = []
    for number in range(12):
        desk.now += 2 * DAY
        await desk.leave(text(8 * CHUNK_BYTES), manners=WINSCP)
        if number % 3 == 0:
            await desk.intake.drop(NAME, identity(A))
        elif number % 3 == 1:
            await (await desk.open(afresh=True)).abort("gone")
        else:
            await expire(desk, desk.now + DAY + SECOND)
        assert desk.chunks() == 0
        sizes.append(pages())
    assert max(sizes) <= sizes[0] + 8


async def test_upload_that_a_killed_process_left_open_does_not_stay(desk: Desk) -> None:
    """Chunks without a partial are nobody's after a restart, and are removed a day later."""
    upload = await desk.open()
    await upload.write(0, text(CHUNK_BYTES))
    await upload.write(CHUNK_BYTES, text(CHUNK_BYTES + 1))
    await upload._staging.settle()
    assert desk.chunks() == 2
    after = Desk(desk.shop)
    assert await after.partial() is None
    assert (await after.open()).size_bytes == 0
    await expire(desk, NOW + DAY + SECOND)
    assert desk.chunks() == 0


@pytest.mark.parametrize("is_overwriting", [False, True])
async def test_resume_that_a_killed_process_left_open_can_be_resumed_again(desk: Desk, *, is_overwriting: bool) -> None:
    """What was kept before is still there as it was, or as it was written over; never shorter, never mixed up."""
    content = text(5 * CHUNK_BYTES)
    await desk.leave(content[: 2 * CHUNK_BYTES + 7])
    upload = await desk.open()
    start = 0 if is_overwriting else upload.size_bytes
    await write(upload, content[start : 4 * CHUNK_BYTES + 1], start, CHUNK_BYTES)
    await upload._staging.settle()
    after = Desk(desk.shop)
    again = await after.open()
    assert again.size_bytes == 2 * CHUNK_BYTES + 7
    await write(again, content[again.size_bytes :], again.size_bytes)
    await after.close(again)
    assert await desk.received() == [content]
