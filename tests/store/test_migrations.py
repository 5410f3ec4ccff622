"""A store that an older relay made: brought forward whole, step by step, by the operator's command; or refused in words."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import AUDIT_KEY, NOW, SECOND, A, B, Shop, identity, open_shop, plan_name

from relay.errors import ConfigError
from relay.ledger import Shelf, migrations, storefile
from relay.ledger.migrations import Step, load_steps, newest_form
from relay.ledger.sqlite import create_store, open_ledger, plan_upgrade, upgrade_store
from relay.lifecycle import State
from relay.model import TransferId
from relay.vault import MasterKey, Vault

# Made by the first release, with keys of zeros; no later form may need another one to be read.
FIRST = Path(__file__).parent / "data" / "form-1.sql"
FIRST_VAULT = (MasterKey("m1", bytes(32)), bytes(32))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a store as the first release left it: files waiting, collected, recalled, half read and half sent."""
    path = tmp_path / "relay.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;" + FIRST.read_text("utf-8")
        )
    return path


def _form(path: Path) -> int | None:
    with closing(sqlite3.connect(path)) as connection:
        return migrations.read_form(connection)


def _make_up(*steps: Step) -> tuple[Step, ...]:
    return (*load_steps(), *steps)


def _schema(path: Path) -> list[tuple[str, str]]:
    """Return every table, index and trigger with its text, blanks aside: a dump writes them its own way."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    return [(name, " ".join(sql.split())) for name, sql in found]


async def test_a_store_of_the_first_release_keeps_everything(old: Path) -> None:
    """After the upgrade every file is where it was, can be read, and goes on through its life."""
    done: list[int] = []
    assert upgrade_store(old, lambda step: done.append(step.number)) == newest_form() - 1
    assert done == list(range(2, newest_form() + 1))
    vault = Vault(*FIRST_VAULT)
    async with await open_ledger(old, vault, AUDIT_KEY) as ledger:
        shop = Shop(old, vault, ledger)
        contents = {number: await shop.content(TransferId(number)) for number in (1, 2, 4, 5)}
        assert contents == {1: b"waiting", 2: b"collected", 4: "見本".encode(), 5: b"half read"}
        recalled = await ledger.find_transfer(TransferId(3))
        assert recalled is not None
        assert recalled.state is State.RECALLED
        new = await ledger.list_shelf(B, Shelf.NEW)
        assert sorted(entry.name for entry in new.entries) == sorted(
            [plan_name(1), plan_name(4), f"{A}_20260801003000_見本.pdf"]
        )
        partial = await ledger.find_partial(A, plan_name(5) + ".filepart")
        assert partial is not None
        assert partial.size_bytes == len(b"begun")
        (refusal,) = await ledger.list_refusals(A, since=NOW - SECOND)
        assert refusal.name == "x.pdf"
        half = await ledger.record_served(TransferId(5), [(4, 9)], identity=identity(B), now=NOW + SECOND)
        assert half.state is State.COLLECTED
        assert (await shop.send(b"and on it goes", plan_name(9))).state is State.ACCEPTED


async def test_what_was_held_is_still_held_and_no_number_comes_twice(old: Path) -> None:
    """A store with a held file and with numbers of which no row is left: its offices are told why, and numbers go on."""
    with closing(sqlite3.connect(old)) as connection, connection:
        for step in load_steps()[1:10]:
            connection.executescript(step.sql)
        connection.execute("UPDATE meta SET value = 10 WHERE key = 'schema_version'")
        connection.execute("UPDATE transfer SET shelf = 'none', withdrawn = id WHERE id = 1")
        connection.execute("INSERT INTO event (at, kind, actor, transfer, detail) VALUES (7, 'held', 'me', 1, 'why')")
        connection.execute("UPDATE sqlite_sequence SET seq = 900 WHERE name = 'transfer'")
    upgrade_store(old, lambda _step: None)
    vault = Vault(*FIRST_VAULT)
    async with await open_ledger(old, vault, AUDIT_KEY) as ledger:
        (incident,) = await ledger.list_incidents(B, since=NOW)
        assert (incident.kind, incident.reason, incident.transfer.id) == ("held", "why", 1)
        released = await ledger.release_transfer(TransferId(1), reason="right", actor="me", now=NOW)
        assert not released.is_held
        assert await ledger.list_incidents(A, since=NOW) == []
        assert (await Shop(old, vault, ledger).send(b"next", plan_name(9))).id == 901


async def test_a_store_that_grew_is_the_same_as_a_new_one(old: Path, tmp_path: Path) -> None:
    """Tables, indexes and triggers of an upgraded store are those of a store made today."""
    upgrade_store(old, lambda _step: None)
    create_store(tmp_path / "new" / "relay.db")
    assert _schema(old) == _schema(tmp_path / "new" / "relay.db")


async def test_a_newer_store_is_refused_in_words(tmp_path: Path) -> None:
    """A store that a later version has used is neither opened nor 'upgraded' backwards."""
    shop = await open_shop(tmp_path)
    await shop.ledger.close()
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute("UPDATE meta SET value = 99 WHERE key = 'schema_version'")
    for attempt in (lambda: storefile.open_checked(shop.path, 0), lambda: plan_upgrade(shop.path)):
        with pytest.raises(ConfigError, match="newer relay"):
            attempt()


async def test_an_older_store_is_not_touched_unasked(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a store of an older form changes nothing and says which command brings it forward."""
    monkeypatch.setattr(migrations, "newest_form", lambda: 99)
    with pytest.raises(ConfigError, match="relay db upgrade"):
        await open_ledger(old, Vault(*FIRST_VAULT), AUDIT_KEY)
    assert _form(old) == 1


async def test_a_store_in_use_is_not_upgraded(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a relay has the store open the upgrade is refused, and the relay goes on."""
    upgrade_store(old, lambda _step: None)
    form = newest_form()
    async with await open_ledger(old, Vault(*FIRST_VAULT), AUDIT_KEY) as ledger:
        step = Step(form + 1, "another table", "CREATE TABLE another (x) STRICT;")
        monkeypatch.setattr(migrations, "load_steps", lambda: _make_up(step))
        with pytest.raises(ConfigError, match="Stop the relay"):
            upgrade_store(old, lambda _step: None)
        assert await ledger.find_transfer(TransferId(1)) is not None
    assert _form(old) == form


BROKEN = {
    "a wrong statement": "CREATE TABLE good (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);",
    "rows that refer to nothing": "CREATE TABLE good (x INTEGER) STRICT; DELETE FROM payload;",
    "a broken invariant": "CREATE TABLE good (x INTEGER) STRICT; UPDATE transfer SET size_bytes = -1;",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_step_that_does_not_fit_leaves_the_store_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A step fails in the middle: nothing of it stays, the form is that before it, and the steps before it are kept."""
    form = newest_form()
    good = Step(form + 1, "a step that works", "CREATE TABLE before (x INTEGER) STRICT;")
    bad = Step(form + 2, "a step that does not", BROKEN[fault])
    monkeypatch.setattr(migrations, "load_steps", lambda: _make_up(good, bad))
    heard: list[int] = []
    with pytest.raises(ConfigError, match="Nothing was lost"):
        upgrade_store(old, lambda step: heard.append(step.number))
    assert heard[-1] == form + 1
    assert _form(old) == form + 1
    names = [name for name, _sql in _schema(old)]
    assert "before" in names
    assert "good" not in names


def test_killed_in_the_middle_of_a_step(old: Path, tmp_path: Path) -> None:
    """A program killed inside a step's transaction leaves the step undone, and the same command does it again."""
    steps = len(load_steps())
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, sqlite3, sys\n"
        "from relay.ledger.migrations import Step, apply_step\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.create_function('die', 0, lambda: os.kill(os.getpid(), 9))\n"
        f"apply_step(connection, Step({steps + 1}, 'dies', 'CREATE TABLE half (x INTEGER) STRICT; SELECT die();'))\n"
    )
    died = subprocess.run([sys.executable, script, old], check=False, env=os.environ)
    assert died.returncode == -9
    assert "half" not in [name for name, _sql in _schema(old)]
    upgrade_store(old, lambda _step: None)
    assert _form(old) == newest_form()
