"""The demo: a relay in a folder of its own, and a morning of three offices played with the real `sftp`.

Run by `./scripts/demo`, which says how.  What is promised is compared with what happened; a difference ends the demo
with exit code 1.  The folder is made afresh each time, and removed only if an earlier demo made it.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rig.servers import HOST, RelayHome, RigError, Running

CHECKOUT = Path(__file__).resolve().parent.parent
MORNING = Path(__file__).resolve().parent / "morning"
MARK = ".made-by-demo"

CARE_MANAGER = "0178515854"
HOME_HELP = "0178529384"
GENERAL_PROJECT = "01A8516384"
NAMES = {
    CARE_MANAGER: "みほん野居宅介護支援事業所",
    HOME_HELP: "みほん野ヘルパーステーション",
    GENERAL_PROJECT: "みほん野通所・訪問サービス",
}
# Well-formed, and registered nowhere: what a slip of the hand makes.
UNKNOWN = "0178503736"

_LINE_CHARACTERS = 150


class BrokenPromiseError(Exception):
    """Something was not as the relay promises."""


def main() -> int:
    """Play the morning, and stay until Ctrl-C unless told otherwise."""
    wanted = _parse_arguments()
    # Also where it was started with SIGINT ignored, as a shell does for what runs in its background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with _own_folder(wanted.home) as folder, _set_up(folder).serve(wanted.port) as server:
            morning = Morning(RelayHome(folder), server, folder)
            morning.play()
            if not wanted.once:
                morning.tell_how_to_connect()
                morning.wait()
    except KeyboardInterrupt:
        print("\nThe relay has stopped; its folder stays until the next demo.")
    except (RigError, BrokenPromiseError) as error:
        print(f"\nNot as promised: {error}", file=sys.stderr)
        return 1
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="A morning at the relay, with the real sftp.")
    parser.add_argument("--once", action="store_true", help="end after the morning instead of waiting for Ctrl-C")
    parser.add_argument("--home", type=Path, default=CHECKOUT / "demo-relay", help="the folder to play in")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; 0 takes any free one")
    wanted = parser.parse_args()
    wanted.home = wanted.home.resolve()
    return wanted


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Make *folder* afresh, and hold it so that no second demo takes it away meanwhile."""
    mark = folder / MARK
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise RigError(f"{folder} was not made by a demo; give another folder with --home")
    folder.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RigError(f"a demo is running in {folder}; end it, or give another folder with --home") from None
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != mark:
                entry.unlink()
        yield folder


def _set_up(folder: Path) -> RelayHome:
    _say("A relay is set up", f"in {folder}")
    home = RelayHome(folder)
    home.initialise(MORNING / "offices.csv")
    for number, name in NAMES.items():
        home.issue(number)
        print(f"   {number}  {name}: registered, key and certificate in clients/{number}/")
    return home


class Morning:
    """The story: who sends what to whom, and what must come of it."""

    def __init__(self, home: RelayHome, server: Running, folder: Path) -> None:
        self._home = home
        self._server = server
        self._clients = home.write_ssh_config(list(NAMES), server.port)
        self._outbox = folder / "outbox"
        self._inbox = folder / "inbox"

    def play(self) -> None:
        """Play it to the end; raise `BrokenPromiseError` at the first thing that is not as promised."""
        self._fill_outboxes()
        self._send_slips()
        self._mistype_a_recipient()
        self._send_results()
        self._fetch(HOME_HELP, self._files(CARE_MANAGER, HOME_HELP))
        self._fetch(GENERAL_PROJECT, self._files(CARE_MANAGER, GENERAL_PROJECT))
        self._show_statuses()

    def _fill_outboxes(self) -> None:
        for number in NAMES:
            (self._outbox / number).mkdir(parents=True)
            (self._inbox / number).mkdir(parents=True)
        for file in MORNING.glob("*_*"):
            shutil.copy(file, self._outbox / _parties(file)[0])

    def _files(self, sender: str, recipient: str) -> list[Path]:
        return sorted(f for f in (self._outbox / sender).iterdir() if _parties(f) == (sender, recipient))

    def _send_slips(self) -> None:
        _say(f"{NAMES[CARE_MANAGER]} sends the month's slips", "three files each to two offices")
        for recipient in (HOME_HELP, GENERAL_PROJECT):
            self._sftp(CARE_MANAGER, [f"put {_quote(f)} send/" for f in self._files(CARE_MANAGER, recipient)])

    def _mistype_a_recipient(self) -> None:
        _say("One file has a wrong number", f"{UNKNOWN} is registered nowhere, so it is refused at the door, in words")
        slip = self._files(CARE_MANAGER, HOME_HELP)[1]
        wrong = self._outbox / slip.name.replace(HOME_HELP, UNKNOWN)
        shutil.copy(slip, wrong)
        said = self._sftp(CARE_MANAGER, [f"put {_quote(wrong)} send/"], refused=True)
        if "route.recipient_unknown" not in said or UNKNOWN not in said:
            raise BrokenPromiseError("the refusal does not say what was wrong")

    def _send_results(self) -> None:
        _say(f"{NAMES[HOME_HELP]} sends its results and a report", "to the care manager")
        self._sftp(HOME_HELP, [f"put {_quote(f)} send/" for f in self._files(HOME_HELP, CARE_MANAGER)])

    def _fetch(self, office: str, expected: Sequence[Path]) -> None:
        _say(f"{NAMES[office]} fetches", "what lies in new/ is what it has not yet collected")
        inbox = self._inbox / office
        self._sftp(office, ["ls -1 new", f"get new/* {_quote(inbox)}/"])
        fetched = {file.name: file.read_bytes() for file in inbox.iterdir()}
        if fetched != {file.name: file.read_bytes() for file in expected}:
            raise BrokenPromiseError(f"{office} did not fetch exactly what was sent to it, byte for byte")
        print(f"   {len(fetched)} files, byte for byte as they were sent, and no others")

    def _show_statuses(self) -> None:
        _say("What became of each file", "relay transfer list")
        print(self._home.relay("transfer", "list", columns=_LINE_CHARACTERS))
        states = sorted(transfer["state"] for transfer in json.loads(self._home.relay("transfer", "list", "--json")))
        if states != ["accepted"] * 2 + ["collected"] * 6:
            raise BrokenPromiseError(f"six transfers should be collected and two be waiting: {states}")

    def tell_how_to_connect(self) -> None:
        """Print the command for each office, and what another program would have to be told."""
        _say("The relay is running", f"on {HOST} port {self._server.port}, until Ctrl-C")
        for number, name in NAMES.items():
            print(f"   {name}\n      sftp -F {_quote(self._clients)} {number}")
        print(f"\n   Two files wait for {CARE_MANAGER}:  get new/*")
        print(f"   WinSCP 6 and others: host {HOST}, port {self._server.port}, user = office number,")
        print(f"   private key {self._clients.parent}/NUMBER/id, certificate id-cert.pub beside it.")
        relay = _quote(Path(sys.executable).with_name("relay"))
        print(f"   The operator's view:  {relay} --home {_quote(self._home.home)} transfer list", flush=True)

    def wait(self) -> None:
        """Wait for Ctrl-C; a relay that ends by itself is a broken promise."""
        code = self._server.wait()
        raise BrokenPromiseError(f"the relay ended by itself with exit code {code}; see journal.txt in its folder")

    def _sftp(self, office: str, commands: Sequence[str], *, refused: bool = False) -> str:
        """Run the commands as *office*, show in short what the client printed, and return it."""
        done = subprocess.run(
            ["sftp", "-F", str(self._clients), "-q", "-b", "-", office],
            input="".join(f"{command}\n" for command in commands),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
        for line in done.stdout.replace(f"{self._outbox}/", "…/").replace(f"{self._inbox}/", "…/").splitlines():
            print(f"   │ {line[:_LINE_CHARACTERS]}")
        if (done.returncode != 0) != refused:
            raise BrokenPromiseError(f"sftp as {office} ended with exit code {done.returncode}")
        return done.stdout


def _parties(file: Path) -> tuple[str, str]:
    sender, recipient = (part for part in file.stem.split("_") if len(part) == len(UNKNOWN))
    return sender, recipient


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _say(what: str, more: str) -> None:
    print(f"\n── {what}: {more}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
