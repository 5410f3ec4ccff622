"""The layout of the standard's records: how many items a record of a kind has (standard, section 5).

``layout.csv`` is the table, one row an item; it is read once, when first asked.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType


def count_items(kind: str, standard: str) -> int | None:
    """Return how many items a record of *kind* has in *standard* (``3.2``, ``4.1``); None where there is no such CSV."""
    return _counts().get((kind, standard))


@cache
def _counts() -> Mapping[tuple[str, str], int]:
    text = resources.files(__package__).joinpath("layout.csv").read_text("utf-8")
    return MappingProxyType(Counter((row["kind"], row["standard"]) for row in csv.DictReader(text.splitlines())))
