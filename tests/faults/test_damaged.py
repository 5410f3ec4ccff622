"""A store that is damaged while the relay serves: told in words, once, and a backup mends it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
import raw_sftp as sftp
from house import HOME_HELP, House, MakeHouse, general_name, pdf
from raw_sftp import RawSftp, open_raw

PAGE = 8192
CODE, JAPANESE, ENGLISH = "server.storage_damaged", "運営者の窓口に電話してください", "Call the operator's help desk"
FILES = 12
SAFE = pdf(5_000)


def scribble(path: Path, pages: Iterable[int]) -> None:
    """Write what nobody can read over pages of a file."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE)
            file.write(os.urandom(PAGE))


def everything_behind_the_first_page(house: House) -> None:
    """Damage the store, but for the page by which it is known as one."""
    store = house.config.store.path
    scribble(store, range(1, store.stat().st_size // PAGE))


def the_last_pages(house: House) -> None:
    """Damage where bytes of files lie, and pages that are free."""
    store = house.config.store.path
    pages = store.stat().st_size // PAGE
    scribble(store, range(pages - 12, pages))


def the_log(house: House) -> None:
    """Damage what was written since the log was last folded into the store."""
    log = house.config.store.path.with_name("relay.db-wal")
    assert log.stat().st_size, "the log is empty"
    scribble(log, range(log.stat().st_size // PAGE + 1))


async def put(raw: RawSftp, number: int) -> sftp.Reply:
    """Upload the file of that number."""
    return await raw.put(f"/send/{general_name(number=number)}", SAFE)


@pytest.mark.parametrize("damage", [everything_behind_the_first_page, the_last_pages, the_log])
async def test_a_damaged_store_is_told_in_words_and_a_backup_mends_it(
    make_house: MakeHouse, tmp_path: Path, damage: object
) -> None:
    """Clients are told whom to call, the operator once what to do; the server stays, and stops when it is asked to."""
    assert callable(damage)
    house = make_house()
    house.start()
    async with house.dial() as one, open_raw(one) as raw:
        for number in range(FILES):
            assert (await put(raw, number)).code == sftp.OK
    backup = tmp_path / "backup.db"
    assert (await asyncio.to_thread(house.relay, "backup", str(backup))).returncode == 0
    if damage is not the_log:
        house.restart()
    async with house.dial() as one, open_raw(one) as raw:
        if damage is the_log:
            assert (await put(raw, FILES)).code == sftp.OK
        damage(house)
        for number in range(100, 104):
            reply = await put(raw, number)
            assert reply.code == sftp.FAILURE
            assert reply.text.startswith(f"{CODE}: ")
            assert JAPANESE in reply.text
            assert ENGLISH in reply.text
    (told,) = house.journal_lines("store.failed")
    assert str(house.config.store.path) in told["cause"]
    assert "`relay restore FILE`" in told["cause"]
    assert house.journal_lines("store.recovered") == []
    assert house.stop() == 0
    restored = house.relay("restore", str(backup), "--yes")
    assert restored.returncode == 0, restored.stdout + restored.stderr
    house.start()
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        for number in range(FILES):
            assert await theirs.get(f"/new/{general_name(number=number)}") == SAFE
        assert (await put(ours, 100)).code == sftp.OK


async def test_a_store_that_was_damaged_while_nobody_served_is_not_served(make_house: MakeHouse) -> None:
    """The server ends at once, with what to do, instead of telling every client."""
    house = make_house()
    everything_behind_the_first_page(house)
    done = house.relay("serve", "--port", "0")
    assert done.returncode == 1, done.stderr
    assert "It is damaged" in done.stderr
    assert "`relay restore FILE`" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_file_whose_bytes_are_damaged_is_told_and_not_collected(make_house: MakeHouse) -> None:
    """Its recipient is told whom to call each time, the operator once; others are read, and this one stays new."""
    house = make_house()
    house.start()
    broken, whole = general_name(number=1), general_name(number=2)
    async with house.dial() as one, open_raw(one) as raw:
        for name in (broken, whole):
            assert (await raw.put(f"/send/{name}", SAFE)).code == sftp.OK
    with closing(sqlite3.connect(house.config.store.path)) as store, store:
        store.execute("UPDATE chunk SET sealed = randomblob(length(sealed)) WHERE id = (SELECT min(id) FROM chunk)")
    async with house.dial(HOME_HELP) as two, open_raw(two) as raw:
        for _ in range(3):
            handle = await raw.open(f"/new/{broken}", sftp.READING)
            reply = await raw.call(sftp.READ, handle, sftp.Long(0), 32_000)
            assert reply.code == sftp.FAILURE
            assert CODE in reply.text
            assert JAPANESE in reply.text
            assert (await raw.call(sftp.CLOSE, handle)).code == sftp.OK
        assert await raw.get(f"/new/{whole}") == SAFE
        assert broken in await raw.list("/new")
    (told,) = house.journal_lines("payload.damaged")
    assert told["transfer"] == 1
    assert "relay doctor" in told["advice"]
    assert [each.id for each in house.transfers() if each.collected_at] == [2]
