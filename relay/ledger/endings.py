"""How a transfer ends before anybody has collected it, in the embedded store: taken back, or replaced.

It leaves every directory and its bytes leave the store.  The payload's row stays a while without them, because the
key in it opens the name that both offices' status still show.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from relay.ledger.rows import Cell, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import Store
from relay.lifecycle import State
from relay.model import PayloadId, Transfer

# Chunks of one payload lie under consecutive ids; a million of 255 KiB are more than any limit allows.
CHUNKS_MOST = 1 << 20
# Removing so many holds up the event loop for some ten milliseconds.
SLICE_CHUNKS = 32


def chunk_ids(payload: PayloadId) -> tuple[int, int]:
    """Return the first and the last id that a chunk of *payload* may have."""
    return payload * CHUNKS_MOST, (payload + 1) * CHUNKS_MOST - 1


def end_transfer(
    connection: sqlite3.Connection, transfer: Transfer, state: State, now: datetime, *, recall_key: bytes | None = None
) -> PayloadId | None:
    """Take an accepted transfer out of every directory, and its bytes out of the store.

    Returns its payload where some of the bytes are still to be removed.
    """
    (payload,) = connection.execute(SQL["find_payload_of"], (transfer.id,)).fetchone()
    cells: tuple[Cell, ...] = (state, to_cell(now), recall_key, transfer.id)
    connection.execute(SQL["end_transfer"], cells)
    connection.execute(SQL["delete_served"], (transfer.id,))
    connection.execute(SQL["set_stored"], (0, payload))
    return None if remove_bytes(connection, PayloadId(payload)) else PayloadId(payload)


async def destroy_bytes(store: Store, payload: PayloadId) -> None:
    """Remove the chunks of *payload*, a slice a transaction."""
    while not await store.change(lambda connection: remove_bytes(connection, payload)):
        pass


def remove_bytes(connection: sqlite3.Connection, payload: PayloadId) -> bool:
    """Remove a slice of the chunks of *payload*; True where none is left."""
    return connection.execute(SQL["delete_chunks"], (*chunk_ids(payload), SLICE_CHUNKS)).rowcount < SLICE_CHUNKS
