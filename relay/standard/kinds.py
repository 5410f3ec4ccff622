"""The file kinds of the standard: what each one is and how its name is built.

``kinds.csv`` is the table; this module reads it once and answers by kind.  Which month is allowed in a name and
which kinds depend on which are rules of `relay.standard.names` and of the units, not of this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from relay.standard.tables import read_table

STANDARD_32 = "3.2"
STANDARD_41 = "4.1"


class Purpose(StrEnum):
    """What a file of a kind does at its recipient."""

    REGISTER = "register"
    DELETE = "delete"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of ``kinds.csv``; *has_month* says whether the name carries a service month."""

    name: str
    title_ja: str
    title_en: str
    purpose: Purpose
    has_month: bool
    standards: frozenset[str]

    @property
    def is_image(self) -> bool:
        """True for the JPEG of a family diagram, the only kind that is no CSV."""
        return self.purpose is Purpose.IMAGE

    @property
    def is_in_32(self) -> bool:
        """True where the kind existed in 3.2, whose names lack the service type codes."""
        return STANDARD_32 in self.standards


def _load_kinds() -> Mapping[str, Kind]:
    return MappingProxyType({row["kind"]: _read_row(row) for row in read_table("kinds")})


def _read_row(row: Mapping[str, str]) -> Kind:
    return Kind(
        name=row["kind"],
        title_ja=row["title_ja"],
        title_en=row["title_en"],
        purpose=Purpose(row["purpose"]),
        has_month=row["month_in_name"] == "yes",
        standards=frozenset(row["standards"].split("|")),
    )


KINDS: Mapping[str, Kind] = _load_kinds()

# The longer kind first: UPKIHON_SUB1 begins with UPKIHON (standard, section 2).
_LEADING_KIND = re.compile("(" + "|".join(sorted(KINDS, key=len, reverse=True)) + ")_")


def find_leading_kind(upper_name: str) -> Kind | None:
    """Return the kind that *upper_name* (already in capitals) begins with, followed by ``_``; None if there is none."""
    match = _LEADING_KIND.match(upper_name)
    return KINDS[match[1]] if match else None
