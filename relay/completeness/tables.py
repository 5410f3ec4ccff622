"""The end of tables: CSV."""

from __future__ import annotations

from relay.completeness.ending import Cut, outside_quotes

# A record is sought in a small part of a piece first, because splitting at every quotation mark is slow.
_WINDOWS = (1024, 16 * 1024)
# A last line of these is no record; some programs still end a file with 1A.
_BLANKS = b" \t\r\n\x1a"
# The first bytes of a two-byte character of MS932; each of them can be a second byte as well.
_LEADS = bytes([*range(0x81, 0xA0), *range(0xE0, 0xFD)])


class CsvEnding:
    """The end of a CSV: no open quotation mark, and no last record that is shorter than the first and not ended.

    With *is_standard* it is MS932 with items as many as *items* says; other CSV may have any encoding, and is not
    judged where its quotation marks cannot be told from parts of characters (UTF-16, ISO-2022-JP).
    """

    __slots__ = (
        "_first_commas",
        "_has_first",
        "_is_blank",
        "_is_foreign",
        "_is_open",
        "_is_standard",
        "_items",
        "_last_byte",
        "_last_commas",
        "_leads",
    )

    def __init__(self, *, is_standard: bool = False, items: int | None = None) -> None:
        self._is_standard = is_standard
        self._items = items
        self._is_foreign = False
        self._is_open = False
        self._has_first = False
        self._first_commas = 0
        # The record that has begun and not ended: is it nothing but blanks, how many commas has it outside of quotes?
        self._is_blank = True
        self._last_commas = 0
        self._last_byte = b""
        self._leads = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if not data or self._is_foreign:
            return
        if not self._is_standard and (b"\0" in data or b"\x1b" in data):
            self._is_foreign = True
            return
        was_open = self._is_open
        self._is_open = was_open ^ bool(data.count(b'"') & 1)
        if not self._has_first:
            self._read_first(data, is_open=was_open)
        self._read_last(data, was_open=was_open)
        if self._is_standard:
            self._last_byte = data[-1:]
            self._leads = self._count_leads(data)

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        if self._is_foreign:
            return None
        ends = (
            (self._is_open, Cut("引用符が閉じていません", "a quotation mark is never closed")),
            (bool(self._leads & 1), Cut("文字の途中です", "in the middle of a character")),
            (self._last_byte == b"\r", Cut("改行の途中です", "in the middle of a line end")),
            (self._is_short(), Cut("最後のレコードの途中です", "in the middle of the last record")),
        )
        return next((cut for is_so, cut in ends if is_so), None)

    def _is_short(self) -> bool:
        if self._is_blank:
            return False
        # Of a file with one record, the standard alone knows how long it should be.
        expected = self._first_commas if self._has_first else (self._items or 1) - 1
        return self._last_commas < expected

    def _read_first(self, data: bytes, *, is_open: bool) -> None:
        for window in (*_WINDOWS, len(data)):
            plain = outside_quotes(data[:window], is_open=is_open)
            end = plain.find(b"\n")
            if end >= 0 or window >= len(data):
                self._has_first = end >= 0
                self._first_commas += plain.count(b",", 0, end if end >= 0 else len(plain))
                return

    def _read_last(self, data: bytes, *, was_open: bool) -> None:
        for window in _WINDOWS:
            if window >= len(data):
                break
            part = data[-window:]
            plain = outside_quotes(part, is_open=self._is_open ^ bool(part.count(b'"') & 1))
            if (end := plain.rfind(b"\n")) >= 0:
                self._begin_record(plain[end + 1 :])
                return
        plain = outside_quotes(data, is_open=was_open)
        if (end := plain.rfind(b"\n")) >= 0:
            self._begin_record(plain[end + 1 :])
        else:
            self._last_commas += plain.count(b",")
            self._is_blank = self._is_blank and not plain.strip(_BLANKS)

    def _begin_record(self, plain: bytes) -> None:
        self._last_commas = plain.count(b",")
        self._is_blank = not plain.strip(_BLANKS)

    def _count_leads(self, data: bytes) -> int:
        """Count the bytes at the end that can begin a character: the byte before them ends one, so they pair up."""
        if data[-1] not in _LEADS:
            return 0
        run = len(data) - len(data.rstrip(_LEADS))
        return run + self._leads if run == len(data) else run
