"""The programs with which offices reach the relay, behind one face: put a file, fetch it, list a folder.

Each says whether it believes to have succeeded, and what its user read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncssh
import pytest
from house import Caller, Completed, House, run_aside

from relay.model import OfficeNumber


@dataclass(frozen=True, slots=True)
class Said:
    """Whether the program believes that it was done, and everything its user read."""

    is_done: bool
    text: str


class Program(Protocol):
    """A client."""

    name: str
    needs: tuple[str, ...]

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Upload *file* to the remote path *target*."""

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Download the remote path *source* to *file*."""

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        """List *folder*, without ``.`` and ``..``."""


def _said(done: Completed) -> Said:
    return Said(done.returncode == 0, done.stdout + done.stderr)


def _listed(lines: list[str]) -> list[str]:
    # The ninth column of `ls -l`; names may hold blanks.
    rows = [re.split(r"\s+", line, maxsplit=8) for line in lines if re.match(r"[-d][-r]", line)]
    return [row[8] for row in rows if row[8] not in (".", "..")]


class Sftp:
    """OpenSSH's sftp."""

    name = "sftp"
    needs: tuple[str, ...] = ("sftp",)

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Put with a batch."""
        return _said(house.sftp(office, f'put "{file}" "{target}"'))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Get with a batch."""
        return _said(house.sftp(office, f'get "{source}" "{file}"'))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        """List with a batch."""
        return _listed(house.sftp(office, f'ls -la "{folder}"').stdout.splitlines())


class Scp(Sftp):
    """OpenSSH's scp, which lists nothing: sftp does that."""

    name = "scp"
    needs: tuple[str, ...] = ("scp", "sftp")

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Copy there."""
        return _said(house.scp(office, file, f":{target}"))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Copy here."""
        return _said(house.scp(office, f":{source}", file))


class Psftp:
    """PuTTY's psftp."""

    name = "psftp"
    needs: tuple[str, ...] = ("psftp", "puttygen")

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Put with a script."""
        return _said(house.psftp(office, f'put "{file}" "{target}"\n'))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Get with a script."""
        return _said(house.psftp(office, f'get "{source}" "{file}"\n'))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        """List with a script."""
        return _listed(house.psftp(office, f'ls "{folder}"\n').stdout.splitlines())


class Paramiko:
    """Python's paramiko."""

    name = "paramiko"
    needs: tuple[str, ...] = ()

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Put, with the STAT that it confirms by."""
        with house.paramiko(office) as sftp:
            try:
                sftp.put(str(file), target)
            except OSError as error:
                return Said(is_done=False, text=str(error))
        return Said(is_done=True, text="")

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Get, with prefetching."""
        with house.paramiko(office) as sftp:
            try:
                sftp.get(source, str(file))
            except OSError as error:
                return Said(is_done=False, text=str(error))
        return Said(is_done=True, text="")

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        """List."""
        with house.paramiko(office) as sftp:
            return list(sftp.listdir(folder))


class Asyncssh:
    """asyncssh's client, with its parallel requests."""

    name = "asyncssh"
    needs: tuple[str, ...] = ()

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Put."""
        return self._act(house, office, lambda caller: caller.sftp.put(str(file), target))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Get."""
        return self._act(house, office, lambda caller: caller.sftp.get(source, str(file)))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        """List."""

        async def work() -> list[str]:
            async with house.connect(office) as caller:
                return [str(name) for name in await caller.sftp.listdir(folder) if name not in (".", "..")]

        return run_aside(work())

    def _act(self, house: House, office: OfficeNumber, act: Callable[[Caller], Awaitable[None]]) -> Said:
        async def work() -> Said:
            async with house.connect(office) as caller:
                try:
                    await act(caller)
                except asyncssh.SFTPError as error:
                    return Said(is_done=False, text=error.reason)
            return Said(is_done=True, text="")

        return run_aside(work())


PROGRAMS: tuple[Program, ...] = (Sftp(), Scp(), Psftp(), Paramiko(), Asyncssh())

with_every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


def need(*programs: str) -> None:
    """Skip the test, with words, where one of *programs* is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(
                f"{program} is not installed: apt-get install openssh-client putty-tools lftp rclone curl sshfs"
            )
