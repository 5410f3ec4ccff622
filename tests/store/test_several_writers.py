"""Several processes write one store and one anchor: history holds at every moment, whoever of them is killed when."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay.audit import AuditKey, judge_history
from relay.keymaking import create_keyring
from relay.ledger.anchor import holds, read_anchor
from relay.ledger.auditing import open_history
from relay.ledger.sqlite import create_store
from relay.ledger.storefile import peeked

WRITERS = 3
EVENTS = 24
KILLS = 3

# What a worker does of it: history, and the anchor after it as often as it can.  It says what was promised.
_WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from relay.keyring import load_keyring
from relay.ledger.sqlite import open_ledger
from relay.model import EventKind

async def main(home, name):
    keyring = load_keyring(home / "keys")
    anchor = home / "audit.anchor"
    async with await open_ledger(home / "relay.db", keyring.open_vault(), keyring.audit_key, anchor=anchor) as ledger:
        for number in range(EVENTS):
            told = f"{name} {number}"
            await asyncio.gather(
                ledger.record_event(EventKind.LOGIN, actor="relay", detail=told, now=datetime.now(UTC)),
                ledger.advance_anchor(),
            )
            trouble = await ledger.advance_anchor()
            print(told if trouble is None else f"trouble: {trouble}", flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def start(home: Path, name: str) -> subprocess.Popen[str]:
    """Start a process that writes."""
    script = _WRITER.replace("EVENTS", str(EVENTS))
    return subprocess.Popen([sys.executable, "-c", script, str(home), name], stdout=subprocess.PIPE, encoding="utf-8")


def check_anchor(home: Path, key: AuditKey) -> None:
    """AssertionError where the anchor names a batch that the store does not hold."""
    anchor = read_anchor(home / "audit.anchor", key)
    if anchor is not None:
        with peeked(home / "relay.db") as reader:
            assert holds(lambda statement, cells: reader.execute(statement, cells).fetchall(), anchor.mark)


@pytest.mark.timeout(200)
def test_history_and_its_anchor_hold_while_several_processes_write_and_are_killed(tmp_path: Path) -> None:
    """Three write at once, three of them are killed on the way and replaced: what was promised is there once, in a sound chain."""
    keyring = create_keyring(tmp_path / "keys")
    create_store(tmp_path / "relay.db")
    chosen = random.Random(20_261_123)
    promised: list[str] = []
    with ExitStack() as stack:
        running = {f"w{number}": stack.enter_context(start(tmp_path, f"w{number}")) for number in range(WRITERS)}
        victims = [chosen.randrange(5, EVENTS // 2) for _ in range(KILLS)]
        started = WRITERS
        while running:
            for name, process in list(running.items()):
                assert process.stdout is not None
                line = process.stdout.readline().strip()
                if not line:
                    assert process.wait() in (0, -9)
                    del running[name]
                    continue
                promised.append(line)
                check_anchor(tmp_path, keyring.audit_key)
                if victims and int(line.rpartition(" ")[2]) == victims[0]:
                    victims.pop(0)
                    process.kill()
                    running[f"w{started}"] = stack.enter_context(start(tmp_path, f"w{started}"))
                    started += 1
    assert not victims
    assert not [line for line in promised if line.startswith("trouble")]
    check_anchor(tmp_path, keyring.audit_key)
    with open_history(tmp_path / "relay.db") as history:
        assert [*judge_history(history.batches(), history.events(), keyring.audit_key)] == []
        batches = [*history.batches()]
        told = Counter(event.detail.decode() for event in history.events())
    # Each of them is a writer of its own in the chain that they share.
    assert len({batch.writer for batch in batches}) == started
    assert {line for line in promised if told[line] != 1} == set()
    anchor = read_anchor(tmp_path / "audit.anchor", keyring.audit_key)
    assert anchor is not None
    assert anchor.mark.batch == batches[-1].id
