"""The end of tables: CSV."""

from __future__ import annotations

from relay.completeness.ending import Cut, outside_quotes

# A record is sought in a small part of a piece first, because splitting at every quotation mark is slow.
_WINDOWS = (1024, 16 * 1024)
# A last line of these is no record; some programs still end a file with 1A.
_BLANKS = b" \t\r\n\x1a"


class CsvEnding:
    """The end of a CSV: no open quotation mark, and no last record that is shorter than the first and not ended.

    It may have any encoding, and is not judged where its quotation marks cannot be told from parts of characters
    (UTF-16, ISO-2022-JP).  The standard's own CSV is judged by `relay.standard.checks` instead.
    """

    __slots__ = (
        "_first_commas",
        "_has_first",
        "_is_blank",
        "_is_foreign",
        "_is_open",
        "_last_commas",
    )

    def __init__(self) -> None:
        self._is_foreign = False
        self._is_open = False
        self._has_first = False
        self._first_commas = 0
        # The record that has begun and not ended: is it nothing but blanks, how many commas has it outside of quotes?
        self._is_blank = True
        self._last_commas = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if not data or self._is_foreign:
            return
        if b"\0" in data or b"\x1b" in data:
            self._is_foreign = True
            return
        was_open = self._is_open
        self._is_open = was_open ^ bool(data.count(b'"') & 1)
        if not self._has_first:
            self._read_first(data, is_open=was_open)
        self._read_last(data, was_open=was_open)

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        if self._is_foreign:
            return None
        ends = (
            (self._is_open, Cut('文章を囲む記号「"」が閉じていません', "a quotation mark is never closed")),
            (self._is_short(), Cut("最後の行の途中で終わっています", "in the middle of the last record")),
        )
        return next((cut for is_so, cut in ends if is_so), None)

    def _is_short(self) -> bool:
        if self._is_blank:
            return False
        # Of a file with one record nobody knows how long it should be.
        return self._has_first and self._last_commas < self._first_commas

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
