"""Offices at work: their real programs send and fetch without end, and all that they are told is noted for the judge.

Each hand is a thread; it draws what it does, and with which program, from a seed of its own.  A hand tries a file until it is
told that it is done, a few times at most, as staff do.  `Fleet.rest` lets every hand finish what it has in hand, so that
the offices can be looked at while nothing moves.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

import asyncssh
import raw_sftp as sftp
from abort_judge import Claim, Fetch, Sight, Told, digest
from bulk_programs import Curl, Lftp, Rclone
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, HOST, LETTERED, PATIENCE_SECONDS, House, general_name, pdf
from programs import Asyncssh, Program, Psftp, Said, Scp, Sftp
from raw_sftp import RawSftp, open_raw
from sights import look, look_at_status

from relay.model import OfficeNumber

SENDERS, RECIPIENTS = (CARE_MANAGER, LETTERED), (HOME_HELP, DAY_CARE)
OFFICES = SENDERS + RECIPIENTS
# Fetches with scripts/bulk_transfer.py, beside other programs.
BULK_OFFICE = DAY_CARE
PROGRAMS: tuple[Program, ...] = (Sftp(), Psftp(), Lftp(), Rclone(), Scp(), Asyncssh(), Curl())
# They end well though nothing, or a refusal, answered their CLOSE.
CARELESS = frozenset({"curl", "asyncssh"})
BULK = Path(__file__).parents[1] / "scripts" / "bulk_transfer.py"
_TRIES = 4
# Of one file in eight: more than a chunk, so that it is staged while it arrives.
_LARGE_BYTES = (300_000, 1_500_000)
_SMALL_BYTES = (1_000, 40_000)
# What a library or a program says when the server goes away under it.
TROUBLE = (OSError, EOFError, TimeoutError, asyncssh.Error)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file on its way: its bytes are in *file*."""

    claim: Claim
    file: Path


@dataclass
class Books:
    """What was tried and told, of all hands."""

    folder: Path
    _claims: dict[str, Claim] = field(default_factory=dict)
    _waiting: dict[OfficeNumber, list[Claim]] = field(default_factory=lambda: {office: [] for office in RECIPIENTS})
    _fetched: dict[tuple[OfficeNumber, str, Path], Told] = field(default_factory=dict)
    _digests: dict[tuple[Path, int, int], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def draw(self, dice: random.Random, sender: OfficeNumber, by: str) -> Parcel:
        """Make a file that nobody has sent, and note that it is going to be tried."""
        with self._lock:
            number = next(self._numbers)
        recipient = dice.choice(RECIPIENTS)
        name = general_name(sender=sender, recipient=recipient, number=number)
        bounds = _LARGE_BYTES if dice.random() < 1 / 8 else _SMALL_BYTES
        content = pdf(dice.randrange(*bounds)) + f"% {number}\n%%EOF\n".encode()
        file = self.folder / "out" / name
        file.write_bytes(content)
        claim = Claim(sender, recipient, name, digest(content), Told.NOTHING, by=by)
        with self._lock:
            self._claims[name] = claim
        return Parcel(claim, file)

    def note(self, claim: Claim, told: Told) -> None:
        """Keep the best word that was told about a file."""
        with self._lock:
            known = self._claims[claim.name]
            if told is Told.DONE and known.told is not Told.DONE:
                self._waiting[OfficeNumber(claim.recipient)].append(claim)
            self._claims[claim.name] = replace(known, told=Told.DONE if Told.DONE in (told, known.told) else told)

    def note_taken_back(self, claim: Claim, told: Told) -> None:
        """Keep what was told about taking a file back."""
        with self._lock:
            self._claims[claim.name] = replace(self._claims[claim.name], taken_back=told)

    def next_for(self, office: OfficeNumber) -> Claim | None:
        """Return a file that *office* has not tried to fetch, None where there is none."""
        with self._lock:
            return self._waiting[office].pop(0) if self._waiting[office] else None

    def note_fetched(self, office: OfficeNumber, name: str, file: Path, told: Told) -> None:
        """Keep that *file* holds what a program has read, or is reading, of *name*."""
        with self._lock:
            self._fetched[office, name, file] = told

    def claims(self) -> list[Claim]:
        """Return everything that was tried so far."""
        with self._lock:
            return list(self._claims.values())

    def fetches(self) -> list[Fetch]:
        """Return everything that was read so far, a part being what is in its file now."""
        with self._lock:
            noted = dict(self._fetched)
        # A file of its program's name is one that it has all of, and wrote before it closed it at the relay.
        for file in (self.folder / "in" / "bulk").glob("[!.]*"):
            noted[BULK_OFFICE, file.name, file] = Told.NOTHING
        return [
            Fetch(office, name, self._digest_of(file), told)
            for (office, name, file), told in noted.items()
            if file.exists()
        ]

    def _digest_of(self, file: Path) -> str:
        known = file.stat()
        key = (file, known.st_size, known.st_mtime_ns)
        if key not in self._digests:
            with file.open("rb") as content:
                self._digests[key] = hashlib.file_digest(content, "sha256").hexdigest()
        return self._digests[key]


class Fleet:
    """All hands; used by ``with``, which sets them to work and lets them end."""

    def __init__(self, house: House, folder: Path, seed: str, *, hands: int = 1, has_bulk: bool = True) -> None:
        """Prepare *hands* that send and as many that fetch, and with *has_bulk* ``scripts/bulk_transfer.py``."""
        self.house = house
        self.books = Books(folder)
        self._hands = hands
        self._has_bulk = has_bulk
        self._folder = folder
        self._seed = seed
        self._may_work = threading.Event()
        self._is_over = threading.Event()
        self._idle: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self.troubles: list[str] = []
        for name in ("out", "in"):
            (folder / name).mkdir()

    def __enter__(self) -> Self:
        """Set all hands to work."""
        self._may_work.set()
        for number in range(self._hands):
            self._hire(f"hand {number} sends", self._send)
            self._hire(f"hand {number} fetches", self._fetch)
        self._hire("raw session sends", self._raw_sending())
        self._hire("raw session fetches", self._raw_fetching())
        if self._has_bulk:
            self._hire("bulk_transfer sends", self._bulk_sending())
            self._hire("bulk_transfer fetches", self._bulk_fetching())
        return self

    def __exit__(self, *_: object) -> None:
        """Let every hand finish, and go."""
        self._is_over.set()
        self._may_work.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_SECONDS)
            assert not thread.is_alive(), f"{thread.name} does not end"

    def _hire(self, name: str, act: Callable[[random.Random], None]) -> None:
        idle, dice = threading.Event(), random.Random(f"{self._seed} {name}")
        self._idle[name] = idle

        def work() -> None:
            try:
                while not self._is_over.is_set():
                    act(dice)
                    idle.set()
                    self._may_work.wait()
                    idle.clear()
            except BaseException as error:  # noqa: BLE001 - told by `check`, in the thread of the test
                self.troubles.append(f"{name}: {error!r}")
            finally:
                idle.set()

        thread = threading.Thread(target=work, name=name)
        self._threads.append(thread)
        thread.start()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Let every hand finish what it does, and begin nothing until the block ends."""
        self._may_work.clear()
        for name, idle in self._idle.items():
            assert idle.wait(2 * PATIENCE_SECONDS), f"{name} does not come to an end"
        self.check()
        yield
        self._may_work.set()

    def check(self) -> None:
        """AssertionError where a hand has failed in a way that is none of the relay's."""
        assert not self.troubles, self.troubles

    def done(self) -> int:
        """Return how many files were answered OK so far."""
        return sum(claim.told is Told.DONE for claim in self.books.claims())

    # --- what the hands do -------------------------------------------------------------------------------------------

    @staticmethod
    def _does(act: Callable[[], Said]) -> bool:
        try:
            return act().is_done
        except TROUBLE:
            return False

    def _send(self, dice: random.Random) -> None:
        program, office = dice.choice(PROGRAMS), dice.choice(SENDERS)
        parcel = self.books.draw(dice, office, program.name)
        target, put = f"send/{parcel.claim.name}", program.put
        for _ in range(_TRIES):
            is_done = self._does(partial(put, self.house, office, parcel.file, target))
            self.books.note(parcel.claim, Told.NOTHING if program.name in CARELESS else _told(is_done))
            if is_done:
                return
            put = dice.choice((program.put, program.put_on))

    def _fetch(self, dice: random.Random) -> None:
        office = dice.choice(RECIPIENTS)
        claim = self.books.next_for(office)
        for number in range(_TRIES if claim else 0):
            assert claim is not None
            program = dice.choice([each for each in PROGRAMS if each.name not in CARELESS])
            file = self._folder / "in" / f"{program.name}-{number}-{claim.name}"
            self.books.note_fetched(office, claim.name, file, Told.FAILED)
            if self._does(partial(program.fetch, self.house, office, f"receive/{claim.name}", file)):
                self.books.note_fetched(office, claim.name, file, Told.NOTHING)
                return

    def _raw_sending(self) -> Callable[[random.Random], None]:
        """Several files at once on one session: some renamed from a temporary name, some sent twice, some taken back."""

        async def send(raw: RawSftp, parcel: Parcel, way: float) -> None:
            claim, content, path = parcel.claim, parcel.file.read_bytes(), f"/send/{parcel.claim.name}"
            if way < 0.3:
                code = (await raw.put(f"{path}.part", content)).code
                code = code or (await raw.call(sftp.RENAME, f"{path}.part", path)).code
            else:
                code = (await raw.put(path, content)).code
            self.books.note(claim, _told(code == sftp.OK))
            if way > 0.9 and code == sftp.OK:
                self.books.note_taken_back(claim, Told.NOTHING)
                code = (await raw.call(sftp.RENAME, path, f"/recall/{claim.name}")).code
                self.books.note_taken_back(claim, _told(code == sftp.OK))
            elif way > 0.8:
                self.books.note(claim, _told((await raw.put(path, content)).code == sftp.OK))

        async def work(dice: random.Random) -> None:
            office = dice.choice(SENDERS)
            async with self._session(office) as raw:
                for _ in range(dice.randrange(1, 5)):
                    parcels = [self.books.draw(dice, office, "raw") for _ in range(dice.randrange(1, 9))]
                    ways = [dice.random() for _ in parcels]
                    await asyncio.gather(*(send(raw, *each) for each in zip(parcels, ways, strict=True)))

        return lambda dice: self._try(work(dice))

    def _raw_fetching(self) -> Callable[[random.Random], None]:
        """What lies in ``new/``, a few files at a time; what was answered OK at its CLOSE is noted so."""

        async def fetch(raw: RawSftp, office: OfficeNumber, name: str, number: int) -> None:
            opened = await raw.call(sftp.OPEN, f"/new/{name}", sftp.READING, sftp.Raw(sftp.NO_ATTRIBUTES))
            if opened.type != sftp.HANDLE:
                return
            file = self._folder / "in" / f"raw-{number}-{name}"
            with file.open("wb") as here:
                self.books.note_fetched(office, name, file, Told.FAILED)
                at = 0
                while (reply := await raw.call(sftp.READ, opened.handle, sftp.Long(at), 100_000)).type == sftp.DATA:
                    at += here.write(reply.data)
            if reply.code == sftp.EOF and (await raw.call(sftp.CLOSE, opened.handle)).code == sftp.OK:
                self.books.note_fetched(office, name, file, Told.DONE)

        async def work(dice: random.Random) -> None:
            office = dice.choice(RECIPIENTS)
            async with self._session(office) as raw:
                names = [name for name in await raw.list("/new") if name not in (".", "..")]
                chosen = dice.sample(names, min(len(names), 4))
                await asyncio.gather(*(fetch(raw, office, name, dice.randrange(1 << 30)) for name in chosen))

        return lambda dice: self._try(work(dice))

    def _session(self, office: OfficeNumber) -> _Session:
        return _Session(self.house, office)

    @staticmethod
    def _try(work: object) -> None:
        try:
            asyncio.run(work)  # type: ignore[arg-type]
        except TROUBLE:
            return
        except BaseExceptionGroup as group:
            if group.split(TROUBLE)[1] is not None:
                raise

    def _bulk_sending(self) -> Callable[[random.Random], None]:
        """A folder of files, each of which the program tries until the relay's own list shows it."""

        def act(dice: random.Random) -> None:
            folder = self._folder / f"bulk-{dice.randrange(1 << 30)}"
            folder.mkdir()
            parcels = {
                parcel.file.name: parcel
                for parcel in (self.books.draw(dice, CARE_MANAGER, "bulk_transfer") for _ in range(5))
            }
            for name, parcel in parcels.items():
                parcel.file.rename(folder / name)
            for _ in range(_TRIES):
                for line in self._bulk("send", folder, CARE_MANAGER):
                    # What is no file's is said about the run.
                    if (parcel := parcels.get(line.get("name", ""))) is not None:
                        self.books.note(parcel.claim, _told(line["outcome"] == "sent"))
                if not any(folder.glob("*.pdf")):
                    return

        return act

    def _bulk_fetching(self) -> Callable[[random.Random], None]:
        folder = self._folder / "in" / "bulk"

        return lambda _: self._bulk("fetch", folder, BULK_OFFICE) and None

    def _bulk(self, do: str, folder: Path, office: OfficeNumber) -> list[dict[str, str]]:
        identity = self._identity(office)
        where = ["--host", HOST, "--port", str(self.house.port), "--office", office, "--identity", str(identity)]
        done = subprocess.run(
            [sys.executable, str(BULK), do, str(folder), *where, "--json"],
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False, timeout=4 * PATIENCE_SECONDS,
        )  # fmt: skip
        # All done; something refused or not confirmed; the relay not to be reached.
        assert done.returncode in (0, 1, 3), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _identity(self, office: OfficeNumber) -> Path:
        """Return a folder as `scripts/enroll` makes it."""
        folder = self._folder / f"identity-{office}"
        if not folder.exists():
            folder.mkdir()
            held = self.house.certificate(office)
            for source, name in (
                (held.key, "id_relay"), (held.certificate, "id_relay-cert.pub"), (self.house.known_hosts, "known_hosts"),
            ):  # fmt: skip
                (folder / name).write_bytes(source.read_bytes())
                (folder / name).chmod(0o600)
        return folder

    # --- what is seen of it ------------------------------------------------------------------------------------------

    async def sights(self, known: Mapping[str, Mapping[str, str]]) -> dict[str, Sight]:
        """Look at every office; the digests in *known*, by office and name, were read before."""
        sights: dict[str, Sight] = {}
        for office in OFFICES:
            async with self._session(office) as raw:
                sights[office] = await look(raw, known.get(office))
        return sights

    async def statuses(self) -> dict[str, Sight]:
        """Look at the status files of every office alone."""
        sights: dict[str, Sight] = {}
        for office in OFFICES:
            async with self._session(office) as raw:
                sights[office] = await look_at_status(raw)
        return sights


@dataclass
class _Session:
    """A raw SFTP session, as ``async with``."""

    house: House
    office: OfficeNumber

    async def __aenter__(self) -> RawSftp:
        self._dialled = self.house.dial(self.office)
        connection = await self._dialled.__aenter__()
        self._opened = open_raw(connection)
        return await self._opened.__aenter__()

    async def __aexit__(self, *what: object) -> None:
        await self._opened.__aexit__(*what)  # type: ignore[arg-type]
        await self._dialled.__aexit__(*what)  # type: ignore[arg-type]


def _told(is_done: bool) -> Told:  # noqa: FBT001 - a question with one meaning
    return Told.DONE if is_done else Told.FAILED
