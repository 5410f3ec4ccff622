"""Mail in the embedded store: counted with each transfer, taken, settled or given up; see `relay.ledger.posting`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime

from relay.ledger.rows import to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event
from relay.letters import Letter, Mailbox, MailPer, Rhythm, Waiting
from relay.model import RELAY_ACTOR, EventKind, OfficeNumber
from relay.vault import VaultError


class MailVerbs:
    """The verbs of `relay.ledger.posting.Post`."""

    _store: Store

    async def record_mailbox(self, office: OfficeNumber, mailbox: Mailbox | None, *, actor: str, now: datetime) -> bool:
        vault = self._store.vault

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL["find_office"], (office,)).fetchone() is None:
                raise LookupError(office)
            row = connection.execute(SQL["find_mail_address"], (office,)).fetchone()
            if mailbox is None and row is None:
                return False
            if mailbox is None:
                connection.execute(SQL["delete_mail_address"], (office,))
            else:
                if row is not None and row[0] == mailbox.per and self._open(row[1]) == mailbox.address:
                    return False
                master_id = self._store.use_current_master(connection, now)
                sealed = vault.seal_note(mailbox.address)
                connection.execute(SQL["put_mail_address"], (office, mailbox.per.value, sealed, master_id))
            detail = "none" if mailbox is None else f"per {mailbox.per}"
            append_event(connection, EventKind.MAIL_CHANGED, now, actor=actor, office=office, detail=detail)
            return True

        return await self._store.change(work)

    async def find_mailbox(self, office: OfficeNumber) -> Mailbox | None:
        row = self._store.row(SQL["find_mail_address"], (office,))
        return None if row is None else Mailbox(self._open(row[1]), MailPer(row[0]))

    def is_mail_due(self, now: datetime) -> bool:
        cells = (to_cell(now),)
        return any(self._store.row(SQL[name], cells) is not None for name in ("find_due_mail", "find_due_arrivals"))

    async def take_letter(self, rhythm: Rhythm, new_message_id: Callable[[], str], *, now: datetime) -> Letter | None:
        def work(connection: sqlite3.Connection) -> Letter | None:
            found = connection.execute(SQL["find_due_mail"], (to_cell(now),)).fetchone()
            if found is None:
                found = connection.execute(SQL["find_due_arrivals"], (to_cell(now),)).fetchone()
                if found is None:
                    return None
                connection.execute(SQL["open_mail"], (found[0], new_message_id(), to_cell(now)))
                connection.execute(SQL["take_mail_arrivals"], found)
            office = OfficeNumber(found[0])
            message_id, made, tries, name, sealed = connection.execute(SQL["read_mail"], (office,)).fetchone()
            tries += 1
            connection.execute(SQL["try_mail"], (to_cell(now + rhythm.retry_after(tries)), office))
            told = connection.execute(SQL["list_mail_arrivals"], (office,)).fetchall()
            arrivals = tuple((sender_name or sender, count) for sender_name, sender, count in told if sender)
            news = sum(count for _, sender, count in told if not sender)
            return Letter(office, name, self._open(sealed), message_id, to_time(made), tries, arrivals, news)

        return await self._store.change(work)

    async def settle_letter(self, letter: Letter) -> None:
        await self._store.change(lambda connection: _forget(connection, letter.office, letter.message_id))

    async def postpone_letter(self, letter: Letter, answer: str) -> None:
        cells = (answer, letter.office, letter.message_id)
        await self._store.change(
            lambda connection: connection.execute(SQL["note_mail_answer"], cells), is_durable=False
        )

    async def give_up_letter(self, letter: Letter, cause: str, *, now: datetime) -> None:
        def work(connection: sqlite3.Connection) -> None:
            if _forget(connection, letter.office, letter.message_id):
                _note_given_up(connection, letter.office, letter.count, cause, now)

        await self._store.change(work)

    async def give_up_stale(self, *, before: datetime, now: datetime) -> tuple[OfficeNumber, int] | None:
        cells = (to_cell(before),)
        if not any(self._store.row(SQL[name], cells) for name in ("find_stale_mail", "find_stale_arrivals")):
            return None

        def work(connection: sqlite3.Connection) -> tuple[OfficeNumber, int] | None:
            mail = connection.execute(SQL["find_stale_mail"], cells).fetchone()
            found = mail or connection.execute(SQL["find_stale_arrivals"], cells).fetchone()
            if found is None:
                return None
            office, is_taken = OfficeNumber(found[0]), mail is not None
            (count,) = connection.execute(SQL["count_mail_arrivals"], (office, is_taken)).fetchone()
            if is_taken:
                _forget(connection, office, found[1])
            else:
                connection.execute(SQL["delete_waiting_arrivals"], (office,))
            _note_given_up(connection, office, count, "too late", now)
            return office, count

        return await self._store.change(work)

    async def list_waiting(self) -> list[Waiting]:
        return [
            Waiting(
                OfficeNumber(office),
                name,
                MailPer(per),
                tries or 0,
                None if retry is None else to_time(retry),
                answer or "",
                in_mail,
                gathering,
                None if due is None else to_time(due),
            )
            for office, name, per, tries, retry, answer, in_mail, gathering, due in self._store.rows(
                SQL["list_mail_waiting"]
            )
        ]

    def _open(self, sealed: bytes) -> str:
        """Return the address; empty where the key that it was sealed under is lost, which no server takes."""
        try:
            return self._store.vault.open_note(sealed)
        except VaultError:
            return ""


def queue_news(connection: sqlite3.Connection, mail: Rhythm | None, office: OfficeNumber, now: datetime) -> None:
    """Let the next mail to *office*, if it gets any, say that there is news in its tree."""
    if mail is not None:
        connection.execute(
            SQL["queue_news"], (office, to_cell(mail.due_per_arrival(now)), to_cell(mail.due_per_day(now)))
        )


def _forget(connection: sqlite3.Connection, office: OfficeNumber, message_id: str) -> bool:
    """Remove a mail and what it tells of; False where it is gone, or another one, already."""
    if connection.execute(SQL["delete_mail"], (office, message_id)).rowcount != 1:
        return False
    connection.execute(SQL["delete_taken_arrivals"], (office,))
    return True


def _note_given_up(connection: sqlite3.Connection, office: OfficeNumber, count: int, cause: str, now: datetime) -> None:
    detail = f"{count} arrivals: {cause}"
    append_event(connection, EventKind.MAIL_GIVEN_UP, now, actor=RELAY_ACTOR, office=office, detail=detail)
