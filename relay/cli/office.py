"""``relay office``: the register of offices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relay.cli.installation import HomeOption, Installation, find_office, open_installation, read_office_number, run
from relay.cli.office_end import close, move, reopen, say_end
from relay.cli.office_import import import_offices
from relay.cli.office_mail import mail
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    CommandRefused,
    JsonOption,
    LimitOption,
    ReverseOption,
    Tone,
    YesOption,
    colour,
    confirm,
    effective_limit,
    json_time,
    note_rows,
    print_facts,
    print_json,
    print_table,
    say,
    say_time,
    warn,
)
from relay.model import Certificate, Office, OfficeNumber, OfficeStatus

app = typer.Typer(help="The register of offices.", no_args_is_help=True, context_settings=HELP_SETTINGS)
app.command(name="import")(import_offices)
app.command()(mail)
app.command()(close)
app.command()(move)
app.command()(reopen)

# The first two digits of an office number name its prefecture (standard, section 6), from 01.
PREFECTURES = (  # noqa: SIM905 - a list of 47 lines reads worse
    "北海道 青森県 岩手県 宮城県 秋田県 山形県 福島県 茨城県 栃木県 群馬県 埼玉県 千葉県 東京都 神奈川県 新潟県 富山県 "
    "石川県 福井県 山梨県 長野県 岐阜県 静岡県 愛知県 三重県 滋賀県 京都府 大阪府 兵庫県 奈良県 和歌山県 鳥取県 島根県 "
    "岡山県 広島県 山口県 徳島県 香川県 愛媛県 高知県 福岡県 佐賀県 長崎県 熊本県 大分県 宮崎県 鹿児島県 沖縄県"
).split()

NumberArgument = Annotated[str, typer.Argument(metavar="OFFICE", help="The office number.", show_default=False)]


class OfficeOrder(StrEnum):
    """What a list of offices can be sorted by."""

    NUMBER = "number"
    NAME = "name"
    PREFECTURE = "prefecture"
    STATUS = "status"


@app.command()
def add(
    number: NumberArgument,
    *,
    name: Annotated[str | None, typer.Option(help="Its name, as staff know it.", show_default=False)] = None,
    prefecture: Annotated[str | None, typer.Option(help="Its prefecture.", show_default="from the number")] = None,
    service_type: Annotated[
        list[str] | None,
        typer.Option("--service-type", "-s", metavar="CODE", help="A service type code; may be repeated."),
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Change an office that is registered already.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Register an office, or change what is known of it with --update."""
    run(
        _add(
            home=home,
            number=read_office_number(number),
            name=name,
            prefecture=prefecture,
            service_types=service_type,
            update=update,
            as_json=as_json,
        )
    )


async def _add(
    *,
    home: Path,
    number: OfficeNumber,
    name: str | None,
    prefecture: str | None,
    service_types: list[str] | None,
    update: bool,
    as_json: bool,
) -> None:
    from relay.standard.offices import has_check_digit

    async with open_installation(home) as relay:
        before = await relay.ledger.find_office(number)
        if before is not None and not update:
            raise CommandRefused(f"office {number} is registered already, as {before.name}: --update changes it")
        if before is None and update:
            raise CommandRefused(f"office {number} is not registered")
        office = _plan_office(number, before, name, prefecture, service_types)
        await relay.ledger.record_office(office, actor=relay.actor, now=relay.now)
    if not has_check_digit(number):
        warn(f"the check digit of {number} does not fit: please compare it with the paper")
    if as_json:
        print_json(describe_office(office))
    else:
        say(f"{'changed' if before else 'registered'} {office.number} {office.name}")


def _plan_office(
    number: OfficeNumber,
    before: Office | None,
    name: str | None,
    prefecture: str | None,
    service_types: list[str] | None,
) -> Office:
    """Return the office as it shall be; what was not said stays as it was *before*."""
    from relay.cli.register_file import find_name_fault
    from relay.standard.offices import SERVICE_TYPE

    name = (name if name is not None else before.name if before else "").strip()
    if fault := find_name_fault(name):
        raise CommandRefused(f"the name {fault}: give it with --name")
    types = tuple(code.strip().upper() for code in service_types or (before.service_types if before else ()))
    if wrong := [code for code in types if not re.fullmatch(SERVICE_TYPE, code)]:
        raise CommandRefused(f"{', '.join(wrong)}: a service type code has two characters, such as 43 or A2")
    if prefecture is None:
        prefecture = before.prefecture if before else prefecture_of(number)
    return Office(number, name, prefecture, types, before.status if before else OfficeStatus.ACTIVE)


def prefecture_of(number: OfficeNumber) -> str:
    """Return the prefecture that an office number names, nothing where it names none."""
    place = int(number[:2])
    return PREFECTURES[place - 1] if 0 < place <= len(PREFECTURES) else ""


@app.command(name="list")
def list_(
    *,
    status: Annotated[OfficeStatus | None, typer.Option(help="Only these.")] = None,
    prefecture: Annotated[str | None, typer.Option(help="Only of this prefecture.")] = None,
    sort: Annotated[OfficeOrder, typer.Option(help="Sort by this.")] = OfficeOrder.NUMBER,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """List registered offices."""
    most = effective_limit(limit, as_json=as_json)
    offices, total = run(_list(home=home, status=status, prefecture=prefecture, order=sort, reverse=reverse, most=most))
    if as_json:
        print_json([describe_office(office) for office in offices])
    elif not offices:
        say("no offices")
    else:
        _print_offices(offices, note_rows(len(offices), most, "offices", total))


async def _list(
    *,
    home: Path,
    status: OfficeStatus | None,
    prefecture: str | None,
    order: OfficeOrder,
    reverse: bool,
    most: int | None,
) -> tuple[list[Office], int | None]:
    """Return the offices asked for, and how many there are where that is known."""
    async with open_installation(home) as relay:
        in_order = order is OfficeOrder.NUMBER and not reverse
        offices = await relay.ledger.list_offices(
            status=status, prefecture=prefecture, limit=most if in_order else None
        )
        total: int | None = len(offices)
        if in_order and most is not None:
            counts = await relay.ledger.count_offices()
            total = None if prefecture else counts[status] if status else sum(counts.values())
    if not in_order:
        offices.sort(key=lambda office: (getattr(office, order.value), office.number), reverse=reverse)
    return offices[:most], total


def _print_offices(offices: Sequence[Office], note: str) -> None:
    print_table(
        [
            Column("Number"),
            Column("Name", is_flexible=True),
            Column("Prefecture"),
            Column("Services", is_flexible=True),
            Column("Status"),
        ],
        [(o.number, o.name, o.prefecture, " ".join(o.service_types), _say_status(o)) for o in offices],
        note=note,
    )


def _say_status(office: Office) -> Text:
    return colour(say_end(office), Tone.GOOD if office.is_active else Tone.BAD)


@app.command()
def show(number: NumberArgument, *, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """Show one office and its certificates."""
    run(_show(home, number, as_json=as_json))


async def _show(home: Path, text: str, *, as_json: bool) -> None:
    from relay.cli.cert import describe_certificate, print_certificates
    from relay.standard.offices import has_check_digit

    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, text)
        certificates: list[Certificate] = await relay.ledger.list_certificates(office=office.number)
        mailbox = await relay.ledger.find_mailbox(office.number)
        former = await relay.ledger.list_former(office.number)
        now = relay.now
    if as_json:
        told = None if mailbox is None else {"address": mailbox.address, "per": mailbox.per.value}
        described = [describe_certificate(certificate, now) for certificate in certificates]
        print_json({**describe_office(office), "former": [*former], "mail": told, "certificates": described})
        return
    check_digit = "fits" if has_check_digit(office.number) else colour("does not fit (a warning only)", Tone.BAD)
    print_facts(
        [
            ("Number", office.number),
            ("Name", office.name),
            ("Prefecture", office.prefecture or "-"),
            ("Services", " ".join(office.service_types) or "-"),
            ("Status", _say_status(office)),
            *([("May log in until", say_time(office.end.until))] if office.end else []),
            *([("Numbers before", " ".join(former))] if former else []),
            ("Check digit", check_digit),
            ("Mail", f"per {mailbox.per} to {mailbox.address}" if mailbox else "-"),
        ]
    )
    say("")
    if certificates:
        print_certificates(certificates, now, note="")
    else:
        say(f"no certificates yet: `relay cert invite {office.number}`")


@app.command()
def suspend(number: NumberArgument, *, yes: YesOption = False, home: HomeOption = Path()) -> None:
    """Keep an office out until it is resumed; its open sessions end within seconds."""
    run(_suspend(home, number, yes=yes))


async def _suspend(home: Path, text: str, *, yes: bool) -> None:
    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, text)
        _refuse_ended(office)
        if office.is_active:
            question = f"Suspend {office.number} {office.name}? It is logged out, and nobody can send to it."
            confirm(question, yes=yes)
        await _set_status(relay, office, OfficeStatus.SUSPENDED)


@app.command()
def resume(number: NumberArgument, home: HomeOption = Path()) -> None:
    """Let a suspended office in again."""
    run(_resume(home, number))


async def _resume(home: Path, text: str) -> None:
    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, text)
        _refuse_ended(office)
        await _set_status(relay, office, OfficeStatus.ACTIVE)


def _refuse_ended(office: Office) -> None:
    if office.status.has_ended:
        raise CommandRefused(
            f"office {office.number} is {say_end(office)}: `relay office reopen {office.number}` undoes that, and revoked "
            f"certificates keep it out (`relay cert revoke --office {office.number}`)"
        )


async def _set_status(relay: Installation, office: Office, status: OfficeStatus) -> None:
    changed = await relay.ledger.record_office_status(office.number, status, actor=relay.actor, now=relay.now)
    say(f"{office.number} {office.name} is {status.value}{'' if changed else ' already'}")


def describe_office(office: Office) -> dict[str, object]:
    """Return an office for a program."""
    return {
        "office_number": office.number,
        "name_ja": office.name,
        "prefecture": office.prefecture,
        "service_types": list(office.service_types),
        "status": office.status.value,
        "ends_at": json_time(office.end.at if office.end else None),
        "until_at": json_time(office.end.until if office.end else None),
        "successor": office.end.successor if office.end else None,
    }
