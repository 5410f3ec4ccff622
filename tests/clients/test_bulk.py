"""lftp, rclone, curl and sshfs with whole folders: every file once, whatever is run twice, in whatever direction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bulk_programs import curl, lftp, rclone, sshfs
from house import CARE_MANAGER, HOME_HELP, Completed, House, general_name, plan_csv, plan_name, run_program
from programs import need

from relay.lifecycle import State

# One that fits a chunk, one of several, one with a Japanese name.
FILES = {
    plan_name(): plan_csv(5_000),
    plan_name(number=1): plan_csv(700_000),
    general_name("txt", number=2, label="連絡"): b"x" * 300_001,
}


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """Return a folder with what an office sends today."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def done_well(done: Completed) -> None:
    """The program believes that it was done."""
    assert done.returncode == 0, done.stdout + done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def assert_all_was_sent_once(house: House) -> None:
    """Every file is one transfer, and no byte of it was sent a second time."""
    assert sorted(transfer.name for transfer in house.transfers()) == sorted(FILES)
    assert len(house.journal_lines("transfer.accepted")) == len(FILES)
    assert house.refusals() == []


def assert_all_was_received(house: House, inbox: Path) -> None:
    """Every file came whole, and the relay knows that it was read."""
    assert contents(inbox) == FILES
    assert {transfer.state for transfer in house.transfers()} == {State.COLLECTED}


@pytest.mark.parametrize("options", ["", "--no-perms"])
def test_lftp_mirrors_a_folder_twice(options: str, house: House, outbox: Path) -> None:
    """`mirror -R` finds on its second run what it sent on the first, with the time that it had, and sends nothing."""
    need("lftp")
    for _ in range(2):
        done_well(lftp(house, f'mirror -R {options} "{outbox}" /send'))
        assert_all_was_sent_once(house)


def test_lftp_mirror_removes_what_it_sent_and_what_it_fetched(house: House, outbox: Path, tmp_path: Path) -> None:
    """`--Remove-source-files` empties the outbox here and the new arrivals there; nothing is lost on the way."""
    need("lftp")
    done_well(lftp(house, f'mirror -R --no-perms --Remove-source-files "{outbox}" /send'))
    assert contents(outbox) == {}
    assert_all_was_sent_once(house)
    done_well(lftp(house, f'mirror --Remove-source-files /new "{tmp_path}/inbox"', HOME_HELP))
    assert_all_was_received(house, tmp_path / "inbox")
    assert house.sftp(HOME_HELP, "ls -1 receive").stdout.splitlines()[1:] == []
    assert len(house.sftp(HOME_HELP, "ls -1 done").stdout.splitlines()[1:]) == len(FILES)


@pytest.mark.parametrize("settings", [(), ("xfer:use-temp-file yes",)], ids=["in place", "temporary file"])
def test_lftp_puts_files(settings: tuple[str, ...], house: House, outbox: Path) -> None:
    """`put` and `mput`, under the final name or under `.in.NAME` with a REMOVE before the RENAME."""
    need("lftp")
    first, *_ = FILES
    done_well(lftp(house, f'cd /send; put "{outbox / first}"', CARE_MANAGER, *settings))
    assert [transfer.name for transfer in house.transfers()] == [first]
    done_well(lftp(house, f'mput -O /send "{outbox}"/*[0-9].CSV "{outbox}"/*.txt', CARE_MANAGER, *settings))
    assert sorted(transfer.name for transfer in house.transfers()) == sorted(FILES)
    listed = house.sftp(CARE_MANAGER, "cd send\nls -1a").stdout.splitlines()[2:]
    assert sorted(listed) == sorted([*FILES, ".", ".."])


def test_rclone_copies_twice_and_checks(house: House, outbox: Path) -> None:
    """The second `copy` finds size and time as it left them; `check` agrees."""
    need("rclone")
    for _ in range(2):
        done_well(rclone(house, "copy", str(outbox), "relay:/send"))
        assert_all_was_sent_once(house)
    done_well(rclone(house, "check", "--size-only", str(outbox), "relay:/send"))


def test_rclone_moves_there_and_back(house: House, outbox: Path, tmp_path: Path) -> None:
    """`move` removes here what was accepted and, on the other side, what was read."""
    need("rclone")
    done_well(rclone(house, "move", str(outbox), "relay:/send"))
    assert contents(outbox) == {}
    assert_all_was_sent_once(house)
    done_well(rclone(house, "move", "relay:/new", str(tmp_path / "inbox"), office=HOME_HELP))
    assert_all_was_received(house, tmp_path / "inbox")
    assert house.sftp(HOME_HELP, "ls -1 new").stdout.splitlines()[1:] == []


def test_rclone_syncs_twice_in_both_directions(house: House, outbox: Path, tmp_path: Path) -> None:
    """A run that changes nothing sends nothing; one from an outbox emptied in between takes nothing back."""
    need("rclone")
    inbox = tmp_path / "inbox"
    for _ in range(2):
        done_well(rclone(house, "sync", str(outbox), "relay:/send"))
        assert_all_was_sent_once(house)
    for _ in range(2):
        done_well(rclone(house, "sync", "relay:/receive", str(inbox), office=HOME_HELP))
        assert_all_was_received(house, inbox)
    for file in outbox.iterdir():
        file.unlink()
    emptied = rclone(house, "sync", str(outbox), "relay:/send")
    assert emptied.stderr.count("transfer.accepted: ") >= len(FILES)
    assert "recall/" in emptied.stderr
    assert_all_was_sent_once(house)
    assert_all_was_received(house, inbox)


Put = Callable[[House, Path], Completed]
PUTS: dict[str, Put] = {
    "-T": lambda house, file: curl(house, "-T", str(file), path="send/"),
    "-a -T": lambda house, file: curl(house, "-a", "-T", str(file), path=f"send/{file.name}"),
    "-C - -T": lambda house, file: curl(house, "-C", "-", "-T", str(file), path=f"send/{file.name}"),
    "-Q": lambda house, file: curl(
        house,
        *("-T", str(file), "-Q", f"-rename /send/{file.name}.part /send/{file.name}"),
        path=f"send/{file.name}.part",
    ),
}


@pytest.mark.parametrize("how", PUTS)
def test_curl_sends_and_fetches(how: str, house: House, outbox: Path, tmp_path: Path) -> None:
    """Plain, appending to nothing, going on with nothing, and with a rename behind: the file arrives."""
    need("curl")
    name = plan_name(number=1)
    done_well(PUTS[how](house, outbox / name))
    fetched = tmp_path / "fetched"
    done_well(curl(house, "-o", str(fetched), path=f"new/{name}", office=HOME_HELP))
    assert fetched.read_bytes() == FILES[name]
    assert [(each.name, each.state) for each in house.transfers()] == [(name, State.COLLECTED)]


@pytest.mark.parametrize("options", [(), ("-p",)], ids=["cp", "cp -p"])
def test_sshfs_copies_there_and_back(options: tuple[str, ...], house: House, outbox: Path, tmp_path: Path) -> None:
    """Files copied into a mounted send/ are sent; copied again, which truncates by path, they are the same ones."""
    need("sshfs", "fusermount")
    with sshfs(house, tmp_path / "sender") as sender:
        for _ in range(2):
            for file in outbox.iterdir():
                done_well(run_program(["cp", *options, str(file), str(sender / "send")]))
    assert sorted(transfer.name for transfer in house.transfers()) == sorted(FILES)
    with sshfs(house, tmp_path / "recipient", HOME_HELP) as recipient:
        done_well(run_program(["cp", *(str(recipient / "new" / name) for name in FILES), str(tmp_path)]))
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES
