"""The tree as programs walk it: paths as they write them, folders that are simply there, and what may be removed."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest
from house import (
    CARE_MANAGER,
    DAY_CARE,
    HOME_HELP,
    SUSPENDED,
    UNREGISTERED,
    Caller,
    House,
    pdf,
    plan_csv,
    plan_name,
)
from programs import need

FOLDERS = ["done", "new", "receive", "send", "status"]


@pytest.fixture
def slip(tmp_path: Path) -> Path:
    """Return a use slip on the disk of an office, under its own name."""
    file = tmp_path / plan_name()
    file.write_bytes(plan_csv())
    return file


def failure(error: pytest.ExceptionInfo[asyncssh.SFTPError]) -> tuple[int, str]:
    """Return the status code and the first word of its text."""
    return error.value.code, error.value.reason.partition(":")[0]


@pytest.mark.parametrize("target", ["send/", "send", "/send/", "/send//", "./send/.", "receive/../send/", "//send"])
def test_every_way_to_write_send_reaches_it(target: str, house: House, slip: Path) -> None:
    """Paths arrive from scp as they were typed; a file dropped on the folder goes into it under its own name."""
    need("scp")
    done = house.scp(CARE_MANAGER, slip, f":{target}")
    assert (done.returncode, done.stderr) == (0, "")
    (transfer,) = house.transfers()
    assert transfer.name == slip.name


@pytest.mark.parametrize("target", ["/send/", "send/"])
def test_pscp_into_the_folder_reaches_it(target: str, house: House, slip: Path) -> None:
    """PuTTY's pscp writes a double slash."""
    need("pscp", "puttygen")
    done = house.pscp(CARE_MANAGER, slip, f":{target}")
    assert done.returncode == 0, done.stderr
    assert [transfer.name for transfer in house.transfers()] == [slip.name]


def test_scp_exits_with_0_after_success_in_both_directions(house: House, slip: Path, tmp_path: Path) -> None:
    """A script that asks for the exit status is told the truth."""
    need("scp")
    assert house.scp(CARE_MANAGER, slip, ":send/").returncode == 0
    assert house.scp(HOME_HELP, f":receive/{slip.name}", tmp_path / "fetched").returncode == 0
    assert (tmp_path / "fetched").read_bytes() == slip.read_bytes()
    assert house.scp(HOME_HELP, ":receive/nosuch.csv", tmp_path / "none").returncode == 1


def test_relative_paths_follow_cd(house: House, slip: Path, tmp_path: Path) -> None:
    """`cd send`, `put`, `cd ..`, `pwd`, and names with dots on the way."""
    need("sftp")
    done = house.sftp(CARE_MANAGER, f'cd send\nput "{slip}"\nls -1\ncd ..\npwd\nls -1 receive/../send/./\n')
    assert done.returncode == 0, done.stderr
    assert "Remote working directory: /\n" in done.stdout
    assert done.stdout.count(f"\n{slip.name}\n") == 1
    assert done.stdout.count(f"\nreceive/../send/./{slip.name}\n") == 1
    back = house.sftp(HOME_HELP, f'cd /receive\nget {slip.name} "{tmp_path}/fetched"\ncd ../../..\npwd')
    assert "Remote working directory: /\n" in back.stdout
    assert (tmp_path / "fetched").read_bytes() == slip.read_bytes()


def test_long_listing_shows_folders_sender_and_recipient(house: House, slip: Path) -> None:
    """`ls -la` shows `.` and `..`, every folder, and a file's sender as owner and recipient as group."""
    need("sftp")
    assert house.scp(CARE_MANAGER, slip, ":send/").returncode == 0
    top = house.sftp(HOME_HELP, "ls -la /").stdout.splitlines()[1:]
    assert [line.split()[-1] for line in top if line.startswith("d")][:2] == [".", ".."]
    assert set(FOLDERS) <= {line.split()[-1] for line in top if line.startswith("d")}
    (row,) = house.sftp(HOME_HELP, "ls -l receive").stdout.splitlines()[1:]
    columns = row.split()
    assert columns[:5] == ["-r--r-----", "1", CARE_MANAGER, HOME_HELP, str(slip.stat().st_size)]
    assert columns[-1] == slip.name


def test_folder_that_does_not_exist_cannot_be_entered_nor_listed(house: House) -> None:
    """The programs say so in their own words, and nothing pretends to be there."""
    need("sftp")
    entered = house.sftp(CARE_MANAGER, "cd nosuch")
    assert (entered.returncode, entered.stderr) == (1, "stat remote: No such file or directory\n")
    listed = house.sftp(CARE_MANAGER, "ls nosuch")
    assert (listed.returncode, listed.stderr) == (1, 'Can\'t ls: "/nosuch" not found\n')


def test_psftp_cannot_enter_a_folder_that_does_not_exist(house: House) -> None:
    """It enters by REALPATH and OPENDIR."""
    need("psftp", "puttygen")
    done = house.psftp(CARE_MANAGER, "cd send\ncd ../nosuch\n")
    assert done.returncode == 2
    assert "Remote directory is now /send" in done.stdout
    assert "Directory /nosuch: no such file or directory" in done.stdout


async def test_folders_are_simply_there_and_cannot_be_made_or_removed(house: House) -> None:
    """MKDIR succeeds only for an active office's folder in send/; RMDIR never does, nor on a file; none is written to."""
    async with house.connect(CARE_MANAGER) as caller:
        sftp = caller.sftp
        await sftp.mkdir(f"send/{HOME_HELP}")
        refused = {
            "send": "tree.no_directories",
            "send/archive": "tree.no_directories",
            "archive": "tree.no_directories",
            f"send/{UNREGISTERED}": "route.recipient_unknown",
            f"send/{SUSPENDED}": "route.recipient_suspended",
        }
        for path, code in refused.items():
            with pytest.raises(asyncssh.SFTPError) as error:
                await sftp.mkdir(path)
            assert failure(error) == (4, code), path
        for path in ("send", "receive", f"send/{HOME_HELP}", "README.txt"):
            with pytest.raises(asyncssh.SFTPError) as error:
                await sftp.rmdir(path)
            assert failure(error)[0] == 4, path
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.rmdir("nosuch")
        for path in ("send", "receive", f"send/{HOME_HELP}", "."):
            with pytest.raises(asyncssh.SFTPError) as error:
                await sftp.open(path, "wb")
            assert failure(error) == (4, "tree.is_directory"), path


async def put(caller: Caller, path: str, content: bytes) -> None:
    """Upload *content*."""
    async with caller.sftp.open(path, "wb") as file:
        await file.write(content)


async def test_remove_takes_away_only_what_the_recipient_has_read(house: House) -> None:
    """Refused in send/ and for what was not collected; then receive/ to done/, and nothing from there."""
    name = plan_name()
    async with house.connect(CARE_MANAGER) as sender, house.connect(HOME_HELP) as recipient:
        await put(sender, f"send/{name}", plan_csv())
        for caller, path, code in (
            (sender, f"send/{name}", "transfer.accepted"),
            (recipient, f"receive/{name}", "transfer.not_collected"),
            (recipient, f"new/{name}", "transfer.not_collected"),
            (recipient, "README.txt", "tree.read_only"),
            (recipient, "receive", "tree.is_directory"),
        ):
            with pytest.raises(asyncssh.SFTPError) as error:
                await caller.sftp.remove(path)
            assert failure(error) == (4, code)
        async with recipient.sftp.open(f"new/{name}", "rb") as file:
            await file.read()
        # It has just left new/ by being read: removing it there is what `get` and delete does.
        await recipient.sftp.remove(f"new/{name}")
        assert name not in await recipient.sftp.listdir("receive")
        assert name in await recipient.sftp.listdir("done")
        with pytest.raises(asyncssh.SFTPError) as error:
            await recipient.sftp.remove(f"done/{name}")
        assert failure(error) == (4, "tree.read_only")
        await recipient.sftp.rename(f"done/{name}", f"receive/{name}")
        assert name in await recipient.sftp.listdir("receive")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await recipient.sftp.remove("receive/nosuch.csv")


async def test_free_name_in_an_address_folder_is_delivered_with_its_sender(house: House) -> None:
    """提供票.pdf goes to the office of its folder, under the sender's number and the time; a notice says whose it is."""
    content = pdf(300_000)
    async with house.connect(CARE_MANAGER) as sender:
        await put(sender, f"send/{HOME_HELP}/提供票 7月.pdf", content)
        assert str(HOME_HELP) in await sender.sftp.listdir("send")
        listed = await sender.sftp.listdir(f"send/{HOME_HELP}")
        assert "宛先 みほん野ヘルパーステーション.txt" in listed
        assert "提供票 7月.pdf" in listed
        notice = await sender.sftp.open(f"send/{HOME_HELP}/宛先 みほん野ヘルパーステーション.txt", "rb")
        async with notice:
            assert "みほん野ヘルパーステーション" in (await notice.read()).decode("utf-8-sig")
    async with house.connect(HOME_HELP) as recipient:
        (name,) = [each for each in await recipient.sftp.listdir("new") if each not in (".", "..")]
        assert name.startswith(f"{CARE_MANAGER}_2")
        assert name.endswith("_提供票 7月.pdf")
        async with recipient.sftp.open(f"new/{name}", "rb") as file:
            assert await file.read() == content
    async with house.connect(DAY_CARE) as other:
        assert await other.sftp.listdir("receive") == [".", ".."]


async def test_folder_of_an_office_that_takes_no_part_refuses_files(house: House) -> None:
    """A free name goes nowhere where the folder's office is unknown or suspended."""
    async with house.connect(CARE_MANAGER) as caller:
        for office, code in ((UNREGISTERED, "route.recipient_unknown"), (SUSPENDED, "route.recipient_suspended")):
            with pytest.raises(asyncssh.SFTPError) as error:
                await put(caller, f"send/{office}/report.pdf", pdf())
            assert failure(error) == (4, code)


async def test_readme_and_every_status_file_can_be_read_in_full(house: House) -> None:
    """What is listed can be read, and is as long as it was said to be."""
    async with house.connect(CARE_MANAGER) as caller:
        listed = await caller.sftp.readdir("status")
        files = [f"status/{entry.filename}" for entry in listed if entry.filename not in (".", "..")]
        assert {"status/sent.csv", "status/refused.json", "status/offices.csv"} <= set(files)
        for path in ("README.txt", *files):
            size = (await caller.sftp.stat(path)).size
            async with caller.sftp.open(path, "rb") as file:
                content = await file.read()
            assert content
            assert len(content) == size, path
        async with caller.sftp.open("README.txt", "rb") as file:
            assert "send/" in (await file.read()).decode("utf-8-sig")
