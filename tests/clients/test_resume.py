"""Uploads that are cut off and gone on with, request by request and at the prompt."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cable import cable_to
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, general_name, plan_csv, plan_name
from programs import need
from raw_sftp import (
    ATTRS,
    CLOSE,
    FAILURE,
    FSETSTAT,
    FSTAT,
    LSTAT,
    NO_SUCH_FILE,
    OK,
    SETSTAT,
    STAT,
    WRITE,
    Long,
    Raw,
    RawSftp,
    open_raw,
    size_attribute,
)
from test_cut_off import STOPPED_AFTER, Terminal

from relay.model import OfficeNumber

W, APPEND, CREAT, TRUNC = 0x02, 0x04, 0x08, 0x10
NAME = plan_name()
TARGET = f"/send/{NAME}"
CONTENT = plan_csv(900_000)
# In the middle of the second chunk.
CUT = 11 * 32_768


@asynccontextmanager
async def calling(house: House, office: OfficeNumber = CARE_MANAGER) -> AsyncIterator[RawSftp]:
    """Log in and open a raw channel."""
    async with house.dial(office) as connection, open_raw(connection) as raw:
        yield raw


async def write(raw: RawSftp, handle: bytes, content: bytes, start: int = 0) -> None:
    """Send WRITEs of 32 KiB, each of which is answered OK."""
    for at in range(0, len(content), 32_768):
        assert (await raw.call(WRITE, handle, Long(start + at), content[at : at + 32_768])).code == OK


async def cut_off(house: House, content: bytes = CONTENT[:CUT], path: str = TARGET) -> None:
    """Upload *content* and lose the connection before the CLOSE."""
    count = len(house.journal_lines("upload.left"))
    async with house.dial() as connection, open_raw(connection) as raw:
        await write(raw, await raw.open(path), content)
        connection.abort()
        await connection.wait_closed()
    house.wait_for_event("upload.left", count + 1)


async def assert_arrived(house: House, content: bytes = CONTENT, name: str = NAME) -> None:
    """The recipient has it once, byte for byte, and nothing unfinished is left."""
    assert len(house.transfers()) == 1
    async with calling(house, HOME_HELP) as raw:
        assert await raw.get(f"/new/{name}") == content
    assert house.ask(lambda ledger: ledger.list_partials(CARE_MANAGER, None)) == []


# --- request by request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags", [W, W | CREAT, W | APPEND, W | APPEND | CREAT], ids=["W", "W|C", "W|APPEND", "W|APPEND|C"]
)
async def test_every_way_to_open_without_truncation_goes_on(flags: int, house: House) -> None:
    """psftp, lftp and WinSCP, curl, OpenSSH: what STAT and FSTAT tell is where the rest of the file goes."""
    await cut_off(house)
    async with calling(house) as raw:
        assert (await raw.call(STAT, TARGET)).size == CUT
        assert await raw.list("/send") == [".", "..", NAME]
        handle = await raw.open(TARGET, flags)
        assert (await raw.call(FSTAT, handle)).size == CUT
        await write(raw, handle, CONTENT[CUT:], CUT)
        assert (await raw.call(CLOSE, handle)).code == OK
        assert (await raw.call(STAT, TARGET)).size == len(CONTENT)
    await assert_arrived(house)


@pytest.mark.parametrize("offset", [0, 5, CUT, 1 << 40])
async def test_append_goes_on_at_the_end_whatever_its_offset(offset: int, house: House) -> None:
    """`curl -a` counts from 0, others from where they like: APPEND means behind what is there."""
    await cut_off(house)
    async with calling(house) as raw:
        handle = await raw.open(TARGET, W | APPEND)
        for at in range(CUT, len(CONTENT), 32_768):
            piece = CONTENT[at : at + 32_768]
            assert (await raw.call(WRITE, handle, Long(offset + at - CUT), piece)).code == OK
        assert (await raw.call(CLOSE, handle)).code == OK
    await assert_arrived(house)


async def test_append_goes_on_where_stat_said_although_more_has_come_since(house: House) -> None:
    """The first connection still delivers between STAT and OPEN of the second: no byte comes twice."""
    async with calling(house) as old, calling(house) as new:
        stale = await old.open(TARGET)
        await write(old, stale, CONTENT[:CUT])
        assert (await new.call(STAT, TARGET)).size == CUT
        await write(old, stale, CONTENT[CUT : 2 * CUT], CUT)
        handle = await new.open(TARGET, W | APPEND | CREAT)
        await write(new, handle, CONTENT[CUT:], CUT)
        assert (await old.call(WRITE, stale, Long(2 * CUT), b"wrong")).code == FAILURE
        assert (await old.call(CLOSE, stale)).code == FAILURE
        assert (await new.call(CLOSE, handle)).code == OK
    await assert_arrived(house)


async def test_old_connection_gets_errors_and_changes_nothing(house: House) -> None:
    """After a take-over WRITE, FSETSTAT and CLOSE on the old handle fail; the new upload is as if it had not been."""
    async with calling(house) as old, calling(house) as new:
        stale = await old.open(TARGET)
        await write(old, stale, CONTENT[:CUT])
        handle = await new.open(TARGET, W)
        for number in (
            old.ask(WRITE, stale, Long(0), b"wrong"),
            old.ask(WRITE, stale, Long(CUT), b"wrong"),
            old.ask(FSETSTAT, stale, size_attribute(0)),
            old.ask(CLOSE, stale),
        ):
            assert (await old.reply_to(number)).text.startswith("upload.unfinished: ")
        assert (await new.call(FSTAT, handle)).size == CUT
        await write(new, handle, CONTENT[CUT:], CUT)
        assert (await new.call(CLOSE, handle)).code == OK
        assert (await old.call(STAT, TARGET)).size == len(CONTENT)
    await assert_arrived(house)


async def test_truncation_starts_afresh(house: House) -> None:
    """OPEN with TRUNC forgets what was kept, also under the hands of the connection that still writes it."""
    await cut_off(house)
    async with calling(house) as old, calling(house) as new:
        stale = await old.open(TARGET, W)
        handle = await new.open(TARGET, W | CREAT | TRUNC)
        assert (await new.call(FSTAT, handle)).size == 0
        assert (await old.call(CLOSE, stale)).code == FAILURE
        await write(new, handle, CONTENT[: len(CONTENT)])
        assert (await new.call(CLOSE, handle)).code == OK
    await assert_arrived(house)


async def test_hole_is_refused(house: House) -> None:
    """Going on behind the end of what is there, or closing before the size that was announced, delivers nothing."""
    await cut_off(house)
    async with calling(house) as raw:
        handle = await raw.open(TARGET, W)
        assert (await raw.call(WRITE, handle, Long(CUT + 1), CONTENT[CUT + 1 :][:1000])).code == OK
        assert (await raw.call(CLOSE, handle)).text.startswith("upload.hole: ")
        handle = await raw.open(TARGET, W | CREAT)
        await write(raw, handle, CONTENT[:CUT])
        assert (await raw.call(FSETSTAT, handle, size_attribute(len(CONTENT)))).code == OK
        assert (await raw.call(CLOSE, handle)).text.startswith("upload.hole: ")
    assert house.transfers() == []


async def test_partial_is_seen_by_its_owner_alone(house: House) -> None:
    """Nobody else finds or lists it; its owner's other sessions and programs do."""
    await cut_off(house)
    for office in (HOME_HELP, DAY_CARE):
        async with calling(house, office) as raw:
            for kind in (STAT, LSTAT):
                assert (await raw.call(kind, TARGET)).code == NO_SUCH_FILE
            for folder in ("/send", "/receive", "/new", "/done"):
                assert await raw.list(folder) == [".", ".."]
    assert NAME in house.sftp(CARE_MANAGER, "ls -l send").stdout


async def test_name_that_is_sent_again_is_listed_once(house: House) -> None:
    """An accepted file and an unfinished repeat of it are one entry, of the size that STAT tells."""
    async with calling(house) as raw:
        assert (await raw.put(TARGET, CONTENT)).code == OK
    await cut_off(house)
    async with calling(house) as raw:
        assert await raw.list("/send") == [".", "..", NAME]
        assert (await raw.call(STAT, TARGET)).size == CUT
        assert (await raw.put(TARGET, CONTENT)).code == OK
        assert (await raw.call(STAT, TARGET)).size == len(CONTENT)
    await assert_arrived(house)


async def test_size_set_by_path_is_kept_to(house: House) -> None:
    """Sshfs truncates by path before it writes anew: nothing of the old bytes hangs behind the new ones."""
    await cut_off(house, CONTENT)
    short = plan_csv(30_000)
    async with calling(house) as raw:
        assert (await raw.call(SETSTAT, TARGET, size_attribute(len(CONTENT) + 1))).code == FAILURE
        assert (await raw.call(SETSTAT, TARGET, Raw(struct.pack(">II", 0x04, 0o100644)))).code == OK
        assert (await raw.call(STAT, TARGET)).size == len(CONTENT)
        assert (await raw.call(SETSTAT, TARGET, size_attribute(0))).code == OK
        handle = await raw.open(TARGET, W | CREAT)
        await write(raw, handle, short)
        assert (await raw.call(CLOSE, handle)).code == OK
    await assert_arrived(house, short)


# --- the programs ------------------------------------------------------------------------------------------------

# What each program does with what was cut off is in `test_matrix.py`.


async def test_put_a_goes_on_like_reput(house: House, tmp_path: Path) -> None:
    """The other word that OpenSSH's sftp has for it."""
    need("sftp")
    file = tmp_path / NAME
    file.write_bytes(CONTENT)
    await cut_off(house)
    done = house.sftp(CARE_MANAGER, f'put -a "{file}" send/{NAME}')
    assert done.returncode == 0, done.stderr
    await assert_arrived(house)


def test_ctrl_c_and_reput_at_one_prompt(house: House, tmp_path: Path) -> None:
    """A clerk interrupts `put` and goes on in the same session: STAT finds what was kept, the rest is sent."""
    need("sftp")
    file, name = tmp_path / "large", general_name("txt")
    content = (b"line\r\n" * 3_000_000) + b"end"
    file.write_bytes(content)
    with cable_to(house) as (cable, held), Terminal(held.sftp_command(CARE_MANAGER)) as terminal:
        terminal.wait_for("sftp> ")
        cable.hold("up", after=STOPPED_AFTER)
        terminal.type(f'put "{file}" send/{name}\n')
        cable.wait_until_held("up")
        terminal.type("\x03")
        terminal.wait_for("Interrupt")
        cable.release()
        terminal.wait_for("sftp> ")
        assert house.transfers() == []
        sent_before = cable.passed["up"]
        terminal.type(f'reput "{file}" send/{name}\n')
        terminal.wait_for("sftp> ")
        terminal.type("bye\n")
        said = terminal.read_to_end()
        assert cable.passed["up"] - sent_before < len(content) - STOPPED_AFTER // 2, said
    (transfer,) = house.transfers()
    assert transfer.size_bytes == len(content)
    assert house.sftp(HOME_HELP, f'get new/{name} "{tmp_path}/fetched"').returncode == 0
    assert (tmp_path / "fetched").read_bytes() == content


async def test_reput_of_what_is_not_there_fails_at_the_client(house: House, tmp_path: Path) -> None:
    """Nothing to go on with is told as nothing: code 2, upon which every program knows what to do."""
    need("sftp")
    file = tmp_path / NAME
    file.write_bytes(CONTENT)
    done = house.sftp(CARE_MANAGER, f'reput "{file}" send/{NAME}')
    assert done.returncode == 1
    assert "No such file" in done.stderr
    async with calling(house) as raw:
        assert (await raw.call(STAT, TARGET)).code == NO_SUCH_FILE
        assert (await raw.call(STAT, "/send")).type == ATTRS
    assert house.transfers() == []
