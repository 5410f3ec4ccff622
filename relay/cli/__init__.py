"""The command line: how an operator sets the relay up, keeps its register and looks at what happened.

One file a noun.  It works on the store itself, beside a server that is running: what it changes holds at once and
ends open sessions within seconds.

Exit codes: 0 done; 1 the installation is broken or the work could not be done; 2 refused, or the command was not
understood.  A failure is one message on stderr that says what to do next, never a traceback.
"""

from __future__ import annotations

import inspect
import os
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from relay.cli import audit, cert, config, db, housekeeping, key, mail, notice, office, receipt, standard, transfer
from relay.cli.backup import backup, restore
from relay.cli.check import check
from relay.cli.doctor import doctor
from relay.cli.explain import explain
from relay.cli.init import init
from relay.cli.queue import queue
from relay.cli.report import report
from relay.cli.serve import serve
from relay.cli.stats import stats
from relay.cli.terminal import HELP_SETTINGS, CommandFailed, CommandRefused, complain
from relay.cli.top import top
from relay.cli.trace import trace
from relay.errors import Deferred, Refused, RelayError
from relay.offered import CertificateRejected

BROKEN = 1
REFUSED = 2

app = typer.Typer(
    name="relay",
    help="Relay care plans between offices, by the names of the files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP_SETTINGS,
    rich_markup_mode="rich",
)
app.command()(init)
app.command()(serve)
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")
app.add_typer(office.app, name="office")
app.add_typer(cert.app, name="cert")
app.add_typer(transfer.app, name="transfer")
app.add_typer(housekeeping.app, name="housekeeping")
app.add_typer(notice.app, name="notice")
app.add_typer(receipt.app, name="receipt")
app.add_typer(mail.app, name="mail")
app.command()(report)
app.command()(doctor)
app.command()(top)
app.command()(queue)
app.command()(trace)
app.command()(stats)
app.add_typer(key.app, name="key")
app.add_typer(audit.app, name="audit")
app.command()(backup)
app.command()(restore)
app.command()(explain)
app.command()(check)
app.add_typer(standard.app, name="standard")


def _unwrap_help(group: typer.Typer) -> None:
    """Let each command's help be folded by the terminal: where its lines end in the source says nothing."""
    for command in group.registered_commands:
        if command.callback is not None and command.callback.__doc__ and command.help is None:
            paragraphs = inspect.cleandoc(command.callback.__doc__).split("\n\n")
            command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _unwrap_help(inner.typer_instance)


_unwrap_help(app)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        typer.echo(version("careplan-relay"))
        raise typer.Exit


@app.callback()
def _choose_home(
    *,
    home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the relay lives; also RELAY_HOME.", show_default="current folder"),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if home is not None:
        # The commands read it from there, so that --home may stand before or behind them.
        os.environ["RELAY_HOME"] = str(home)


def main() -> None:
    """Run the command of this process's arguments and exit with its code."""
    try:
        app()
    except (CommandRefused, CertificateRejected) as refused:
        complain(str(refused))
        sys.exit(REFUSED)
    except Refused as refused:
        complain(f"{refused.finding.message_en} ({refused.code})", refused.finding.row.remedy_en)
        sys.exit(REFUSED)
    except Deferred as deferred:
        complain(f"{deferred.finding.message_en} ({deferred.code})", deferred.detail)
        sys.exit(BROKEN)
    except (CommandFailed, RelayError) as error:
        complain(str(error))
        sys.exit(BROKEN)
    except sqlite3.Error as error:
        complain(f"the store cannot be used at this moment: {error}", "Look at the disk it lies on, then try again.")
        sys.exit(BROKEN)
    except BrokenPipeError:
        # `relay office list | head`: nobody is reading any more, and nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(BROKEN)
