"""``relay cert``: the certificates that offices log in with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from relay.cli.cert_apart import import_, sign
from relay.cli.cert_bundle import bundle
from relay.cli.cert_invite import invitations, invite
from relay.cli.cert_issue import issue
from relay.cli.cert_revoke import find_serial, krl, revoke
from relay.cli.installation import HomeOption, open_installation, read_office_number, run
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    CommandRefused,
    JsonOption,
    LimitOption,
    ReverseOption,
    Tone,
    colour,
    effective_limit,
    json_time,
    note_rows,
    parse_span,
    print_facts,
    print_json,
    print_table,
    say,
    say_time,
    zoned,
)
from relay.model import Certificate
from relay.offered import FOREVER

app = typer.Typer(help="Certificates of offices.", no_args_is_help=True, context_settings=HELP_SETTINGS)
app.command()(issue)
app.command()(invite)
app.command()(invitations)
app.command()(bundle)
app.command()(revoke)
app.command()(krl)
app.command()(sign)
app.command(name="import")(import_)


class CertificateState(StrEnum):
    """What a certificate is good for at a moment."""

    VALID = "valid"
    PENDING = "pending"
    EXPIRED = "expired"
    REVOKED = "revoked"


class CertificateOrder(StrEnum):
    """What a list of certificates can be sorted by."""

    ISSUED = "issued"
    ENDS = "ends"
    OFFICE = "office"
    SERIAL = "serial"


_TONES = {
    CertificateState.VALID: Tone.GOOD,
    CertificateState.PENDING: None,
    CertificateState.EXPIRED: Tone.FADED,
    CertificateState.REVOKED: Tone.BAD,
}
_KEYS = {
    # Newest first, the others from small to large.
    CertificateOrder.ISSUED: lambda certificate: -certificate.issued_at.timestamp(),
    CertificateOrder.ENDS: lambda certificate: certificate.valid_before,
    CertificateOrder.OFFICE: lambda certificate: certificate.offices,
    CertificateOrder.SERIAL: lambda certificate: certificate.serial,
}


def judge_state(certificate: Certificate, now: datetime) -> CertificateState:
    """Return what *certificate* is good for; whether its office is active is another matter."""
    if certificate.revoked_at is not None:
        return CertificateState.REVOKED
    if now >= certificate.valid_before:
        return CertificateState.EXPIRED
    return CertificateState.VALID if now >= certificate.valid_after else CertificateState.PENDING


@app.command(name="list")
def list_(
    of: Annotated[
        str | None, typer.Argument(metavar="[OFFICE]", help="Only of this office.", show_default="of all offices")
    ] = None,
    *,
    office: Annotated[str | None, typer.Option(metavar="OFFICE", help="The same.", hidden=True)] = None,
    state: Annotated[CertificateState | None, typer.Option(help="Only these.")] = None,
    expiring: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Only valid ones that end within 30d, 8w, 1y …")
    ] = None,
    sort: Annotated[CertificateOrder, typer.Option(help="Sort by this.")] = CertificateOrder.ISSUED,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """List certificates, newest first."""
    within = parse_span(expiring) if expiring else None
    found, now = run(_list(home, of or office, state, within))
    found.sort(key=_KEYS[sort], reverse=reverse)
    most = effective_limit(limit, as_json=as_json)
    if as_json:
        print_json([describe_certificate(certificate, now) for certificate in found[:most]])
    elif not found:
        say("no certificates")
    else:
        shown = found[:most]
        print_certificates(shown, now, note=note_rows(len(shown), most, "certificates", len(found)))


async def _list(
    home: Path, office: str | None, state: CertificateState | None, within: timedelta | None
) -> tuple[list[Certificate], datetime]:
    number = read_office_number(office) if office else None
    async with open_installation(home) as relay:
        found, now = await relay.ledger.list_certificates(office=number), relay.now
    if state is not None:
        found = [certificate for certificate in found if judge_state(certificate, now) is state]
    if within is not None:
        found = [
            certificate
            for certificate in found
            if judge_state(certificate, now) is CertificateState.VALID and certificate.valid_before - now <= within
        ]
    return found, now


def print_certificates(certificates: Sequence[Certificate], now: datetime, *, note: str) -> None:
    """Print a table of *certificates*."""
    print_table(
        [
            Column("Serial", justify="right"),
            Column("Office"),
            Column(zoned("Until")),
            Column("Days", justify="right"),
            Column("State"),
            Column("Label", is_flexible=True),
        ],
        [
            (
                str(certificate.serial),
                _say_offices(certificate),
                say_time(certificate.valid_before, with_zone=False),
                _say_days(certificate, now),
                _say_state(certificate, now),
                certificate.label,
            )
            for certificate in certificates
        ],
        note=note,
    )


def _say_offices(certificate: Certificate) -> str:
    first, *others = certificate.offices
    return f"{first} +{len(others)}" if others else first


def _say_days(certificate: Certificate, now: datetime) -> str:
    """Say for how many whole days it will still let somebody in."""
    days = _count_days(certificate, now)
    return "-" if days is None else str(days)


def _count_days(certificate: Certificate, now: datetime) -> int | None:
    is_good = judge_state(certificate, now) in (CertificateState.VALID, CertificateState.PENDING)
    return (certificate.valid_before - now).days if is_good and certificate.valid_before < FOREVER else None


def _say_state(certificate: Certificate, now: datetime) -> Text:
    state = judge_state(certificate, now)
    return colour(state.value, _TONES[state])


@app.command()
def show(
    serial: Annotated[
        str, typer.Argument(metavar="SERIAL|FILE", help="A serial, or an id-cert.pub file.", show_default=False)
    ],
    *,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Show what the register knows of a certificate."""
    found, now = run(_find(home, serial))
    if as_json:
        described = [describe_certificate(certificate, now) for certificate in found]
        print_json(described[0] if len(described) == 1 else described)
        return
    for place, certificate in enumerate(found):
        if place:
            say("")
        _print_certificate(certificate, now)


async def _find(home: Path, serial: str) -> tuple[list[Certificate], datetime]:
    from relay.certificates import parse_certificate_line

    async with open_installation(home) as relay:
        if serial.isascii() and serial.isdigit():
            return await find_serial(relay, int(serial), None), relay.now
        offered = parse_certificate_line(_read_certificate(serial))
        return await find_serial(relay, offered.serial, offered.ca_fingerprint), relay.now


def _read_certificate(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise CommandRefused(f"{path!r} is neither a serial nor a file") from None


def _print_certificate(certificate: Certificate, now: datetime) -> None:
    facts: list[tuple[str, str | Text]] = [
        ("Serial", str(certificate.serial)),
        ("State", _say_state(certificate, now)),
        ("Offices", ", ".join(certificate.offices)),
        ("Label", certificate.label or "-"),
        ("Key id", certificate.key_id),
        ("Valid from", say_time(certificate.valid_after)),
        ("Valid until", say_time(certificate.valid_before)),
        ("Issued", say_time(certificate.issued_at)),
        ("Renewed from", str(certificate.parent.serial) if certificate.parent else "-"),
        ("Key", certificate.key_fingerprint),
        ("CA", certificate.ca_fingerprint),
    ]
    if certificate.revoked_at is not None:
        facts[2:2] = [
            ("Revoked", say_time(certificate.revoked_at)),
            ("Cause", certificate.revoke_cause or "-"),
            ("Reason", certificate.revoke_reason or "-"),
        ]
    print_facts(facts)


def describe_certificate(certificate: Certificate, now: datetime) -> dict[str, object]:
    """Return a certificate for a program; the serial is text, because many programs round such numbers."""
    return {
        "serial": str(certificate.serial),
        "state": judge_state(certificate, now).value,
        "offices": list(certificate.offices),
        "label": certificate.label,
        "key_id": certificate.key_id,
        "valid_after": json_time(certificate.valid_after),
        "valid_before": json_time(certificate.valid_before),
        "days_left": _count_days(certificate, now),
        "issued_at": json_time(certificate.issued_at),
        "revoked_at": json_time(certificate.revoked_at),
        "revoke_cause": certificate.revoke_cause,
        "revoke_reason": certificate.revoke_reason,
        "parent_serial": str(certificate.parent.serial) if certificate.parent else None,
        "key_fingerprint": certificate.key_fingerprint,
        "ca_fingerprint": certificate.ca_fingerprint,
    }
