"""Readers: what turns the bytes of one format into records, by the name that ``versions.csv`` has for it.

An edition in a new format is rows in the tables and one class here.  It is handed a `Desk`: the layout of its records,
where it hands them in, and where it notes what is wrong with the bytes.  What the items say is judged behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from relay.standard.csvreader import CsvReader
from relay.standard.desk import Desk


class Reader(Protocol):
    """Reads one file, in pieces of any size; what it finds must not depend on how they were cut."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""

    def finish(self) -> None:
        """Read what is left; nothing may be fed afterwards."""


READERS: dict[str, Callable[[Desk], Reader]] = {"csv": CsvReader}
