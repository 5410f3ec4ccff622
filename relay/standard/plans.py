"""Plans: what is judged about a record of one kind in one edition, put together from the tables once.

``roles.csv`` says which items a check beyond the single item asks for, by their names, because their numbers
differ between editions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from relay.standard.items import ANYTHING, COLUMN_END, KEY_ITEM, ItemRule, many, rule_for
from relay.standard.layouts import Item, layout
from relay.standard.tables import read_table
from relay.standard.versions import Version, current_version

# Items 1 to 3 are the same in every kind (section 5), counted from 0 here.
VERSION, INSURER, INSURED = range(3)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at in records of one kind and edition; places count from 0.

    *rules* are those of single items.  A role that the kind does not have is None or empty.
    """

    kind: str
    version: Version
    items: tuple[Item, ...]
    rules: tuple[tuple[int, ItemRule], ...]
    last: ItemRule | None
    month: int | None
    date: int | None
    provider: int | None
    result_office: int | None
    plan_date: int | None
    key: int | None
    service: int | None
    line: tuple[int, ...]
    # The items that tell of a person, of those there are: insurer, insured, month, key, office and service of results,
    # provider; and where the first six stand among them, behind all of them where there is no such.
    told: tuple[int, ...]
    told_at: tuple[int, ...]
    # What is mostly the same or another together: a file repeats the texts of these runs of items.
    runs: tuple[tuple[int, int], ...]
    # For each item its run, and its place there.
    where: tuple[tuple[int, int], ...]
    # Matches the values of all columns with rules, if they are right beyond doubt: those of a column ended by LF each.
    right_columns: re.Pattern[bytes]
    # Matches the texts of each run in which all items are, ended by LF each.
    right_runs: tuple[re.Pattern[bytes], ...]

    @property
    def version_bytes(self) -> bytes:
        """What item 1 of such a record says."""
        return self.version.value.encode()


@cache
def plan_for(kind: str, standard: str) -> Plan | None:
    """Return the plan for *kind* in *standard*; None where there is no such CSV."""
    items = layout(standard, kind)
    if not items:
        return None
    roles = _roles(kind, items)

    def only(role: str) -> int | None:
        return roles[role][0] if role in roles else None

    rules = tuple(_rules(items, skip=only("month")))
    runs = _runs(len(items), only("date"), only("provider"), only("result_office"))
    who = (INSURER, INSURED, only("month"), only("key"), only("result_office"), only("service"), only("provider"))
    told = tuple(place for place in who if place is not None)
    return Plan(
        kind=kind,
        version=current_version(standard),
        items=items,
        rules=rules,
        last=rule_for(items[-1], is_strict=True),
        month=only("month"),
        date=only("date"),
        provider=only("provider"),
        result_office=only("result_office"),
        plan_date=only("plan_date"),
        key=only("key"),
        service=only("service"),
        line=(INSURER, INSURED, *roles["line"]) if "line" in roles else (),
        told=told,
        told_at=tuple(len(told) if place is None else told.index(place) for place in who[:-1]),
        runs=runs,
        where=tuple((run, place - start) for run, (start, end) in enumerate(runs) for place in range(start, end)),
        right_columns=re.compile(COLUMN_END.join(rule.right.pattern for _, rule in rules)),
        right_runs=tuple(_compile_run(dict(rules), range(start, end)) for start, end in runs),
    )


def _runs(width: int, date: int | None, *offices: int | None) -> tuple[tuple[int, int], ...]:
    """Return the runs of items: what is of a person, the day, what is done, and by whom."""
    borders = {0, INSURED + 1, width, *(place for place in offices if place is not None)}
    if date is not None:
        # What stands between a person's number and the day is that person's.
        borders = borders - {INSURED + 1} | {date, date + 1}
    return tuple(pairwise(sorted(borders)))


def _compile_run(rules: Mapping[int, ItemRule], places: range) -> re.Pattern[bytes]:
    return many(b",".join(rules[place].right_value if place in rules else ANYTHING for place in places))


def _roles(kind: str, items: tuple[Item, ...]) -> Mapping[str, list[int]]:
    places = {item.name_ja: place for place, item in reversed(list(enumerate(items)))}
    roles: dict[str, list[int]] = {}
    for row in read_table("roles"):
        if row["kind"] == kind:
            roles.setdefault(row["role"], []).append(places[row["name_ja"]])
    return roles


def _rules(items: tuple[Item, ...], *, skip: int | None) -> list[tuple[int, ItemRule]]:
    found = []
    for place, item in enumerate(items):
        # The version and the month are compared, which says more than their form.
        if place in (VERSION, skip):
            continue
        is_key = place in (INSURER, INSURED)
        rule = rule_for(item, code=KEY_ITEM, is_strict=True) if is_key else rule_for(item)
        if rule is not None:
            found.append((place, rule))
    return found
