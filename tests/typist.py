"""Types commands of `relay` at terminals of 80 columns: one process that has everything imported, forked for each.

Run as a program it reads a line of JSON for each command (``argv``, ``answer``, ``place``) and writes one
(``code``, ``shown``): what a person at that terminal would have seen, without colours.  Only chance is taken away: the
numbers of certificates come one after the other, so that what is shown can be kept and compared.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import pkgutil
import pty
import re
import secrets
import select
import signal
import struct
import subprocess
import sys
import termios
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COLUMNS, LINES = 80, 40
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Longer than any command thinks before it shows something.
_PATIENCE_SECONDS = 10.0
_FIRST_SERIAL = 4_000_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Shown:
    """What came of a command: its exit code, and the screen."""

    code: int
    screen: str


class Typist:
    """The program that types, at work in *place*."""

    def __init__(self, process: subprocess.Popen[str], place: Path) -> None:
        self._process = process
        self._place = place

    def type(self, *argv: str, answer: str = "") -> Shown:
        """Type a command, and *answer* when it asks; return what is shown until it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"argv": argv, "answer": answer, "place": str(self._place)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Shown(told["code"], told["shown"])


@contextmanager
def typing(place: Path) -> Iterator[Typist]:
    """Sit down at a relay's home for a block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "COLUMNS", "LINES"))}
    environment = {**kept, "RELAY_HOME": str(place), "TZ": "Asia/Tokyo", "TERM": "xterm", "NO_COLOR": "1"}
    environment |= {"LC_ALL": "C.UTF-8", "LOGNAME": "operator", "PYTHONWARNINGS": "error"}
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        yield Typist(process, place)
        assert process.stdin is not None
        process.stdin.close()


def _type(argv: list[str], answer: str, place: str) -> dict[str, object]:
    pid, ours = pty.fork()
    if pid == 0:
        os._exit(_run(argv, place))
    os.write(ours, answer.encode())
    shown = b""
    while True:
        if not select.select([ours], [], [], _PATIENCE_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
            shown += b"(and nothing more came)"
        try:
            shown += os.read(ours, 65_536)
        except OSError:  # Linux says EIO where the other side is gone
            break
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    text = _CODES.sub("", shown.decode()).replace("\r\n", "\n")
    return {"code": os.waitstatus_to_exitcode(status), "shown": text}


def _run(argv: list[str], place: str) -> int:
    """Be the command, in the fork."""
    # The same for the same command, whatever was typed before.
    serials = iter(range(_FIRST_SERIAL + zlib.crc32(" ".join(argv).encode()) * 1_000, 2**63))
    secrets.randbelow = lambda _: next(serials)
    # What was imported looked at no terminal.
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
    os.chdir(place)
    sys.argv = ["relay", *argv]
    code = 0
    try:
        importlib.import_module("relay.cli").main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - it is shown, as it would be
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def main() -> None:
    """Type what is read until there is no more."""
    package = importlib.import_module("relay")
    for module in pkgutil.walk_packages(package.__path__, "relay."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for line in sys.stdin:
        request = json.loads(line)
        told = _type(request["argv"], request["answer"], request["place"])
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
