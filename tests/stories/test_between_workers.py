"""Two workers serve one office: whichever of them it meets, it finds its uploads, and a dead one holds nothing up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, MakeHouse, general_name, wait_for
from raw_sftp import Long, Raw, RawSftp, open_raw, size_attribute
from several import Several
from test_handing_over import ended

GOING_ON = 0x02
CONTENT = b"what was sent " * 30_000
HALF = len(CONTENT) // 2


@pytest.fixture(scope="module")
def pair(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """Return a relay of two workers for all tests of this file; each takes names of its own."""
    house = House.copy(prepared_home, tmp_path_factory.mktemp("pair") / "house", {})
    several = Several.of(house)
    yield several
    several.close()


@asynccontextmanager
async def both(pair: Several) -> AsyncIterator[tuple[RawSftp, RawSftp]]:
    """Log in as the same office at both doors."""
    one, two = pair.doors
    async with one.dial() as here, two.dial() as there, open_raw(here) as first, open_raw(there) as second:
        yield first, second


async def write(raw: RawSftp, handle: bytes, content: bytes, at: int = 0) -> list[str]:
    """Write *content* from *at* on, and return what was said to it."""
    said = set()
    for start in range(0, len(content), 32_000):
        reply = await raw.call(sftp.WRITE, handle, Long(at + start), content[start : start + 32_000])
        said.add(reply.text.partition(":")[0] if reply.code else "OK")
    return sorted(said)


async def begin(raw: RawSftp, path: str, content: bytes) -> bytes:
    """Open *path* afresh, write *content* and return the handle."""
    handle = await raw.open(path)
    assert await write(raw, handle, content) == ["OK"]
    return handle


async def received(pair: Several, name: str) -> bytes:
    """Return what the recipient finds under *name*."""
    async with pair.dial(HOME_HELP) as connection, open_raw(connection) as theirs:
        assert (await theirs.list("/receive")).count(name) == 1
        return await theirs.get(f"/receive/{name}")


async def answer(raw: RawSftp, kind: int, *fields: sftp.Field) -> str:
    """Return OK, or the code of what was refused."""
    reply = await raw.call(kind, *fields)
    return reply.text.partition(":")[0] if reply.code else "OK"


async def test_a_dead_connections_upload_goes_on_with_another_worker(pair: Several) -> None:
    """STAT tells how far it came, OPEN takes it over, and the old handle can neither write nor close it."""
    name = general_name("txt", number=1)
    async with both(pair) as (lost, again):
        old = await begin(lost, f"/send/{name}", CONTENT[:HALF])
        assert (await again.call(sftp.STAT, f"/send/{name}")).size == HALF
        handle = await again.open(f"/send/{name}", GOING_ON)
        assert (await again.call(sftp.FSTAT, handle)).size == HALF
        assert await write(lost, old, b"too late", HALF) == ["upload.unfinished"]
        assert await write(again, handle, CONTENT[HALF:], HALF) == ["OK"]
        assert await answer(lost, sftp.CLOSE, old) == "upload.unfinished"
        assert await answer(again, sftp.CLOSE, handle) == "OK"
    assert await received(pair, name) == CONTENT


async def test_a_name_opened_afresh_with_another_worker_is_lost_to_the_first(pair: Several) -> None:
    """Of what the first session had sent nothing is kept; the second one's bytes arrive."""
    name = general_name("txt", number=2)
    async with both(pair) as (first, second):
        old = await begin(first, f"/send/{name}", b"other bytes")
        handle = await begin(second, f"/send/{name}", CONTENT)
        assert await answer(first, sftp.CLOSE, old) == "upload.unfinished"
        assert await answer(second, sftp.CLOSE, handle) == "OK"
    assert await received(pair, name) == CONTENT


async def test_size_and_time_are_set_by_path_with_another_worker(pair: Several) -> None:
    """SETSTAT shortens what the other session writes, and it goes on from there; growing it means bytes to come."""
    name = general_name("txt", number=3)
    async with both(pair) as (writer, other):
        handle = await begin(writer, f"/send/{name}", CONTENT)
        assert await answer(other, sftp.SETSTAT, f"/send/{name}", size_attribute(HALF)) == "OK"
        assert (await writer.call(sftp.FSTAT, handle)).size == HALF
        time = Raw((8).to_bytes(4, "big") + 2 * (1_750_000_000).to_bytes(4, "big"))
        assert await answer(other, sftp.SETSTAT, f"/send/{name}", time) == "OK"
        told = [(await raw.call(sftp.STAT, f"/send/{name}")).rest for raw in (writer, other)]
        assert told[0] == told[1]
        assert (1_750_000_000).to_bytes(4, "big") in told[0]
        assert await write(writer, handle, CONTENT[HALF:], HALF) == ["OK"]
        assert await answer(writer, sftp.CLOSE, handle) == "OK"
    assert await received(pair, name) == CONTENT


async def test_what_is_removed_with_another_worker_is_given_up(pair: Several) -> None:
    """REMOVE of what the other session still writes is OK, and that one's CLOSE is refused."""
    name = general_name("txt", number=4)
    async with both(pair) as (writer, other):
        handle = await begin(writer, f"/send/{name}", CONTENT)
        assert await answer(other, sftp.REMOVE, f"/send/{name}") == "OK"
        assert await answer(writer, sftp.CLOSE, handle) == "upload.unfinished"
        assert (await other.call(sftp.STAT, f"/send/{name}")).code == sftp.NO_SUCH_FILE


async def test_a_temporary_name_is_renamed_with_another_worker_once_it_is_closed(pair: Several) -> None:
    """Before its CLOSE the RENAME is refused, behind it it is OK, and repeated it is the same transfer."""
    name = general_name("txt", number=5)
    temporary = f"/send/{name}.filepart"
    async with both(pair) as (writer, other):
        handle = await begin(writer, temporary, CONTENT)
        assert await answer(other, sftp.RENAME, temporary, f"/send/{name}") == "upload.unfinished"
        assert await answer(writer, sftp.CLOSE, handle) == "OK"
        for raw in (other, writer):
            assert await answer(raw, sftp.RENAME, temporary, f"/send/{name}") == "OK"
    assert await received(pair, name) == CONTENT


async def test_remove_before_a_rename_means_the_attempt_that_another_worker_has_in_hand(pair: Several) -> None:
    """While a temporary form of an accepted name is written, REMOVE of the name is OK and takes nothing back."""
    name = general_name("txt", number=6)
    async with both(pair) as (writer, other):
        assert (await writer.put(f"/send/{name}", CONTENT)).code == sftp.OK
        assert await answer(other, sftp.REMOVE, f"/send/{name}") == "transfer.accepted"
        handle = await begin(writer, f"/send/{name}.tmp", CONTENT)
        assert await answer(other, sftp.REMOVE, f"/send/{name}") == "OK"
        assert await answer(writer, sftp.CLOSE, handle) == "OK"
    assert await received(pair, name) == CONTENT


async def test_a_close_under_way_is_waited_for_by_another_worker(pair: Several) -> None:
    """Whoever asks behind a CLOSE that was received finds what became of it, whichever worker carries it out."""
    name = general_name("txt", number=7)
    async with both(pair) as (writer, other):
        handle = await begin(writer, f"/send/{name}", CONTENT)
        closing = writer.ask(sftp.CLOSE, handle)
        # Until the CLOSE is received it is an upload of that length; afterwards it is a transfer of that length.
        sizes = {(await other.call(sftp.STAT, f"/send/{name}")).size for _ in range(20)}
        assert (await writer.reply_to(closing)).code == sftp.OK
    assert sizes == {len(CONTENT)}


async def test_an_office_goes_on_at_once_when_a_worker_was_stopped_and_killed(make_house: MakeHouse) -> None:
    """An OPEN that waits for a worker that answers no more goes on when that one is dead: with what was synced, whole."""
    several = Several.of(make_house())
    name, cut = general_name("txt", number=8), general_name("txt", number=9)
    try:
        stuck, alive = several.doors
        async with alive.dial() as connection, open_raw(connection) as raw:
            async with stuck.dial() as dying, open_raw(dying) as lost:
                handle = await begin(lost, f"/send/{name}", CONTENT[:HALF])
                assert (await lost.call(sftp.EXTENDED, "fsync@openssh.com", handle)).code == sftp.OK
                await begin(lost, f"/send/{cut}", b"in memory alone")
                assert stuck.process is not None
                os.kill(stuck.process.pid, signal.SIGSTOP)
                asked = raw.ask(sftp.STAT, f"/send/{name}"), raw.ask(sftp.STAT, f"/send/{cut}")
                several.bury(0)
                found, gone = [await raw.reply_to(number) for number in asked]
            assert (found.size, gone.code) == (HALF, sftp.NO_SUCH_FILE)
            handle = await raw.open(f"/send/{name}", GOING_ON)
            assert await write(raw, handle, CONTENT[HALF:], HALF) == ["OK"]
            assert await answer(raw, sftp.CLOSE, handle) == "OK"
            assert (await raw.put(f"/send/{cut}", CONTENT)).code == sftp.OK
        # In the place of the dead one a new worker begins with nothing.
        stuck.open(several.common)
        async with stuck.dial() as connection, open_raw(connection) as raw:
            assert (await raw.call(sftp.STAT, f"/send/{name}")).size == len(CONTENT)
        assert [await received(several, each) for each in (name, cut)] == [CONTENT] * 2
    finally:
        several.close()


async def test_a_worker_killed_under_its_supervisor_locks_nobody_out(make_house: MakeHouse) -> None:
    """The worker that holds an upload is killed: its office logs in again and goes on with what was synced, at once."""
    house = make_house(server={"workers": 2})
    house.start()
    name = general_name("txt", number=10)
    async with house.dial() as dying, open_raw(dying) as lost:
        handle = await begin(lost, f"/send/{name}", CONTENT[:HALF])
        assert (await lost.call(sftp.EXTENDED, "fsync@openssh.com", handle)).code == sftp.OK
        assert house.process is not None
        port = dying.get_extra_info("sockname")[1]
        workers = psutil.Process(house.process.pid).children()
        (holder,) = [
            each for each in workers if any(one.raddr and one.raddr[1] == port for one in each.net_connections())
        ]
        holder.kill()
        async with house.dial() as connection, open_raw(connection) as raw:
            handle = await raw.open(f"/send/{name}", GOING_ON)
            assert (await raw.call(sftp.FSTAT, handle)).size == HALF
            assert await write(raw, handle, CONTENT[HALF:], HALF) == ["OK"]
            assert await answer(raw, sftp.CLOSE, handle) == "OK"
            assert (await raw.call(sftp.STAT, f"/send/{name}")).size == len(CONTENT)
    house.wait_for_event("worker.died")


async def test_an_upload_that_an_old_server_still_has_is_taken_over_from_its_successor(make_house: MakeHouse) -> None:
    """While a hand-over lasts, a session of the new server finds what one of the old server writes."""
    house = make_house(server={"workers": 1})
    house.start()
    name = general_name("txt", number=11)
    async with contextlib.AsyncExitStack() as stack, house.dial() as staying, open_raw(staying) as old:
        handle = await begin(old, f"/send/{name}", CONTENT[:HALF])
        predecessor, house.process = house.process, None
        assert predecessor is not None
        predecessor.send_signal(signal.SIGUSR2)
        told = await asyncio.to_thread(house.wait_for_event, "handover.done")
        stack.enter_context(ended(house, told["successor"]))
        async with house.dial() as connection, open_raw(connection) as new:
            again = await new.open(f"/send/{name}", GOING_ON)
            assert (await new.call(sftp.FSTAT, again)).size == HALF
            assert await answer(old, sftp.CLOSE, handle) == "upload.unfinished"
            assert await write(new, again, CONTENT[HALF:], HALF) == ["OK"]
            assert await answer(new, sftp.CLOSE, again) == "OK"
    with predecessor:
        assert predecessor.wait(sftp.PATIENCE_SECONDS) == 0
    assert [transfer.size_bytes for transfer in house.transfers()] == [len(CONTENT)]


async def test_revoked_and_suspended_means_out_in_every_worker(pair: Several) -> None:
    """Live sessions at both doors end within seconds, by one word to the store."""
    second = pair.certificate(CARE_MANAGER, label="to be revoked")
    assert second.record is not None
    for command in (
        ["cert", "revoke", str(second.record.serial), "--yes"],
        ["office", "suspend", CARE_MANAGER, "--yes"],
    ):
        async with pair.dial(pass_=second) as one, pair.dial(pass_=second) as two, open_raw(one), open_raw(two):
            done = await asyncio.to_thread(pair.relay, *command)
            assert done.returncode == 0, done.stdout + done.stderr
            for connection in (one, two):
                await asyncio.wait_for(connection.wait_closed(), sftp.PATIENCE_SECONDS)
        second = pair.certificate(CARE_MANAGER)
    assert wait_for(lambda: len(pair.journal_lines("identity.ended")) == 4, "both commands at both doors")
    assert pair.relay("office", "resume", CARE_MANAGER).returncode == 0
