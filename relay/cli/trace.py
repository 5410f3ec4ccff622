"""``relay trace``: the whole life of a transfer, in words, for whoever has an office on the telephone.

A free file name may hold a person: it is told as ``*.pdf`` unless --reveal is given, which is written to the history
before anything is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relay.cli.installation import HomeOption, Installation, open_installation, read_office_number, run
from relay.cli.terminal import (
    CommandRefused,
    JsonOption,
    Tone,
    console,
    json_time,
    print_json,
    say,
    say_size,
)
from relay.cli.transfer import NUMBER_MOST, RevealOption, describe_transfer, record_revealing
from relay.errors import Refused
from relay.lifecycle import State
from relay.model import (
    Certificate,
    Event,
    EventKind,
    OfficeNumber,
    OfficeStatus,
    Refusal,
    Transfer,
    TransferId,
    fold_name,
)
from relay.receipttext import list_steps

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened: when, which word it has, and a sentence."""

    at: datetime
    word: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Life:
    """A transfer and all that is known of it; *names* are those of the two offices."""

    transfer: Transfer
    names: tuple[str, str]
    steps: tuple[Step, ...]
    receipts: tuple[str, ...]


def trace(
    what: Annotated[
        str,
        typer.Argument(metavar="NAME|NUMBER", help="The file's name, or its number (受付番号).", show_default=False),
    ],
    *,
    sender: Annotated[
        str | None, typer.Option("--from", metavar="OFFICE", help="Who sent it, where the name does not say.")
    ] = None,
    recipient: Annotated[
        str | None, typer.Option("--to", metavar="OFFICE", help="Whom it was sent to, where the name does not say.")
    ] = None,
    reveal: RevealOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Tell what became of a file: accepted with which certificate, listed, read, collected, taken back, or refused."""
    lives, refused = run(_trace(home, what, sender, recipient, reveal=reveal))
    if as_json:
        print_json([_describe(life, reveal=reveal) for life in lives] or [_describe_step(step) for step in refused])
        return
    for place, life in enumerate(lives):
        if place:
            say("")
        _print(life, reveal=reveal)
    if not lives:
        say("It was never accepted. What its sender tried:")
        _print_steps(refused)


async def _trace(
    home: Path, what: str, sender: str | None, recipient: str | None, *, reveal: bool
) -> tuple[list[Life], list[Step]]:
    async with open_installation(home) as relay:
        if what.isascii() and what.isdecimal() and int(what) <= NUMBER_MOST:
            found = [await relay.ledger.find_transfer(TransferId(int(what)))]
            refused: list[Refusal] = []
        else:
            one, other = _resolve_offices(relay, what, sender, recipient)
            numbers = await relay.ledger.list_named(one, other, what)
            found = [await relay.ledger.find_transfer(number) for number in numbers]
            refused = await _list_refused(relay, one, what)
        transfers = [transfer for transfer in found if transfer is not None]
        if not transfers and not refused:
            raise CommandRefused("there is no such transfer, and nothing of that name was refused")
        if reveal:
            await record_revealing(relay, transfers)
        lives = [await _tell_life(relay, transfer) for transfer in transfers]
        return lives, [_say_refusal(refusal) for refusal in refused]


def _resolve_offices(
    relay: Installation, name: str, sender: str | None, recipient: str | None
) -> tuple[OfficeNumber, OfficeNumber]:
    """Return who sent *name* and to whom, as it says itself or as was given; CommandRefused where neither tells."""
    from relay.naming import parse_name

    one = read_office_number(sender) if sender else None
    other = read_office_number(recipient) if recipient else None
    try:
        address = parse_name(name, relay.config.naming_rules, folder=other)
    except Refused as refused:
        if one is None or other is None:
            raise CommandRefused(
                f"the name does not say who sent it to whom ({refused.finding.message_en}): give --from and --to"
            ) from None
    else:
        one, other = one or address.sender, other or address.recipient
    if one is None or other is None:
        raise CommandRefused("the name does not say who sent it: give --from")
    return one, other


async def _list_refused(relay: Installation, sender: OfficeNumber, name: str) -> list[Refusal]:
    found = await relay.ledger.list_refusals(sender, since=_EVER)
    return [refusal for refusal in found if fold_name(refusal.name) == fold_name(name)]


async def _tell_life(relay: Installation, transfer: Transfer) -> Life:
    ledger = relay.ledger
    offices = [await ledger.find_office(number) for number in (transfer.sender, transfer.recipient)]
    one, other = (office.name if office is not None else "not registered any more" for office in offices)
    sent_with = await ledger.sent_with(transfer.id)
    certificate = None if sent_with is None else await ledger.find_certificate(*sent_with)
    steps = [_say_event(transfer, event, certificate) for event in await ledger.list_events(transfer=transfer.id)]
    for reader in await _list_readers(relay, transfer.recipient):
        listed_at = await ledger.first_listed(transfer.id, reader)
        if listed_at is not None:
            steps.append(
                Step(listed_at, "listed", f"{reader} read the list of its files to the end, with this one in it")
            )
    steps += [_say_refusal(refusal) for refusal in await _list_refused(relay, transfer.sender, transfer.name)]
    receipts = tuple(f"receipts/{receipt.month}/{receipt.name}" for receipt in list_steps(transfer))
    return Life(transfer, (one, other), tuple(sorted(steps, key=lambda step: step.at)), receipts)


async def _list_readers(relay: Installation, recipient: OfficeNumber) -> list[OfficeNumber]:
    """Return the numbers under which the office reads what was sent to *recipient*."""
    office = await relay.ledger.find_office(recipient)
    readers = [recipient]
    while office is not None and office.status is OfficeStatus.MOVED and office.end and office.end.successor:
        if office.end.successor in readers:
            break
        readers.append(office.end.successor)
        office = await relay.ledger.find_office(office.end.successor)
    return readers


_READ = {
    "in part": "read a part of it",
    "cut off": "began to read it, and the connection ended before the file was closed",
}
_SENTENCES: Mapping[EventKind, str] = {
    EventKind.COLLECTED: "{actor} had read every byte of it, with certificate {detail}",
    EventKind.RECALLED: "{actor} took it back before it was collected",
    EventKind.REMOVED: "{actor} put it away into done/",
    EventKind.RESTORED: "{actor} took it out of done/ again",
    EventKind.HELD: "{actor} held it: gone from its recipient's directories ({detail})",
    EventKind.RELEASED: "{actor} released it to its recipient ({detail})",
    EventKind.RETURNED: "{actor} gave it back to its sender, uncollected ({detail})",
    EventKind.REPORTED: "{actor} noted that it had gone to the wrong office, after it was collected ({detail})",
    EventKind.EXPIRY_NOTICED: "both sides were told that it would expire uncollected ({detail} of its time were over)",
    EventKind.EXPIRED: "it expired: nobody had collected it in its time",
    EventKind.SUPERSEDED: "the whole file came after this one, which was cut off, and took its place ({detail})",
    EventKind.DESTROYED: "its key was destroyed: nobody can read its bytes any more",
}


def _say_event(transfer: Transfer, event: Event, certificate: Certificate | None) -> Step:
    if event.kind is EventKind.ACCEPTED:
        sentence = f"accepted from {transfer.sender}, durable from then on; sent with {_say_certificate(certificate)}"
    elif event.kind is EventKind.READ:
        sentence = f"{event.actor} {_READ.get(event.detail, 'read it again')}"
    elif event.kind in _SENTENCES:
        sentence = _SENTENCES[event.kind].format(actor=event.actor, detail=event.detail)
    else:
        sentence = f"{event.kind.value} by {event.actor}" + (f": {event.detail}" if event.detail else "")
    return Step(event.at, event.kind.value, sentence)


def _say_certificate(certificate: Certificate | None) -> str:
    if certificate is None:
        return "a certificate that the register does not know any more"
    label = f" ({certificate.label})" if certificate.label else ""
    ended = "" if certificate.revoked_at is None else ", which was revoked later"
    return f"certificate {certificate.serial}{label}{ended}"


def _say_refusal(refusal: Refusal) -> Step:
    times = "" if refusal.count == 1 else f", {refusal.count} times until then"
    return Step(refusal.last_at, "refused", f"refused{times}: {refusal.finding.message_en} ({refusal.finding.code})")


_STANDINGS: Mapping[State, tuple[str, str]] = {
    State.ACCEPTED: ("It waits for its recipient.", ""),
    State.COLLECTED: ("Its recipient has it.", Tone.GOOD),
    State.DESTROYED: ("Its recipient had it; the bytes are destroyed.", Tone.FADED),
    State.RETURNED: ("It was given back: its sender finds it in recall/ for a week.", Tone.BAD),
}


def _say_standing(transfer: Transfer) -> Text:
    if transfer.is_held:
        return Text(
            "The operator holds it: its recipient cannot read it. `relay transfer release` lets it go.", Tone.BAD
        )
    if transfer.reported_at is not None:
        return Text("Its recipient has it, and should delete it: it was reported as misdirected.", Tone.BAD)
    sentence, tone = _STANDINGS.get(
        transfer.state, (f"It was {transfer.state}: its recipient cannot read it.", Tone.BAD)
    )
    return Text(sentence, style=tone)


def _print(life: Life, *, reveal: bool) -> None:
    out, transfer = console(), life.transfer
    name = transfer.name if reveal else transfer.public_name
    hidden = "" if name == transfer.name else "  (--reveal shows the name)"
    out.print(Text.assemble((f"Transfer {transfer.id}", "bold"), f"  {name}", (hidden, Tone.FADED)), overflow="fold")
    out.print(Text(f"{say_size(transfer.size_bytes)} from {transfer.sender} {life.names[0]}"), overflow="fold")
    out.print(Text(f"to {transfer.recipient} {life.names[1]}"), overflow="fold")
    say("")
    _print_steps(life.steps)
    say("")
    out.print(_say_standing(transfer))
    for finding in transfer.findings:
        out.print(Text(f"Warning: {finding.message_en} ({finding.code})"), overflow="fold")
    say("Receipts, in both offices' trees:")
    for path in life.receipts:
        say(f"  {path}")


def _print_steps(steps: tuple[Step, ...] | list[Step]) -> None:
    from rich.table import Table

    out = console()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in steps:
        table.add_row(f"{step.at.astimezone():%Y-%m-%d %H:%M:%S %Z}", step.sentence)
    if out.is_terminal:
        out.print(table)
        return
    for step in steps:
        say(f"{step.at.astimezone():%Y-%m-%d %H:%M:%S %Z}  {step.sentence}")


def _describe(life: Life, *, reveal: bool) -> dict[str, object]:
    return {
        **describe_transfer(life.transfer, reveal=reveal),
        "sender_name": life.names[0],
        "recipient_name": life.names[1],
        "steps": [_describe_step(step) for step in life.steps],
        "receipts": [*life.receipts],
    }


def _describe_step(step: Step) -> dict[str, object]:
    return {"at": json_time(step.at), "what": step.word, "text": step.sentence}
