"""Rows of the store as records of the model, and back.

The only module that knows in which order columns come.  Free names are opened here, with the key of their own
payload; a name whose payload was destroyed can no longer be read and is told as its kind.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from relay.errors import Finding
from relay.lifecycle import State
from relay.model import (
    Certificate,
    CertificateId,
    CertificateKind,
    Event,
    EventKind,
    Grammar,
    Office,
    OfficeEnd,
    OfficeNumber,
    OfficeStatus,
    PayloadUid,
    Refusal,
    RevocationCause,
    Transfer,
    TransferId,
)
from relay.unitparts import FIRST_LINE, PERSONS, UnitPart, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.vault import Vault

# What can stand in a STRICT table, on its way in.
Cell = int | str | bytes | None
# On its way out sqlite3 types it as Any; it gets its types in this module and is passed on by no other.
Row = tuple[Any, ...]

# The key of a sealed name; not fetched for the standard's names, which are nearly all.
_NAME = """t.name, t.name_sealed,
    CASE WHEN t.name IS NULL THEN (SELECT p.wrapped_key FROM payload AS p WHERE p.id = t.payload) END,
    CASE WHEN t.name IS NULL THEN (SELECT p.uid FROM payload AS p WHERE p.id = t.payload) END,
    CASE WHEN t.name IS NULL THEN (SELECT p.chunk_count FROM payload AS p WHERE p.id = t.payload) END,
    t.size_bytes, t.kind"""
TRANSFER_COLUMNS = f"""{_NAME}, t.id, t.sender, t.recipient, t.grammar, t.serial, t.month, t.in_folder, t.state, t.shelf,
    t.delivered_prefix, t.sha256, t.accepted_at, t.client_mtime, t.collected_at, t.ended_at, t.findings,
    t.completes, t.reported_at FROM transfer AS t"""
# Those of `relay.ledger.Entry`, as the sender sees the file and as the recipient does; a sealed name is NULL.
SENT_COLUMNS = """t.id, t.name, t.sender, t.recipient, t.serial, t.size_bytes,
    coalesce(t.client_mtime, t.accepted_at) / 1000000 FROM transfer AS t"""
DELIVERED_COLUMNS = """t.id, t.delivered_prefix || t.name, t.sender, t.recipient, t.serial, t.size_bytes,
    t.accepted_at / 1000000 FROM transfer AS t"""
NAME_COLUMNS = f"{_NAME}, t.id, t.delivered_prefix FROM transfer AS t"

PARTIAL_COLUMNS = """r.office, r.note_sealed, r.size_bytes, r.payload, p.uid, p.holder, r.key_wrapped, r.is_closed,
    r.looks_whole, r.client_mtime, r.touched_at FROM partial AS r JOIN payload AS p ON p.id = r.payload"""

CERTIFICATE_COLUMNS = """c.ca_fingerprint, c.serial, c.key_id, c.key_fingerprint, c.label, c.valid_after, c.valid_before,
    c.issued_at, c.revoked_at, c.revoke_reason, c.revoke_cause, c.parent_ca, c.parent_serial, c.name, c.line,
    c.kind,
    (SELECT group_concat(office, '|') FROM certificate_office AS o
     WHERE o.ca_fingerprint = c.ca_fingerprint AND o.serial = c.serial)
    FROM certificate AS c"""

# Both offices of every upload are read again and again, and mostly as they were.
_OFFICES_KEPT = 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_cell(moment: datetime) -> int:
    """Return microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def to_time(cell: int) -> datetime:
    """Return the moment that `to_cell` wrote."""
    return _EPOCH + timedelta(microseconds=cell)


def _maybe_time(cell: int | None) -> datetime | None:
    return None if cell is None else to_time(cell)


@lru_cache(maxsize=_OFFICES_KEPT)
def office_of(row: Row) -> Office:
    """Read the columns of ``find_office``; the same row is the same office."""
    number, name, prefecture, services, status, ends, until, successor, reason = row
    return Office(
        OfficeNumber(number),
        name,
        prefecture,
        tuple(filter(None, services.split("|"))),
        OfficeStatus(status),
        None if ends is None else OfficeEnd(to_time(ends), to_time(until), successor, reason),
    )


def certificate_of(row: Row) -> Certificate:
    """Read `CERTIFICATE_COLUMNS`."""
    (ca, serial, key_id, key, label, after, before, issued, revoked, reason, cause, parent_ca, parent_serial, name, line,
     kind, offices) = row  # fmt: skip
    return Certificate(
        ca_fingerprint=ca,
        serial=serial,
        key_id=key_id,
        key_fingerprint=key,
        offices=tuple(OfficeNumber(number) for number in sorted((offices or "").split("|")) if number),
        valid_after=to_time(after),
        valid_before=to_time(before),
        issued_at=to_time(issued),
        label=label,
        revoked_at=_maybe_time(revoked),
        revoke_reason=reason,
        revoke_cause=RevocationCause(cause) if cause else None,
        parent=None if parent_serial is None else CertificateId(parent_ca, parent_serial),
        name=name,
        line=line,
        kind=CertificateKind(kind),
    )


def event_of(row: Row) -> Event:
    """Read the columns of ``list_events``."""
    number, at, kind, actor, office, transfer, detail = row
    return Event(
        number,
        to_time(at),
        EventKind(kind),
        actor,
        None if office is None else OfficeNumber(office),
        None if transfer is None else TransferId(transfer),
        detail,
    )


def findings_cell(findings: Iterable[Finding]) -> str:
    """Write findings as JSON; nothing in them names a person (their facts are lines and items)."""
    return json.dumps([[each.code, dict(each.facts)] for each in findings], ensure_ascii=False) if findings else "[]"


def findings_of(cell: str) -> tuple[Finding, ...]:
    """Read what `findings_cell` wrote."""
    if cell == "[]":
        return ()
    return tuple(Finding(code, tuple(facts.items())) for code, facts in json.loads(cell))


class NameReader:
    """Opens the names in rows; one a ledger."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def transfer(self, row: Row) -> Transfer:
        """Read `TRANSFER_COLUMNS`."""
        (_, _, _, _, _, size, kind, number, sender, recipient, grammar, serial, month, in_folder, state, shelf, prefix,
         sha256, accepted, mtime, collected, ended, findings, completes, reported) = row  # fmt: skip
        name = self._name(row)
        return Transfer(
            id=TransferId(number),
            sender=OfficeNumber(sender),
            recipient=OfficeNumber(recipient),
            name=name,
            delivered_name=prefix + name,
            grammar=Grammar(grammar),
            kind=kind,
            serial=serial or None,
            month=month or None,
            in_folder=bool(in_folder),
            state=State(state),
            is_removed=shelf == "done",
            size_bytes=size,
            sha256=sha256,
            accepted_at=to_time(accepted),
            client_mtime=_maybe_time(mtime),
            collected_at=_maybe_time(collected),
            ended_at=_maybe_time(ended),
            findings=findings_of(findings),
            completes=None if completes is None else TransferId(completes),
            # Nothing else takes a file that waits out of its recipient's sight.
            is_held=shelf == "none" and state == State.ACCEPTED,
            reported_at=_maybe_time(reported),
        )

    def entry_name(self, row: Row, *, as_sent: bool) -> tuple[TransferId, str]:
        """Read `NAME_COLUMNS` as the sender sees the name, or as the recipient does."""
        number, prefix = row[-2:]
        name = self._name(row)
        return number, name if as_sent else prefix + name

    def _name(self, row: Row) -> str:
        name, sealed, wrapped, uid, chunks, size, kind, *_ = row
        if isinstance(name, str):
            return name
        if wrapped is None:
            return f"*.{kind.lower()}"
        sealer = self._vault.open_sealer(wrapped, PayloadUid(uid), size_bytes=size, chunk_count=chunks)
        return sealer.open_name(sealed)

    def unit_part(self, row: Row, *, is_readable: bool) -> UnitPart:
        """Read the columns of ``list_unit_parts``; what is sealed stays closed unless *is_readable*."""
        sender_service, recipient_service, keys, persons, is_partial, sealed, line, wrapped, uid, chunks, *rest = row
        transfer = self.transfer(tuple(rest))
        can_open = is_readable and wrapped is not None and (sealed is not None or line is not None)
        sealer = (
            self._vault.open_sealer(wrapped, PayloadUid(uid), size_bytes=transfer.size_bytes, chunk_count=chunks)
            if can_open
            else None
        )

        def read() -> str | None:
            return sealer.open_part(PERSONS, sealed) if sealer is not None and sealed is not None else None

        return UnitPart(
            transfer,
            sender_service or None,
            recipient_service or None,
            read_entries(keys, persons, read),
            bool(is_partial),
            sealer.open_part(FIRST_LINE, line) if sealer is not None and line is not None else None,
        )

    def first_line(self, row: Row) -> tuple[TransferId, str]:
        """Read the columns of ``list_first_lines``."""
        number, line, wrapped, uid, size, chunks = row
        sealer = self._vault.open_sealer(wrapped, PayloadUid(uid), size_bytes=size, chunk_count=chunks)
        return TransferId(number), sealer.open_part(FIRST_LINE, line)

    def refusal(self, office: OfficeNumber, row: Row) -> Refusal:
        """Read the columns of ``list_refusals``."""
        code, note, first, last, count, number = row
        name, facts = json.loads(self._vault.open_note(note))
        return Refusal(office, name, Finding(code, tuple(facts.items())), to_time(first), to_time(last), count, number)
