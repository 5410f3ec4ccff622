"""The power goes, at any moment: what was answered OK is there, nothing is half, and it never looks like tampering.

Every write, every sync and every change of a name that the relay makes is recorded while two offices work, a backup is
made, the master key is rotated and the server is stopped and started.  The record is then cut at every sync, before and after
it, and at random places between; what was not synced is lost, torn, reordered or kept.  What is left is opened by the
relay's own code and judged by what the offices were told up to that moment.

``pytest -m long -s tests/faults/test_power_cut.py`` tries thousands of cuts and says how many.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import raw_sftp as sftp
from abort_judge import SEEN, Act, Fate, Found, View
from aftermath import Promise, examine, judge_all, visit
from busy_offices import Notebook, content_of, work, write
from disk import Disk, Loss, lend_folder, play
from house import CARE_MANAGER, House, MakeHouse, general_name
from raw_sftp import open_raw
from recorder import Change, Deaf, Kind, Recorder

SEED = 20_261_122
LARGE = frozenset({3, 9, 13, 22, 28})
_AFTER_ALL = 1 << 62
NOWHERE = Found(View(), None)
Settings = dict[str, dict[str, object]]
OFTEN: Settings = {"store": {"checkpoint_bytes": 65_536}, "audit": {"anchor_seconds": 0.02}}
RARELY: Settings = {"audit": {"anchor_seconds": 0.2}, "server": {"workers": 2}}


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the power goes, and what that does to what was not synced."""

    at: int
    loss: Loss
    are_ordered: bool
    seed: int


@dataclass(slots=True)
class Day:
    """What was recorded: the disk as it was before, all changes, and what the offices and commands were told."""

    before: Disk
    changes: list[Change]
    notebook: Notebook
    backups: list[Promise] = field(default_factory=list)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """Return the means to record what a house does to its files."""
    return Recorder(tmp_path)


async def record_day(house: House, recorder: Recorder, files: int, deaf: Deaf = Deaf.NOTHING) -> Day:
    """Let both offices work through two lives of a server, with a backup and a rotation of the master key beside it."""
    backups: list[Promise] = []

    def back_up() -> None:
        done = recorder.relay(house, "backup", str(house.path / "backups/one.db"))
        assert done.returncode == 0, done.stderr
        backups.append(Promise("backups/one.db", recorder.position))

    def rotate() -> None:
        done = recorder.relay(house, "key", "rotate", "--master", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr

    (house.path / "backups").mkdir()
    disk, notebook = Disk(house.path), Notebook(lambda: recorder.position)
    recorder.swallow(deaf)
    recorder.serve(house)
    await asyncio.gather(
        work(house, notebook, range(files // 2), large=LARGE), asyncio.to_thread(back_up), asyncio.to_thread(rotate)
    )
    house.stop()
    recorder.serve(house)
    await work(house, notebook, range(files // 2, files), large=LARGE)
    house.stop()
    return Day(disk, recorder.changes(), notebook, backups)


def plan_cuts(changes: list[Change], chosen: random.Random, most: int) -> list[Cut]:
    """Return at most so many cuts: around every sync if that is possible, and as many again at any place."""
    ends = [change.ended for change in changes if change.kind is Kind.SYNC and change.ended is not None]
    places = [place for end in ends for place in (end, end + 1)]
    places = chosen.sample(places, min(len(places), most // 2))
    first, last = changes[0].began, changes[-1].began
    places += [chosen.randint(first, last + 1) for _ in range(min(len(places), most // 2))]
    losses = list(Loss)
    return [
        Cut(
            place, losses[number % len(losses)], are_ordered=number // len(losses) % 2 == 0, seed=chosen.getrandbits(32)
        )
        for number, place in enumerate(sorted(places))
    ]


async def try_cuts(day: Day, cuts: Iterable[Cut]) -> tuple[int, list[str]]:
    """Cut, look and judge; returns how many cuts there were, and what was broken."""
    cuts, faults = list(cuts), []
    disk = day.before.copy()
    with lend_folder() as folder:
        for cut, _ in zip(cuts, play(disk, day.changes, [cut.at for cut in cuts]), strict=True):
            home = folder / "home"
            disk.leave(home, cut.loss, random.Random(cut.seed), are_ordered=cut.are_ordered)
            found = await examine(home, day.notebook, cut.at, day.backups)
            faults += [f"{cut}: {fault}" for fault in found]
            shutil.rmtree(home)
    return len(cuts), faults


def tell(what: str, day: Day, tried: int, faults: list[str]) -> None:
    """Say how much was tried; shown with -s, and where a test fails."""
    kinds = Counter(change.kind.name.lower() for change in day.changes)
    told = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
    print(f"\n{what}: {tried} cuts of a record of {told}; {len(faults)} faults")  # noqa: T201 - asked for with -s


def check_record(house: House, day: Day) -> None:
    """AssertionError unless the record, played to its end, gives every file byte for byte as it is."""
    disk = day.before.copy()
    for _ in play(disk, day.changes, [_AFTER_ALL]):
        pass
    with lend_folder() as folder:
        disk.show(folder)
        homes = (house.path, folder)
        real, shown = ({str(path.relative_to(home)) for path in home.rglob("*") if _is_told(path)} for home in homes)
        assert real == shown
        for name in real:
            assert (house.path / name).read_bytes() == (folder / name).read_bytes(), f"{name} was changed unseen"


def _is_told(path: Path) -> bool:
    return path.is_file() and path.name not in ("journal.txt", "known_hosts") and path.suffix != ".lock"


@pytest.mark.parametrize("settings", [OFTEN, RARELY], ids=["log folded often", "two workers"])
async def test_nothing_that_was_answered_is_lost_when_the_power_goes(
    make_house: MakeHouse, recorder: Recorder, settings: Settings
) -> None:
    """Some hundred cuts: all that was answered OK is there once and whole, and history and anchor hold."""
    house = make_house(**settings)
    day = await record_day(house, recorder, files=24)
    check_record(house, day)
    tried, faults = await try_cuts(day, plan_cuts(day.changes, random.Random(SEED), most=150))
    tell("power cut", day, tried, faults)
    assert faults == []
    assert tried >= 150


async def record_long_upload(house: House, recorder: Recorder) -> Day:
    """Let a file come that is so long that the log is synced ahead of its commit, with others behind most of it."""
    disk, notebook = Disk(house.path), Notebook(lambda: recorder.position)
    recorder.serve(house)
    name, most = general_name(number=99), 8_000_000
    content = notebook.contents[name] = content_of(99, 10_000_000)
    async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
        handle, began = await raw.open(f"/send/{name}"), recorder.position
        await write(raw, handle, content[:most], 0)
        ended = recorder.position
        await asyncio.gather(
            write(raw, handle, content[most:], most), work(house, notebook, range(4), large=frozenset())
        )
        await notebook.note(name, Act.SEND, raw.call(sftp.CLOSE, handle))
        log = house.config.store.path.with_name("relay.db-wal").stat().st_ino
    house.stop()
    day = Day(disk, recorder.changes(), notebook)
    reached = _synced_bytes([each for each in day.changes if each.inode == log and began < each.began < ended])
    assert reached > 3_000_000, f"at most {reached} bytes of the log were synced at once before anybody asked for it"
    return day


def _synced_bytes(changes: Iterable[Change]) -> int:
    """Return how many bytes of a file one sync has reached at most."""
    reached = [0]
    for change in changes:
        reached[-1] += len(change.data)
        if change.kind is Kind.SYNC:
            reached.append(0)
    return max(reached[:-1], default=0)


async def test_nothing_is_lost_where_the_log_is_synced_ahead(make_house: MakeHouse, recorder: Recorder) -> None:
    """With the settings as they come, while a file of ten megabytes arrives and others are answered behind most of it."""
    day = await record_long_upload(make_house(), recorder)
    tried, faults = await try_cuts(day, plan_cuts(day.changes, random.Random(SEED), most=40))
    tell("power cut during a long upload", day, tried, faults)
    assert faults == []
    assert tried >= 40


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("settings", [OFTEN, RARELY], ids=["log folded often", "two workers"])
async def test_nothing_that_was_answered_is_lost_wherever_the_power_goes(
    make_house: MakeHouse, recorder: Recorder, settings: Settings
) -> None:
    """Thousands of cuts: around every sync in every way, and as many at random places, another seed each time."""
    house = make_house(**settings)
    day = await record_day(house, recorder, files=48)
    check_record(house, day)
    seed = random.SystemRandom().getrandbits(32)
    chosen = random.Random(seed)
    cuts = sorted(
        (cut for _ in range(len(Loss)) for cut in plan_cuts(day.changes, chosen, most=1 << 30)),
        key=lambda cut: cut.at,
    )
    tried, faults = await try_cuts(day, cuts)
    tell(f"power cut, seed {seed}", day, tried, faults)
    assert faults == []


async def live_on(day: Day, cut: Cut, home: Path, recorder: Recorder, settings: Settings) -> Day:
    """Start a server on what *cut* leaves, let the offices look and send everything again; return that day."""
    disk = day.before.copy()
    for _ in play(disk, day.changes, [cut.at]):
        disk.leave(home, cut.loss, random.Random(cut.seed), are_ordered=cut.are_ordered)
    house, notebook = House(home, settings), day.notebook.carry_over(cut.at, lambda: recorder.position)
    before = Disk(home)
    recorder.serve(house)
    try:
        found = await visit(house)
        assert list(judge_all(notebook, recorder.position, found)) == [], cut
        async with house.dial() as connection, open_raw(connection) as raw:
            for name, deeds in day.notebook.deeds.items():
                if deeds[0].began <= cut.at and found.get(name, NOWHERE).seen != SEEN[Fate.RECALLED]:
                    await notebook.note(name, Act.SEND, raw.put(f"/send/{name}", day.notebook.contents[name]))
        assert list(judge_all(notebook, recorder.position, await visit(house))) == [], cut
    finally:
        house.close()
    return Day(before, recorder.changes(), notebook, [])


async def test_the_offices_go_on_when_the_power_is_back_and_goes_again(
    make_house: MakeHouse, recorder: Recorder, tmp_path: Path
) -> None:
    """A server started on what is left serves it, takes every file once more as the same one, and is cut itself."""
    day = await record_day(make_house(**OFTEN), recorder, files=12)
    for number, cut in enumerate(random.Random(SEED).sample(plan_cuts(day.changes, random.Random(SEED), most=60), 2)):
        folder = tmp_path / f"life-{number}"
        folder.mkdir()
        later = await live_on(day, cut, folder / "home", again := Recorder(folder), OFTEN)
        tried, faults = await try_cuts(later, plan_cuts(later.changes, random.Random(SEED), most=24))
        tell("power cut after a power cut", later, tried, faults)
        assert faults == []
        again.close()


@pytest.mark.parametrize(
    ("deaf", "broken"),
    [(Deaf.FILES, ("lost",)), (Deaf.FOLDERS, ("lost", "unusable")), (Deaf.STORE, ("tampering",))],
    ids=["of files", "of folders", "of the store alone"],
)
async def test_missing_syncs_are_found(
    make_house: MakeHouse, recorder: Recorder, deaf: Deaf, broken: tuple[str, ...]
) -> None:
    """A relay whose syncs do nothing loses what it promised, or its anchor is ahead of its store; the judge says so."""
    day = await record_day(make_house(**OFTEN), recorder, files=12, deaf=deaf)
    cuts = plan_cuts(day.changes, random.Random(SEED), most=40)
    # The disk that keeps nothing but what it was told to keep.
    tried, faults = await try_cuts(day, [replace(cut, loss=Loss.ALL, are_ordered=False) for cut in cuts])
    tell(f"power cut without syncs {deaf!r}", day, tried, faults)
    assert [fault for fault in faults if any(f" {each}: " in fault for each in broken)]
