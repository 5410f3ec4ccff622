"""The power goes while a backup is put in the place of the store: there is the one or the other, whole, and never a mix."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import raw_sftp as sftp
from aftermath import find_all, load_keys
from disk import Disk, Loss, lend_folder, play
from house import House, MakeHouse, general_name, pdf
from raw_sftp import open_raw
from recorder import Change, Kind, Recorder

from relay.configfile import load_config
from relay.errors import RelayError
from relay.ledger.sqlite import open_ledger

IN_BACKUP, LATER = range(3), range(3, 6)
LOSSES = (Loss.ALL, Loss.NONE, Loss.MIXED, Loss.MIXED)


def content_of(number: int) -> bytes:
    """Return the bytes of the file of that number."""
    return pdf(5_000) + b"%d\n%%%%EOF\n" % number


async def send(house: House, numbers: range) -> None:
    """Upload those files."""
    async with house.dial() as connection, open_raw(connection) as raw:
        for number in numbers:
            assert (await raw.put(f"/send/{general_name(number=number)}", content_of(number))).code == sftp.OK


async def held_by(home: Path) -> set[int] | None:
    """Return the numbers of the files that a server started in *home* would serve, all of them whole; None if it would not start."""
    with contextlib.suppress(RelayError):
        return await _held_by(home)
    return None


async def _held_by(home: Path) -> set[int]:
    config, keyring = load_config(home, {}), load_keys(home / "keys")
    async with await open_ledger(config.store.path, keyring.open_vault(), keyring.audit_key) as ledger:
        found = await find_all(ledger, config, keyring)
    with closing(sqlite3.connect(config.store.path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    numbers = {number for number in (*IN_BACKUP, *LATER) if general_name(number=number) in found}
    assert len(numbers) == len(found)
    assert {found[general_name(number=number)].read for number in numbers} == {content_of(n) for n in numbers}
    return numbers


def places_of(changes: list[Change]) -> set[int]:
    """Return the positions in the middle of each change and behind it."""
    return {place for change in changes for place in (change.began + 1, (change.ended or 0) + 1)}


@pytest.mark.parametrize("is_damaged", [False, True], ids=["of a whole store", "of a damaged store"])
async def test_a_restore_that_is_cut_off_leaves_one_store_or_the_other(
    make_house: MakeHouse, tmp_path: Path, *, is_damaged: bool
) -> None:
    """At every step of the command: what it replaces, whose log was left by a kill, or what it puts there."""
    house, recorder, chosen = make_house(), Recorder(tmp_path), random.Random(20_261_122)
    backup = house.path / "backup.db"
    house.start()
    await send(house, IN_BACKUP)
    assert (await asyncio.to_thread(house.relay, "backup", str(backup))).returncode == 0
    # What is in the store so far is in its file; what comes now, in the log.
    house.restart()
    await send(house, LATER)
    house.kill()
    if is_damaged:
        # Too little can be read of it to open it, and the log stays beside it.
        store = house.config.store.path
        store.write_bytes(chosen.randbytes(store.stat().st_size))
    before = Disk(house.path)
    done = await asyncio.to_thread(recorder.relay, house, "restore", str(backup), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    changes = recorder.changes()
    named = [change for change in changes if change.kind in (Kind.RENAME, Kind.LINK, Kind.UNLINK)]
    places = places_of(named) | {*chosen.sample(sorted(places_of(changes)), 20)}
    old = None if is_damaged else {*IN_BACKUP, *LATER}
    seen, tried = set[frozenset[int] | None](), 0
    with lend_folder() as folder:
        for place in play(before, changes, sorted(places)):
            for loss in LOSSES:
                home = folder / "home"
                before.leave(home, loss, chosen, are_ordered=chosen.random() < 0.5)
                numbers = await held_by(home)
                assert numbers in (old, {*IN_BACKUP}), f"{loss} at {place}"
                seen.add(None if numbers is None else frozenset(numbers))
                tried += 1
                shutil.rmtree(home)
    print(f"\nrestore: {tried} cuts of {len(changes)} changes")  # noqa: T201 - asked for with -s
    assert seen == {None if old is None else frozenset(old), frozenset(IN_BACKUP)}
    assert await held_by(house.path) == {*IN_BACKUP}
    assert (await asyncio.to_thread(house.relay, "audit", "verify")).returncode == 0
