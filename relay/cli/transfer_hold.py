"""``relay transfer hold`` and ``release``: a file that went to the wrong office, stopped by telephone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import CommandRefused, YesOption, confirm, say
from relay.model import TransferId

# SQLite's integers end here.
_NUMBER_MOST = 2**63 - 1
_REASON_MOST = 200

NumberArgument = Annotated[
    int, typer.Argument(metavar="NUMBER", min=1, max=_NUMBER_MOST, help="Its number (受付番号).", show_default=False)
]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, for the history; no person's name.", show_default=False)
]


def hold(number: NumberArgument, *, reason: ReasonOption, yes: YesOption = False, home: HomeOption = Path()) -> None:
    """Take a file that nobody has collected out of its recipient's sight, until it is released."""
    run(_change(home, TransferId(number), _check(reason), is_hold=True, yes=yes))


def release(number: NumberArgument, *, reason: ReasonOption, yes: YesOption = False, home: HomeOption = Path()) -> None:
    """Let the recipient have a held file."""
    run(_change(home, TransferId(number), _check(reason), is_hold=False, yes=yes))


def _check(reason: str) -> str:
    told = reason.strip()
    if not told or len(told) > _REASON_MOST or not told.replace("\u3000", "").isprintable():
        raise CommandRefused(f"--reason must be one line of at most {_REASON_MOST} characters")
    return told


async def _change(home: Path, number: TransferId, reason: str, *, is_hold: bool, yes: bool) -> None:
    async with open_installation(home) as relay:
        found = await relay.ledger.find_transfer(number)
        if found is None:
            raise CommandRefused(f"there is no transfer {number}")
        ends = f"{found.kind} from {found.sender} to {found.recipient}"
        if found.is_held is is_hold:
            say(f"transfer {number} is {'held already' if is_hold else 'not held'}: nothing was changed")
            return
        confirm(f"{'Hold' if is_hold else 'Release'} transfer {number} ({ends})?", yes=yes)
        change = relay.ledger.hold_transfer if is_hold else relay.ledger.release_transfer
        try:
            await change(number, reason=reason, actor=relay.actor, now=relay.now)
        except LookupError:
            raise CommandRefused(f"transfer {number} has ended: it is {found.state.value}") from None
    say(f"transfer {number} ({ends}) is {'held' if is_hold else 'with its recipient'}; both offices' status say so")
