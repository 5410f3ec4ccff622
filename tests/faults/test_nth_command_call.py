"""The Nth call to the store, the disk or the random source fails while the operator backs up, restores or rotates a key.

The real commands, in this process, on a home of their own.  After each: no traceback, what the command said it had done
is done, a backup that can be seen is a whole one, the store is the old one or the new one, nothing that an office was
promised is lost, and the same command once more comes to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from abort_judge import Claim, Told
from aftermath import load_keys
from deeds import SMALL, Play
from indoors import open_indoors
from nthcall import FULL, IOERR, Trap, Way, trap_disk, trap_random, trap_sqlite

from relay.cli import main
from relay.errors import ConfigError, Deferred
from relay.keyring import OLD_MASTER
from relay.ledger.backups import inspect_backup
from relay.ledger.migrations import refuse_if_open
from relay.ledger.sqlite import open_ledger

Claims = dict[str, Claim]
BACKUP, COPY = "backup.db", "copy.db"
_CALLS_MOST = 3_000
# More than opening makes.
_OPENING_CALLS = 40
# In each run: of the calls to the store the first and one in the middle, of those to the disk one near the end.
_OFTEN = {"store": (0.0, 0.55), "no room": (0.93,)}


@dataclass
class Office:
    """The home of a relay before a command, and what its offices were promised at the time of the backup and since."""

    template: Path
    in_backup: Claims = field(default_factory=dict)
    since: Claims = field(default_factory=dict)

    @property
    def all(self) -> Claims:
        """Everything that was ever promised."""
        return self.in_backup | self.since


def relay(*words: str) -> int:
    """Run a command of the relay as `relay` does; returns its exit code.  An exception would be a traceback."""
    before = sys.argv
    sys.argv = ["relay", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


async def send(home: Path, numbers: range) -> Claims:
    """Send files of those numbers; return what was promised."""
    async with open_indoors(store_of(home), keyring=load_keys(home / "keys"), is_of_keyring=True) as inside:
        play = Play(inside)
        async with inside.session() as raw:
            for number in numbers:
                assert await play.put(raw, SMALL + b"%d\n%%%%EOF\n" % number, number) is Told.DONE
        return play.claims


async def judge(home: Path, claims: Claims) -> list[str]:
    """Open the relay in *home*, and return what is broken of *claims*."""
    async with open_indoors(store_of(home), keyring=load_keys(home / "keys"), is_of_keyring=True) as inside:
        return await Play(inside, claims).judge()


def store_of(home: Path) -> Path:
    """Return where the store is."""
    return home / "data" / "relay.db"


@pytest.fixture
def office(prepared_home: Path, tmp_path: Path) -> Office:
    """Return a home with a backup, and files from before and after it."""
    made = Office(tmp_path / "template")
    shutil.copytree(prepared_home, made.template)
    made.in_backup = asyncio.run(send(made.template, range(2)))
    assert relay("backup", str(made.template / BACKUP), "--home", str(made.template)) == 0
    made.since = asyncio.run(send(made.template, range(2, 4)))
    return made


def put_in_place(home: Path, store: Path) -> Path:
    """Return a home beside *home* with the same keys, and *store* as its store."""
    other = home.with_name("other")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(home / "keys", other / "keys")
    store_of(other).parent.mkdir()
    for file in store.parent.glob(f"{store.name}*"):
        shutil.copy(file, store_of(other).with_name("relay.db" + file.name.removeprefix(store.name)))
    return other


def judge_backup(home: Path, office: Office, code: int) -> Iterator[str]:
    """Yield what is wrong after `relay backup`."""
    copy = home / COPY
    yield from asyncio.run(judge(home, office.all))
    if copy.exists() and code:
        yield "untold: a backup is there, and the command said that it had made none"
    if copy.exists():
        inspect_backup(copy)
        yield from asyncio.run(judge(put_in_place(home, copy), office.all))
    elif not code:
        yield "lost: the command said that it had made a backup"
    if left := [path.name for path in home.iterdir() if path.name.startswith(f".{COPY}")]:
        yield f"left behind: {left}"


def judge_restore(home: Path, office: Office, code: int) -> Iterator[str]:
    """Yield what is wrong after `relay restore`."""
    as_old, as_new = asyncio.run(judge(home, office.all)), asyncio.run(judge(home, office.in_backup))
    if as_old and as_new:
        yield f"neither the one nor the other: {as_old} {as_new}"
    if as_new and not code:
        yield f"untold: the command said that the backup was in place: {as_new}"
    if as_old:
        kept = [path for path in store_of(home).parent.glob("relay.db.replaced-*") if path.name.endswith("Z")]
        found = [asyncio.run(judge(put_in_place(home, path), office.all)) for path in kept]
        if [] not in found:
            yield f"lost: what was replaced was not kept: {found}"


def judge_rotation(home: Path, office: Office, code: int) -> Iterator[str]:
    """Yield what is wrong after `relay key rotate --master`."""
    yield from asyncio.run(judge(home, office.all))
    if not code:
        if (home / "keys" / OLD_MASTER).exists():
            yield "kept: the command said that the old key was destroyed"
        if load_keys(home / "keys").master.id == load_keys(office.template / "keys").master.id:
            yield "untold: the command said that there was a new key"


@dataclass(frozen=True)
class Command:
    """What is typed, and how its outcome is judged."""

    name: str
    words: tuple[str, ...]
    judge: Callable[[Path, Office, int], Iterator[str]]

    def run(self, home: Path) -> int:
        """Type it; returns the exit code."""
        return relay(*(word.replace("HOME", str(home)) for word in self.words), "--home", str(home))


COMMANDS = (
    Command("backup", ("backup", f"HOME/{COPY}"), judge_backup),
    Command("restore", ("restore", f"HOME/{BACKUP}", "--yes"), judge_restore),
    Command("rotate", ("key", "rotate", "--master", "--yes"), judge_rotation),
)
Kind = Callable[[pytest.MonkeyPatch, Trap], None]
KINDS: dict[str, Kind] = {
    "store": lambda patch, trap: trap_sqlite(patch, trap, IOERR),
    "full": lambda patch, trap: trap_sqlite(patch, trap, FULL),
    "disk": lambda patch, trap: trap_disk(patch, trap, errno.EIO),
    "no room": lambda patch, trap: trap_disk(patch, trap, errno.ENOSPC),
    "random": trap_random,
}


def fail_at(office: Office, command: Command, kind: Kind, way: Way, at: int) -> Trap:
    """Let the call *at* fail under *command*, judge, and do it again; returns the trap."""
    home, trap = office.template.with_name("home"), Trap()
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(office.template, home)
    with pytest.MonkeyPatch.context() as patch:
        kind(patch, trap)
        trap.arm(at, way)
        code = command.run(home)
        trap.disarm()
    assert (broken := [*command.judge(home, office, code)]) == [], f"call {at}: {broken}"
    if code:
        again = command.run(home)
        assert again == 0, f"call {at}: the trouble is over, and trying again does not help"
        assert (broken := [*command.judge(home, office, again)]) == [], f"call {at}, again: {broken}"
    return trap


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_some_calls_of_a_command_may_fail(office: Office, command: Command) -> None:
    """Two calls to the store, and one to the disk; any of them with ``-m long``."""
    for kind, parts in _OFTEN.items():
        counted = fail_at(office, command, KINDS[kind], Way.ONCE, _CALLS_MOST).calls
        for part in parts:
            assert fail_at(office, command, KINDS[kind], Way.ONCE, 1 + round(counted * part)).sprung


def test_a_store_that_could_not_be_opened_is_not_kept_open(office: Office) -> None:
    """Whichever call of its opening fails, nobody who needs it alone finds it open in this process."""
    gc.disable()
    try:
        sprung = [keep_from_opening(office.template, at) for at in range(1, _OPENING_CALLS)]
    finally:
        gc.enable()
    assert sprung[0]
    assert not sprung[-1]


def keep_from_opening(home: Path, at: int) -> int:
    """Let the call *at* fail while the store is opened; returns how often one did."""
    trap, keyring, store = Trap(), load_keys(home / "keys"), store_of(home)

    async def open_once() -> None:
        async with await open_ledger(store, keyring.open_vault(), keyring.audit_key):
            trap.disarm()

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ConfigError, Deferred):
        trap_sqlite(patch, trap, IOERR)
        trap.arm(at, Way.ONCE)
        asyncio.run(open_once())
    refuse_if_open(store)
    return trap.sprung


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
@pytest.mark.parametrize(
    ("kind", "way"),
    [("store", Way.ONCE), ("full", Way.FROM_THERE), ("disk", Way.ONCE), ("no room", Way.FROM_THERE), ("random", Way.ONCE)],
    ids=["store", "full", "disk", "no room", "random"],
)  # fmt: skip
def test_any_call_of_a_command_may_fail(office: Office, command: Command, kind: str, way: Way) -> None:
    """Each call to the store, the disk and the random source, for every N until the command meets no failure."""
    tried = 0
    for at in range(1, _CALLS_MOST):
        if not fail_at(office, command, KINDS[kind], way, at).sprung:
            break
        tried += 1
    print(f"{command.name}, {kind}: {tried} calls failed")  # noqa: T201 - pytest -s
    assert tried < _CALLS_MOST - 1
    assert tried or (command.name, kind) in ((c, "random") for c in ("backup", "restore"))
