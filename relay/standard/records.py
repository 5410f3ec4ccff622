"""Records: the standard's CSV, taken apart while it arrives (standard, section 4).

Fed in pieces of any size, the reader hands on blocks of whole records as soon as their ends are there.  A line end
inside quotation marks is text, so a block ends where no mark is open.  In a block

* quoting is undone: an item reads the same whether it was quoted or not;
* what would then be mistaken for structure is one byte that no text may hold: see `COMMA`, `RETURN`, `LINE`, `QUOTE`;
* records end with LF and lines are counted as an editor counts them.

At most one record is held, and no more than `RECORD_BYTES` of it.  The work is done on whole blocks by operations
in C; a block costs the same whether nothing or everything in it is quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

# No form filled in by people comes near this; a record that does is a quotation mark gone astray.
RECORD_BYTES = 1 << 20

# What stands for a comma, a CR, an LF and a quotation mark inside of text.
COMMA, RETURN, LINE, QUOTE = b"\1", b"\2", b"\3", b"\4"
_STAND_INS = bytes.maketrans(b",\r\n", COMMA + RETURN + LINE)
# The same for text that never was in a CSV.
STAND_INS = bytes.maketrans(b',\r\n"', COMMA + RETURN + LINE + QUOTE)
# Bytes that no text may hold, in a file that does so all the same: they must not be taken for a stand-in.
_FOREIGN_STAND_INS = bytes.maketrans(COMMA + RETURN + LINE + QUOTE, b"\5" * 4)

# As `_undo_quotes` has it, or how a file arrived would tell: behind a closing mark a CR, and then anything, is no quote's
# fault; what that CR is worth is told as a line end.
_SOUND_ITEM = re.compile(rb'(?:"[^"]*(?:""[^"]*)*"(?:\r[^",\n]*)?|[^",\n]*)(?:[,\n]|\Z)')


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes of whole records as they arrived; *line* is that of the first."""

    data: bytes
    line: int


class Block:
    """Records with their quoting undone; *line* is that of the first."""

    __slots__ = ("_lines", "line", "records")

    def __init__(self, records: list[bytes], line: int) -> None:
        self.records = records
        self.line = line
        self._lines: list[int] = []

    def line_of(self, index: int) -> int:
        """Return the line in which the record at *index* begins."""
        if not self._lines:
            heights = (1 + record.count(LINE) for record in self.records)
            self._lines = list(accumulate(heights, initial=self.line))
        return self._lines[index]


class BrokenQuoteError(ValueError):
    """A quotation mark stands where none can; *place* is where its item begins in the bytes."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class RecordReader:
    """Cuts a file into runs of whole records.

    After `is_overlong` turned true nothing more comes: what began in `line` is no record.
    """

    __slots__ = ("_kept", "is_open", "is_overlong", "line")

    def __init__(self) -> None:
        # The beginning of a record whose end has not arrived; `line` is that of its beginning.
        self._kept = bytearray()
        self.line = 1
        self.is_open = False
        self.is_overlong = False

    def feed(self, data: bytes) -> Raw | None:
        """Take the next bytes; return the records that are whole by now, if there are new ones."""
        self.is_open ^= bool(data.count(b'"') & 1)
        if self.is_overlong:
            return None
        end = find_end(data, is_open=self.is_open) if b"\n" in data else 0
        if end == 0:
            self._keep(data)
            return None
        whole = bytes(self._kept) + data[:end] if self._kept else data[:end]
        self._kept = bytearray()
        raw = self._without_overlong(whole)
        if not self.is_overlong:
            self._keep(data[end:])
        return raw

    def rest(self) -> bytes:
        """Return the beginning of the last record, or of the one that is too long; empty where the last one ended."""
        return bytes(self._kept)

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > RECORD_BYTES:
            self.is_overlong = True
            del self._kept[RECORD_BYTES:]

    def _without_overlong(self, whole: bytes) -> Raw | None:
        """Return *whole*, or what of it stands before a record that is too long."""
        place = 0
        while len(whole) - place > RECORD_BYTES:
            end = find_end(whole[place : place + RECORD_BYTES])
            if end == 0:
                self.is_overlong = True
                self._kept += whole[place : place + RECORD_BYTES]
                whole = whole[:place]
                break
            place += end
        raw = Raw(whole, self.line)
        self.line += whole.count(b"\n")
        return raw if whole else None


def find_end(data: bytes, *, is_open: bool | None = None) -> int:
    """Return where the last record of *data* ends, 0 where none does.

    *is_open* says whether a quotation mark is open at the end; None where *data* begins a record and that can be
    counted.
    """
    if is_open is None:
        is_open = bool(data.count(b'"') & 1)
    end = len(data)
    while (place := data.rfind(b"\n", 0, end)) >= 0:
        is_open ^= bool(data.count(b'"', place, end) & 1)
        if not is_open:
            return place + 1
        # The line end is text; before the mark that opens this text, none is open.
        end = data.rfind(b'"', 0, place)
        if end < 0:
            return 0
        is_open = False
    return 0


def read_block(raw: Raw) -> Block:
    """Take *raw* apart; BrokenQuoteError where a quotation mark stands wrong or is not closed."""
    data = raw.data
    if COMMA in data or RETURN in data or LINE in data or QUOTE in data:
        data = data.translate(_FOREIGN_STAND_INS)
    if b'"' in data:
        data = _undo_quotes(data)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    records = data.split(b"\n")
    if not records[-1]:
        records.pop()
    return Block(records, raw.line)


def _undo_quotes(data: bytes) -> bytes:
    parts = data.split(b'"')
    if not len(parts) & 1:
        raise BrokenQuoteError(find_broken(data))
    outside = parts[::2]
    inner = outside[1:-1]
    # Nothing between two quoted parts: the end of one and the beginning of the next are a mark in one text.
    if b"" in inner:
        parts[2:-1:2] = [part or QUOTE for part in inner]
        inner = [part for part in inner if part]
    frame = b'"'.join([outside[0], *inner, outside[-1]])
    marks = frame.count(b'"')
    opened = frame.count(b',"') + frame.count(b'\n"') + frame.startswith(b'"')
    closed = frame.count(b'",') + frame.count(b'"\n') + frame.count(b'"\r') + frame.endswith(b'"')
    if not opened == closed == marks:
        raise BrokenQuoteError(find_broken(data))
    texts = b'"'.join(parts[1::2])
    if b"," in texts or b"\n" in texts or b"\r" in texts:
        parts[1::2] = texts.translate(_STAND_INS).split(b'"')
    return b"".join(parts)


def find_broken(data: bytes) -> int:
    """Return where the first item of *data* begins that is not sound, which is its end if all are."""
    place = 0
    while place < len(data) and (match := _SOUND_ITEM.match(data, place)) is not None:
        place = match.end()
    return place


def is_only_open(data: bytes, place: int) -> bool:
    """Say whether the item at *place*, in which a quotation mark is open at the end, has none that stands wrong."""
    return data.startswith(b'"', place) and b'"' not in data[place + 1 :].replace(b'""', b"")
