"""What is found in a home after a power cut: its keys, its store, its history, and what two offices see of their files.

Everything is read by the relay's own code, as the server opens a store when it starts; only the network is left out,
because thousands of cuts are looked at.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import raw_sftp as sftp
from abort_judge import Found, View, judge_found
from busy_offices import Notebook
from house import CARE_MANAGER, HOME_HELP, House
from raw_sftp import RawSftp, open_raw

from relay import journal
from relay.cli.audit_verify import _judge_store
from relay.cli.audit_words import say_fault
from relay.collection import Collection
from relay.config import Config
from relay.configfile import load_config
from relay.keyring import Keyring, load_keyring
from relay.ledger import Ledger, Shelf
from relay.ledger.backups import inspect_backup
from relay.ledger.sqlite import open_ledger
from relay.model import Identity, OfficeNumber
from relay.status import StatusDesk

_LINE = journal.new_journal()
_KEYRINGS: dict[bytes, Keyring] = {}


@dataclass(frozen=True, slots=True)
class Promise:
    """A file that a command said it had made, and when."""

    path: str
    answered: int


async def examine(home: Path, notebook: Notebook, ended: int, backups: list[Promise]) -> list[str]:
    """Return what is wrong in *home*, where the power went at the moment *ended*."""
    faults: list[str] = []
    try:
        await _examine(home, notebook, ended, backups, faults)
    except Exception as error:  # noqa: BLE001 - whatever is raised by what is left is a fault of it
        faults.append(f"unusable: {type(error).__name__}: {error}")
    return faults


async def _examine(home: Path, notebook: Notebook, ended: int, backups: list[Promise], faults: list[str]) -> None:
    config, keyring = load_config(home, {}), load_keys(home / "keys")
    faults += [f"tampering: {fault}" for fault in _history_faults(config, keyring)]
    ledger = await open_ledger(
        config.store.path, keyring.open_vault(), keyring.audit_key, anchor=config.audit.anchor, lock_wait_seconds=1.0
    )
    async with ledger:
        faults += _store_faults(config.store.path)
        trouble = await ledger.advance_anchor()
        faults += [f"anchor: {trouble}"] if trouble else []
        faults += await _kept_faults(ledger, notebook, ended)
        found = await find_all(ledger, config, keyring)
    faults += [f"tampering, after a start: {fault}" for fault in _history_faults(config, keyring)]
    faults += [*_backup_faults(home, backups, ended), *judge_all(notebook, ended, found)]


def judge_all(notebook: Notebook, ended: int, found: Mapping[str, Found]) -> Iterator[str]:
    """Yield what is wrong with each file, and files that nobody has sent."""
    for name, content in notebook.contents.items():
        each = found.get(name, Found(View(), None))
        yield from (f"{name}: {fault}" for fault in judge_found(content, notebook.deeds.get(name, []), ended, each))
    yield from (f"{name}: invented: nobody has sent it" for name in found.keys() - notebook.contents.keys())


def load_keys(path: Path) -> Keyring:
    """Load the keys; what was loaded once with the same bytes is not checked again: RSA takes a tenth of a second."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        digest.update(f"{file.relative_to(path)} {file.stat().st_mode}\n".encode())
        digest.update(file.read_bytes() if file.is_file() else b"")
    known = _KEYRINGS.get(digest.digest())
    if known is None:
        known = _KEYRINGS[digest.digest()] = load_keyring(path)
    return replace(known, path=path)


def _history_faults(config: Config, keyring: Keyring) -> list[str]:
    """Judge as `relay audit verify` does."""
    verdict = _judge_store(config.store.path, config.audit.anchor, keyring.audit_key, [], is_quiet=True)
    return [say_fault(fault) for fault in verdict.faults]


def _store_faults(path: Path) -> Iterator[str]:
    with closing(sqlite3.connect(path)) as store:
        for pragma in ("integrity_check", "foreign_key_check"):
            rows = store.execute(f"PRAGMA {pragma}").fetchall()
            if rows not in ([], [("ok",)]):
                yield f"store: {pragma}: {rows}"
        (strays,) = store.execute(
            "SELECT count(*) FROM transfer WHERE (SELECT count(*) FROM event WHERE event.transfer = transfer.id AND kind = 'accepted') <> 1"
        ).fetchone()
        if strays:
            yield f"store: {strays} transfers without their event, or with two"


async def _kept_faults(ledger: Ledger, notebook: Notebook, ended: int) -> list[str]:
    faults = []
    for kept in notebook.kept:
        if kept.answered <= ended and (kept.until is None or ended < kept.until):
            partial = await ledger.find_partial(CARE_MANAGER, kept.path)
            size = 0 if partial is None else partial.size_bytes
            if size < kept.size_bytes:
                faults.append(f"{kept.path}: lost: {size} of {kept.size_bytes} bytes that were synced")
    return faults


def _backup_faults(home: Path, promised: list[Promise], ended: int) -> Iterator[str]:
    for backup in promised:
        path = home / backup.path
        if path.exists():
            inspect_backup(path)
        elif backup.answered <= ended:
            yield f"lost: {backup.path}, which a command said it had made"


async def find_all(ledger: Ledger, config: Config, keyring: Keyring) -> dict[str, Found]:
    """Return every file that either office sees, as it sees it and as its recipient reads it."""
    folders: dict[str, list[str]] = defaultdict(list)
    for shelf in (Shelf.NEW, Shelf.RECEIVE, Shelf.DONE):
        page = await ledger.list_shelf(HOME_HELP, shelf)
        assert page.cursor is None, "more files than one page: read on"
        for entry in page.entries:
            folders[entry.name].append(shelf.value)
    received = await _states(ledger, config, HOME_HELP, "received")
    sent = await _states(ledger, config, CARE_MANAGER, "sent")
    found = {}
    for name in folders.keys() | received.keys() | sent.keys():
        view = View(tuple(folders[name]), tuple(received[name]), tuple(sent[name]))
        found[name] = Found(view, await _read(ledger, keyring, name) if folders[name] else None)
    return found


async def _states(ledger: Ledger, config: Config, office: OfficeNumber, topic: str) -> dict[str, list[str]]:
    sheet = await StatusDesk(ledger, config).render(
        office, f"{topic}.json", identity=_identity(office), now=datetime.now(UTC)
    )
    return _parse_states(sheet, topic)


def _parse_states(sheet: bytes, topic: str) -> dict[str, list[str]]:
    states: dict[str, list[str]] = defaultdict(list)
    for row in json.loads(sheet)[topic]:
        states[row["name"]].append(row["state"])
    return states


async def _read(ledger: Ledger, keyring: Keyring, name: str) -> bytes | None:
    """Read it as its recipient does, without closing: nothing counts."""
    transfer = await ledger.find_delivered(HOME_HELP, name)
    if transfer is None:
        return None
    desk = Collection(ledger, keyring.open_vault(), lambda: datetime.now(UTC), may_discard=False)
    reading = await desk.open(transfer, _identity(HOME_HELP), _LINE)
    content = bytearray()
    while data := await reading.read(len(content), 200_000):
        content += data
    reading.forget()
    return bytes(content)


async def visit(house: House) -> dict[str, Found]:
    """Return the same as `find_all`, asked of a server by both offices over SFTP."""
    folders: dict[str, list[str]] = defaultdict(list)
    contents: dict[str, bytes] = {}
    states = {}
    for office, topic in ((CARE_MANAGER, "sent"), (HOME_HELP, "received")):
        async with house.dial(office) as connection, open_raw(connection) as raw:
            states[topic] = _parse_states(await raw.get(f"/status/{topic}.json"), topic)
            for folder in ("new", "receive", "done") if office == HOME_HELP else ():
                for name in set(await raw.list(f"/{folder}")) - {".", ".."}:
                    folders[name].append(folder)
                    contents[name] = await _read_open(raw, f"/{folder}/{name}")
    names = folders.keys() | states["sent"].keys() | states["received"].keys()
    return {
        name: Found(
            View(tuple(folders[name]), tuple(states["received"][name]), tuple(states["sent"][name])), contents.get(name)
        )
        for name in names
    }


async def _read_open(raw: RawSftp, path: str) -> bytes:
    """Read a file to its end and leave it open: nothing counts as collected."""
    handle, data = await raw.open(path, sftp.READING), bytearray()
    while (reply := await raw.call(sftp.READ, handle, sftp.Long(len(data)), 200_000)).type == sftp.DATA:
        data += reply.data
    return bytes(data)


def _identity(office: OfficeNumber) -> Identity:
    return Identity(office, "SHA256:of-no-consequence", 1, "aftermath", datetime.now(UTC) + timedelta(days=1))
