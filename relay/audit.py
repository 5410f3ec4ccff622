"""The audit's rules: how history is sealed in batches, and how a history is judged that somebody may have rewritten.

Events are written in batches, one a transaction.  A batch has a *head*: the SHA-256 of everything it says, of its
events, of the head of the batch before it, whoever wrote that, and of the head of its own writer's batch before.
A writer is one opening of the store by one process, and is named by its first batch.  So each writer has a chain of
its own, and one head stands for all that any writer wrote until then.  The head is signed with HMAC-SHA-256 under
the key ``keys/audit.key``: who can write to the store but has not that key can make no batch that holds.

What a chain cannot tell is that its newest end was cut off.  A *mark* says how far the history had come; it is kept
outside the store, in the anchor file and wherever an operator puts what ``relay audit head`` prints.

Events are encoded with their lengths, so that no two different rows have the same bytes, and every form begins with
its name and version.  Pure: values in, values out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

HEAD_BYTES = 32
# What stands for the batch before where there is none.
NO_HEAD = bytes(HEAD_BYTES)

_BATCH_FORM = b"careplan-relay audit batch 1\n"
_SEAL_FORM = b"careplan-relay audit seal 1\n"
_MARK_FORM = b"careplan-relay audit mark 1\n"
_EXPORT_FORM = b"careplan-relay audit export 1\n"
# id, at, transfer, which of office and transfer are there; then the lengths of kind, actor, office and detail.
_EVENT = struct.Struct(">qqqBIIII")
_BATCH = struct.Struct(">qqqqqqI")
_MARK = struct.Struct(">qqq")
_MARK_TEXT = re.compile(r"relay-audit-1\.([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})\.([0-9a-f]{64})\.([0-9a-f]{16})")
# Of a mark that is written on paper: enough to tell a slip of the pen, and to make none up.
_CHECK_BYTES = 8


@dataclass(frozen=True, slots=True)
class AuditKey:
    """The key that seals history; *id* names it in each batch, so that another key is told from a forgery."""

    id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event exactly as it lies in the store: texts as bytes, because somebody may have written what is no text."""

    id: int
    at: int
    kind: bytes
    actor: bytes
    office: bytes | None
    transfer: int | None
    detail: bytes

    def encode(self) -> bytes:
        """Return bytes that no other row has; struct.error or TypeError where a column holds what cannot be."""
        office = self.office or b""
        there = (self.office is not None) | (self.transfer is not None) << 1
        lengths = len(self.kind), len(self.actor), len(office), len(self.detail)
        fixed = _EVENT.pack(self.id, self.at, self.transfer or 0, there, *lengths)
        return b"".join((fixed, self.kind, self.actor, office, self.detail))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction wrote: events *first_event* to *last_event*, as the *number*-th batch of its *writer*."""

    id: int
    writer: int
    number: int
    first_event: int
    last_event: int
    at: int
    key_id: str
    previous: bytes
    own_previous: bytes
    head: bytes = b""
    mac: bytes = b""

    def compute_head(self, rows_sha256: bytes) -> bytes:
        """Return the head that this batch has with those events; struct.error where a number cannot be."""
        key_id = self.key_id.encode("utf-8", "surrogateescape")
        numbers = _BATCH.pack(
            self.id, self.writer, self.number, self.first_event, self.last_event, self.at, len(key_id)
        )
        parts = (_BATCH_FORM, numbers, key_id, self.previous, self.own_previous, rows_sha256)
        return hashlib.sha256(b"".join(parts)).digest()


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the history had come: its newest batch and event, and the head of that batch; *at* is the batch's."""

    batch: int
    event: int
    at: int
    head: bytes

    def sign(self, key: AuditKey) -> bytes:
        """Return the mark's authentication code."""
        signed = _MARK_FORM + _MARK.pack(self.batch, self.event, self.at) + self.head
        return hmac.digest(key.key, signed, "sha256")

    def write(self, key: AuditKey) -> str:
        """Return the mark as one word that can be kept anywhere."""
        check = self.sign(key)[:_CHECK_BYTES]
        return f"relay-audit-1.{self.batch}.{self.event}.{self.at}.{self.head.hex()}.{check.hex()}"


def read_mark(text: str, key: AuditKey) -> Mark:
    """Read what `Mark.write` wrote; ValueError says whether it is no such word, or was changed or made elsewhere."""
    match = _MARK_TEXT.fullmatch("".join(text.split()))
    if match is None:
        raise ValueError("it is not what `relay audit head` prints")
    mark = Mark(int(match[1]), int(match[2]), int(match[3]), bytes.fromhex(match[4]))
    if not hmac.compare_digest(mark.sign(key)[:_CHECK_BYTES], bytes.fromhex(match[5])):
        raise ValueError("it was not made with this relay's keys/audit.key, or a character of it is wrong")
    return mark


def sign_head(head: bytes, key: AuditKey) -> bytes:
    """Return the authentication code of a batch's head."""
    return hmac.digest(key.key, _SEAL_FORM + head, "sha256")


def sign_export(batches: int, events: int, head: bytes, key: AuditKey) -> bytes:
    """Return the authentication code that ends an export: how much is in it, and its newest head."""
    return hmac.digest(key.key, _EXPORT_FORM + struct.pack(">qq", batches, events) + head, "sha256")


# --- judging -----------------------------------------------------------------------------------------------------


class FaultKind(StrEnum):
    """What can be wrong with a history."""

    BATCH_MISSING = "batch.missing"
    BATCH_FORGED = "batch.forged"
    BATCH_MOVED = "batch.moved"
    OTHER_KEY = "batch.other_key"
    EVENT_MISSING = "event.missing"
    EVENT_ADDED = "event.added"
    EVENT_CHANGED = "event.changed"
    CUT_OFF = "history.cut_off"
    REPLACED = "history.replaced"
    ANCHOR_MISSING = "anchor.missing"
    ANCHOR_DAMAGED = "anchor.damaged"
    EXPORT_CUT = "export.cut"
    GUARD_MISSING = "store.guard_missing"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where: numbers are None where the fault has none.

    *first* and *last* are batches or events, as the kind says; *at* is the time nearest to the place that is known,
    in microseconds since 1970; *source* is the mark that tells of it.
    """

    kind: FaultKind
    first: int | None = None
    last: int | None = None
    batch: int | None = None
    writer: int | None = None
    number: int | None = None
    at: int | None = None
    source: str = ""


@dataclass(slots=True)
class Progress:
    """How far a judgement has come, and where it ended."""

    batches: int = 0
    events: int = 0
    writers: int = 0
    newest: Batch | None = None


def judge_history(
    batches: Iterable[Batch],
    events: Iterable[EventRow],
    key: AuditKey,
    marks: Sequence[tuple[str, Mark]] = (),
    *,
    progress: Progress | None = None,
    on_batch: Callable[[Progress], None] = lambda _progress: None,
) -> Iterator[Fault]:
    """Yield everything that is wrong, in the order of the history.

    Both come in the order of their ids and are read once, side by side; what is kept is a few dozen bytes for every
    writer.  *marks* are told by their source's name.
    """
    judge = _Judge(key, marks, _Events(events), progress or Progress())
    for batch in batches:
        yield from judge.judge(batch)
        on_batch(judge.progress)
    yield from judge.finish()


class _Events:
    """Events with a look at the next one."""

    def __init__(self, rows: Iterable[EventRow]) -> None:
        self._rows = iter(rows)
        self.next = next(self._rows, None)

    def take(self) -> EventRow:
        taken = self.next
        assert taken is not None
        self.next = next(self._rows, None)
        return taken


class _Judge:
    def __init__(self, key: AuditKey, marks: Sequence[tuple[str, Mark]], events: _Events, progress: Progress) -> None:
        self._key = key
        self._marks = marks
        self._events = events
        self.progress = progress
        # Of each writer the number and the head of its newest batch.
        self._writers: dict[int, tuple[int, bytes]] = {}
        self._has_gap = False

    def judge(self, batch: Batch) -> Iterator[Fault]:
        before, found = self.progress.newest, False
        expected = 1 if before is None else before.id + 1
        if batch.id > expected:
            self._has_gap = True
            yield _at(FaultKind.BATCH_MISSING, batch, expected, batch.id - 1)
        for fault in self._judge_content(batch):
            found = True
            yield fault
        if not found and not self._follows(batch, before, is_next=batch.id == expected):
            yield _at(FaultKind.BATCH_MOVED, batch, batch.id, batch.id)
        for source, mark in self._marks:
            if mark.batch == batch.id and mark.head != batch.head:
                yield _at(FaultKind.REPLACED, batch, batch.id, batch.id, source)
        self._writers[batch.writer] = (batch.number, batch.head)
        self.progress.newest = batch
        self.progress.batches += 1
        self.progress.writers = len(self._writers)

    def _judge_content(self, batch: Batch) -> Iterator[Fault]:
        """Judge what the batch says of itself and of its events."""
        yield from self._strangers(batch.first_event, batch)
        digest, expected, is_told = hashlib.sha256(), batch.first_event, False
        while (row := self._events.next) is not None and row.id <= batch.last_event:
            if row.id > expected:
                is_told = True
                yield _at(FaultKind.EVENT_MISSING, batch, expected, row.id - 1)
            expected = row.id + 1
            self.progress.events += 1
            digest.update(_encoded(self._events.take()))
        if expected <= batch.last_event:
            is_told = True
            yield _at(FaultKind.EVENT_MISSING, batch, expected, batch.last_event)
        if batch.key_id != self._key.id:
            yield _at(FaultKind.OTHER_KEY, batch, batch.id, batch.id)
        elif not hmac.compare_digest(sign_head(batch.head, self._key), batch.mac):
            yield _at(FaultKind.BATCH_FORGED, batch, batch.id, batch.id)
        elif not is_told and not _has_head(batch, digest.digest()):
            yield _at(FaultKind.EVENT_CHANGED, batch, batch.first_event, batch.last_event)

    def _strangers(self, before: int, batch: Batch | None) -> Iterator[Fault]:
        """Tell of events that no batch holds, up to the one with the number *before*."""
        first = last = None
        while (row := self._events.next) is not None and row.id < before:
            first, last = row.id if first is None else first, row.id
            self._events.take()
        if first is None:
            return
        if batch is None:
            newest = self.progress.newest
            yield Fault(FaultKind.EVENT_ADDED, first, last, at=None if newest is None else newest.at)
        else:
            yield _at(FaultKind.EVENT_ADDED, batch, first, last)

    def _follows(self, batch: Batch, before: Batch | None, *, is_next: bool) -> bool:
        """Tell whether *batch* stands behind those that it was written behind."""
        if before is not None and is_next:
            if batch.previous != before.head or batch.first_event != before.last_event + 1:
                return False
        elif before is None and is_next and batch.previous != NO_HEAD:
            return False
        if batch.number == 1:
            return batch.writer == batch.id and batch.own_previous == NO_HEAD
        known = self._writers.get(batch.writer)
        # A batch of its writer that is missing was told of already.
        return self._has_gap or known == (batch.number - 1, batch.own_previous)

    def finish(self) -> Iterator[Fault]:
        newest = self.progress.newest
        yield from self._strangers(1 << 63, None)
        for source, mark in self._marks:
            if newest is None or newest.id < mark.batch:
                first = 1 if newest is None else newest.id + 1
                yield Fault(FaultKind.CUT_OFF, first, mark.batch, at=mark.at, source=source)


def _at(kind: FaultKind, batch: Batch, first: int, last: int | None, source: str = "") -> Fault:
    return Fault(kind, first, last, batch.id, batch.writer, batch.number, batch.at, source)


def _encoded(row: EventRow) -> bytes:
    try:
        return row.encode()
    except (struct.error, TypeError, AttributeError):
        # Nothing that the relay ever wrote: the head will not hold.
        return b""


def _has_head(batch: Batch, rows_sha256: bytes) -> bool:
    try:
        return batch.compute_head(rows_sha256) == batch.head
    except (struct.error, TypeError, AttributeError):
        return False
