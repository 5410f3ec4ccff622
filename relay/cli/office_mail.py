"""``relay office mail``: where an office is told by mail what arrived for it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, find_office, open_installation, run
from relay.cli.terminal import CommandRefused, say, warn
from relay.letters import Mailbox, MailPer, parse_address


class _Per(StrEnum):
    ARRIVAL = "arrival"
    DAY = "day"
    NONE = "none"


def mail(
    number: Annotated[str, typer.Argument(metavar="OFFICE", help="The office number.", show_default=False)],
    *,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where it is told.", show_default="as it is")
    ] = None,
    per: Annotated[
        _Per | None, typer.Option(help="A mail soon after something arrived, one a day, or none.", show_default=False)
    ] = None,
    home: HomeOption = Path(),
) -> None:
    """Tell an office by mail what arrived for it; mails name offices and count files, nothing else."""
    run(_mail(home, number, address, per))


async def _mail(home: Path, text: str, address: str | None, per: _Per | None) -> None:
    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, text)
        before = await relay.ledger.find_mailbox(office.number)
        mailbox = _plan_mailbox(before, address, per)
        changed = await relay.ledger.record_mailbox(office.number, mailbox, actor=relay.actor, now=relay.now)
        is_off = relay.config.mail.rhythm is None
    if mailbox is None:
        say(f"{office.number} {office.name} is not told by mail{'' if changed else ' already'}")
        return
    say(f"{office.number} {office.name} is told per {mailbox.per} at {mailbox.address}{'' if changed else ' already'}")
    if is_off:
        warn("no mail is sent: relay.toml names no mail server ([mail] host)")


def _plan_mailbox(before: Mailbox | None, address: str | None, per: _Per | None) -> Mailbox | None:
    """Return what shall hold; what was not said stays as it was."""
    if per is _Per.NONE:
        if address is not None:
            raise CommandRefused("--per none takes the address away: leave --address out")
        return None
    if address is None and per is None:
        raise CommandRefused("say --address, --per, or both; `relay office show` says what holds")
    if address is not None:
        try:
            address = parse_address(address.strip())
        except ValueError as error:
            raise CommandRefused(f"--address {error}") from None
    elif before is None:
        raise CommandRefused("the office has no address yet: give it with --address")
    else:
        address = before.address
    return Mailbox(address, MailPer(per.value) if per else before.per if before else MailPer.ARRIVAL)
