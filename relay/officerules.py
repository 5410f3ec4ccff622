"""Which office a certificate of an outside CA is for: the operator's rules, applied to what it says of its holder.

A rule names a field and a regular expression with the group ``office``, which must fit the whole value.  All values
of a field are looked at.  Nothing is guessed: that exactly one office comes out is for the caller to demand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from relay.model import OfficeNumber
from relay.standard.offices import parse_office_number

OfficeField = Literal[
    "subject.CN",
    "subject.OU",
    "subject.O",
    "subject.serialNumber",
    "subject.UID",
    "san.dns",
    "san.uri",
    "san.email",
]
# What a stranger's certificate gives the operator's expressions to chew on.
VALUE_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class OfficeRule:
    """Where the number stands, and in what."""

    field: OfficeField
    pattern: re.Pattern[str]


def find_offices(rules: Sequence[OfficeRule], claims: Mapping[OfficeField, Sequence[str]]) -> frozenset[OfficeNumber]:
    """Return every office that *claims* name by any of *rules*; a value that is no office number names none."""
    found = set()
    for rule in rules:
        for value in claims.get(rule.field, ()):
            if len(value) > VALUE_CHARACTERS or (match := rule.pattern.fullmatch(value)) is None:
                continue
            office = parse_office_number(match["office"] or "")
            if office is not None:
                found.add(office)
    return frozenset(found)
