"""``relay serve``: the server itself, until it is told to stop."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Listen here.", show_default="as in relay.toml")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="0 takes any free one.", show_default="as in relay.toml"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="So many processes serve.", show_default="as in relay.toml"),
    ] = None,
    home: HomeOption = Path(),
) -> None:
    """Run the relay until SIGTERM or Ctrl-C.

    When it accepts connections it prints one line, `listening on HOST:PORT`; the journal goes to stderr.
    """
    from relay.configfile import load_config
    from relay.supervisor import serve as serve_until_told

    # As if said in the environment, so that it is checked by the same rules.
    given = {"RELAY_SERVER__HOST": host, "RELAY_SERVER__PORT": port, "RELAY_SERVER__WORKERS": workers}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    serve_until_told(partial(load_config, home))
