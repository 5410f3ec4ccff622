"""Units as an office sees them: which files belong together, what is missing, and what is the latest of each person.

Assembled from the parts that the ledger kept; nothing is decided by it and nothing is held back (standard, section 3).

* A file counts as long as its recipient can have it, or had it: one that was recalled, replaced, thrown away unread or
  never fetched is shown with its unit and judged as if it had not come.
* The highest serial is the latest, whatever arrived first, and a deletion is the latest as well as a plan.  Compared is
  what one office's service sent to another's: what a third office sent is none of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.lifecycle import State
from relay.model import OfficeNumber, Transfer
from relay.standard.roster import Subject
from relay.standard.units import UnitFile, UnitKey, UnitVerdict, import_rank, judge_unit
from relay.unitparts import Entry, UnitPart

# States of a file that its recipient can have, or had.
COUNTED = frozenset({State.ACCEPTED, State.COLLECTED, State.DESTROYED})


class Standing(StrEnum):
    """How a unit stands: *void* where none of its files counts any more."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    NOT_ALLOWED = "not_allowed"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Matter:
    """What a unit says of one person: see `relay.standard.roster.Listed` for its key.

    *latest* is the serial of the unit that holds now, *supersedes* the one before this unit, None where there is none.
    """

    entry: Entry
    is_deletion: bool
    is_latest: bool
    latest: str
    supersedes: str | None


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit; *parts* in the order of import, then its message and reports.

    *verdict* is None where no file counts.  *is_partial* where not all persons are in *matters*.
    """

    key: UnitKey
    parts: tuple[UnitPart, ...]
    verdict: UnitVerdict | None
    matters: tuple[Matter, ...]
    is_partial: bool

    @property
    def standing(self) -> Standing:
        """Whether anything is missing."""
        if self.verdict is None:
            return Standing.VOID
        if not self.verdict.forms:
            return Standing.NOT_ALLOWED
        return Standing.COMPLETE if self.verdict.is_complete else Standing.INCOMPLETE

    @property
    def missing(self) -> tuple[str, ...]:
        """The kinds that are missing."""
        return () if self.verdict is None else self.verdict.missing

    @property
    def messages(self) -> tuple[str, ...]:
        """How its messages begin, as far as they count and can be read."""
        return tuple(part.first_line for part in self.parts if part.first_line and part.transfer.state in COUNTED)


@dataclass(frozen=True, slots=True)
class _Trail:
    """What is replaced and deleted as one."""

    sender: OfficeNumber
    recipient: OfficeNumber
    sender_service: str | None
    recipient_service: str | None
    person: bytes
    subject: Subject
    key: str
    part: str


def unit_key(part: UnitPart) -> UnitKey | None:
    """Return the unit whose file *part* is; None where it is at most a companion of one."""
    transfer = part.transfer
    if not transfer.is_standard or transfer.serial is None:
        return None
    services = part.sender_service, part.recipient_service
    return UnitKey(transfer.sender, transfer.recipient, *services, transfer.serial)


def assemble_units(parts: Iterable[UnitPart]) -> tuple[Unit, ...]:
    """Return the units of *parts*, the highest serial first."""
    members: dict[UnitKey, list[UnitPart]] = {}
    companions: dict[tuple[OfficeNumber, OfficeNumber, str | None], list[UnitPart]] = {}
    for part in parts:
        key = unit_key(part)
        if key is not None:
            members.setdefault(key, []).append(part)
        else:
            transfer = part.transfer
            companions.setdefault((transfer.sender, transfer.recipient, transfer.serial), []).append(part)
    trails = _follow(members)
    return tuple(
        _assemble(key, members[key], companions.get((key.sender, key.recipient, key.serial), ()), trails)
        for key in sorted(members, key=_order, reverse=True)
    )


def _order(key: UnitKey) -> tuple[str, ...]:
    return key.serial, key.sender, key.recipient, key.sender_service or "", key.recipient_service or ""


def _follow(members: Mapping[UnitKey, Sequence[UnitPart]]) -> Mapping[_Trail, Sequence[str]]:
    """Return the serials of the units that say something of a person, ascending."""
    trails: dict[_Trail, list[str]] = {}
    for key in sorted(members, key=_order):
        for trail in {_trail(key, entry) for entry, _ in _entries(members[key]) if entry.key}:
            trails.setdefault(trail, []).append(key.serial)
    return trails


def _trail(key: UnitKey, entry: Entry) -> _Trail:
    ends = key.sender, key.recipient, key.sender_service, key.recipient_service
    return _Trail(*ends, entry.person, entry.subject, entry.key, entry.part)


def _entries(parts: Sequence[UnitPart]) -> Iterator[tuple[Entry, bool]]:
    """Yield what those files say that count, and whether it is deleted."""
    for part in parts:
        if part.transfer.state in COUNTED:
            for entry in part.entries or ():
                yield entry, part.is_deletion


def _assemble(
    key: UnitKey, members: Sequence[UnitPart], companions: Sequence[UnitPart], trails: Mapping[_Trail, Sequence[str]]
) -> Unit:
    files = sorted(members, key=lambda part: (import_rank(part.transfer.kind), part.transfer.id))
    counted = [part for part in files if part.transfer.state in COUNTED]
    return Unit(
        key=key,
        parts=(
            *files,
            *sorted((part for part in companions if _goes_with(part, key)), key=lambda part: part.transfer.id),
        ),
        verdict=judge_unit(key.standard, [_as_file(part) for part in counted]) if counted else None,
        matters=tuple(_matters(key, files, trails)),
        is_partial=any(part.is_partial for part in counted),
    )


def _goes_with(part: UnitPart, key: UnitKey) -> bool:
    """Say whether a message or report is this unit's: a name may leave out the services, then any will do."""
    pairs = (part.sender_service, key.sender_service), (part.recipient_service, key.recipient_service)
    return all(mine is None or mine == theirs for mine, theirs in pairs)


def _as_file(part: UnitPart) -> UnitFile:
    transfer: Transfer = part.transfer
    # Who is missing from a list that is not whole cannot be told.
    known = (
        None if part.is_partial or part.entries is None else dict.fromkeys((each.person for each in part.entries), 0)
    )
    return UnitFile(transfer.kind, transfer.month, known)


def _matters(key: UnitKey, files: Sequence[UnitPart], trails: Mapping[_Trail, Sequence[str]]) -> Iterator[Matter]:
    told: dict[_Trail, tuple[Entry, bool]] = {}
    for entry, is_deletion in _entries(files):
        if not entry.key:
            continue
        known = told.get(trail := _trail(key, entry))
        # Each file is sealed for itself: one that can still be read tells for the whole unit.
        readable = known[0] if known is not None and known[0].insured is not None else entry
        told[trail] = readable, is_deletion or (known is not None and known[1])
    for trail, (entry, is_deletion) in told.items():
        serials = trails[trail]
        place = serials.index(key.serial)
        yield Matter(
            entry,
            is_deletion,
            is_latest=place == len(serials) - 1,
            latest=serials[-1],
            supersedes=serials[place - 1] if place else None,
        )
