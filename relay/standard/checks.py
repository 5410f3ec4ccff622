"""Checks: what the standard asks of the content of its own files (standard, sections 4 to 9).

A file is fed in pieces of any size and judged while it arrives; the answer does not depend on how it was split, and
what is held does not grow with it beyond the bounds that `records`, `persons` and `repeats` name.  A small file that
comes in one piece, as nearly all do, is looked at as a whole first (`glance`): most are right, and plainly so.

Everything found is gathered and told at the end, in the order in which it explains the rest: first what the bytes
are, then whether they are all there, then the records, then what they say.  What weighs how much is not decided
here: a finding is a code, its severity is its reader's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from relay.errors import Finding
from relay.model import Address
from relay.standard.desk import UNRELATED_PERSON, Desk
from relay.standard.glance import GLANCE_BYTES, glance, outline_for
from relay.standard.readers import READERS, Reader
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

    __slots__ = ("_address", "_held", "_open", "_outline", "_reading", "_roster")

    def __init__(
        self,
        address: Address,
        version: Version,
        *,
        recipient_services: Sequence[str] = (),
        sender_services: Sequence[str] = (),
        off: Collection[str] = (),
    ) -> None:
        def open_desk() -> tuple[Desk, Reader]:
            desk = Desk(
                address, version, recipient_services=recipient_services, sender_services=sender_services, off=off
            )
            return desk, READERS[version.reader](desk)

        self._address = address
        self._outline = outline_for(address.kind, version.standard) if version.reader == "csv" else None
        self._open = open_desk
        # Nothing as long as the first piece may be all, which is held.
        self._reading: tuple[Desk, Reader] | None = None
        self._held = b""
        self._roster: Roster | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if self._reading is None and not self._held and self._outline is not None and len(data) <= GLANCE_BYTES:
            self._held = data
        else:
            self._read()[1].feed(data)

    def finish(self) -> list[Finding]:
        """Return everything that was found in the whole file."""
        if self._held and self._outline is not None:
            self._roster = glance(self._held, self._address, self._outline)
            if self._roster is not None:
                return []
        desk, reader = self._read()
        reader.finish()
        desk.conclude()
        return sorted(desk.faults.findings(), key=self._rank)

    def _read(self) -> tuple[Desk, Reader]:
        """Return what reads the file as it arrives, with what was held until now."""
        if self._reading is None:
            self._reading = self._open()
            self._reading[1].feed(self._held)
            self._held = b""
        return self._reading

    @property
    def roster(self) -> Roster:
        """Who is in the file, as far as it was read; asked when it has ended."""
        return self._roster or self._read()[0].roster

    @property
    def doubtful(self) -> str | None:
        """The code that may only follow from what could not be read, and where that refuses need not be told."""
        return UNRELATED_PERSON if self._read()[0].is_doubtful else None

    def _rank(self, found: Finding) -> tuple[int, int, int]:
        """Sort the bytes first, by line; then what `_ORDER` says; then the rest by line."""
        line = int(dict(found.facts).get("line", "0"))
        if found.code in FORM_CODES:
            return 0, line, FORM_CODES.index(found.code)
        if found.code == "content.truncated":
            # Records that are short before the last one tell of something else than a cut.
            earlier = self._read()[0].faults.first_line("content.field_count")
            return (
                (2, _ORDER.index("content.field_count"), line)
                if earlier is not None and earlier < line
                else (1, 0, line)
            )
        if found.code in _ORDER:
            return 2, _ORDER.index(found.code), line
        return 3, line, 0
