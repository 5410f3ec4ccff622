"""``relay cert sign`` and ``relay cert import``: issuing on a machine apart, which nobody reaches over a network.

Signing needs neither server, store nor home: a public key, the CA's private key and the numbers of the offices.  Its
result opens no door before it was imported, because the register does not know it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.cert_issue import parse_validity, warn_of_suspended
from relay.cli.installation import HomeOption, find_office, open_installation, read_office_number, run
from relay.cli.terminal import CommandRefused, say, say_time, secret_asker
from relay.model import Certificate


def sign(
    public_key: Annotated[
        Path,
        typer.Argument(
            metavar="id.pub", exists=True, dir_okay=False, help="The office's public key.", show_default=False
        ),
    ],
    *,
    office: Annotated[list[str], typer.Option(metavar="OFFICE", help="Whose; may be repeated.", show_default=False)],
    ca_key: Annotated[
        Path,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="The user CA's private key.", show_default=False
        ),
    ],
    valid: Annotated[str, typer.Option(metavar="SPAN", help="For how long: 12h, 365d, 2y.")] = "365d",
    source_address: Annotated[
        str | None, typer.Option(metavar="CIDR", help="Only from there.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where it goes.", show_default="id-cert.pub beside id.pub")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Sign a certificate on a machine apart; `relay cert import` makes it known to the relay."""
    from datetime import UTC, datetime

    from relay.authority import find_passphrase
    from relay.certificates import draw_serial, issue_certificate, plan_validity
    from relay.keyfiles import read_public_key
    from relay.keyring import open_ca
    from relay.privatekeys import has_passphrase
    from relay.publishing import publish_file

    offices = list(dict.fromkeys(read_office_number(number) for number in office))
    passphrase = find_passphrase()
    if passphrase is None and has_passphrase(ca_key.read_bytes()) and (ask := secret_asker()) is not None:
        passphrase = ask(f"Passphrase of {ca_key}").encode()
    seconds = int(parse_validity(valid).total_seconds())
    now, serial = datetime.now(UTC), draw_serial()
    after, before = plan_validity(now, seconds)
    line, record = issue_certificate(
        read_public_key(public_key.read_bytes()),
        open_ca(ca_key, passphrase),
        serial=serial,
        key_id=f"{offices[0]} {now:%Y-%m-%d} {serial}",
        offices=offices,
        valid_after=after,
        valid_before=before,
        source_address=source_address,
    )
    file = out or public_key.with_name(public_key.name.removesuffix(".pub") + "-cert.pub")
    if not publish_file(file, f"{line}\n".encode(), 0o644, overwrite=force):
        raise CommandRefused(f"{file} is there already: choose another place with --out, or overwrite with --force")
    say(f"certificate  {file}")
    say(f"serial       {record.serial}")
    say(f"offices      {', '.join(record.offices)}")
    say(f"valid until  {say_time(record.valid_before)}")
    say(f"It opens no door before:  relay cert import {file.name}")


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", exists=True, dir_okay=False, help="Certificates signed apart.", show_default=False
        ),
    ],
    *,
    label: Annotated[str, typer.Option(help="A word for lists: which program, which PC.", show_default=False)] = "",
    home: HomeOption = Path(),
) -> None:
    """Make certificates known that were signed on a machine apart."""
    run(_import(home, files, label.strip()))


async def _import(home: Path, files: list[Path], label: str) -> None:
    from relay.certificates import examine_certificate

    async with open_installation(home) as relay:
        for file in files:
            text = file.read_text(encoding="utf-8", errors="replace").strip()
            offered = examine_certificate(text, relay.keyring.user_ca_fingerprints, now=relay.now)
            offices = [await find_office(relay.ledger, number) for number in offered.principals]
            record = Certificate(
                ca_fingerprint=offered.ca_fingerprint,
                serial=offered.serial,
                key_id=offered.key_id,
                key_fingerprint=offered.key_fingerprint,
                offices=tuple(one.number for one in offices),
                valid_after=offered.valid_after,
                valid_before=offered.valid_before,
                issued_at=relay.now,
                label=label,
                line=text,
            )
            try:
                await relay.ledger.record_certificate(
                    record, actor=relay.actor, most=relay.config.certificates.valid_per_office
                )
            except ValueError:
                say(f"{file}: serial {record.serial} is known already")
                continue
            say(f"{file}: serial {record.serial} of {', '.join(record.offices)}, until {say_time(record.valid_before)}")
            warn_of_suspended(offices)
