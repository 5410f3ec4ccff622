"""The order of replies: what touches one thing is answered as it came, what is unrelated runs beside it.

A real session with a real store; its channel is a list.  While the test holds the store's lock, no commit comes
through, so that what waits and what does not can be told apart without a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, general_name, plan_csv, plan_name
from indoors import open_indoors, prepare_store
from raw_sftp import NO_ATTRIBUTES, Field, Long, Raw, RawSftp, Reply, pack, size_attribute

from relay.intake import Intake
from relay.sftp.session import SftpSession
from relay.vault import CHUNK_BYTES

ATTRIBUTES = Raw(NO_ATTRIBUTES)
PATIENCE_SECONDS = 30
NAME = plan_name()
OTHER = plan_name(recipient=DAY_CARE, number=1)
# WinSCP's SETSTAT behind CLOSE.
TIMES = Raw(struct.pack(">III", 0x08, 1_782_097_200, 1_782_097_200))


@dataclass
class Line:
    """A session and what it said."""

    session: SftpSession
    said: RawSftp
    store: Path
    intake: Intake
    ended: asyncio.Event
    numbers: int = 0

    def send(self, *requests: tuple[int, tuple[Field, ...]]) -> list[int]:
        """Send requests in one piece; return their ids."""
        first = self.numbers + 1
        self.numbers += len(requests)
        ids = list(range(first, self.numbers + 1))
        self.session.data_received(
            b"".join(pack(kind, at, *fields) for at, (kind, fields) in zip(ids, requests, strict=True)), None
        )
        return ids

    async def replies(self, *ids: int) -> list[Reply]:
        """Return the replies to *ids* in the order of *ids*."""
        return [await self.said.reply_to(number) for number in ids]

    async def next_ids(self, count: int) -> list[int]:
        """Return the ids of the next replies in the order in which they came."""
        return [(await self.said.next_reply()).id for _ in range(count)]

    async def open(self, path: str, flags: int = sftp.WRITING) -> bytes:
        """Open a file."""
        return (await self.replies(*self.send(request(sftp.OPEN, path, flags, ATTRIBUTES))))[0].handle

    @contextlib.contextmanager
    def locked_store(self) -> Iterator[None]:
        """Let no commit through."""
        file = os.open(self.store.with_name(self.store.name + ".lock"), os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def request(kind: int, *fields: Field) -> tuple[int, tuple[Field, ...]]:
    """Return a request."""
    return kind, fields


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    """Return a session of CARE_MANAGER that was greeted."""
    store = tmp_path / "relay.db"
    await prepare_store(store)
    async with open_indoors(store) as indoors, indoors.session() as inner:
        yield Line(inner.session, inner, store, indoors.desks.intake, inner.ended)


async def test_what_follows_a_close_on_its_path_is_answered_behind_it(line: Line) -> None:
    """STAT, SETSTAT, REMOVE and a second OPEN right behind a CLOSE that waits for the store (WinSCP)."""
    handle = await line.open(f"/send/{NAME}")
    with line.locked_store():
        ids = line.send(
            request(sftp.WRITE, handle, Long(0), plan_csv()),
            request(sftp.CLOSE, handle),
            request(sftp.STAT, f"send/./{NAME}"),
            request(sftp.SETSTAT, f"/send/{NAME.lower()}", TIMES),
            request(sftp.REMOVE, f"/send/{NAME}"),
            request(sftp.STAT, f"/send/{HOME_HELP}/{NAME}"),
        )
        probe = line.send(request(sftp.STAT, "/status"))
        assert await line.next_ids(2) == [ids[0], *probe]
    write, close, stat, setstat, remove, last = ids
    assert await asyncio.wait_for(line.said.reply_to(close), PATIENCE_SECONDS)
    assert [reply.id for reply in await line.replies(stat, setstat, remove, last)] == ids[2:]
    assert write < close


async def test_replies_on_one_path_come_in_the_order_of_their_requests(line: Line) -> None:
    """And they mean what they mean in that order: written, accepted, told, not taken back."""
    handle = await line.open(f"/send/{NAME}")
    ids = line.send(
        request(sftp.WRITE, handle, Long(0), plan_csv()),
        request(sftp.FSETSTAT, handle, size_attribute(len(plan_csv()))),
        request(sftp.FSTAT, handle),
        request(sftp.CLOSE, handle),
        request(sftp.FSTAT, handle),
        request(sftp.STAT, f"/send/{NAME}"),
        request(sftp.SETSTAT, f"/send/{NAME}", TIMES),
        request(sftp.REMOVE, f"/send/{NAME}"),
    )
    found = [await line.said.next_reply() for _ in ids]
    assert [reply.id for reply in found] == ids
    assert found[2].size == found[5].size == len(plan_csv())
    assert [found[at].code for at in (0, 1, 3, 6)] == [sftp.OK] * 4
    assert found[4].code != sftp.OK
    assert found[7].text.startswith("transfer.accepted: ")


async def test_a_handle_that_is_being_closed_is_still_waited_for(line: Line) -> None:
    """What asks for it while its CLOSE waits for the store is answered behind that, that there is no such handle."""
    handle = await line.open(f"/send/{NAME}")
    with line.locked_store():
        close = line.send(request(sftp.WRITE, handle, Long(0), plan_csv()), request(sftp.CLOSE, handle))[1]
        stat = line.send(request(sftp.FSTAT, handle))[0]
        probe = line.send(request(sftp.STAT, "/status"))[0]
        assert await line.next_ids(2) == [close - 1, probe]
    assert await line.next_ids(2) == [close, stat]


async def test_of_much_that_comes_at_once_only_the_beginning_is_answered_before_others_have_their_turn(
    line: Line,
) -> None:
    """Who sends hundreds of requests in one piece holds up nobody for longer than a few of them take."""
    ids = line.send(*[request(sftp.STAT, "/status")] * 200)
    assert 0 < len(line.said.replies) < 10
    assert await line.next_ids(len(ids)) == ids


async def test_writes_that_wait_for_the_store_stay_what_they_were_while_more_arrives(line: Line) -> None:
    """More WRITEs than the relay takes ahead of its store, each of other bytes: what is accepted is each in its place."""
    name, pieces = general_name("txt"), [bytes([65 + number]) * CHUNK_BYTES for number in range(24)]
    path = f"/send/{name}"
    handle = await line.open(path)
    with line.locked_store():
        ids = [
            line.send(request(sftp.WRITE, handle, Long(number * CHUNK_BYTES), piece))[0]
            for number, piece in enumerate(pieces)
        ]
        await line.replies(*ids[:10])
    assert {reply.code for reply in await line.replies(*ids[10:])} == {sftp.OK}
    # A file that ends with a full WRITE looks cut off to some.
    end = line.send(request(sftp.WRITE, handle, Long(len(pieces) * CHUNK_BYTES), b"."), request(sftp.CLOSE, handle))
    assert [reply.code for reply in await line.replies(*end)] == [sftp.OK, sftp.OK]
    handle = await line.open(path, sftp.READING)
    for number, piece in enumerate(pieces):
        (read,) = await line.replies(*line.send(request(sftp.READ, handle, Long(number * CHUNK_BYTES), CHUNK_BYTES)))
        assert read.data == piece


async def test_unrelated_paths_do_not_wait_for_each_other(line: Line) -> None:
    """While one commit waits for the store: another upload is written, a status is read, a listing is begun."""
    slow, quick = await line.open(f"/send/{NAME}"), await line.open(f"/send/{OTHER}")
    with line.locked_store():
        first = line.send(request(sftp.WRITE, slow, Long(0), plan_csv()), request(sftp.CLOSE, slow))
        ids = line.send(
            request(sftp.WRITE, quick, Long(0), plan_csv(sender=CARE_MANAGER, recipient=DAY_CARE)),
            request(sftp.STAT, "/receive"),
            request(sftp.OPENDIR, "/receive"),
            request(sftp.OPEN, "/status/sent.json", sftp.READING, ATTRIBUTES),
            request(sftp.REALPATH, "/send"),
            request(sftp.STAT, "/send/none.csv"),
        )
        assert sorted(await line.next_ids(1 + len(ids))) == sorted([first[0], *ids])
    assert (await line.replies(first[1]))[0].code == sftp.OK


async def test_a_listing_behind_a_close_shows_what_was_closed(line: Line) -> None:
    """OPENDIR of send/ waits for the commits that came before it."""
    handles = [await line.open(f"/send/{NAME}"), await line.open(f"/send/{DAY_CARE}/{OTHER}")]
    with line.locked_store():
        closing = line.send(
            request(sftp.WRITE, handles[0], Long(0), plan_csv()),
            request(sftp.WRITE, handles[1], Long(0), plan_csv(recipient=DAY_CARE)),
            *(request(sftp.CLOSE, handle) for handle in handles),
        )
        opening = line.send(request(sftp.OPENDIR, "/send"), request(sftp.OPENDIR, f"/send/{DAY_CARE}"))
        probe = line.send(request(sftp.OPENDIR, "/receive"))
        assert sorted(await line.next_ids(3)) == sorted([*closing[:2], *probe])
    replies = await line.replies(*opening)
    top, folder = [(await line.replies(*line.send(request(sftp.READDIR, each.handle))))[0].names for each in replies]
    assert NAME.encode() in top
    assert OTHER.encode() in folder


async def test_requests_on_one_handle_are_answered_in_order(line: Line) -> None:
    """A hundred READDIRs, FSTATs and a CLOSE on one listing."""
    (opened,) = await line.replies(*line.send(request(sftp.OPENDIR, "/")))
    kinds = [sftp.READDIR, sftp.FSTAT] * 50 + [sftp.CLOSE, sftp.READDIR]
    ids = line.send(*(request(kind, opened.handle) for kind in kinds))
    assert await line.next_ids(len(ids)) == ids


async def test_a_generated_file_keeps_its_size_while_things_happen(line: Line) -> None:
    """What STAT told of a status is what READ gives and what the listing says, also behind an upload (rclone, curl)."""
    handle = await line.open(f"/send/{NAME}")
    stat = line.send(request(sftp.STAT, "/status/sent.csv"))
    ids = line.send(request(sftp.WRITE, handle, Long(0), plan_csv()), request(sftp.CLOSE, handle))
    assert [reply.code for reply in await line.replies(*ids)] == [sftp.OK, sftp.OK]
    told = (await line.replies(*stat))[0].size
    status = await line.open("/status/sent.csv", sftp.READING)
    read, again = await line.replies(
        *line.send(request(sftp.READ, status, Long(0), 200_000), request(sftp.STAT, "/status/sent.csv"))
    )
    assert len(read.data) == again.size == told


async def test_an_accepted_file_cannot_be_shortened(line: Line) -> None:
    """SETSTAT of a time is taken and of another size is refused; nothing changes."""
    handle = await line.open(f"/send/{NAME}")
    line.send(request(sftp.WRITE, handle, Long(0), plan_csv()))
    close, time, same, shorter, after = await line.replies(
        *line.send(
            request(sftp.CLOSE, handle),
            request(sftp.SETSTAT, f"/send/{NAME}", TIMES),
            request(sftp.SETSTAT, f"/send/{NAME}", size_attribute(len(plan_csv()))),
            request(sftp.SETSTAT, f"/send/{NAME}", size_attribute(0)),
            request(sftp.STAT, f"/send/{NAME}"),
        )
    )
    assert [close.code, time.code, same.code] == [sftp.OK] * 3
    assert shorter.text.startswith("transfer.accepted: ")
    assert after.size == len(plan_csv())


async def test_a_name_that_was_opened_again_belongs_to_the_later_handle(line: Line) -> None:
    """The earlier handle gets errors, also at its CLOSE, and the transfer's STAT does not repeat them."""
    first = await line.open(f"/send/{NAME}")
    second = await line.open(f"/send/{NAME}")
    lost, written, failed, closed, stat = await line.replies(
        *line.send(
            request(sftp.WRITE, first, Long(0), b"lost"),
            request(sftp.WRITE, second, Long(0), plan_csv()),
            request(sftp.CLOSE, first),
            request(sftp.CLOSE, second),
            request(sftp.STAT, f"/send/{NAME}"),
        )
    )
    assert lost.code == failed.code == sftp.FAILURE
    assert written.code == closed.code == sftp.OK
    assert stat.size == len(plan_csv())


async def test_a_rename_waits_for_both_its_paths(line: Line) -> None:
    """RENAME onto a name that is being committed is answered behind that commit, and so is what follows."""
    handle = await line.open(f"/send/{NAME}")
    with line.locked_store():
        closing = line.send(request(sftp.WRITE, handle, Long(0), plan_csv()), request(sftp.CLOSE, handle))
        ids = line.send(
            request(sftp.RENAME, "/send/none.part", f"/send/{NAME}"),
            request(sftp.EXTENDED, "posix-rename@openssh.com", "/send/none.part", f"/send/{NAME}"),
            request(sftp.STAT, "/send/none.part"),
        )
        probe = line.send(request(sftp.STAT, "/"))
        assert await line.next_ids(2) == [closing[0], *probe]
    assert await line.next_ids(4) == [closing[1], *ids]


async def test_a_session_that_ends_leaves_no_upload_in_memory(line: Line) -> None:
    """What it had open is kept in the store; the desk holds neither the upload nor its bytes any longer."""
    for number in range(3):
        handle = await line.open(f"/send/{plan_name(number=number)}")
        (written,) = line.send(request(sftp.WRITE, handle, Long(0), plan_csv()))
        await line.replies(written)
    assert len(line.intake._underway._live) == 3
    line.session.connection_lost(None)
    await asyncio.wait_for(line.ended.wait(), PATIENCE_SECONDS)
    assert line.intake._underway._live == {}
