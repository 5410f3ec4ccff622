"""The tree an office sees: from a client's path to a place, from a fact to a directory entry.

The tree is virtual: a path is compared with the few places that there are and never reaches a file system, so there
is nothing to traverse and nothing to escape from.  Whose tree it is does not appear in any path; the identity of the
connection decides that, and no path can change it.

Pure: no store, no clock.  `resolve_path` returns a place for every path that can be one, registered or not, or
raises Refused ``name.illegal``.
"""

from __future__ import annotations

import re
import time
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from relay.model import Office, OfficeNumber, fold_name
from relay.standard.offices import parse_office_number
from relay.standard.reasons import Why, illegal
from relay.temporary import strip_temporary

README = "README.txt"
# Shown when the operator has news.
NEWS = "お知らせ.txt"
# Shown in the root while a certificate's end is near.
ENDING = "証明書の期限.txt"
# What the relay puts into certificate/ besides certificates.
GUIDE = "更新のしかた.txt"
KNOWN_HOSTS = "known_hosts"
CERTIFICATE_SUFFIX = "-cert.pub"
_NOTICE = "宛先 "
_NOTE = ".refused.txt"
# As long as a name may be (`relay.naming`).
_NAME_BYTES_MOST = 255
# Characters that turn or break a line.  Not all that does not print: a full-width blank stands in many a name.
_NOT_SHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
PATH_BYTES_MOST = 4096
# Longer paths are understood anew each time: what is remembered of paths, all offices' together, stays below 8 MiB.
_CACHED_BYTES = 256

# What `ls -l` shows; nobody but the office itself ever sees any of it.
DIRECTORY_MODE = 0o040750
INBOX_MODE = 0o040770
FILE_MODE = 0o100440
_JAPAN_SECONDS = 9 * 3600
# Older entries show their year instead of the hour, as ls does.
_HALF_YEAR_SECONDS = 182 * 86400


class Folder(StrEnum):
    """The directories that are simply there."""

    ROOT = ""
    SEND = "send"
    RECALL = "recall"
    RECEIVE = "receive"
    NEW = "new"
    DONE = "done"
    STATUS = "status"
    RECEIPTS = "receipts"
    CERTIFICATE = "certificate"


_FOLDERS = {folder.value: folder for folder in Folder}
_IN_CERTIFICATE = frozenset({fold_name(GUIDE), fold_name(KNOWN_HOSTS)})
SHELVES = frozenset({Folder.RECEIVE, Folder.NEW, Folder.DONE})
# Where everything is written by the relay, and nothing is taken.
_WRITTEN = frozenset({Folder.STATUS, Folder.RECEIPTS})
# Those of them that have a folder for each month.
_MONTHLY = frozenset({Folder.STATUS, Folder.RECEIPTS})
_MONTH = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class Place:
    """A path that was understood; *path* is absolute and normalised.

    *lane* names the thing behind the path: two requests with one lane are answered in the order they came, whatever
    paths they used (a file in ``new/`` is the same thing as in ``receive/``, and one in an address folder may be the
    same as at the top of ``send/``).
    """

    path: str
    lane: str


@dataclass(frozen=True, slots=True)
class Directory(Place):
    """One of the fixed directories, ``send/<address>/``, or a *month* (``2026-11``) of one that has such folders."""

    folder: Folder
    address: OfficeNumber | None = None
    month: str | None = None


@dataclass(frozen=True, slots=True)
class SentFile(Place):
    """A file at the top of ``send/`` or in an address folder; it may or may not exist."""

    name: str
    address: OfficeNumber | None = None

    @property
    def key(self) -> str:
        """The name in its folder, with case folded: two with one key are the same file."""
        return f"{self.address or ''}/{fold_name(self.name)}"

    @property
    def upload_path(self) -> str:
        """The path below ``send/``."""
        return self.path.removeprefix("/send/")


@dataclass(frozen=True, slots=True)
class ShelfFile(Place):
    """A file in ``receive/``, ``new/`` or ``done/``; it may or may not exist."""

    shelf: Folder
    name: str


@dataclass(frozen=True, slots=True)
class RecalledFile(Place):
    """A file in ``recall/``: what was taken back, or where something is being moved to that shall be."""

    name: str


@dataclass(frozen=True, slots=True)
class GeneratedFile(Place):
    """A file that the relay writes itself when it is read.

    *name* is ``README.txt``, a name in ``status/``, ``receipts/`` or ``certificate/``, or in one of their folders of a
    *month*, the note beside a refused file, or the notice in the address folder *address*, which tells whose folder it
    is.  It need not be there: such names are the relay's alone.
    """

    folder: Folder
    name: str
    address: OfficeNumber | None = None
    month: str | None = None


@dataclass(frozen=True, slots=True)
class KeyFile(Place):
    """A file in ``certificate/`` that is none of the relay's: a public key, or something that is taken for one."""

    name: str

    @property
    def key(self) -> str:
        """What names it among what a session remembers."""
        return self.path


@dataclass(frozen=True, slots=True)
class Nowhere(Place):
    """A path that can hold nothing."""


def normalise_path(raw: bytes) -> str:
    """Return *raw* as an absolute path: NFC, ``.``, ``..`` and repeated slashes gone.

    Pure text: nothing need exist (psftp and FileZilla ask for names that are yet to come).  Refused
    ``name.illegal`` where it is no UTF-8, holds a NUL or is longer than `PATH_BYTES_MOST`.
    """
    if len(raw) > PATH_BYTES_MOST:
        raise illegal(Why("パスが長すぎます", "the path is too long"))
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise illegal(Why("送信に使ったソフトの文字コードの設定が UTF-8 ではありません", "it is not UTF-8")) from None
    if "\0" in text:
        raise illegal(Why("NUL 文字があります", "it holds a NUL"))
    parts: list[str] = []
    for part in unicodedata.normalize("NFC", text).split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def describe_path(raw: bytes) -> str:
    """Return the last part of a path that `resolve_path` refuses, for a person to recognise it: what is no UTF-8 is
    escaped, and what is too long cut.
    """
    name = raw.rpartition(b"/")[2].decode(errors="backslashreplace")
    return name if len(name) <= _NAME_BYTES_MOST else name[:_NAME_BYTES_MOST] + "…"


def resolve_path(raw: bytes) -> Place:
    """Return the place that *raw* means; Refused as `normalise_path`."""
    return _resolve_short(raw) if len(raw) <= _CACHED_BYTES else _resolve(raw)


@lru_cache(maxsize=2048)
def _resolve_short(raw: bytes) -> Place:
    return _resolve(raw)


def _resolve(raw: bytes) -> Place:
    path = normalise_path(raw)
    first, *rest = path[1:].split("/")
    if not rest:
        return _top(path, first)
    if first == Folder.SEND:
        return _in_send(path, rest)
    if len(rest) == 1 and first in SHELVES:
        return ShelfFile(path, f"shelves/{fold_name(rest[0])}", Folder(first), rest[0])
    if len(rest) == 1 and first == Folder.RECALL:
        return RecalledFile(path, f"recall/{fold_name(rest[0])}", rest[0])
    if first in _WRITTEN:
        return _in_written(path, Folder(first), rest)
    return _in_certificate(path, rest[0]) if len(rest) == 1 and first == Folder.CERTIFICATE else Nowhere(path, path[1:])


def _in_certificate(path: str, name: str) -> Place:
    plain = fold_name(strip_temporary(name) or name)
    lane = f"certificate/{plain}"
    if plain.endswith(CERTIFICATE_SUFFIX) or plain in _IN_CERTIFICATE:
        return GeneratedFile(path, lane, Folder.CERTIFICATE, name)
    return KeyFile(path, lane, name)


def _top(path: str, name: str) -> Place:
    if (strip_temporary(name) or name) in (README, NEWS, ENDING):
        return GeneratedFile(path, name, Folder.ROOT, name)
    folder = _FOLDERS.get(name)
    if folder is not None:
        return Directory(path, "shelves" if folder in SHELVES else name, folder)
    return Nowhere(path, name)


def _in_send(path: str, rest: list[str]) -> Place:
    address = parse_office_number(rest[0])
    if address is None:
        return _named(path, rest[0], None) if len(rest) == 1 else Nowhere(path, path[1:])
    if len(rest) == 1:
        return Directory(f"/send/{address}", f"send/{address}", Folder.SEND, address)
    if len(rest) > 2:  # noqa: PLR2004 - send/<address>/<name>
        return Nowhere(path, path[1:])
    return _named(f"/send/{address}/{rest[1]}", rest[1], address)


def _in_written(path: str, folder: Folder, rest: list[str]) -> Place:
    is_month = folder in _MONTHLY and _MONTH.fullmatch(rest[0]) is not None
    if len(rest) == 1:
        if is_month:
            return Directory(path, path[1:], folder, month=rest[0])
        return GeneratedFile(path, path[1:], folder, rest[0])
    if is_month and len(rest) == 2:  # noqa: PLR2004 - receipts/<month>/<name>
        return GeneratedFile(path, path[1:], folder, rest[1], month=rest[0])
    return Nowhere(path, path[1:])


def _named(path: str, name: str, address: OfficeNumber | None) -> Place:
    if address is not None and name.startswith(_NOTICE) and name.endswith(".txt"):
        return GeneratedFile(path, f"send/{address}/notice", Folder.SEND, name, address)
    lane = f"send/{fold_name(name)}"
    if is_generated_name(name):
        return GeneratedFile(path, lane, Folder.SEND, name, address)
    return SentFile(path, lane, name, address)


def is_generated_name(name: str) -> bool:
    """True for a name in ``send/`` that only the relay gives, also while a client uploads it under a temporary one."""
    plain = fold_name(strip_temporary(name) or name)
    if plain in (fold_name(README), fold_name(NEWS)):
        return True
    return plain.endswith(_NOTE) or (plain.startswith(_NOTICE) and plain.endswith(".txt"))


def is_swallowed(place: GeneratedFile) -> bool:
    """True where an upload to *place* is taken and kept nowhere: two-way synchronisers send the relay's files back."""
    return place.folder not in _WRITTEN


def note_name(name: str) -> str | None:
    """Return the name of the note beside a refused file; None where there can be none."""
    note = name + _NOTE
    is_shown = "/" not in name and (name.isprintable() or not any(map(_is_not_shown, name)))
    return note if is_shown and len(note.encode()) <= _NAME_BYTES_MOST else None


def _is_not_shown(character: str) -> bool:
    return unicodedata.category(character) in _NOT_SHOWN


def noted_name(note: str) -> str | None:
    """Return the name of the file that a note of that name tells of, None where it is no note's."""
    return note[: -len(_NOTE)] or None if fold_name(note).endswith(_NOTE) else None


def notice_name(office: Office) -> str:
    """Return the name of the file in an address folder that tells whose folder it is."""
    shown = "".join(
        "＿" if character in '<>:"/\\|?*' or not character.isprintable() else character for character in office.name
    )
    return f"{_NOTICE}{shown}.txt"


def long_name(name: str, *, mode: int, size: int, mtime: int, owner: str, group: str, now: float) -> str:
    """Return the line of ``ls -l``: what OpenSSH, WinSCP and PuTTY show; times are Japan's."""
    return f"{_head(mode, owner, group)} {size:>10} {_when(mtime // 60, now)} {name}"


class FileLines:
    """Writes `long_name` for many files, each part that they have in common once; made for one page of a listing."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._heads: dict[tuple[str, str], bytes] = {}
        self._whens: dict[int, bytes] = {}

    def line(self, name: bytes, *, size: int, mtime: int, owner: str, group: str) -> bytes:
        """Return the line of a file with `FILE_MODE`, in UTF-8 as *name* is."""
        head, when = self._heads.get((owner, group)), self._whens.get(mtime // 60)
        if head is None:
            head = self._heads[owner, group] = _head(FILE_MODE, owner, group).encode()
        if when is None:
            when = self._whens[mtime // 60] = _when(mtime // 60, self._now).encode()
        return b"%b %10d %b %b" % (head, size, when, name)


def _head(mode: int, owner: str, group: str) -> str:
    kind = "d" if mode & 0o040000 else "-"
    return f"{kind}{_permissions(mode & 0o777)}    1 {owner:<10} {group:<10}"


@lru_cache(maxsize=64)
def _permissions(mode: int) -> str:
    return "".join(letter if mode >> 8 - bit & 1 else "-" for bit, letter in enumerate("rwxrwxrwx"))


def _when(minute: int, now: float) -> str:
    is_recent = 0 <= now - minute * 60 + 60 < _HALF_YEAR_SECONDS
    return _recent(minute) if is_recent else _old(minute)


@lru_cache(maxsize=1024)
def _recent(minute: int) -> str:
    return time.strftime("%b %e %H:%M", time.gmtime(minute * 60 + _JAPAN_SECONDS))


@lru_cache(maxsize=1024)
def _old(minute: int) -> str:
    return time.strftime("%b %e  %Y", time.gmtime(minute * 60 + _JAPAN_SECONDS))
