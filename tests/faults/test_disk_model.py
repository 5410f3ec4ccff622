"""The disk that loses its power keeps what was synced, and of everything else whatever it likes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from disk import SECTOR_BYTES, Disk, Loss, play
from recorder import Change, Kind

TRIES = 60
OLD, NEW = b"o" * 3 * SECTOR_BYTES, b"n" * 3 * SECTOR_BYTES
AFTER_ALL = 1_000


class Record:
    """A record made by hand: every call returns before the next one begins, and takes two positions."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder / "home", folder / "home" / "file"
        self.folder.mkdir()
        self.file.write_bytes(OLD)
        self.disk, self.changes = Disk(self.folder), list[Change]()

    def add(
        self, kind: Kind, *, inode: int = 0, offset: int = 0, data: bytes = b"", path: str = "", target: str = ""
    ) -> int:
        """Add a call; returns the position at which it ended."""
        began = 2 * len(self.changes)
        whole = [str(self.folder / name) if name else "" for name in (path, target)]
        self.changes.append(Change(kind, began, began + 1, inode or self.file.stat().st_ino, offset, data, *whole))
        return began + 1

    def add_sync_of_folder(self) -> int:
        """Add a sync of the folder itself."""
        return self.add(Kind.SYNC, inode=self.folder.stat().st_ino)

    def left(
        self, at: int = AFTER_ALL, loss: Loss | None = None, *, are_ordered: bool = False
    ) -> set[tuple[tuple[str, bytes], ...]]:
        """Return everything that a cut there was seen to leave: files by name with their bytes."""
        seen = set()
        disk = self.disk.copy()
        for _ in play(disk, self.changes, [at]):
            for number in range(TRIES):
                target = self.folder.with_name(f"left-{number}")
                each = loss or list(Loss)[number % len(Loss)]
                disk.leave(target, each, random.Random(number), are_ordered=are_ordered)
                seen.add(tuple(sorted((path.name, path.read_bytes()) for path in target.iterdir())))
                for path in target.iterdir():
                    path.unlink()
        return seen


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Return an empty record of a folder with one file in it."""
    return Record(tmp_path)


def test_what_was_synced_is_there_in_every_case(record: Record) -> None:
    """After the sync has returned there is one way things can be; before that there are several."""
    record.add(Kind.WRITE, data=NEW)
    synced = record.add(Kind.SYNC)
    assert record.left(synced + 1) == {(("file", NEW),)}
    assert {(("file", OLD),), (("file", NEW),)} < record.left(synced)


def test_a_write_during_a_sync_is_not_certain(record: Record) -> None:
    """What had not returned when the sync began may be lost, although the sync returned later."""
    inode = record.file.stat().st_ino
    record.changes = [Change(Kind.WRITE, 0, 2, inode, 0, NEW), Change(Kind.SYNC, 1, 3, inode, 0, b"")]
    assert record.left(loss=Loss.ALL) == {(("file", OLD),)}


def test_a_write_is_torn_at_any_byte_and_lost_by_any_sector(record: Record) -> None:
    """Its beginning is there, or any of its sectors without those before."""
    record.add(Kind.WRITE, data=NEW)
    torn = {content for ((_, content),) in record.left(loss=Loss.TORN)}
    assert any(content.count(b"n") % SECTOR_BYTES for content in torn)
    assert all(content == b"n" * content.count(b"n") + b"o" * content.count(b"o") for content in torn)
    by_sector = {content[::SECTOR_BYTES] for ((_, content),) in record.left(loss=Loss.SECTORS)}
    assert by_sector == {bytes((a, b, c)) for a in b"on" for b in b"on" for c in b"on"}


def test_later_writes_may_be_there_without_earlier_ones(record: Record) -> None:
    """Order between two syncs is nobody's promise, and a file may be longer than what reached it."""
    record.add(Kind.WRITE, data=b"1")
    record.add(Kind.WRITE, offset=len(OLD), data=b"2")
    contents = {content for ((_, content),) in record.left(loss=Loss.WRITES)}
    assert contents >= {OLD, b"1" + OLD[1:], OLD + b"2", b"1" + OLD[1:] + b"2", OLD + b"\0"}


def test_a_file_is_cut_or_not(record: Record) -> None:
    """A new length that was not synced may be lost, also where what was written behind it is not."""
    record.add(Kind.TRUNCATE)
    record.add(Kind.WRITE, data=b"new")
    contents = {content for ((_, content),) in record.left()}
    assert contents >= {OLD, b"", b"new", b"new" + OLD[3:]}


def test_what_a_sync_that_failed_should_have_kept_is_never_there(record: Record) -> None:
    """The next sync succeeds and brings none of it; what is written anew it brings."""
    record.add(Kind.WRITE, data=NEW)
    record.add(Kind.FORGET, inode=record.file.stat().st_ino)
    synced = record.add(Kind.SYNC)
    assert record.left(synced + 1) == {(("file", OLD),)}
    record.add(Kind.WRITE, data=NEW)
    synced = record.add(Kind.SYNC)
    assert record.left(synced + 1) == {(("file", NEW),)}


@pytest.mark.parametrize("are_ordered", [False, True], ids=["each folder", "in order"])
def test_a_renamed_file_has_its_new_name_once_its_folder_was_synced(record: Record, *, are_ordered: bool) -> None:
    """Before that it has the old one or the new one, and the bytes that were synced in either case."""
    record.add(Kind.CREATE, inode=77, path="draft")
    record.add(Kind.WRITE, inode=77, data=NEW)
    record.add(Kind.SYNC, inode=77)
    renamed = record.add(Kind.RENAME, path="draft", target="file")
    synced = record.add_sync_of_folder()
    assert record.left(synced + 1, are_ordered=are_ordered) == {(("file", NEW),)}
    draft = (("draft", NEW), ("file", OLD))
    # A sync of the file itself takes its first name along where names are kept in order.
    nowhere = set() if are_ordered else {(("file", OLD),)}
    assert record.left(renamed + 1, are_ordered=are_ordered) == {(("file", NEW),), draft, *nowhere}


def test_names_are_lost_one_by_one_or_from_the_end(record: Record) -> None:
    """Of two new names either may be missing where only folders are synced; in a journal never the first one alone."""
    for name, inode in (("a", 71), ("b", 72)):
        record.add(Kind.CREATE, inode=inode, path=name)
    only_b, only_a = (("b", b""), ("file", OLD)), (("a", b""), ("file", OLD))
    assert {only_a, only_b} <= record.left()
    assert only_a in record.left(are_ordered=True)
    assert only_b not in record.left(are_ordered=True)


def test_a_removed_file_may_come_back(record: Record) -> None:
    """As it was synced, until its folder was."""
    removed = record.add(Kind.UNLINK, path="file")
    synced = record.add_sync_of_folder()
    assert record.left(removed + 1) == {(), (("file", OLD),)}
    assert record.left(synced + 1) == {()}
