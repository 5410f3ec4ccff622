"""The installation a command works on: its configuration, its keys and its store, opened and closed in order."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from relay.cli.terminal import CommandRefused, warn
from relay.model import EventKind, Office, OfficeNumber

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

# Office numbers, serials, counts, spans and days.
_HARMLESS = re.compile(r"[0-9][0-9A-Z-]{0,19}|[0-9]{1,6}[mhdwy]")
_WORD = re.compile(r"[a-z][a-z-]{1,15}")
_OPTION = re.compile(r"-[a-z]|--[a-z][a-z-]*")
# `relay NOUN VERB`.
_COMMAND_WORDS = 2
_COMMAND_CHARACTERS = 400

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
    from relay.configfile import load_config
    from relay.keyring import load_keyring
    from relay.ledger.auditing import ensure_audit_key
    from relay.ledger.sqlite import open_ledger

    config = load_config(home)
    if ensure_audit_key(config.keys_path, config.store.path):
        warn(f"made {config.keys_path / 'audit.key'}, which this relay did not have yet: back up keys/ again")
    keyring = load_keyring(config.keys_path)
    ledger = await open_ledger(
        config.store.path,
        keyring.open_vault(),
        keyring.audit_key,
        anchor=config.audit.anchor,
        lock_wait_seconds=config.store.lock_wait_seconds,
        checkpoint_bytes=config.store.checkpoint_bytes,
        sent_listed=timedelta(seconds=config.tree.sent_listed_seconds),
        mail=config.mail.rhythm,
    )
    relay = Installation(config, keyring, ledger, describe_operator())
    # It goes with the first thing that the command changes; one that only looks writes it when it ends.
    ledger.note_event(EventKind.COMMAND, actor=relay.actor, detail=describe_command(sys.argv[1:]), now=relay.now)
    try:
        yield relay
    finally:
        await ledger.close()
        if ledger.anchor_trouble is not None:
            warn(ledger.anchor_trouble)


def run(work: Coroutine[None, None, T]) -> T:
    """Run a command's work to its end."""
    return asyncio.run(work)


def describe_operator() -> str:
    """Name who is at the keyboard by his login name; behind sudo, the person and not root.

    Only root is believed what the environment says: anybody else could write there what he likes.
    """
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    person = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return f"operator {person or user}"


def describe_command(arguments: Sequence[str]) -> str:
    """Say which command it is: its words, its options, and of their values only numbers, spans and days.

    A name, a reason or a path may hold a person; what a command did with it stands in the events of its own.
    """
    rest = _without_home(arguments)
    words = rest[:_COMMAND_WORDS]
    told = [word if _WORD.fullmatch(word) else "…" for word in words]
    for argument in rest[_COMMAND_WORDS:]:
        option, equals, value = argument.partition("=")
        if _OPTION.fullmatch(option):
            told.append(option + (f"={value if _HARMLESS.fullmatch(value) else '…'}" if equals else ""))
        else:
            told.append(argument if _HARMLESS.fullmatch(argument) else "…")
    return " ".join(told)[:_COMMAND_CHARACTERS]


def _without_home(arguments: Sequence[str]) -> list[str]:
    kept, is_value = [], False
    for argument in arguments:
        if not is_value and argument != "--home" and not argument.startswith("--home="):
            kept.append(argument)
        is_value = argument == "--home"
    return kept


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
