"""The master key is rotated: while files come and go, after an interruption, and with what older backups hold."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import raw_sftp as sftp
from house import HOME_HELP, House, general_name, pdf, plan_csv, plan_name, relay_command, run_program
from raw_sftp import Long, RawSftp, open_raw

from relay.errors import ConfigError
from relay.keymaking import begin_master_rotation
from relay.keyring import OLD_MASTER, load_keyring
from relay.ledger.rows import to_time
from relay.ledger.sqlite import open_ledger
from relay.model import TransferId
from relay.vault import VaultError


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """Return a relay with two offices, serving."""
    house = make_house()
    house.start()
    return house


def rotate(house: House, *more: str) -> subprocess.CompletedProcess[str]:
    """Rotate the master key as the operator does."""
    return run_program([*relay_command(house.path), "key", "rotate", "--master", *more])


def back_up(store: Path, copy: Path) -> Path:
    """Copy the store as SQLite copies it, while it is in use."""
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def masters_of(store: Path) -> set[str]:
    """Return under which master keys anything in the store lies."""
    with closing(sqlite3.connect(store)) as connection:
        rows = connection.execute(
            "SELECT master_id FROM payload WHERE wrapped_key IS NOT NULL UNION SELECT master_id FROM partial "
            "UNION SELECT master_id FROM refusal"
        ).fetchall()
    return {row[0] for row in rows}


async def read_from(store: Path, keys: Path, transfer: int) -> bytes:
    """Read the first chunk of a transfer with the keys in *keys*."""
    keyring = load_keyring(keys)
    vault = keyring.open_vault()
    async with await open_ledger(store, vault, keyring.audit_key) as ledger:
        payload = await ledger.open_payload(TransferId(transfer))
        sealer = vault.open_sealer(
            payload.wrapped_key, payload.uid, size_bytes=payload.size_bytes, chunk_count=payload.chunk_count
        )
        return sealer.open_chunk(0, await ledger.read_chunk(payload, 0))


async def test_files_come_and_go_while_the_key_is_rotated(house: House) -> None:
    """Uploads, a cut one, a free name and a refusal from before and during the rotation are all there after it."""
    sent: dict[str, bytes] = {}

    async def send(raw: RawSftp, number: int) -> None:
        name = plan_name(number=number)
        sent[name] = plan_csv(2_000 + number)
        assert (await raw.put(f"/send/{name}", sent[name])).code == sftp.OK

    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        for number in range(5):
            await send(ours, number)
        report = general_name(number=50)
        assert (await ours.put(f"/send/{report}", b"not a PDF")).code == sftp.FAILURE
        handle = await ours.open(f"/send/{general_name(number=51)}.filepart")
        assert (await ours.call(sftp.WRITE, handle, Long(0), pdf(250_000)[:200_000])).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).code == sftp.OK
        # One that began under the old key and ends under the new one.
        late = general_name(number=52)
        late_handle = await ours.open(f"/send/{late}")
        assert (await ours.call(sftp.WRITE, late_handle, Long(0), pdf()[:2_000])).code == sftp.OK
        rotation = asyncio.create_task(asyncio.to_thread(rotate, house, "--yes"))
        number = 5
        while not rotation.done():
            await send(ours, number)
            number += 1
        done = rotation.result()
        assert done.returncode == 0, done.stderr
        assert "Back up" in done.stdout
        await send(ours, number)
        assert (await ours.call(sftp.WRITE, late_handle, Long(2_000), pdf()[2_000:])).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, late_handle)).code == sftp.OK
        for name, content in sent.items():
            assert await theirs.get(f"/new/{name}") == content
        assert await theirs.get(f"/new/{late}") == pdf()
        note = await ours.get(f"/send/{report}.refused.txt")
        assert b"content." in note
    # With nothing but the new key: a server that starts afresh.
    house.restart()
    assert not (house.path / "keys" / OLD_MASTER).exists()
    assert masters_of(house.config.store.path) == {load_keyring(house.path / "keys").master.id}
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert await theirs.get(f"/receive/{plan_name(number=0)}") == sent[plan_name(number=0)]
        path = f"/send/{general_name(number=51)}.filepart"
        handle = await ours.open(path, 0x02)
        assert (await ours.call(sftp.WRITE, handle, Long(200_000), pdf(250_000)[200_000:])).code == sftp.OK
        assert (await ours.call(sftp.CLOSE, handle)).code == sftp.OK
        assert (await ours.call(sftp.RENAME, path, f"/send/{general_name(number=51)}")).code == sftp.OK
        assert await theirs.get(f"/new/{general_name(number=51)}") == pdf(250_000)


async def test_a_rotation_that_was_interrupted_goes_on(house: House) -> None:
    """After the new key was made and nothing more: everything can be read, by a new server too, and a second run ends it."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
    old, new = begin_master_rotation(house.path / "keys")
    assert (old, new) == begin_master_rotation(house.path / "keys")
    house.restart()
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{plan_name(number=1)}", plan_csv())).code == sftp.OK
        # Without --yes and a terminal it is all wrapped again, but nothing is destroyed.
        asked = await asyncio.to_thread(rotate, house)
        assert asked.returncode == 2
        assert (house.path / "keys" / OLD_MASTER).exists()
        assert masters_of(house.config.store.path) == {new.id}
        assert (await ours.put(f"/send/{plan_name(number=2)}", plan_csv())).code == sftp.OK
        done = await asyncio.to_thread(rotate, house, "--yes")
        assert done.returncode == 0, done.stderr
        assert load_keyring(house.path / "keys").master == new
        for number in range(3):
            assert await theirs.get(f"/new/{plan_name(number=number)}") == plan_csv()


def test_an_old_key_that_was_half_overwritten_is_no_key(house: House) -> None:
    """The power went while the old key was destroyed: the server starts, and a second run ends the rotation."""
    old, new = begin_master_rotation(house.path / "keys")
    assert rotate(house).returncode == 2, "everything is wrapped with the new key, and nothing is destroyed"
    file = house.path / "keys" / OLD_MASTER
    file.write_bytes(bytes(40) + file.read_bytes()[40:])
    house.restart()
    keyring = load_keyring(house.path / "keys")
    assert (keyring.master, keyring.older_masters) == (new, ())
    assert rotate(house, "--yes").returncode == 0
    assert not file.exists()
    assert load_keyring(house.path / "keys").master.id not in (old.id, new.id)


async def test_an_older_backup_dies_with_the_old_key(house: House, tmp_path: Path) -> None:
    """A backup of the store from before the rotation, with the keys after it, opens nothing of a file removed since."""
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        backup = back_up(house.config.store.path, tmp_path / "backup.db")
        old_keys = shutil.copytree(house.path / "keys", tmp_path / "old-keys")
        assert (await ours.call(sftp.RENAME, f"/send/{plan_name()}", f"/recall/{plan_name()}")).code == sftp.OK
        assert (await asyncio.to_thread(rotate, house, "--yes")).returncode == 0
    assert (await read_from(backup, old_keys, 1)).startswith(plan_csv()[:100])
    # Opening it is refused in words, and who goes around that finds a key that opens nothing.
    keyring = load_keyring(house.path / "keys")
    with pytest.raises(ConfigError, match="put back the backup of keys/"):
        await open_ledger(backup, keyring.open_vault(), keyring.audit_key)
    with closing(sqlite3.connect(backup)) as connection:
        wrapped, uid, size, count = connection.execute(
            "SELECT wrapped_key, uid, size_bytes, chunk_count FROM payload"
        ).fetchone()
    with pytest.raises(VaultError):
        keyring.open_vault().unwrap_key(wrapped, uid, size_bytes=size, chunk_count=count)


async def test_a_damaged_key_keeps_the_old_one(house: House) -> None:
    """Where a file's key opens under neither master key the old one is not destroyed, and the operator is told."""
    async with house.dial() as one, open_raw(one) as ours:
        for number in range(2):
            assert (await ours.put(f"/send/{plan_name(number=number)}", plan_csv())).code == sftp.OK
    with closing(sqlite3.connect(house.config.store.path)) as connection, connection:
        connection.execute("UPDATE payload SET wrapped_key = randomblob(length(wrapped_key)) WHERE id = 1")
    done = rotate(house, "--yes")
    assert done.returncode == 1
    assert "1 open under neither key" in done.stderr
    assert (house.path / "keys" / OLD_MASTER).exists()


def test_a_rotation_killed_at_any_moment(house: House) -> None:
    """Killed again and again, started again and again: in the end everything lies under the new key and can be read."""

    async def fill() -> None:
        async with house.dial() as one, open_raw(one) as ours:
            for number in range(30):
                assert (await ours.put(f"/send/{plan_name(number=number)}", plan_csv(500))).code == sftp.OK

    asyncio.run(fill())
    was = load_keyring(house.path / "keys").master
    for words in ("is in use", "were wrapped again", "Back up"):
        command = [*relay_command(house.path), "key", "rotate", "--master", "--yes"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if words in line:
                    process.kill()
                    break
    done = rotate(house, "--yes")
    assert done.returncode == 0, done.stderr
    keyring = load_keyring(house.path / "keys")
    assert keyring.master.id != was.id
    assert masters_of(house.config.store.path) == {keyring.master.id}

    async def read() -> None:
        async with house.dial(HOME_HELP) as two, open_raw(two) as theirs:
            for number in range(30):
                assert await theirs.get(f"/new/{plan_name(number=number)}") == plan_csv(500)

    asyncio.run(read())
    with closing(sqlite3.connect(house.config.store.path)) as connection:
        rows = connection.execute("SELECT id, since, ended_at, destroyed_at FROM master_key ORDER BY since").fetchall()
    assert rows[0][0] == was.id
    assert all(destroyed is not None and to_time(since) <= to_time(ended) for _, since, ended, destroyed in rows[:-1])
    assert rows[-1][2:] == (None, None)
