"""``relay explain``: what would happen to a file name, and why, without sending anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relay.cli.installation import HomeOption, Installation, find_office, open_installation, read_office_number, run
from relay.cli.terminal import JsonOption, Tone, colour, print_facts, print_json
from relay.errors import Finding, Refused, finding
from relay.model import Address, Office, Route

REFUSED = 2
_TONES = {"accept": Tone.GOOD, "warn": None, "refuse": Tone.BAD}


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What would happen: refused for *refusal*, or sent on *route*; *address* as far as the name was understood."""

    refusal: Finding | None = None
    address: Address | None = None
    route: Route | None = None
    recipient: Office | None = None

    @property
    def word(self) -> str:
        if self.refusal is not None:
            return "refuse"
        return "warn" if self.findings else "accept"

    @property
    def findings(self) -> tuple[Finding, ...]:
        if self.refusal is not None:
            return (self.refusal,)
        return self.route.findings if self.route is not None else ()


def explain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The file name, without folders.", show_default=False)],
    *,
    as_office: Annotated[str, typer.Option("--as", metavar="OFFICE", help="Who would send it.", show_default=False)],
    folder: Annotated[
        str | None, typer.Option(metavar="OFFICE", help="As if put into send/OFFICE/.", show_default="send/")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Say what would happen to a file of this NAME, and why; nothing is sent.

    Exit code 0 where it would be accepted, 2 where it would be refused.  The content is not looked at.
    """
    verdict = run(_explain(home, name, as_office, folder))
    if as_json:
        print_json(_describe(verdict))
    else:
        _print(verdict)
    if verdict.refusal is not None:
        raise typer.Exit(REFUSED)


async def _explain(home: Path, name: str, as_office: str, folder: str | None) -> _Verdict:
    async with open_installation(home) as relay:
        sender = await find_office(relay.ledger, as_office)
        return await _judge(relay, name, sender, folder)


async def _judge(relay: Installation, name: str, sender: Office, folder: str | None) -> _Verdict:
    from relay.naming import decode_name, parse_name
    from relay.routing import resolve_route

    address = None
    number = None if folder is None else read_office_number(folder)
    if number is not None and await relay.ledger.find_office(number) is None:
        return _Verdict(refusal=finding("route.recipient_unknown", office=number))
    try:
        # Back to the bytes of the command line: a name that is not UTF-8 is to be judged, too.
        decoded = decode_name(os.fsencode(name))
        address = parse_name(decoded, relay.config.naming_rules, folder=number)
        recipient = await relay.ledger.find_office(address.recipient)
        route = resolve_route(
            address,
            sender=sender,
            recipient=recipient,
            successor=None if recipient is None else await relay.ledger.find_successor(recipient),
            now=relay.now,
            severities=relay.config.content.severities,
        )
    except Refused as refused:
        return _Verdict(refusal=refused.finding, address=address)
    return _Verdict(address=address, route=route, recipient=recipient)


def _describe(verdict: _Verdict) -> dict[str, object]:
    first = verdict.findings[0] if verdict.findings else None
    address = verdict.address
    return {
        "verdict": verdict.word,
        "code": first.code if first else None,
        "sender": verdict.route.sender if verdict.route else None,
        "recipient": address.recipient if address else None,
        "kind": address.kind if address else None,
        "serial": address.serial if address else None,
        "grammar": address.grammar.value if address else None,
        "message_ja": _message_ja(verdict),
        "message_en": _message_en(verdict),
        "remedy_ja": verdict.refusal.row.remedy_ja if verdict.refusal else None,
        "remedy_en": verdict.refusal.row.remedy_en if verdict.refusal else None,
        "findings": [
            {"code": found.code, "message_ja": found.message_ja, "message_en": found.message_en}
            for found in verdict.findings
        ],
    }


def _message_ja(verdict: _Verdict) -> str:
    if verdict.findings:
        return verdict.findings[0].message_ja
    assert verdict.recipient is not None
    return f"{verdict.recipient.name}（{verdict.recipient.number}）に届きます"


def _message_en(verdict: _Verdict) -> str:
    if verdict.findings:
        return verdict.findings[0].message_en
    assert verdict.recipient is not None
    return f"it would be delivered to {verdict.recipient.number}"


def _print(verdict: _Verdict) -> None:
    facts: list[tuple[str, str | Text]] = [("Verdict", colour(verdict.word, _TONES[verdict.word]))]
    for found in verdict.findings:
        facts += [("Code", found.code), ("", found.message_ja), ("", found.message_en)]
        facts += [("", Text(f"→{remedy}")) for remedy in (found.row.remedy_ja, found.row.remedy_en)]
    if (address := verdict.address) is not None:
        name = f"  {verdict.recipient.name}" if verdict.recipient else ""
        facts += [
            ("Recipient", address.recipient + name),
            ("Kind", f"{address.kind}  ({address.grammar})"),
            ("Serial", address.serial or "-"),
        ]
    print_facts(facts)
