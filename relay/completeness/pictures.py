"""The end of pictures: JPEG and PNG."""

from __future__ import annotations

import re

from relay.completeness.ending import Cut, keep_tail

# Where the standard looks for the end of an image (section 9).
_TAIL_BYTES = 1024
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
# A segment begins with a marker of two bytes and a length of two, which counts itself.
_LENGTH_BYTES = 2
_HEAD_BYTES = 4
_SCAN = 0xDA
# Markers that stand alone have no place between segments.
_NO_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
# In a scan, FF00 is a byte of the picture and FFD0 to FFD7 are marks between parts of it.
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_FILL = re.compile(rb"\xff+")
# A picture has a few dozen segments; one with more was made to keep us busy.
_SEGMENTS = 10_000
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


class JpegEnding:
    """The end of a JPEG: its end marker, found by walking its segments, so that one in a thumbnail does not count.

    With *is_standard* the marker must also stand in the last 1,024 bytes (standard, section 9); other pictures may
    carry a film or a second picture behind it.  Where the segments make no sense, those bytes alone decide.
    """

    __slots__ = ("_has_ended", "_in_scan", "_is_lost", "_is_standard", "_rest", "_segments", "_skip", "_tail")

    def __init__(self, *, is_standard: bool = False) -> None:
        self._is_standard = is_standard
        self._tail = b""
        self._rest = b""
        self._skip = len(_JPEG_START)
        self._segments = 0
        self._in_scan = False
        self._has_ended = False
        self._is_lost = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._tail = keep_tail(self._tail, data, _TAIL_BYTES)
        if not self._has_ended and not self._is_lost:
            self._walk(self._rest + data)

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        is_near = _JPEG_END in self._tail
        is_whole = is_near if self._is_lost else self._has_ended and (is_near or not self._is_standard)
        return None if is_whole else Cut("画像の終わりの部分がありません", "the end marker of the picture is missing")

    def _walk(self, data: bytes) -> None:
        """Go from segment to segment; what is left of one that has only begun is kept for the next piece."""
        self._rest = b""
        place = 0
        while place < len(data) and not self._has_ended and not self._is_lost:
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
                place += step
            elif self._in_scan:
                found = _MARKER_IN_SCAN.search(data, place)
                self._in_scan = found is None
                if found is None:
                    self._rest = b"\xff" if data.endswith(b"\xff") else b""
                    return
                place = found.start()
            else:
                fill = _FILL.match(data, place)
                place = fill.end() - 1 if fill else place
                if self._read_segment(data[place : place + _HEAD_BYTES]):
                    self._rest = data[place:]
                    return

    def _read_segment(self, head: bytes) -> bool:
        """Decide what the segment that *head* begins means; True where more of it is needed for that."""
        if not head.startswith(b"\xff"):
            self._is_lost = True
        elif head.startswith(_JPEG_END):
            self._has_ended = True
        elif len(head) < _HEAD_BYTES:
            return True
        else:
            length = int.from_bytes(head[_LENGTH_BYTES:], "big")
            self._segments += 1
            self._is_lost = length < _LENGTH_BYTES or head[1] in _NO_LENGTH or self._segments > _SEGMENTS
            self._skip = _LENGTH_BYTES + length
            self._in_scan = head[1] == _SCAN
        return False


class PngEnding:
    """The end of a PNG: its last chunk, which is the same twelve bytes in every one."""

    __slots__ = ("_has_ended", "_rest")

    def __init__(self) -> None:
        self._has_ended = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if not self._has_ended:
            self._has_ended = _PNG_END in self._rest + data
            self._rest = keep_tail(self._rest, data, len(_PNG_END) - 1)

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        return None if self._has_ended else Cut("画像の終わりの部分がありません", "the end of the picture is missing")
