"""What an ending is, and what several of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Cut:
    """What is missing at the end of a file, in both languages and without quoting it."""

    where_ja: str
    where: str


class Ending(Protocol):
    """Something that is fed a whole file and tells whether its end is there."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""


def keep_tail(tail: bytes, data: bytes, size_bytes: int) -> bytes:
    """Return the last bytes of *tail* and *data* together."""
    return data[-size_bytes:] if len(data) >= size_bytes else (tail + data)[-size_bytes:]


def outside_quotes(data: bytes, *, is_open: bool) -> bytes:
    """Return what of *data* is outside of quotation marks, with one mark where something quoted stood."""
    if b'"' not in data:
        return b'"' if is_open else data
    parts = data.split(b'"')
    # Marks at the ends tell of something quoted that goes on beyond them.
    ends_open = is_open ^ bool((len(parts) - 1) & 1)
    return b'"' * is_open + b'"'.join(parts[is_open::2]) + b'"' * ends_open
