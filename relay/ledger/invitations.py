"""Invitations in the embedded store: made, tried, used once.

Trying counts before anything else is looked at, in a transaction of its own; using one is the transaction that
records its certificate, so a code is dead exactly when there is something to show for it.  To the key that used it it
shows that again: the answer may have been lost.
"""

from __future__ import annotations

import hmac
import sqlite3
from datetime import datetime

from relay.errors import Refused
from relay.invitation import WRONG_MOST, Invitation
from relay.ledger.certificates import put_certificate
from relay.ledger.rows import Row, certificate_of, to_cell, to_time
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event, transfer_sql
from relay.model import Certificate, CertificateId, EventKind, OfficeNumber

_FIND_CERTIFICATE = transfer_sql("find_certificate")


class InvitationVerbs:
    """The verbs of `relay.ledger.Register` about invitations."""

    _store: Store

    async def record_invitation(self, invitation: Invitation, *, actor: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                SQL["insert_invitation"],
                (invitation.id, invitation.digest, "|".join(invitation.offices), invitation.label,
                 invitation.valid_seconds, to_cell(invitation.made_at), to_cell(invitation.expires_at)),
            )  # fmt: skip
            append_event(
                connection, EventKind.INVITED, invitation.made_at, actor=actor, office=invitation.offices[0],
                detail=invitation.id,
            )  # fmt: skip

        await self._store.change(work)

    async def list_invitations(self) -> list[Invitation]:
        return [_read(row) for row in self._store.rows(SQL["list_invitations"])]

    async def cancel_invitation(self, number: str, *, actor: str, now: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute(SQL["find_invitation"], (number,)).fetchone()
            if row is None:
                raise LookupError(number)
            if _read(row).used_at is not None or _read(row).cancelled_at is not None:
                return False
            connection.execute(SQL["cancel_invitation"], (to_cell(now), number))
            append_event(
                connection, EventKind.INVITATION_ENDED, now, actor=actor, office=_read(row).offices[0], detail=number
            )
            return True

        return await self._store.change(work)

    async def try_invitation(self, number: str, digest: bytes, *, key: str = "", now: datetime) -> Invitation:
        def work(connection: sqlite3.Connection) -> Invitation | Refused:
            row = connection.execute(SQL["find_invitation"], (number,)).fetchone()
            if row is None:
                return Refused("enrolment.wrong_code", detail="no such invitation")
            found = _read(row)
            if found.wrong >= WRONG_MOST:
                return Refused("enrolment.blocked")
            if not hmac.compare_digest(found.digest, digest):
                # Counted whatever became of the invitation: who has no secret learns nothing of it.
                connection.execute(SQL["count_wrong_invitation"], (number,))
                append_event(
                    connection, EventKind.INVITATION_TRIED, now, actor="enroll", office=found.offices[0], detail=number
                )
                return Refused("enrolment.wrong_code", detail=f"wrong secret for {number}")
            return found if _is_used_by(connection, found, key) else _refuse_ended(found, now) or found

        tried = await self._store.change(work)
        if isinstance(tried, Refused):
            raise tried
        return tried

    async def record_enrolment(self, number: str, certificate: Certificate, *, most: int, now: datetime) -> None:
        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute(SQL["find_invitation"], (number,)).fetchone()
            ended = Refused("enrolment.wrong_code") if row is None else _refuse_ended(_read(row), now)
            if ended is not None:
                raise ended
            put_certificate(connection, certificate, f"enroll {number}", most=most, needs_new_key=True)
            connection.execute(SQL["use_invitation"], (to_cell(now), *certificate.id, number))

        await self._store.change(work)


def _is_used_by(connection: sqlite3.Connection, invitation: Invitation, key: str) -> bool:
    """True where a certificate for *key* came of it that is still good: its answer was lost, and it is asked for again."""
    if invitation.certificate is None:
        return False
    row = connection.execute(_FIND_CERTIFICATE, invitation.certificate).fetchone()
    made = None if row is None else certificate_of(row)
    return made is not None and made.key_fingerprint == key and made.revoked_at is None


def _refuse_ended(invitation: Invitation, now: datetime) -> Refused | None:
    """Return why an invitation whose secret is known is of no use any more, None where it is."""
    code = {
        "used": "enrolment.used",
        "cancelled": "enrolment.cancelled",
        "blocked": "enrolment.blocked",
        "expired": "enrolment.expired",
    }.get(invitation.standing(now))
    return None if code is None else Refused(code)


def _read(row: Row) -> Invitation:
    (number, digest, offices, label, valid, made, expires, wrong, used, cancelled, ca, serial) = row
    return Invitation(
        number,
        digest,
        tuple(OfficeNumber(office) for office in offices.split("|")),
        label,
        valid,
        to_time(made),
        to_time(expires),
        wrong,
        None if used is None else to_time(used),
        None if cancelled is None else to_time(cancelled),
        None if serial is None else CertificateId(ca, serial),
    )
