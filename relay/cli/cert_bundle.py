"""``relay cert bundle``: a zip for an office that cannot make a key by itself, and its passphrase, shown once.

The key is drawn in memory and reaches the disk only inside the zip, encrypted; the passphrase reaches no disk.  The
order is that of ``relay cert issue``: what can be refused is refused first, the certificate is recorded, the zip
appears whole or not at all, and a certificate whose zip could not be written is revoked again.
"""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.cert_issue import (
    DAY_SECONDS,
    ISSUED_FOLDER,
    parse_validity,
    revoked_where_unwritten,
    warn_of_suspended,
)
from relay.cli.installation import HomeOption, Installation, find_office, open_installation, run
from relay.cli.terminal import (
    CommandFailed,
    CommandRefused,
    JsonOption,
    print_facts,
    print_json,
    say,
    say_time,
    secret_asker,
    warn,
)
from relay.connecting import UNKNOWN_HOST, Address, describe_address
from relay.model import Certificate, Office

if TYPE_CHECKING:
    from relay.config import Config

BUNDLE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for; None where ``relay.toml`` says it."""

    office: str
    label: str
    valid_seconds: int | None
    host: str | None
    port: int | None
    out: Path | None
    force: bool


def bundle(
    office: Annotated[str, typer.Argument(metavar="OFFICE", help="Whose bundle.", show_default=False)],
    *,
    label: Annotated[str, typer.Option(help="A word for lists: which program, which PC.", show_default=False)] = "",
    valid: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="For how long: 12h, 365d, 2y.", show_default="as in relay.toml"),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How offices reach the relay.", show_default="as in relay.toml"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="On which port.", show_default="as in relay.toml")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.zip", help="Where it goes.", show_default="HOME/issued/OFFICE.zip")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Make a zip with key, certificate and settings for WinSCP, PuTTY and OpenSSH.

    For offices that cannot run scripts/enroll.  The passphrase is shown once and kept nowhere: tell it apart from the zip.
    """
    seconds = int(parse_validity(valid).total_seconds()) if valid else None
    order = _Order(office, label.strip(), seconds, host, port, out, force)
    run(_bundle(home, order, as_json=as_json))


async def _bundle(home: Path, order: _Order, *, as_json: bool) -> None:
    from relay.bundle import draw_passphrase

    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, order.office)
        address = _find_address(relay.config, order)
        file = order.out or relay.config.home / ISSUED_FOLDER / f"{office.number}.zip"
        if file.exists() and not order.force:
            raise CommandRefused(f"{file} is there already: choose another place with --out, or overwrite with --force")
        passphrase = draw_passphrase()
        record = await _issue(relay, order, office, address, file, passphrase)
    warn_of_suspended([office])
    _report(relay, record, address, file, passphrase, as_json=as_json)


def _find_address(config: Config, order: _Order) -> Address:
    """Return what offices have to type to get here; CommandRefused where nobody has said it."""
    from relay.config import check_host

    known = describe_address(config)
    try:
        host = check_host(order.host or known.host)
    except ValueError as error:
        raise CommandRefused(f"--host {order.host!r} {error}") from None
    if host == UNKNOWN_HOST:
        raise CommandRefused("the relay listens on every address: say with --host by which name offices reach it")
    port = order.port or known.port
    if not port:
        raise CommandRefused("the relay takes any free port: say with --port on which one offices reach it")
    if order.host is None and _is_loopback(host):
        warn(f"the bundle says {host}, which only this machine reaches: say with --host how offices reach the relay")
    return Address(host, port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _issue(
    relay: Installation, order: _Order, office: Office, address: Address, file: Path, passphrase: str
) -> Certificate:
    from cryptography.exceptions import UnsupportedAlgorithm

    from relay.authority import open_user_ca
    from relay.bundle import make_bundle
    from relay.issuing import Wish, issue
    from relay.keymaking import draw_office_key
    from relay.ppk import check_ppk
    from relay.privatekeys import private_bytes, public_line

    try:
        check_ppk()
    except UnsupportedAlgorithm as error:
        raise CommandFailed(f"PuTTY's key files cannot be made on this machine: {error}") from error
    settings = relay.config.certificates
    key = draw_office_key()
    wish = Wish(
        f"{public_line(private_bytes(key, passphrase.encode()))} {office.number}",
        [office.number],
        order.valid_seconds or settings.valid_days * DAY_SECONDS,
        label=order.label,
        most=settings.valid_per_office,
    )
    ca = open_user_ca(relay.keyring, ask=secret_asker())
    record = await issue(relay.ledger, ca, wish, actor=relay.actor, now=relay.now)
    async with revoked_where_unwritten(relay, record, file):
        data = make_bundle(
            relay.config,
            relay.keyring,
            office,
            address,
            key=key,
            certificate=record,
            passphrase=passphrase,
            now=relay.now,
        )
        _write(file, data, force=order.force)
    return record


def _write(file: Path, data: bytes, *, force: bool) -> None:
    from relay.publishing import publish_file

    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not publish_file(file, data, BUNDLE_MODE, overwrite=force):
        raise FileExistsError(errno.EEXIST, "it has appeared meanwhile", str(file))


def _report(
    relay: Installation, record: Certificate, address: Address, file: Path, passphrase: str, *, as_json: bool
) -> None:
    """Say what was made, and the passphrase, which nobody can say again."""
    if as_json:
        from relay.cli.cert import describe_certificate

        made = {"bundle": str(file), "passphrase": passphrase, "host": address.host, "port": address.port}
        print_json({**describe_certificate(record, relay.now), **made})
        return
    print_facts(
        [
            ("Bundle", str(file)),
            ("Office", ", ".join(record.offices)),
            ("Serial", str(record.serial)),
            ("Valid until", say_time(record.valid_before)),
            ("Server", f"{address.host}, port {address.port}"),
            ("Passphrase", passphrase),
        ]
    )
    say("")
    say("The passphrase is shown only now and kept nowhere. Tell it apart from the zip, by telephone or on paper.")
    say("Hand the zip over in a safe way, then delete it here. If either is lost: revoke, and make another.")
