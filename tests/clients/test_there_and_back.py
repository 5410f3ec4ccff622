"""A file goes from one office to another, with every program, in every size, byte for byte."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, general_name, plan_csv, plan_name
from programs import Program, need, with_every_program

from relay.lifecycle import State

MIB = 1024 * 1024
# A relay that has passed on a file of 200 MB holds no more than this; an idle one holds about 50 MiB.
MEMORY_MOST = 160 * MIB


def send_and_fetch(program: Program, house: House, folder: Path, name: str, content: bytes) -> None:
    """Upload as one office, find and download it as the other, and compare it with what was sent."""
    sent, fetched = folder / name, folder / "fetched"
    sent.write_bytes(content)
    put = program.put(house, CARE_MANAGER, sent, f"send/{name}")
    assert put.is_done, put.text
    assert program.names(house, CARE_MANAGER, "send") == [name]
    for folder_name in ("receive", "new"):
        assert program.names(house, HOME_HELP, folder_name) == [name]
        assert program.names(house, DAY_CARE, folder_name) == []
    got = program.fetch(house, HOME_HELP, f"new/{name}", fetched)
    assert got.is_done, got.text
    assert filecmp.cmp(sent, fetched, shallow=False)
    assert program.names(house, HOME_HELP, "new") == []
    assert program.names(house, HOME_HELP, "receive") == [name]
    (transfer,) = house.transfers()
    assert (transfer.size_bytes, transfer.state) == (len(content), State.COLLECTED)


@with_every_program
def test_empty_file_is_refused_and_told(program: Program, house: House, tmp_path: Path) -> None:
    """A file without a byte is refused in words, and nobody gets it."""
    need(*program.needs)
    name = general_name("txt")
    (tmp_path / name).touch()
    said = program.put(house, CARE_MANAGER, tmp_path / name, f"send/{name}")
    assert not said.is_done
    assert "content.empty: 中身が空です / the file is empty" in said.text
    assert house.transfers() == []
    assert program.names(house, HOME_HELP, "receive") == []
    (refusal,) = house.refusals()
    assert (refusal.name, refusal.finding.code) == (name, "content.empty")


@with_every_program
def test_one_byte_goes_there_and_back(program: Program, house: House, tmp_path: Path) -> None:
    """The shortest file that there is arrives."""
    need(*program.needs)
    send_and_fetch(program, house, tmp_path, general_name("txt", label="MESSAGE"), b"x")


@with_every_program
@pytest.mark.parametrize("size", [5_000, 300_000])
def test_use_slip_goes_there_and_back(program: Program, size: int, house: House, tmp_path: Path) -> None:
    """A use slip as care software writes it arrives as it was sent, whether it fits one chunk or not."""
    need(*program.needs)
    send_and_fetch(program, house, tmp_path, plan_name(), plan_csv(size))


@with_every_program
@pytest.mark.timeout(300)
def test_large_file_goes_there_and_back_in_little_memory(program: Program, house: House, tmp_path: Path) -> None:
    """200 MB arrive as they were sent, and the server did not hold them."""
    need(*program.needs)
    send_and_fetch(program, house, tmp_path, plan_name(), plan_csv(200_000_000))
    assert house.memory_bytes() < MEMORY_MOST
