"""The disk is lost: backups made while the relay runs, and the way back, with what is lost said to the second."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import raw_sftp as sftp
from house import (
    HOME_HELP,
    Completed,
    House,
    general_name,
    pdf,
    plan_csv,
    plan_name,
    relay_command,
    run_program,
    wait_for,
)
from hypothesis import given
from hypothesis import strategies as st
from psutil import Process
from raw_sftp import open_raw

from relay.ledger.backups import _DAYS_KEPT, make_backup, name_backup, plan_removal

PATIENCE_SECONDS = 90


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """Return a relay, serving."""
    house = make_house()
    house.start()
    return house


def relay(house: House, *words: str) -> Completed:
    """Run a command of the operator's."""
    return run_program([*relay_command(house.path), *words])


async def test_the_data_folder_is_lost_and_the_relay_comes_back(house: House, tmp_path: Path) -> None:
    """Files of before the backup are there, numbers go on behind those that were told, and what is lost can be sent again."""
    backup = tmp_path / "elsewhere" / "relay.db"
    backup.parent.mkdir()
    big = pdf(700_000)
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert (await ours.put(f"/send/{plan_name()}", plan_csv())).code == sftp.OK
        assert (await ours.put(f"/send/{general_name(number=1)}", big)).code == sftp.OK
        assert (await ours.put(f"/send/{HOME_HELP}/山田.pdf", pdf())).code == sftp.OK
        assert await theirs.get(f"/new/{plan_name()}") == plan_csv()
        # While uploads go on.
        making = asyncio.create_task(asyncio.to_thread(relay, house, "backup", str(backup), "--json"))
        number = 10
        while not making.done():
            assert (await ours.put(f"/send/{plan_name(number=number)}", plan_csv())).code == sftp.OK
            number += 1
        made = making.result()
        assert made.returncode == 0, made.stderr
        lost = [plan_name(number=200 + n) for n in range(3)]
        for name in lost:
            assert (await ours.put(f"/send/{name}", plan_csv())).code == sftp.OK
    told = json.loads(made.stdout)
    assert told["transfers"] >= 3
    assert backup.stat().st_mode & 0o777 == 0o600
    newest = max(transfer.id for transfer in house.transfers())
    house.stop()
    shutil.rmtree(house.config.store.path.parent)

    planned = relay(house, "restore", str(backup), "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "seconds later" in planned.stdout
    assert told["master_key"] in planned.stdout
    assert not house.config.store.path.exists()
    done = relay(house, "restore", str(backup), "--yes")
    assert done.returncode == 0, done.stderr
    house.start()
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        assert await theirs.get(f"/receive/{plan_name()}") == plan_csv()
        assert await theirs.get(f"/new/{general_name(number=1)}") == big
        shown = await theirs.list("/new")
        assert any(name.endswith("_山田.pdf") for name in shown)
        for name in lost:
            assert name not in shown
            assert (await ours.put(f"/send/{name}", plan_csv())).code == sftp.OK
            assert await theirs.get(f"/new/{name}") == plan_csv()
    again = [transfer for transfer in house.transfers() if transfer.name in lost]
    assert min(transfer.id for transfer in again) > newest
    verified = relay(house, "audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_store_that_is_in_use_is_not_replaced(house: House, tmp_path: Path) -> None:
    """While the relay runs a restore is refused and changes nothing; stopped, the store before is kept."""
    backup = tmp_path / "relay.db"
    assert relay(house, "backup", str(backup)).returncode == 0
    refused = relay(house, "restore", str(backup), "--yes")
    assert refused.returncode == 1
    assert "Stop the relay" in refused.stderr
    assert house.transfers() == []
    assert relay(house, "backup", str(backup)).returncode == 2, "it was overwritten unasked"
    house.stop()
    assert relay(house, "restore", str(backup)).returncode == 2, "nobody was asked"
    assert relay(house, "restore", str(backup), "--yes").returncode == 0
    (kept,) = house.config.store.path.parent.glob("relay.db.replaced-*Z")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    house.start()


def test_a_backup_that_does_not_fit_is_refused_in_words(house: House, tmp_path: Path) -> None:
    """Not there, no store, damaged, of a newer relay, or sealed under keys that are not here."""
    good = tmp_path / "good.db"
    assert relay(house, "backup", str(good)).returncode == 0
    house.stop()
    foreign, newer, damaged = (tmp_path / name for name in ("foreign.db", "newer.db", "damaged.db"))
    foreign.write_text("this is no store " * 1_000)
    shutil.copy(good, newer)
    with closing(sqlite3.connect(newer)) as connection, connection:
        connection.execute("UPDATE meta SET value = 999 WHERE key = 'schema_version'")
    content = bytearray(good.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    damaged.write_bytes(content)
    said = {
        tmp_path / "none.db": "no backup",
        foreign: "cannot be read",
        newer: "newer relay",
        damaged: "amaged",
    }
    for file, words in said.items():
        refused = relay(house, "restore", str(file), "--yes")
        assert refused.returncode == 1, file
        assert words in refused.stderr or "malformed" in refused.stderr, refused.stderr
    key = house.path / "keys" / "master.key"
    kept = key.read_text()
    store = sqlite3.connect(good)
    with closing(store), store:
        store.execute("INSERT INTO master_key (id, since) VALUES ('0badc0de', 1)")
    refused = relay(house, "restore", str(good), "--yes")
    assert refused.returncode == 2
    assert "0badc0de" in refused.stderr
    assert key.read_text() == kept
    assert not list(house.config.store.path.parent.glob("*replaced*"))
    house.start()


def test_backups_leave_no_file_open(make_house: Callable[..., House], tmp_path: Path) -> None:
    """A program that makes one every few minutes for ever would come to the end of what it may open."""
    store = make_house().config.store.path
    files = {make_backup(store, tmp_path / f"{n}.db", now=datetime.now(UTC)): Process().num_fds() for n in range(4)}
    assert len(set(files.values())) == 1, files


def blocks(process: Process, number: signal.Signals) -> bool:
    """True while a signal waits until that process looks for it."""
    (line,) = (
        line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("SigBlk:")
    )
    return bool(int(line.split()[1], 16) & 1 << (number - 1))


@pytest.mark.parametrize("is_busy", [False, True])
def test_backups_go_on_by_themselves(house: House, tmp_path: Path, is_busy: bool) -> None:  # noqa: FBT001 - pytest gives it by its name
    """One each span into a folder, old ones removed only behind a newer one; SIGTERM ends it, behind one that it is busy with."""
    folder = tmp_path / "backups"
    folder.mkdir()
    old = folder / "relay-20200101T000000Z.db"
    older = folder / "relay-20200101T000000Z.db.note"
    for file in (old, older):
        file.write_text("old")
    command = [*relay_command(house.path), "backup", "--every", "30m", "--to", str(folder), "--keep", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as process:
        assert process.stdout is not None
        if is_busy:
            wait_for(lambda: blocks(Process(process.pid), signal.SIGTERM), "it to begin")
            process.send_signal(signal.SIGTERM)
        assert "transfers" in process.stdout.readline()
        if not is_busy:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    # One a day is kept of those before the newest.
    assert old.exists()
    assert older.exists()
    made = [path for path in folder.glob("relay-*.db") if path != old]
    assert len(made) == 1
    assert relay(house, "restore", str(made[0]), "--dry-run").returncode == 0


@given(st.lists(st.integers(0, 90 * 24), min_size=1, max_size=120, unique=True), st.integers(1, 40))
def test_which_backups_are_kept(hours: list[int], keep: int) -> None:
    """The newest are all kept, and the last of each of the days before, for a month; the newest one always."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    backups = sorted(Path(name_backup(start + timedelta(hours=hour))) for hour in hours)
    gone = plan_removal(backups, keep)
    kept = [path for path in backups if path not in gone]
    assert kept[-keep:] == backups[-keep:]
    days = [path.name[6:14] for path in kept[:-keep]]
    assert len(days) == len(set(days)) <= _DAYS_KEPT
    assert set(gone) <= set(backups[:-keep])
    for path in gone:
        day = path.name[6:14]
        is_of_an_old_day = len({each.name[6:14] for each in backups if each.name[6:14] > day}) >= _DAYS_KEPT
        assert is_of_an_old_day or any(each.name[6:14] == day and each > path for each in kept)
