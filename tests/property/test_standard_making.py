"""Making units: whatever is made passes every check of the relay, and the same order makes the same bytes."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.content import start_check
from relay.model import Address
from relay.naming import NamingRules, parse_name
from relay.routing import resolve_route
from relay.standard.kinds import KINDS
from relay.standard.making import (
    DEFAULT_MONTHS,
    MadeFile,
    Order,
    choose_serial,
    find_kinds,
    invent_partners,
    make_unit,
)
from relay.standard.offices import has_check_digit
from relay.standard.serials import JAPAN, SERIAL_FORMAT
from relay.standard.units import UNIT_FORMS, UnitFile, find_unit_key, judge_unit

RULES = NamingRules(frozenset({"csv", "jpg"}))
FORMS = {form.id: form for form in UNIT_FORMS}
SINGLE = [(kind.name, standard) for kind in KINDS.values() for standard in sorted(kind.standards)]


def order_for(unit: str, *, persons: int = 3, seed: int = 1, partner: int = 0) -> Order:
    """Order one unit of the table as the command does."""
    form = FORMS[unit]
    kinds = form.required + form.optional
    month = DEFAULT_MONTHS[form.standard]
    partners = invent_partners(kinds, partner + 1, seed, is_preventive="-Y" in unit)[partner]
    return Order(form.standard, kinds, partners, month, choose_serial(kinds, month, partner), persons, seed)


def check(made: MadeFile, order: Order) -> Address:
    """Put a file through naming, routing and content as the relay would; nothing may be found."""
    address = parse_name(made.name, RULES)
    assert address.is_standard
    now = datetime.strptime(order.serial, SERIAL_FORMAT).replace(tzinfo=JAPAN) + timedelta(hours=1)
    route = resolve_route(address, sender=order.partners.sender, recipient=order.partners.recipient, now=now)
    assert route.findings == ()
    content = start_check(address, {})
    content.feed(made.content)
    assert content.finish() == (), made.name
    return address


@pytest.mark.parametrize("unit", FORMS)
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32), st.integers(0, 12))
def test_every_made_unit_passes_every_check(unit: str, persons: int, seed: int, partner: int) -> None:
    """Name, route, content and unit: nothing is found in anything made, for any seed and partner."""
    order = order_for(unit, persons=persons, seed=seed, partner=partner)
    files = list(make_unit(order))
    addresses = [check(made, order) for made in files]
    assert len({find_unit_key(address) for address in addresses}) == 1
    seen = [
        UnitFile(address.kind, address.month, find_persons(made))
        for address, made in zip(addresses, files, strict=True)
    ]
    verdict = judge_unit(order.standard, seen)
    assert verdict.is_complete
    assert verdict.findings == ()
    assert FORMS[unit] in verdict.forms


def find_persons(made: MadeFile) -> dict[bytes, int] | None:
    """Return who is in a made CSV: insurer and insured are the second and third item, and made ones stand unquoted."""
    if made.name.endswith(".jpg"):
        return None
    lines = enumerate(made.content.split(b"\r\n"), 1)
    rows = ((line, row.split(b",")) for line, row in lines if row.startswith(b"20"))
    return {b",".join(cells[1:3]): line for line, cells in rows if len(cells) > 3}


@pytest.mark.parametrize(("kind", "standard"), SINGLE)
def test_every_kind_can_be_made_alone(kind: str, standard: str) -> None:
    """One kind makes its own file, or one a person for an image, that passes its checks."""
    kinds = find_kinds(kind, standard)
    assert kinds == (kind,)
    month = DEFAULT_MONTHS[standard]
    (partners,) = invent_partners(kinds, 1, 5)
    order = Order(standard, kinds, partners, month, choose_serial(kinds, month, 0), 2, 5)
    made = list(make_unit(order))
    assert made
    assert {check(file, order).kind for file in made} == {kind}


@pytest.mark.parametrize("unit", ["V41-K1", "V41-K2", "V41-K5", "V41-Y2", "V32-2"])
def test_the_same_order_makes_the_same_bytes(unit: str) -> None:
    """A seed decides everything, and another seed makes other people."""
    make = partial(order_for, unit)
    assert list(make_unit(make(seed=7))) == list(make_unit(make(seed=7)))
    contents = [{file.content for file in make_unit(make(seed=seed))} for seed in (7, 8)]
    assert not contents[0] & contents[1]


def test_what_is_made_is_known_for_all_time() -> None:
    """The bytes of one seed do not change from one Python or machine to the next."""
    (made,) = make_unit(order_for("V41-K4", persons=1, seed=1))
    assert made.content == b"202407,019992,5936350339,202507\r\n"


def test_a_thousand_invented_offices_are_different_and_have_check_digits() -> None:
    """No number comes twice, each satisfies the published rule, and none has a district of the open data."""
    partners = invent_partners(("UPPLAN",), 1000, 3)
    numbers = {partner.recipient.number for partner in partners} | {partners[0].sender.number}
    assert len(numbers) == 1001
    assert all(has_check_digit(number) and number[3:5] == "85" for number in numbers)


def test_what_the_standard_does_not_have_cannot_be_made() -> None:
    """Table 3 in 3.2, a unit of the other standard and a word that is neither are told by no kinds at all."""
    assert find_kinds("UP3KYO", "3.2") == ()
    assert find_kinds("V41-K1", "3.2") == ()
    assert find_kinds("plan", "4.1") == ()
