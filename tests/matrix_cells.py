"""The client matrix in tests: its programs, what a test tells of its cell, and the table at the end of the run.

What is told travels with the test's report, so that it reaches the end of the run from whatever worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import matrix
import pytest
from bulk_programs import Curl, Lftp, Rclone, Sshfs
from filezilla import FileZilla
from programs import Asyncssh, Paramiko, Program, Pscp, Psftp, Scp, Sftp, need
from replayed import Rclone163, WinScp

_DRIVEN = (Sftp(), Scp(), Psftp(), Pscp(), WinScp(), FileZilla(), Lftp(), Rclone(), Rclone163(), Curl(), Sshfs(),
           Paramiko(), Asyncssh())  # fmt: skip
PROGRAMS: dict[str, Program] = {program.name: program for program in _DRIVEN}

Test = TypeVar("Test", bound=Callable[..., Any])
_FAILED, _NOT_HERE = "FAILED", "not here"


@dataclass(frozen=True, slots=True)
class Cell:
    """One program with one deed."""

    client: str
    deed: str
    item: pytest.Item

    @property
    def program(self) -> Program:
        """The program."""
        return PROGRAMS[self.client]

    @property
    def number(self) -> int:
        """A number that no other cell has, with room for ten."""
        return 10 * (100 * matrix.CLIENTS.index(self.client) + list(matrix.DEEDS).index(self.deed))

    def tell(self, outcome: str) -> None:
        """Note what was seen; AssertionError where the matrix declares something else."""
        self.item.user_properties.append((matrix.PROPERTY, (self.client, self.deed, outcome)))
        assert outcome == matrix.DECLARED[self.client, self.deed]


def deed(name: str) -> Callable[[Test], Test]:
    """Make a test one of a deed, with every program that can do it; the test asks for the fixture `cell`."""

    def decorate(test: Test) -> Test:
        with_every_program = pytest.mark.parametrize("cell", matrix.doing(name), indirect=True)
        marked: Test = pytest.mark.deed(name)(with_every_program(test))
        return marked

    return decorate


def cell_of(item: pytest.Item) -> Cell:
    """Return the cell that a test is about, noted as tried; skips where its program is not installed."""
    client, (name,) = item.callspec.params["cell"], item.get_closest_marker("deed").args
    item.user_properties.append((matrix.PROPERTY, (client, name, "")))
    need(*PROGRAMS[client].needs)
    return Cell(client, name, item)


def show_matrix(terminal: pytest.TerminalReporter) -> None:
    """Print what the run has seen, if it has seen anything."""
    seen: dict[tuple[str, str], str] = {}
    for reports in terminal.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key != matrix.PROPERTY:
                    continue
                client, deed, outcome = value
                seen[client, deed] = _FAILED if report.failed else _NOT_HERE if report.skipped else outcome
    if seen:
        terminal.section("clients")
        for line in matrix.printed(seen):
            terminal.write_line(line)
