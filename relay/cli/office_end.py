"""``relay office close``, ``move`` and ``reopen``: an office ends under its number (廃止, 番号変更), and does not after all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.installation import HomeOption, Installation, find_office, open_installation, read_office_number, run
from relay.cli.terminal import (
    CommandRefused,
    JsonOption,
    YesOption,
    confirm,
    end_of_day,
    json_time,
    print_facts,
    print_json,
    read_day,
    say,
    say_time,
    warn,
)
from relay.cli.transfer_hold import check_reason
from relay.model import Office, OfficeEnd, OfficeNumber, OfficeStatus

if TYPE_CHECKING:
    from relay.ledger.closing import Holdings

# A quarter, as status/ shows it: who exchanged nothing since then is no partner any more.
_LATELY = timedelta(days=93)

NumberArgument = Annotated[str, typer.Argument(metavar="OFFICE", help="The office number.", show_default=False)]
OnOption = Annotated[
    str | None, typer.Option("--on", metavar="DATE", help="The first day of it, in Japan.", show_default="now")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, for the history; no person's name.", show_default=False)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]


def close(
    number: NumberArgument,
    *,
    on: OnOption = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="The last day on which it may collect.", show_default="31 days after"),
    ] = None,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Close an office for good (廃止), now or on a day to come.

    From then on nobody can send to it, and it sends nothing more.
    It may log in and collect for a while; the rest goes back to its senders.
    What it had sent is delivered. Its partners are told.
    """
    run(_close(home, number, (on, until), check_reason(reason), dry_run=dry_run, yes=yes, as_json=as_json))


async def _close(
    home: Path, text: str, days: tuple[str | None, str | None], reason: str, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    from relay.departures import tell_closing

    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, text)
        _refuse_ended(office)
        end = _plan(relay, days, relay.config.housekeeping.closed_days, reason, None)
        if office.status is OfficeStatus.SUSPENDED:
            end = replace(end, until=end.at)
        holdings, partners = await _look(relay, office)
        if as_json:
            print_json(_describe(office, end, holdings, partners))
        else:
            _print(office, end, holdings, partners)
        if dry_run:
            return
        confirm(f"Close {office.number} {office.name} from {say_time(end.at)}?", yes=yes)
        notices = tell_closing(office, end, partners, relay.now)
        after = await relay.ledger.plan_end(office.number, end, notices=notices, actor=relay.actor, now=relay.now)
    if not as_json:
        say(_say_after(after))


def move(
    number: Annotated[str, typer.Argument(metavar="OLD", help="The number until now.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The number from now on.", show_default=False)],
    *,
    on: OnOption = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="The last day of the old number.", show_default="93 days after"),
    ] = None,
    reason: ReasonOption,
    name: Annotated[
        str | None, typer.Option(help="Its name from now on, where NEW is not registered.", show_default="as before")
    ] = None,
    prefecture: Annotated[
        str | None, typer.Option(help="Its prefecture, the same way.", show_default="from the new number")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="NEW is an office that works already: OLD becomes a part of it.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Give an office another number (番号変更), now or on a day to come.

    The new number is registered where it is not.
    Whoever logs in under it sees what waits for the old one as well.
    For a while the old number goes on beside it: files named to it arrive,
    and their senders are warned. After that they are refused.
    Nothing that was sent is changed. Partners are told.
    """
    wishes = (name, prefecture)
    run(_move(home, (number, new), (on, until), check_reason(reason), wishes, merge=merge, dry_run=dry_run, yes=yes, as_json=as_json))  # fmt: skip


async def _move(
    home: Path,
    numbers: tuple[str, str],
    days: tuple[str | None, str | None],
    reason: str,
    wishes: tuple[str | None, str | None],
    *,
    merge: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from relay.departures import tell_moving

    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, numbers[0])
        _refuse_ended(office)
        if office.status is OfficeStatus.SUSPENDED:
            raise CommandRefused(f"office {office.number} is suspended: `relay office resume {office.number}` first")
        successor, is_new = await _find_successor(relay, office, numbers[1], wishes)
        await _check_merging(relay, office, successor, merge=merge)
        end = _plan(relay, days, relay.config.housekeeping.moved_days, reason, successor.number)
        holdings, partners = await _look(relay, office)
        if as_json:
            print_json(_describe(office, end, holdings, partners))
        else:
            _print(office, end, holdings, partners, successor)
        if dry_run:
            return
        question = (
            f"From {say_time(end.at)} on, {successor.number} {successor.name} ({successor.prefecture or '-'}) is what "
            f"{office.number} {office.name} ({office.prefecture or '-'}) was, and sees its files. Is that right?"
        )
        confirm(question, yes=yes)
        notices = tell_moving(office, successor, end, partners, relay.now)
        newcomer = successor if is_new else None
        try:
            after = await relay.ledger.plan_end(
                office.number, end, newcomer=newcomer, notices=notices, actor=relay.actor, now=relay.now
            )
        except ValueError as error:
            raise CommandRefused(str(error)) from None
        certificates = (await relay.ledger.count_holdings(successor.number, now=relay.now)).certificates
    if not as_json:
        say(_say_after(after))
    if not certificates:
        warn(f"nobody can log in as {successor.number} yet: `relay cert invite {successor.number}`")


def reopen(number: NumberArgument, *, reason: ReasonOption, yes: YesOption = False, home: HomeOption = Path()) -> None:
    """Undo a closing or a change of number, planned or done.

    What went back to its senders meanwhile stays there, and invitations have to be made anew.  Partners are told.
    """
    run(_reopen(home, number, check_reason(reason), yes=yes))


async def _reopen(home: Path, text: str, reason: str, *, yes: bool) -> None:
    from relay.departures import tell_reopening

    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, text)
        if office.end is None:
            say(f"{office.number} {office.name} is {office.status.value}, and no end is planned: nothing was changed")
            return
        sees = f"; {office.end.successor} does not see its files any more" if office.end.successor else ""
        confirm(f"Let {office.number} {office.name} go on under its number{sees}?", yes=yes)
        _, partners = await _look(relay, office)
        notices = tell_reopening(office, partners, relay.now)
        after = await relay.ledger.reopen_office(
            office.number, reason=reason, notices=notices, actor=relay.actor, now=relay.now
        )
    say(f"{after.number} {after.name} is {after.status.value}, and goes on")


def _refuse_ended(office: Office) -> None:
    if office.status.has_ended:
        raise CommandRefused(
            f"office {office.number} is {say_end(office)}: `relay office reopen {office.number}` undoes it"
        )


def _plan(
    relay: Installation,
    days: tuple[str | None, str | None],
    most_days: int,
    reason: str,
    successor: OfficeNumber | None,
) -> OfficeEnd:
    """Return the end as it is asked for; days are whole ones in Japan."""
    on, until = days
    at = relay.now if on is None else read_day(on)
    last = (
        end_of_day(max(at, relay.now) + timedelta(days=most_days)) if until is None else read_day(until, is_last=True)
    )
    if last < at:
        raise CommandRefused("--until is before --on")
    return OfficeEnd(at, last, successor, reason)


async def _look(relay: Installation, office: Office) -> tuple[Holdings, tuple[OfficeNumber, ...]]:
    holdings = await relay.ledger.count_holdings(office.number, now=relay.now)
    return holdings, tuple(await relay.ledger.list_partners(office.number, since=relay.now - _LATELY))


async def _find_successor(
    relay: Installation, office: Office, text: str, wishes: tuple[str | None, str | None]
) -> tuple[Office, bool]:
    """Return the office under the new number, and whether it is to be registered; CommandRefused where it cannot follow."""
    from relay.cli.office import prefecture_of
    from relay.cli.register_file import find_name_fault
    from relay.standard.offices import has_check_digit

    number = read_office_number(text)
    if number == office.number:
        raise CommandRefused("the new number is the old one")
    known = await relay.ledger.find_office(number)
    name, prefecture = wishes
    if known is None:
        if fault := find_name_fault(name or office.name):
            raise CommandRefused(f"the name {fault}: give it with --name")
        if not has_check_digit(number):
            warn(f"the check digit of {number} does not fit: please compare it with the paper")
        new = Office(number, name or office.name, prefecture or prefecture_of(number), office.service_types)
        return new, True
    if name is not None or prefecture is not None:
        raise CommandRefused(f"office {number} is registered: `relay office add {number} --update` changes its name")
    if known.status.has_ended and known.end is not None and known.end.successor == office.number:
        raise CommandRefused(
            f"{number} was changed to {office.number} before: `relay office reopen {number}` undoes that"
        )
    if not known.is_active or known.end is not None:
        raise CommandRefused(f"office {number} is {say_end(known)}: nothing can follow under that number")
    return known, False


async def _check_merging(relay: Installation, office: Office, successor: Office, *, merge: bool) -> None:
    """CommandRefused where the new number has a life of its own, unless that is meant, or was when it was planned."""
    if office.end is not None and office.end.successor == successor.number:
        return
    holdings = await relay.ledger.count_holdings(successor.number, now=relay.now)
    if holdings.has_traffic and not merge:
        raise CommandRefused(
            f"{successor.number} {successor.name} has logged in or exchanged files before: if {office.number} becomes a part "
            "of it, whose staff may read all that waits for both, say so with --merge"
        )


def say_end(office: Office) -> str:
    """Say the status of an office with what is planned for it, as a word or some; days are Japan's."""
    from relay.sheets import JAPAN

    if office.end is None:
        return office.status.value
    on = f"{office.end.at.astimezone(JAPAN):%Y-%m-%d}"
    what = f"{office.end.successor}" if office.end.successor else ""
    if not office.status.has_ended:
        return f"{office.status.value}, {f'{what} from' if what else 'closes'} {on}"
    return f"{office.status.value} {f'to {what} ' if what else ''}since {on}"


def _say_after(office: Office) -> str:
    assert office.end is not None
    until = f"its certificates open the door until {say_time(office.end.until)}"
    return f"{office.number} {office.name} is {say_end(office)}; {until}"


def _print(
    office: Office,
    end: OfficeEnd,
    holdings: Holdings,
    partners: tuple[OfficeNumber, ...],
    successor: Office | None = None,
) -> None:
    waiting = "go back to their senders then" if successor is None else f"{successor.number} sees them, too"
    print_facts(
        [
            ("Office", f"{office.number} {office.name}"),
            *([("New number", f"{successor.number} {successor.name}")] if successor else []),
            ("From", say_time(end.at)),
            ("May log in until", say_time(end.until)),
            ("Files that wait for it", f"{holdings.waiting:,}" + (f": {waiting}" if holdings.waiting else "")),
            ("Files it sent, not collected", f"{holdings.sent:,}" + (": delivered as ever" if holdings.sent else "")),
            ("Unfinished uploads", f"{holdings.partials:,}" + (": end within a day" if holdings.partials else "")),
            ("Certificates", f"{holdings.certificates:,}"),
            ("Invitations", f"{holdings.invitations:,}" + (": end with it" if holdings.invitations else "")),
            ("Partners that are told", f"{len(partners):,}"),
        ]
    )


def _describe(
    office: Office, end: OfficeEnd, holdings: Holdings, partners: tuple[OfficeNumber, ...]
) -> dict[str, object]:
    return {
        "office_number": office.number,
        "successor": end.successor,
        "ends_at": json_time(end.at),
        "until_at": json_time(end.until),
        "waiting": holdings.waiting,
        "sent": holdings.sent,
        "partials": holdings.partials,
        "certificates": holdings.certificates,
        "invitations": holdings.invitations,
        "partners": list(partners),
    }
