"""Somebody at the keyboard of a program: it runs at a terminal of its own, and is waited for by what it shows."""

from __future__ import annotations

import os
import pty
import select
import signal
from pathlib import Path
from typing import Self

from house import PATIENCE_SECONDS


class Terminal:
    """A program at a terminal of its own, so that what it asks and Ctrl-C come to and from the keyboard."""

    def __init__(self, command: list[str], *, cwd: Path | None = None, **environment: str) -> None:
        self._shown = ""
        self._read_so_far = 0
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            plain = {"LC_ALL": "C.UTF-8", "TERM": "dumb", "COLUMNS": "200"}
            os.chdir(cwd or Path.cwd())
            os.execvpe(command[0], command, {**os.environ, **plain, **environment})

    def __enter__(self) -> Self:
        """Keep it for a block; it is gone afterwards."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, expected: str) -> None:
        """Wait until *expected* is shown, behind what was waited for before."""
        while (found := self._shown.find(expected, self._read_so_far)) < 0:
            piece = self._read()
            assert piece, f"{expected!r} never came: {self._shown}"
            self._shown += piece
        self._read_so_far = found + len(expected)

    def read_to_end(self) -> str:
        """Wait until the program has ended; return everything it has shown."""
        while piece := self._read():
            self._shown += piece
        return self._shown

    def _read(self) -> str:
        ready, _, _ = select.select([self._master], [], [], PATIENCE_SECONDS)
        assert ready, f"nothing more was shown: {self._shown}"
        try:
            # A character that is cut in two is shown as a mark; nothing waits for such a one.
            return os.read(self._master, 65_536).decode(errors="replace")
        except OSError:
            return ""  # Linux's way of telling that the program has gone
