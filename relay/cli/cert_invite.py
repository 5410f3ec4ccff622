"""``relay cert invite``: one string by letter or telephone, with which an office fetches its own certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relay.cli.cert_issue import DAY_SECONDS, parse_validity
from relay.cli.installation import HomeOption, find_office, open_installation, run
from relay.cli.terminal import (
    Column,
    CommandRefused,
    JsonOption,
    Tone,
    YesOption,
    colour,
    confirm,
    json_time,
    parse_span,
    print_facts,
    print_json,
    print_table,
    say,
    say_time,
    zoned,
)
from relay.connecting import describe_address

_TONES = {"open": Tone.GOOD, "blocked": Tone.BAD}


def invite(
    office: Annotated[str, typer.Argument(metavar="OFFICE", help="Who shall get a certificate.")],
    *,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="OFFICE", help="A further office that may log in with it; may be repeated."),
    ] = None,
    label: Annotated[str, typer.Option(help="A word for lists: which program, which PC.", show_default=False)] = "",
    within: Annotated[str, typer.Option(metavar="SPAN", help="How long the invitation is good.")] = "14d",
    valid: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="How long the certificate is good: 365d, 2y.", show_default="as in relay.toml"
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Print an invitation; it is shown once and kept nowhere.

    The office types it into `scripts/enroll`, which makes a key that never leaves its computer.
    """
    run(_invite(home, [office, *(also or ())], label.strip(), within, valid, as_json=as_json))


async def _invite(home: Path, numbers: list[str], label: str, within: str, valid: str | None, *, as_json: bool) -> None:
    from relay.invitation import Invitation, draw_code, write_code

    span = parse_span(within)
    async with open_installation(home) as relay:
        offices = list({o.number: o for o in [await find_office(relay.ledger, number) for number in numbers]}.values())
        code, now = draw_code(relay.keyring.host_ca), relay.now
        seconds = (
            int(parse_validity(valid).total_seconds()) if valid else relay.config.certificates.valid_days * DAY_SECONDS
        )
        invitation = Invitation(
            code.id, code.digest, tuple(one.number for one in offices), label, seconds, now, now + span
        )
        await relay.ledger.record_invitation(invitation, actor=relay.actor)
        address = describe_address(relay.config)
    if as_json:
        print_json(
            {
                "id": code.id,
                "code": write_code(code),
                "offices": list(invitation.offices),
                "expires_at": json_time(invitation.expires_at),
                "host": address.host,
                "port": address.port,
            }
        )
        return
    print_facts(
        [
            ("Office", ", ".join(f"{one.number} {one.name}" for one in offices)),
            ("Invitation", code.id),
            ("Good until", say_time(invitation.expires_at)),
            ("Code", Text(write_code(code), style="bold")),
        ]
    )
    say("")
    say("Hand the code over by letter or telephone, not by mail. It is shown only now.")
    say("The office runs, with the name by which it reaches this relay:")
    say(f"  python3 enroll {address.host}:{address.port}")
    say("The file is scripts/enroll; it asks for the code, and needs Python and OpenSSH.")


def invitations(
    *,
    cancel: Annotated[str | None, typer.Option(metavar="ID", help="End an invitation instead.")] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """List invitations, the newest first, and what became of them."""
    if cancel is not None:
        confirm(f"End invitation {cancel.upper()}? Its code will open nothing any more.", yes=yes)
        run(_cancel(home, cancel.strip().upper()))
        return
    run(_list(home, as_json=as_json))


async def _cancel(home: Path, number: str) -> None:
    async with open_installation(home) as relay:
        try:
            was_open = await relay.ledger.cancel_invitation(number, actor=relay.actor, now=relay.now)
        except LookupError:
            raise CommandRefused(f"there is no invitation {number}: see `relay cert invitations`") from None
    say(f"invitation {number} was ended" if was_open else f"invitation {number} had ended already")


async def _list(home: Path, *, as_json: bool) -> None:
    async with open_installation(home) as relay:
        found, now = await relay.ledger.list_invitations(), relay.now
    if as_json:
        print_json(
            [
                {
                    "id": one.id,
                    "offices": list(one.offices),
                    "label": one.label,
                    "standing": one.standing(now),
                    "made_at": json_time(one.made_at),
                    "expires_at": json_time(one.expires_at),
                    "used_at": json_time(one.used_at),
                    "wrong_tries": one.wrong,
                    "serial": str(one.certificate.serial) if one.certificate else None,
                }
                for one in found
            ]
        )
        return
    if not found:
        say("no invitations")
        return
    columns = [Column("Id"), Column("Office"), Column("Standing"), Column(zoned("Good until")), Column("Wrong tries", justify="right"),
               Column("Label", is_flexible=True)]  # fmt: skip
    rows: list[list[str | Text]] = [
        [
            one.id,
            one.offices[0] + (f" +{len(one.offices) - 1}" if len(one.offices) > 1 else ""),
            colour(one.standing(now), _TONES.get(one.standing(now), Tone.FADED)),
            say_time(one.expires_at, with_zone=False),
            str(one.wrong),
            one.label,
        ]
        for one in found
    ]
    print_table(columns, rows)
