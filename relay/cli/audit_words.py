"""What is wrong with a history, in words: each fault is one sentence that says what, where and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from relay.audit import Fault, FaultKind
from relay.cli.terminal import json_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Some year that no relay saw, for what somebody wrote who has no clock of ours.
_AT_MOST = 253_402_300_799_999_999


def to_moment(at: int) -> datetime | None:
    """Return the moment of *at*, microseconds since 1970; None where that is none."""
    return _EPOCH + timedelta(microseconds=at) if isinstance(at, int) and 0 <= at <= _AT_MOST else None


def say_moment(at: int) -> str:
    """Say a moment to the second, local, with its zone."""
    moment = to_moment(at)
    return "at no time" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def say_range(one: str, many: str, first: int | None, last: int | None) -> str:
    """Say ``event 7`` or ``events 7 to 9``."""
    return f"{one} {first}" if last in (None, first) else f"{many} {first} to {last}"


def say_fault(fault: Fault) -> str:
    """Say what is wrong, and where."""
    return _SENTENCES[fault.kind].format(
        batches=say_range("batch", "batches", fault.first, fault.last),
        events=say_range("event", "events", fault.first, fault.last),
        where=_say_place(fault),
        is_="is" if fault.last in (None, fault.first) else "are",
        at="" if fault.at is None else say_moment(fault.at),
        fault=fault,
        before="" if fault.first is None else f"it ends before batch {fault.first}",
    )


def _say_place(fault: Fault) -> str:
    if fault.batch is None:
        return "behind all that was sealed" + ("" if fault.at is None else f", after {say_moment(fault.at)}")
    assert fault.at is not None
    return f"batch {fault.batch}, number {fault.number} of writer {fault.writer}, {say_moment(fault.at)}"


_SENTENCES = {
    FaultKind.BATCH_MISSING: "{batches} {is_} missing, right before {where}",
    FaultKind.BATCH_FORGED: "{where}: the batch was not sealed with this relay's key; somebody else wrote it, or changed it",
    FaultKind.BATCH_MOVED: "{where}: the batch does not follow the one before it; history was reordered, or pieced together",
    FaultKind.OTHER_KEY: "{where}: the batch was sealed with another key than keys/audit.key; somebody else wrote it, or "
    "that key was replaced",
    FaultKind.EVENT_MISSING: "{events} {is_} missing ({where})",
    FaultKind.EVENT_ADDED: "{events} {is_} in no batch and was put in by somebody else ({where})",
    FaultKind.EVENT_CHANGED: "{events} ({where}): not as written; one of them, or what the batch says of itself, was changed or exchanged",
    FaultKind.CUT_OFF: "the end of history is missing: {before}, but {fault.source} knows batch {fault.last} of {at}; it "
    "was cut off, or an older copy of the store was put back",
    FaultKind.REPLACED: "{where}: not the batch that {fault.source} names; another history stands in its place",
    FaultKind.ANCHOR_MISSING: "there is no anchor {fault.source}; nobody can tell whether the end of history was cut off",
    FaultKind.ANCHOR_DAMAGED: "{fault.source} is no anchor that was written with this relay's keys/audit.key",
    FaultKind.EXPORT_CUT: "the export has no end that holds: lines of it are missing, or were added",
    FaultKind.GUARD_MISSING: "the store's own guard {fault.source} is gone: somebody took it away to change history",
}


def describe_fault(fault: Fault) -> dict[str, object]:
    """Return a fault for a program."""
    return {
        "kind": fault.kind.value,
        "first": fault.first,
        "last": fault.last,
        "batch": fault.batch,
        "writer": fault.writer,
        "number": fault.number,
        "at": None if fault.at is None else json_time(to_moment(fault.at)),
        "source": fault.source or None,
        "text": say_fault(fault),
    }
