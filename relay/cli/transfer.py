"""``relay transfer``: what was relayed, told by number, kind and offices.

A free file name may hold a person: it is shown as ``*.pdf`` unless --reveal is given, and every revealing is an
event of the history, written before anything is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relay.cli.installation import HomeOption, Installation, open_installation, read_office_number, run
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    CommandRefused,
    JsonOption,
    LimitOption,
    ReverseOption,
    Tone,
    colour,
    console,
    effective_limit,
    json_time,
    note_rows,
    parse_since,
    print_facts,
    print_json,
    print_table,
    say,
    say_size,
    say_time,
    zoned,
)
from relay.cli.transfer_hold import hold, release, return_
from relay.cli.transfer_units import describe_standing, find_first_line, find_units, say_standing, units
from relay.lifecycle import State
from relay.model import Event, EventKind, Transfer, TransferId

if TYPE_CHECKING:
    from relay.units import Unit

app = typer.Typer(help="What was relayed.", no_args_is_help=True, context_settings=HELP_SETTINGS)
app.command()(units)
app.command()(hold)
app.command()(release)
app.command(name="return")(return_)

# Narrower than that, a name of the standard has no room: its kind stands there instead.
NAME_COLUMNS = 130
# SQLite's integers end here, and so do transfer numbers.
NUMBER_MOST = 2**63 - 1

RevealOption = Annotated[
    bool, typer.Option("--reveal", help="Show free file names, too. This is written to the history.")
]
_TONES = {State.ACCEPTED: None, State.COLLECTED: Tone.GOOD, State.DESTROYED: Tone.FADED}


class TransferOrder(StrEnum):
    """What a list of transfers can be sorted by."""

    ACCEPTED = "accepted"
    COLLECTED = "collected"
    FROM = "from"
    TO = "to"
    KIND = "kind"
    STATE = "state"
    SIZE = "size"


_KEYS: dict[TransferOrder, Callable[[Transfer], tuple[object, ...]]] = {
    # Newest first, what is not collected yet before what is; the others from small to large.
    TransferOrder.ACCEPTED: lambda transfer: (-transfer.accepted_at.timestamp(), -transfer.id),
    TransferOrder.COLLECTED: lambda transfer: (
        (0, 0.0) if transfer.collected_at is None else (1, -transfer.collected_at.timestamp())
    ),
    TransferOrder.FROM: lambda transfer: (transfer.sender, -transfer.id),
    TransferOrder.TO: lambda transfer: (transfer.recipient, -transfer.id),
    TransferOrder.KIND: lambda transfer: (transfer.kind, -transfer.id),
    TransferOrder.STATE: lambda transfer: (transfer.state, -transfer.id),
    TransferOrder.SIZE: lambda transfer: (transfer.size_bytes, -transfer.id),
}


@app.command(name="list")
def list_(
    *,
    sender: Annotated[str | None, typer.Option("--from", metavar="OFFICE", help="Only sent by this office.")] = None,
    recipient: Annotated[str | None, typer.Option("--to", metavar="OFFICE", help="Only sent to this office.")] = None,
    state: Annotated[
        State | None, typer.Option(metavar="STATE", help=f"Only these: {', '.join(State)}.", show_default=False)
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="Only since 2026-12-01, or 7d ago.")] = None,
    sort: Annotated[
        TransferOrder, typer.Option(metavar="BY", help=f"Sort by {', '.join(TransferOrder)}.")
    ] = TransferOrder.ACCEPTED,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    reveal: RevealOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """List transfers, newest first."""
    most = effective_limit(limit, as_json=as_json)
    in_order = sort is TransferOrder.ACCEPTED and not reverse
    # One more than is shown tells whether there are more.
    fetch = most + 1 if in_order and most is not None else None
    found, units_of = run(
        _list(
            home=home,
            sender=sender,
            recipient=recipient,
            state=state,
            since=since,
            fetch=fetch,
            reveal=reveal,
            order=sort,
            reverse=reverse,
            most=most,
        )
    )
    shown = found[:most]
    if as_json:
        print_json(
            [
                {**describe_transfer(transfer, reveal=reveal), "unit": describe_standing(units_of.get(transfer.id))}
                for transfer in shown
            ]
        )
    elif not shown:
        say("no transfers")
    else:
        total = len(found) if not in_order or len(found) == len(shown) else None
        _print_transfers(shown, units_of, reveal=reveal, note=note_rows(len(shown), most, "transfers", total))


async def _list(
    *,
    home: Path,
    sender: str | None,
    recipient: str | None,
    state: State | None,
    since: str | None,
    fetch: int | None,
    reveal: bool,
    order: TransferOrder,
    reverse: bool,
    most: int | None,
) -> tuple[list[Transfer], Mapping[TransferId, Unit]]:
    async with open_installation(home) as relay:
        found = await relay.ledger.list_transfers(
            sender=read_office_number(sender) if sender else None,
            recipient=read_office_number(recipient) if recipient else None,
            state=state,
            since=parse_since(since, relay.now) if since else None,
            limit=fetch,
        )
        found.sort(key=_KEYS[order], reverse=reverse)
        if reveal:
            await record_revealing(relay, found[:most])
        return found, await find_units(relay.ledger, found[:most])


async def record_revealing(relay: Installation, transfers: Sequence[Transfer]) -> None:
    """Write into history that free names among *transfers* are about to be shown."""
    hidden = [transfer.id for transfer in transfers if transfer.public_name != transfer.name]
    if hidden:
        detail = " ".join(map(str, hidden))
        await relay.ledger.record_event(EventKind.NAMES_REVEALED, actor=relay.actor, detail=detail, now=relay.now)


def _print_transfers(
    transfers: Sequence[Transfer], units_of: Mapping[TransferId, Unit], *, reveal: bool, note: str
) -> None:
    is_wide = console().width >= NAME_COLUMNS
    columns = [Column("Number", justify="right"), Column(zoned("Accepted")), Column("From"), Column("To")]
    # Whoever reveals names wants to read them: on a narrow terminal they take the place of the rest.
    has_rest = is_wide or not reveal
    if has_rest:
        columns += [Column("State"), Column("Size", justify="right")]
    if is_wide:
        columns.append(Column("Unit"))
    columns.append(Column("Name" if is_wide or reveal else "Kind", is_flexible=True))
    rows: list[list[str | Text]] = []
    for transfer in transfers:
        at = say_time(transfer.accepted_at, with_zone=False)
        row: list[str | Text] = [str(transfer.id), at, transfer.sender, transfer.recipient]
        if has_rest:
            row += [_say_state(transfer), say_size(transfer.size_bytes)]
        if is_wide:
            row.append(say_standing(units_of.get(transfer.id)))
        rows.append([*row, _name(transfer, reveal=reveal) if is_wide or reveal else transfer.kind])
    print_table(columns, rows, note=note)


def _say_state(transfer: Transfer) -> Text:
    if transfer.is_held:
        return colour("held", Tone.BAD)
    return colour(transfer.state.value, _TONES.get(transfer.state, Tone.BAD))


def _name(transfer: Transfer, *, reveal: bool) -> str:
    return transfer.name if reveal else transfer.public_name


@app.command()
def show(
    number: Annotated[
        int, typer.Argument(metavar="NUMBER", min=1, max=NUMBER_MOST, help="Its number (受付番号).", show_default=False)
    ],
    *,
    reveal: RevealOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Show one transfer and its history."""
    transfer, events, line = run(_show(home, TransferId(number), reveal=reveal))
    if as_json:
        history = [
            {"at": json_time(event.at), "kind": event.kind.value, "actor": event.actor, "detail": event.detail}
            for event in events
        ]
        message = {"message": line} if reveal else {}
        print_json({**describe_transfer(transfer, reveal=reveal), **message, "events": history})
    else:
        _print_transfer(transfer, events, line, reveal=reveal)


async def _show(home: Path, number: TransferId, *, reveal: bool) -> tuple[Transfer, list[Event], str | None]:
    async with open_installation(home) as relay:
        transfer = await relay.ledger.find_transfer(number)
        if transfer is None:
            raise CommandRefused(f"there is no transfer {number}")
        if reveal:
            await record_revealing(relay, [transfer])
        line = await find_first_line(relay.ledger, transfer) if reveal else None
        return transfer, await relay.ledger.list_events(transfer=number), line


def _print_transfer(transfer: Transfer, events: Sequence[Event], line: str | None, *, reveal: bool) -> None:
    name = _name(transfer, reveal=reveal)
    hidden = "" if name == transfer.name else "  (--reveal shows it)"
    facts: list[tuple[str, str | Text]] = [
        ("Number", str(transfer.id)),
        ("State", _say_state(transfer)),
        ("From", transfer.sender),
        ("To", transfer.recipient),
        ("Name", Text.assemble(name, (hidden, Tone.FADED))),
        ("Kind", f"{transfer.kind}  ({transfer.grammar})"),
        ("Serial", transfer.serial or "-"),
        ("Size", f"{transfer.size_bytes:,} bytes"),
        ("SHA-256", transfer.sha256.hex()),
        ("Accepted", say_time(transfer.accepted_at)),
        ("Collected", say_time(transfer.collected_at)),
        ("Put away", "yes" if transfer.is_removed else "no"),
    ]
    if transfer.reported_at is not None:
        facts.append(("Misdirected", Text(f"reported {say_time(transfer.reported_at)}", Tone.BAD)))
    if line is not None:
        facts.append(("Message", line))
    facts += [("Warning", f"{finding.code}: {finding.message_en}") for finding in transfer.findings]
    print_facts(facts)
    if events:
        say("")
        print_table(
            [Column(zoned("When")), Column("What"), Column("Who"), Column("Detail", is_flexible=True)],
            [(say_time(event.at, with_zone=False), event.kind.value, event.actor, event.detail) for event in events],
        )


def describe_transfer(transfer: Transfer, *, reveal: bool) -> dict[str, object]:
    """Return a transfer for a program, its name as `Transfer.public_name` unless *reveal*."""
    described: dict[str, object] = {
        "number": transfer.id,
        "state": "held" if transfer.is_held else transfer.state.value,
        "sender": transfer.sender,
        "recipient": transfer.recipient,
        "name": _name(transfer, reveal=reveal),
        "kind": transfer.kind,
        "grammar": transfer.grammar.value,
        "serial": transfer.serial,
        "month": transfer.month,
        "size_bytes": transfer.size_bytes,
        "sha256": transfer.sha256.hex(),
        "accepted_at": json_time(transfer.accepted_at),
        "collected_at": json_time(transfer.collected_at),
        "reported_at": json_time(transfer.reported_at),
        "is_removed": transfer.is_removed,
        "findings": [finding.code for finding in transfer.findings],
    }
    return {**described, "delivered_name": transfer.delivered_name} if reveal else described
