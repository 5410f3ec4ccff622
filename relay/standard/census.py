"""Census: who is in a file of the standard, told by insurer and insured number (standard, section 3).

For comparing the files of a unit.  Fed while a file arrives; what is kept grows with the number of persons and never
with the number of records.  The keys are personal data: whoever keeps them beyond the moment keeps something derived
from them instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from relay.standard.records import LINE, BrokenQuoteError, Raw, RecordReader, read_block

# Version, insurer, insured, and the rest of the record.
_SPLITS = 3


class Census:
    """Collects the persons of one file, each with the line where it first occurs.

    A file that cannot be taken apart is read as far as it goes: others say what is wrong with it.
    """

    __slots__ = ("_found", "_reader")

    def __init__(self) -> None:
        self._reader = RecordReader()
        self._found: dict[bytes, int] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._take(self._reader.feed(data))

    def finish(self) -> Mapping[bytes, int]:
        """Return everybody in the file, by ``insurer,insured``, with the line of the first record."""
        # The last record may have no line end.
        self._take(self._reader.feed(b"\n"))
        return self._found

    def _take(self, raw: Raw | None) -> None:
        if raw is None:
            return
        try:
            block = read_block(raw)
        except BrokenQuoteError:
            return
        line = block.line
        for record in block.records:
            cells = record.split(b",", _SPLITS)
            if len(cells) > _SPLITS:
                self._found.setdefault(b",".join(cells[1:_SPLITS]), line)
            line += 1 + record.count(LINE)
