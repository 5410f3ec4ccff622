"""``relay transfer units``: which files belong together, and what is missing; nobody's name and no message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relay.cli.installation import HomeOption, open_installation, read_office_number, run
from relay.cli.terminal import (
    Column,
    JsonOption,
    LimitOption,
    Tone,
    colour,
    console,
    effective_limit,
    json_time,
    note_rows,
    parse_since,
    print_json,
    print_table,
    say,
    say_time,
    zoned,
)
from relay.model import Transfer, TransferId

if TYPE_CHECKING:
    from relay.ledger import Ledger
    from relay.units import Unit

_EARLIER = timedelta(days=31)
# Narrower than that there is room for what is missing, but not for what is there.
_WIDE_COLUMNS = 110
_TONES = {"complete": Tone.GOOD, "incomplete": Tone.BAD, "not_allowed": Tone.BAD, "void": Tone.FADED}


def units(
    *,
    sender: Annotated[str | None, typer.Option("--from", metavar="OFFICE", help="Only sent by this office.")] = None,
    recipient: Annotated[str | None, typer.Option("--to", metavar="OFFICE", help="Only sent to this office.")] = None,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="Only those with a file since 2026-12-01, or 7d ago.")
    ] = "93d",
    is_open: Annotated[bool, typer.Option("--incomplete", help="Only those that lack something.")] = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """List units (送信単位): the files that belong together, and what is missing.  The highest serial first."""
    found = run(_units(home=home, sender=sender, recipient=recipient, since=since))
    if is_open:
        found = [unit for unit in found if unit.standing.value in ("incomplete", "not_allowed")]
    most = effective_limit(limit, as_json=as_json)
    shown = found[:most]
    if as_json:
        print_json([_describe(unit) for unit in shown])
    elif not shown:
        say("no units")
    else:
        _print(shown, note=note_rows(len(shown), most, "units", len(found)))


async def _units(*, home: Path, sender: str | None, recipient: str | None, since: str) -> list[Unit]:
    from relay.units import assemble_units

    async with open_installation(home) as relay:
        begin = parse_since(since, relay.now)
        parts = await relay.ledger.list_unit_parts(
            sender=read_office_number(sender) if sender else None,
            recipient=read_office_number(recipient) if recipient else None,
            # The files of a unit may have come on different days.
            since=begin - _EARLIER,
        )
    return [unit for unit in assemble_units(parts) if _newest(unit) >= begin]


def _newest(unit: Unit) -> datetime:
    return max(part.transfer.accepted_at for part in unit.parts)


async def find_units(ledger: Ledger, transfers: Sequence[Transfer]) -> Mapping[TransferId, Unit]:
    """Return the unit of each of *transfers* that is part of one."""
    from relay.units import assemble_units

    found: dict[TransferId, Unit] = {}
    for sender, recipient, serial in {(each.sender, each.recipient, each.serial) for each in transfers}:
        if serial is None:
            continue
        parts = await ledger.list_unit_parts(sender=sender, recipient=recipient, serial=serial)
        for unit in assemble_units(parts):
            for part in unit.parts:
                found[part.transfer.id] = unit
    return found


async def find_first_line(ledger: Ledger, transfer: Transfer) -> str | None:
    """Return how a unit's message begins, None of anything else; for whoever revealed its name and was written down."""
    ends = {"sender": transfer.sender, "recipient": transfer.recipient}
    return (await ledger.list_first_lines(**ends, since=transfer.accepted_at)).get(transfer.id)


def describe_standing(unit: Unit | None) -> Mapping[str, object] | None:
    """Return for a program how the unit of a transfer stands; None where it is part of none."""
    if unit is None:
        return None
    standing = unit.standing.value
    return {"standing": standing, "is_complete": standing == "complete", "missing": list(unit.missing)}


def say_standing(unit: Unit | None) -> Text:
    """Say in a word how the unit of a transfer stands."""
    if unit is None:
        return Text("-")
    return colour(unit.standing.value.replace("_", " "), _TONES[unit.standing.value])


def _print(shown: Sequence[Unit], *, note: str) -> None:
    is_wide = console().width >= _WIDE_COLUMNS
    columns = [Column("Serial"), Column("From"), Column("To"), Column("Unit"), Column("Missing", is_flexible=True)]
    if is_wide:
        columns += [Column(zoned("Last file")), Column("Files", is_flexible=True)]
    rows: list[list[str | Text]] = []
    for unit in shown:
        key = unit.key
        row: list[str | Text] = [key.serial, key.sender, key.recipient, say_standing(unit)]
        row.append(" ".join(unit.missing) or "-")
        if is_wide:
            row.append(say_time(_newest(unit), with_zone=False))
            row.append(" ".join(f"{part.transfer.kind}:{part.transfer.id}" for part in unit.parts))
        rows.append(row)
    print_table(columns, rows, note=note)


def _describe(unit: Unit) -> Mapping[str, object]:
    key, verdict = unit.key, unit.verdict
    return {
        "serial": key.serial,
        "sender": key.sender,
        "sender_service": key.sender_service,
        "recipient": key.recipient,
        "recipient_service": key.recipient_service,
        "standard": key.standard,
        **(describe_standing(unit) or {}),
        "forms": [form.id for form in verdict.forms] if verdict else [],
        "findings": [found.code for found in verdict.findings] if verdict else [],
        "last_accepted_at": json_time(_newest(unit)),
        "files": [
            {"number": part.transfer.id, "kind": part.transfer.kind, "state": part.transfer.state.value}
            for part in unit.parts
        ],
    }
