"""Routing: an address, a sender and what the register knows of the recipient become a route, or a refusal.

The questions come in the order of the standard (section 9): is the name the sender's to send, does it go anywhere
else, may the sender send at all, may the recipient receive.  The caller asks the register; this module looks
nothing up and reads no clock.

A file named to the old number of an office is taken for a while, with a warning: it is the same office that reads it, the
software of its partners knows the old number for weeks, and what is about a month before the change has to name that
one.  Nobody but the operator says which number follows which.  After that it is refused, with the new number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType

from relay.errors import Finding, Refused, Severity, finding
from relay.model import Address, Office, OfficeNumber, OfficeStatus, Route
from relay.standard.serials import JAPAN, write_serial

# A clock that is a few hours off, or set to another zone, is nobody's business (standard, section 9).
SERIAL_AHEAD = timedelta(days=1)

_AS_IN_THE_TABLE: Mapping[str, Severity] = MappingProxyType({})


def resolve_route(
    address: Address,
    *,
    sender: Office,
    recipient: Office | None,
    successor: Office | None = None,
    now: datetime,
    severities: Mapping[str, Severity] = _AS_IN_THE_TABLE,
) -> Route:
    """Decide where *address* goes when *sender* is the office logged in.

    *recipient* is the office the register has under ``address.recipient``, None where it has none; *successor*, where
    that number was changed, the office as it is now.  *severities*
    are the operator's, for the codes that only warn by default: a finding set to refuse is raised, one set to off
    is dropped.  Raises ``name.sender_mismatch``, ``name.same_office``, and what `check_sender` and `check_recipient` raise, the
    first that holds.
    """
    if address.sender is not None and address.sender != sender.number:
        raise Refused("name.sender_mismatch", sender=address.sender, office=sender.number)
    if address.recipient == sender.number or _is_same(sender, recipient, successor):
        raise Refused("name.same_office", office=sender.number)
    check_sender(sender, now)
    moved = check_recipient(address.recipient, recipient, successor, now)
    assert recipient is not None
    found = (*address.findings, *moved, *_find(address, sender, recipient, now))
    return Route(
        address,
        sender.number,
        recipient.number,
        tuple(_sort_out(found, severities)),
        sender_services=sender.service_types,
        recipient_services=recipient.service_types,
    )


def _is_same(sender: Office, recipient: Office | None, successor: Office | None) -> bool:
    """True where both are one office by its old and its new number."""
    if recipient is None or not (sender.status.has_ended or recipient.status.has_ended):
        return False
    after = sender.end.successor if sender.end is not None and sender.status is OfficeStatus.MOVED else None
    return after == recipient.number or (successor is not None and successor.number in (sender.number, after))


def check_sender(sender: Office, now: datetime) -> None:
    """Refused ``office.suspended``, ``office.collect_only`` or ``office.moved`` where *sender* may send nothing."""
    if sender.may_exchange(now):
        return
    if sender.status is OfficeStatus.CLOSED:
        raise Refused("office.collect_only", office=sender.number)
    raise Refused("office.moved" if sender.status is OfficeStatus.MOVED else "office.suspended", office=sender.number)


def check_recipient(
    number: OfficeNumber, recipient: Office | None, successor: Office | None, now: datetime
) -> tuple[Finding, ...]:
    """Return what is to be said of sending to *number*, which the register knows as *recipient*.

    Refused ``route.recipient_unknown``, ``route.recipient_suspended``, ``route.recipient_closed`` or
    ``route.recipient_moved`` where nobody can send to it.
    """
    if recipient is None:
        raise Refused("route.recipient_unknown", office=number)
    if recipient.number != number:
        raise ValueError(f"asked about {number}, told of {recipient.number}")
    if recipient.is_active:
        return ()
    if recipient.end is None or recipient.status is OfficeStatus.SUSPENDED:
        raise Refused("route.recipient_suspended", office=number)
    at = f"{recipient.end.at.astimezone(JAPAN):%Y-%m-%d}"
    if recipient.status is OfficeStatus.CLOSED:
        raise Refused("route.recipient_closed", office=number, at=at)
    if successor is None or successor.status is OfficeStatus.MOVED:
        raise ValueError(f"the number of {number} was changed, and nobody said to which")
    check_recipient(successor.number, successor, None, now)
    facts = {"office": number, "new": successor.number, "at": at}
    if not recipient.may_exchange(now):
        raise Refused("route.recipient_moved", **facts)
    return (finding("route.recipient_moved", **facts),)


def _find(address: Address, sender: Office, recipient: Office, now: datetime) -> Iterator[Finding]:
    for office, service_type in ((sender, address.sender_service), (recipient, address.recipient_service)):
        # A register that has no types of an office has nothing to say about the one in the name.
        if service_type is not None and office.service_types and service_type not in office.service_types:
            yield finding("name.service_type", office=office.number, service_type=service_type)
    # Serials have one width, so they compare as text.
    if address.serial is not None and address.serial > _newest_serial(now.replace(microsecond=0)):
        yield finding("name.serial_future", serial=address.serial)


@lru_cache(maxsize=2)
def _newest_serial(second: datetime) -> str:
    """Return the newest serial that is no surprise; asked at every OPEN, written once a second."""
    return write_serial(second + SERIAL_AHEAD)


def _sort_out(found: tuple[Finding, ...], severities: Mapping[str, Severity]) -> Iterator[Finding]:
    for one in found:
        severity = severities.get(one.code, one.row.severity)
        if severity is Severity.REFUSE:
            raise Refused(one.code, **dict(one.facts))
        if severity is Severity.WARN:
            yield one
