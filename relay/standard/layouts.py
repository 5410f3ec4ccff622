"""The layouts of the standard's records: number, name, length and form of every item (standard, section 5).

``layout.csv`` is the table, one row an item of a kind in an edition; it is read once, when first asked.  A ``?``
in it marks what the published text does not show beyond doubt; it is kept as *is_…_certain* and nothing is ever
refused or warned about by a value without certainty.  An edition that is announced becomes new rows here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from relay.standard.tables import read_table

FREE_TEXT = "free text"

# Doubtful marks that are settled elsewhere.  Items 6 and 7 of table 6 are to be taken as required (section 10);
# the month of UPHOSOKU is what links it to its unit (section 3, kinds.csv).
_REQUIRED_ALL_THE_SAME = frozenset({("UPPLAN", 6), ("UPPLAN", 7), ("UPJSK", 6), ("UPJSK", 7), ("UPHOSOKU", 63)})


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a record; *length* is the most characters it may have, None for free text.

    *required* is None where the standard does not say.  *format* is the wording of the table, such as
    ``YYYYMMDD``, ``1|2`` or ``free text``.
    """

    number: int
    name_ja: str
    length: int | None
    required: bool | None
    format: str
    is_length_certain: bool
    is_required_certain: bool
    is_format_certain: bool

    @property
    def is_text(self) -> bool:
        """True for free text, which has no form and no length."""
        return self.format == FREE_TEXT


def layout(standard: str, kind: str) -> tuple[Item, ...]:
    """Return the items of a record of *kind* in *standard* (``3.2``, ``4.1``), in order; empty where there is none."""
    return _layouts().get((standard, kind), ())


def count_items(kind: str, standard: str) -> int | None:
    """Return how many items a record of *kind* has in *standard* (``3.2``, ``4.1``); None where there is no such CSV."""
    return len(layout(standard, kind)) or None


@cache
def _layouts() -> Mapping[tuple[str, str], tuple[Item, ...]]:
    found: dict[tuple[str, str], list[Item]] = {}
    for row in read_table("layout"):
        found.setdefault((row["standard"], row["kind"]), []).append(_read_item(row))
    return MappingProxyType({key: tuple(items) for key, items in found.items()})


def _read_item(row: Mapping[str, str]) -> Item:
    number = int(row["item"])
    length, form = row["length"].rstrip("?"), row["format"].rstrip("?")
    required = row["required"].rstrip("?")
    is_settled = row["standard"] == "4.1" and (row["kind"], number) in _REQUIRED_ALL_THE_SAME
    return Item(
        number=number,
        name_ja=row["name_ja"],
        length=int(length) if length.isdigit() else None,
        required={"yes": True, "no": False}.get(required),
        format=form,
        is_length_certain=length.isdigit() and not row["length"].endswith("?"),
        is_required_certain=required != "unknown" and (is_settled or not row["required"].endswith("?")),
        is_format_certain=form not in ("", "unknown") and not row["format"].endswith("?"),
    )
