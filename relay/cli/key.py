"""``relay key``: the relay's own keys, exchanged for new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, run
from relay.cli.terminal import HELP_SETTINGS, CommandRefused, YesOption

app = typer.Typer(help="The relay's own keys.", no_args_is_help=True, context_settings=HELP_SETTINGS)


@app.callback()
def _key() -> None:
    """Keep the nouns apart even while this one has a single verb."""


@app.command()
def rotate(
    *,
    master: Annotated[
        bool, typer.Option("--master", help="The key under which everything in the store is sealed.")
    ] = False,
    yes: YesOption = False,
    home: HomeOption = Path(),
) -> None:
    """Exchange a key for a new one, while the relay runs; after an interruption run it again."""
    from relay.cli.key_master import rotate_master

    if not master:
        raise CommandRefused("say which key: --master")
    run(rotate_master(home, yes=yes))
