"""Roster: whom a file is about, and what of theirs it replaces or deletes at its recipient (standard, section 3).

An import finds what it has of a person by the key of its subject: a plan by the date on which it was made, a slip and
results by their service month, basic information by the date of the consultation.  Results are those of one provider
and service type, because their deletion names both.

Noted while a file arrives; what is kept grows with the number of persons, up to `MOST_LISTED`, and never with that of
records.  It is personal data: whoever keeps it seals it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple

from relay.standard.grids import Row
from relay.standard.kinds import KINDS, Purpose
from relay.standard.plans import Plan
from relay.standard.serials import NO_MONTH

# Ten times what a large office has in a month. More would hold up everybody for longer than a commit takes.
MOST_LISTED = 5_000
# What is longer than that is no number, no date and no code; six of them are no record of them.
_LONGEST = 10
_LONGEST_LINE = 60
# A service code begins with its type.
TYPE_CHARACTERS = 2


class Subject(StrEnum):
    """What a file says of a person: that which is replaced and deleted as one."""

    PLAN = "plan"
    SLIP = "slip"
    RESULTS = "results"
    BASIC = "basic"
    PREVENTIVE = "preventive"


# The supplement belongs to a plan or to a slip.
_SUBJECTS: Mapping[str, Subject] = {
    "UP1KYO": Subject.PLAN,
    "UP2KYO": Subject.PLAN,
    "UP3KYO": Subject.PLAN,
    "DLT1KYO": Subject.PLAN,
    "UPPLAN": Subject.SLIP,
    "UPSIKYU": Subject.SLIP,
    "DLTPLAN": Subject.SLIP,
    "UPJSK": Subject.RESULTS,
    "DLTJSK": Subject.RESULTS,
    "UPKIHON": Subject.BASIC,
    "UPKIHON_SUB1": Subject.BASIC,
    "UPKIHON_SUB2": Subject.BASIC,
    "DLTKIHON": Subject.BASIC,
    "UPYOBO": Subject.PREVENTIVE,
    "UPYOBO_SUB": Subject.PREVENTIVE,
    "DLTYOBO": Subject.PREVENTIVE,
}

_BY_MONTH = frozenset({Subject.SLIP, Subject.RESULTS})


class Listed(NamedTuple):
    """A person, and the key of what the file says of them.

    *key* is a month or a date, *part* the provider and the service type of results, else empty.
    """

    insurer: str
    insured: str
    subject: Subject
    key: str
    part: str = ""


class Roster:
    """Collects who is in one file; *is_partial* where not everybody is there, for whatever reason."""

    __slots__ = ("_found", "_kind", "is_partial")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        # Insurer, insured, month, date, provider, service type.
        self._found: dict[Row, None] = {}
        self.is_partial = False

    @property
    def is_deletion(self) -> bool:
        """True where the file deletes what it names."""
        return KINDS[self._kind].purpose is Purpose.DELETE

    def note(self, plan: Plan, rows: Iterable[Row]) -> None:
        """Take the different rows that records hold in the items that *plan* calls *told*."""
        if self.is_partial and len(self._found) >= MOST_LISTED:
            return
        pick = itemgetter(*plan.told_at)
        found = [pick((*row, b"")) for row in rows]
        if plan.service is not None:
            found = [(*row[:-1], row[-1][:TYPE_CHARACTERS]) for row in found]
        self._found.update(dict.fromkeys(found))
        if len(self._found) > MOST_LISTED:
            self._found = dict.fromkeys(list(self._found)[:MOST_LISTED])
            self.is_partial = True

    def groups(self) -> Mapping[tuple[Subject, str, str], Mapping[tuple[str, str], None]]:
        """Return the persons (insurer, insured) of each subject, key and part, in the order of the file."""
        # Line by line and not item by item, because this is done while an upload waits for its answer.
        text = b"\n".join(map(b",".join, self._found)).decode("cp932", "replace")
        lines = text.split("\n") if text else []
        if lines and (max(map(len, lines)) > _LONGEST_LINE or not text.replace("\n", "").isprintable()):
            lines = [",".join(map(_tidy, line.split(","))) for line in lines]
        alike: dict[str, dict[tuple[str, str], None]] = {}
        for line in lines:
            insurer, insured, rest = line.split(",", 2)
            alike.setdefault(rest, {})[insurer, insured] = None
        found: dict[tuple[Subject, str, str], dict[tuple[str, str], None]] = {}
        for rest, persons in alike.items():
            known = found.setdefault(self._read(*rest.split(",")), persons)
            if known is not persons:
                known.update(persons)
        return found

    def __iter__(self) -> Iterator[Listed]:
        """Yield everybody, each once for each key."""
        for (subject, key, part), persons in self.groups().items():
            for insurer, insured in persons:
                yield Listed(insurer, insured, subject, key, part)

    def _read(self, month: str, date: str, office: str, service: str) -> tuple[Subject, str, str]:
        subject = _SUBJECTS.get(self._kind)
        if subject is None:
            subject = Subject.PLAN if month == NO_MONTH else Subject.SLIP
        key = month if subject in _BY_MONTH else date
        return subject, key, f"{office} {service}" if office else service


def _tidy(value: str) -> str:
    return "".join(each if each.isprintable() else " " for each in value[:_LONGEST]).strip()
