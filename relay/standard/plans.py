"""Plans: what is judged about a record of one kind in one edition, put together from the tables once.

``roles.csv`` says which items a check beyond the single item asks for, by their names, because their numbers
differ between editions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from relay.standard.items import ItemRule, rule_for
from relay.standard.layouts import Item, layout
from relay.standard.tables import read_table
from relay.standard.versions import Version, current_version

KEY_ITEM = "content.key_item"

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

    return Plan(
        kind=kind,
        version=current_version(standard),
        items=items,
        rules=tuple(_rules(items, skip=only("month"))),
        last=rule_for(items[-1], is_strict=True),
        month=only("month"),
        date=only("date"),
        provider=only("provider"),
        result_office=only("result_office"),
        plan_date=only("plan_date"),
        key=only("key"),
        service=only("service"),
        line=(INSURER, INSURED, *roles["line"]) if "line" in roles else (),
    )


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
