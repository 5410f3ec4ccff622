"""Content: what a file must be, checked while it arrives.

A check is fed a file from its first byte to its last, in pieces of any size, and either refuses it or returns what is
to be said about it.  The answer does not depend on how the file was split, and nothing of the file is kept but its
first bytes and, for some formats, a bounded part of its end; of the standard's own CSV, what `relay.standard.checks`
names.

What is looked at depends on the kind: the standard's own files and what is complete in others (DESIGN section 6).
Each finding does what the operator chose for its code, or what the table in `relay.errors` says.

Findings name a place or an item, never a value.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from relay.model import Address
from relay.standard.checks import FORM_CODES, UNREAD_CODES, StandardCheck
from relay.standard.roster import Roster
from relay.standard.versions import Version, version_for

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


# What no record of the standard begins with: other formats, and the page with which a web server says that it failed.
_FOREIGN_STARTS = (*_STARTS["pdf"], *_STARTS["jpg"], *_STARTS["png"], *_STARTS["docx"], b"<")

# A first line in UTF-8 of as many characters as anybody reads in a table.
_LINE_BYTES = 1_200
_LINE_CHARACTERS = 200
_MESSAGE = "MESSAGE"

# Every check of this module; where all are off, nothing is read.
CONTENT_CODES = frozenset(code for code in TABLE if code.startswith("content."))
# What the grammars of the standard's names are called, before the edition whose form they are.
_STANDARD = "standard-"

# So many warnings of one file are kept; the rest are of the same kind.
MOST_FINDINGS = 30


@dataclass(frozen=True, slots=True)
class Judged:
    """One finding and what it does to its file."""

    finding: Finding
    severity: Severity


@dataclass(frozen=True, slots=True)
class Gist:
    """What is kept of a file beside its bytes, sealed: whom it is about, or the first line of a unit's message."""

    roster: Roster | None = None
    first_line: str | None = None


class ContentCheck(Protocol):
    """The check of one file's content."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file; Refused as soon as nothing that may follow could mend it."""

    def finish(self) -> tuple[Finding, ...]:
        """Return what is to be said about the whole file, or Refused.  Nothing may be fed afterwards."""

    @property
    def gist(self) -> Gist:
        """What is kept of the file; asked after `finish`."""


class ThoroughCheck(ContentCheck, Protocol):
    """A check that can also tell more than the first reason."""

    def find_all(self) -> tuple[Judged, ...]:
        """Return everything that refuses the whole file, the worst first, then every warning; in place of `finish`."""


def start_check(
    address: Address,
    severities: Mapping[str, Severity],
    *,
    recipient_services: Sequence[str] = (),
    sender_services: Sequence[str] = (),
) -> ThoroughCheck:
    """Return the check for the content of *address*; *severities* are those the operator set otherwise.

    The services are the types that the register has of both offices: names of 3.2 have none, and whether a person
    has anything to do with a recipient depends on what the recipient does (standard, section 9).
    """
    off = frozenset([code for code, severity in severities.items() if severity is Severity.OFF])
    if off >= CONTENT_CODES and address.kind != _MESSAGE:
        return Unjudged()
    version = find_version(address)
    if version is not None:
        check = StandardCheck(
            address, version, recipient_services=recipient_services, sender_services=sender_services, off=off
        )
        return _StandardCheck(check, severities, kind=_extension(address).upper())
    if address.kind == _MESSAGE and _extension(address) == "txt":
        return _MessageCheck(address, severities)
    return _Check(address, severities)


class Unjudged:
    """The check of a file that is not judged yet, or never is: it takes anything and finds nothing."""

    def feed(self, data: bytes) -> None:
        """Take anything."""

    def finish(self) -> tuple[()]:
        """Find nothing."""
        return ()

    def find_all(self) -> tuple[()]:
        """Find nothing."""
        return ()

    @property
    def gist(self) -> Gist:
        """Nothing is known of it."""
        return Gist()


def find_version(address: Address) -> Version | None:
    """Return the edition of the standard in which the records of *address* are; None where it has none."""
    if not address.is_standard:
        return None
    return version_for(address.grammar.value.removeprefix(_STANDARD), _extension(address))


def _extension(address: Address) -> str:
    return address.name.rpartition(".")[2].lower()


class _StandardCheck:
    """The checks of the standard's own records; what they find is told when all of it is there."""

    __slots__ = ("_check", "_head", "_is_empty", "_is_foreign", "_kind", "_severities")

    def __init__(self, check: StandardCheck, severities: Mapping[str, Severity], *, kind: str) -> None:
        self._check = check
        self._kind = kind
        # The first bytes, until there are enough of them to tell another format by.
        self._head: bytes | None = b""
        self._is_foreign = False
        self._severities = severities
        self._is_empty = True

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if self._is_empty:
            self._is_empty = not data or data.isspace()
        if self._head is not None:
            self._head += data
            if len(self._head) < _START_BYTES:
                return
            data = self._begin(self._head)
        if not self._is_foreign:
            self._check.feed(data)

    def _begin(self, head: bytes) -> bytes:
        self._head = None
        # An operator who lets other formats through is told what is wrong with them as records.
        is_told = _weigh("content.not_this_kind", self._severities) is Severity.REFUSE
        self._is_foreign = is_told and head.startswith(_FOREIGN_STARTS)
        return head

    def finish(self) -> tuple[Finding, ...]:
        """Return what is to be said about the whole file."""
        found = self.find_all()
        for judged in found:
            if judged.severity is Severity.REFUSE:
                raise Refused(judged.finding.code, **dict(judged.finding.facts))
        return tuple(judged.finding for judged in found)

    def find_all(self) -> tuple[Judged, ...]:
        """Return everything that refuses the whole file, the worst first, then every warning."""
        found = self._conclude()
        if not found:
            return ()
        judged = [Judged(one, _weigh(one.code, self._severities)) for one in found]
        refusing = [one for one in judged if one.severity is Severity.REFUSE]
        if any(one.finding.code in FORM_CODES for one in refusing):
            # What is said of records then only follows from it.
            return tuple(one for one in refusing if one.finding.code in FORM_CODES)
        if any(one.finding.code in UNREAD_CODES for one in refusing):
            refusing = [one for one in refusing if one.finding.code != self._check.doubtful]
        warning = [one for one in judged if one.severity is Severity.WARN]
        return (*refusing, *warning)[:MOST_FINDINGS]

    def _conclude(self) -> Sequence[Finding]:
        if self._head is not None:
            head = self._begin(self._head)
            if not self._is_foreign:
                self._check.feed(head)
        if self._is_empty:
            return [finding("content.empty")]
        return [finding("content.not_this_kind", kind=self._kind)] if self._is_foreign else self._check.finish()

    @property
    def gist(self) -> Gist:
        """Who is in the file."""
        return Gist(roster=self._check.roster)


class _Check:
    """The checks that every file gets, around the ending of its format."""

    __slots__ = ("_ending", "_extension", "_findings", "_head", "_is_empty", "_severities", "_starts")

    def __init__(self, address: Address, severities: Mapping[str, Severity]) -> None:
        self._severities = severities
        self._extension = _extension(address)
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

    def find_all(self) -> tuple[Judged, ...]:
        """Return the one refusal of the whole file, or every warning."""
        try:
            return tuple(Judged(one, Severity.WARN) for one in self.finish())
        except Refused as refused:
            return (Judged(refused.finding, Severity.REFUSE),)

    @property
    def gist(self) -> Gist:
        """Nothing: of such a file only the bytes are kept."""
        return Gist()

    def _judge_start(self, data: bytes) -> None:
        """Decide by the first bytes whether this can be such a file; a start that is too short for that waits."""
        head = self._head + data
        if self._extension in _TEXT_STARTS:
            head = head.lstrip(_BLANKS)
            if _UTF8_MARK in self._starts and head.startswith(_UTF8_MARK):
                # One of them, or two would be judged by how they arrived.
                head = head.removeprefix(_UTF8_MARK).lstrip(_BLANKS)
                self._starts = tuple(start for start in self._starts if start != _UTF8_MARK)
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
        return _weigh(code, self._severities)

    def _report(self, code: str, **facts: str) -> None:
        severity = self._severity(code)
        if severity is Severity.REFUSE:
            raise Refused(code, **facts)
        if severity is Severity.WARN:
            self._findings.append(finding(code, **facts))


class _MessageCheck(_Check):
    """The check of a unit's message, which also keeps how it begins."""

    __slots__ = ("_beginning",)

    def __init__(self, address: Address, severities: Mapping[str, Severity]) -> None:
        super().__init__(address, severities)
        self._beginning = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if len(self._beginning) < _LINE_BYTES:
            self._beginning = (self._beginning + data[:_LINE_BYTES]).lstrip(_BLANKS)[:_LINE_BYTES]
        super().feed(data)

    @property
    def gist(self) -> Gist:
        """The first line that is not blank."""
        return Gist(first_line=read_first_line(self._beginning))


def read_first_line(beginning: bytes) -> str | None:
    """Return the first line of a text of which this much is known, in UTF-8 or else MS932; None where it is neither."""
    text = beginning.removeprefix(_UTF8_MARK).lstrip(_BLANKS)
    for encoding in ("utf-8", "cp932"):
        try:
            # Not final: the last character may be cut.
            decoded = codecs.getincrementaldecoder(encoding)().decode(text)
        except UnicodeDecodeError:
            continue
        line = decoded.splitlines()[0] if decoded else ""
        shown = "".join(each if each.isprintable() else " " for each in line).strip()
        return None if "\0" in line else shown[:_LINE_CHARACTERS]
    return None


def _weigh(code: str, severities: Mapping[str, Severity]) -> Severity:
    return severities.get(code, TABLE[code].severity)


def _choose_ending(extension: str, address: Address) -> Ending | None:
    if extension in ("jpg", "jpeg"):
        return JpegEnding(is_standard=address.is_standard)
    make = _ENDINGS.get(extension)
    return make() if make else None


_ENDINGS: Mapping[str, Callable[[], Ending]] = {
    "csv": CsvEnding,
    "pdf": PdfEnding,
    "png": PngEnding,
    "zip": ZipEnding,
    "docx": ZipEnding,
    "xlsx": ZipEnding,
    "json": JsonEnding,
    "xml": XmlEnding,
}
