"""What must hold after any program was interrupted in any way: judged by what it was told and what the offices see.

The judge knows nothing of how an interruption was made, and nothing of the relay's inside: only the program's last
word, the listings and status files that the two offices read afterwards, and the bytes that they got.

Of a server that ended while many were at work, it is asked about each file: `judge_found` follows everything that was
done with it up to that moment, and says whether what is found is one of the things that may have become of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
