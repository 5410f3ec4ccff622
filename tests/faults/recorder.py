"""The recorder: every write, sync and change of names that a house's processes make, in one order (``recorder.c``).

A *position* is a place in the record.  Whoever reads it after an answer has come knows that everything that was done
for the answer lies before it; whoever reads it before he asks knows that nothing was.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest
from house import Completed, House, relay_command, run_program

SOURCE = Path(__file__).with_name("recorder.c")
# Sparse: what is not written takes no room.
ROOM_BYTES = 512 * 1024 * 1024
_HEAD = struct.Struct("=IIqqqq")


class Kind(IntEnum):
    """What was done; the names are those of ``recorder.c``."""

    WRITE = 1
    TRUNCATE = 2
    SYNC = 3
    CREATE = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    END = 10
    FORGET = 11


class Deaf(IntFlag):
    """Which syncs are swallowed: answered well, and neither done nor recorded."""

    NOTHING = 0
    FILES = 1
    FOLDERS = 2
    STORE = 4


class Part(IntEnum):
    """The two files of a store."""

    LOG = 1
    STORE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One call that succeeded or had not returned: between *began* and *ended* nobody knows how much of it was done.

    *ended* is None where the record ends before it.  *offset* is where a write begins, or a file's new length.
    """

    kind: Kind
    began: int
    ended: int | None
    inode: int
    offset: int
    data: bytes
    path: str = ""
    target: str = ""


class Recorder:
    """Compiled once a test; `serve` starts a house whose processes are recorded from then on."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler here: nothing can be recorded at the file level")
        self._library, self._file = folder / "recorder.so", folder / "recorder.log"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        with self._file.open("w+b") as file:
            file.truncate(ROOM_BYTES)
            self._memory = mmap.mmap(file.fileno(), ROOM_BYTES)
        self._memory[:32] = struct.pack("=4q", mmap.PAGESIZE, ROOM_BYTES, 0, 0)

    def close(self) -> None:
        """Let go of the record."""
        self._memory.close()
        self._file.unlink()

    @property
    def position(self) -> int:
        """Where the record has come to."""
        return int(struct.unpack_from("=q", self._memory)[0])

    @property
    def gaps(self) -> int:
        """How many changes could not be recorded."""
        return int(struct.unpack_from("=q", self._memory, 16)[0])

    def swallow(self, deaf: Deaf) -> None:
        """Swallow these syncs from now on."""
        self._memory[24:32] = struct.pack("=q", deaf)

    def fail_next_sync(self, part: Part, *, is_last: bool = False) -> None:
        """Let the next sync of this file fail, and what it should have kept count as written: it never will be.

        Whoever has the file open by then is told so once, when he syncs it; who opens it later is told nothing.  With
        *is_last* everybody is killed there.
        """
        self._memory[32:48] = struct.pack("=2q", part, is_last)

    @property
    def has_failed(self) -> bool:
        """True once the sync that was to fail has failed."""
        return not struct.unpack_from("=q", self._memory, 32)[0]

    def _environment(self, house: House) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "RELAY_RECORD": str(self._file),
            "RELAY_RECORD_ROOT": str(house.path.resolve()),
        }

    def serve(self, house: House) -> None:
        """Start *house*, recorded."""
        house.start(wrap=("env", *(f"{name}={value}" for name, value in self._environment(house).items())))

    def relay(self, house: House, *arguments: str) -> Completed:
        """Run the command line on *house*, recorded."""
        return run_program(
            [*relay_command(house.path), *arguments], env={**house.environment, **self._environment(house)}
        )

    def changes(self) -> list[Change]:
        """Return everything that was recorded, in the order in which it began; nobody may be recording any more."""
        assert not self.gaps, f"{self.gaps} changes were made in a way that is not recorded"
        entries = list(self._entries())
        ends = {ended: (place, inode, result) for place, kind, ended, inode, result, _ in entries if kind is Kind.END}
        changes = []
        for place, kind, _, inode, offset, data in entries:
            if kind is Kind.END:
                continue
            ended, made, result = ends.get(place, (None, 0, 0))
            if result < 0:
                continue
            if kind is Kind.WRITE:
                # Of a write that is under way any part may be done; of one that has ended, what it says.
                changes.append(Change(kind, place, ended, inode, offset, data if ended is None else data[:result]))
            else:
                path, _, target = data.decode("utf-8", "surrogateescape").partition("\0")
                changes.append(Change(kind, place, ended, made or inode, offset, b"", path, target))
        return changes

    def _entries(self) -> Iterator[tuple[int, Kind, int, int, int, bytes]]:
        place, end = mmap.PAGESIZE, self.position
        while place < end:
            size, kind, ended, inode, offset, length = _HEAD.unpack_from(self._memory, place)
            assert size, f"the entry at {place} was never begun"
            # Who was killed before it was finished had not yet begun what it would have told of, or not yet told of its end.
            if kind:
                start = place + _HEAD.size
                yield place, Kind(kind), ended, inode, offset, bytes(self._memory[start : start + length])
            place += size
