"""The operator has installed a new version: what `relay db upgrade` says, and what it does."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from relay.ledger.migrations import load_steps

RELAY = Path(sys.executable).with_name("relay")
FIRST = Path(__file__).parents[1] / "store" / "data" / "form-1.sql"


def _relay(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RELAY, *words, "--home", home], capture_output=True, text=True, check=False, timeout=60)


def test_the_operator_brings_an_old_store_forward(tmp_path: Path) -> None:
    """Asked first and told each step; without a terminal or --yes nothing happens; the second time nothing is to do."""
    assert _relay(tmp_path, "init").returncode == 0
    store = tmp_path / "data" / "relay.db"
    for file in store.parent.glob("relay.db*"):
        file.unlink()
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(FIRST.read_text("utf-8"))
    # The keys of that store, which are nothing but zeros.
    zeros = base64.b64encode(bytes(32)).decode()
    (tmp_path / "keys" / "master.key").write_text(f"careplan-relay-master-key m1 {zeros}\n")
    (tmp_path / "keys" / "index.key").write_text(f"careplan-relay-index-key {zeros}\n")
    lacking = load_steps()[1:]
    if lacking:
        refused = _relay(tmp_path, "office", "list")
        assert refused.returncode == 1
        assert "relay db upgrade" in refused.stderr
        assert _relay(tmp_path, "db", "upgrade").returncode == 2
    planned = _relay(tmp_path, "db", "upgrade", "--dry-run")
    assert planned.returncode == 0
    assert all(step.title in planned.stdout for step in lacking)
    done = _relay(tmp_path, "db", "upgrade", "--yes")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("done")] == [
        f"done  {step.number}" for step in lacking
    ]
    told = _relay(tmp_path, "audit", "list", "--kind", "command", "-n", "1").stdout
    assert "db upgrade --yes" in told, "history does not say who upgraded the store"
    assert "Nothing is to be done" in _relay(tmp_path, "db", "upgrade").stdout
    assert "0178515854" in _relay(tmp_path, "office", "list").stdout
