"""The programs of offices as processes that a test can interrupt: one upload, one rename or one download each.

Run as a script it is paramiko or asyncssh, so that these too can be interrupted, stopped and killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
from bulk_programs import curl_command, lftp_command, rclone_command, sshfs_command
from house import HOST, PATIENCE_SECONDS, House, wait_for

from relay.model import OfficeNumber

Act = Literal["put", "rename", "get"]
# lftp would try a lost connection again for minutes.
_LFTP = ("net:timeout 10", "net:reconnect-interval-base 1", "cmd:move-background no")
_LISTENING_AGAIN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Errand:
    """What a program is to do as *office*: put *file* at *path*, get it from there, or rename *path* to *target*."""

    act: Act
    office: OfficeNumber
    path: str
    file: Path
    target: str = ""

    @property
    def sftp_line(self) -> str:
        """The errand in the words that OpenSSH's sftp, psftp and lftp have in common."""
        if self.act == "rename":
            return f'{{rename}} "{self.path}" "{self.target}"'
        here, there = f'"{self.file}"', f'"{self.path}"'
        return f"put {here} {there}" if self.act == "put" else f"get {there} {here}"


@dataclass(slots=True)
class Running:
    """A program at work: *user* is what its user looks at, *wire* what holds the connection; nearly always the same."""

    user: subprocess.Popen[bytes]
    wire: subprocess.Popen[bytes]
    log: Path
    port: int

    @property
    def text(self) -> str:
        """What the user has read so far."""
        return self.log.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        """True once the user has his prompt again."""
        return self.user.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to the program and to all that it has started; Ctrl-C as a terminal does, to what is in front."""
        if number is signal.SIGINT:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.user.pid, number)
        else:
            _signal_family(self.wire, number, self.port)

    def wait(self) -> int:
        """Return its exit code; a program that goes on waiting for the network is ended by its user."""
        try:
            return self.user.wait(_LISTENING_AGAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.end()
            return self.user.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Leave nothing behind."""
        for process in (self.wire, self.user):
            _signal_family(process, signal.SIGKILL, self.port)


def _signal_family(process: subprocess.Popen[bytes], number: signal.Signals, port: int) -> None:
    """Send *number* to *process*, to its children, and to every ssh that it has called to *port*.

    Their process group is not enough: lftp gives its ssh a group of its own, and that of sshfs is nobody's child.
    """
    members = [each for each in psutil.process_iter(["name", "cmdline"]) if _is_ssh_to(each, port)]
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        members += [parent, *parent.children(recursive=True)]
    for member in set(members):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(number)


def _is_ssh_to(process: psutil.Process, port: int) -> bool:
    words = process.info["cmdline"] or []
    return process.info["name"] == "ssh" and any(str(port) in word for word in words)


@dataclass(frozen=True, slots=True)
class Client:
    """A program: *command* says how it is called; *cannot* says why it does not run some errands.

    *unanswered* are the moments at which it may tell its user that all is well without an answer to its CLOSE.
    *reads_ahead* where an interruption makes it close a file of which it has read all, though its user got less: to the
    relay that is a file that was read, and it stays in ``receive/``.
    """

    name: str
    command: Callable[[House, Errand], tuple[list[str], dict[str, str]]]
    needs: tuple[str, ...] = ()
    cannot: dict[Act, str] = field(default_factory=dict)
    unanswered: frozenset[str] = frozenset()
    reads_ahead: bool = False

    @contextmanager
    def run(self, house: House, errand: Errand, folder: Path) -> Iterator[Running]:
        """Start it; whatever still runs at the end of the block is ended."""
        words, environment = self.command(house, errand)
        log = folder / "said.txt"
        running = Running(*[_start(words, environment, log)] * 2, log, house.port)
        try:
            yield running
        finally:
            running.end()
            running.user.wait(PATIENCE_SECONDS)


def _start(words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as said:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
            start_new_session=True,
        )


def _sftp(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
    batch = errand.file.with_suffix(".batch")
    batch.write_text(errand.sftp_line.format(rename="rename") + "\n")
    return house.sftp_command(errand.office, "-b", str(batch)), {}


def _scp(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
    return ["scp", *house.openssh_options(errand.office), f"-P{house.port}", *_places(errand)], {}


def _places(errand: Errand) -> list[str]:
    places = [str(errand.file), f"{errand.office}@{HOST}:{errand.path}"]
    return places if errand.act == "put" else places[::-1]


def _psftp(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
    batch = errand.file.with_suffix(".batch")
    batch.write_text(errand.sftp_line.format(rename="mv") + "\n")
    words = ["psftp", *house.putty_options(errand.office), "-b", str(batch), f"{errand.office}@{HOST}"]
    return words, {"HOME": str(house.path)}


def _pscp(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
    words = ["pscp", "-sftp", *house.putty_options(errand.office), *_places(errand)]
    return words, {"HOME": str(house.path)}


def _lftp(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
    line = errand.sftp_line.format(rename="mv")
    if errand.act != "rename":
        line = line.replace('" "', '" -o "')
    command = lftp_command(house, line, errand.office, *_LFTP)
    return command.words, command.environment


def _rclone(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
    there = f"relay:{errand.path}"
    words = {
        "put": ["copyto", str(errand.file), there],
        "get": ["copyto", there, str(errand.file)],
        "rename": ["moveto", there, f"relay:{errand.target}"],
    }[errand.act]
    command = rclone_command(house, *words, office=errand.office)
    return command.words, command.environment


def _curl(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
    if errand.act == "rename":
        # curl renames only on the way to something else.
        words = ["--quote", f"rename /{errand.path} /{errand.target}", "--output", "/dev/null"]
        command = curl_command(house, *words, path="README.txt", office=errand.office)
    else:
        way = "--upload-file" if errand.act == "put" else "--output"
        command = curl_command(house, way, str(errand.file), path=errand.path, office=errand.office)
    return command.words, command.environment


def _library(name: str) -> Callable[[House, Errand], tuple[list[str], dict[str, str]]]:
    def command(house: House, errand: Errand) -> tuple[list[str], dict[str, str]]:
        words = [
            str(house.path),
            str(house.port),
            errand.act,
            errand.office,
            errand.path,
            str(errand.file),
            errand.target,
        ]
        return [sys.executable, __file__, name, *words], {"PYTHONPATH": str(Path(__file__).parent)}

    return command


@dataclass(frozen=True, slots=True)
class Sshfs(Client):
    """cp and mv in a folder that sshfs shows; Ctrl-C reaches these, everything else sshfs."""

    @contextmanager
    def run(self, house: House, errand: Errand, folder: Path) -> Iterator[Running]:
        """Mount, copy or move, unmount."""
        shown, log = folder / "shown", folder / "said.txt"
        shown.mkdir()
        wire = _start([*sshfs_command(house, shown, errand.office), "-f"], {}, log)
        user: subprocess.Popen[bytes] | None = None
        try:
            wait_for(lambda: shown.is_mount() or wire.poll() is not None, "the mounted relay")
            assert wire.poll() is None, f"FUSE does not work here: {log.read_text()}"
            user = _start(self._words(shown, errand), {}, log)
            yield Running(user, wire, log, house.port)
        finally:
            if user is not None:
                Running(user, wire, log, house.port).end()
            subprocess.run(["fusermount", "-u", "-z", str(shown)], check=False, capture_output=True)
            wire.wait(PATIENCE_SECONDS)
            if user is not None:
                user.wait(PATIENCE_SECONDS)

    @staticmethod
    def _words(shown: Path, errand: Errand) -> list[str]:
        here, there = str(errand.file), str(shown / errand.path)
        return {
            "put": ["cp", here, there],
            "get": ["cp", there, here],
            "rename": ["mv", there, str(shown / errand.target)],
        }[errand.act]


_NO_RENAME: dict[Act, str] = {"rename": "it only copies: it has no command to rename"}
CLIENTS: tuple[Client, ...] = (
    Client("sftp", _sftp, ("sftp",)),
    Client("scp", _scp, ("scp",), _NO_RENAME),
    Client("psftp", _psftp, ("psftp", "puttygen")),
    Client("pscp", _pscp, ("pscp", "puttygen"), _NO_RENAME),
    # Their download goes on in the background until the file is closed, which an interruption does.
    Client("paramiko", _library("paramiko"), reads_ahead=True),
    # Its close() does nothing, and says nothing, where the connection has gone since the last WRITE was answered.
    Client("asyncssh", _library("asyncssh"), reads_ahead=True, unanswered=frozenset({"mid_upload"})),
    Client("lftp", _lftp, ("lftp",)),
    Client("rclone", _rclone, ("rclone",)),
    Client("curl", _curl, ("curl",)),
    Sshfs(
        "sshfs",
        lambda *_: ([], {}),
        ("sshfs", "fusermount"),
        reads_ahead=True,
        unanswered=frozenset({"mid_upload", "at_close"}),
    ),
)


# --- the libraries, each as a program of its own -----------------------------------------------------------------


def _run_paramiko(house: House, errand: Errand) -> None:
    with house.paramiko(errand.office) as sftp:
        if errand.act == "put":
            sftp.put(str(errand.file), errand.path)
        elif errand.act == "get":
            sftp.get(errand.path, str(errand.file))
        else:
            sftp.rename(errand.path, errand.target)


async def _run_asyncssh(house: House, errand: Errand) -> None:
    async with house.connect(errand.office) as caller:
        if errand.act == "put":
            await caller.sftp.put(str(errand.file), errand.path)
        elif errand.act == "get":
            await caller.sftp.get(errand.path, str(errand.file))
        else:
            await caller.sftp.rename(errand.path, errand.target)


def _main(name: str, home: str, port: str, act: Act, office: str, path: str, file: str, target: str) -> None:
    house = House(Path(home), port=int(port))
    errand = Errand(act, OfficeNumber(office), path, Path(file), target)
    if name == "paramiko":
        _run_paramiko(house, errand)
    else:
        asyncio.run(_run_asyncssh(house, errand))


if __name__ == "__main__":
    _main(*sys.argv[1:])  # type: ignore[arg-type]
