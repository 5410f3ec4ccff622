"""An office with 100,000 files: every program lists them, each reply stays small, and no handle holds a copy.

The files are rows made beside the server, of two that were sent, once a run.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeOnce
from house import CARE_MANAGER, HOME_HELP, House, general_name, plan_csv, plan_name, run_aside
from matrix import DONE
from matrix_cells import PROGRAMS, Cell, cell_of, deed
from programs import need
from raw_sftp import EOF, HANDLE, NAME, OPENDIR, READDIR, RawSftp, open_raw

from relay.keyring import load_keyring
from relay.model import fold_name
from relay.vault import Vault

COUNT = 100_000
# One in so many has a name of 240 bytes, sealed, as free texts are; the others are the standard's.
LONG_EVERY = 20
LABEL = "連絡事項（居宅サービス計画・週間サービス計画・サービス利用票・サービス提供票の差し替えにつきまして）"
READDIR_MOST = 256 * 1024
HANDLES = 50
# A copy of the listing would take some 30 MB; fifty handles together take less than one of it.
MEMORY_MOST = 30_000_000
# They take seconds for one such listing.
SLOW = ("sftp", "psftp", "pscp", "paramiko", "asyncssh")

pytestmark = pytest.mark.timeout(300)


def name_of(number: int) -> str:
    """Return the name of a file in the full store."""
    if number % LONG_EVERY:
        return plan_name(number=number)
    return general_name("txt", label=LABEL, number=number)


@functools.cache
def expected() -> list[str]:
    """Return all names, sorted."""
    return sorted(name_of(number) for number in range(COUNT))


@pytest.fixture(scope="module")
def full_home(prepared_home: Path, make_once: MakeOnce) -> Path:
    """Return a home that nobody serves, with 100,000 new files for one office."""

    def make(path: Path) -> None:
        house = House.copy(prepared_home, path, {})
        house.start()
        run_aside(_send_two(house))
        house.close()
        fill(house)
        house.journal.unlink()

    return make_once("full-home", make)


@pytest.fixture(scope="module")
def house(full_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a relay that serves them."""
    house = House.copy(full_home, tmp_path_factory.mktemp("many") / "house", {})
    with contextlib.ExitStack() as stack:
        stack.callback(house.close)
        house.start()
        yield house
    shutil.rmtree(house.path)


async def _send_two(house: House) -> None:
    async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
        for number, content in ((0, b"x"), (1, plan_csv(1_000))):
            assert (await raw.put(f"/send/{name_of(number)}", content)).code == 0


def fill(house: House) -> None:
    """Put what is missing into the store, each row like that of one of the two that are there."""
    keyring = load_keyring(house.path / "keys")
    vault = Vault(keyring.master, keyring.index_key)
    with contextlib.closing(sqlite3.connect(house.config.store.path)) as store:
        store.row_factory = sqlite3.Row
        long, short = store.execute("SELECT * FROM transfer ORDER BY id").fetchall()
        kept = store.execute("SELECT * FROM payload ORDER BY id").fetchall()
        sealer = vault.open_sealer(
            kept[0]["wrapped_key"], kept[0]["uid"], size_bytes=kept[0]["size_bytes"], chunk_count=kept[0]["chunk_count"]
        )

        def transfers() -> Iterator[tuple[object, ...]]:
            for number in range(2, COUNT):
                name, is_long = name_of(number), number % LONG_EVERY == 0
                folded = fold_name(name)
                row = dict(long if is_long else short) | {
                    "id": number + 1,
                    "payload": number + 1,
                    "serial": name[-18:-4],
                    "name": None if is_long else name,
                    "name_sealed": sealer.seal_name(name) if is_long else None,
                    "identity_key": vault.index("identity", CARE_MANAGER, HOME_HELP, folded),
                    "delivered_key": vault.index("delivered", HOME_HELP, folded),
                }
                yield tuple(row.values())

        def payloads() -> Iterator[tuple[object, ...]]:
            for number in range(2, COUNT):
                yield tuple((dict(kept[0 if number % LONG_EVERY == 0 else 1]) | {"id": number + 1}).values())

        for table, rows in (("payload", payloads()), ("transfer", transfers())):
            width = len(store.execute(f"SELECT * FROM {table} LIMIT 1").fetchone())
            store.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", rows)
        store.commit()


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """Return the cell of the matrix that the test is about."""
    return cell_of(request.node)


@deed("many")
def test_every_program_lists_a_hundred_thousand_files(cell: Cell, house: House) -> None:
    """new/ is shown whole, each name once; and receive/ as well."""
    for folder in ("new",) if cell.client in SLOW else ("new", "receive"):
        assert sorted(cell.program.names(house, HOME_HELP, folder)) == expected()
    cell.tell(DONE)


@pytest.mark.long
@pytest.mark.parametrize("client", SLOW)
def test_slow_programs_list_receive_as_well(client: str, house: House) -> None:
    """receive/ is shown whole, each name once."""
    need(*PROGRAMS[client].needs)
    assert sorted(PROGRAMS[client].names(house, HOME_HELP, "receive")) == expected()


async def test_replies_are_counted_in_bytes(house: House) -> None:
    """However long the names are, no reply comes near 256 KiB; all names come, each once, after the dots."""
    names: list[str] = []
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        handle = (await raw.call(OPENDIR, "/receive")).handle
        while (reply := await raw.call(READDIR, handle)).type == NAME:
            assert len(reply.rest) < READDIR_MOST
            names += [name.decode() for name in reply.names]
        assert reply.code == EOF
    assert names[:2] == [".", ".."]
    assert sorted(names[2:]) == expected()


async def test_handles_hold_no_copy_of_what_they_list(house: House) -> None:
    """Fifty listings of one office, begun and not finished, cost less than one of them would take."""
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        await begin(raw)
        before = house.memory_bytes()
        for _ in range(HANDLES - 1):
            await begin(raw)
        grown = house.memory_bytes() - before
    assert grown < MEMORY_MOST, f"{HANDLES - 1} more handles: {grown:,} bytes"


async def begin(raw: RawSftp) -> None:
    """Open a listing and read the first of it."""
    opened = await raw.call(OPENDIR, "/receive")
    assert opened.type == HANDLE
    for _ in range(3):
        assert (await raw.call(READDIR, opened.handle)).type == NAME
