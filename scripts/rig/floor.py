"""What nobody can avoid who serves small files on this transport and this database: the floor below workload (b).

Two things that do nothing of what the relay is for, measured in the same run: the transport alone, which answers every request
with OK (`rig.nothing`), and the database alone, which takes a row and the sealed bytes, syncing once for so many files as
are committed together under this load.  What (b) costs above their sum is the relay's own: names, routes, checks, history.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rig.figures import Figure
from rig.load import FILE_BYTES
from rig.machine import tell
from rig.servers import KEEPER, SCRIPTS, RelayHome, RigError, Running, ended_after
from rig.sides import Bench
from rig.workloads import upload

# Files of one commit while 32 sessions upload.
_TOGETHER = 16
_COMMITS = 100


def measure_floor(bench: Bench) -> tuple[list[Figure], float]:
    """Measure the transport, the database, and OpenSSH's server and the relay beside them."""
    transport = replace(bench.relay, label="transport alone", start=lambda: _serve_nothing(bench.home))
    spent: dict[str, list[float]] = {"transport": [], "database": [], "OpenSSH": [], "relay": []}
    for _ in range(bench.amounts.rounds):
        for name, side in (("transport", transport), ("OpenSSH", bench.openssh), ("relay", bench.relay)):
            tell(f"(floor) {side.label}")
            spent[name].append(upload(side, bench.amounts)["b"].cpu_seconds)
        spent["database"].append(_store_rows(bench.folder))
    best = {name: 1000 * min(values) for name, values in spent.items()}
    theirs = {"OpenSSH": best["OpenSSH"]}
    both = best["transport"] + best["database"]
    return [
        Figure("floor", "10 KB file, deciphered and answered, nothing done with it", "ms", best["transport"], theirs),
        Figure(
            "floor", "10 KB file, sealed, hashed and committed by SQLite, nothing else", "ms", best["database"], theirs
        ),
        Figure("floor", "both: the least that (b) can cost", "ms", both, theirs),
        Figure("floor", "the relay, (b) in the same rounds", "ms", best["relay"], theirs),
    ], 0.0


@contextlib.contextmanager
def _serve_nothing(home: RelayHome) -> Iterator[Running]:
    process = subprocess.Popen(
        [*KEEPER, sys.executable, "-m", "rig.nothing", str(home.home)],
        stdout=subprocess.PIPE,
        cwd=SCRIPTS,
        start_new_session=True,
    )
    with ended_after(process):
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        if not said.startswith("listening on "):
            raise RigError("the transport alone did not start")
        port = int(said.rpartition(":")[2])
        yield Running("transport alone", process.pid, port, None, "", process.wait)


def _store_rows(folder: Path) -> float:
    """Return the seconds of processor time that one file takes."""
    content, key = os.urandom(FILE_BYTES), AESGCM(os.urandom(32))
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        contextlib.closing(sqlite3.connect(Path(place) / "floor.db", isolation_level=None)) as store,
    ):
        store.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE transfer (id INTEGER PRIMARY KEY, sender TEXT, recipient TEXT, name TEXT, sha256 BLOB);"
            "CREATE INDEX by_recipient ON transfer (recipient, id);"
            "CREATE TABLE chunk (transfer INTEGER PRIMARY KEY, nonce BLOB, sealed BLOB);"
        )
        before = time.process_time()
        for commit in range(_COMMITS):
            store.execute("BEGIN IMMEDIATE")
            for number in range(commit * _TOGETHER, (commit + 1) * _TOGETHER):
                nonce = os.urandom(12)
                row = (number, "1372009988", "1379999991", f"{number:040}.csv", sha256(content).digest())
                store.execute("INSERT INTO transfer VALUES (?, ?, ?, ?, ?)", row)
                store.execute("INSERT INTO chunk VALUES (?, ?, ?)", (number, nonce, key.encrypt(nonce, content, b"")))
            store.execute("COMMIT")
        return (time.process_time() - before) / (_COMMITS * _TOGETHER)
