"""Unit parts: what is kept of a file beside its bytes, so that the files of a unit can be told together.

Of the standard's files that is whom they are about: for each person a keyed digest, by which the same person is known
again and nobody is read, and in the clear only the month or date under which an import finds what it has of them.
The numbers themselves, and the first line of a unit's message, are sealed under the transfer's own key: they can be
read as long as the file can, and end with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from relay.content import Gist
from relay.model import Address, OfficeNumber, Transfer
from relay.standard.kinds import KINDS, Purpose
from relay.standard.roster import Roster, Subject
from relay.vault import INDEX_BYTES, Sealer, Vault

PERSONS = "persons"
FIRST_LINE = "line"

# Whatever else stands where a date should be may be a person's number, and is not kept in the clear.
_KEY = re.compile(r"(?:19|20)[0-9]{4}(?:[0-9]{2})?", re.ASCII)
_PERSON_ITEMS = 3


@dataclass(frozen=True, slots=True)
class SealedPart:
    """What goes into the store with a transfer that may be part of a unit.

    *keys* is JSON: [[subject, key, digest of the provider, number of persons], …]; *persons* are their digests, in
    that order.  Both are None where nobody looked.
    """

    sender_service: str
    recipient_service: str
    keys: str | None = None
    persons: bytes | None = None
    is_partial: bool = False
    persons_sealed: bytes | None = None
    line_sealed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A person in a file: *person* and *part* are digests, *key* is empty where the file holds no proper one.

    The numbers are None where they cannot be read any more, or were not asked for.
    """

    person: bytes
    subject: Subject
    key: str
    part: str
    insurer: str | None = None
    insured: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class UnitPart:
    """A transfer as part of a unit; *entries* is None where nobody looked, *is_partial* where some are missing."""

    transfer: Transfer
    sender_service: str | None
    recipient_service: str | None
    entries: tuple[Entry, ...] | None = None
    is_partial: bool = False
    first_line: str | None = None

    @property
    def is_deletion(self) -> bool:
        """True where the file deletes what it names."""
        kind = KINDS.get(self.transfer.kind)
        return self.transfer.is_standard and kind is not None and kind.purpose is Purpose.DELETE


def seal_part(address: Address, sender: OfficeNumber, gist: Gist, vault: Vault, sealer: Sealer) -> SealedPart | None:
    """Return what to keep of a file; None where its name holds no serial, so that it belongs to no unit."""
    if address.serial is None:
        return None
    services = address.sender_service or "", address.recipient_service or ""
    line = gist.first_line
    line_sealed = sealer.seal_part(FIRST_LINE, line) if line else None
    if gist.roster is None:
        return SealedPart(*services, line_sealed=line_sealed)
    return _seal_persons(services, gist.roster, sender, vault, sealer)


def _seal_persons(
    services: tuple[str, str], roster: Roster, sender: OfficeNumber, vault: Vault, sealer: Sealer
) -> SealedPart:
    keys: list[str] = []
    digests: list[bytes] = []
    lines: list[str] = []
    for (subject, key, part), persons in roster.groups().items():
        shown = key if _KEY.fullmatch(key) else ""
        digest = vault.index("part", sender, part).hex() if part else ""
        # JSON, written by hand: letters and digits that need no escaping.
        keys.append(f'["{subject.value}","{shown}","{digest}",{len(persons)}]')
        for insurer, insured in persons:
            digests.append(vault.index("person", insurer, insured))
            lines.append(f"{insurer},{insured},{part}")
    return SealedPart(
        *services,
        keys=f"[{','.join(keys)}]",
        persons=b"".join(digests),
        is_partial=roster.is_partial,
        persons_sealed=sealer.seal_part(PERSONS, "\n".join(lines)) if lines else None,
    )


def read_entries(keys: str | None, persons: bytes | None, read: Callable[[], str | None]) -> tuple[Entry, ...] | None:
    """Return who is in a file, from what `seal_part` made of it; *read* opens the numbers, or returns None."""
    if keys is None or persons is None:
        return None
    readable = read() if persons else None
    numbers = _split(readable) if readable is not None else None
    return tuple(_join(json.loads(keys), persons, numbers))


def _split(readable: str) -> Sequence[Sequence[str]]:
    return [line.split(",", _PERSON_ITEMS - 1) for line in readable.split("\n")]


def _join(
    keys: Sequence[tuple[str, str, str, int]], persons: bytes, numbers: Sequence[Sequence[str]] | None
) -> Iterator[Entry]:
    at = 0
    for subject, key, part, count in keys:
        kind = Subject(subject)
        for place in range(at, at + count):
            person = persons[place * INDEX_BYTES : (place + 1) * INDEX_BYTES]
            if numbers is None:
                yield Entry(person, kind, key, part)
            else:
                insurer, insured, provider = numbers[place]
                yield Entry(person, kind, key, part, insurer, insured, provider or None)
        at += count
