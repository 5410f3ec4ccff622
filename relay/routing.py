"""Routing: an address, a sender and what the register knows of the recipient become a route, or a refusal.

The questions come in the order of the standard (section 9): is the name the sender's to send, does it go anywhere
else, may the sender send at all, may the recipient receive.  The caller asks the register; this module looks
nothing up and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType

from relay.errors import Finding, Refused, Severity, finding
from relay.model import Address, Office, Route
from relay.standard.serials import write_serial

# A clock that is a few hours off, or set to another zone, is nobody's business (standard, section 9).
SERIAL_AHEAD = timedelta(days=1)

_AS_IN_THE_TABLE: Mapping[str, Severity] = MappingProxyType({})


def resolve_route(
    address: Address,
    *,
    sender: Office,
    recipient: Office | None,
    now: datetime,
    severities: Mapping[str, Severity] = _AS_IN_THE_TABLE,
) -> Route:
    """Decide where *address* goes when *sender* is the office logged in.

    *recipient* is the office the register has under ``address.recipient``, None where it has none.  *severities*
    are the operator's, for the codes that only warn by default: a finding set to refuse is raised, one set to off
    is dropped.  Raises ``name.sender_mismatch``, ``name.same_office``, ``office.suspended``,
    ``route.recipient_unknown`` or ``route.recipient_suspended``, the first that holds.
    """
    if address.sender is not None and address.sender != sender.number:
        raise Refused("name.sender_mismatch", sender=address.sender, office=sender.number)
    if address.recipient == sender.number:
        raise Refused("name.same_office", office=sender.number)
    if not sender.is_active:
        raise Refused("office.suspended", office=sender.number)
    if recipient is None:
        raise Refused("route.recipient_unknown", office=address.recipient)
    if recipient.number != address.recipient:
        raise ValueError(f"asked about {address.recipient}, told of {recipient.number}")
    if not recipient.is_active:
        raise Refused("route.recipient_suspended", office=recipient.number)
    found = (*address.findings, *_find(address, sender, recipient, now))
    return Route(
        address,
        sender.number,
        recipient.number,
        tuple(_sort_out(found, severities)),
        sender_services=sender.service_types,
        recipient_services=recipient.service_types,
    )


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
