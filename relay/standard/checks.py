"""Checks: what the standard asks of the content of its own files (standard, sections 4 to 9).

A file is fed in pieces of any size and judged while it arrives; the answer does not depend on how it was split, and
what is held does not grow with it beyond the bounds that `records`, `persons` and `repeats` name.

Everything found is gathered and told at the end, in the order in which it explains the rest: first what the bytes
are, then whether they are all there, then the records, then what they say.  What weighs how much is not decided
here: a finding is a code, its severity is its reader's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from relay.errors import Finding
from relay.model import Address
from relay.standard.desk import UNRELATED_PERSON, Desk
from relay.standard.readers import READERS
from relay.standard.roster import Roster
from relay.standard.versions import Version

# What the bytes are. After one of these, what is said of records may only follow from it.
FORM_CODES = ("content.encoding", "content.control_character", "content.line_end", "content.quote")
# After one of these, what is said of persons may only follow from records or numbers that could not be read.
UNREAD_CODES = ("content.truncated", "content.field_count", "content.key_item")
_ORDER = (
    "content.truncated",
    "content.header_row",
    "content.version_unknown",
    "content.version_mixed",
    "content.version_name_mismatch",
    "content.field_count",
    "content.key_item",
    "content.month_mismatch",
    UNRELATED_PERSON,
)


class StandardCheck:
    """The check of one file of the standard that has records, in the edition *version*.

    *recipient_services* and *sender_services* are those that the register has; none where it has nothing to say.
    What only serves codes in *off* is left out where it can be.
    """

    __slots__ = ("_desk", "_reader")

    def __init__(
        self,
        address: Address,
        version: Version,
        *,
        recipient_services: Sequence[str] = (),
        sender_services: Sequence[str] = (),
        off: Collection[str] = (),
    ) -> None:
        self._desk = Desk(
            address, version, recipient_services=recipient_services, sender_services=sender_services, off=off
        )
        self._reader = READERS[version.reader](self._desk)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._reader.feed(data)

    def finish(self) -> list[Finding]:
        """Return everything that was found in the whole file."""
        self._reader.finish()
        self._desk.conclude()
        return sorted(self._desk.faults.findings(), key=self._rank)

    @property
    def roster(self) -> Roster:
        """Who is in the file, as far as it was read; asked when it has ended."""
        return self._desk.roster

    @property
    def doubtful(self) -> str | None:
        """The code that may only follow from what could not be read, and where that refuses need not be told."""
        return UNRELATED_PERSON if self._desk.is_doubtful else None

    def _rank(self, found: Finding) -> tuple[int, int, int]:
        """Sort the bytes first, by line; then what `_ORDER` says; then the rest by line."""
        line = int(dict(found.facts).get("line", "0"))
        if found.code in FORM_CODES:
            return 0, line, FORM_CODES.index(found.code)
        if found.code == "content.truncated":
            # Records that are short before the last one tell of something else than a cut.
            earlier = self._desk.faults.first_line("content.field_count")
            return (
                (2, _ORDER.index("content.field_count"), line)
                if earlier is not None and earlier < line
                else (1, 0, line)
            )
        if found.code in _ORDER:
            return 2, _ORDER.index(found.code), line
        return 3, line, 0
