"""What must hold after any program was interrupted in any way: judged by what it was told and what the offices see.

The judge knows nothing of how an interruption was made, and nothing of the relay's inside: only the program's last
word, the listings and status files that the two offices read afterwards, and the bytes that they got.
"""

from __future__ import annotations

from collections.abc import Iterator
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
