"""The tables of the standard as they lie beside the code: CSV in UTF-8, one heading line."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib import resources


def read_table(name: str) -> Sequence[Mapping[str, str]]:
    """Return the rows of ``<name>.csv``, each by its headings."""
    text = resources.files(__package__).joinpath(f"{name}.csv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))
