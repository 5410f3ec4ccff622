"""What to do about a finding before a file is sent: where the standard says so, and how to mend it.

``guidance.csv`` is the table, one row a code.  Where it has no words of its own for the mending, those of
`relay.errors` hold, which speak of a file that is not with its recipient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from relay.errors import TABLE
from relay.standard.tables import read_table


@dataclass(frozen=True, slots=True)
class Guidance:
    """What helps with one code; the sections are empty where the rule is the relay's own."""

    section_ja: str
    section_en: str
    mend_ja: str
    mend_en: str


def find_guidance(code: str) -> Guidance:
    """Return the guidance for *code*; KeyError where `relay.errors` has no such code."""
    row = TABLE[code]
    own = _ROWS.get(code, {})
    return Guidance(
        section_ja=own.get("section_ja", ""),
        section_en=own.get("section_en", ""),
        mend_ja=own.get("mend_ja") or row.remedy_ja,
        mend_en=own.get("mend_en") or row.remedy_en,
    )


_ROWS: Mapping[str, Mapping[str, str]] = MappingProxyType({row["code"]: row for row in read_table("guidance")})
