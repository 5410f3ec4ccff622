"""The tables of the standard as they lie beside the code: CSV in UTF-8, one heading line."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable

# Where tables lie.  Rows of a further folder are read behind those of the standard, which is how an edition that is not
# published yet can be tried out: added here before anything of the standard is imported.
FOLDERS: list[Traversable] = [resources.files(__package__)]


def read_table(name: str) -> Sequence[Mapping[str, str]]:
    """Return the rows of ``<name>.csv``, each by its headings."""
    files = (folder.joinpath(f"{name}.csv") for folder in FOLDERS)
    texts = [file.read_text("utf-8") for file in files if file.is_file()]
    return tuple(row for text in texts for row in csv.DictReader(text.splitlines()))
