"""The shim that lets the Nth call on the store's files, or to the random source, end badly, and how a test arms it."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import pytest
from house import House

MakeHouse = Callable[..., House]
SOURCE = Path(__file__).with_name("shim.c")


_RANDOM = 2


class Ending(IntEnum):
    """How the Nth call ends, or that it does not; the names are those of ``shim.c``."""

    KILL_BEFORE = 1
    KILL_HALFWAY = 2
    KILL_AFTER = 3
    FAIL_ONCE = 4
    FAIL_FROM_THERE = 5
    HOLD = 6
    SHORT = 7


class Shim:
    """Compiled once a test; `serve` starts a house with it, `arm` sets the trap in the running server."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler here: faults at the file level cannot be made")
        self._library, self._control = folder / "shim.so", folder / "shim.control"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        self._control.write_bytes(bytes(mmap.PAGESIZE))
        with self._control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def serve(self, house: House) -> None:
        """Start *house* with the shim loaded, disarmed."""
        self.disarm()
        house.start(wrap=("env", f"LD_PRELOAD={self._library}", f"RELAY_SHIM={self._control}"))

    def arm(self, at: int, how: Ending, code: int = 0, *, is_wide: bool = False) -> None:
        """Let the call *at*, counted from now, end so; 0 only counts.

        With *is_wide* reading, opening and mapping count as well, and the files beside the store.
        """
        self._memory[:40] = struct.pack("=5q", 0, at, how, code, is_wide)

    def arm_random(self, at: int, how: Ending, code: int) -> None:
        """Let what is drawn from the random source fail so; nothing else counts."""
        self._memory[:40] = struct.pack("=5q", 0, at, how, code, _RANDOM)

    def is_holding(self) -> bool:
        """True while the call that was to be held has come, and waits for `disarm`."""
        calls, at, how = struct.unpack_from("=3q", self._memory)
        return how == Ending.HOLD and at <= calls

    def disarm(self) -> int:
        """Let everything pass; return how many calls there were since `arm`."""
        (calls,) = struct.unpack_from("=q", self._memory)
        self._memory[:40] = bytes(40)
        return int(calls)

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Count the calls inside; the list holds their number afterwards."""
        counted: list[int] = []
        self.arm(0, Ending.FAIL_ONCE)
        yield counted
        counted.append(self.disarm())
