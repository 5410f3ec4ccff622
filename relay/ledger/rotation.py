"""Rotating the master key of a store in use: what the old key wraps is wrapped again with the new one.

The store says which master key is in use.  Whoever writes something sealed asks it in the same transaction
(`Store.use_current_master`), so from the moment at which `begin_rotation` is committed nothing more is written under
the old key, by whatever process.  What is there already is then wrapped again in small steps; each is a transaction,
and a rotation that was interrupted goes on where it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from relay.ledger.records import Rewrapped
from relay.ledger.rows import Row, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event
from relay.model import EventKind
from relay.vault import Vault, VaultError

# Some ten milliseconds of statements: no upload waits longer for its commit.
_ROWS_A_STEP = 256

_Rewrap = Callable[[Vault, Row], Sequence[bytes]]


def _payload(vault: Vault, row: Row) -> Sequence[bytes]:
    _number, wrapped, uid, size_bytes, chunk_count = row
    return (vault.rewrap_key(wrapped, uid, size_bytes=size_bytes, chunk_count=chunk_count),)


def _partial(vault: Vault, row: Row) -> Sequence[bytes]:
    _number, wrapped, note, uid = row
    return vault.rewrap_key(wrapped, uid, size_bytes=0, chunk_count=0), vault.reseal_note(note)


def _note(vault: Vault, row: Row) -> Sequence[bytes]:
    return (vault.reseal_note(row[1]),)


# What to look for, what to do with a row, and how to write it back.
_KINDS: tuple[tuple[str, _Rewrap, str], ...] = (
    ("payloads_of_others", _payload, "rewrap_payload"),
    ("partials_of_others", _partial, "rewrap_partial"),
    ("refusals_of_others", _note, "reseal_refusal"),
    ("mail_addresses_of_others", _note, "reseal_mail_address"),
)


class RotationVerbs:
    """The verbs of `relay.ledger.Ledger` that rotate the master key."""

    _store: Store

    async def begin_rotation(self, master_id: str, *, actor: str, now: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            in_use = connection.execute(SQL["master_in_use"]).fetchone()
            if in_use is not None and in_use[0] == master_id:
                return False
            connection.execute(SQL["end_master"], (to_cell(now),))
            connection.execute(SQL["put_master"], (master_id, to_cell(now)))
            append_event(connection, EventKind.KEY_ROTATED, now, actor=actor, detail=f"master {master_id}")
            return True

        self._store.vault.use_master(master_id)
        return await self._store.change(work)

    async def count_unrotated(self) -> int:
        row = self._store.row(SQL["count_of_others"], (self._store.vault.master_id,))
        assert row is not None
        return int(row[0])

    async def rewrap_all(self, progress: Callable[[int], None]) -> Rewrapped:
        done, damaged = 0, 0
        for listed, rewrap, written in _KINDS:
            after = 0
            while after >= 0:
                step = partial(self._rewrap_step, listed=listed, rewrap=rewrap, written=written, after=after)
                after, good, bad = await self._store.change(step)
                done, damaged = done + good, damaged + bad
                progress(good + bad)
        return Rewrapped(done, damaged)

    def _rewrap_step(
        self, connection: sqlite3.Connection, *, listed: str, rewrap: _Rewrap, written: str, after: int
    ) -> tuple[int, int, int]:
        """Wrap some rows again; returns the last of them, -1 where there was none, and how many were good and bad."""
        vault = self._store.vault
        rows = connection.execute(SQL[listed], (after, vault.master_id, _ROWS_A_STEP)).fetchall()
        bad = 0
        for row in rows:
            try:
                sealed = rewrap(vault, row)
            except VaultError:
                # Its key opens under no master key any more: it was lost before, and is left as it is.
                bad += 1
            else:
                connection.execute(SQL[written], (*sealed, vault.master_id, row[0]))
        return (rows[-1][0] if rows else -1), len(rows) - bad, bad

    async def end_rotation(self, *, actor: str, now: datetime) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["destroy_masters"], (to_cell(now),))
            append_event(connection, EventKind.KEY_DESTROYED, now, actor=actor, detail="master")

        await self._store.change(work)

    def forget_destroyed_keys(self) -> None:
        self._store.vault.refresh_masters()
