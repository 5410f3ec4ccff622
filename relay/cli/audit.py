"""``relay audit``: what happened, who did it, and whether that is still what was written.

Looking at history changes nothing, not even history: these commands leave a store as they find it, so that evidence
can be looked at.  Only ``accept`` writes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.audit_export import read_text, write_export
from relay.cli.audit_verify import show_progress, verify
from relay.cli.audit_words import say_moment, to_moment
from relay.cli.installation import HomeOption, open_installation, read_office_number, run
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    CommandFailed,
    CommandRefused,
    JsonOption,
    LimitOption,
    ReverseOption,
    YesOption,
    confirm,
    effective_limit,
    json_time,
    note_rows,
    parse_since,
    print_facts,
    print_json,
    print_table,
    say,
    zoned,
)
from relay.model import EventKind

if TYPE_CHECKING:
    from relay.audit import Batch, EventRow

app = typer.Typer(
    help="History: who did what and when, and proof of it.", no_args_is_help=True, context_settings=HELP_SETTINGS
)
app.command()(verify)

# SQLite's integers end here.
_NUMBER_MOST = 2**63 - 1


@app.command(name="list")
def list_(
    *,
    office: Annotated[str | None, typer.Option(metavar="OFFICE", help="Only what this office did or met.")] = None,
    actor: Annotated[
        str | None, typer.Option(metavar="WHO", help="Only by this office, operator (login name), network, or relay.")
    ] = None,
    kind: Annotated[
        EventKind | None, typer.Option(metavar="KIND", help=f"Only these: {', '.join(EventKind)}.", show_default=False)
    ] = None,
    transfer: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, max=_NUMBER_MOST, help="Only of this transfer.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="Only since 2026-12-01, or 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Only before 2026-12-01, or 7d ago.")] = None,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """List what happened, newest first."""
    from relay.configfile import load_config
    from relay.ledger.auditing import Wanted, open_history

    wanted = Wanted(
        office=read_office_number(office) if office else None,
        actor=actor,
        kind=kind,
        transfer=transfer,
        since=_to_cell(since),
        until=_to_cell(until),
    )
    most = effective_limit(limit, as_json=as_json)
    with open_history(load_config(home).store.path) as history:
        # One more than is shown tells whether there are more.
        found = history.select(wanted, None if most is None else most + 1, oldest_first=reverse)
    shown = found[:most]
    if as_json:
        print_json([_describe_event(event) for event in shown])
    elif not shown:
        say("no events")
    else:
        _print_events(shown, note_rows(len(shown), most, "events", None if len(found) > len(shown) else len(shown)))


def _to_cell(when: str | None) -> int | None:
    return None if when is None else round(parse_since(when, datetime.now(UTC)).timestamp() * 1_000_000)


def _print_events(events: list[EventRow], note: str) -> None:
    print_table(
        [
            Column("Event", justify="right"),
            Column(zoned("When")),
            Column("What"),
            Column("Who"),
            Column("Office"),
            Column("Transfer", justify="right"),
            Column("Detail", is_flexible=True),
        ],
        [
            (
                str(event.id),
                say_moment(event.at).rpartition(" ")[0],
                _show(event.kind),
                _show(event.actor),
                "-" if event.office is None else _show(event.office),
                "-" if event.transfer is None else str(event.transfer),
                _show(event.detail),
            )
            for event in events
        ],
        note=note,
    )


def _show(cell: object) -> str:
    """Return a text for a terminal, on which nothing that somebody wrote into the store may run."""
    text = read_text(cell)
    return text if text.isprintable() else text.encode("unicode_escape", "replace").decode("ascii")


def _describe_event(event: EventRow) -> dict[str, object]:
    return {
        "event": event.id,
        "at": json_time(to_moment(event.at)),
        "kind": _show(event.kind),
        "actor": _show(event.actor),
        "office": None if event.office is None else _show(event.office),
        "transfer": event.transfer,
        "detail": _show(event.detail),
    }


@app.command()
def show(
    number: Annotated[
        int, typer.Argument(metavar="EVENT", min=1, max=_NUMBER_MOST, help="Its number.", show_default=False)
    ],
    *,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Show one event and what seals it."""
    from relay.configfile import load_config
    from relay.ledger.auditing import open_history

    with open_history(load_config(home).store.path) as history:
        event, batch = history.find_event(number), history.find_batch_of(number)
    if event is None:
        raise CommandRefused(f"there is no event {number}")
    if as_json:
        print_json({**_describe_event(event), "sealed": None if batch is None else _describe_batch(batch)})
        return
    facts = [
        ("Event", str(event.id)),
        ("When", say_moment(event.at)),
        ("What", _show(event.kind)),
        ("Who", _show(event.actor)),
        ("Office", "-" if event.office is None else _show(event.office)),
        ("Transfer", "-" if event.transfer is None else str(event.transfer)),
        ("Detail", _show(event.detail) or "-"),
    ]
    if batch is not None:
        facts += [
            ("Batch", f"{batch.id}, number {batch.number} of writer {batch.writer}"),
            ("Sealed", say_moment(batch.at)),
            ("Head", batch.head.hex()),
        ]
    print_facts([*facts])
    if batch is None:
        say("No batch holds it: `relay audit verify` says more.")


def _describe_batch(batch: Batch) -> dict[str, object]:
    return {
        "batch": batch.id,
        "writer": batch.writer,
        "number": batch.number,
        "at": json_time(to_moment(batch.at)),
        "head": batch.head.hex(),
    }


@app.command()
def head(*, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """Print how far history has come, as one word to keep elsewhere: on paper, in a mail, on another machine.

    `relay audit verify --head` compares with it.  It stands for what all writers wrote until then.
    """
    from relay.configfile import load_config
    from relay.keyring import load_keyring
    from relay.ledger.anchor import newest_mark
    from relay.ledger.auditing import open_history

    config = load_config(home)
    key = load_keyring(config.keys_path).audit_key
    with open_history(config.store.path) as history:
        try:
            mark = newest_mark(history.rows, key)
        except ValueError:
            raise CommandFailed(
                "the newest batch was not sealed with this relay's key: run `relay audit verify`"
            ) from None
    if mark is None:
        raise CommandRefused("there is no history yet")
    if as_json:
        told = {"batch": mark.batch, "event": mark.event, "at": json_time(to_moment(mark.at)), "head": mark.head.hex()}
        print_json({**told, "text": mark.write(key)})
    else:
        say(mark.write(key))


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it goes.", show_default=False)],
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    home: HomeOption = Path(),
) -> None:
    """Write all of history to a file, as JSON lines, for an archive; `relay audit verify --export` judges it.

    It names offices, operators and networks, and no files or persons.
    """
    from relay.configfile import load_config
    from relay.keyring import load_keyring
    from relay.ledger.auditing import open_history

    if file.exists() and not force:
        raise CommandRefused(f"{file} is there already: choose another place, or overwrite with --force")
    config = load_config(home)
    key = load_keyring(config.keys_path).audit_key
    with (
        open_history(config.store.path) as history,
        show_progress("exporting", history.newest_batch, is_quiet=False) as on_batch,
    ):
        done = write_export(history, file, key, on_batch)
    say(f"{done.events:,} events in {done.batches:,} batches: {file}")


@app.command()
def accept(
    *,
    reason: Annotated[str, typer.Option(help="Why: which backup was restored. Kept in history.", show_default=False)],
    yes: YesOption = False,
    home: HomeOption = Path(),
) -> None:
    """Begin the anchor anew with the store as it is, after a backup was restored or the anchor was lost.

    The old anchor is kept beside the new one.  Nothing that is missing or changed is mended by it.
    """
    reason = reason.strip()
    if not reason:
        raise CommandRefused("--reason must say why")
    confirm("Shall the store as it is now be the one that the anchor vouches for?", yes=yes)
    run(_accept(home, reason))


async def _accept(home: Path, reason: str) -> None:
    from relay.publishing import publish_file

    async with open_installation(home) as relay:
        anchor, now = relay.config.audit.anchor, relay.now
        kept = anchor.with_name(f"{anchor.name}.{now:%Y%m%dT%H%M%SZ}")
        detail = reason
        if anchor.exists():
            publish_file(kept, anchor.read_bytes(), 0o600)
            detail = f"{reason} (the anchor before is kept as {kept.name})"
        await relay.ledger.accept_store(actor=relay.actor, detail=detail, now=now)
    say(f"The anchor {anchor} now vouches for the store as it is.")
