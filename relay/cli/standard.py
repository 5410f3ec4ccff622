"""``relay standard``: the tables of the care-plan standard, readable, and units made up for trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from relay.cli.standard_make import make
from relay.cli.terminal import HELP_SETTINGS, Column, CommandRefused, JsonOption, print_json, print_table, say
from relay.standard.kinds import KINDS, Kind
from relay.standard.layouts import Item, layout
from relay.standard.units import UNIT_FORMS
from relay.standard.versions import current_version

app = typer.Typer(
    help="The care-plan standard: its kinds, layouts and units.", no_args_is_help=True, context_settings=HELP_SETTINGS
)
app.command()(make)


@app.command()
def kinds(*, as_json: JsonOption = False) -> None:
    """List the kinds of files and the units they are sent in."""
    if as_json:
        print_json([_describe_kind(kind) for kind in KINDS.values()])
        return
    print_table(
        [
            Column("Kind"),
            Column("名称", is_flexible=True),
            Column("Meaning", is_flexible=True),
            Column("Editions"),
            Column("Month"),
            Column("Items", "right"),
            Column("Units", is_flexible=True),
        ],
        [
            [
                kind.name,
                kind.title_ja,
                kind.title_en,
                ", ".join(sorted(kind.standards)),
                "in name" if kind.has_month else "-",
                " / ".join(_count_items(kind)) or "-",
                ", ".join(_units_of(kind)),
            ]
            for kind in KINDS.values()
        ],
        note="Items as in the editions, older first.  relay standard layout KIND lists them.",
    )


@app.command(name="layout")
def show_layout(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="As in `relay standard kinds`.", show_default=False)],
    *,
    standard: Annotated[Literal["4.1", "3.2"], typer.Option(help="The edition.")] = "4.1",
    as_json: JsonOption = False,
) -> None:
    """List the items of a kind's records: number, name, length, whether required, form.

    A ? marks what the published text does not show beyond doubt; the checks leave it alone.
    """
    found = KINDS.get(kind.upper())
    if found is None:
        raise CommandRefused(f"{kind} is no kind of the standard; relay standard kinds lists them")
    items = layout(standard, found.name)
    if not items:
        why = "is an image and has no records" if found.is_image else f"does not exist in {standard}"
        raise CommandRefused(f"{found.name} {why}")
    if as_json:
        print_json([_describe_item(item) for item in items])
        return
    version = current_version(standard).value
    say(f"{found.name}  {found.title_ja}  ({found.title_en})  {standard}, item 1 = {version}\n")
    print_table(
        [
            Column("Item", "right"),
            Column("項目名", is_flexible=True),
            Column("Length", "right"),
            Column("Required"),
            Column("Form", is_flexible=True),
        ],
        [_show_item(item) for item in items],
    )


@app.command()
def units(*, as_json: JsonOption = False) -> None:
    """List the units: which kinds travel together under one serial."""
    if as_json:
        print_json(
            [
                {
                    "unit": form.id,
                    "standard": form.standard,
                    "required": list(form.required),
                    "optional": list(form.optional),
                    "title_ja": form.title_ja,
                    "title_en": form.title_en,
                    "source": form.source,
                }
                for form in UNIT_FORMS
            ]
        )
        return
    print_table(
        [Column("Unit"), Column("名称", is_flexible=True), Column("Required"), Column("Optional", is_flexible=True)],
        [[form.id, form.title_ja, " ".join(form.required), " ".join(form.optional) or "-"] for form in UNIT_FORMS],
    )


def _describe_kind(kind: Kind) -> dict[str, object]:
    return {
        "kind": kind.name,
        "title_ja": kind.title_ja,
        "title_en": kind.title_en,
        "purpose": kind.purpose.value,
        "has_month": kind.has_month,
        "standards": sorted(kind.standards),
        "items": {standard: len(layout(standard, kind.name)) or None for standard in sorted(kind.standards)},
        "units": list(_units_of(kind)),
    }


def _count_items(kind: Kind) -> Sequence[str]:
    counts = [len(layout(standard, kind.name)) for standard in sorted(kind.standards)]
    # The same in both editions is said once.
    return [str(count) for count in dict.fromkeys(counts) if count]


def _units_of(kind: Kind) -> Sequence[str]:
    return [form.id for form in UNIT_FORMS if kind.name in form.required + form.optional]


def _describe_item(item: Item) -> dict[str, object]:
    return {
        "item": item.number,
        "name_ja": item.name_ja,
        "length": item.length,
        "is_length_certain": item.is_length_certain,
        "required": item.required,
        "is_required_certain": item.is_required_certain,
        "format": item.format,
        "is_format_certain": item.is_format_certain,
    }


def _show_item(item: Item) -> Sequence[str]:
    length = "-" if item.length is None else f"{item.length}{'' if item.is_length_certain else '?'}"
    required = {True: "yes", False: "-", None: "?"}[item.required]
    if item.required and not item.is_required_certain:
        required += "?"
    doubt = "" if item.is_text or item.is_format_certain else "?"
    return [str(item.number), item.name_ja, length, required, item.format + doubt]
