"""The power goes, or the command is killed, while a store is upgraded, backed up or restored: never half a step, never half a backup.

Every change that the real command makes is recorded and cut at each of them (`recorder`, `disk`).  Where nothing that was
done is lost a cut is a kill -9 in that moment; where what was not synced is lost or torn it is a power cut.
"""

from __future__ import annotations

import base64
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aftermath import find_all, load_keys
from disk import Disk, Loss, lend_folder, play
from house import House, MakeHouse, general_name, pdf
from raw_sftp import OK, open_raw
from recorder import Change, Kind, Recorder

from relay.configfile import load_config
from relay.errors import ConfigError
from relay.ledger.backups import inspect_backup, restore_backup
from relay.ledger.migrations import apply_step, load_steps, newest_form, read_form
from relay.ledger.sqlite import open_ledger, upgrade_store

FIRST = Path(__file__).parents[1] / "store" / "data" / "form-1.sql"
SEED = 20_261_123
LOSSES = (Loss.NONE, Loss.ALL, Loss.TORN, Loss.MIXED)
# What makes an old store a large one: refusals, which refer to nothing.
_MORE_ROWS = 2_000
_AFTER_ALL = 1 << 62
Dump = dict[str, list[tuple[object, ...]]]


def places_of(changes: list[Change], most: int, chosen: random.Random) -> list[int]:
    """Return positions in the middle of changes and behind them: so many of changes of names, of others, and behind all."""
    named = [change for change in changes if change.kind not in (Kind.WRITE, Kind.SYNC)]
    some, others = ({p for c in group for p in (c.began + 1, (c.ended or 0) + 1)} for group in (named, changes))
    picked = {place for group in (some, others) for place in chosen.sample(sorted(group), min(len(group), most))}
    return sorted(picked) + [_AFTER_ALL] * len(LOSSES)


def cut(disk: Disk, changes: list[Change], places: list[int], chosen: random.Random) -> Iterator[tuple[Path, str]]:
    """Yield a home as each cut leaves it, and which cut that was."""
    with lend_folder() as folder:
        home = folder / "home"
        for number, place in enumerate(play(disk, changes, places)):
            loss = LOSSES[number % len(LOSSES)]
            disk.leave(home, loss, chosen, are_ordered=number // len(LOSSES) % 2 == 0)
            yield home, f"{loss} at {place}"
            shutil.rmtree(home)


def dump(store: Path, *, as_backup: bool = False) -> Dump:
    """Return the form of the store and everything in it; AssertionError where it is not sound.

    *as_backup* looks at the file alone, as who restores it does.
    """
    uri = f"{store.as_uri()}?mode=ro&immutable=1" if as_backup else store.as_uri()
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        shape = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
        return {"": shape.fetchall()} | {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in tables
        }


def make_old(house: House) -> Path:
    """Give *house* a store that the first release made, with many rows, and the keys of that store; return it."""
    store = house.config.store.path
    for file in store.parent.glob("relay.db*"):
        file.unlink()
    house.config.audit.anchor.unlink(missing_ok=True)
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;" + FIRST.read_text())
        columns = [row[1] for row in connection.execute("PRAGMA table_info(refusal)") if row[1] != "id"]
        names = ", ".join(columns)
        values = names.replace("refusal_key", "randomblob(16)")
        connection.execute(
            f"WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {_MORE_ROWS}) "
            f"INSERT INTO refusal ({names}) SELECT {values} FROM (SELECT {names} FROM refusal LIMIT 1), n"
        )
        connection.commit()
    zeros = base64.b64encode(bytes(32)).decode()
    for name, words in (("master", "master-key m1"), ("index", "index-key")):
        (house.path / "keys" / f"{name}.key").write_text(f"careplan-relay-{words} {zeros}\n")
    return store


def forms_of(store: Path, folder: Path) -> dict[int, Dump]:
    """Return what a store holds in each form, from the one that it has."""
    copy = folder / "forms.db"
    shutil.copy(store, copy)
    forms = {1: dump(copy)}
    for step in load_steps()[1:]:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            apply_step(connection, step)
        forms[step.number] = dump(copy)
    return forms


async def look(home: Path) -> dict[str, object]:
    """Return what both offices see in a store of today's form."""
    config, keyring = load_config(home, {}), load_keys(home / "keys")
    async with await open_ledger(config.store.path, keyring.open_vault(), keyring.audit_key) as ledger:
        return dict(await find_all(ledger, config, keyring))


@pytest.mark.parametrize("most", [5, pytest.param(1 << 30, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_an_upgrade_that_is_cut_off_leaves_one_form_or_the_next(
    make_house: MakeHouse, tmp_path: Path, most: int
) -> None:
    """The store has one of the forms, whole, with every row of it; the same command once more brings it to the last."""
    house, recorder, chosen = make_house(), Recorder(tmp_path), random.Random(SEED)
    store = make_old(house)
    forms, before = forms_of(store, tmp_path), Disk(house.path)
    done = recorder.relay(house, "db", "upgrade", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    seen_last, tried, found = await look(house.path), 0, set()
    changes = recorder.changes()
    for home, where in cut(before, changes, places_of(changes, most, chosen), chosen):
        path = load_config(home, {}).store.path
        with closing(sqlite3.connect(path)) as connection:
            form = read_form(connection)
        assert form is not None, where
        held = dump(path)
        found.add(form)
        if form < newest_form():
            assert held == forms[form], f"{where}: it is neither of form {form} nor of another"
        assert upgrade_store(path, lambda _step: None) == newest_form() - form, where
        assert await look(home) == seen_last, where
        tried += 1
    print(f"\nupgrade: {tried} cuts of {len(changes)} changes, forms {sorted(found)}")  # noqa: T201 - asked for with -s
    assert {1, newest_form()} <= found
    recorder.close()


async def fill(house: House, numbers: range) -> None:
    """Upload those files."""
    async with house.dial() as connection, open_raw(connection) as raw:
        for number in numbers:
            assert (await raw.put(f"/send/{general_name(number=number)}", pdf(200_000))).code == OK


@pytest.mark.parametrize("most", [8, pytest.param(1 << 30, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_half_a_backup_is_never_taken_for_a_whole_one(make_house: MakeHouse, tmp_path: Path, most: int) -> None:
    """Cut off anywhere there is none under its name or a whole one, and what it was made of is taken for none."""
    house, recorder, chosen = make_house(), Recorder(tmp_path), random.Random(SEED)
    house.start()
    await fill(house, range(8))
    house.stop()
    (house.path / "backups").mkdir()
    before = Disk(house.path)
    done = recorder.relay(house, "backup", str(house.path / "backups/one.db"))
    assert done.returncode == 0, done.stdout + done.stderr
    changes = recorder.changes()
    whole, tried, seen = dump(house.path / "backups/one.db", as_backup=True), 0, set()
    # The moment of the backup is noted in it last.
    without = {**whole, "meta": [row for row in whole["meta"] if row[0] != "backup_at"]}
    for home, where in cut(before, changes, places_of(changes, most, chosen), chosen):
        for file in (home / "backups").iterdir():
            try:
                inspect_backup(file)
            except ConfigError:
                assert file.name != "one.db", f"{where}: a backup that is none"
                continue
            assert dump(file, as_backup=True) in (whole, without), f"{where}: half of it is in {file.name}"
            seen.add(file.name)
        assert (home / "backups/one.db").exists() or not where.endswith(str(_AFTER_ALL)), (
            f"{where}: it was told, and is lost"
        )
        tried += 1
    print(f"\nbackup: {tried} cuts of {len(changes)} changes, whole ones {seen}")  # noqa: T201 - asked for with -s
    assert "one.db" in seen
    recorder.close()


def test_an_export_of_history_that_was_told_is_not_lost(make_house: MakeHouse, tmp_path: Path) -> None:
    """Whatever was not synced is gone when the power goes behind the command's last word, and the file is there, whole."""
    house, recorder = make_house(), Recorder(tmp_path)
    (house.path / "exports").mkdir()
    before, export = Disk(house.path), house.path / "exports" / "history.jsonl"
    done = recorder.relay(house, "audit", "export", str(export))
    assert done.returncode == 0, done.stdout + done.stderr
    changes = recorder.changes()
    for home, where in cut(before, changes, [_AFTER_ALL] * len(LOSSES), random.Random(SEED)):
        assert (home / "exports" / export.name).read_bytes() == export.read_bytes(), where
    recorder.close()


@pytest.mark.parametrize("most", [2, pytest.param(1 << 30, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_a_restore_that_was_cut_off_is_done_by_the_same_command(
    make_house: MakeHouse, tmp_path: Path, most: int
) -> None:
    """Wherever it ended, the backup is in place after it was said again, and what it replaced is kept."""
    house, recorder, chosen = make_house(), Recorder(tmp_path), random.Random(SEED)
    backup = house.path / "backup.db"
    house.start()
    await fill(house, range(2))
    assert house.relay("backup", str(backup)).returncode == 0
    await fill(house, range(2, 4))
    house.stop()
    everything, before = set(await look(house.path)), Disk(house.path)
    done = recorder.relay(house, "restore", str(backup), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    in_backup, tried = set(await look(house.path)), 0
    assert len(in_backup) < len(everything)
    changes = recorder.changes()
    for home, where in cut(before, changes, places_of(changes, most, chosen), chosen):
        path = load_config(home, {}).store.path
        found = inspect_backup(home / "backup.db")
        restore_backup(found, path, now=found.taken_at, lock_wait_seconds=1.0)
        assert set(await look(home)) == in_backup, where
        kept = []
        for aside in path.parent.glob("relay.db.replaced-*Z"):
            shutil.copy(aside, path)
            kept.append(set(await look(home)))
        assert everything in kept, f"{where}: {kept}"
        tried += 1
    print(f"\nrestore: {tried} cuts of {len(changes)} changes")  # noqa: T201 - asked for with -s
    recorder.close()
