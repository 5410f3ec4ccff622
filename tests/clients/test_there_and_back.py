"""A file of 200 MB goes from one office to another, with the largest and with the smallest requests that programs send.

Every program with every other size is in `test_matrix.py`.
"""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, plan_csv, plan_name
from programs import Program, Psftp, Sftp, need

from relay.lifecycle import State

MIB = 1024 * 1024
# A relay that has passed on a file of 200 MB holds no more than this; an idle one holds about 50 MiB.
MEMORY_MOST = 160 * MIB


@pytest.mark.parametrize("program", [Sftp(), Psftp()], ids=lambda program: program.name)
@pytest.mark.timeout(300)
def test_large_file_goes_there_and_back_in_little_memory(program: Program, house: House, tmp_path: Path) -> None:
    """200 MB arrive as they were sent, at one office, and the server did not hold them."""
    need(*program.needs)
    name, sent, fetched = plan_name(), tmp_path / "sent", tmp_path / "fetched"
    sent.write_bytes(plan_csv(200_000_000))
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
    assert (transfer.size_bytes, transfer.state) == (200_000_000, State.COLLECTED)
    assert house.memory_bytes() < MEMORY_MOST * len(house.workers())
