"""The end of texts with brackets: JSON and XML."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping

from relay.completeness.ending import Cut, outside_quotes

# A JSON text without brackets is one number, word or string; the words and most numbers are shorter than this.
_SCALAR_BYTES = 64
_NO_ELEMENT = re.compile(rb"<[!?]")
_CLOSERS: Mapping[bytes, bytes] = {b"<?": b"?>", b"<!--": b"-->", b"<![CDATA[": b"]]>"}
_OPENER_BYTES = len(b"<![CDATA[")
_DOCTYPE_END = re.compile(rb"[\[>]")
# A declaration without an internal subset holds two addresses; a longer one is not worth keeping.
_DOCTYPE_BYTES = 4096


class JsonEnding:
    """The end of a JSON text: every bracket and every string is closed.

    A text that is not UTF-8 is no JSON, though some programs write it, and is not judged.
    """

    __slots__ = ("_decoder", "_depth", "_escape", "_has_brackets", "_head", "_is_foreign", "_is_open", "_size")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_foreign = False
        self._is_open = False
        self._escape = b""
        self._depth = 0
        self._has_brackets = False
        self._size = 0
        self._head = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        try:
            self._decoder.decode(data)
        except UnicodeDecodeError:
            self._is_foreign = True
        self._is_foreign = self._is_foreign or b"\0" in data
        if self._is_foreign:
            return
        self._size += len(data)
        self._head += data[: _SCALAR_BYTES - len(self._head)]
        data = self._escape + data
        self._escape = b"\\" * ((len(data) - len(data.rstrip(b"\\"))) & 1) if data.endswith(b"\\") else b""
        data = data.removesuffix(self._escape).replace(b"\\\\", b"").replace(b'\\"', b"")
        plain = outside_quotes(data, is_open=self._is_open)
        self._is_open ^= bool(data.count(b'"') & 1)
        opened, closed = plain.count(b"{") + plain.count(b"["), plain.count(b"}") + plain.count(b"]")
        self._depth += opened - closed
        self._has_brackets = self._has_brackets or opened > 0

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        if self._is_foreign or not (self._is_open or self._depth > 0 or self._is_cut_scalar()):
            return None
        return Cut("JSONの終わりの部分がありません", "the JSON does not end")

    def _is_cut_scalar(self) -> bool:
        if self._has_brackets or self._size > _SCALAR_BYTES:
            return False
        try:
            json.loads(self._head)
        except ValueError:
            return True
        return False


class XmlEnding:
    """The end of an XML document: every element, comment and instruction is closed.

    Elements are counted, not named.  A document with declarations of its own (an internal subset), or in an encoding
    in which ``<`` can be a part of a character, is not judged.
    """

    __slots__ = ("_depth", "_has_root", "_is_foreign", "_is_tag_open", "_rest", "_until")

    def __init__(self) -> None:
        self._rest = b""
        self._until = b""
        self._depth = 0
        self._has_root = False
        self._is_tag_open = False
        self._is_foreign = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._is_foreign = self._is_foreign or b"\0" in data or b"\x1b" in data
        if not self._is_foreign:
            data = self._rest + data
            self._rest = data[self._walk(data) :]
        if self._is_foreign:
            self._rest = b""

    def find_cut(self) -> Cut | None:
        """Return what is missing after everything was fed, or None."""
        is_inside = bool(self._until) or self._rest.startswith(b"<") or self._is_tag_open or self._depth > 0
        if self._is_foreign or (self._has_root and not is_inside):
            return None
        return Cut("XMLの終わりの部分がありません", "the XML does not end")

    def _walk(self, data: bytes) -> int:
        """Go from one thing that is no element to the next; return where what has only begun begins."""
        place = 0
        while not self._is_foreign:
            if self._until:
                end = data.find(self._until, place)
                if end < 0:
                    return max(place, len(data) - len(self._until) + 1)
                place = end + len(self._until)
                self._until = b""
            found = _NO_ELEMENT.search(data, place)
            # A last byte that may be the first of a pair is looked at together with the next piece.
            stop = found.start() if found else len(data) - (data.endswith((b"<", b"/")) and not data.endswith(b"</"))
            self._count_elements(data, place, max(stop, place))
            if found is None:
                return max(stop, place)
            place = self._open(data, stop)
            if place < 0:
                return stop
        return len(data)

    def _open(self, data: bytes, place: int) -> int:
        """Say how what begins at *place* will end and return where it goes on; -1 where more is needed for that."""
        head = data[place : place + _OPENER_BYTES]
        for opener, closer in _CLOSERS.items():
            if head.startswith(opener):
                self._until = closer
                return place + len(opener)
            if opener.startswith(head):
                return -1
        if head.startswith(b"<!DOCTYPE"):
            end = _DOCTYPE_END.search(data, place)
            self._is_foreign = end is None and len(data) - place > _DOCTYPE_BYTES
            if end is None:
                return -1
            self._is_foreign = end[0] == b"[" or end.start() - place > _DOCTYPE_BYTES
            return end.end()
        self._is_foreign = not b"<!DOCTYPE".startswith(head)
        return -1

    def _count_elements(self, data: bytes, start: int, stop: int) -> None:
        opened = data.count(b"<", start, stop)
        # One stroke ends one thing: that of ``</>`` would be counted twice here, and once where a piece ends behind it.
        strokes = data.count(b"/>", start, stop) - data.count(b"</>", start, stop)
        ended = 2 * data.count(b"</", start, stop) + strokes
        self._depth += opened - ended
        self._has_root = self._has_root or opened > 0
        last = max(data.rfind(b"<", start, stop), data.rfind(b">", start, stop))
        if last >= 0:
            self._is_tag_open = data[last : last + 1] == b"<"
