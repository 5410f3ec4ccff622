"""``relay receipt``: whether a receipt is genuine, and what it proves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption
from relay.cli.terminal import HELP_SETTINGS, CommandRefused, JsonOption, print_json, say

app = typer.Typer(help="Signed receipts of transfers.", no_args_is_help=True, context_settings=HELP_SETTINGS)


@app.command()
def signers(home: HomeOption = Path()) -> None:
    """Print the allowed-signers file that `ssh-keygen -Y verify` needs, for publishing it."""
    typer.echo(_own_signers(home).decode(), nl=False)


@app.command()
def verify(
    receipt: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="RECEIPT", help="The .txt file.")],
    *,
    signature: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="Its signature.", show_default="RECEIPT with .sig behind"
        ),
    ] = None,
    signers_file: Annotated[
        Path | None,
        typer.Option(
            "--signers",
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Allowed signers.",
            show_default="our own key",
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Check a receipt against its signature, as `ssh-keygen -Y verify` does; say what it proves and what not."""
    from relay.receipttext import NAMESPACE
    from relay.sshsig import SignatureInvalid, verify

    beside = signature or receipt.with_name(receipt.name + ".sig")
    if not beside.is_file():
        raise CommandRefused(
            f"there is no signature {beside}: fetch it from receipts/ as well, or name it with --signature"
        )
    allowed = signers_file.read_text("utf-8") if signers_file else _own_signers(home).decode()
    try:
        signer = verify(receipt.read_bytes(), beside.read_bytes(), allowed.splitlines(), namespace=NAMESPACE)
    except SignatureInvalid as invalid:
        if as_json:
            print_json({"receipt": str(receipt), "is_genuine": False, "reason": str(invalid)})
            raise typer.Exit(2) from None
        raise CommandRefused(f"{receipt} is not genuine: {invalid}") from invalid
    if as_json:
        print_json({"receipt": str(receipt), "is_genuine": True, "signer": signer.principal, "key": signer.fingerprint})
        return
    say(f"{receipt} is genuine: signed by {signer.principal} with {signer.fingerprint}.")
    say("It proves that whoever holds that key says what it says, and that nobody has changed it since.")
    say(
        "It does not prove that the file's content is right, that a person has read it, or that the relay's clock was right."
    )


def _own_signers(home: Path) -> bytes:
    from relay.configfile import load_config
    from relay.keyring import load_keyring
    from relay.receipttext import render_allowed_signers

    return render_allowed_signers(load_keyring(load_config(home).keys_path).receipt_line)
