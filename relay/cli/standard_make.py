"""``relay standard make``: conforming units about nobody, written into a folder."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from relay.cli.terminal import CommandRefused, JsonOption, print_json, say
from relay.model import Office

if TYPE_CHECKING:
    from relay.standard.making import Order, Partners

MOST_PARTNERS = 9_000
_EVERYTHING = "all"
_PARTY = re.compile(r"([^:]+)(?::([0-9A-Za-z]{2}))?")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was asked for, apart from what to make."""

    standard: str
    persons: int
    partners: int
    seed: int
    month: str
    serial: str | None
    sender: str | None
    recipients: Sequence[str]


def make(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT…",
            help="Units (V41-K2, as in `relay standard units`), kinds (UPJSK), or all.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write them.", show_default=False)],
    standard: Annotated[Literal["4.1", "3.2"], typer.Option(help="The edition, for kinds and all.")] = "4.1",
    persons: Annotated[int, typer.Option(min=1, max=100_000, help="Persons in each unit.")] = 3,
    partners: Annotated[int, typer.Option(min=1, max=MOST_PARTNERS, help="Partners, a unit with each.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed makes other offices and persons.")] = 1,
    month: Annotated[
        str | None, typer.Option(metavar="YYYYMM", help="Service month.", show_default="202507; 3.2: 202502")
    ] = None,
    serial: Annotated[
        str | None,
        typer.Option(metavar="YYYYMMDDHHMMSS", help="The first serial.", show_default="fits the month"),
    ] = None,
    sender: Annotated[
        str | None, typer.Option(metavar="OFFICE[:TYPE]", help="A sender of your own.", show_default="invented")
    ] = None,
    recipients: Annotated[
        list[str] | None,
        typer.Option("--recipient", metavar="OFFICE[:TYPE]", help="A recipient; repeatable.", show_default="invented"),
    ] = None,
    register: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Also write the offices here.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make conforming files about persons and offices that do not exist.

    The same words make the same bytes, on any machine. Files that are there already are never overwritten.
    """
    from relay.standard.making import DEFAULT_MONTHS

    wish = _Wish(
        standard=standard,
        persons=persons,
        partners=partners,
        seed=seed,
        month=_check_month(month or DEFAULT_MONTHS[standard]),
        serial=_check_serial(serial),
        sender=sender,
        recipients=recipients or (),
    )
    orders = list(_make_orders(what, wish, is_month_given=month is not None))
    names, size = _write(orders, out)
    if register is not None:
        _write_register(orders, register)
    if as_json:
        print_json({"folder": str(out), "units": len(orders), "bytes": size, "files": names})
    else:
        units = "1 unit" if len(orders) == 1 else f"{len(orders):,} units"
        files = "1 file" if len(names) == 1 else f"{len(names):,} files"
        say(f"{units}, {files}, {size:,} bytes in {out}")


def _check_month(month: str) -> str:
    from relay.standard.serials import is_real_month

    if not is_real_month(month):
        raise CommandRefused(f"{month!r} is no month: write YYYYMM")
    return month


def _check_serial(serial: str | None) -> str | None:
    from relay.standard.serials import is_real_serial

    if serial is not None and not is_real_serial(serial):
        raise CommandRefused(f"{serial!r} is no serial: write YYYYMMDDHHMMSS")
    return serial


def _make_orders(what: Sequence[str], wish: _Wish, *, is_month_given: bool) -> Iterator[Order]:
    from relay.standard.making import DEFAULT_MONTHS, Order, advance_serial, choose_serial

    index = 0
    for word in _expand(what, wish.standard):
        standard, kinds = _find(word, wish.standard)
        month = wish.month if is_month_given else DEFAULT_MONTHS[standard]
        for partners in _choose_partners(kinds, wish, is_preventive="-Y" in word):
            # Every unit has a serial of its own: the units of two kinds between the same offices must not become one.
            serial = advance_serial(wish.serial, index) if wish.serial else choose_serial(kinds, month, index)
            yield Order(standard, kinds, partners, month, serial, wish.persons, wish.seed)
            index += 1


def _expand(what: Sequence[str], standard: str) -> Sequence[str]:
    from relay.standard.units import UNIT_FORMS

    everything = [form.id for form in UNIT_FORMS if form.standard == standard]
    return [name for word in what for name in (everything if word.lower() == _EVERYTHING else [word.upper()])]


def _find(word: str, standard: str) -> tuple[str, tuple[str, ...]]:
    from relay.standard.making import find_kinds
    from relay.standard.units import UNIT_FORMS

    own = next((form.standard for form in UNIT_FORMS if form.id == word), standard)
    kinds = find_kinds(word, own)
    if not kinds:
        raise CommandRefused(f"{word} is neither a unit nor a kind of {own}; see relay standard units and kinds")
    return own, kinds


def _choose_partners(kinds: Sequence[str], wish: _Wish, *, is_preventive: bool) -> Iterator[Partners]:
    """Yield who sends to whom: invented, or whoever was given on either side."""
    from relay.standard.making import invent_partners

    count = len(wish.recipients) or wish.partners
    for place, made in enumerate(invent_partners(kinds, count, wish.seed, is_preventive=is_preventive)):
        sender = made.sender if wish.sender is None else _read_party(wish.sender, made.sender)
        recipient = _read_party(wish.recipients[place], made.recipient) if wish.recipients else made.recipient
        if sender.number == recipient.number:
            raise CommandRefused(f"{sender.number} cannot send to itself")
        yield replace(made, sender=sender, recipient=recipient)


def _read_party(text: str, invented: Office) -> Office:
    """Read ``0178515854:43``; without a type it has that of the office it stands for."""
    from relay.cli.installation import read_office_number
    from relay.standard.invented import name_office

    match = _PARTY.fullmatch(text)
    if match is None:
        raise CommandRefused(f"{text!r}: write an office number, or OFFICE:TYPE with a service type of two characters")
    return name_office(read_office_number(match[1]), match[2].upper() if match[2] else invented.service_types[0])


def _write(orders: Sequence[Order], out: Path) -> tuple[list[str], int]:
    from relay.standard.making import make_unit

    out.mkdir(parents=True, exist_ok=True)
    names, size = [], 0
    for order in orders:
        for made in make_unit(order):
            try:
                with (out / made.name).open("xb") as file:
                    size += file.write(made.content)
            except FileExistsError:
                raise CommandRefused(f"{out / made.name} exists; nothing that is there is overwritten") from None
            names.append(made.name)
    return names, size


def _write_register(orders: Sequence[Order], path: Path) -> None:
    from relay.cli.register_file import COLUMNS

    services: dict[str, dict[str, None]] = {}
    offices: dict[str, Office] = {}
    for order in orders:
        for office in (order.partners.sender, order.partners.recipient, *order.partners.others):
            offices.setdefault(office.number, office)
            services.setdefault(office.number, {}).update(dict.fromkeys(office.service_types))
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, office in offices.items():
            writer.writerow([number, office.name, office.prefecture, "|".join(services[number]), office.status])
