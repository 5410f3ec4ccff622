"""Two sessions of one office do the same thing at the same moment: it ends in one transfer, and both are told the truth.

One uploads to the top of ``send/``, the other into the recipient's folder there, which is the same name: on one path
the later OPEN would have taken the upload over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, closing

import pytest
import raw_sftp as sftp
from house import HOME_HELP, House, general_name
from raw_sftp import NO_ATTRIBUTES, Long, Raw, RawSftp, Reply, open_raw

from relay.ledger import storefile
from relay.lifecycle import State

NAME = general_name("txt")
TOP, FOLDER = f"/send/{NAME}", f"/send/{HOME_HELP}/{NAME}"
ONE, TWO = b"one " * 100_000, b"two " * 100_000
OK = "OK"

with_same_or_other_bytes = pytest.mark.parametrize("second", [ONE, TWO], ids=["same bytes", "other bytes"])


@asynccontextmanager
async def two_sessions(house: House) -> AsyncIterator[tuple[RawSftp, RawSftp]]:
    """Log in twice as the same office."""
    async with house.dial() as one, house.dial() as two, open_raw(one) as first, open_raw(two) as second:
        yield first, second


async def write(raw: RawSftp, path: str, content: bytes, *, flags: int = sftp.WRITING, at: int = 0) -> bytes:
    """Open *path*, write *content* from *at* on and return the handle."""
    handle = await raw.open(path, flags)
    for start in range(at, len(content), 32_000):
        assert (await raw.call(sftp.WRITE, handle, Long(start), content[start : start + 32_000])).code == sftp.OK
    return handle


async def at_once(*answers: Awaitable[Reply]) -> list[str]:
    """Wait for all of *answers*; return the code of each."""
    replies = await asyncio.gather(*answers)
    return [OK if reply.code == sftp.OK else reply.text.partition(":")[0] for reply in replies]


async def delivered(house: House) -> list[bytes]:
    """Return everything that the recipient finds in new/."""
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as theirs:
        names = [name for name in await theirs.list("/new") if name not in (".", "..")]
        return [await theirs.get(f"/new/{name}") for name in names]


async def assert_one_won(house: House, codes: list[str], contents: list[bytes], *, loser: str) -> None:
    """The same bytes are OK for both; of others one is, the other one is told, and the winner's arrive."""
    if contents[0] == contents[1]:
        assert codes == [OK, OK]
    else:
        assert sorted(codes) == sorted([OK, loser])
    assert await delivered(house) == [contents[codes.index(OK)]]


@with_same_or_other_bytes
@pytest.mark.parametrize("before", [None, State.RECALLED, State.EXPIRED])
async def test_first_upload_or_one_after_an_end(house: House, second: bytes, before: State | None) -> None:
    """A name that is new, or whose file was taken back, or has expired: one CLOSE makes the transfer."""
    async with two_sessions(house) as (ours, again):
        if before is not None:
            assert (await ours.put(TOP, ONE)).code == sftp.OK
            assert (await ours.call(sftp.RENAME, TOP, f"/recall/{NAME}")).code == sftp.OK
            if before is not State.RECALLED:
                end(house, before)
        handles = [await write(ours, TOP, ONE), await write(again, FOLDER, second)]
        closing_ = [ours.ask(sftp.CLOSE, handles[0]), again.ask(sftp.CLOSE, handles[1])]
        codes = await at_once(ours.reply_to(closing_[0]), again.reply_to(closing_[1]))
    await assert_one_won(house, codes, [ONE, second], loser="transfer.conflict")
    states = [transfer.state for transfer in house.transfers()]
    assert states == [State.COLLECTED, *([] if before is None else [before])]


def end(house: House, state: State) -> None:
    """Let the one transfer have ended as *state*."""
    with closing(storefile.open_writer(house.config.store.path)) as store, store:
        store.execute("UPDATE transfer SET recall_key = NULL, state = ?", (state,))


async def test_a_name_that_was_collected_and_destroyed_is_refused_to_both(house: House) -> None:
    """Neither OPEN succeeds, whatever they would send."""
    async with two_sessions(house) as (ours, again):
        assert (await ours.put(TOP, ONE)).code == sftp.OK
        assert await delivered(house) == [ONE]
        with closing(storefile.open_writer(house.config.store.path)) as store, store:
            store.execute(
                "UPDATE transfer SET state='destroyed', payload=NULL, released=id, shelf='none', withdrawn=id"
            )
        opening = ours.ask(sftp.OPEN, TOP, sftp.WRITING, Raw(NO_ATTRIBUTES))
        other = again.ask(sftp.OPEN, FOLDER, sftp.WRITING, Raw(NO_ATTRIBUTES))
        codes = await at_once(ours.reply_to(opening), again.reply_to(other))
    assert codes == ["transfer.already_collected"] * 2
    assert len(house.transfers()) == 1


@with_same_or_other_bytes
async def test_two_temporary_names_are_given_one_final_name(house: House, second: bytes) -> None:
    """Of two RENAMEs to the same name one makes the transfer."""
    async with two_sessions(house) as (ours, again):
        assert (await ours.put(f"{TOP}.filepart", ONE)).code == sftp.OK
        assert (await again.put(f"{TOP}.tmp", second)).code == sftp.OK
        one = ours.ask(sftp.RENAME, f"{TOP}.filepart", TOP)
        two = again.ask(sftp.EXTENDED, "posix-rename@openssh.com", f"{TOP}.tmp", TOP)
        codes = await at_once(ours.reply_to(one), again.reply_to(two))
    await assert_one_won(house, codes, [ONE, second], loser="transfer.conflict")
    assert len(house.transfers()) == 1


async def test_one_temporary_name_is_renamed_twice(house: House) -> None:
    """A client that lost its connection renames again while the first RENAME is under way: one transfer, one OK at least."""
    async with two_sessions(house) as (ours, again):
        assert (await ours.put(f"{TOP}.filepart", ONE)).code == sftp.OK
        asked = [raw.ask(sftp.RENAME, f"{TOP}.filepart", TOP) for raw in (ours, again)]
        codes = await at_once(ours.reply_to(asked[0]), again.reply_to(asked[1]))
        assert OK in codes
        # Who was told otherwise asks again, and reads that it is done.
        for raw in (ours, again):
            assert (await raw.call(sftp.RENAME, f"{TOP}.filepart", TOP)).code == sftp.OK
    assert await delivered(house) == [ONE]
    assert len(house.transfers()) == 1


async def test_what_was_cut_off_is_resumed_by_two(house: House) -> None:
    """One of the OPENs has it; the other session is told at its CLOSE, and the file arrives whole, once."""
    async with house.dial() as lost, open_raw(lost) as raw:
        await write(raw, TOP, ONE[:200_000])
    house.wait_for_event("upload.left")
    async with two_sessions(house) as (ours, again):
        opening = [raw.ask(sftp.OPEN, TOP, 0x02, Raw(NO_ATTRIBUTES)) for raw in (ours, again)]
        handles = [(await ours.reply_to(opening[0])).handle, (await again.reply_to(opening[1])).handle]
        closing_ = []
        for raw, handle in zip((ours, again), handles, strict=True):
            raw.ask(sftp.WRITE, handle, Long(200_000), ONE[200_000:])
            closing_.append(raw.ask(sftp.CLOSE, handle))
        codes = await at_once(ours.reply_to(closing_[0]), again.reply_to(closing_[1]))
    assert sorted(codes) == [OK, "upload.unfinished"]
    assert await delivered(house) == [ONE]
    assert len(house.transfers()) == 1


async def test_an_interrupted_upload_is_repeated_by_two(house: House) -> None:
    """The whole supersedes its part once; the other one is its repeat."""
    async with two_sessions(house) as (ours, again):
        assert (await ours.put(TOP, ONE[:100_000])).code == sftp.OK
        handles = [await write(ours, TOP, ONE), await write(again, FOLDER, ONE)]
        closing_ = [ours.ask(sftp.CLOSE, handles[0]), again.ask(sftp.CLOSE, handles[1])]
        codes = await at_once(ours.reply_to(closing_[0]), again.reply_to(closing_[1]))
    await assert_one_won(house, codes, [ONE, ONE], loser="")
    assert [transfer.state for transfer in house.transfers()] == [State.COLLECTED, State.SUPERSEDED]


async def test_one_takes_back_while_the_other_repeats(house: House) -> None:
    """Whichever was first, both are OK: a repeat that came before was taken back with it, one behind is a new transfer."""
    async with two_sessions(house) as (ours, again):
        assert (await ours.put(TOP, ONE)).code == sftp.OK
        handle = await write(again, FOLDER, ONE)
        recalling, repeating = ours.ask(sftp.RENAME, TOP, "/recall"), again.ask(sftp.CLOSE, handle)
        assert await at_once(ours.reply_to(recalling), again.reply_to(repeating)) == [OK, OK]
        states = [transfer.state for transfer in house.transfers()]
    assert states in ([State.RECALLED], [State.ACCEPTED, State.RECALLED])
    assert await delivered(house) == [ONE] * (len(states) - 1)
    repeats = [line["is_repeat"] for line in house.journal_lines("transfer.accepted")]
    assert repeats == [False, len(states) == 1]
