"""The installation a command works on: its configuration, its keys and its store, opened and closed in order."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from relay.cli.terminal import CommandRefused
from relay.model import Office, OfficeNumber

if TYPE_CHECKING:
    from relay.config import Config
    from relay.keyring import Keyring
    from relay.ledger import Ledger

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", envvar="RELAY_HOME", metavar="DIR", help="Where the relay lives.", show_default="current folder"
    ),
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Installation:
    """One relay, open for this command; *actor* stands in the history for what it changes."""

    config: Config
    keyring: Keyring
    ledger: Ledger
    actor: str

    @property
    def now(self) -> datetime:
        """The time of this call."""
        return datetime.now(UTC)


@asynccontextmanager
async def open_installation(home: Path) -> AsyncIterator[Installation]:
    """Open the relay that lives in *home*.

    ConfigError says, in words, which setting, key or store is missing or wrong.
    """
    from relay.config import load_config
    from relay.keyring import load_keyring
    from relay.ledger.sqlite import open_ledger

    config = load_config(home)
    keyring = load_keyring(config.keys_path)
    ledger = await open_ledger(
        config.store.path,
        keyring.open_vault(),
        lock_wait_seconds=config.store.lock_wait_seconds,
        checkpoint_bytes=config.store.checkpoint_bytes,
        sent_listed=timedelta(seconds=config.tree.sent_listed_seconds),
    )
    try:
        yield Installation(config, keyring, ledger, _describe_operator())
    finally:
        await ledger.close()


def run(work: Coroutine[None, None, T]) -> T:
    """Run a command's work to its end."""
    return asyncio.run(work)


def _describe_operator() -> str:
    """Name who is at the keyboard; behind sudo, the person and not root."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"operator {user}"


def read_office_number(text: str) -> OfficeNumber:
    """Read an office number as it is typed; CommandRefused says what is wrong with it."""
    from relay.standard.offices import explain_office_number, parse_office_number

    number = parse_office_number(text.strip())
    if number is None:
        why = explain_office_number(text.strip())
        raise CommandRefused(f"{text!r} is no office number: {why.en if why else ''}")
    return number


async def find_office(ledger: Ledger, text: str) -> Office:
    """Return the registered office that *text* names; CommandRefused where there is none."""
    number = read_office_number(text)
    office = await ledger.find_office(number)
    if office is None:
        raise CommandRefused(f"office {number} is not registered: `relay office add {number} --name …`")
    return office
