"""Other bytes under a name that is taken are refused at the WRITE that brings them, and what follows says so again."""

from __future__ import annotations

import os
from contextlib import closing

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, general_name, pdf
from raw_sftp import NO_ATTRIBUTES, Long, Raw, RawSftp, open_raw, size_attribute

from relay.ledger import storefile
from relay.lifecycle import State
from relay.vault import CHUNK_BYTES

NAME = general_name("txt")
PATH = f"/send/{NAME}"
GOOD = os.urandom(CHUNK_BYTES * 3 // 2).hex().encode()
CONFLICT = "transfer.conflict: "


def changed(at: int) -> bytes:
    """Return the good bytes, but for one."""
    return GOOD[:at] + b"#" + GOOD[at + 1 :]


async def write(raw: RawSftp, handle: bytes, data: bytes, at: int = 0) -> sftp.Reply:
    """Send one WRITE and return its reply."""
    return await raw.call(sftp.WRITE, handle, Long(at), data)


@pytest.mark.parametrize("at", [0, CHUNK_BYTES - 1, CHUNK_BYTES, len(GOOD) - 1])
@pytest.mark.parametrize("piece", [100_000, CHUNK_BYTES])
async def test_the_write_with_the_first_other_byte_is_the_one_refused(house: House, at: int, piece: int) -> None:
    """What agrees is taken, whatever its place in the chunks; from that byte on every answer is the same sentence."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        other, handle = changed(at), await ours.open(PATH)
        starts = range(0, len(GOOD), piece)
        # All of them at once, as programs send them.
        asked = [ours.ask(sftp.WRITE, handle, Long(start), other[start : start + piece]) for start in starts]
        replies = [await ours.reply_to(number) for number in asked]
        codes = [reply.code for reply in replies]
        assert codes == [sftp.OK if start + piece <= at else sftp.FAILURE for start in starts]
        sentence = replies[-1].text
        assert sentence.startswith(CONFLICT)
        assert {reply.text for reply in replies if reply.code} == {sentence}
        assert (await ours.call(sftp.FSETSTAT, handle, size_attribute(10))).text == sentence
        assert (await ours.call(sftp.STAT, PATH)).text == sentence
        assert (await ours.call(sftp.CLOSE, handle)).text == sentence
        assert (await ours.call(sftp.LSTAT, PATH)).text == sentence
        (refusal,) = house.refusals()
        assert (refusal.finding.code, refusal.count) == ("transfer.conflict", 1)
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        assert (await ours.call(sftp.STAT, PATH)).size == len(GOOD)
    assert len(house.transfers()) == 1


async def test_the_good_file_is_seen_by_whoever_did_not_write(house: House) -> None:
    """Another session of the office is told of the accepted file, while the refused handle is open and afterwards."""
    async with house.dial() as one, open_raw(one) as ours, house.dial() as two, open_raw(two) as again:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        handle = await ours.open(PATH)
        assert (await write(ours, handle, b"#")).text.startswith(CONFLICT)
        assert (await again.call(sftp.STAT, PATH)).size == len(GOOD)
        # As rclone does, with the handle still open.
        assert (await ours.call(sftp.REMOVE, PATH)).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).text.startswith(CONFLICT)
        assert (await again.call(sftp.STAT, PATH)).size == len(GOOD)
        (refusal,) = house.refusals()
        assert refusal.count == 1
        assert f"{NAME}.refused.txt" in await again.list("/send")
    assert len(house.transfers()) == 1


async def test_a_client_that_leaves_at_the_refused_write_is_on_record(house: House) -> None:
    """Without a CLOSE the refusal is counted all the same, once, and nothing of the attempt is kept."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        handle = await ours.open(PATH)
        assert (await write(ours, handle, GOOD[: CHUNK_BYTES + 5])).code == sftp.OK
        assert (await write(ours, handle, b"#", CHUNK_BYTES + 5)).text.startswith(CONFLICT)
    house.wait_for(house.refusals, "the refusal")
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.call(sftp.STAT, PATH)).size == len(GOOD)
    (refusal,) = house.refusals()
    assert refusal.count == 1


async def test_bytes_ahead_of_their_turn_are_compared_too(house: House) -> None:
    """A WRITE far behind the end that differs is refused, though the bytes before it are not there yet."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        handle = await ours.open(PATH)
        assert (await write(ours, handle, GOOD[500_000:600_000], 500_000)).code == sftp.OK
        assert (await write(ours, handle, b"more", len(GOOD))).code == sftp.OK
        assert (await write(ours, handle, b"x" + GOOD[400_001:500_000], 400_000)).text.startswith(CONFLICT)


@pytest.mark.parametrize("flags", [0x02, 0x02 | 0x08, 0x02 | 0x04], ids=["WRITE", "CREAT", "APPEND"])
async def test_what_was_kept_of_an_attempt_is_gone_on_with_and_compared(house: House, flags: int) -> None:
    """A repeat that was cut off is resumed behind what is there; its next other byte is refused."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        handle = await ours.open(PATH)
        assert (await write(ours, handle, GOOD[:200_000])).code == sftp.OK
    house.wait_for_event("upload.left")
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.call(sftp.STAT, PATH)).size == 200_000
        handle = await ours.open(PATH, flags)
        assert (await write(ours, handle, GOOD[200_000:300_000], 200_000)).code == sftp.OK
        assert (await write(ours, handle, b"#", 300_000)).text.startswith(CONFLICT)
        assert (await ours.call(sftp.CLOSE, handle)).text.startswith(CONFLICT)


# --- the accepted file changes while it is compared ------------------------------------------------------------


async def test_taken_back_meanwhile_it_is_no_rival_any_more(house: House) -> None:
    """The WRITE behind the recall is taken, and the CLOSE makes a new transfer of it."""
    async with house.dial() as one, open_raw(one) as ours, house.dial() as two, open_raw(two) as again:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        handle = await ours.open(PATH)
        assert (await write(ours, handle, GOOD[:100_000])).code == sftp.OK
        assert (await again.call(sftp.RENAME, PATH, "/recall")).code == sftp.OK
        # One chunk is in memory still, the other one is gone.
        assert (await write(ours, handle, b"#", 100_000)).code == sftp.OK
        assert (await write(ours, handle, bytes(250_000), 100_001)).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).code == sftp.OK
    states = [transfer.state for transfer in house.transfers()]
    assert states == [State.ACCEPTED, State.RECALLED]


async def test_replaced_meanwhile_the_commit_decides(house: House) -> None:
    """Another session completed the file since the OPEN: what differs from that is refused at the CLOSE."""
    async with house.dial() as one, open_raw(one) as ours, house.dial() as two, open_raw(two) as again:
        assert (await ours.put(PATH, GOOD[:300_000])).code == sftp.OK
        handle = await ours.open(PATH)
        assert (await write(ours, handle, GOOD[:200_000])).code == sftp.OK
        part = f"/send/{NAME}.filepart"
        assert (await again.put(part, GOOD)).code == sftp.OK
        assert (await again.call(sftp.RENAME, part, PATH)).code == sftp.OK
        for start in range(200_000, 400_000, 100_000):
            assert (await write(ours, handle, bytes(100_000), start)).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).text.startswith(CONFLICT)
        assert (await ours.call(sftp.STAT, PATH)).text.startswith(CONFLICT)
    assert [transfer.state for transfer in house.transfers()] == [State.ACCEPTED, State.SUPERSEDED]


@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_free_name_comes_again_once_it_was_collected(house: House, when: str) -> None:
    """Before the OPEN or while it is being written: from the collection on other bytes are taken."""
    path, first, second = f"/send/{HOME_HELP}/提供票.pdf", pdf(5_000), pdf(9_000)
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:

        async def collect() -> None:
            (name,) = [name for name in await theirs.list("/new") if name.endswith("提供票.pdf")]
            assert await theirs.get(f"/new/{name}") == first

        assert (await ours.put(path, first)).code == sftp.OK
        assert (await ours.put(path, second)).text.startswith(CONFLICT)
        if when == "before":
            await collect()
        handle = await ours.open(path)
        assert (await write(ours, handle, second[:1_000])).code == sftp.OK
        if when == "during":
            await collect()
        assert (await write(ours, handle, second[1_000:], 1_000)).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).code == sftp.OK
    assert [transfer.size_bytes for transfer in house.transfers()] == [len(second), len(first)]


@pytest.mark.parametrize("name", [NAME, f"{NAME}.filepart"])
async def test_a_name_whose_bytes_were_collected_and_destroyed_is_refused_at_the_open(house: House, name: str) -> None:
    """No bytes can be accepted under it, so the user is told before the first one, with the time of collection."""
    async with house.dial() as one, open_raw(one) as ours, house.dial(HOME_HELP) as two, open_raw(two) as theirs:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        assert await theirs.get(f"/new/{NAME}") == GOOD
        with closing(storefile.open_writer(house.config.store.path)) as store, store:
            store.execute(
                "UPDATE transfer SET state='destroyed', payload=NULL, released=id, shelf='none', withdrawn=id"
            )
        opened = await ours.call(sftp.OPEN, f"/send/{name}", sftp.WRITING, Raw(NO_ATTRIBUTES))
        assert opened.text.startswith("transfer.already_collected: ")
        (refusal,) = house.refusals()
        assert (refusal.name, refusal.finding.code) == (NAME, "transfer.already_collected")


# --- what STAT says -----------------------------------------------------------------------------------------------


async def test_under_a_temporary_name_the_rename_decides(house: House) -> None:
    """Every WRITE is taken; the RENAME is refused, STAT of the final name too, until the first file is taken back."""
    part = f"{PATH}.filepart"
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(PATH, GOOD)).code == sftp.OK
        assert (await ours.put(part, changed(0))).code == sftp.OK
        for _ in range(2):
            assert (await ours.call(sftp.RENAME, part, PATH)).text.startswith(CONFLICT)
            assert (await ours.call(sftp.STAT, PATH)).text.startswith(CONFLICT)
            assert (await ours.call(sftp.STAT, part)).size == len(GOOD)
        assert (await ours.call(sftp.RENAME, PATH, "/recall")).code == sftp.OK
        assert (await ours.call(sftp.RENAME, part, PATH)).code == sftp.OK
        assert (await ours.call(sftp.STAT, PATH)).size == len(GOOD)
    assert [transfer.state for transfer in house.transfers()] == [State.ACCEPTED, State.RECALLED]


async def test_what_was_refused_while_written_reads_the_same_at_its_rename(house: House) -> None:
    """A client that misses every error up to the RENAME reads the sentence there, and at STAT of the final name."""
    part = f"{PATH}.part"
    async with house.dial() as one, open_raw(one) as ours:
        handle = await ours.open(part)
        assert (await write(ours, handle, b"far", 2**40)).text.startswith("limit.size: ")
        closed = await ours.call(sftp.CLOSE, handle)
        for path in (part, PATH):
            assert (await ours.call(sftp.RENAME, part, PATH)).text == closed.text
            assert (await ours.call(sftp.STAT, path)).text == closed.text
    assert house.transfers() == []


async def test_what_looks_cut_is_still_there_to_go_on_with(house: House) -> None:
    """A CLOSE that looked cut off kept its bytes, and STAT tells how many: `reput` at the same prompt asks for them."""
    version = {"client_version": "OpenSSH_9.2p1"}
    async with house.dial(CARE_MANAGER, **version) as one, open_raw(one) as ours:
        handle = await ours.open(PATH)
        assert (await write(ours, handle, GOOD[:CHUNK_BYTES])).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).text.startswith("upload.looks_cut: ")
        assert (await ours.call(sftp.STAT, PATH)).size == CHUNK_BYTES
        handle = await ours.open(PATH, 0x02 | 0x08 | 0x04)
        for start in range(CHUNK_BYTES, len(GOOD), 200_000):
            assert (await write(ours, handle, GOOD[start : start + 200_000], start)).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).code == sftp.OK
        assert (await ours.call(sftp.STAT, PATH)).size == len(GOOD)
