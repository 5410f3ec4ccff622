"""Temporary names: nothing is routed before the RENAME, whatever the program, and what is left between stays right.

WinSCP, rclone from 1.63 on and gvfs do not run here: what they send is sent request by request.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from conftest import MakeHouse
from house import (
    CARE_MANAGER,
    DAY_CARE,
    HOME_HELP,
    SUSPENDED,
    UNREGISTERED,
    House,
    general_name,
    plan_csv,
    plan_name,
)
from raw_sftp import (
    ATTRS,
    CLOSE,
    EXTENDED,
    FAILURE,
    FSTAT,
    HANDLE,
    LSTAT,
    NO_ATTRIBUTES,
    NO_SUCH_FILE,
    OK,
    OPEN,
    READING,
    REMOVE,
    RENAME,
    SETSTAT,
    STAT,
    WRITE,
    WRITING,
    Long,
    Raw,
    RawSftp,
    Reply,
    open_raw,
)

from relay.model import OfficeNumber

RESUMING = 0x02 | 0x08
EXCLUSIVE = 0x02 | 0x08 | 0x20
SENT_AT = 1_790_000_000
TIMES = Raw(struct.pack(">III", 0x08, SENT_AT, SENT_AT))
SMALL, LARGE = plan_csv(60_000), plan_csv(700_000)
NAME = plan_name()
TARGET = f"/send/{NAME}"
PARTS = [f"{{}}{end}" for end in (".filepart", ".FilePart", ".1a2b3c4d.partial", ".partial", ".part", ".tmp", ".TMP")]
PARTS += [".in.{}", ".IN.{}"]


@asynccontextmanager
async def calling(house: House, office: OfficeNumber = CARE_MANAGER) -> AsyncIterator[RawSftp]:
    """Log in and open a raw channel."""
    async with house.dial(office) as connection, open_raw(connection) as raw:
        yield raw


async def write(raw: RawSftp, handle: bytes, content: bytes, start: int = 0) -> None:
    """Send WRITEs of 32 KiB without waiting in between, as everybody does; each is answered OK."""
    asked = [
        raw.ask(WRITE, handle, Long(start + at), content[at : at + 32_768]) for at in range(0, len(content), 32_768)
    ]
    for number in asked:
        assert (await raw.reply_to(number)).code == OK


def mtime(reply: Reply) -> int:
    """Return the time of an ATTRS that holds size, permissions and times."""
    assert reply.type == ATTRS, reply
    return int(struct.unpack_from(">IQIII", reply.rest)[4])


async def posix_rename(raw: RawSftp, source: str, target: str) -> Reply:
    """Send what rclone sends in the place of RENAME."""
    return await raw.call(EXTENDED, "posix-rename@openssh.com", source, target)


async def stage(raw: RawSftp, path: str, content: bytes) -> None:
    """Upload *content* to a temporary name and close it."""
    handle = await raw.open(path)
    await write(raw, handle, content)
    assert (await raw.call(CLOSE, handle)).code == OK


async def assert_nobody_has_anything(house: House) -> None:
    """Nothing was routed, and no other office sees anything of it."""
    assert house.transfers() == []
    for office in (HOME_HELP, DAY_CARE):
        async with calling(house, office) as raw:
            for folder in ("/send", "/receive", "/new", "/done"):
                assert await raw.list(folder) == [".", ".."]


async def assert_arrived(house: House, content: bytes, name: str = NAME) -> None:
    """The recipient has it once, byte for byte."""
    assert len(house.transfers()) == 1
    async with calling(house, HOME_HELP) as raw:
        assert await raw.get(f"/new/{name}") == content


# --- WinSCP ------------------------------------------------------------------------------------------------------


async def test_winscp_small_file_with_its_time_right_behind_close(house: House) -> None:
    """Below 100 KB: the final name, and a SETSTAT that does not wait for the reply to CLOSE."""
    async with calling(house) as raw:
        handle = await raw.open(TARGET)
        await write(raw, handle, SMALL)
        close, times = raw.ask(CLOSE, handle), raw.ask(SETSTAT, TARGET, TIMES)
        assert (await raw.reply_to(close)).code == OK
        assert (await raw.reply_to(times)).code == OK
        assert mtime(await raw.call(LSTAT, TARGET)) == SENT_AT
        assert await raw.list("/send") == [".", "..", NAME]
    await assert_arrived(house, SMALL)


async def test_winscp_large_file_is_routed_by_its_rename(house: House) -> None:
    """From 100 KB on: until the RENAME nobody sees it but its owner, who finds it by path and in the listing."""
    part = f"{TARGET}.filepart"
    async with calling(house) as raw:
        assert (await raw.call(LSTAT, TARGET)).code == NO_SUCH_FILE
        assert (await raw.call(LSTAT, part)).code == NO_SUCH_FILE
        handle = await raw.open(part)
        await write(raw, handle, LARGE)
        assert (await raw.call(LSTAT, part)).size == len(LARGE)
        await assert_nobody_has_anything(house)
        assert (await raw.call(CLOSE, handle)).code == OK
        await assert_nobody_has_anything(house)
        assert await raw.list("/send") == [".", "..", f"{NAME}.filepart"]
        rename, times = raw.ask(RENAME, part, TARGET), raw.ask(SETSTAT, TARGET, TIMES)
        assert (await raw.reply_to(rename)).code == OK
        assert (await raw.reply_to(times)).code == OK
        assert (await raw.call(LSTAT, part)).code == NO_SUCH_FILE
        told = await raw.call(LSTAT, TARGET)
        assert (told.size, mtime(told)) == (len(LARGE), SENT_AT)
        assert await raw.list("/send") == [".", "..", NAME]
    await assert_arrived(house, LARGE)


@pytest.mark.parametrize("is_same", [True, False], ids=["same bytes", "other bytes"])
async def test_winscp_overwrites_what_was_accepted(house: House, *, is_same: bool) -> None:
    """It removes the target before it renames: the accepted file stays, and the RENAME says what is true."""
    part, second = f"{TARGET}.filepart", LARGE if is_same else plan_csv(710_000)
    async with calling(house) as raw:
        assert (await raw.put(TARGET, LARGE)).code == OK
        assert (await raw.call(LSTAT, TARGET)).size == len(LARGE)
        assert (await raw.call(LSTAT, part)).code == NO_SUCH_FILE
        await stage(raw, part, second)
        assert (await raw.call(REMOVE, TARGET)).code == OK
        renamed = await raw.call(RENAME, part, TARGET)
        if is_same:
            assert renamed.code == OK
        else:
            assert renamed.text.startswith("transfer.conflict: ")
            assert (await raw.call(RENAME, part, TARGET)).text == renamed.text
    await assert_arrived(house, LARGE)


@pytest.mark.parametrize("is_still_open", [True, False], ids=["still open", "closed"])
async def test_winscp_goes_on_with_a_part(house: House, *, is_still_open: bool) -> None:
    """A new connection finds the part, opens it without TRUNC and writes on; the old one can do nothing any more."""
    part, middle = f"{TARGET}.filepart", 10 * 32_768
    async with house.dial() as first, open_raw(first) as old:
        stale = await old.open(part)
        await write(old, stale, LARGE[:middle])
        if not is_still_open:
            first.abort()
            await first.wait_closed()
            house.wait_for_event("upload.left")
        async with calling(house) as raw:
            assert (await raw.call(LSTAT, TARGET)).code == NO_SUCH_FILE
            assert (await raw.call(LSTAT, part)).size == middle
            handle = await raw.open(part, RESUMING)
            if is_still_open:
                refused = await old.call(WRITE, stale, Long(middle), b"wrong")
                assert refused.text.startswith("upload.unfinished: ")
                assert (await old.call(CLOSE, stale)).code == FAILURE
            await write(raw, handle, LARGE[middle:], middle)
            assert (await raw.call(CLOSE, handle)).code == OK
            assert (await raw.call(RENAME, part, TARGET)).code == OK
            assert (await raw.call(SETSTAT, TARGET, TIMES)).code == OK
    await assert_arrived(house, LARGE)


async def test_winscp_abort_of_a_large_file_leaves_nothing(house: House) -> None:
    """CLOSE, then REMOVE of the part: it is not there any more, and never was anywhere else."""
    part = f"{TARGET}.filepart"
    async with calling(house) as raw:
        await stage(raw, part, LARGE[:400_000])
        assert (await raw.call(REMOVE, part)).code == OK
        assert (await raw.call(LSTAT, part)).code == NO_SUCH_FILE
        assert (await raw.call(RENAME, part, TARGET)).code == NO_SUCH_FILE
        assert await raw.list("/send") == [".", ".."]
    await assert_nobody_has_anything(house)


async def test_winscp_abort_of_a_small_file_delivers_nothing(house: House) -> None:
    """CLOSE of a table that is cut off is refused, and the REMOVE behind it is answered OK."""
    async with calling(house) as raw:
        handle = await raw.open(TARGET)
        await write(raw, handle, SMALL[: len(SMALL) // 2])
        close, remove = raw.ask(CLOSE, handle), raw.ask(REMOVE, TARGET)
        assert (await raw.reply_to(close)).text.startswith("content.truncated: ")
        assert (await raw.reply_to(remove)).code == OK
    assert house.transfers() == []


# --- rclone, gvfs, others ----------------------------------------------------------------------------------------


async def test_rclone_partial_keeps_its_time_and_is_routed_by_posix_rename(house: House) -> None:
    """1.63 and later: SETSTAT and STAT on the temporary name, posix-rename, STAT on the final one."""
    part = f"{TARGET}.0a1b2c3d.partial"
    async with calling(house) as raw:
        assert (await raw.call(STAT, TARGET)).code == NO_SUCH_FILE
        assert (await raw.call(STAT, "/send")).type == ATTRS
        await stage(raw, part, LARGE)
        assert (await raw.call(SETSTAT, part, TIMES)).code == OK
        told = await raw.call(STAT, part)
        assert (told.size, mtime(told)) == (len(LARGE), SENT_AT)
        await assert_nobody_has_anything(house)
        assert (await posix_rename(raw, part, TARGET)).code == OK
        told = await raw.call(STAT, TARGET)
        assert (told.size, mtime(told)) == (len(LARGE), SENT_AT)
    await assert_arrived(house, LARGE)


async def test_rclone_cuts_a_long_name_and_is_judged_by_the_final_one(house: House) -> None:
    """A name of more than 100 bytes loses its end to the suffix: nothing of it is known before the RENAME."""
    name = general_name(label="サービス提供票別表の控えと説明資料一式をまとめたもの最終版")
    assert len(name.encode()) > 100
    cut = name.encode()[: len(name.encode()) - 17].decode(errors="ignore")
    part = f"/send/{cut}.0a1b2c3d.partial"
    content = b"%PDF-1.7\n%%EOF\n"
    async with calling(house) as raw:
        await stage(raw, part, content)
        assert (await posix_rename(raw, part, f"/send/{plan_name(recipient=UNREGISTERED)}")).code == FAILURE
        assert (await posix_rename(raw, part, f"/send/{name}")).code == OK
    await assert_arrived(house, content, name)


@pytest.mark.parametrize("is_posix", [True, False], ids=["posix-rename", "RENAME"])
async def test_gvfs_name_says_nothing_until_the_rename(house: House, *, is_posix: bool) -> None:
    """A file manager's `.giosaveXXXXXX` is judged by the name that it gets, and can get another one."""
    part = "/send/.giosaveQ7xK2m"
    wrong = f"/send/{plan_name(recipient=UNREGISTERED)}"
    async with calling(house) as raw:
        handle = await raw.open(part, EXCLUSIVE)
        await write(raw, handle, SMALL)
        assert (await raw.call(FSTAT, handle)).size == len(SMALL)
        assert (await raw.call(CLOSE, handle)).code == OK
        await assert_nobody_has_anything(house)
        for _ in range(2):
            refused = await raw.call(RENAME, part, wrong)
            assert refused.text.startswith("route.recipient_unknown: ")
        renamed = await posix_rename(raw, part, TARGET) if is_posix else await raw.call(RENAME, part, TARGET)
        assert renamed.code == OK
    await assert_arrived(house, SMALL)


@pytest.mark.parametrize("pattern", PARTS)
async def test_every_temporary_name_in_any_case_waits_for_its_rename(pattern: str, house: House) -> None:
    """The part of a name that programs put around it is known in upper and lower case, at the top and in a folder."""
    free = "提供票の控え.pdf"
    async with calling(house) as raw:
        await stage(raw, f"/send/{pattern.format(NAME)}", SMALL)
        await stage(raw, f"/send/{HOME_HELP}/{pattern.format(free)}", b"%PDF-1.7\n%%EOF\n")
        assert house.transfers() == []
        assert (await raw.call(RENAME, f"/send/{pattern.format(NAME)}", TARGET)).code == OK
        source, target = f"/send/{HOME_HELP}/{pattern.format(free)}", f"/send/{HOME_HELP}/{free}"
        assert (await raw.call(RENAME, source, target)).code == OK
    assert sorted(transfer.name for transfer in house.transfers()) == sorted([NAME, free])


async def test_name_that_will_be_refused_is_refused_under_its_temporary_name(house: House) -> None:
    """Every fault that the final name shows is told at OPEN, in the same words, with every temporary name."""
    wrong = [
        plan_name(recipient=UNREGISTERED),
        plan_name(recipient=SUSPENDED),
        plan_name(sender=HOME_HELP, recipient=DAY_CARE),
        general_name("exe"),
        "見積書.csv",
        "a:b.csv",
    ]
    async with calling(house) as raw:
        for name in wrong:
            said = await raw.call(OPEN, f"/send/{name}", WRITING, Raw(NO_ATTRIBUTES))
            assert said.code == FAILURE
            for pattern in PARTS:
                again = await raw.call(OPEN, f"/send/{pattern.format(name)}", WRITING, Raw(NO_ATTRIBUTES))
                assert (again.code, again.text) == (said.code, said.text)
        notes = [f"{name}.refused.txt" for name in wrong if name != "a:b.csv"]
        assert sorted(await raw.list("/send")) == sorted([".", "..", *notes])
    names = {refusal.name for refusal in house.refusals()}
    assert names == set(wrong)


async def test_temporary_name_of_something_generated_or_elsewhere_is_no_way_in(house: House) -> None:
    """A RENAME takes a file nowhere but to a name in send/ that is no temporary one."""
    part = f"{TARGET}.filepart"
    async with calling(house) as raw:
        await stage(raw, part, SMALL)
        for target in ("/receive/x.csv", f"/new/{NAME}", "/status/sent.csv", "/README.txt", "/x", "/send", "/"):
            assert (await raw.call(RENAME, part, target)).type != HANDLE
            assert (await raw.call(RENAME, part, target)).code != OK, target
        assert (await raw.call(RENAME, part, f"{TARGET}.tmp")).code == FAILURE
        assert (await raw.call(LSTAT, part)).size == len(SMALL)
        assert (await raw.call(RENAME, part, TARGET)).code == OK
    await assert_arrived(house, SMALL)


# --- replies that are lost, offices that look, servers that die --------------------------------------------------


async def test_rename_whose_reply_was_lost_can_be_repeated(house: House) -> None:
    """On a new connection the same RENAME is answered OK once more; any other one is not, and nothing comes twice."""
    part, other = f"{TARGET}.filepart", f"/send/{plan_name(number=1)}"
    async with calling(house) as raw:
        await stage(raw, part, LARGE)
        assert (await raw.call(RENAME, part, TARGET)).code == OK
    async with calling(house) as raw:
        assert (await raw.call(RENAME, part, TARGET)).code == OK
        assert (await posix_rename(raw, part, TARGET)).code == OK
        assert (await raw.call(RENAME, part, other)).code == NO_SUCH_FILE
        assert (await raw.call(RENAME, f"{TARGET}.part", TARGET)).code == NO_SUCH_FILE
    async with calling(house, HOME_HELP) as raw:
        assert (await raw.call(RENAME, part, TARGET)).code != OK
    await assert_arrived(house, LARGE)


async def test_part_is_seen_by_nobody_but_its_owner(house: House) -> None:
    """Other offices do not find, list, read, remove or rename it, and have parts of the same name of their own."""
    part = f"{TARGET}.filepart"
    async with calling(house) as mine:
        await stage(mine, part, LARGE)
        for office in (HOME_HELP, DAY_CARE):
            async with calling(house, office) as raw:
                for kind in (LSTAT, STAT, REMOVE):
                    assert (await raw.call(kind, part)).code == NO_SUCH_FILE
                assert (await raw.call(OPEN, part, READING, Raw(NO_ATTRIBUTES))).code == NO_SUCH_FILE
                assert (await raw.call(SETSTAT, part, TIMES)).code == NO_SUCH_FILE
                assert (await raw.call(RENAME, part, TARGET)).code != OK
                assert await raw.list("/send") == [".", ".."]
                handle = await raw.open("/send/.giosaveQ7xK2m")
                await write(raw, handle, b"not theirs")
                assert (await raw.call(CLOSE, handle)).code == OK
        assert (await mine.call(LSTAT, "/send/.giosaveQ7xK2m")).code == NO_SUCH_FILE
        assert (await mine.call(LSTAT, part)).size == len(LARGE)
        assert (await mine.call(OPEN, part, READING, Raw(NO_ATTRIBUTES))).code == NO_SUCH_FILE
        assert (await mine.call(RENAME, part, TARGET)).code == OK
    await assert_arrived(house, LARGE)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_part_that_was_closed_survives_the_server(end: str, make_house: MakeHouse) -> None:
    """Between CLOSE and RENAME the server ends, with notice or without: afterwards the RENAME delivers."""
    house, part = make_house(), f"{TARGET}.filepart"
    house.start()
    async with calling(house) as raw:
        await stage(raw, part, LARGE)
        getattr(house, end)()
    house.start()
    await assert_nobody_has_anything(house)
    async with calling(house) as raw:
        assert (await raw.call(LSTAT, part)).size == len(LARGE)
        assert (await raw.call(RENAME, part, TARGET)).code == OK
    await assert_arrived(house, LARGE)


@pytest.mark.parametrize("name", [NAME, f"{NAME}.filepart"])
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_upload_that_the_server_ended_under_is_gone_or_right(end: str, name: str, make_house: MakeHouse) -> None:
    """What STAT then tells of can be gone on with; a server that had time to keep it has kept all of it."""
    house, path, middle = make_house(), f"/send/{name}", 12 * 32_768
    house.start()
    async with calling(house) as raw:
        handle = await raw.open(path)
        await write(raw, handle, LARGE[:middle])
        getattr(house, end)()
    house.start()
    await assert_nobody_has_anything(house)
    async with calling(house) as raw:
        told = await raw.call(LSTAT, path)
        there = told.size if told.type == ATTRS else 0
        assert there == (middle if end == "stop" else 0)
        handle = await raw.open(path, RESUMING)
        await write(raw, handle, LARGE[there:], there)
        assert (await raw.call(CLOSE, handle)).code == OK
        if name != NAME:
            assert (await raw.call(RENAME, path, TARGET)).code == OK
    await assert_arrived(house, LARGE)
