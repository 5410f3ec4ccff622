"""Programs that remove before they rename, and programs that carry both ways: nothing is lost, nothing goes round."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bulk_programs import lftp, rclone
from house import CARE_MANAGER, HOME_HELP, Completed, House, plan_csv, plan_name
from programs import Said, need, said
from raw_sftp import (
    CLOSE,
    FSETSTAT,
    LSTAT,
    OK,
    REALPATH,
    REMOVE,
    STAT,
    WRITE,
    Long,
    Raw,
    RawSftp,
    open_raw,
)
from replayed import WinScp

from relay.model import OfficeNumber

NAME = plan_name()
TARGET = f"/send/{NAME}"
GOOD = plan_csv(300_000)
OTHER = plan_csv(290_000).replace(b",0900,0945,", b",1000,1045,")


@asynccontextmanager
async def calling(house: House, office: OfficeNumber = CARE_MANAGER) -> AsyncIterator[RawSftp]:
    """Log in and open a raw channel."""
    async with house.dial(office) as connection, open_raw(connection) as raw:
        yield raw


async def received(house: House) -> bytes:
    """Return what the recipient finds under the name."""
    async with calling(house, HOME_HELP) as raw:
        return await raw.get(f"/receive/{NAME}")


# --- REMOVE, and the connection is lost before the RENAME -------------------------------------------------------


async def write(raw: RawSftp, path: str, content: bytes) -> bytes:
    """Open *path* and write *content*; return the handle."""
    handle = await raw.open(path)
    for at in range(0, len(content), 32_768):
        assert (await raw.call(WRITE, handle, Long(at), content[at : at + 32_768])).code == OK
    return handle


async def winscp_until_removed(raw: RawSftp, content: bytes) -> None:
    """Send what WinSCP sends over a file that is there, up to its REMOVE."""
    part = f"{TARGET}.filepart"
    await raw.call(REALPATH, ".")
    await raw.call(LSTAT, TARGET)
    await raw.call(LSTAT, part)
    assert (await raw.call(CLOSE, await write(raw, part, content))).code == OK
    assert (await raw.call(REMOVE, TARGET)).code == OK


async def lftp_until_removed(raw: RawSftp, content: bytes) -> None:
    """Send what lftp sends with use-temp-file, up to its REMOVE."""
    await raw.call(REALPATH, ".")
    await raw.call(STAT, "/send")
    await raw.call(STAT, "/send/.")
    handle = await write(raw, f"/send/.in.{NAME}", content)
    sized = Raw(struct.pack(">IQII", 0x09, len(content), 1_790_000_000, 1_790_000_000))
    assert (await raw.call(FSETSTAT, handle, sized)).code == OK
    assert (await raw.call(CLOSE, handle)).code == OK
    assert (await raw.call(REMOVE, TARGET)).code == OK


def winscp_again(house: House, file: Path) -> Said:
    """Let WinSCP's user answer "Reconnect"."""
    return WinScp().put_on(house, CARE_MANAGER, file, TARGET.removeprefix("/"))


def lftp_again(house: House, file: Path) -> Said:
    """Run the real lftp, as its script does the next time."""
    need("lftp")
    return said(lftp(house, f'put "{file}" -o {TARGET}', CARE_MANAGER, "xfer:use-temp-file yes"))


REMOVERS = {"WinSCP": (winscp_until_removed, winscp_again), "lftp": (lftp_until_removed, lftp_again)}


@pytest.mark.parametrize("is_same", [True, False], ids=["same bytes", "other bytes"])
@pytest.mark.parametrize("by", REMOVERS)
async def test_connection_lost_between_remove_and_rename_takes_nothing_back(
    by: str, house: House, tmp_path: Path, *, is_same: bool
) -> None:
    """After the REMOVE that was answered OK the recipient still has the first file, and the next try is told the truth."""
    content, file = GOOD if is_same else OTHER, tmp_path / NAME
    file.write_bytes(content)
    until_removed, again = REMOVERS[by]
    async with calling(house) as raw:
        assert (await raw.put(TARGET, GOOD)).code == OK
    async with house.dial() as connection, open_raw(connection) as raw:
        await until_removed(raw, content)
        connection.abort()
        await connection.wait_closed()
    house.wait_for_event("session.closed", 2)
    assert await received(house) == GOOD
    async with calling(house) as raw:
        assert (await raw.call(STAT, TARGET)).size == len(GOOD)
    told = again(house, file)
    assert told.is_done == is_same, told.text
    assert is_same or "transfer.conflict: " in told.text
    (transfer,) = house.transfers()
    assert transfer.name == NAME
    assert await received(house) == GOOD


# --- both ways --------------------------------------------------------------------------------------------------

Way = Callable[[House, Path], Completed]
BOTH_WAYS: dict[str, tuple[Way, Way]] = {
    "rclone": (
        lambda house, folder: rclone(house, "copy", str(folder), "relay:/send"),
        lambda house, folder: rclone(house, "copy", "relay:/send", str(folder)),
    ),
    "lftp": (
        lambda house, folder: lftp(house, f'mirror -R --no-perms "{folder}" /send'),
        lambda house, folder: lftp(house, f'mirror /send "{folder}"'),
    ),
}


@pytest.mark.parametrize("by", BOTH_WAYS)
def test_notes_do_not_go_round_and_round(by: str, house: House, tmp_path: Path) -> None:
    """A folder kept alike in both directions, with a file that is refused: its note comes, goes back to nowhere, ends."""
    need(by)
    up, down = BOTH_WAYS[by]
    folder, broken = tmp_path / "folder", plan_name(number=1)
    note = f"{broken}.refused.txt"
    folder.mkdir()
    (folder / NAME).write_bytes(GOOD)
    (folder / broken).write_bytes(GOOD[:-40])
    for _ in range(3):
        sent = up(house, folder)
        assert sent.returncode != 0, "the broken file is refused each time, in words"
        assert "content.truncated: " in sent.stderr
        fetched = down(house, folder)
        assert fetched.returncode == 0, fetched.stderr
        assert sorted(each.name for each in folder.iterdir()) == [NAME, broken, note]
        assert "content.truncated" in (folder / note).read_text("utf-8-sig")
    (folder / broken).write_bytes(plan_csv(290_000))
    os.utime(folder / broken, (1_790_000_000, 1_790_000_000))
    for _ in range(2):
        sent = up(house, folder)
        assert sent.returncode == 0, sent.stderr
        fetched = down(house, folder)
        assert fetched.returncode == 0, fetched.stderr
    assert sorted(each.name for each in house.transfers()) == [NAME, broken]
    assert [(refusal.name, refusal.finding.code) for refusal in house.refusals()] == [(broken, "content.truncated")]
    assert house.sftp(CARE_MANAGER, "ls -1 send").stdout.splitlines()[1:] == [f"send/{NAME}", f"send/{broken}"]
    events = [line["event"] for line in house.journal_lines("transfer.accepted")]
    assert len(events) == 2, json.dumps(house.journal_lines("transfer.accepted"), ensure_ascii=False)
