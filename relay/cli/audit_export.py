"""Exports of the audit: history as JSON lines, each batch behind its events, that can be judged without the store.

The first line says the form, the last one how much there is, signed, so that a file that was cut off shows.  Texts
that are none are written so that the very bytes come back.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.audit import NO_HEAD, AuditKey, Batch, EventRow, Progress, sign_export
from relay.cli.audit_words import to_moment
from relay.cli.terminal import CommandRefused, json_time
from relay.ledger.trail import batch_of
from relay.publishing import sync_path

if TYPE_CHECKING:
    from relay.ledger.auditing import History

_FORM = "careplan-relay audit export 1"
_BATCH_COLUMNS = ("batch", "writer", "number", "first_event", "last_event", "at", "key_id")
_BATCH_HEX = ("previous", "own_previous", "head", "mac")
# A line holds one event, whose longest text is a list of numbers.
_LINE_BYTES_MOST = 16 * 1024 * 1024


def write_export(history: History, path: Path, key: AuditKey, on_batch: Callable[[Progress], None]) -> Progress:
    """Write all of *history* to *path*, whole and synced or not at all; FileExistsError is the caller's to avoid."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    done = Progress()
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            for line in _lines(history, key, done, on_batch):
                file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_path(path.parent)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    return done


def _lines(
    history: History, key: AuditKey, done: Progress, on_batch: Callable[[Progress], None]
) -> Iterator[dict[str, object]]:
    yield {"form": _FORM, "written": json_time(datetime.now(UTC)), "key_id": key.id}
    head, events = NO_HEAD, history.events()
    event = next(events, None)
    for batch in history.batches():
        while event is not None and event.id <= batch.last_event:
            yield _describe_event(event)
            done.events += 1
            event = next(events, None)
        yield _describe_batch(batch)
        head, done.newest = batch.head, batch
        done.batches += 1
        on_batch(done)
    # What stands behind the last batch is nothing that the relay wrote, and has to be seen.
    while event is not None:
        yield _describe_event(event)
        done.events += 1
        event = next(events, None)
    mac = sign_export(done.batches, done.events, head, key)
    yield {"end": True, "batches": done.batches, "events": done.events, "mac": mac.hex()}


def _describe_event(event: EventRow) -> dict[str, object]:
    return {
        "event": event.id,
        "time": json_time(to_moment(event.at)),
        "at": event.at,
        "kind": read_text(event.kind),
        "actor": read_text(event.actor),
        "office": None if event.office is None else read_text(event.office),
        "transfer": event.transfer,
        "detail": read_text(event.detail),
    }


def _describe_batch(batch: Batch) -> dict[str, object]:
    return {
        "batch": batch.id,
        "writer": batch.writer,
        "number": batch.number,
        "first_event": batch.first_event,
        "last_event": batch.last_event,
        "at": batch.at,
        "key_id": batch.key_id,
        **{name: getattr(batch, name).hex() for name in _BATCH_HEX},
    }


def read_text(cell: object) -> str:
    """Return the text of a cell, whatever somebody wrote there."""
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else str(cell)


class Export:
    """A file that `write_export` made; read twice at once, because events and batches are judged side by side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        first = next(self._objects(), {})
        if first.get("form") != _FORM:
            raise CommandRefused(f"{path} is no export of the audit")

    def events(self) -> Iterator[EventRow]:
        """Yield the events."""
        for line in self._objects():
            if "event" in line:
                with _as_refusal(self._path):
                    office = None if line["office"] is None else _to_bytes(line["office"])
                    texts = [_to_bytes(line[name]) for name in ("kind", "actor", "detail")]
                    row = EventRow(line["event"], line["at"], texts[0], texts[1], office, line["transfer"], texts[2])
                yield row

    def batches(self) -> Iterator[Batch]:
        """Yield the batches."""
        for line in self._objects():
            if "batch" in line:
                with _as_refusal(self._path):
                    heads = [bytes.fromhex(line[name]) for name in _BATCH_HEX]
                    batch = batch_of((*(line[name] for name in _BATCH_COLUMNS), *heads))
                yield batch

    def has_end(self, key: AuditKey) -> bool:
        """Tell whether the last line says what is in the file, and is signed."""
        batches = events = 0
        head, end = NO_HEAD.hex(), None
        for line in self._objects():
            batches, events = batches + ("batch" in line), events + ("event" in line)
            head, end = line.get("head", head), line
        if not end or "end" not in end or not isinstance(end.get("mac"), str):
            return False
        mac = sign_export(batches, events, bytes.fromhex(head), key).hex()
        return hmac.compare_digest(mac.encode(), end["mac"].encode())

    def _objects(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            while line := file.readline(_LINE_BYTES_MOST):
                with _as_refusal(self._path):
                    found = json.loads(line)
                yield found if isinstance(found, dict) else {}


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _as_refusal:  # noqa: N801 - a with statement, not a noun
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | TypeError | KeyError | AttributeError):
            raise CommandRefused(f"{self._path} holds a line that no export has; it was damaged or changed") from error
