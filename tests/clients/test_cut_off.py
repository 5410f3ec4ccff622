"""An upload that does not end as it should is relayed to nobody, and can be repeated."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cable import Cable, cable_to
from conftest import MakeHouse
from house import CARE_MANAGER, HOME_HELP, PATIENCE_SECONDS, House, general_name, pdf, plan_csv, plan_name
from keyboard import Terminal
from programs import need

LARGE_BYTES = 20_000_000
# Where the upload is stopped: in its middle, with chunks in the store already.
STOPPED_AFTER = 8_000_000


def archive(size_bytes: int) -> bytes:
    """Return a ZIP archive of about that size."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as packed:
        packed.writestr("scan.bin", random.Random(1).randbytes(size_bytes))
    return whole.getvalue()


def text(size_bytes: int) -> bytes:
    """Return plain text, which no rule can see the end of."""
    return (b"line\r\n" * (size_bytes // 6)) + b"end"


LARGE: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "csv": (plan_name(), plan_csv),
    "pdf": (general_name("pdf"), pdf),
    "zip": (general_name("zip"), archive),
    "txt": (general_name("txt"), text),
}


def assert_nothing_was_relayed(house: House) -> None:
    """Nobody sees anything of an upload that was cut off, and the store holds nothing that could become one."""
    assert house.transfers() == []
    for folder in ("receive", "new", "done"):
        listed = house.sftp(HOME_HELP, f"ls -1 {folder}")
        assert listed.returncode == 0
        assert listed.stdout.splitlines()[1:] == []


def assert_repeat_arrives(house: House, file: Path, name: str) -> None:
    """The whole file, sent again, is accepted and arrives byte for byte."""
    done = house.sftp(CARE_MANAGER, f'put "{file}" send/{name}')
    assert done.returncode == 0, done.stderr
    fetched = file.with_name("fetched")
    assert house.sftp(HOME_HELP, f'get new/{name} "{fetched}"').returncode == 0
    assert fetched.read_bytes() == file.read_bytes()
    assert len(house.transfers()) == 1


@contextlib.contextmanager
def stopped_midway(house: House, file: Path, name: str) -> Iterator[tuple[Cable, subprocess.Popen[bytes]]]:
    """Start a real `sftp put`, and hold it in the middle of the file."""
    with cable_to(house) as (cable, held):
        cable.hold("up", after=STOPPED_AFTER)
        command = [*held.sftp_command(CARE_MANAGER, "-b", "-")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            assert process.stdin is not None
            process.stdin.write(f'put "{file}" send/{name}\n'.encode())
            process.stdin.close()
            process.stdin = None
            cable.wait_until_held("up")
            yield cable, process


@pytest.fixture
def slip(tmp_path: Path) -> Path:
    """Return a large use slip on the disk of an office."""
    file = tmp_path / "slip.csv"
    file.write_bytes(plan_csv(LARGE_BYTES))
    return file


def test_killed_client_relays_nothing(house: House, slip: Path) -> None:
    """`kill -9` of sftp and of its ssh in the middle of an upload leaves nothing behind."""
    need("sftp")
    name = plan_name()
    with stopped_midway(house, slip, name) as (_, process):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)
        house.wait_for_event("session.closed")
    assert_nothing_was_relayed(house)
    assert_repeat_arrives(house, slip, name)


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_lost_connection_relays_nothing(*, is_reset: bool, house: House, slip: Path) -> None:
    """A socket that is closed or reset in the middle of an upload leaves nothing behind."""
    need("sftp")
    name = plan_name()
    with stopped_midway(house, slip, name) as (cable, process):
        cable.pull(reset=is_reset)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode != 0
        house.wait_for_event("session.closed")
    assert_nothing_was_relayed(house)
    assert_repeat_arrives(house, slip, name)


def test_connection_lost_behind_the_last_byte_relays_nothing(house: House, slip: Path) -> None:
    """Every byte has arrived, but no CLOSE: that is no upload that somebody has finished."""
    content, name = slip.read_bytes()[:300_000], plan_name()
    with cable_to(house) as (cable, held):
        sftp = held.paramiko(CARE_MANAGER)
        with contextlib.suppress(EOFError, OSError), sftp as client:
            file = client.open(f"send/{name}", "w")
            file.write(content)
            file.flush()
            assert client.stat(f"send/{name}").st_size == len(content)
            cable.pull()
            house.wait_for_event("session.closed")
    assert_nothing_was_relayed(house)


@pytest.mark.parametrize("kind", LARGE)
def test_batch_that_is_interrupted_is_refused_and_its_repeat_gets_through(
    kind: str, house: House, tmp_path: Path
) -> None:
    """SIGINT makes `sftp -b` close a file that is cut short, as if it were whole: refused all the same."""
    need("sftp")
    name, make = LARGE[kind]
    file = tmp_path / "large"
    file.write_bytes(make(LARGE_BYTES))
    with stopped_midway(house, file, name) as (cable, process):
        process.send_signal(signal.SIGINT)
        cable.release()
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert_it_was_refused_as_cut(house, said.decode())
    assert_repeat_arrives(house, file, name)


@pytest.mark.parametrize("kind", LARGE)
def test_ctrl_c_at_the_keyboard_is_refused_and_the_repeat_gets_through(kind: str, house: House, tmp_path: Path) -> None:
    """Ctrl-C in an interactive `sftp put` closes a cut file and returns to the prompt: the user reads why."""
    need("sftp")
    name, make = LARGE[kind]
    file = tmp_path / "large"
    file.write_bytes(make(LARGE_BYTES))
    with cable_to(house) as (cable, held), Terminal(held.sftp_command(CARE_MANAGER)) as terminal:
        terminal.wait_for("sftp> ")
        cable.hold("up", after=STOPPED_AFTER)
        terminal.type(f'put "{file}" send/{name}\n')
        cable.wait_until_held("up")
        terminal.type("\x03")
        terminal.wait_for("Interrupt")
        cable.release()
        terminal.wait_for("sftp> ")
        terminal.type("bye\n")
        said = terminal.read_to_end()
    assert_it_was_refused_as_cut(house, said)
    assert_repeat_arrives(house, file, name)


def assert_it_was_refused_as_cut(house: House, said: str) -> None:
    """The user was told that the file was not taken; nobody got it."""
    assert "upload.looks_cut: " in said or "content.truncated: " in said, said
    (refusal,) = house.refusals()
    assert refusal.finding.code in ("upload.looks_cut", "content.truncated")
    assert_nothing_was_relayed(house)


def test_whole_file_of_a_suspicious_length_is_accepted_the_second_time(house: House, tmp_path: Path) -> None:
    """A whole text that happens to end with a full WRITE looks cut; the same bytes again are taken at their word."""
    need("sftp")
    file, name = tmp_path / "text", general_name("txt")
    file.write_bytes(b"x" * (4 * 261_120))
    first = house.sftp(CARE_MANAGER, f'put "{file}" send/{name}')
    assert first.returncode == 1
    assert "upload.looks_cut" in first.stderr
    assert_repeat_arrives(house, file, name)


def test_server_that_is_killed_relays_nothing_of_an_upload(make_house: MakeHouse, slip: Path) -> None:
    """A power cut in the middle of an upload: after the restart nothing of it is there, and the repeat arrives."""
    need("sftp")
    house, name = make_house(), plan_name()
    house.start()
    with stopped_midway(house, slip, name) as (_, process):
        house.kill()
        process.communicate(timeout=PATIENCE_SECONDS)
    house.start()
    assert_nothing_was_relayed(house)
    assert_repeat_arrives(house, slip, name)
