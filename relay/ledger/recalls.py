"""Taking back, in the embedded store: what its sender recalls before anybody has collected it.

Whether the recall or the recipient's last byte was first is decided by the one writer: each looks at the state in its
own transaction, and exactly one finds the file still waiting.

The bytes go in the transaction that says so, or, where they are many, in those behind it.  Those of a file that the
operator gave back (`relay.ledger.interventions`) stay as long as ``recall/`` lists it.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from functools import partial

from relay.errors import Refused
from relay.ledger.endings import destroy_bytes, end_transfer
from relay.ledger.lineage import is_own
from relay.ledger.records import ListingCursor, ListingPage
from relay.ledger.rows import Row, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import append_event, transfer_sql
from relay.ledger.views import ViewVerbs
from relay.ledger.words import local_text
from relay.lifecycle import State, Step, advance
from relay.model import RELAY_ACTOR, EventKind, Identity, OfficeNumber, PayloadId, Transfer, TransferId, fold_name


class RecallVerbs(ViewVerbs):
    """The verbs of `relay.ledger.Ledger` that take back."""

    async def recall_transfer(self, transfer: TransferId, *, identity: Identity, now: datetime) -> Transfer:
        def work(connection: sqlite3.Connection) -> tuple[Transfer, PayloadId | None]:
            found = self._of_sender(connection, transfer, identity)
            if found.state in (State.RECALLED, State.RETURNED):
                return found, None
            recalled = advance(found.state, Step.RECALL)
            key = self._recall_key(found.sender, found.name)
            connection.execute(SQL["leave_recall"], (key,))
            connection.execute(SQL["forget_incident"], (transfer,))
            left = end_transfer(connection, found, recalled, now, recall_key=key)
            append_event(
                connection, EventKind.RECALLED, now, actor=identity.office, office=found.recipient, transfer=transfer,
                detail=str(identity.certificate_serial),
            )  # fmt: skip
            return self._of_sender(connection, transfer, identity), left

        found, left = await self._store.change(work)
        if left is not None:
            await destroy_bytes(self._store, left)
        return found

    def _of_sender(self, connection: sqlite3.Connection, transfer: TransferId, identity: Identity) -> Transfer:
        """Return a transfer that its sender may take back, or that it has back already."""
        row = connection.execute(transfer_sql("find_transfer"), (transfer,)).fetchone()
        found = None if row is None else self._store.names.transfer(row)
        if found is None or not is_own(connection, identity.office, found.sender):
            raise LookupError(transfer)
        if found.state in (State.COLLECTED, State.DESTROYED):
            raise Refused("transfer.already_collected", at=local_text(found.collected_at or found.accepted_at))
        if found.state not in (State.ACCEPTED, State.RECALLED, State.RETURNED):
            raise LookupError(transfer)
        return found

    def _recall_key(self, office: OfficeNumber, name: str) -> bytes:
        return self._store.vault.index("recall", office, fold_name(name))

    async def find_recalled(self, office: OfficeNumber, name: str, *, since: datetime) -> Transfer | None:
        key = self._recall_key(office, name)
        return self._maybe(self._store.row(transfer_sql("find_recalled"), (key, to_cell(since))))

    async def list_recalled(
        self, office: OfficeNumber, *, since: datetime, cursor: ListingCursor | None = None
    ) -> ListingPage:
        return self._page("list_recalled", cursor, as_sent=True, office=office, after=to_cell(since))

    async def destroy_ended(self, *, before: datetime, now: datetime) -> int:
        while rows := self._store.rows(SQL["list_undestroyed"], (to_cell(before),)):
            for (payload,) in rows:
                await destroy_bytes(self._store, PayloadId(payload))
        count = 0
        while rows := self._store.rows(SQL["list_readable"], (to_cell(before),)):
            await self._store.change(partial(_forget, rows=rows, now=now))
            count += len(rows)
        return count


def _forget(connection: sqlite3.Connection, rows: list[Row], now: datetime) -> None:
    """Destroy keys, and with each the name under it."""
    for transfer, payload in rows:
        connection.execute(SQL["forget_payload"], (transfer,))
        connection.execute(SQL["delete_payload"], (payload,))
        append_event(connection, EventKind.DESTROYED, now, actor=RELAY_ACTOR, transfer=TransferId(transfer))
