"""``relay mail``: mail to offices: what waits, and whether it goes at all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    CommandFailed,
    CommandRefused,
    JsonOption,
    json_time,
    print_json,
    print_table,
    say,
    say_time,
    zoned,
)

if TYPE_CHECKING:
    from relay.config import Config
    from relay.letters import Waiting

app = typer.Typer(help="Mail to offices about what arrived.", no_args_is_help=True, context_settings=HELP_SETTINGS)


@app.command(name="test")
def try_(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where to send it.", show_default=False)],
    *,
    home: HomeOption = Path(),
) -> None:
    """Send a mail now, and say what the mail server answered."""
    from relay.configfile import load_config
    from relay.letters import parse_address

    config = load_config(home)
    if config.mail.rhythm is None:
        raise CommandRefused("no mail server is set: [mail] host in relay.toml names it")
    try:
        parse_address(address)
    except ValueError as error:
        raise CommandRefused(f"ADDRESS {error}") from None
    say(f"accepted by {_printable(run(_test(config, address)))}")


async def _test(config: Config, address: str) -> str:
    from aiosmtplib import SMTPException, SMTPResponseException

    from relay.mailing import describe_trouble, send_test

    where = f"{config.mail.host}:{config.mail.port}"
    try:
        return await send_test(config, address, now=datetime.now(UTC))
    except SMTPResponseException as refused:
        raise CommandFailed(f"{where} refused it: {refused.code} {_printable(refused.message)}") from refused
    except (SMTPException, OSError) as error:
        raise CommandFailed(f"{where} could not be used: {describe_trouble(error)}") from error


def _printable(text: str) -> str:
    """Return *text* of a stranger as one line that cannot move a cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


@app.command()
def queue(*, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """List what offices have not been told yet."""
    waiting = run(_queue(home))
    if as_json:
        print_json([_describe(one) for one in waiting])
    elif not waiting:
        say("no mail waits")
    else:
        _print(waiting)


async def _queue(home: Path) -> list[Waiting]:
    async with open_installation(home) as relay:
        return await relay.ledger.list_waiting()


def _print(waiting: list[Waiting]) -> None:
    print_table(
        [
            Column("Office"),
            Column("Name", is_flexible=True),
            Column("Per"),
            Column("In mail", justify="right"),
            Column("Tries", justify="right"),
            Column("Last answer"),
            Column("Gathering", justify="right"),
            Column(zoned("Next")),
        ],
        [
            (
                one.office,
                one.name,
                one.per.value,
                str(one.in_mail or "-"),
                str(one.tries or "-"),
                one.answer or "-",
                str(one.gathering or "-"),
                say_time(one.retry_at or one.due_at, with_zone=False),
            )
            for one in waiting
        ],
    )


def _describe(one: Waiting) -> dict[str, object]:
    return {
        "office": one.office,
        "name_ja": one.name,
        "per": one.per.value,
        "in_mail": one.in_mail,
        "tries": one.tries,
        "last_answer": one.answer or None,
        "retry_at": json_time(one.retry_at),
        "gathering": one.gathering,
        "due_at": json_time(one.due_at),
    }
