"""Characters: whether bytes are MS932 and nothing else, and which other encoding they are in (standard, section 4).

MS932 is code page 932.  Python's decoder lets 80, A0 and FD to FF pass, which are no characters, and F040 to F9FC,
which every office shows differently; both are looked for.  UTF-8 is told by what it yields: half-width kana of MS932
alone can be valid UTF-8 by accident, kana, kanji and full-width forms cannot.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARKS = (
    (b"\xef\xbb\xbf", "UTF-8・BOM付き", "UTF-8 with a byte order mark"),
    (b"\xff\xfe", "UTF-16", "UTF-16"),
    (b"\xfe\xff", "UTF-16", "UTF-16"),
)
# A file of the standard begins with a digit or a quotation mark; in UTF-16 a zero stands beside each of the first two.
_UTF16_START = re.compile(rb'[0-9"]\0[0-9"]\0|\0[0-9"]\0[0-9"]')
UTF8_MARK = _MARKS[0][0]
HEAD_BYTES = 4

_ALLOWED_CONTROLS = b"\t\r\n"
_CONTROLS_AS_BLANKS = bytes.maketrans(_ALLOWED_CONTROLS, b"   ")
_PLAIN_ASCII = _ALLOWED_CONTROLS + bytes(range(0x20, 0x7F))
_WIDE_BLANK = "\u3000"
_JAPANESE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff60]")
_ODD = (
    ("content.encoding", re.compile("[\x80\uf8f0-\uf8f3\ufffd]")),
    ("content.control_character", re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")),
    ("content.external_character", re.compile("[\ue000-\ue757]")),
)

# One CR that no LF follows; the first of CR CR LF is one.
_LONE_RETURN = re.compile(rb"\r(?!\n)")

LINE_END = "content.line_end"


@dataclass(frozen=True, slots=True)
class OddCharacter:
    """Something that should not stand in a file, how often it does, and where first.

    *line* counts from 0 within the bytes that were looked at.
    """

    code: str
    line: int
    count: int


def name_encoding(head: bytes) -> tuple[str, str] | None:
    """Return what encoding the first `HEAD_BYTES` of a file tell of, in both languages; None where it may be MS932."""
    for mark, name_ja, name in _MARKS:
        if head.startswith(mark):
            return name_ja, name
    return ("UTF-16", "UTF-16") if _UTF16_START.match(head) else None


def is_plain(data: bytes) -> bool:
    """Say, in a fraction of the time that looking takes, whether there is nothing odd in *data*."""
    if data.isascii():
        return not data.translate(None, _PLAIN_ASCII)
    try:
        # A blank in the place of each, and not nothing: half a character in front of a line end would find another half.
        text = data.translate(_CONTROLS_AS_BLANKS).decode("cp932")
    except UnicodeDecodeError:
        return False
    # Of all the characters of MS932, just the full-width blank is right and not printable.
    return text.isprintable() or text.replace(_WIDE_BLANK, "").isprintable()


def find_odd(data: bytes) -> Iterator[OddCharacter]:
    """Yield what in *data*, whole characters, is no MS932, no text, or has no place in a line; once a code."""
    if lone := data.count(b"\r") - data.count(b"\r\n"):
        first = _LONE_RETURN.search(data)
        yield OddCharacter(LINE_END, data.count(b"\n", 0, first.start() if first else 0), lone)
    if is_plain(data):
        return
    text = data.decode("cp932", "replace")
    for code, pattern in _ODD:
        found = pattern.search(text)
        if found is not None:
            yield OddCharacter(code, text.count("\n", 0, found.start()), len(pattern.findall(text)))


def is_half_character(data: bytes) -> bool:
    """Say whether *data* ends with the first byte of a character whose second one is missing."""
    try:
        data.decode("cp932")
    except UnicodeDecodeError as error:
        return error.start == len(data) - 1 and "incomplete" in error.reason
    return False


def is_utf8(data: bytes) -> bool:
    """Say whether a whole file is UTF-8 and says so by what it yields, as `Utf8Watch` does of one that arrives."""
    try:
        text = codecs.utf_8_decode(data, "strict", False)[0]
    except UnicodeDecodeError:
        return False
    return _JAPANESE.search(text) is not None


class Utf8Watch:
    """Follows a file as long as it may be UTF-8."""

    __slots__ = ("_cut", "_has_japanese", "_is_possible")

    def __init__(self) -> None:
        # The beginning of a character whose end has not arrived.
        self._cut = b""
        self._is_possible = True
        self._has_japanese = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if not self._is_possible:
            return
        try:
            text, used = codecs.utf_8_decode(self._cut + data, "strict", False)
        except UnicodeDecodeError:
            self._is_possible = False
            return
        self._cut = (self._cut + data)[used:]
        if not self._has_japanese and not text.isascii():
            self._has_japanese = _JAPANESE.search(text) is not None

    @property
    def is_utf8(self) -> bool:
        """True where everything so far is UTF-8 and says so by what it yields; a last character may be cut."""
        return self._is_possible and self._has_japanese
