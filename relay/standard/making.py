"""Making units up: conforming files of the standard, between offices and about persons who do not exist.

For trying care software, the demo and the benchmark.  What is made passes the relay's own checks without a warning,
and the same `Order` makes the same bytes anywhere, at any time: nothing here asks a clock or the system's random
numbers.

Who sends follows from the kinds: results go from a provider to the care manager, basic information from a support
centre to a care manager, everything else from a care manager to a provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from relay.model import Address, Grammar, Office
from relay.standard.invented import (
    CARE_MANAGER,
    CARE_SERVICES,
    PREVENTIVE_SERVICES,
    SUPPORT_CENTRE,
    Person,
    invent_office,
    invent_persons,
    seeded,
)
from relay.standard.kinds import KINDS, STANDARD_32, STANDARD_41
from relay.standard.layouts import layout
from relay.standard.madeup import Scene, make_up_records
from relay.standard.names import render_standard_name
from relay.standard.serials import NO_MONTH, SERIAL_FORMAT
from relay.standard.units import PLAN, SUPPLEMENT, UNIT_FORMS

# What is made where nobody asks for another month: one in which the version holds (standard, section 1).
DEFAULT_MONTHS = {STANDARD_32: "202502", STANDARD_41: "202507"}
# Plans are made before the month they are for, results after it.
_PLANNED_ON, _REPORTED_ON = 22, 3
_IMAGE = "UPKIHON_IMAGE"
# One person in so many has a family diagram.
_DRAWN = 4
_BRANCHES = 9_999


@dataclass(frozen=True, slots=True)
class Partners:
    """Who is on either side; each office with the one service type that stands in the name.

    *others* are further providers of the same persons, whose services a plan lists, too.
    """

    sender: Office
    recipient: Office
    others: Sequence[Office] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What to make: *kinds* of one unit under *serial*, for service month *month*, about *persons* persons."""

    standard: str
    kinds: tuple[str, ...]
    partners: Partners
    month: str
    serial: str
    persons: int
    seed: int


@dataclass(frozen=True, slots=True)
class MadeFile:
    """One file, ready to be written."""

    name: str
    content: bytes


def find_kinds(what: str, standard: str) -> tuple[str, ...]:
    """Return the kinds that *what* (a unit's id such as ``V41-K2``, or one kind) stands for; empty where it is neither."""
    for form in UNIT_FORMS:
        if form.id == what and form.standard == standard:
            return form.required + form.optional
    kind = KINDS.get(what)
    return (what,) if kind is not None and standard in kind.standards else ()


def choose_serial(kinds: Sequence[str], month: str, index: int) -> str:
    """Return the serial of the unit number *index*: in office hours on the day when such a unit is usually made."""
    first = date(int(month[:4]), int(month[4:]), 1)
    if _is_result(kinds):
        day = (first + timedelta(days=31)).replace(day=_REPORTED_ON)
    else:
        day = (first - timedelta(days=1)).replace(day=_PLANNED_ON)
    return advance_serial(day.strftime("%Y%m%d") + "090000", index)


def advance_serial(serial: str, seconds: int) -> str:
    """Return the serial that many seconds later: ascending order is the order of import."""
    at = datetime.strptime(serial, SERIAL_FORMAT)  # noqa: DTZ007 - a serial has no zone
    return (at + timedelta(seconds=seconds)).strftime(SERIAL_FORMAT)


def invent_partners(kinds: Sequence[str], count: int, seed: int, *, is_preventive: bool = False) -> Sequence[Partners]:
    """Invent one office and its *count* partners (1 to 9,000), in the direction in which *kinds* travel."""
    random = seeded(seed, "offices")
    if is_centre_sending(kinds):
        centre = invent_office(SUPPORT_CENTRE, 0, random)
        return [Partners(centre, invent_office(CARE_MANAGER, place, random)) for place in range(1, count + 1)]
    manager = invent_office(CARE_MANAGER, 0, random)
    services = PREVENTIVE_SERVICES if is_preventive or is_preventive_alone(kinds) else CARE_SERVICES
    # One more than asked for, so that every person has a second provider.
    providers = [invent_office(services[place % len(services)], place + 1, random) for place in range(count + 1)]
    made = [Partners(manager, provider, (providers[place - 1],)) for place, provider in enumerate(providers[:count])]
    if _is_result(kinds):
        return [replace(partners, sender=partners.recipient, recipient=partners.sender) for partners in made]
    return made


def make_unit(order: Order) -> Iterator[MadeFile]:
    """Yield the files of *order*, the base file first."""
    persons = invent_persons(
        order.persons,
        _day_of(order.serial),
        is_preventive=_has_preventive_provider(order) or is_preventive_alone(order.kinds),
        random=seeded(order.seed, order.partners.sender.number, order.partners.recipient.number, "persons"),
    )
    drawn = _name_images(order, persons) if _IMAGE in order.kinds else {}
    scene = _set_scene(order, persons, drawn)
    for kind in order.kinds:
        if kind == _IMAGE:
            for name in drawn.values():
                yield MadeFile(name, _draw(name))
        else:
            yield MadeFile(_name(kind, order), _write_records(kind, scene))


def is_preventive_alone(kinds: Sequence[str]) -> bool:
    """Say whether *kinds* exist in preventive care only, whatever unit they are part of."""
    return any(kind.startswith(("UPYOBO", "DLTYOBO", "UPKIHON", "DLTKIHON")) for kind in kinds)


def is_centre_sending(kinds: Sequence[str]) -> bool:
    """Say whether a support centre sends *kinds*: basic information on its own."""
    return all(kind.startswith(("UPKIHON", "DLTKIHON")) for kind in kinds)


def _is_result(kinds: Sequence[str]) -> bool:
    return all(kind in ("UPJSK", "DLTJSK") for kind in kinds)


def _has_preventive_provider(order: Order) -> bool:
    services = order.partners.sender.service_types + order.partners.recipient.service_types
    return any(service in PREVENTIVE_SERVICES for service in services)


def _day_of(serial: str) -> date:
    return date(int(serial[:4]), int(serial[4:6]), int(serial[6:8]))


def _set_scene(order: Order, persons: Sequence[Person], images: dict[str, str]) -> Scene:
    provider, manager = order.partners.recipient, order.partners.sender
    if _is_result(order.kinds):
        provider, manager = manager, provider
    return Scene(
        standard=order.standard,
        month=order.month,
        day=_day_of(order.serial),
        manager=manager,
        providers=(provider, *order.partners.others),
        persons=persons,
        seed=f"{order.seed}:{order.serial}",
        with_plan=PLAN in order.kinds,
        images=images,
    )


def _name(kind: str, order: Order, *, stem: str = "", extension: str = "CSV") -> str:
    is_41 = order.standard == STANDARD_41
    month = NO_MONTH if kind == SUPPLEMENT and PLAN in order.kinds else order.month
    sender, recipient = order.partners.sender, order.partners.recipient
    return render_standard_name(
        Address(
            name=f"{stem}.{extension}",
            grammar=Grammar.STANDARD_41 if is_41 else Grammar.STANDARD_32,
            kind=kind,
            recipient=recipient.number,
            sender=sender.number,
            sender_service=sender.service_types[0] if is_41 else None,
            recipient_service=recipient.service_types[0] if is_41 else None,
            serial=order.serial,
            month=month if KINDS[kind].has_month else None,
        )
    )


def _name_images(order: Order, persons: Sequence[Person]) -> dict[str, str]:
    return {
        person.insured: _name(_IMAGE, order, stem=f"{branch:04d}", extension="jpg")
        for branch, person in enumerate(persons[::_DRAWN][:_BRANCHES], 1)
    }


def _write_records(kind: str, scene: Scene) -> bytes:
    """Write a file as exporters do: MS932, CRLF, free text in quotes and codes without."""
    quoted = [item.is_text for item in layout(scene.standard, kind)]
    lines = (
        ",".join('"' + value.replace('"', '""') + '"' if in_quotes else value for value, in_quotes in zip(record, quoted, strict=True))
        for record in make_up_records(kind, scene)
    )  # fmt: skip
    return "".join(line + "\r\n" for line in lines).encode("cp932")


def _draw(name: str) -> bytes:
    """Return a JPEG of one grey pixel with a comment, so that no two are the same."""
    comment = f"synthetic family diagram {name}".encode("ascii")
    return (
        b"\xff\xd8" + _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
        + _segment(0xFE, comment)
        + _segment(0xDB, b"\0" + b"\1" * 64)
        + _segment(0xC0, b"\x08\0\1\0\1\1\1\x11\0")
        # One code of one bit in either table: the pixel's value is "no difference", and nothing follows.
        + _segment(0xC4, b"\0\1" + bytes(15) + b"\0")
        + _segment(0xC4, b"\x10\1" + bytes(15) + b"\0")
        + _segment(0xDA, b"\1\1\0\0\x3f\0")
        + b"\x3f\xff\xd9"
    )  # fmt: skip


def _segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + (len(data) + 2).to_bytes(2, "big") + data
