"""``relay cert issue``: an office's public key becomes a certificate, recorded before it is handed out.

The order is the guarantee: everything that can be refused is refused first, then the record is synced, then the
files appear.  A certificate that nobody recorded would not open the door; a record whose file could not be written
is revoked again.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, Installation, find_office, open_installation, run
from relay.cli.terminal import (
    CommandFailed,
    CommandRefused,
    JsonOption,
    parse_span,
    print_json,
    say,
    say_time,
    secret_asker,
    warn,
)
from relay.model import Certificate, Office, OfficeStatus

VALID_MOST = timedelta(days=3660)
DAY_SECONDS = 86_400
ISSUED_FOLDER = "issued"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What will be written where: *private* only where the relay makes the key."""

    public_line: str
    certificate_file: Path
    private_file: Path | None = None
    private: bytes = b""

    @property
    def files(self) -> list[tuple[Path, bytes, int]]:
        """Return the files but for the certificate: path, content, mode."""
        if self.private_file is None:
            return []
        public = self.private_file.with_name(self.private_file.name + ".pub")
        return [(self.private_file, self.private, 0o600), (public, f"{self.public_line}\n".encode(), 0o644)]


def issue(
    office: Annotated[str, typer.Argument(metavar="OFFICE", help="Whose certificate.", show_default=False)],
    *,
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key",
            metavar="id.pub",
            exists=True,
            dir_okay=False,
            help="The office's own public key (OpenSSH, PuTTY or PEM).",
            show_default="a new key pair is made",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the certificate goes; without --public-key, where the private key goes.",
            show_default="id-cert.pub beside id.pub, or HOME/issued/OFFICE",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="OFFICE", help="A further office that may log in with it; may be repeated."),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="For how long: 12h, 365d, 2y.", show_default="as in relay.toml"),
    ] = None,
    label: Annotated[str, typer.Option(help="A word for lists: which program, which PC.", show_default=False)] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Issue a certificate to an office.

    With the office's own public key, id-cert.pub is written beside it, as ssh-keygen does.
    Without one, an ECDSA P-256 key pair is made; hand the private key over in a safe way.
    """
    span = parse_validity(valid) if valid else None
    numbers = [office, *(also or ())]
    run(
        _issue(
            home=home,
            numbers=numbers,
            public_key=public_key,
            out=out,
            span=span,
            label=label.strip(),
            force=force,
            as_json=as_json,
        )
    )


def parse_validity(text: str) -> timedelta:
    """Read for how long a certificate is to be valid; CommandRefused where that is no span, or too long."""
    span = parse_span(text)
    if span > VALID_MOST:
        raise CommandRefused("a certificate is valid for ten years at most")
    return span


async def _issue(
    *,
    home: Path,
    numbers: list[str],
    public_key: Path | None,
    out: Path | None,
    span: timedelta | None,
    label: str,
    force: bool,
    as_json: bool,
) -> None:
    from relay.authority import open_user_ca
    from relay.issuing import Wish, issue

    async with open_installation(home) as relay:
        # An office named twice is named once.
        offices = list({o.number: o for o in [await find_office(relay.ledger, number) for number in numbers]}.values())
        plan = _plan(relay, offices[0], public_key, out)
        _refuse_overwriting(plan, force=force)
        settings = relay.config.certificates
        wish = Wish(
            plan.public_line,
            [one.number for one in offices],
            int(span.total_seconds()) if span else settings.valid_days * DAY_SECONDS,
            label=label,
            most=settings.valid_per_office,
        )
        record = await issue(
            relay.ledger, open_user_ca(relay.keyring, ask=secret_asker()), wish, actor=relay.actor, now=relay.now
        )
        async with revoked_where_unwritten(relay, record, plan.certificate_file):
            _write(plan, record.line, force=force)
    warn_of_suspended(offices)
    _report(relay, plan, record, as_json=as_json)


@asynccontextmanager
async def revoked_where_unwritten(relay: Installation, record: Certificate, file: Path) -> AsyncIterator[None]:
    """Revoke *record* again where what is written here fails; CommandFailed then says so."""
    try:
        yield
    except OSError as error:
        await relay.ledger.revoke_certificate(
            *record.id, reason="its file could not be written", actor=relay.actor, now=relay.now
        )
        raise CommandFailed(f"{error.filename or file} cannot be written: {error.strerror}") from error


def warn_of_suspended(offices: Iterable[Office]) -> None:
    """Say which of *offices* cannot use a certificate at present."""
    for one in offices:
        if one.status is OfficeStatus.SUSPENDED:
            warn(f"office {one.number} is suspended and cannot log in until `relay office resume {one.number}`")
        elif one.status.has_ended and one.end is not None:
            warn(f"office {one.number} is {one.status} and cannot log in after {say_time(one.end.until)}")


def _plan(relay: Installation, office: Office, public_key: Path | None, out: Path | None) -> _Plan:
    from relay.keyfiles import read_public_key
    from relay.keymaking import make_office_key

    if public_key is not None:
        beside = public_key.with_name(public_key.name.removesuffix(".pub") + "-cert.pub")
        return _Plan(read_public_key(public_key.read_bytes()), out or beside)
    private_file = out or relay.config.home / ISSUED_FOLDER / office.number
    private, line = make_office_key()
    certificate_file = private_file.with_name(private_file.name + "-cert.pub")
    return _Plan(f"{line} {office.number}", certificate_file, private_file, private)


def _refuse_overwriting(plan: _Plan, *, force: bool) -> None:
    there = [path for path in (*(file for file, _, _ in plan.files), plan.certificate_file) if path.exists()]
    if there and not force:
        raise CommandRefused(f"{there[0]} is there already: choose another place with --out, or overwrite with --force")


def _write(plan: _Plan, line: str, *, force: bool) -> None:
    from relay.publishing import publish_file

    if plan.private_file is not None:
        plan.private_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for path, data, mode in (*plan.files, (plan.certificate_file, f"{line}\n".encode(), 0o644)):
            if not publish_file(path, data, mode, overwrite=force):
                raise FileExistsError(errno.EEXIST, "it has appeared meanwhile", str(path))
            written.append(path)
    except OSError:
        # A key without its certificate would stand in the way of the next attempt.
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _report(relay: Installation, plan: _Plan, record: Certificate, *, as_json: bool) -> None:
    """Say what was made and how to connect with it."""
    from relay.connecting import describe_address, known_hosts_lines

    private = plan.private_file
    address, known_hosts = describe_address(relay.config), known_hosts_lines(relay.config, relay.keyring.host_cas)
    if as_json:
        from relay.cli.cert import describe_certificate

        paths = {"private_key": None if private is None else str(private), "certificate": str(plan.certificate_file)}
        print_json({**describe_certificate(record, relay.now), **paths, "known_hosts": "\n".join(known_hosts)})
        return
    say(f"certificate  {plan.certificate_file}")
    if private is not None:
        say(f"private key  {private}  (hand it over in a safe way, then delete it here)")
    say(f"serial       {record.serial}")
    say(f"offices      {', '.join(record.offices)}")
    say(f"valid until  {say_time(record.valid_before)}")
    key = str(private) if private is not None else str(plan.certificate_file).removesuffix("-cert.pub")
    say("")
    say("To connect:")
    say(f"  sftp -i {key} -P {address.port} {record.offices[0]}@{address.host}")
    say(f"  WinSCP 6.0 or newer: user {record.offices[0]}; Advanced > SSH > Authentication: the private key,")
    say(f"  and as certificate {plan.certificate_file.name}")
    say("To be spared the question about the host key, add this to known_hosts:")
    for known in known_hosts:
        say(f"  {known}")
