"""``relay key``: the relay's own keys, exchanged for new ones."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, run
from relay.cli.terminal import HELP_SETTINGS, CommandRefused, JsonOption, YesOption

app = typer.Typer(help="The relay's own keys.", no_args_is_help=True, context_settings=HELP_SETTINGS)


class HostKeyChoice(StrEnum):
    """Which host keys to exchange."""

    ALL = "all"
    ED25519 = "ed25519"
    ECDSA = "ecdsa"
    RSA = "rsa"


@app.command(name="list")
def list_(*, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """List the CAs, host keys and the receipt key."""
    from relay.cli.key_authority import list_keys

    run(list_keys(home, as_json=as_json))


@app.command()
def rotate(
    *,
    master: Annotated[
        bool, typer.Option("--master", help="The key under which everything in the store is sealed.")
    ] = False,
    user_ca: Annotated[bool, typer.Option("--user-ca", help="The CA that signs certificates of offices.")] = False,
    host_ca: Annotated[bool, typer.Option("--host-ca", help="The CA by which offices know this relay.")] = False,
    host_key: Annotated[
        HostKeyChoice | None, typer.Option("--host-key", help="What the relay proves itself with.", show_default=False)
    ] = None,
    apart: Annotated[
        Path | None,
        typer.Option(
            metavar="ca.pub",
            exists=True,
            dir_okay=False,
            help="With --user-ca: the new one is kept on a machine apart, and this is its public half.",
            show_default=False,
        ),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Protect the new CA by a passphrase, asked for or as configured.")
    ] = False,
    yes: YesOption = False,
    home: HomeOption = Path(),
) -> None:
    """Exchange a key for a new one, while the relay runs; after an interruption run it again."""
    from relay.cli import key_authority
    from relay.cli.key_master import rotate_master
    from relay.keyfiles import read_public_key

    if sum((master, user_ca, host_ca, host_key is not None)) != 1:
        raise CommandRefused("say which key: --master, --user-ca, --host-ca or --host-key")
    if apart is not None and not user_ca:
        raise CommandRefused("--apart is for --user-ca")
    if master:
        run(rotate_master(home, yes=yes))
    elif user_ca:
        line = " ".join(read_public_key(apart.read_bytes()).split()[:2]) if apart is not None else None
        run(key_authority.rotate_user_ca(home, new_line=line, with_passphrase=passphrase, yes=yes))
    elif host_ca:
        run(key_authority.rotate_host_ca(home, with_passphrase=passphrase, yes=yes))
    else:
        from relay.keyring import HOST_ALGORITHMS

        chosen = [name for name in HOST_ALGORITHMS if host_key in (HostKeyChoice.ALL, name)]
        run(key_authority.rotate_host_key(home, chosen, yes=yes))


@app.command()
def retire(
    fingerprint: Annotated[
        str | None, typer.Argument(metavar="[SHA256:…]", help="A former user CA.", show_default=False)
    ] = None,
    *,
    host_ca: Annotated[bool, typer.Option("--host-ca", help="The former host CA.")] = False,
    yes: YesOption = False,
    home: HomeOption = Path(),
) -> None:
    """End the overlap after a rotation: trust a former CA no more."""
    from relay.cli import key_authority

    if (fingerprint is None) != host_ca:
        raise CommandRefused(
            "say which: the fingerprint of a former user CA, or --host-ca; `relay key list` shows them"
        )
    if fingerprint is None:
        run(key_authority.retire_host_ca(home, yes=yes))
    else:
        run(key_authority.retire_user_ca(home, fingerprint, yes=yes))
