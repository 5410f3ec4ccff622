"""``relay transfer hold``, ``release`` and ``return``: a file that went to the wrong office, stopped by telephone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, Installation, open_installation, run
from relay.cli.terminal import CommandRefused, YesOption, confirm, say, say_time, warn
from relay.errors import Refused
from relay.lifecycle import State
from relay.model import EventKind, Transfer, TransferId

# SQLite's integers end here.
_NUMBER_MOST = 2**63 - 1
_REASON_MOST = 200

NumberArgument = Annotated[
    int, typer.Argument(metavar="NUMBER", min=1, max=_NUMBER_MOST, help="Its number (受付番号).", show_default=False)
]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", help="Why: both offices and the history have it. No person's name.", show_default=False),
]


def hold(number: NumberArgument, *, reason: ReasonOption, yes: YesOption = False, home: HomeOption = Path()) -> None:
    """Take a file that nobody has collected out of its recipient's sight, until it is released."""
    run(_change(home, TransferId(number), check_reason(reason), is_hold=True, yes=yes))


def release(number: NumberArgument, *, reason: ReasonOption, yes: YesOption = False, home: HomeOption = Path()) -> None:
    """Let the recipient have a file that is held, or that was reported as misdirected by mistake."""
    run(_change(home, TransferId(number), check_reason(reason), is_hold=False, yes=yes))


def return_(number: NumberArgument, *, reason: ReasonOption, yes: YesOption = False, home: HomeOption = Path()) -> None:
    """Give a file that went to the wrong office back to its sender.

    Not collected yet: its recipient cannot see or read it any more, and its sender finds it in recall/ for a week.
    Collected: that cannot be undone; it leaves its recipient's folders, and both offices read that it was misdirected.
    """
    run(_return(home, TransferId(number), check_reason(reason), yes=yes))


def check_reason(reason: str) -> str:
    """Return *reason* as it is kept; CommandRefused where it is empty, too long or not one line."""
    told = reason.strip()
    if not told or len(told) > _REASON_MOST or not told.replace("\u3000", "").isprintable():
        raise CommandRefused(f"--reason must be one line of at most {_REASON_MOST} characters")
    return told


async def _find(relay: Installation, number: TransferId) -> tuple[Transfer, str]:
    found = await relay.ledger.find_transfer(number)
    if found is None:
        raise CommandRefused(f"there is no transfer {number}")
    return found, f"{found.kind} from {found.sender} to {found.recipient}"


async def _change(home: Path, number: TransferId, reason: str, *, is_hold: bool, yes: bool) -> None:
    async with open_installation(home) as relay:
        found, ends = await _find(relay, number)
        if is_hold is found.is_held and (is_hold or found.reported_at is None):
            say(f"transfer {number} is {'held already' if is_hold else 'not held'}: nothing was changed")
            return
        confirm(f"{'Hold' if is_hold else 'Release'} transfer {number} ({ends})?", yes=yes)
        change = relay.ledger.hold_transfer if is_hold else relay.ledger.release_transfer
        try:
            await change(number, reason=reason, actor=relay.actor, now=relay.now)
        except LookupError:
            raise CommandRefused(f"transfer {number} has ended: it is {found.state.value}") from None
        except Refused as refused:
            if found.collected_at is None:
                raise
            raise CommandRefused(
                f"transfer {number} was collected at {say_time(found.collected_at)}: its recipient has it. "
                f"`relay transfer return {number}` takes it out of its folders and tells both"
            ) from refused
    say(f"transfer {number} ({ends}) is {'held' if is_hold else 'with its recipient'}; both offices' status say so")


async def _return(home: Path, number: TransferId, reason: str, *, yes: bool) -> None:
    async with open_installation(home) as relay:
        found, ends = await _find(relay, number)
        if found.state is State.RETURNED or found.reported_at is not None:
            is_back = found.state is State.RETURNED
            say(f"transfer {number} is {'returned' if is_back else 'reported'} already: nothing was changed")
            return
        if found.collected_at is not None:
            warn(f"transfer {number} was collected {say_time(found.collected_at)}: that cannot be undone")
            confirm(f"Tell both offices that transfer {number} ({ends}) was misdirected?", yes=yes)
        else:
            confirm(f"Give transfer {number} ({ends}) back to its sender?", yes=yes)
        try:
            after = await relay.ledger.return_transfer(number, reason=reason, actor=relay.actor, now=relay.now)
        except LookupError:
            raise CommandRefused(f"transfer {number} has ended: it is {found.state.value}") from None
        has_begun = await _was_begun(relay, after)
    _say_returned(after, ends, has_begun=has_begun)


async def _was_begun(relay: Installation, transfer: Transfer) -> bool:
    """True where the recipient was given bytes of it."""
    events = await relay.ledger.list_events(transfer=transfer.id)
    return any(event.kind is EventKind.READ and event.actor != transfer.sender for event in events)


def _say_returned(transfer: Transfer, ends: str, *, has_begun: bool) -> None:
    if transfer.state is State.RETURNED:
        say(f"transfer {transfer.id} ({ends}) is returned: its recipient cannot see it any more")
        if has_begun:
            warn(f"{transfer.recipient} had begun to read it: ask on the telephone that what it has is deleted")
        say(
            f"{transfer.sender} reads so in お知らせ.txt and status/, finds it in recall/ for a week, and can send it anew"
        )
        return
    say(f"transfer {transfer.id} ({ends}) had been collected, and is noted as misdirected")
    say(
        f"{transfer.recipient} cannot fetch it again, and is asked in お知らせ.txt and status/ to delete it: call it as well"
    )
    say(f"{transfer.sender} reads the same; `relay transfer release {transfer.id}` takes the note back")
