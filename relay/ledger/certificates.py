"""Certificates in the embedded store: made known, renewed, revoked with all that came of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from relay.errors import Refused
from relay.ledger.rows import Cell, certificate_of, to_cell
from relay.ledger.statements import SQL
from relay.ledger.store import Store, append_event, transfer_sql
from relay.model import Certificate, CertificateId, CertificateKind, EventKind, OfficeNumber, RevocationCause

_NO_LIMIT = -1
# A certificate offers 64 bits; the relay issues 63, as many as a column holds.
_SERIAL_MOST = 2**63 - 1
_HELD_BY_OFFICE = """(c.ca_fingerprint, c.serial) IN
    (SELECT o.ca_fingerprint, o.serial FROM certificate_office AS o WHERE o.office = :office)"""
_REVOKED = {True: "c.revoked_at IS NOT NULL", False: "c.revoked_at IS NULL"}
_FIND = transfer_sql("find_certificate")


class CertificateVerbs:
    """Every verb of `relay.ledger.Register` about certificates."""

    _store: Store

    async def record_certificate(
        self, certificate: Certificate, *, actor: str, most: int | None = None, needs_new_key: bool = False
    ) -> None:
        def work(connection: sqlite3.Connection) -> None:
            put_certificate(connection, certificate, actor, most=most, needs_new_key=needs_new_key)

        await self._store.change(work)

    async def find_certificate(self, ca_fingerprint: str, serial: int) -> Certificate | None:
        if serial > _SERIAL_MOST:
            return None
        row = self._store.row(_FIND, (ca_fingerprint, serial))
        return None if row is None else certificate_of(row)

    async def list_certificates(
        self,
        *,
        office: OfficeNumber | None = None,
        serial: int | None = None,
        key_fingerprint: str | None = None,
        key_id: str | None = None,
        is_revoked: bool | None = None,
        limit: int | None = None,
    ) -> list[Certificate]:
        if serial is not None and serial > _SERIAL_MOST:
            return []
        asked: dict[str, Cell] = {"serial": serial, "key_fingerprint": key_fingerprint, "key_id": key_id}
        # Only what was asked for stands in the statement, or SQLite would use no index.
        conditions = [f"c.{column} = :{column}" for column, value in asked.items() if value is not None]
        if office is not None:
            conditions.append(_HELD_BY_OFFICE)
        if is_revoked is not None:
            conditions.append(_REVOKED[is_revoked])
        sql = transfer_sql("list_certificates", where=" AND ".join(conditions) or "1")
        rows = self._store.rows(sql, {**asked, "office": office, "limit": _NO_LIMIT if limit is None else limit})
        return [certificate_of(row) for row in rows]

    async def revoke_certificate(
        self, ca_fingerprint: str, serial: int, *, reason: str, actor: str, now: datetime
    ) -> bool:
        target = CertificateId(ca_fingerprint, serial)
        revoked = await self.revoke_certificates([target], reason=reason, actor=actor, now=now)
        return any(one.id == target for one in revoked)

    async def revoke_certificates(
        self,
        targets: Sequence[CertificateId],
        *,
        keys: Sequence[str] = (),
        cause: RevocationCause = RevocationCause.UNSPECIFIED,
        reason: str = "",
        keep_renewed: bool = False,
        actor: str,
        now: datetime,
    ) -> list[Certificate]:
        def work(connection: sqlite3.Connection) -> list[Certificate]:
            chosen = [_require(connection, target) for target in targets]
            chosen += [one for key in keys for one in _list_of_key(connection, key)]
            banned = {*keys, *(one.key_fingerprint for one in chosen if cause.is_of_the_key)}
            _ban(connection, banned, cause, reason, actor, now)
            revoked = []
            for one in chosen if keep_renewed else _with_renewed(connection, chosen):
                if one.revoked_at is None:
                    _revoke(connection, one, cause, reason, actor, now)
                    revoked.append(one)
            return revoked

        return await self._store.change(work)

    async def list_revoked_keys(self) -> list[str]:
        return [str(row[0]) for row in self._store.rows(SQL["list_revoked_keys"])]


def put_certificate(
    connection: sqlite3.Connection, certificate: Certificate, actor: str, *, most: int | None, needs_new_key: bool
) -> None:
    """Make *certificate* known in the running transaction; raises as `Register.record_certificate` says."""
    if _find(connection, certificate.id) is not None:
        raise ValueError(f"a certificate with serial {certificate.serial} of this CA is known already")
    _check_key(connection, certificate, needs_new_key=needs_new_key)
    _check_parent(connection, certificate)
    if most is not None:
        _check_count(connection, certificate, most)
    _insert(connection, certificate, actor)


def _find(connection: sqlite3.Connection, which: CertificateId) -> Certificate | None:
    row = connection.execute(_FIND, which).fetchone()
    return None if row is None else certificate_of(row)


def _require(connection: sqlite3.Connection, which: CertificateId) -> Certificate:
    found = _find(connection, which)
    if found is None:
        raise LookupError(which.serial)
    return found


def _list_of_key(connection: sqlite3.Connection, key_fingerprint: str) -> list[Certificate]:
    sql = transfer_sql("list_certificates", where="c.key_fingerprint = :key")
    rows = connection.execute(sql, {"key": key_fingerprint, "limit": _NO_LIMIT}).fetchall()
    return [certificate_of(row) for row in rows]


def _with_renewed(connection: sqlite3.Connection, chosen: Sequence[Certificate]) -> list[Certificate]:
    """Return *chosen* and everything that was renewed from any of it, through whatever was revoked before."""
    found = {one.id: one for one in chosen}
    waiting = list(found)
    while waiting:
        for row in connection.execute(SQL["list_renewed_from"], waiting.pop()).fetchall():
            child = CertificateId(*row)
            if child not in found:
                found[child] = _require(connection, child)
                waiting.append(child)
    return list(found.values())


def _check_key(connection: sqlite3.Connection, certificate: Certificate, *, needs_new_key: bool) -> None:
    key = (certificate.key_fingerprint,)
    if connection.execute(SQL["is_key_revoked"], key).fetchone():
        raise Refused("certificate.revoked_key")
    if needs_new_key and connection.execute(SQL["is_key_used"], key).fetchone():
        raise Refused("certificate.used_key")


def _check_parent(connection: sqlite3.Connection, certificate: Certificate) -> None:
    """A renewal that raced the revocation of what it came from must not outlive it."""
    if certificate.parent is None:
        return
    parent = _find(connection, certificate.parent)
    if parent is None or parent.revoked_at is not None:
        raise Refused("office.revoked")
    if certificate.issued_at >= parent.valid_before:
        raise Refused("office.expired")


def _check_count(connection: sqlite3.Connection, certificate: Certificate, most: int) -> None:
    at = to_cell(certificate.issued_at)
    for office in certificate.offices:
        if connection.execute(SQL["count_valid"], (office, at)).fetchone()[0] >= most:
            raise Refused("certificate.too_many", limit=most, detail=f"of office {office}")


def _insert(connection: sqlite3.Connection, certificate: Certificate, actor: str) -> None:
    connection.execute(
        SQL["insert_certificate"],
        (*certificate.id, certificate.key_id, certificate.key_fingerprint, certificate.label,
         to_cell(certificate.valid_after), to_cell(certificate.valid_before), to_cell(certificate.issued_at),
         *(certificate.parent or (None, None)), certificate.name, certificate.line,
         certificate.kind),
    )  # fmt: skip
    connection.executemany(
        SQL["insert_certificate_office"], [(office, *certificate.id) for office in certificate.offices]
    )
    is_ours = certificate.kind is CertificateKind.OPENSSH
    kind = EventKind.CERTIFICATE_ISSUED if is_ours else EventKind.CERTIFICATE_MET
    detail = str(certificate.serial) if is_ours else f"{certificate.serial} {certificate.key_id}"
    for office in certificate.offices:
        append_event(connection, kind, certificate.issued_at, actor=actor, office=office, detail=detail)


def _ban(
    connection: sqlite3.Connection, keys: set[str], cause: RevocationCause, reason: str, actor: str, now: datetime
) -> None:
    for key in sorted(keys):
        if connection.execute(SQL["put_revoked_key"], (key, to_cell(now), cause, reason)).rowcount:
            append_event(connection, EventKind.KEY_REVOKED, now, actor=actor, detail=f"{key} {cause}")


def _revoke(
    connection: sqlite3.Connection,
    certificate: Certificate,
    cause: RevocationCause,
    reason: str,
    actor: str,
    now: datetime,
) -> None:
    connection.execute(SQL["revoke_certificate"], (to_cell(now), cause, reason, *certificate.id))
    for office in certificate.offices:
        detail = f"{certificate.serial} {reason}".strip()
        append_event(connection, EventKind.CERTIFICATE_REVOKED, now, actor=actor, office=office, detail=detail)
