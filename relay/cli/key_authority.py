"""``relay key list``, ``rotate`` and ``retire`` for the CAs and host keys: exchanged with overlap, while the relay runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.installation import Installation, open_installation
from relay.cli.terminal import (
    CommandRefused,
    confirm,
    print_facts,
    print_json,
    say,
    secret_asker,
)
from relay.model import EventKind

if TYPE_CHECKING:
    from relay.keyring import HostAlgorithm, Keyring


async def list_keys(home: Path, *, as_json: bool) -> None:
    """Show the CAs and the keys that the relay proves itself with, and where their private halves are."""
    async with open_installation(home) as relay:
        rows = list(_rows(relay.keyring))
    if as_json:
        print_json([dict(zip(("what", "fingerprint", "private", "meaning"), row, strict=True)) for row in rows])
        return
    # Below each other, since a fingerprint that is cut off is none.
    print_facts(
        [
            fact
            for what, fingerprint, private, meaning in rows
            for fact in (
                (what, fingerprint),
                ("", meaning + (f"; its private half is {private}" if private != "-" else "")),
            )
        ]
    )


def _rows(keyring: Keyring) -> list[tuple[str, str, str, str]]:
    from relay.certificates import fingerprint_of_line

    own, *others = keyring.trusted_user_cas
    rows = [("user CA", fingerprint_of_line(own), _standing(keyring.path / "user_ca"), "signs certificates of offices")]
    rows += [("former user CA", fingerprint_of_line(line), "-", "trusted until it is retired") for line in others]
    is_new = len(keyring.host_cas) > 1
    rows.append(
        (
            "host CA",
            fingerprint_of_line(keyring.host_ca),
            _standing(keyring.path / "host_ca"),
            "told to offices, certifies from `relay key retire --host-ca` on" if is_new else "certifies the host keys",
        )
    )
    rows += [
        ("former host CA", fingerprint_of_line(line), "here", "certifies the host keys until it is retired")
        for line in keyring.host_cas[1:]
    ]
    rows += [
        (f"host key {key.algorithm}", fingerprint_of_line(key.public_line), "here", "what clients see")
        for key in keyring.host_keys
    ]
    return [*rows, ("receipt key", fingerprint_of_line(keyring.receipt_line), "here", "signs receipts")]


def _standing(file: Path) -> str:
    from relay.privatekeys import has_passphrase

    if not file.exists():
        return "apart"
    return "here, with a passphrase" if has_passphrase(file.read_bytes()) else "here"


def _find_passphrase(file: Path) -> bytes | None:
    """Return the passphrase that a private key needs; CommandRefused where it is found nowhere and nobody can be asked."""
    from relay.authority import find_passphrase
    from relay.privatekeys import has_passphrase

    if not file.exists() or not has_passphrase(file.read_bytes()):
        return None
    if (said := find_passphrase()) is not None:
        return said
    ask = secret_asker()
    if ask is None:
        raise CommandRefused(f"{file} has a passphrase: set RELAY_CA_PASSPHRASE_FILE, or run this on a terminal")
    return ask(f"Passphrase of {file}").encode()


def _new_passphrase(old: Path, *, with_passphrase: bool) -> bytes | None:
    """Return the passphrase of a new CA: one is wanted where it is asked for, and where the one before had one."""
    from relay.authority import find_passphrase

    if not with_passphrase:
        return _find_passphrase(old)
    if (said := find_passphrase()) is not None:
        return said
    ask = secret_asker()
    if ask is None:
        raise CommandRefused("nobody can be asked for the new passphrase: set RELAY_CA_PASSPHRASE_FILE")
    first, second = ask("New passphrase of the CA"), ask("Once more")
    if not first or first != second:
        raise CommandRefused("these were not the same; nothing was changed")
    return first.encode()


async def rotate_user_ca(home: Path, *, new_line: str | None, with_passphrase: bool, yes: bool) -> None:
    """Let a new user CA sign; of one that is kept apart only its public half, *new_line*, is here."""
    from relay import authority

    async with open_installation(home) as relay:
        keys = relay.config.keys_path
        passphrase = None if new_line else _new_passphrase(keys / "user_ca", with_passphrase=with_passphrase)
        confirm("Make a new user CA? The private key of the one before is destroyed.", yes=yes)
        old = relay.keyring.user_ca_fingerprint
        new = authority.rotate_user_ca(keys, passphrase=passphrase, new_line=new_line)
        await _record(relay, f"user CA {new.user_ca_fingerprint} instead of {old}")
    say(f"The new user CA is {new.user_ca_fingerprint}.")
    say(f"Certificates of the one before, {old}, are good until you say: relay key retire {old}")
    say(f"Back up {keys} again.")


async def rotate_host_ca(home: Path, *, with_passphrase: bool, yes: bool) -> None:
    """Make a new host CA known beside the one that certifies."""
    from relay import authority
    from relay.connecting import known_hosts_lines

    async with open_installation(home) as relay:
        keys = relay.config.keys_path
        passphrase = _new_passphrase(keys / "host_ca", with_passphrase=with_passphrase)
        confirm("Make a new host CA?", yes=yes)
        new = authority.rotate_host_ca(keys, passphrase=passphrase)
        await _record(relay, "a new host CA is told to offices")
        lines = known_hosts_lines(relay.config, new.host_cas)
    say("Offices find both lines in certificate/known_hosts from now on; those without SFTP need them from you:")
    for line in lines:
        say(f"  {line}")
    say("When they have them: relay key retire --host-ca.  Until then nothing changes for any client.")


async def rotate_host_key(home: Path, algorithms: list[HostAlgorithm], *, yes: bool) -> None:
    """Exchange host keys, certified by the CA that offices know."""
    from relay import authority
    from relay.certificates import fingerprint_of_line
    from relay.keyring import HOST_CA_BEFORE

    async with open_installation(home) as relay:
        keys = relay.config.keys_path
        before = keys / HOST_CA_BEFORE
        passphrase = _find_passphrase(before if before.exists() else keys / "host_ca")
        confirm(f"Make {'new host keys' if len(algorithms) > 1 else 'a new host key'}?", yes=yes)
        for algorithm in algorithms:
            new = authority.rotate_host_key(keys, algorithm, passphrase=passphrase)
        await _record(relay, f"new host keys: {', '.join(algorithms)}")
    say("Who trusts the host CA notices nothing.  Who was told a fingerprint needs the new one:")
    for key in new.host_keys:
        if key.algorithm in algorithms:
            say(f"  {key.algorithm:8} {fingerprint_of_line(key.public_line)}")


async def retire_host_ca(home: Path, *, yes: bool) -> None:
    """Let the new host CA certify, and forget the one before."""
    from relay import authority

    async with open_installation(home) as relay:
        keys = relay.config.keys_path
        passphrase = _find_passphrase(keys / "host_ca")
        confirm("Offices that do not know the new host CA will not connect any more. Go on?", yes=yes)
        authority.retire_host_ca(keys, passphrase=passphrase)
        await _record(relay, "the former host CA is retired")
    say("The new host CA certifies the host keys; the one before is forgotten.")


async def retire_user_ca(home: Path, fingerprint: str, *, yes: bool) -> None:
    """Trust a former user CA no more."""
    from relay import authority

    async with open_installation(home) as relay:
        if fingerprint not in relay.keyring.user_ca_fingerprints:
            raise CommandRefused(f"{fingerprint} is no trusted CA; `relay key list` shows them")
        now = relay.now
        good = [
            one
            for one in await relay.ledger.list_certificates(is_revoked=False)
            if one.ca_fingerprint == fingerprint and one.is_valid(now)
        ]
        offices = {office for one in good for office in one.offices}
        confirm(
            f"{len(good)} certificates of {len(offices)} offices that are good now will open no door. Go on?", yes=yes
        )
        authority.retire_user_ca(relay.config.keys_path, fingerprint)
        await _record(relay, f"user CA {fingerprint} is retired")
    say(f"{fingerprint} is trusted no more; its open sessions end within seconds")


async def _record(relay: Installation, what: str) -> None:
    await relay.ledger.record_event(EventKind.KEYS_CHANGED, actor=relay.actor, detail=what, now=relay.now)
