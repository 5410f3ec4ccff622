"""What must hold after any program was interrupted in any way: judged by what it was told and what the offices see.

The judge knows nothing of how an interruption was made, and nothing of the relay's inside: only the programs' last
words, the listings and status files that the offices read afterwards, and the bytes that they got.

`judge_sending` and `judge_fetching` judge one file, before and after its repeat.  Of a server that ended while many were
at work, `judge_found` follows everything that was done with a file up to that moment, and says whether what is found is
one of the things that may have become of it.  `judge_exchange` judges everything that was sent and fetched among offices,
at any moment, while their programs go on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Told(StrEnum):
    """The last word of a program to its user."""

    DONE = "done"
    FAILED = "failed"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class View:
    """What the two offices see of one file, by its name: folders of the recipient and rows of both status files."""

    folders: tuple[str, ...] = ()
    received: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sending:
    """An upload or a rename that was interrupted, and its repeat.

    *read* is what the recipient read after the interruption, *read_again* after the repeat; None where it saw nothing.
    """

    content: bytes
    told: Told
    seen: View
    read: bytes | None
    told_again: Told
    seen_again: View
    read_again: bytes | None


@dataclass(frozen=True, slots=True)
class Fetching:
    """A download that was interrupted, and its repeat.

    *kept* is what the interrupted program left on its disk; None where that says nothing, because a mounted folder reads
    ahead, and closes the file itself when the program that copies out of it is interrupted.
    """

    content: bytes
    kept: bytes | None
    seen: View
    read_again: bytes | None
    seen_again: View


class Fate(StrEnum):
    """What became of a file, as both its offices see it."""

    NOWHERE = "nowhere"
    WAITING = "waiting"
    READ = "read"
    SHELVED = "shelved"
    RECALLED = "recalled"


class Act(StrEnum):
    """What an office does with a file: it sends it, closes it after reading all, removes it, takes it back."""

    SEND = "send"
    READ = "read"
    SHELVE = "shelve"
    RECALL = "recall"


@dataclass(frozen=True, slots=True)
class Deed:
    """One act: asked for at *began*, answered at *answered* (None: never), with OK or not; moments of any one clock."""

    act: Act
    began: int
    answered: int | None = None
    is_ok: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What is found of a file afterwards, and what its recipient reads of it; None where it finds nothing to read."""

    seen: View
    read: bytes | None


SEEN: Mapping[Fate, View] = {
    Fate.NOWHERE: View(),
    Fate.WAITING: View(("new", "receive"), ("accepted",), ("accepted",)),
    Fate.READ: View(("receive",), ("collected",), ("collected",)),
    Fate.SHELVED: View(("done",), ("collected",), ("collected",)),
    Fate.RECALLED: View((), ("recalled",), ("recalled",)),
}
_AFTER: Mapping[Act, Mapping[Fate, Fate]] = {
    Act.SEND: {Fate.NOWHERE: Fate.WAITING, **{fate: fate for fate in (Fate.WAITING, Fate.READ, Fate.SHELVED)}},
    Act.READ: {Fate.WAITING: Fate.READ, Fate.READ: Fate.READ, Fate.SHELVED: Fate.SHELVED},
    Act.SHELVE: {Fate.READ: Fate.SHELVED, Fate.SHELVED: Fate.SHELVED},
    Act.RECALL: {Fate.WAITING: Fate.RECALLED, Fate.RECALLED: Fate.RECALLED},
}


def possible_fates(deeds: Sequence[Deed], ended: int) -> frozenset[Fate]:
    """Return what may have become of a file by the moment *ended*: all that was answered, and perhaps what was not."""
    fates = {Fate.NOWHERE}
    for deed in sorted(deeds, key=lambda each: each.began):
        if deed.began > ended:
            break
        after = {_AFTER[deed.act][fate] for fate in fates if fate in _AFTER[deed.act]}
        if deed.answered is None or deed.answered > ended:
            fates |= after
        elif deed.is_ok:
            fates = after
    return frozenset(fates)


def judge_found(content: bytes, deeds: Sequence[Deed], ended: int, found: Found) -> list[str]:
    """Return what was broken: nothing lost that was answered OK, nothing half, nothing that nobody did."""
    return list(_found_faults(content, possible_fates(deeds, ended), found))


def _found_faults(content: bytes, possible: frozenset[Fate], found: Found) -> Iterator[str]:
    seen = found.seen
    if len(seen.received) > 1 or len(seen.sent) > 1:
        yield f"twice: one file became several: {seen}"
        return
    fate = next((fate for fate, view in SEEN.items() if view == seen), None)
    if fate is None:
        yield f"unclear: the two offices, or a folder and its status, are told different things: {seen}"
        return
    may_be = " or ".join(sorted(possible))
    if fate not in possible:
        if fate is Fate.NOWHERE:
            yield f"lost: it is nowhere, and can only be {may_be}"
        elif possible == {Fate.NOWHERE}:
            yield f"invented: it is {fate}, and nobody has sent it"
        elif fate in (Fate.READ, Fate.SHELVED) and not possible & {Fate.READ, Fate.SHELVED}:
            yield f"unread: it is {fate}, and its recipient has not closed it"
        else:
            yield f"forgotten: it is {fate}, and can only be {may_be}"
    if (found.read is not None) != (fate in (Fate.WAITING, Fate.READ, Fate.SHELVED)):
        yield f"unclear: it is {fate}, and {'cannot be read' if found.read is None else 'can be read'}"
    if found.read is not None and found.read != content:
        yield f"half: {len(found.read)} of {len(content)} bytes are there, or others"


def judge_sending(case: Sending) -> list[str]:
    """Return what was broken of: nothing half, nothing that was answered OK lost, everything once."""
    return list(_sending_faults(case))


def judge_fetching(case: Fetching) -> list[str]:
    """Return what was broken of: no file leaves ``new/`` unread, and none stays there that was read."""
    return list(_fetching_faults(case))


def _sending_faults(case: Sending) -> Iterator[str]:
    for what, read in (("interrupted", case.read), ("repeated", case.read_again)):
        if read is not None and read != case.content:
            yield f"half: {len(read)} of {len(case.content)} bytes were relayed of the {what} file"
    is_there = case.read is not None
    if case.told is Told.DONE and not is_there:
        yield "lost: the sender was told that it was done, and the recipient has nothing"
    if is_there != ("new" in case.seen.folders) or is_there != bool(case.seen.received):
        yield f"unclear: what the recipient reads and what it is shown differ: {case.seen}"
    if bool(case.seen.sent) != is_there:
        yield f"untold: the sender's status does not say what the recipient has: {case.seen}"
    if case.told_again is not Told.DONE or case.read_again is None:
        yield "stuck: the repeat does not get through"
    for view in (case.seen, case.seen_again):
        if len(view.received) > 1 or len(view.sent) > 1:
            yield f"twice: one file became several: {view}"


def _fetching_faults(case: Fetching) -> Iterator[str]:
    is_collected = case.seen.received == ("collected",)
    if is_collected and case.kept is not None and case.kept != case.content:
        yield f"unread: collected, and the recipient has {len(case.kept)} of {len(case.content)} bytes"
    if not is_collected and "new" not in case.seen.folders:
        yield f"vanished: it was not collected and has left new/: {case.seen}"
    if is_collected and "new" in case.seen.folders:
        yield "stale: it was collected and is still in new/"
    if "receive" not in case.seen.folders:
        yield "gone: it is no longer in receive/"
    for view in (case.seen, case.seen_again):
        if view.sent != view.received:
            yield f"untold: the two offices are told different things: {view}"
    if case.read_again != case.content:
        yield "half: the next download is not what was sent"
    if case.seen_again.received != ("collected",) or "new" in case.seen_again.folders:
        yield f"stuck: read whole, and not collected: {case.seen_again}"


# --- everything that offices exchanged ----------------------------------------------------------------------------


# Of what stands so in the status files the recipient has the bytes.
_THERE = frozenset({"accepted", "collected"})


def digest(content: bytes) -> str:
    """Return the SHA-256 as the status files write it."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes that an office tried to send under a name, and the best word that it ever got; the same of taking it back.

    *by* is the program, for whoever reads of a fault.
    """

    sender: str
    recipient: str
    name: str
    sha256: str
    told: Told
    taken_back: Told | None = None
    # What else may have become of it, because the operator or time asked for that.
    may_be: frozenset[str] = frozenset()
    by: str = ""

    @property
    def states(self) -> frozenset[str]:
        """How it may stand in the status files."""
        return _THERE | self.may_be | ({"recalled"} if self.taken_back is not None else frozenset())


@dataclass(frozen=True, slots=True)
class Fetch:
    """What an office's program has read of a file.

    *told* is DONE where its CLOSE was answered OK, NOTHING where only the program says that it was done, FAILED where it
    may be a part.
    """

    office: str
    name: str
    sha256: str
    told: Told


@dataclass(frozen=True, slots=True)
class Row:
    """A line of ``status/received.json`` or ``status/sent.json``; *other* is the office at the other end."""

    other: str
    name: str
    state: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What one office sees: its status files, its folders, and the digests of what it reads in ``receive/`` and ``done/``."""

    received: tuple[Row, ...] = ()
    sent: tuple[Row, ...] = ()
    new: frozenset[str] = frozenset()
    receive: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    read: Mapping[str, str] = field(default_factory=dict)


def judge_exchange(
    claims: Iterable[Claim], fetches: Iterable[Fetch], sights: Mapping[str, Sight], *, is_settled: bool = True
) -> list[str]:
    """Return what was broken of: what was answered OK exists exactly once, whole, at the right office; nothing else
    exists; every ``collected`` is true.

    *claims* must name all that was ever tried, *fetches* all that was ever read, *sights* all offices.  Not *is_settled*
    while programs are at work: only that is judged then which is true at every moment.  What was told must have been
    noted before anybody looked, what was tried and read after.
    """
    told, read = list(claims), list(fetches)
    broken = list(_claims_broken(told, sights))
    for office, sight in sights.items():
        broken += _sight_faults(office, sight, told)
        broken += _reading_faults(office, sight, told, [fetch for fetch in read if fetch.office == office])
        if is_settled:
            broken += _shelf_faults(office, sight)
            broken += _forgotten(office, sight, read)
    if is_settled:
        broken += _views_that_differ(sights)
    return broken


def _claims_broken(claims: Sequence[Claim], sights: Mapping[str, Sight]) -> Iterator[str]:
    for claim in claims:
        states = [row.state for row in sights[claim.recipient].received if _is_of(row, claim)]
        what = f"{claim.name} by {claim.by} for {claim.recipient}, which has {states}"
        if claim.taken_back is Told.DONE and (_THERE.intersection(states) or "recalled" not in states):
            yield f"kept: the sender was told that it took back {what}"
        if claim.told is Told.DONE and not claim.states.intersection(states):
            yield f"lost: the sender was told that it was done, {what}"
        if not claim.states.issuperset(states):
            yield f"ended: nobody asked for that: {what}"


def _is_of(row: Row, claim: Claim) -> bool:
    # A name that says more than the standard's is destroyed with its file.
    is_named = row.name == claim.name or (row.name.startswith("*.") and row.state not in _THERE)
    return is_named and (row.other, row.sha256) == (claim.sender, claim.sha256)


def _sight_faults(office: str, sight: Sight, claims: Sequence[Claim]) -> Iterator[str]:
    mine = [claim for claim in claims if claim.recipient == office]
    tried = {(claim.sender, claim.name, claim.sha256) for claim in mine}
    for row in sight.received:
        if (row.other, row.name, row.sha256) not in tried and not any(_is_of(row, claim) for claim in mine):
            fault = "half" if any(claim.name == row.name for claim in mine) else "invented"
            yield f"{fault}: nobody sent this to {office}: {row}"
    for rows in (sight.received, sight.sent):
        live = Counter((row.other, row.name) for row in rows if row.state in _THERE)
        for (other, name), count in live.items():
            if count > 1:
                yield f"twice: {office} has {name} from or to {other} {count} times"


def _reading_faults(office: str, sight: Sight, claims: Sequence[Claim], fetches: Sequence[Fetch]) -> Iterator[str]:
    rows = {row.name: row for row in sight.received if row.state in _THERE}
    for name, sha256 in sight.read.items():
        if name in rows and rows[name].sha256 != sha256:
            yield f"half: {office} reads other bytes of {name} than its status tells"
    sent = {(claim.name, claim.sha256) for claim in claims if claim.recipient == office}
    for fetch in fetches:
        if fetch.told is not Told.FAILED and (fetch.name, fetch.sha256) not in sent:
            yield f"half: {office} was given other bytes of {fetch.name} than were sent, and its program was content"
    whole = {(fetch.name, fetch.sha256) for fetch in fetches}
    for name, row in rows.items():
        if row.state == "collected" and (name, row.sha256) not in whole:
            yield f"unread: {name} is collected, and no program of {office} has every byte of it"


def _shelf_faults(office: str, sight: Sight) -> Iterator[str]:
    rows = {row.name: row for row in sight.received if row.state in _THERE}
    for name in sorted((sight.new | sight.receive | sight.done) - rows.keys()):
        yield f"invented: {office} is shown {name}, of which its status says nothing"
    for name, row in rows.items():
        shelves = (name in sight.receive) + (name in sight.done)
        if shelves != 1:
            yield f"{'twice' if shelves else 'gone'}: {office} finds {name} in {shelves} of receive/ and done/"
        if row.state == "accepted" and name not in sight.new:
            yield f"vanished: {name} was not collected by {office} and has left new/"
        if row.state == "collected" and name in sight.new:
            yield f"stale: {name} was collected by {office} and is still in new/"
        if name not in sight.read:
            yield f"gone: {office} cannot read {name}"


def _forgotten(office: str, sight: Sight, fetches: Sequence[Fetch]) -> Iterator[str]:
    waiting = {(row.name, row.sha256) for row in sight.received if row.state == "accepted"}
    for fetch in fetches:
        if fetch.office == office and fetch.told is Told.DONE and (fetch.name, fetch.sha256) in waiting:
            yield f"forgotten: {office} has read {fetch.name} and its CLOSE was answered OK, and it is not collected"


def _views_that_differ(sights: Mapping[str, Sight]) -> Iterator[str]:
    sent = Counter(
        (office, row.other, row.name, row.state, row.sha256) for office, at in sights.items() for row in at.sent
    )
    received = Counter(
        (row.other, office, row.name, row.state, row.sha256) for office, at in sights.items() for row in at.received
    )
    for what in (sent - received) + (received - sent):
        yield f"untold: only one of two offices is told of {what}"
