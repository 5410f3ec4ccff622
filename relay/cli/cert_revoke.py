"""``relay cert revoke`` and ``relay cert krl``: what opens no door any more, said to the relay and to others."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, Installation, open_installation, read_office_number, run
from relay.cli.terminal import CommandRefused, YesOption, confirm, say, say_time, warn
from relay.model import Certificate, CertificateKind, RevocationCause

_NAMED_MOST = 5


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is to be revoked: exactly one of these, *label* and *ca* narrow it down."""

    serial: int | None
    key: str | None
    key_id: str | None
    office: str | None
    label: str | None
    ca: str | None

    def check(self) -> None:
        given = [each for each in (self.serial, self.key, self.key_id, self.office) if each is not None]
        if len(given) != 1:
            raise CommandRefused("say one thing to revoke: SERIAL, --key, --key-id or --office")
        if self.label is not None and self.office is None:
            raise CommandRefused("--label narrows --office down")


def revoke(
    serial: Annotated[
        int | None, typer.Argument(metavar="[SERIAL]", min=0, help="One certificate.", show_default=False)
    ] = None,
    *,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="id.pub|SHA256:…", help="A key, for good, and every certificate of it.", show_default=False
        ),
    ] = None,
    key_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Those with this key id.", show_default=False)
    ] = None,
    office: Annotated[
        str | None, typer.Option(metavar="OFFICE", help="All that name this office.", show_default=False)
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="With --office, those with this label.", show_default=False)
    ] = None,
    cause: Annotated[
        RevocationCause, typer.Option(help="Why; after lost and stolen the key is never certified again.")
    ] = RevocationCause.UNSPECIFIED,
    reason: Annotated[str, typer.Option(help="In your words; kept in the history.", show_default=False)] = "",
    keep_renewed: Annotated[bool, typer.Option("--keep-renewed", help="Leave what was renewed from it.")] = False,
    ca: Annotated[
        str | None,
        typer.Option(
            "--ca", metavar="SHA256:…", help="The CA, where two of them gave the same serial.", show_default=False
        ),
    ] = None,
    yes: YesOption = False,
    home: HomeOption = Path(),
) -> None:
    """Revoke certificates for good, and what was renewed from them; open sessions end within seconds."""
    choice = _Choice(serial, key, key_id, office, label, ca)
    choice.check()
    run(_revoke(home, choice, cause, reason.strip(), keep_renewed=keep_renewed, yes=yes))


async def _revoke(
    home: Path, choice: _Choice, cause: RevocationCause, reason: str, *, keep_renewed: bool, yes: bool
) -> None:
    async with open_installation(home) as relay:
        key = _read_key(choice.key) if choice.key is not None else None
        chosen = await _find(relay, choice, key)
        ending = [one for one in await _with_renewed(relay, chosen, keep_renewed=keep_renewed) if not one.revoked_at]
        if ending or key is not None:
            confirm(f"Revoke {_describe(ending, key)}? There is no way back.", yes=yes)
        revoked = await relay.ledger.revoke_certificates(
            [one.id for one in chosen],
            keys=[key] if key is not None else [],
            cause=cause,
            reason=reason,
            keep_renewed=keep_renewed,
            actor=relay.actor,
            now=relay.now,
        )
    _report(chosen, revoked, key)


async def _find(relay: Installation, choice: _Choice, key: str | None) -> list[Certificate]:
    """Return the certificates that were meant; CommandRefused where there are none, but for a key."""
    if choice.serial is not None:
        found = await find_serial(relay, choice.serial, choice.ca)
        if len(found) > 1:
            raise CommandRefused(
                f"two CAs gave serial {choice.serial}; say which with --ca, as `relay cert show {choice.serial}` tells"
            )
        return found
    if key is not None:
        return await relay.ledger.list_certificates(key_fingerprint=key)
    if choice.key_id is not None:
        found = await relay.ledger.list_certificates(key_id=choice.key_id)
    else:
        assert choice.office is not None
        found = await relay.ledger.list_certificates(office=read_office_number(choice.office))
    found = [one for one in found if choice.ca in (None, one.ca_fingerprint) and choice.label in (None, one.label)]
    if not found:
        raise CommandRefused("the register has no such certificate")
    return found


async def find_serial(relay: Installation, serial: int, ca: str | None) -> list[Certificate]:
    """Return the certificates with that serial; CommandRefused where there is none."""
    # The store's integers end here, and no certificate was ever recorded beyond.
    found = await relay.ledger.list_certificates(serial=serial) if serial < 2**63 else []
    found = [certificate for certificate in found if ca in (None, certificate.ca_fingerprint)]
    if not found:
        raise CommandRefused(f"the register has no certificate with serial {serial}")
    return found


async def _with_renewed(
    relay: Installation, chosen: Sequence[Certificate], *, keep_renewed: bool
) -> Sequence[Certificate]:
    """Return *chosen* and what was renewed from it; a renewed one names no office that its parent did not."""
    if keep_renewed:
        return chosen
    numbers = {office for one in chosen for office in one.offices}
    known = {one.id: one for number in numbers for one in await relay.ledger.list_certificates(office=number)}
    found = {one.id: one for one in chosen}
    while new := [one for one in known.values() if one.parent in found and one.id not in found]:
        found.update({one.id: one for one in new})
    return list(found.values())


def _read_key(text: str) -> str:
    """Return the fingerprint that is meant: as it stands, or of the key or certificate in a file."""
    from relay.certificates import fingerprint_of_line, load_certifiable_key, parse_certificate_line
    from relay.keyfiles import read_public_key
    from relay.offered import CERTIFICATE_KINDS

    if text.startswith("SHA256:"):
        try:
            is_digest = len(base64.b64decode(text[7:] + "=", validate=True)) == 32  # noqa: PLR2004 - SHA-256
        except ValueError:
            is_digest = False
        if not is_digest:
            raise CommandRefused(f"{text!r} is no fingerprint as `ssh-keygen -l` prints it")
        return text
    line = read_public_key(Path(text).read_bytes())
    if line.split()[0] in CERTIFICATE_KINDS:
        return parse_certificate_line(line).key_fingerprint
    load_certifiable_key(line)
    return fingerprint_of_line(line)


def _describe(ending: Sequence[Certificate], key: str | None) -> str:
    offices = sorted({office for one in ending for office in one.offices})
    of = f" of {', '.join(offices[:_NAMED_MOST])}{' and more' if len(offices) > _NAMED_MOST else ''}" if offices else ""
    count = f"certificate {ending[0].serial}" if len(ending) == 1 else f"{len(ending)} certificates"
    if key is None:
        return f"{count}{of}"
    return f"key {key} and {count}{of}" if ending else f"key {key}, which has no valid certificate,"


def _report(chosen: Sequence[Certificate], revoked: Sequence[Certificate], key: str | None) -> None:
    if key is not None:
        say(f"key {key} is revoked")
    for one in revoked:
        say(f"certificate {one.serial} of {', '.join(one.offices)} is revoked")
    for one in chosen:
        if one.revoked_at is not None:
            say(f"certificate {one.serial} is revoked already, since {say_time(one.revoked_at)}")


def krl(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it goes; one that is there is replaced.")],
    *,
    home: HomeOption = Path(),
) -> None:
    """Write everything that was revoked as OpenSSH reads it (RevokedKeys, ssh-keygen -Q)."""
    run(_krl(home, file))


async def _krl(home: Path, file: Path) -> None:
    from relay.krl import RevokedKeys, RevokedOfCa, write_krl
    from relay.publishing import publish_file

    async with open_installation(home) as relay:
        # Nothing of OpenSSH's is ever asked about X.509.
        found = await relay.ledger.list_certificates(is_revoked=True)
        revoked = [one for one in found if one.kind is CertificateKind.OPENSSH]
        keys = await relay.ledger.list_revoked_keys()
        version, now = await relay.ledger.register_version(), relay.now
    cas = _find_cas(relay, revoked)
    if lost := [one for one in revoked if one.ca_fingerprint not in cas]:
        warn(f"{len(lost)} certificates are of CAs that are not trusted any more and are not in the list")
    by_ca = {
        key: RevokedOfCa([one.serial for one in revoked if one.ca_fingerprint == fingerprint])
        for fingerprint, key in cas.items()
    }
    data = write_krl(RevokedKeys(by_ca, keys), version=version, now=now, comment="careplan-relay")
    publish_file(file, data, 0o644, overwrite=True)
    say(f"{file}: {len(revoked) - len(lost)} certificates and {len(keys)} keys")


def _find_cas(relay: Installation, revoked: Sequence[Certificate]) -> Mapping[str, bytes]:
    """Return the public keys of CAs, those included that are named by certificates which the register keeps."""
    from relay.certificates import fingerprint, parse_certificate_line

    found = {
        fingerprint(key): key for key in (base64.b64decode(line.split()[1]) for line in relay.keyring.trusted_user_cas)
    }
    for one in revoked:
        if one.line and one.ca_fingerprint not in found:
            found[one.ca_fingerprint] = parse_certificate_line(one.line).ca_key
    return found
