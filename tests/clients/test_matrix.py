"""Every program that offices use, with every deed: what `matrix.py` declares, tried cell by cell.

One relay serves all cells of a worker; each cell has names of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import matrix
import pytest
from cable import cable_to
from house import (
    CARE_MANAGER,
    DAY_CARE,
    HOME_HELP,
    UNREGISTERED,
    House,
    general_name,
    pdf,
    plan_csv,
    plan_name,
    run_aside,
    wait_for,
)
from matrix import DONE, FAILS, GOES_ON, READS_WHY, READS_WHY_AND_0, SILENT, STARTS_OVER
from matrix_cells import PROGRAMS, Cell, cell_of, deed
from onlookers import Onlookers
from programs import Said
from raw_sftp import CLOSE, NO_ATTRIBUTES, OPEN, READ, WRITE, WRITING, Long, Raw, open_raw

from relay.lifecycle import State

MIB = 1024 * 1024
# A relay that has passed on files of 40 MB holds no more than this; an idle one holds about 50 MiB.
MEMORY_MOST = 160 * MIB
LARGE_BYTES = 40_000_000
WORDS = Path(__file__).with_name("what_users_read.txt")
GOOD = plan_csv(300_000)
_ANOTHER = plan_csv(290_000).replace(b",0900,0945,", b",1000,1045,", 1)
OTHERS = {
    "as many other bytes": b",1000,1045,".join(GOOD.rsplit(b",0900,0945,", 1)),
    "other bytes": _ANOTHER,
    "other bytes, broken": _ANOTHER[:-40],
}
RESUMED = plan_csv(900_000)
# In the middle of the second chunk.
CUT = 11 * 32_768


@pytest.fixture(scope="module")
def house(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a relay that serves all cells that this worker tries."""
    house = House.copy(prepared_home, tmp_path_factory.mktemp("matrix") / "house", {})
    with contextlib.ExitStack() as stack:
        stack.callback(house.close)
        house.start()
        yield house
    shutil.rmtree(house.path)


@pytest.fixture(scope="module")
def seen(house: House) -> Iterator[Onlookers]:
    """Return offices that are logged in and see what is there."""
    with Onlookers(house) as onlookers:
        yield onlookers


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """Return the cell of the matrix that the test is about."""
    return cell_of(request.node)


# lftp and sshfs end without waiting for the reply to their last CLOSE: what it brings about comes, but not at once.


def wait_until_accepted(seen: Onlookers, name: str) -> None:
    """Wait until there is a transfer of that name, and make sure that there is one alone."""
    assert len(wait_for(lambda: seen.transfers(name), f"the transfer {name}")) == 1


def wait_until_collected(seen: Onlookers, name: str) -> None:
    """Wait until the one transfer of that name is collected."""
    states = [State.COLLECTED]
    wait_for(lambda: [each.state for each in seen.transfers(name)] == states, f"{name} to be collected")


def noticed(said: Said, *codes: str) -> str:
    """Return what the user notices of a refusal with one of *codes*."""
    if any(code in said.text for code in codes):
        return READS_WHY_AND_0 if said.is_done else READS_WHY
    return SILENT if said.is_done else FAILS


def words(said: Said, **places: object) -> list[str]:
    """Return what the user read, line by line in the order of the alphabet, with the words of this run taken out.

    Two programs print the relay's sentence on a stream of its own, before or behind their own words.
    """
    text = said.text
    for word, place in places.items():
        text = text.replace(str(place), word)
    text = re.sub(r"\d{4}[-/]\d\d[-/]\d\d \d\d:\d\d(:\d\d)?", "TIME", text)
    text = re.sub(r"[^\s']*/mounted-\d+", "MOUNTED", text)
    return sorted(line.rstrip() for line in text.splitlines() if line.strip())


def read_words() -> dict[str, list[str]]:
    """Return what users read, as it was kept: by client and what was wrong."""
    sections = re.split(r"^== (.*)\n", WORDS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {head: text.split("\n")[:-1] for head, text in zip(sections[::2], sections[1::2], strict=True)}


def assert_reads(cell: Cell, what: str, said: Said, **places: object) -> None:
    """The user reads what was kept, and nothing else that could confuse; RELAY_KEEP_WORDS=1 keeps what is read now."""
    key, found = f"{cell.client}: {what}", words(said, **places)
    if os.environ.get("RELAY_KEEP_WORDS"):
        with WORDS.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            kept = read_words() | {key: found}
            file.truncate()
            file.writelines(f"== {head}\n" + "".join(f"{line}\n" for line in kept[head]) for head in sorted(kept))
    assert found == read_words()[key], "if this is how it shall read: RELAY_KEEP_WORDS=1, and look at the difference"


# --- the deeds --------------------------------------------------------------------------------------------------


def test_every_client_of_the_matrix_is_driven() -> None:
    """The matrix and the programs are the same list, every cell is declared, and what cannot be done has its reason."""
    assert tuple(PROGRAMS) == matrix.CLIENTS
    assert set(matrix.DECLARED) == {(client, name) for client in matrix.CLIENTS for name in matrix.DEEDS}
    assert set(matrix.DECLARED.values()) == matrix.OUTCOMES
    assert {place for place, seen in matrix.DECLARED.items() if seen == matrix.CANNOT} == set(matrix.REASONS)


@deed("small")
def test_small_files_arrive(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """One byte, a use slip that fits a chunk and one that does not: each arrives as it was sent, at one office."""
    program, first = cell.program, cell.number
    files = {
        general_name("txt", label="MESSAGE", number=first): b"x",
        plan_name(number=first + 1): plan_csv(5_000),
        plan_name(number=first + 2): GOOD,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        put = program.put(house, CARE_MANAGER, tmp_path / name, f"send/{name}")
        assert put.is_done, put.text
        wait_until_accepted(seen, name)
        assert seen.received(name, "new") == content
        wait_until_collected(seen, name)
    assert seen.listed(DAY_CARE, "receive") == []
    cell.tell(DONE)


@functools.cache
def large() -> bytes:
    """Return a scan, as large as scans are at worst."""
    return pdf(LARGE_BYTES)


@deed("large")
@pytest.mark.timeout(300)
def test_large_file_goes_there_and_back_in_little_memory(
    cell: Cell, house: House, seen: Onlookers, tmp_path: Path
) -> None:
    """40 MB arrive as they were sent, and the server did not hold them."""
    program, name = cell.program, general_name("pdf", number=cell.number)
    sent, fetched = tmp_path / name, tmp_path / "fetched"
    sent.write_bytes(large())
    put = program.put(house, CARE_MANAGER, sent, f"send/{name}")
    assert put.is_done, put.text
    wait_until_accepted(seen, name)
    got = program.fetch(house, HOME_HELP, f"new/{name}", fetched)
    assert got.is_done, got.text
    assert filecmp.cmp(sent, fetched, shallow=False)
    wait_until_collected(seen, name)
    assert house.memory_bytes() < MEMORY_MOST * len(house.workers())
    cell.tell(DONE)


@deed("same")
def test_same_file_again_is_the_same_transfer(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """Who sends a second time what was accepted is told that it was done, and it is delivered once."""
    program, name = cell.program, plan_name(number=cell.number)
    (tmp_path / name).write_bytes(GOOD)
    for _ in range(2):
        put = program.put(house, CARE_MANAGER, tmp_path / name, f"send/{name}")
        assert put.is_done, put.text
        wait_until_accepted(seen, name)
    assert seen.received(name) == GOOD
    cell.tell(DONE)


@deed("other")
def test_other_bytes_under_the_name_never_replace_it(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """Others as many, others, and broken ones: the good file stays, the sender finds out, and a note says the rest."""
    program, name = cell.program, plan_name(number=cell.number)
    file = tmp_path / name
    file.write_bytes(GOOD)
    assert program.put(house, CARE_MANAGER, file, f"send/{name}").is_done
    wait_until_accepted(seen, name)
    for later, (what, content) in enumerate(OTHERS.items()):
        file.write_bytes(content)
        # rclone does not even send what has size and time of what it sent before.
        os.utime(file, (1_790_000_000 + later, 1_790_000_000 + later))
        put = program.put(house, CARE_MANAGER, file, f"send/{name}")
        assert_reads(cell, what, put, FILE=file, NAME=name)
        cell.tell(noticed(put, "transfer.conflict", "content.truncated"))
    assert len(seen.transfers(name)) == 1
    assert seen.received(name) == GOOD
    assert f"{name}.refused.txt" in seen.listed(CARE_MANAGER, "send")


@deed("up")
def test_upload_that_was_cut_off_arrives(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """Cut off by a lost connection, it is gone on with, or sent once more from the beginning; it arrives once."""
    program, name = cell.program, plan_name(number=cell.number)
    (tmp_path / name).write_bytes(RESUMED)
    _cut_off(house, f"/send/{program.part.format(name)}")
    with cable_to(house) as (cable, held):
        put = program.put_on(held, CARE_MANAGER, tmp_path / name, f"send/{name}")
    assert put.is_done, put.text
    wait_until_accepted(seen, name)
    assert seen.received(name, "new") == RESUMED
    cell.tell(_how_far(cable.passed["up"]))


@deed("down")
def test_download_that_was_cut_off_is_completed(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """What an earlier session read counts: the rest, or all of it once more, makes it collected."""
    program, name, file = cell.program, plan_name(number=cell.number), tmp_path / "fetched"
    seen.send(name, RESUMED)
    file.write_bytes(_read_half(house, f"/new/{name}"))
    with cable_to(house) as (cable, held):
        got = program.fetch_on(held, HOME_HELP, f"new/{name}", file)
    assert got.is_done, got.text
    assert file.read_bytes() == RESUMED
    wait_until_collected(seen, name)
    cell.tell(_how_far(cable.passed["down"]))


def _how_far(passed: int) -> str:
    return GOES_ON if passed < len(RESUMED) - CUT // 2 else STARTS_OVER


def _cut_off(house: House, path: str) -> None:
    count = len(house.journal_lines("upload.left"))

    async def work() -> None:
        async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
            handle = (await raw.call(OPEN, path, WRITING, Raw(NO_ATTRIBUTES))).handle
            for at in range(0, CUT, 32_768):
                assert (await raw.call(WRITE, handle, Long(at), RESUMED[at : at + 32_768])).code == 0
            connection.abort()
            await connection.wait_closed()

    run_aside(work())
    house.wait_for_event("upload.left", count + 1)


def _read_half(house: House, path: str) -> bytes:
    async def work() -> bytes:
        async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
            handle, data = await raw.open(path, 0x01), b""
            while len(data) < CUT:
                data += (await raw.call(READ, handle, Long(len(data)), CUT - len(data))).data
            assert (await raw.call(CLOSE, handle)).code == 0
            return data

    return run_aside(work())


@deed("list")
def test_listing_shows_what_is_there(cell: Cell, house: House, seen: Onlookers) -> None:
    """Each folder, with Japanese names, as it is; what others were sent is in none."""
    program, first = cell.program, cell.number
    seen.send(plan_name(number=first), GOOD)
    seen.send(general_name("txt", number=first + 1, label="連絡（七月分）"), b"x")
    for office, folder in ((CARE_MANAGER, "send"), (HOME_HELP, "new"), (HOME_HELP, "receive"), (DAY_CARE, "receive")):
        there = seen.listed(office, folder)
        assert sorted(program.names(house, office, folder)) == there
        assert (there == []) == (office == DAY_CARE)
    cell.tell(DONE)


@deed("fetch")
def test_fetching_collects(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """What is fetched from new/ comes byte for byte, is collected, leaves new/ and stays in receive/."""
    program, first = cell.program, cell.number
    files = {
        general_name("txt", number=first, label="連絡（七月分）"): b"x",
        plan_name(number=first + 1): GOOD,
    }
    for name, content in files.items():
        seen.send(name, content)
        got = program.fetch(house, HOME_HELP, f"new/{name}", tmp_path / "fetched")
        assert got.is_done, got.text
        assert (tmp_path / "fetched").read_bytes() == content
        wait_until_collected(seen, name)
        assert name not in seen.listed(HOME_HELP, "new")
        assert name in seen.listed(HOME_HELP, "receive")
        (tmp_path / "fetched").unlink()
    cell.tell(DONE)


@deed("remove")
def test_fetching_and_deleting_moves_to_done(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """It came byte for byte; afterwards it is in done/ alone, and its sender reads that it was collected."""
    program, name, file = cell.program, plan_name(number=cell.number), tmp_path / "fetched"
    seen.send(name, GOOD)
    got = program.fetch_and_remove(house, HOME_HELP, f"new/{name}", file)
    assert got.is_done, got.text
    assert file.read_bytes() == GOOD
    wait_until_collected(seen, name)
    where = [folder for folder in ("new", "receive", "done") if name in seen.listed(HOME_HELP, folder)]
    assert where == ["done"]
    cell.tell(DONE)


@deed("name")
def test_wrong_name_is_refused(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """The whole of what a user reads when the recipient is unknown; nothing is relayed, and a note says the rest."""
    program, file = cell.program, tmp_path / "slip.csv"
    file.write_bytes(GOOD)
    name = plan_name(recipient=UNREGISTERED, number=cell.number)
    put = program.put(house, CARE_MANAGER, file, f"send/{name}")
    assert seen.transfers(name) == []
    assert f"{name}.refused.txt" in seen.listed(CARE_MANAGER, "send")
    assert_reads(cell, "route.recipient_unknown", put, FILE=file, NAME=name)
    cell.tell(noticed(put, "route.recipient_unknown"))


@deed("content")
def test_broken_file_is_refused(cell: Cell, house: House, seen: Onlookers, tmp_path: Path) -> None:
    """Cut off or empty, nobody gets it; whoever was not told finds the note with the program that did not tell."""
    program, note = cell.program, tmp_path / "note"
    for each, (code, content) in enumerate({"content.truncated": plan_csv()[:-40], "content.empty": b""}.items()):
        name = plan_name(number=cell.number + each)
        (tmp_path / name).write_bytes(content)
        put = program.put(house, CARE_MANAGER, tmp_path / name, f"send/{name}")
        assert seen.transfers(name) == []
        assert seen.listed(CARE_MANAGER, "send").count(f"{name}.refused.txt") == 1
        assert_reads(cell, code, put, FILE=tmp_path / name, NAME=name)
        got = program.fetch(house, CARE_MANAGER, f"send/{name}.refused.txt", note)
        assert got.is_done, got.text
        assert code in note.read_text("utf-8-sig")
        note.unlink()
        cell.tell(noticed(put, code))
