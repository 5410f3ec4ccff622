"""The demo: a relay in a folder of its own, and a month of a care manager and ten service offices, with the real `sftp`.

Run by `./scripts/demo`, which says how.  What is promised is compared with what happened; a difference ends the demo
with exit code 1.  The folder is made afresh each time, and removed only if an earlier demo made it.  The offices, the
persons and the files are invented by `relay standard make`, the same ones each time.
"""

import argparse
import contextlib
import csv
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rig.servers import HOST, RelayHome, RigError, Running

CHECKOUT = Path(__file__).resolve().parent.parent
MARK = ".made-by-demo"

PARTNERS = 10
PERSONS = 5
SEED = 7
MONTH = "202607"
PLANS_SERIAL = "20260622090000"
# One second later for each office; no two files of an office have the same.
RESULTS_SERIAL = 20260803090000
MISTAKES_SERIAL = 20260622100000
SLIP = "UPPLAN"
LEFT_OUT = "UPHOSOKU"
# Well-formed, and registered nowhere: what a slip of the hand makes.
UNKNOWN = "0178503736"

_LINE_CHARACTERS = 150


class BrokenPromiseError(Exception):
    """Something was not as the relay promises."""


def main() -> int:
    """Play the month, and stay until Ctrl-C unless told otherwise."""
    wanted = _parse_arguments()
    # Also where it was started with SIGINT ignored, as a shell does for what runs in its background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with _own_folder(wanted.home) as folder:
            home = RelayHome(folder)
            manager, partners = _set_up(home)
            with home.serve(wanted.port) as server:
                month = Month(home, server, manager, partners)
                month.play()
                if not wanted.once:
                    month.tell_how_to_connect()
                    month.wait()
    except KeyboardInterrupt:
        print("\nThe relay has stopped; its folder stays until the next demo.")
    except (RigError, BrokenPromiseError) as error:
        print(f"\nNot as promised: {error}", file=sys.stderr)
        return 1
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="A month at the relay, with the real sftp.")
    parser.add_argument("--once", action="store_true", help="end after the month instead of waiting for Ctrl-C")
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


@dataclass(frozen=True, slots=True)
class Office:
    """An office of the story; *service* is the type that it has in names of files."""

    number: str
    name: str
    service: str

    def __str__(self) -> str:
        return f"{self.number}  {self.name}"


def _set_up(home: RelayHome) -> tuple[Office, list[Office]]:
    """Make the care manager's plans and with them the offices; register these, and certify each that plays."""
    _say("A relay is set up", f"in {home.home}")
    register = home.home / "offices.csv"
    plans = home.home / "outbox" / "plans"
    options = {"partners": PARTNERS, "persons": PERSONS, "seed": SEED, "month": MONTH, "serial": PLANS_SERIAL}
    _make(home, "V41-K2", {**options, "out": plans, "register": register})
    home.initialise(register)
    with register.open(encoding="utf-8-sig", newline="") as file:
        known = {row["office_number"]: row for row in csv.DictReader(file)}
    parties = sorted({_parties(plan) for plan in plans.iterdir()}, key=lambda pair: list(known).index(pair[1]))
    everybody = [
        Office(number, known[number]["name_ja"], known[number]["service_types"].partition("|")[0])
        for number in (parties[0][0], *(recipient for _, recipient in parties))
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for office in pool.map(lambda office: home.issue(office.number) and office, everybody):
            print(f"   {office}")
    print("   registered; key and certificate of each in clients/NUMBER/")
    return everybody[0], everybody[1:]


def _make(home: RelayHome, what: str, options: Mapping[str, object]) -> None:
    home.relay("standard", "make", what, *(f"--{name}={value}" for name, value in options.items()))


class Month:
    """The story: who sends what to whom, and what must come of it."""

    def __init__(self, home: RelayHome, server: Running, manager: Office, partners: Sequence[Office]) -> None:
        self._home = home
        self._server = server
        self._manager = manager
        self._partners = partners
        self._clients = home.write_ssh_config([office.number for office in (manager, *partners)], server.port)
        self._outbox = home.home / "outbox"
        self._inbox = home.home / "inbox"
        self._sent: dict[str, list[Path]] = {}

    def play(self) -> None:
        """Play it to the end; raise `BrokenPromiseError` at the first thing that is not as promised."""
        self._prepare_files()
        self._send_plans()
        self._send_mistakes()
        *early, late = self._partners
        self._fetch_and_answer(early)
        self._fetch_results(early)
        self._meet_the_incomplete(late)
        self._show_statuses()

    def _prepare_files(self) -> None:
        for office in (self._manager, *self._partners):
            (self._inbox / office.number).mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._make_results, range(len(self._partners))))
        for partner in self._partners:
            plans = sorted((self._outbox / "plans").glob(f"*_{partner.number}_*"))
            results = list((self._outbox / partner.number).iterdir())
            self._sent |= {partner.number: plans, f"{partner.number} results": results}
        # The last office's unit goes out without one of its files.
        last = self._partners[-1].number
        self._sent[last] = [plan for plan in self._sent[last] if not plan.name.startswith(LEFT_OUT)]

    def _make_results(self, place: int) -> None:
        partner = self._partners[place]
        ends = {"sender": f"{partner.number}:{partner.service}", "recipient": f"{self._manager.number}:43"}
        made = {"persons": PERSONS, "seed": SEED + place, "month": MONTH, "serial": RESULTS_SERIAL + place}
        _make(self._home, "UPJSK", {**ends, **made, "out": self._outbox / partner.number})

    def _send_plans(self) -> None:
        _say(f"{self._manager.name} sends the month's plans", "a unit to each of ten offices")
        plans = self._outbox / "plans"
        judged = self._home.relay("check", str(plans), "--offices", str(self._home.home / "offices.csv"))
        print(f"   relay check, before anything is sent: {judged.splitlines()[-1]}")
        for partner in self._partners:
            files = self._sent[partner.number]
            self._sftp(self._manager, [f"put {_quote(file)} send/" for file in files])
            print(f"   to {partner}: {' '.join(file.name.partition('_')[0] for file in files)}")
        print(f"   {LEFT_OUT} of the last was left out, by oversight")

    def _send_mistakes(self) -> None:
        first, second = (self._find_slip(partner) for partner in self._partners[:2])
        whole = first.read_bytes()
        stranger = second.read_bytes().splitlines(keepends=True)[0]
        wrong = first.name.replace(self._partners[0].number, UNKNOWN)
        _say("Three slips are not right", "each is refused at the door, in words")
        for what, name, content, code in (
            ("cut off in the middle", first.name, whole[: len(whole) * 2 // 3], "content.truncated"),
            ("with a person of another office", first.name, whole + stranger, "content.unrelated_person"),
            ("to a number that is registered nowhere", wrong, whole, "route.recipient_unknown"),
        ):
            mistake = self._outbox / name.replace(PLANS_SERIAL, str(MISTAKES_SERIAL))
            mistake.write_bytes(content)
            print(f"   {what}:")
            said = self._sftp(self._manager, [f"put {_quote(mistake)} send/"], is_refused=True)
            if code not in said:
                raise BrokenPromiseError(f"the refusal does not say {code}")

    def _find_slip(self, partner: Office) -> Path:
        return next(file for file in self._sent[partner.number] if file.name.startswith(SLIP))

    def _fetch_and_answer(self, partners: Sequence[Office]) -> None:
        _say("The offices fetch their plans and send results", "what lies in new/ is what is not yet collected")
        for partner in partners:
            fetched = self._fetch(partner, self._sent[partner.number])
            self._send_results(partner)
            print(f"   {partner}: {fetched}, results sent")

    def _send_results(self, partner: Office) -> None:
        self._sftp(partner, [f"put {_quote(file)} send/" for file in self._sent[f"{partner.number} results"]])

    def _fetch_results(self, partners: Sequence[Office]) -> None:
        _say(f"{self._manager.name} fetches the results", "with one command")
        results = [file for partner in partners for file in self._sent[f"{partner.number} results"]]
        print(f"   {self._fetch(self._manager, results)}")

    def _fetch(self, office: Office, expected: Sequence[Path]) -> str:
        inbox = self._inbox / office.number
        self._sftp(office, [f"get new/* {_quote(inbox)}/"])
        fetched = {file.name: file.read_bytes() for file in inbox.iterdir()}
        if fetched != {file.name: file.read_bytes() for file in expected}:
            raise BrokenPromiseError(f"{office.number} did not fetch exactly what was sent to it, byte for byte")
        return f"{len(fetched)} files, byte for byte as sent, and no others"

    def _meet_the_incomplete(self, late: Office) -> None:
        _say(f"{late.name} fetches last", "and reads in status/ that its unit is not whole")
        print(f"   {self._fetch(late, self._sent[late.number])}")
        status = self._home.home / "units.json"
        self._sftp(late, [f"get status/units.json {_quote(status)}"])
        missing = [unit["missing"] for unit in json.loads(status.read_bytes())["units"]]
        if missing != [[LEFT_OUT]]:
            raise BrokenPromiseError(f"status/units.json should name {LEFT_OUT} as missing: {missing}")
        self._send_results(late)
        print(f"   status/units.csv: missing {LEFT_OUT}; its results go out, and are not collected yet")

    def _show_statuses(self) -> None:
        _say("How the plans stand, unit by unit", "relay transfer units")
        print(self._home.relay("transfer", "units", "--from", self._manager.number, columns=_LINE_CHARACTERS))
        _say("What became of the last files", "relay transfer list")
        print(self._home.relay("transfer", "list", "--limit", "5", columns=_LINE_CHARACTERS))
        units = json.loads(self._home.relay("transfer", "units", "--json"))
        standings = sorted(unit["standing"] for unit in units)
        if standings != ["complete"] * (2 * PARTNERS - 1) + ["incomplete"]:
            raise BrokenPromiseError(f"every unit but one should be complete: {standings}")
        states = sorted(transfer["state"] for transfer in json.loads(self._home.relay("transfer", "list", "--json")))
        if states != ["accepted"] + ["collected"] * (4 * PARTNERS - 2):
            raise BrokenPromiseError(f"every transfer but one should be collected: {states}")

    def tell_how_to_connect(self) -> None:
        """Print the command for an office, and what another program would have to be told."""
        _say("The relay is running", f"on {HOST} port {self._server.port}, until Ctrl-C")
        print(f"   as any of the offices above, by its number:\n      sftp -F {_quote(self._clients)} NUMBER")
        print(f"\n   One file waits for {self._manager}:  get new/*")
        print(f"   WinSCP 6 and others: host {HOST}, port {self._server.port}, user = office number,")
        print(f"   private key {self._clients.parent}/NUMBER/id, certificate id-cert.pub beside it.")
        relay = _quote(Path(sys.executable).with_name("relay"))
        print(f"   The operator's view:  {relay} --home {_quote(self._home.home)} transfer list", flush=True)

    def wait(self) -> None:
        """Wait for Ctrl-C; a relay that ends by itself is a broken promise."""
        code = self._server.wait()
        raise BrokenPromiseError(f"the relay ended by itself with exit code {code}; see journal.txt in its folder")

    def _sftp(self, office: Office, commands: Sequence[str], *, is_refused: bool = False) -> str:
        """Run the commands as *office* and return what the client printed; show it where a refusal is expected."""
        done = subprocess.run(
            ["sftp", "-F", str(self._clients), "-q", "-b", "-", office.number],
            input="".join(f"{command}\n" for command in commands),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
        has_failed = done.returncode != 0
        if is_refused or has_failed:
            for line in done.stdout.replace(f"{self._outbox}/", "…/").splitlines():
                print(f"   │ {line[:_LINE_CHARACTERS]}")
        if has_failed != is_refused:
            raise BrokenPromiseError(f"sftp as {office.number} ended with exit code {done.returncode}")
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
