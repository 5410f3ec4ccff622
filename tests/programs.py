"""The programs with which offices reach the relay, behind one face, so that what each can do is a table.

Each says whether it believes to have succeeded, and what its user read.  Which programs there are, what they can do
and what their users read is in `matrix.py`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncssh
import paramiko
import pytest
from house import Caller, Completed, House, run_aside

from relay.model import OfficeNumber


@dataclass(frozen=True, slots=True)
class Said:
    """Whether the program believes that it was done, and everything its user read."""

    is_done: bool
    text: str


class Program(Protocol):
    """A client; remote paths are relative to the root of the office's tree."""

    name: str
    needs: tuple[str, ...]
    part: str
    """Under which name it writes a file of more than 100 KiB, with ``{}`` for the final one."""

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Upload *file* to the remote path *target*."""

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        """Upload what is missing at *target*, or all of it where the program knows no other way."""

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Download the remote path *source* to *file*."""

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Download what is missing in *file*, or all of it where the program knows no other way."""

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        """Download *source* and remove it there."""

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        """List *folder*, without ``.`` and ``..``."""


def said(done: Completed) -> Said:
    """Take a program at its exit status, and read both of its streams."""
    return Said(done.returncode == 0, f"{done.stdout}\n{done.stderr}")


def long_listed(text: str) -> list[str]:
    """Return the names in what `ls -l` or its like printed."""
    # The ninth column; names may hold blanks.
    rows = [re.split(r"\s+", line, maxsplit=8) for line in text.splitlines() if re.match(r"[-d][-r]", line)]
    return without_dots([row[8] for row in rows])


def without_dots(names: list[str]) -> list[str]:
    """Leave out ``.`` and ``..``."""
    return [name for name in names if name not in (".", "..")]


class Cannot:
    """What a program without a way to go on or to remove does."""

    part = "{}"

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return self.put(house, office, file, target)

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return self.fetch(house, office, source, file)

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        raise NotImplementedError

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        raise NotImplementedError


class Sftp(Cannot):
    """OpenSSH's sftp, with a batch."""

    name = "sftp"
    needs: tuple[str, ...] = ("sftp",)

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(house.sftp(office, f'put "{file}" "{target}"'))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(house.sftp(office, f'reput "{file}" "{target}"'))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.sftp(office, f'get "{source}" "{file}"'))

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.sftp(office, f'reget "{source}" "{file}"'))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.sftp(office, f'get "{source}" "{file}"\nrm "{source}"'))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        return long_listed(house.sftp(office, f'ls -la "{folder}"').stdout)


class Scp(Cannot):
    """OpenSSH's scp, which copies and does nothing else."""

    name = "scp"
    needs: tuple[str, ...] = ("scp",)

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(house.scp(office, file, f":{target}"))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.scp(office, f":{source}", file))


class Psftp(Cannot):
    """PuTTY's psftp, with a script."""

    name = "psftp"
    needs: tuple[str, ...] = ("psftp", "puttygen")

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(house.psftp(office, f'put "{file}" "{target}"\n'))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(house.psftp(office, f'reput "{file}" "{target}"\n'))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.psftp(office, f'get "{source}" "{file}"\n'))

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.psftp(office, f'reget "{source}" "{file}"\n'))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.psftp(office, f'get "{source}" "{file}"\nrm "{source}"\n'))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        return long_listed(house.psftp(office, f'ls "{folder}"\n').stdout)


class Pscp(Cannot):
    """PuTTY's pscp, which copies and lists."""

    name = "pscp"
    needs: tuple[str, ...] = ("pscp", "puttygen")

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(house.pscp(office, "-q", file, f":{target}"))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(house.pscp(office, "-q", f":{source}", file))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        return long_listed(house.pscp(office, "-ls", f":{folder}").stdout)


class Paramiko(Cannot):
    """Python's paramiko, with the STAT that it confirms an upload by."""

    name = "paramiko"
    needs: tuple[str, ...] = ()

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return self._act(house, office, lambda sftp: sftp.put(str(file), target))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        def go_on(sftp: paramiko.SFTPClient) -> None:
            there = sftp.stat(target).st_size or 0
            with sftp.open(target, "a") as remote:
                remote.set_pipelined()
                remote.write(file.read_bytes()[there:])

        return self._act(house, office, go_on)

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return self._act(house, office, lambda sftp: sftp.get(source, str(file)))

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        def go_on(sftp: paramiko.SFTPClient) -> None:
            with sftp.open(source, "r") as remote, file.open("ab") as local:
                remote.seek(local.tell())
                local.write(remote.read())

        return self._act(house, office, go_on)

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        def move(sftp: paramiko.SFTPClient) -> None:
            sftp.get(source, str(file))
            sftp.remove(source)

        return self._act(house, office, move)

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        with house.paramiko(office) as sftp:
            return without_dots(sftp.listdir(folder))

    def _act(self, house: House, office: OfficeNumber, act: Callable[[paramiko.SFTPClient], object]) -> Said:
        with house.paramiko(office) as sftp:
            try:
                act(sftp)
            except OSError as error:
                return Said(is_done=False, text=str(error))
        return Said(is_done=True, text="")


class Asyncssh(Cannot):
    """asyncssh's client, with its parallel requests."""

    name = "asyncssh"
    needs: tuple[str, ...] = ()

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return self._act(house, office, lambda caller: caller.sftp.put(str(file), target))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        async def go_on(caller: Caller) -> None:
            there = await caller.sftp.getsize(target)
            async with caller.sftp.open(target, "ab") as remote:
                await remote.write(file.read_bytes()[there:])

        return self._act(house, office, go_on)

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return self._act(house, office, lambda caller: caller.sftp.get(source, str(file)))

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        async def go_on(caller: Caller) -> None:
            async with caller.sftp.open(source, "rb") as remote:
                with file.open("ab") as local:
                    local.write(await remote.read(-1, local.tell()))

        return self._act(house, office, go_on)

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        async def move(caller: Caller) -> None:
            await caller.sftp.get(source, str(file))
            await caller.sftp.remove(source)

        return self._act(house, office, move)

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        async def work() -> list[str]:
            async with house.connect(office) as caller:
                return without_dots([str(name) for name in await caller.sftp.listdir(folder)])

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


def need(*programs: str) -> None:
    """Skip the test, with words, where one of *programs* is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(
                f"{program} is not installed: apt-get install openssh-client putty-tools lftp rclone curl sshfs filezilla"
            )
