"""The end of documents: PDF, ZIP and the office documents that are ZIP inside."""

from __future__ import annotations

from relay.completeness.ending import Cut, keep_tail

# Readers look for the end of a PDF in its last bytes.
_PDF_TAIL_BYTES = 1024
# The end of central directory record, its large form and what tells where that is; at most 64 KiB of comment follow.
_ZIP_END_BYTES = 22
_LOCATOR_BYTES = 20
_LARGE_END_BYTES = 56
_ZIP_TAIL_BYTES = _LARGE_END_BYTES + _LOCATOR_BYTES + _ZIP_END_BYTES + 65_535


class PdfEnding:
    """The end of a PDF: ``%%EOF`` near the end, with no more of the file behind it.

    A PDF that was saved more than once, or prepared for the web, holds several; behind one that is not the last
    comes an object or a table, that is, a number or ``xref``.  Anything else behind the last one harms no reader.
    """

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._tail = keep_tail(self._tail, data, _PDF_TAIL_BYTES)

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        _, mark, rest = self._tail.rpartition(b"%%EOF")
        rest = rest.lstrip(b"\0\t\n\f\r ")
        if mark and not rest[:1].isdigit() and not (rest and b"xref".startswith(rest[:4])):
            return None
        return Cut("PDFの終わりの部分がありません", "the end mark of the PDF is missing")


class ZipEnding:
    """The end of a ZIP or of an office document: a directory that ends exactly where its end record begins.

    That it fits the size tells it from the directory of an archive that lies inside this one.
    """

    __slots__ = ("_size", "_tail")

    def __init__(self) -> None:
        self._size = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._size += len(data)
        self._tail = keep_tail(self._tail, data, _ZIP_TAIL_BYTES)

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        place = self._tail.rfind(b"PK\5\6")
        while place >= 0:
            if self._is_end(place):
                return None
            place = self._tail.rfind(b"PK\5\6", 0, place)
        return Cut("ファイルの終わりの部分がありません", "the directory of the archive is missing")

    def _is_end(self, place: int) -> bool:
        record = self._tail[place : place + _ZIP_END_BYTES]
        comment = _little(record[20:22])
        if len(record) < _ZIP_END_BYTES or place + _ZIP_END_BYTES + comment > len(self._tail):
            return False
        begins_at = self._size - len(self._tail) + place
        told_end = _little(record[12:16]) + _little(record[16:20])
        locator = self._tail[max(place - _LOCATOR_BYTES, 0) : place]
        return told_end == begins_at or (locator.startswith(b"PK\6\7") and self._is_large_end(_little(locator[8:16])))

    def _is_large_end(self, large_at: int) -> bool:
        """Judge the end record of the large form (ZIP64), which stands between the directory and the usual one."""
        place = large_at - (self._size - len(self._tail))
        if not 0 <= place < len(self._tail):
            return False
        record = self._tail[place : place + _LARGE_END_BYTES]
        return record.startswith(b"PK\6\6") and _little(record[40:48]) + _little(record[48:56]) == large_at


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
