"""What the rig does inside the relay's store, because the command line would take hours for it.

Thousands of certificates and a million transfers are made by the relay's own code, through its own ledger: the same
signing, sealing, group commit and history that a server does, without the network in between.  `relay audit verify` finds
nothing wrong with the result.
"""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import asyncssh

from relay.authority import open_user_ca
from relay.certificates import draw_serial
from relay.cli.installation import Installation, open_installation
from relay.content import Gist, start_check
from relay.issuing import Wish, issue
from relay.ledger import SealedChunk, SealedPayload, TransferDraft
from relay.model import Certificate, Identity, OfficeNumber, Route
from relay.naming import NamingRules, parse_name
from relay.standard.invented import name_office
from relay.standard.kinds import STANDARD_41
from relay.standard.making import Order, Partners, choose_serial, make_unit
from relay.unitparts import seal_part
from relay.vault import Sealer, new_key, new_uid
from rig.load import Login
from rig.offices import name_slip, render_serial, render_slip

# So many wait for one COMMIT, as under full load.
_TOGETHER = 256
_VALID = timedelta(days=7)
# A slip of three records: the number of rows is what counts here, not how many bytes lie beside them.
_CONTENT_BYTES = 700
# Persons in a file between two partners.
_PERSONS = 8
_TOLD_EVERY = 25_000

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One transfer that is to be: who sends to whom, with which certificate, and which one in a row it is."""

    sender: str
    recipient: str
    index: int


def issue_logins(home: Path, numbers: Sequence[str], folder: Path, *, algorithm: str = "ssh-ed25519") -> list[Login]:
    """Make a key and a certificate for every office; return where they lie, in the order of *numbers*."""
    folder.mkdir(parents=True, exist_ok=True)

    async def work() -> list[Login]:
        async with open_installation(home) as relay:
            ca = open_user_ca(relay.keyring)

            async def issue_one(number: str) -> Login:
                key = asyncssh.generate_private_key(algorithm)
                public = key.export_public_key().decode()
                wish = Wish(public, [OfficeNumber(number)], int(_VALID.total_seconds()))
                record = await issue(relay.ledger, ca, wish, actor=relay.actor, now=relay.now)
                path = folder / number
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(key.export_private_key())
                path.with_name(f"{number}.pub").write_text(public)
                path.with_name(f"{number}-cert.pub").write_text(f"{record.line}\n")
                return Login(number, str(path))

            return await _together(numbers, issue_one)

    return asyncio.run(work())


def make_letters(pairs: Iterable[tuple[str, str, str, str]], kind: str, month: str) -> Iterator[tuple[str, bytes]]:
    """Make a conforming file for every pair (sender, its service type, recipient, its type), as `relay standard make` does.

    Yields the name without serial and ending, and the content.
    """
    for sender, sends_as, recipient, receives_as in pairs:
        partners = Partners(
            name_office(OfficeNumber(sender), sends_as), name_office(OfficeNumber(recipient), receives_as)
        )
        serial = choose_serial((kind,), month, 0)
        made = next(make_unit(Order(STANDARD_41, (kind,), partners, month, serial, _PERSONS, 1)))
        yield made.name[: made.name.rindex("_") + 1], made.content


def record_certificates(home: Path, numbers: Sequence[str], on_progress: Callable[[int], None]) -> None:
    """Give every office a certificate in the register that nobody has the key of: rows like those of any other."""

    async def work() -> None:
        async with open_installation(home) as relay:
            authority = open_user_ca(relay.keyring).fingerprint

            async def record_one(number: str) -> None:
                serial, now = draw_serial(), relay.now
                await relay.ledger.record_certificate(
                    Certificate(
                        authority,
                        serial,
                        f"{number} {serial}",
                        f"SHA256:{secrets.token_urlsafe(32)}",
                        (OfficeNumber(number),),
                        now,
                        now + _VALID,
                        now,
                    ),
                    actor=relay.actor,
                )

            await _together(numbers, record_one, on_progress)

    asyncio.run(work())


def add_transfers(home: Path, exchanges: Iterable[Exchange], on_progress: Callable[[int], None]) -> None:
    """Let the ledger accept a small slip for each of *exchanges*; every sender needs a certificate in the register."""

    async def work() -> None:
        async with open_installation(home) as relay:
            maker = _Maker(relay)
            await _together(exchanges, maker.accept, on_progress)

    asyncio.run(work())


class _Maker:
    """Makes transfers as an upload does, from bytes that are checked once instead of each time."""

    def __init__(self, relay: Installation) -> None:
        self._relay = relay
        self._vault = relay.keyring.open_vault()
        self._identities: dict[str, Identity] = {}
        self._gist: Gist | None = None
        self._content = b""

    async def accept(self, exchange: Exchange) -> None:
        name = name_slip(exchange.sender, exchange.recipient, render_serial(exchange.index))
        address = parse_name(name, NamingRules(frozenset()))
        identity = self._identities.get(exchange.sender) or await self._find_identity(exchange.sender)
        if self._gist is None:
            self._content = render_slip(exchange.sender, exchange.recipient, _CONTENT_BYTES)
            check = start_check(address, {})
            check.feed(self._content)
            check.finish()
            self._gist = check.gist
        uid, key = new_uid(), new_key()
        sealer = Sealer(key, uid)
        size = len(self._content)
        payload = SealedPayload(
            uid=uid,
            wrapped_key=self._vault.wrap_key(key, uid, size_bytes=size, chunk_count=1),
            size_bytes=size,
            chunk_count=1,
            sha256=sha256(self._content).digest(),
            chunks=(SealedChunk(0, sealer.seal_chunk(0, self._content)),),
            master_id=self._vault.master_id,
        )
        route = Route(address, identity.office, OfficeNumber(exchange.recipient))
        part = seal_part(address, identity.office, self._gist, self._vault, sealer)
        draft = TransferDraft(route, identity, payload, in_folder=False, client_mtime=None, findings=(), part=part)
        await self._relay.ledger.commit_transfer(draft, now=datetime.now(UTC))

    async def _find_identity(self, number: str) -> Identity:
        office = OfficeNumber(number)
        held = (await self._relay.ledger.list_certificates(office=office, limit=1))[0]
        found = Identity(office, held.ca_fingerprint, held.serial, held.key_id, held.valid_before)
        self._identities[number] = found
        return found


async def _together(
    things: Iterable[_Thing],
    step: Callable[[_Thing], Awaitable[_Result]],
    on_progress: Callable[[int], None] = lambda _done: None,
) -> list[_Result]:
    """Do *step* with each of *things*, many at once; return what came out, in their order."""
    results: dict[int, _Result] = {}
    waiting: Iterator[tuple[int, _Thing]] = enumerate(things)

    async def lane() -> None:
        for place, thing in waiting:
            results[place] = await step(thing)
            if len(results) % _TOLD_EVERY == 0:
                on_progress(len(results))

    await asyncio.gather(*(lane() for _ in range(_TOGETHER)))
    return [results[place] for place in range(len(results))]
