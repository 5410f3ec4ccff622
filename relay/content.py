"""Content: what a file must be, checked while it arrives.

A check is fed a file from its first byte to its last, in pieces of any size, and either refuses it or returns what is
to be said about it.  The answer does not depend on how the file was split, and nothing of the file is kept but its
first bytes and, for some formats, a bounded part of its end.

What is looked at depends on the kind: the standard's own files and what is complete in others (DESIGN section 6).
Each finding does what the operator chose for its code, or what the table in `relay.errors` says.

Findings name a place or an item, never a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from relay.completeness import (
    CsvEnding,
    Ending,
    JpegEnding,
    JsonEnding,
    PdfEnding,
    PngEnding,
    XmlEnding,
    ZipEnding,
)
from relay.errors import TABLE, Finding, Refused, Severity, finding
from relay.model import Address, Grammar
from relay.standard.kinds import STANDARD_32, STANDARD_41
from relay.standard.layouts import count_items

# What an office document that is protected by a password begins with; where it ends cannot be told.
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PACKED = (b"PK\3\4", b"PK\5\6", b"PK\7\x08", b"PK00PK\3\4")
_BLANKS = b" \t\r\n"
_UTF8_MARK = b"\xef\xbb\xbf"


def _text_starts(characters: bytes) -> tuple[bytes, ...]:
    """Return how a text that begins with one of *characters* may begin in UTF-8, UTF-16 and UTF-32."""
    single = [characters[place : place + 1] for place in range(len(characters))]
    wide = [b"\0" * count + character for count in (1, 3) for character in single]
    return (*single, *wide, _UTF8_MARK, b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")


# How files begin, by extension; texts after a byte order mark and blanks.
_TEXT_STARTS: Mapping[str, tuple[bytes, ...]] = {
    "json": _text_starts(b'{["-0123456789tfn'),
    "xml": _text_starts(b"<"),
}
_STARTS: Mapping[str, tuple[bytes, ...]] = {
    "pdf": (b"%PDF-",),
    "jpg": (b"\xff\xd8\xff",),
    "jpeg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG\r\n\x1a\n",),
    "zip": _PACKED,
    "docx": (*_PACKED, _COMPOUND),
    "xlsx": (*_PACKED, _COMPOUND),
    **_TEXT_STARTS,
}
_START_BYTES = max(len(start) for starts in _STARTS.values() for start in starts)


class ContentCheck(Protocol):
    """The check of one file's content."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file; Refused as soon as nothing that may follow could mend it."""

    def finish(self) -> tuple[Finding, ...]:
        """Return what is to be said about the whole file, or Refused.  Nothing may be fed afterwards."""


def start_check(address: Address, severities: Mapping[str, Severity]) -> ContentCheck:
    """Return the check for the content of *address*; *severities* are those the operator set otherwise."""
    return _Check(address, severities)


class _Check:
    """The checks that every file gets, around the ending of its format."""

    __slots__ = ("_ending", "_extension", "_findings", "_head", "_is_empty", "_severities", "_starts")

    def __init__(self, address: Address, severities: Mapping[str, Severity]) -> None:
        self._severities = severities
        self._extension = address.name.rpartition(".")[2].lower()
        self._findings: list[Finding] = []
        self._is_empty = True
        # What the file may begin with, until that is decided.
        self._starts = _STARTS.get(self._extension, ())
        self._head = b""
        is_judged = self._severity("content.truncated") is not Severity.OFF
        self._ending = _choose_ending(self._extension, address) if is_judged else None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if self._is_empty and data and not data.isspace():
            self._is_empty = False
        if self._starts:
            self._judge_start(data)
        if self._ending is not None:
            self._ending.feed(data)

    def finish(self) -> tuple[Finding, ...]:
        """Return what is to be said about the whole file."""
        if self._is_empty:
            self._report("content.empty")
        elif self._ending is not None and (cut := self._ending.find_cut()) is not None:
            self._report("content.truncated", where_ja=cut.where_ja, where=cut.where)
        return tuple(self._findings)

    def _judge_start(self, data: bytes) -> None:
        """Decide by the first bytes whether this can be such a file; a start that is too short for that waits."""
        head = self._head + data
        if self._extension in _TEXT_STARTS:
            head = head.lstrip(_BLANKS).removeprefix(_UTF8_MARK).lstrip(_BLANKS)
        self._head = head[:_START_BYTES]
        if self._head.startswith(self._starts):
            if self._head.startswith(_COMPOUND):
                self._ending = None
        elif any(start.startswith(self._head) for start in self._starts):
            return
        else:
            # Where it ends cannot be judged of something else.
            self._ending = None
            self._report("content.not_this_kind", kind=self._extension.upper())
        self._starts = ()

    def _severity(self, code: str) -> Severity:
        return self._severities.get(code, TABLE[code].severity)

    def _report(self, code: str, **facts: str) -> None:
        severity = self._severity(code)
        if severity is Severity.REFUSE:
            raise Refused(code, **facts)
        if severity is Severity.WARN:
            self._findings.append(finding(code, **facts))


def _choose_ending(extension: str, address: Address) -> Ending | None:
    if extension == "csv":
        if not address.is_standard:
            return CsvEnding()
        standard = STANDARD_41 if address.grammar is Grammar.STANDARD_41 else STANDARD_32
        return CsvEnding(is_standard=True, items=count_items(address.kind, standard))
    if extension in ("jpg", "jpeg"):
        return JpegEnding(is_standard=address.is_standard)
    make = _ENDINGS.get(extension)
    return make() if make else None


_ENDINGS: Mapping[str, Callable[[], Ending]] = {
    "pdf": PdfEnding,
    "png": PngEnding,
    "zip": ZipEnding,
    "docx": ZipEnding,
    "xlsx": ZipEnding,
    "json": JsonEnding,
    "xml": XmlEnding,
}
