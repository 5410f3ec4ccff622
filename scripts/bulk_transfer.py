#!/usr/bin/env python3
"""Send and fetch many files through the relay: once, or for ever.

    bulk_transfer.py send FOLDER       what lies in FOLDER (and in FOLDER/<office number>/) is sent
    bulk_transfer.py fetch FOLDER      what has arrived is fetched into FOLDER
    bulk_transfer.py sync FOLDER       both: FOLDER/outbox is sent, FOLDER/inbox is filled
    bulk_transfer.py watch FOLDER      as sync, again and again; reconnects by itself

One file, for Python 3.11 with asyncssh (``pip install asyncssh rich``; rich only draws the bar).  Who you are is read
from the folder that ``scripts/enroll`` made (``--identity``, careplan-relay in your home folder).

What is promised.  A file leaves the folder for ``sent/`` only when the relay's own list shows it with the same digest;
one that is refused goes to ``refused/`` with the reason beside it.  What arrives is written under another name, put on
the disk, named, and written into the journal before the relay is told that it was read; only then it is moved to
``done/`` there.  Ended at any moment and run again, each file is on the other side exactly once.  One run at a time
works in a folder; a second one ends at once.

Exit codes: 0 all is done; 1 something was refused or could not be confirmed; 2 the command or the set-up is wrong;
3 the relay cannot be reached, or another run is at work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

try:
    import asyncssh
except ImportError:
    print("asyncssh が必要です / asyncssh is needed: python3 -m pip install asyncssh rich", file=sys.stderr)
    sys.exit(2)

DONE, UNFINISHED, MISUSED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
JOURNAL, LOCK = ".bulk_transfer.journal", ".bulk_transfer.lock"
SENT, REFUSED, DONE_FOLDER = "sent", "refused", "done"
# Larger files go under a name of their own while they are on their way, and are taken up again where they ended.
RESUMED_BYTES = 1 << 20
BLOCK_BYTES = 256 << 10
AT_ONCE = 16
# So many are sent before the relay's list is asked for them: who is ended then has few left to confirm.
CONFIRMED_AT_ONCE = 1_000
# A file that somebody is still writing is left for the next round.
SETTLED_SECONDS = 2.0
# What passes by itself: the relay or the line is busy.  Everything else that it says is for good.
PASSING = ("server.", "limit.rate", "limit.handles", "limit.sessions")
# What may be taken another day, when somebody has done something about it: it stays where it is.
LATER = ("server.", "office.", "limit.quota", "limit.partials", "limit.rate", "limit.handles", "limit.sessions")
TRIES = 5
WAIT_MOST_SECONDS = 300.0
_CODE = re.compile(r"^([a-z_]+\.[a-z_]+): ")
_OFFICE = re.compile(r"[0-9]{2}[0-9A-Z][0-9]{7}")
# UPPLAN_202607_0178515854_43_0178529384_11_20260622084203.CSV, REPORT_0178515854_0178529384_20260622095709.pdf
_NAMED = re.compile(
    r".*?_([0-9]{2}[0-9A-Z][0-9]{7})(?:_[0-9A-Z]{2})?_([0-9]{2}[0-9A-Z][0-9]{7})(?:_[0-9A-Z]{2})?_[0-9]{14}\.\w+",
    re.IGNORECASE,
)
# The relay's notice in an address folder.
_ADDRESSEE = re.compile(r"宛先 (.+)\.txt")
# Of programs that are still writing, of this one, and of folders as Windows shows them.
_UNFINISHED = re.compile(
    r"^\.|\.(part|tmp|filepart|partial|crdownload|refused\.txt)$|^~\$|^(desktop\.ini|thumbs\.db)$", re.IGNORECASE
)

T = TypeVar("T")
Sftp = asyncssh.SFTPClient
Trouble = (OSError, asyncssh.Error, asyncio.IncompleteReadError)
# No patience helps against these.
Shut = (asyncssh.PermissionDenied, asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed)


class LocalTrouble(Exception):
    """A file here cannot be read or written, or changes meanwhile; the others go on."""


class Busy(Exception):
    """Another run works in this folder."""


@contextlib.contextmanager
def here(path: Path) -> Iterator[None]:
    """Make LocalTrouble of what this machine's disk says, so that it is not taken for the relay's."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LocalTrouble(f"{path.name}: {error.strerror or error}") from error


@dataclass
class Result:
    """What became of one file; printed with ``--json``."""

    do: str
    name: str
    outcome: str
    office: str = ""
    reason: str = ""


@dataclass
class Item:
    """A file to be sent; *folder* is the office number of the folder it lies in, '' at the top."""

    path: Path
    folder: str
    size: int

    @property
    def remote(self) -> str:
        """Its path below ``send/``."""
        return f"{self.folder}/{self.path.name}" if self.folder else self.path.name

    @property
    def recipient(self) -> str:
        """Whom it goes to, as far as its name or its folder tells."""
        match = _NAMED.fullmatch(self.path.name)
        return self.folder or (match[2].upper() if match else "")


@dataclass
class Run:
    """One run: its choices, its connection's recipe, and what it has done so far."""

    arguments: argparse.Namespace
    outcomes: Counter[str] = field(default_factory=Counter)

    def tell(self, result: Result) -> None:
        """Count a result and show it."""
        self.outcomes[result.outcome] += 1
        if self.arguments.json:
            print(json.dumps(asdict(result), ensure_ascii=False), flush=True)
        elif not self.arguments.quiet or result.outcome not in ("sent", "fetched"):
            arrow = "from" if result.do == "fetch" else "->"
            where = f" {arrow} {result.office}" if result.office else ""
            why = f": {result.reason}" if result.reason else ""
            print(f"{result.outcome:9} {result.name}{where}{why}", flush=True)

    @property
    def code(self) -> int:
        """The exit code so far."""
        return UNFINISHED if any(self.outcomes[word] for word in ("refused", "unsure", "failed", "left")) else DONE

    def sum_up(self) -> None:
        """End with a line that says how it went."""
        if self.arguments.json:
            return
        told = ", ".join(f"{count:,} {word}" for word, count in self.outcomes.items())
        if not self.arguments.quiet:
            print(told or "nothing to do", flush=True)


class Journal:
    """What was fetched and what was sent, a line a file; survives any end of the program.

    A fetched file is in it, on the disk, before the relay is told.  What was sent need not be: who forgets that he sent
    a file sends it again, which the relay takes for the same.  A large file is in it before its first byte goes, with
    its digest, so that only the very same file goes on where an earlier run was ended.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / JOURNAL
        self.fetched: dict[str, str] = {}
        self.sent: dict[str, str] = {}
        self.begun: dict[str, str] = {}
        kinds = {"fetched": self.fetched, "sent": self.sent, "begun": self.begun}
        if self._path.exists():
            for line in self._path.read_text("utf-8", errors="replace").splitlines():
                # The last line may have been cut off with the program.
                with contextlib.suppress(ValueError, KeyError):
                    entry = json.loads(line)
                    kinds[entry.get("what", "fetched")][entry["name"]] = entry["sha256"]
        self._file = self._path.open("a", encoding="utf-8")
        # Behind a line that was cut off a new one begins.
        self._file.write("\n")

    def note_fetched(self, name: str, sha256: str, local: str) -> None:
        """Write down that *name* is here; returns when that is on the disk."""
        self._write("fetched", name, sha256, local=local)
        os.fsync(self._file.fileno())
        self.fetched[name] = sha256

    def note_begun(self, remote: str, sha256: str) -> None:
        """Write down that a large file is on its way."""
        self._write("begun", remote, sha256)
        self.begun[remote] = sha256

    def note_sent(self, remote: str, sha256: str) -> None:
        """Write down that the relay has taken a file, which its list will show."""
        self._write("sent", remote, sha256)
        self.sent[remote] = sha256

    def _write(self, what: str, name: str, sha256: str, **more: str) -> None:
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        entry = {"at": at, "what": what, "name": name, "sha256": sha256, **more}
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of *folder*; Busy where one is there.  The system lets go when the program ends, however."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+b") as lock:
        try:
            if os.name == "posix":
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                import msvcrt

                msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            raise Busy(f"another run is at work in {folder}") from error
        yield


# --- sending -----------------------------------------------------------------------------------------------------


def find_items(folder: Path, *, is_settled: Callable[[Path], bool] = lambda _: True) -> list[Item]:
    """Return the files to be sent, sorted by name so that units go in their order."""
    found: list[Item] = []
    for directory in [folder, *(path for path in folder.iterdir() if path.is_dir() and _OFFICE.fullmatch(path.name))]:
        number = "" if directory == folder else directory.name
        found += [
            Item(path, number, path.stat().st_size)
            for path in directory.iterdir()
            if path.is_file() and not path.is_symlink() and not _UNFINISHED.search(path.name) and is_settled(path)
        ]
    return sorted(found, key=lambda item: (item.folder, item.path.name))


def is_settled(path: Path) -> bool:
    """True where nobody has written to the file for a moment."""
    return datetime.now(UTC).timestamp() - path.stat().st_mtime >= SETTLED_SECONDS


def check_before(items: Iterable[Item], office: str, offices: dict[str, str]) -> dict[str, str]:
    """Return what is wrong with files before anything is sent, by path: names always, contents where relay is here."""
    wrong: dict[str, str] = {}
    for item in items:
        if not item.recipient:
            wrong[str(item.path)] = "the name says no recipient: put it into a folder named by the office number"
        elif item.recipient not in offices:
            wrong[str(item.path)] = f"office {item.recipient} takes no part"
        elif (match := _NAMED.fullmatch(item.path.name)) and not item.folder and match[1].upper() != office:
            wrong[str(item.path)] = f"the name says sender {match[1]}, and you are {office}"
        elif item.size == 0:
            wrong[str(item.path)] = "the file is empty"
    return wrong | _check_contents([item for item in items if str(item.path) not in wrong], office)


def _check_contents(items: Sequence[Item], office: str) -> dict[str, str]:
    """Ask `relay check`, where it is installed beside this program."""
    program = Path(sys.executable).with_name("relay")
    if not program.exists() or not items:
        return {}
    wrong: dict[str, str] = {}
    for at in range(0, len(items), 500):
        some = [item for item in items[at : at + 500] if not item.folder]
        command = [str(program), "check", "--json", "--as", office, *(str(item.path) for item in some)]
        if not some:
            continue
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, stdin=subprocess.DEVNULL)
        for line in done.stdout.splitlines():
            with contextlib.suppress(ValueError, KeyError, IndexError):
                told = json.loads(line.strip().rstrip(","))
                if told["verdict"] == "refuse":
                    worst = next(one for one in told["findings"] if one["severity"] == "refuse")
                    wrong[told["file"]] = f"{worst['code']}: {worst['message_ja']} / {worst['message_en']}"
    return wrong


class Sender:
    """Sends what lies in a folder, and moves it when the relay has confirmed it."""

    def __init__(self, run: Run, link: Link, folder: Path, journal: Journal) -> None:
        self._run = run
        self._link = link
        self._folder = folder
        self._journal = journal
        self._waiting: list[tuple[Item, str]] = []

    async def send_all(self, items: Sequence[Item]) -> None:
        """Send *items*, so many at once; those that the relay's list does not confirm stay where they are."""
        with show_bar("sending", len(items), self._run) as advance:
            items = await self._confirm_earlier(items, advance)
            for at in range(0, len(items), CONFIRMED_AT_ONCE):
                await self._send_some(items[at : at + CONFIRMED_AT_ONCE], advance)
                for item, _ in await self._confirm():
                    reason = "the relay's list does not show it yet; it stays here and is looked at again next time"
                    self._run.tell(Result("send", item.path.name, "unsure", item.recipient, reason))

    async def _confirm_earlier(self, items: Sequence[Item], advance: Callable[[], None]) -> Sequence[Item]:
        """Move what an earlier run sent and could not confirm before it was ended; return the others."""
        for item in items:
            if item.remote in self._journal.sent:
                with contextlib.suppress(OSError):
                    digest = await asyncio.to_thread(digest_of, item.path)
                    if digest == self._journal.sent[item.remote]:
                        self._waiting.append((item, digest))
        earlier = {id(item) for item, _ in self._waiting}
        left = {id(item) for item, _ in await self._confirm()}
        for _ in range(len(earlier) - len(left)):
            advance()
        return [item for item in items if id(item) not in earlier - left]

    async def _send_some(self, items: Sequence[Item], advance: Callable[[], None]) -> None:
        queue = iter(items)

        async def work() -> None:
            for item in queue:
                await self._send(item)
                advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(items))):
                group.create_task(work())

    async def _send(self, item: Item) -> None:
        try:
            digest = await self._link.retry(lambda sftp: upload(sftp, item, self._journal))
        except FileNotFoundError:
            return
        except LocalTrouble as error:
            self._run.tell(Result("send", item.path.name, "failed", item.recipient, str(error)))
        except asyncssh.SFTPError as error:
            if is_of(error, LATER):
                self._run.tell(Result("send", item.path.name, "left", item.recipient, str(error.reason)))
            else:
                self.refuse(item, str(error.reason))
        else:
            self._journal.note_sent(item.remote, digest)
            self._waiting.append((item, digest))

    def refuse(self, item: Item, reason: str) -> None:
        """Move a refused file away, with the reason beside it."""
        there = move_aside(item.path, self._folder / REFUSED / item.folder)
        there.with_name(there.name + ".reason.txt").write_text(reason + "\n", encoding="utf-8")
        self._run.tell(Result("send", item.path.name, "refused", item.recipient, reason))

    async def _confirm(self) -> list[tuple[Item, str]]:
        """Move what the relay's own list shows with the same digest; return what it does not show."""
        if not self._waiting:
            return []
        waiting, self._waiting = self._waiting, []
        # What the relay tells of itself holds for a session for a minute: a new one tells what is so now.
        await self._link.close()
        listed = await self._link.retry(read_sent)
        left: list[tuple[Item, str]] = []
        for item, digest in waiting:
            if (item.recipient, item.path.name.casefold(), digest) in listed:
                move_aside(item.path, self._folder / SENT / item.folder)
                self._run.tell(Result("send", item.path.name, "sent", item.recipient))
            else:
                left.append((item, digest))
        return left


async def upload(sftp: Sftp, item: Item, journal: Journal) -> str:
    """Bring one file into ``send/`` and return its SHA-256.

    SFTPError in the relay's words where it is refused, LocalTrouble where it cannot be read or changes meanwhile.
    """
    if item.size > RESUMED_BYTES:
        return await _upload_large(sftp, item, journal)
    with here(item.path):
        content = item.path.read_bytes()
    if len(content) != item.size:
        raise LocalTrouble(f"{item.path.name} is being written to")
    flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_TRUNC
    there = await sftp.open(f"/send/{item.remote}", flags, encoding=None)
    try:
        for at in range(0, len(content), BLOCK_BYTES):
            await there.write(content[at : at + BLOCK_BYTES], at)
    except asyncssh.SFTPError:
        await there.close()
        raise
    except BaseException:
        # A CLOSE would say that this is all of it.
        sftp.exit()
        raise
    await there.close()
    return hashlib.sha256(content).hexdigest()


async def _upload_large(sftp: Sftp, item: Item, journal: Journal) -> str:
    """Upload under a temporary name, from where an earlier run of the same bytes was ended, then rename."""
    with here(item.path):
        digest = await asyncio.to_thread(digest_of, item.path)
    target, part, start = f"/send/{item.remote}", f"/send/{item.remote}.part", 0
    if journal.begun.get(item.remote) == digest:
        with contextlib.suppress(asyncssh.SFTPError):
            start = (await sftp.stat(part)).size or 0
    if not 0 < start <= item.size:
        start = 0
        journal.note_begun(item.remote, digest)
    flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | (0 if start else asyncssh.FXF_TRUNC)
    there = await sftp.open(part, flags, encoding=None)
    try:
        written = await _write(there, item, start)
    finally:
        # Under this name it does not say that this is all.
        await there.close()
    if written != digest:
        raise LocalTrouble(f"{item.path.name} was changed while it was being sent")
    await sftp.posix_rename(part, target)
    return digest


async def _write(there: asyncssh.SFTPClientFile, item: Item, start: int) -> str:
    """Write all of a file from *start* on; returns the SHA-256 of the whole."""
    digest, at = hashlib.sha256(), 0
    with here(item.path):
        source = item.path.open("rb")
    with source:
        while True:
            with here(item.path):
                block = source.read(BLOCK_BYTES)
            if not block:
                return digest.hexdigest()
            digest.update(block)
            if at + len(block) > start:
                await there.write(block[max(0, start - at) :], max(at, start))
            at += len(block)


async def read_sent(sftp: Sftp) -> set[tuple[str, str, str]]:
    """Return recipient, name and digest of everything that the relay lists as sent; what was taken back is not."""
    rows = json.loads(await read_whole(sftp, "/status/sent.json"))["sent"]
    return {
        (row["recipient"], row["name"].casefold(), row["sha256"])
        for row in rows
        if row["state"] in ("accepted", "collected", "destroyed")
    }


# --- fetching ----------------------------------------------------------------------------------------------------


class Fetcher:
    """Fetches what has arrived."""

    def __init__(self, run: Run, link: Link, folder: Path, journal: Journal) -> None:
        self._run = run
        self._link = link
        self._folder = folder
        self._journal = journal

    async def fetch_all(self) -> None:
        """Fetch everything in ``new/``, and put away what an earlier run had fetched."""
        names = await self._link.retry(lambda sftp: list_names(sftp, "/new"))
        queue = iter(names)
        with show_bar("fetching", len(names), self._run) as advance:

            async def work() -> None:
                for name in queue:
                    await self._fetch(name)
                    advance()

            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(names))):
                    group.create_task(work())
        await self._put_away_rest(set(names))

    async def _fetch(self, name: str) -> None:
        try:
            await self._link.retry(lambda sftp: self._download(sftp, name))
        except asyncssh.SFTPNoSuchFile:
            # Taken back by its sender meanwhile.
            return
        except LocalTrouble as error:
            self._run.tell(Result("fetch", name, "failed", reason=str(error)))
        except asyncssh.SFTPError as error:
            self._run.tell(Result("fetch", name, "failed", reason=str(error.reason)))

    async def _download(self, sftp: Sftp, name: str) -> None:
        """Write, sync, name and note a file; then close it there, which is what tells the relay that it was read."""
        draft = self._folder / f".{hashlib.sha256(name.encode()).hexdigest()[:16]}.part"
        digest = hashlib.sha256()
        there = await sftp.open(f"/new/{name}", "rb", encoding=None)
        try:
            with here(draft):
                target = draft.open("wb")
            with target:
                at = 0
                while block := bytes(await there.read(BLOCK_BYTES, at)):  # type: ignore[arg-type]
                    with here(draft):
                        target.write(block)
                    digest.update(block)
                    at += len(block)
                with here(draft):
                    target.flush()
                    os.fsync(target.fileno())
            with here(draft):
                self._name(name, draft, digest.hexdigest())
        finally:
            await there.close()
        await put_away(sftp, name)

    def _name(self, name: str, draft: Path, sha256: str) -> None:
        """Give a file its name, unless an earlier run did so already, and write that into the journal."""
        if self._journal.fetched.get(name) == sha256:
            draft.unlink()
            return
        local = self._folder / safe_name(name)
        if local.exists() and digest_of(local) != sha256:
            local = free_name(local)
        draft.replace(local)
        sync_folder(self._folder)
        self._journal.note_fetched(name, sha256, local.name)
        self._run.tell(Result("fetch", name, "fetched", name.split("_", 1)[0] if _OFFICE.match(name) else ""))

    async def _put_away_rest(self, just_now: set[str]) -> None:
        """Move to ``done/`` what was read and noted by a run that ended before it could."""
        for name in await self._link.retry(lambda sftp: list_names(sftp, "/receive")):
            if name in self._journal.fetched and name not in just_now:
                with contextlib.suppress(asyncssh.SFTPError):
                    await self._link.retry(functools.partial(put_away, name=name))


async def ask_name(sftp: Sftp, office: str) -> str | None:
    """Return the name of an office, '' where the relay does not tell it, None where files cannot be sent to it."""
    try:
        names = await list_names(sftp, f"/send/{office}")
    except asyncssh.SFTPError as error:
        if isinstance(error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)):
            raise
        return None
    return next((match[1] for name in names if (match := _ADDRESSEE.fullmatch(name))), "")


async def put_away(sftp: Sftp, name: str) -> None:
    """Move a file that was read out of ``receive/``."""
    await sftp.rename(f"/receive/{name}", f"/{DONE_FOLDER}/{name}")


async def list_names(sftp: Sftp, folder: str) -> list[str]:
    """Return the names in a directory, in the relay's order."""
    return [str(entry.filename) async for entry in sftp.scandir(folder) if entry.filename not in (".", "..")]


async def read_whole(sftp: Sftp, path: str) -> bytes:
    """Return a file of the relay's own."""
    file = await sftp.open(path, "rb", encoding=None)
    try:
        return bytes(await file.read())  # type: ignore[arg-type]
    finally:
        await file.close()


# --- the line ----------------------------------------------------------------------------------------------------


class Link:
    """A connection that comes again: whatever is asked of it is tried until it is done, refused, or hopeless."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._folder = Path(arguments.identity).expanduser()
        self._stack = contextlib.AsyncExitStack()
        self._sftp: Sftp | None = None
        self._conn: asyncssh.SSHClientConnection | None = None
        self._lock = asyncio.Lock()

    @property
    def office(self) -> str:
        """Who is logged in."""
        return "" if self._conn is None else str(self._conn.get_extra_info("username"))

    async def open(self) -> Sftp:
        """Return the session, making it where there is none."""
        async with self._lock:
            if self._sftp is None:
                given, folder = self._arguments, self._folder
                options: dict[str, Any] = {"config": [str(folder / "config")], "keepalive_interval": 30}
                host = "careplan-relay"
                if given.host:
                    host = given.host
                    options = {
                        "config": [], "port": given.port, "username": given.office, "client_keys": [str(folder / "id_relay")],
                        "known_hosts": str(folder / "known_hosts"), "keepalive_interval": 30,
                    }  # fmt: skip
                self._conn = await self._stack.enter_async_context(asyncssh.connect(host, agent_path=None, **options))
                self._sftp = await self._stack.enter_async_context(self._conn.start_sftp_client())
            return self._sftp

    async def close(self) -> None:
        """End the connection."""
        stack, self._stack = self._stack, contextlib.AsyncExitStack()
        self._sftp = self._conn = None
        with contextlib.suppress(*Trouble):
            await stack.aclose()

    async def retry(self, work: Callable[[Sftp], Awaitable[T]]) -> T:
        """Do *work*; SFTPError where the relay has said no for good, the last trouble after so many tries."""
        sftp: Sftp | None = None
        for attempt in range(TRIES):
            try:
                sftp = await (self.open() if attempt == 0 else self._open_again())
                return await work(sftp)
            except asyncssh.SFTPError as error:
                is_broken = isinstance(error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection))
                if (not is_broken and not is_of(error, PASSING)) or attempt == TRIES - 1:
                    raise
                if is_broken:
                    await self._drop(sftp)
            except (FileNotFoundError, LocalTrouble, *Shut):
                raise
            except Trouble:
                if attempt == TRIES - 1:
                    raise
            # Not all at the same moment.
            await asyncio.sleep(random.uniform(0.5, 1.0) * 2**attempt)  # noqa: S311
        raise AssertionError("the last try returns or raises")

    async def _drop(self, sftp: Sftp | None) -> None:
        """End the connection of a session that has ended, unless somebody else has made another one already."""
        if sftp is not None and self._sftp is sftp:
            await self.close()

    async def _open_again(self) -> Sftp:
        if self._conn is not None and self._conn.is_closed():
            await self.close()
        return await self.open()


def is_of(error: asyncssh.SFTPError, codes: tuple[str, ...]) -> bool:
    """True where the relay said one of *codes*, or one that begins with it."""
    match = _CODE.match(str(error.reason))
    return match is not None and match[1].startswith(codes)


# --- files here --------------------------------------------------------------------------------------------------


def move_aside(path: Path, folder: Path) -> Path:
    """Move a file into *folder* under its name, or the next one that is free; returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if target.exists():
        target = free_name(target)
    path.replace(target)
    sync_folder(folder)
    return target


def free_name(path: Path) -> Path:
    """Return *path* with a number in it that no file has."""
    for number in range(2, 1_000_000):
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
        if not candidate.exists():
            return candidate
    raise FileExistsError(path)


def safe_name(name: str) -> str:
    """Return *name* as a file here may be called; the relay lets no separators through, and neither does this."""
    clean = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name).strip(" .")
    return clean or "_"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def show_bar(what: str, total: int, run: Run) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, nothing otherwise."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_hidden = run.arguments.json or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=is_hidden, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


# --- the commands ------------------------------------------------------------------------------------------------


async def send(run: Run, link: Link, folder: Path) -> None:
    """Send what lies in *folder*; with ``--dry-run`` only show where it would go."""
    items = await asyncio.to_thread(
        find_items, folder, is_settled=is_settled if run.arguments.do == "watch" else lambda _: True
    )
    if not items:
        return
    await link.retry(lambda sftp: sftp.stat("/"))
    offices = json.loads(await link.retry(lambda sftp: read_whole(sftp, "/status/offices.json")))["offices"]
    names = {row["number"]: row["name"] for row in offices}
    for number in {item.recipient for item in items} - names.keys() - {""}:
        # A relay may list few offices, or none.
        if (name := await link.retry(functools.partial(ask_name, office=number))) is not None:
            names[number] = name
    wrong = await asyncio.to_thread(check_before, items, link.office, names)
    if run.arguments.dry_run:
        for item in items:
            why = wrong.get(str(item.path), "")
            shown = f"{item.recipient} {names.get(item.recipient, '')}".strip()
            run.tell(Result("send", item.path.name, "refused" if why else "would go", shown, why))
        return
    with alone(folder), contextlib.closing(Journal(folder)) as journal:
        sender = Sender(run, link, folder, journal)
        for item in items:
            if str(item.path) in wrong and item.path.exists():
                sender.refuse(item, wrong[str(item.path)])
        await sender.send_all([item for item in items if str(item.path) not in wrong])


async def fetch(run: Run, link: Link, folder: Path) -> None:
    """Fetch what has arrived; with ``--dry-run`` only show it."""
    if run.arguments.dry_run:
        for name in await link.retry(lambda sftp: list_names(sftp, "/new")):
            run.tell(Result("fetch", name, "would come"))
        return
    with alone(folder), contextlib.closing(Journal(folder)) as journal:
        await Fetcher(run, link, folder, journal).fetch_all()


async def sync(run: Run, link: Link, folder: Path) -> None:
    """Send ``outbox``, fetch into ``inbox``."""
    for name in ("outbox", "inbox"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    await send(run, link, folder / "outbox")
    await fetch(run, link, folder / "inbox")


async def watch(run: Run, link: Link, folder: Path, stop: asyncio.Event) -> None:
    """Sync again and again; after trouble the pauses grow, and shrink when it is over."""
    pause = run.arguments.every
    while not stop.is_set():
        try:
            await sync(run, link, folder)
            pause = run.arguments.every
        except* (*Trouble, Busy) as errors:
            pause = min(WAIT_MOST_SECONDS, 2 * pause)
            print(f"trouble   {describe(errors)}; next try in {pause:.0f} s", file=sys.stderr, flush=True)
            await link.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


def describe(error: BaseException) -> str:
    """Return what went wrong, in a line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(getattr(error, "reason", "")) or str(error) or type(error).__name__


async def carry_out(arguments: argparse.Namespace) -> int:
    """Run a command to its end, or until it is told to stop."""
    run, link, stop = Run(arguments), Link(arguments), asyncio.Event()
    folder = Path(arguments.folder)
    try:
        if arguments.do == "watch":
            with contextlib.suppress(NotImplementedError):
                for number in (signal.SIGINT, signal.SIGTERM):
                    asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await watch(run, link, folder, stop)
        else:
            await {"send": send, "fetch": fetch, "sync": sync}[arguments.do](run, link, folder)
    except* Busy as errors:
        print(f"{describe(errors)}", file=sys.stderr)
        return_code = UNREACHABLE
    except* Shut as errors:
        print(f"The relay does not let this office in, or is another one: {describe(errors)}", file=sys.stderr)
        return_code = MISUSED
    except* Trouble as errors:
        print(f"The relay cannot be reached, or ended the connection: {describe(errors)}", file=sys.stderr)
        return_code = UNREACHABLE
    else:
        run.sum_up()
        return_code = run.code
    finally:
        await link.close()
    if arguments.json:
        print(json.dumps({"do": arguments.do, "summary": dict(run.outcomes), "code": return_code}), flush=True)
    return return_code


def main() -> int:
    """Read the command line and carry it out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("send", "fetch", "sync", "watch"))
    parser.add_argument("folder")
    parser.add_argument(
        "--identity",
        default="~/careplan-relay",
        help="the folder with id_relay, its certificate, known_hosts and config",
    )
    parser.add_argument("--host", help="instead of config's; then also --port and --office")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--office", help="the office number to log in with")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and to whom files would go")
    parser.add_argument(
        "--every", type=float, default=60.0, metavar="SECONDS", help="with watch: between two rounds (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a file, and a summary")
    parser.add_argument("--quiet", action="store_true", help="say only what needs somebody")
    arguments = parser.parse_args()
    if arguments.do == "send" and not Path(arguments.folder).is_dir():
        parser.error(f"there is no folder {arguments.folder}")
    if not (Path(arguments.identity).expanduser() / "id_relay").exists():
        parser.error(
            f"there is no id_relay in {arguments.identity}: run scripts/enroll first, or name the folder with --identity"
        )
    if bool(arguments.host) != bool(arguments.office):
        parser.error("--host and --office go together")
    try:
        return asyncio.run(carry_out(arguments))
    except KeyboardInterrupt:
        print("Stopped; run it again to go on.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
