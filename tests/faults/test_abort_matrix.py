"""Every program, interrupted in every way at every moment: nothing half, nothing that was answered OK lost, nothing
that was not read out of ``new/``.

A run by default takes pairs: each program meets each way and each moment, and each way each moment.  All of them
together, a few hundred, run with ``-m long``.

How a moment is met: *mid-upload*, *mid-download* and *last bytes* by a cable that passes so many bytes and no more;
*at CLOSE* and *at RENAME* by a disk that takes long (see ``shim.c``): the relay is held in its first write to the
store, so the request has arrived and is not answered.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import asyncssh
import pytest
from abort_judge import Fetching, Sending, Told, View, judge_fetching, judge_sending
from abort_programs import CLIENTS, Act, Client, Errand, Running
from cable import Cable, cable_to
from faultshim import Ending, Shim
from house import CARE_MANAGER, HOME_HELP, House, general_name, pdf, run_aside
from programs import need

LARGE = pdf(1_500_000)
# Fits one chunk: it reaches the store with its CLOSE, not before.
SMALL = pdf(100_000)


class Abort(StrEnum):
    """A way to interrupt."""

    CTRL_C = "ctrl_c"
    KILL = "kill"
    CLOSE = "close"
    RESET = "reset"
    HALF = "half_close"
    SUSPEND = "suspend"


class Moment(StrEnum):
    """When."""

    MID_UPLOAD = "mid_upload"
    AT_CLOSE = "at_close"
    AT_RENAME = "at_rename"
    MID_DOWNLOAD = "mid_download"
    LAST_BYTES = "last_bytes"


_ACTS: dict[Moment, Act] = {
    Moment.MID_UPLOAD: "put",
    Moment.AT_CLOSE: "put",
    Moment.AT_RENAME: "rename",
    Moment.MID_DOWNLOAD: "get",
    Moment.LAST_BYTES: "get",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One of the matrix."""

    client: Client
    abort: Abort
    moment: Moment

    def __str__(self) -> str:
        return f"{self.client.name}-{self.abort}-{self.moment}"

    @property
    def act(self) -> Act:
        """What the program is doing at that moment."""
        return _ACTS[self.moment]

    @property
    def is_possible(self) -> bool:
        """False where the program has no such moment."""
        return self.act not in self.client.cannot


def plan_pairs() -> list[Case]:
    """Return a case for each program and way, with moments that go round, so that any two things meet."""
    moments, cases = tuple(Moment), []
    for (row, client), (column, abort) in itertools.product(enumerate(CLIENTS), enumerate(Abort)):
        turn = (Case(client, abort, moments[(row + column + skip) % len(moments)]) for skip in range(len(moments)))
        cases.append(next(case for case in turn if case.is_possible))
    return cases


def plan_all() -> list[Case]:
    """Return every case that there is."""
    return [case for each in itertools.product(CLIENTS, Abort, Moment) if (case := Case(*each)).is_possible]


def test_any_two_things_meet_in_a_run() -> None:
    """Of program, way and moment each pair that is possible occurs; what is impossible is said with its reason."""

    def pairs(cases: list[Case]) -> set[frozenset[str]]:
        return {
            frozenset(two)
            for case in cases
            for two in itertools.combinations((case.client.name, case.abort, case.moment), 2)
        }

    assert pairs(plan_pairs()) == pairs(plan_all())
    left_out = len(CLIENTS) * len(Abort) * len(Moment) - len(plan_all())
    assert left_out == sum(len(Abort) for client in CLIENTS for reason in client.cannot.values() if reason)


# --- houses --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stage:
    """A relay whose disk can be held, for many cases; each has a name of its own."""

    house: House
    shim: Shim
    played: int = 0

    def next_name(self) -> str:
        """Return a file name that no case has had."""
        self.played += 1
        return general_name("pdf", number=self.played)

    def wait_until_alone(self) -> None:
        """Wait until the relay knows that every connection has gone."""

        def is_alone() -> bool:
            opened = self.house.journal_lines("connection.opened")
            return len(opened) == len(self.house.journal_lines("connection.closed"))

        self.house.wait_for(is_alone, "the relay to notice that the connection has gone")

    def wait_until_settled(self) -> None:
        """Wait until all sessions have ended, with what they left to do."""

        def is_settled() -> bool:
            opened = self.house.journal_lines("session.opened")
            return len(opened) == len(self.house.journal_lines("session.closed"))

        self.house.wait_for(is_settled, "the end of all sessions")


@pytest.fixture(scope="module")
def stage_for(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Abort], Stage]]:
    """Return a relay for a way of interrupting: one waits two seconds for a sign of life, the other as it is."""
    stages: dict[bool, Stage] = {}
    with ExitStack() as stack:

        def find(abort: Abort) -> Stage:
            is_short = abort is Abort.SUSPEND
            if is_short not in stages:
                folder = tmp_path_factory.mktemp("stage")
                server = {"keepalive_seconds": 1.0, "keepalive_count": 2} if is_short else {}
                house, shim = House.copy(prepared_home, folder / "house", {"server": server}), Shim(folder)
                shim.serve(house)
                stack.callback(house.close)
                stages[is_short] = Stage(house, shim)
            return stages[is_short]

        yield find


# --- what the offices do and see ---------------------------------------------------------------------------------


async def _send(house: House, path: str, content: bytes, target: str | None = None) -> Told:
    """Upload, and rename to *target*; whether it was answered OK."""
    async with house.connect(CARE_MANAGER) as caller:
        try:
            if content:
                async with caller.sftp.open(path, "wb") as file:
                    await file.write(content)
            if target is not None:
                await caller.sftp.rename(path, target)
        except asyncssh.SFTPError:
            return Told.FAILED
    return Told.DONE


async def _rows(house: House, office: str, topic: str, name: str) -> tuple[str, ...]:
    async with house.connect(office) as caller, caller.sftp.open(f"status/{topic}.json", "rb") as file:
        return tuple(row["state"] for row in json.loads(await file.read())[topic] if row["name"] == name)


async def _see(house: House, name: str) -> View:
    async with house.connect(HOME_HELP) as caller:
        folders = [folder for folder in ("new", "receive", "done") if name in await caller.sftp.listdir(folder)]
    received, sent = await _rows(house, HOME_HELP, "received", name), await _rows(house, CARE_MANAGER, "sent", name)
    return View(tuple(folders), received, sent)


async def _read(house: House, name: str) -> bytes | None:
    async with house.connect(HOME_HELP) as caller:
        try:
            async with caller.sftp.open(f"receive/{name}", "rb") as file:
                return bytes(await file.read())
        except asyncssh.SFTPNoSuchFile:
            return None


# --- the play ------------------------------------------------------------------------------------------------------

_REFUSED = re.compile(r"\b(?:content|upload|transfer|name|route|limit|server|tree)\.[a-z_]+: ")


def _told(case: Case, running: Running, code: int) -> Told:
    """Return what the user knows: sftp and lftp end with 0 where they were interrupted, and say so."""
    if case.abort is Abort.KILL:
        return Told.NOTHING
    if code or "nterrupt" in running.text or _REFUSED.search(running.text):
        return Told.FAILED
    return Told.NOTHING if case.moment in case.client.unanswered else Told.DONE


@contextmanager
def _met(case: Case, stage: Stage, cable: Cable) -> Iterator[Callable[[], bool]]:
    """Lay the trap for the moment; yields what tells that it has come."""
    if case.moment in (Moment.AT_CLOSE, Moment.AT_RENAME):
        stage.shim.arm(1, Ending.HOLD)
        try:
            yield stage.shim.is_holding
        finally:
            stage.shim.disarm()
        return
    direction, after = {
        Moment.MID_UPLOAD: ("up", len(LARGE) // 2),
        Moment.MID_DOWNLOAD: ("down", len(LARGE) // 2),
        # As many bytes as the file has: of its last ones so many are under way as were needed to log in.
        Moment.LAST_BYTES: ("down", len(LARGE)),
    }[case.moment]
    cable.hold(direction, after=after)
    yield lambda: cable.is_held(direction)


def _interrupt(case: Case, stage: Stage, cable: Cable, running: Running) -> int:
    """Do it, let everything go that was held, and return how the program ended."""
    match case.abort:
        case Abort.CTRL_C:
            running.signal(signal.SIGINT)
        case Abort.KILL:
            running.signal(signal.SIGKILL)
        case Abort.SUSPEND:
            running.signal(signal.SIGSTOP)
        case Abort.HALF:
            cable.end_half()
        case _:
            cable.pull(reset=case.abort is Abort.RESET)
    cable.release()
    if case.abort is not Abort.CTRL_C:
        # Not before the relay knows: it shall find the connection gone while it is still busy with the request.
        stage.wait_until_alone()
    stage.shim.disarm()
    if case.abort is Abort.SUSPEND:
        running.signal(signal.SIGCONT)
    return running.wait()


def _play(case: Case, stage: Stage, errand: Errand, folder: Path) -> Told:
    """Let the program run its errand, and interrupt it at its moment."""
    with (
        cable_to(stage.house) as (cable, reached),
        _met(case, stage, cable) as is_met,
        case.client.run(reached, errand, folder) as running,
    ):
        may_have_ended = case.moment in case.client.unanswered
        stage.house.wait_for(
            lambda: is_met() or (running.has_ended and not may_have_ended), f"the moment {case.moment}"
        )
        assert is_met(), f"it ended before {case.moment}: {running.text}"
        told = _told(case, running, _interrupt(case, stage, cable, running))
    stage.wait_until_settled()
    return told


def play_sending(case: Case, stage: Stage, folder: Path) -> list[str]:
    """Interrupt an upload or a rename, look, repeat it, look again; return what was broken."""
    house, name = stage.house, stage.next_name()
    content = LARGE if case.moment is Moment.MID_UPLOAD else SMALL
    file, target = folder / "file.pdf", f"send/{name}"
    file.write_bytes(content)
    errand = Errand("put", CARE_MANAGER, target, file)
    if case.act == "rename":
        errand = Errand("rename", CARE_MANAGER, f"{target}.part", file, target)
        assert run_aside(_send(house, errand.path, content)) is Told.DONE
    told = _play(case, stage, errand, folder)
    seen, read = run_aside(_see(house, name)), run_aside(_read(house, name))
    repeated = (errand.path, b"", target) if case.act == "rename" else (target, content)
    told_again = run_aside(_send(house, *repeated))
    return judge_sending(
        Sending(
            content, told, seen, read, told_again, seen_again=run_aside(_see(house, name)),
            read_again=run_aside(_read(house, name)),
        )
    )  # fmt: skip


def play_fetching(case: Case, stage: Stage, folder: Path) -> list[str]:
    """Interrupt a download, look, read the file, look again; return what was broken."""
    house, name = stage.house, stage.next_name()
    assert run_aside(_send(house, f"send/{name}", LARGE)) is Told.DONE
    file = folder / "file.pdf"
    _play(case, stage, Errand("get", HOME_HELP, f"new/{name}", file), folder)
    parts = (part.read_bytes() for part in folder.glob("file.pdf*"))
    reads_on = case.client.reads_ahead and case.abort is Abort.CTRL_C
    kept = None if reads_on else max(parts, key=len, default=b"")
    seen = run_aside(_see(house, name))
    read_again = run_aside(_read(house, name))
    return judge_fetching(Fetching(LARGE, kept, seen, read_again, seen_again=run_aside(_see(house, name))))


def play(case: Case, stage: Stage, folder: Path) -> None:
    """Play one case and judge it."""
    need(*case.client.needs)
    stage.wait_until_settled()
    broken = (play_fetching if case.act == "get" else play_sending)(case, stage, folder)
    assert not broken, broken


@pytest.mark.parametrize("case", plan_pairs(), ids=str)
def test_interrupted_program_breaks_no_promise(case: Case, stage_for: Callable[[Abort], Stage], tmp_path: Path) -> None:
    """A pair of each: whatever ends, nothing half is relayed, nothing lost that was answered OK, nothing unread gone."""
    play(case, stage_for(case.abort), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("case", plan_all(), ids=str)
def test_interrupted_program_breaks_no_promise_whatever_meets(
    case: Case, stage_for: Callable[[Abort], Stage], tmp_path: Path
) -> None:
    """The same with every way at every moment."""
    play(case, stage_for(case.abort), tmp_path)
