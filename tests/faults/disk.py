"""A disk that loses its power: from a record of changes (`recorder`) what may be left of a folder at any position.

What is certain is what was synced.  Of the bytes of a file that is everything whose write had returned before a sync of
that very file began, once that sync has returned.  Everything else may be there or not, in any order, by sectors of
512 bytes, and the file may be longer than what is there of it.  What a sync that failed should have kept is lost.

Names are certain in one of two ways, and both are tried: *each folder*, where a name is certain once its folder was
synced and everything else is open name by name (what POSIX promises, and no more); or *in order*, where a sync of
anything takes along all earlier changes of names, and of the others the first so many are there (a journal, as
ext4 and XFS have).
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from recorder import Change, Kind

SECTOR_BYTES = 512
_PRIVATE, _FOLDER = 0o600, 0o700
_NAMING = (Kind.CREATE, Kind.RENAME, Kind.LINK, Kind.UNLINK, Kind.MKDIR, Kind.RMDIR)


class Loss(StrEnum):
    """What becomes of changes that were not synced."""

    ALL = "all are lost"
    NONE = "none is lost"
    TORN = "the first so many are there, the next one in part"
    WRITES = "any are there"
    SECTORS = "any sectors of them are there"
    MIXED = "another way for each file"


_OF_ONE_FILE = (Loss.ALL, Loss.NONE, Loss.TORN, Loss.WRITES, Loss.SECTORS)


@dataclass(slots=True)
class File:
    """A file or a folder, whatever names it has: what is certain of it, and the changes that are not."""

    mode: int
    is_folder: bool = False
    certain: bytearray = field(default_factory=bytearray)
    open: list[Change] = field(default_factory=list)

    def sync(self, before: int) -> None:
        """Make certain what had ended before that position."""
        for change in self.open:
            if _has_ended(change, before):
                _carry_out(self.certain, change)
        self.open = [change for change in self.open if not _has_ended(change, before)]

    def forget(self, before: int) -> None:
        """Lose the writes that had ended before that position, after a sync that failed."""
        self.open = [change for change in self.open if change.kind is not Kind.WRITE or not _has_ended(change, before)]

    def leave(self, loss: Loss, chosen: random.Random) -> bytes:
        """Return what a power cut leaves of it."""
        if loss is Loss.MIXED:
            loss = chosen.choice(_OF_ONE_FILE)
        if loss is Loss.ALL or not self.open:
            return bytes(self.certain)
        content = bytearray(self.certain)
        if loss is Loss.TORN:
            last = chosen.randrange(len(self.open))
            for change in self.open[:last]:
                _carry_out(content, change)
            torn = self.open[last]
            _carry_out(content, torn, [(0, chosen.randint(0, len(torn.data)))])
            return bytes(content)
        for change in self.open:
            if loss is Loss.NONE or change.kind is Kind.TRUNCATE or loss is Loss.WRITES:
                if loss is Loss.NONE or chosen.random() < 0.5:
                    _carry_out(content, change)
            else:
                _carry_out(content, change, _some_sectors(change, chosen))
        if loss is not Loss.NONE and chosen.random() < 0.25:
            # The length is there, what it is the length of is not.
            content.extend(bytes(max(0, _length_of(self) - len(content))))
        return bytes(content)


def _has_ended(change: Change, before: int) -> bool:
    return change.ended is not None and change.ended < before


def _carry_out(content: bytearray, change: Change, parts: Iterable[tuple[int, int]] | None = None) -> None:
    """Do to *content* what *change* did, or those parts of what it wrote."""
    if change.kind is Kind.TRUNCATE:
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    for start, end in [(0, len(change.data))] if parts is None else parts:
        at = change.offset + start
        content.extend(bytes(max(0, at - len(content))))
        content[at : at + end - start] = change.data[start:end]


def _some_sectors(change: Change, chosen: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the parts of a write that reached the disk, cut where sectors of the disk are."""
    first, length = -change.offset % SECTOR_BYTES, len(change.data)
    edges = [0, *range(first or SECTOR_BYTES, length, SECTOR_BYTES), length]
    yield from (part for part in pairwise(edges) if chosen.random() < 0.5)


def _length_of(file: File) -> int:
    content = len(file.certain)
    for change in file.open:
        is_cut = change.kind is Kind.TRUNCATE
        content = change.offset if is_cut else max(content, change.offset + len(change.data))
    return content


class Names:
    """Which name leads to which file: what is certain, and the changes that are not."""

    def __init__(self, certain: dict[str, File], *, are_ordered: bool) -> None:
        self.certain = certain
        self.are_ordered = are_ordered
        self.open: list[tuple[Change, File | None]] = []

    def sync(self, folder: str | None, before: int) -> None:
        """Make certain what had ended before that position; *folder* is what was synced, None where it was a file."""
        stays = []
        for change, file in self.open:
            is_reached = self.are_ordered or folder in _folders_of(change)
            if is_reached and _has_ended(change, before):
                _rename(self.certain, change, file)
            else:
                stays.append((change, file))
        self.open = stays

    def leave(self, loss: Loss, chosen: random.Random) -> dict[str, File]:
        """Return which names a power cut leaves."""
        names = dict(self.certain)
        if loss is Loss.ALL:
            return names
        kept = len(self.open)
        if loss is not Loss.NONE and self.are_ordered:
            kept = chosen.randint(0, kept)
        lost: set[str] = set()
        for change, file in self.open[:kept]:
            touched = {change.path, change.target} - {""}
            is_lost = loss is not Loss.NONE and not self.are_ordered and chosen.random() < 0.5
            if is_lost or touched & lost:
                lost |= touched
            else:
                _rename(names, change, file)
        return names


def _folders_of(change: Change) -> set[str]:
    return {os.path.dirname(path) for path in (change.path, change.target) if path}  # noqa: PTH120 - text, for speed


def _rename(names: dict[str, File], change: Change, file: File | None) -> None:
    match change.kind:
        case Kind.RENAME:
            names[change.target] = names.pop(change.path)
        case Kind.LINK:
            names[change.target] = names[change.path]
        case Kind.UNLINK | Kind.RMDIR:
            names.pop(change.path, None)
        case _:
            assert file is not None
            names[change.path] = file


class Disk:
    """The folder *root* as it was when this was made, and what is done to it since; nothing had to be synced before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.syncs = 0
        self._files: dict[int, File] = {}
        names: dict[str, File] = {}
        for path in (root, *root.rglob("*")):
            if path.is_socket():
                continue
            status = path.stat()
            is_folder = path.is_dir()
            file = self._files.setdefault(status.st_ino, File(status.st_mode & 0o777, is_folder))
            if not is_folder:
                file.certain = bytearray(path.read_bytes())
            names[str(path)] = file
        self._names = {are_ordered: Names(dict(names), are_ordered=are_ordered) for are_ordered in (False, True)}
        # Every change as it happened: by these names a file is found, whatever a power cut would leave of them.
        self._current = names

    def copy(self) -> Disk:
        """Return a disk of its own in the same state."""
        return deepcopy(self)

    def begin(self, change: Change) -> None:
        """Take a change that is under way: from now on it may be there or not."""
        if change.kind in (Kind.SYNC, Kind.FORGET):
            return
        if change.kind in _NAMING:
            file = self._make(change) if change.kind in (Kind.CREATE, Kind.MKDIR) else None
            if change.kind is Kind.CREATE and self._current.get(change.path) is file:
                return
            for names in self._names.values():
                names.open.append((change, file))
            _rename(self._current, change, file)
        else:
            self._files[change.inode].open.append(change)

    def _make(self, change: Change) -> File:
        known = self._current.get(change.path)
        if known is not None and self._files.get(change.inode) is known:
            # Two at once opened a file that neither found: one of them made it.
            return known
        is_folder = change.kind is Kind.MKDIR
        file = self._files[change.inode] = File(_FOLDER if is_folder else change.offset or _PRIVATE, is_folder)
        return file

    def end(self, change: Change) -> None:
        """Know that a change has returned; a sync makes certain what it reached, or loses it."""
        if change.kind is Kind.FORGET:
            self._files[change.inode].forget(change.began)
        if change.kind is not Kind.SYNC:
            return
        self.syncs += 1
        file = self._files[change.inode]
        file.sync(change.began)
        folder = next((path for path, each in self._current.items() if each is file), None) if file.is_folder else None
        for names in self._names.values():
            names.sync(folder, change.began)

    def leave(self, target: Path, loss: Loss, chosen: random.Random, *, are_ordered: bool) -> None:
        """Write to *target* what a power cut at this moment leaves."""
        self._write(target, self._names[are_ordered].leave(loss, chosen), loss, chosen)

    def show(self, target: Path) -> None:
        """Write to *target* what a program that reads the disk now finds."""
        self._write(target, self._current, Loss.NONE, random.Random(0))

    def _write(self, target: Path, names: dict[str, File], loss: Loss, chosen: random.Random) -> None:
        written: dict[int, bytes] = {}
        for path in sorted(names):
            file, place = names[path], target / Path(path).relative_to(self.root)
            if file.is_folder:
                place.mkdir(parents=True, exist_ok=True)
            elif place.parent.is_dir():
                content = written.setdefault(id(file), file.leave(loss, chosen))
                place.write_bytes(content)
            else:
                continue
            place.chmod(file.mode)


def play(disk: Disk, changes: list[Change], cuts: Iterable[int]) -> Iterator[int]:
    """Let everything happen to *disk*; yields each of *cuts*, ascending, when all before that position has happened."""
    steps = [(change.began, False, change) for change in changes]
    steps += [(change.ended, True, change) for change in changes if change.ended is not None]
    steps.sort(key=lambda step: step[:2])
    at = 0
    for cut in cuts:
        while at < len(steps) and steps[at][0] < cut:
            _, is_end, change = steps[at]
            (disk.end if is_end else disk.begin)(change)
            at += 1
        yield cut


@contextmanager
def lend_folder() -> Iterator[Path]:
    """Lend a folder for one home, in memory where that can be: what is looked at need not be synced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
