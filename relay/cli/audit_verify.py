"""``relay audit verify``: whether history is as it was written; it changes nothing, the anchor included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.audit import Fault, FaultKind, Mark, Progress, judge_history, read_mark
from relay.cli.audit_export import Export
from relay.cli.audit_words import describe_fault, say_fault, say_moment, say_range, to_moment
from relay.cli.installation import HomeOption
from relay.cli.terminal import CommandRefused, JsonOption, console, json_time, print_json, say

if TYPE_CHECKING:
    from relay.audit import AuditKey
    from relay.config import Config
    from relay.ledger.anchor import Anchor

BROKEN = 1
# Of a history that was changed all over, the first faults tell enough.
FAULTS_TOLD = 50


@dataclass(slots=True)
class Verdict:
    """What was found: *faults* are the first, *count* is how many there are."""

    progress: Progress = field(default_factory=Progress)
    faults: list[Fault] = field(default_factory=list)
    count: int = 0
    anchor: Anchor | None = None

    def add(self, fault: Fault) -> None:
        """Count a fault, and keep it where it is among the first."""
        self.count += 1
        if len(self.faults) < FAULTS_TOLD:
            self.faults.append(fault)


def verify(
    *,
    anchor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare with this anchor.", show_default="audit.anchor of relay.toml"),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Compare with what `relay audit head` once printed; may be repeated."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Look at a copy of the store.", show_default="store.path of relay.toml"),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Look at an export instead of the store.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Find whether anything in history was changed, removed, added, reordered or cut off, and say where.

    It exits with 1 where history does not hold.  What was cut off since the anchor was last written, a few seconds
    ago, cannot be told; neither can what was done by somebody who has keys/audit.key.
    """
    from relay.configfile import load_config
    from relay.keyring import load_keyring

    config = load_config(home)
    key = load_keyring(config.keys_path).audit_key
    heads = [_read_head(text, key) for text in head or ()]
    if export is not None:
        verdict = _judge_export(export, key, heads, is_quiet=as_json)
    else:
        verdict = _judge_store(store or config.store.path, anchor or config.audit.anchor, key, heads, is_quiet=as_json)
    if as_json:
        print_json(_describe(verdict))
    else:
        _print(verdict, config, is_export=export is not None)
    if verdict.count:
        raise typer.Exit(BROKEN)


def _read_head(text: str, key: AuditKey) -> tuple[str, Mark]:
    try:
        return "the head that was kept elsewhere", read_mark(text, key)
    except ValueError as error:
        raise CommandRefused(f"--head {text[:40]}…: {error}") from None


def _judge_store(
    store: Path, anchor: Path, key: AuditKey, heads: Sequence[tuple[str, Mark]], *, is_quiet: bool
) -> Verdict:
    from relay.ledger.anchor import AnchorDamagedError, read_anchor
    from relay.ledger.auditing import open_history

    verdict, marks = Verdict(), [*heads]
    try:
        # Before the store is looked at: what it names is then in the store already.
        verdict.anchor = read_anchor(anchor, key)
    except (AnchorDamagedError, ValueError):
        verdict.add(Fault(FaultKind.ANCHOR_DAMAGED, source=str(anchor)))
    else:
        if verdict.anchor is not None:
            marks.append((f"the anchor of {_say_anchor(verdict.anchor)}", verdict.anchor.mark))
    with open_history(store) as history:
        if verdict.anchor is None and not verdict.count and history.newest_batch:
            verdict.add(Fault(FaultKind.ANCHOR_MISSING, source=str(anchor)))
        for guard in sorted(history.missing_guards()):
            verdict.add(Fault(FaultKind.GUARD_MISSING, source=guard))
        with show_progress("verifying", history.newest_batch, is_quiet=is_quiet) as on_batch:
            batches, events = history.batches(), history.events()
            for fault in judge_history(batches, events, key, marks, progress=verdict.progress, on_batch=on_batch):
                verdict.add(fault)
    return verdict


def _judge_export(path: Path, key: AuditKey, heads: Sequence[tuple[str, Mark]], *, is_quiet: bool) -> Verdict:
    export, verdict = Export(path), Verdict()
    with show_progress("verifying", None, is_quiet=is_quiet) as on_batch:
        batches, events = export.batches(), export.events()
        for fault in judge_history(batches, events, key, heads, progress=verdict.progress, on_batch=on_batch):
            verdict.add(fault)
    if not export.has_end(key):
        verdict.add(Fault(FaultKind.EXPORT_CUT))
    return verdict


@contextmanager
def show_progress(what: str, total: int | None, *, is_quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on the terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    err = console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("batches"), TimeRemainingColumn())
    is_hidden = is_quiet or not err.is_terminal
    with Bar(*columns, console=err, transient=True, redirect_stdout=False, disable=is_hidden) as bar:
        task = bar.add_task(what, total=total)

        def tell(progress: Progress) -> None:
            # Drawing costs more than judging.
            if progress.batches % 256 == 0:
                bar.update(task, completed=progress.batches)

        yield tell if not is_hidden else lambda _progress: None


def _say_anchor(anchor: Anchor) -> str:
    return f"{anchor.written_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _print(verdict: Verdict, config: Config, *, is_export: bool) -> None:
    done, newest = verdict.progress, verdict.progress.newest
    size = f"{done.events:,} events in {done.batches:,} batches by {done.writers:,} writers"
    if verdict.count:
        say(f"History does not hold: {verdict.count:,} {'fault' if verdict.count == 1 else 'faults'}.")
        for fault in verdict.faults:
            say(f"  - {say_fault(fault)}")
        if verdict.count > len(verdict.faults):
            say(f"  and {verdict.count - len(verdict.faults):,} more")
        say(f"Looked at {size}.")
        say("Keep copies of the store, of the anchor and of the journal before anything else is done. Where the store")
        say("was restored from a backup, say so with `relay audit accept --reason …`: what is missing stays missing.")
        return
    until = "" if newest is None else f", until {say_moment(newest.at)}"
    say(f"History holds: {size}{until}.")
    if verdict.anchor is not None:
        mark = verdict.anchor.mark
        say(f"The anchor of {_say_anchor(verdict.anchor)} agrees; it names {say_range('batch', '', mark.batch, None)}.")
        say(f"What was cut off since then, within {config.audit.anchor_seconds:g} seconds, cannot be told.")
    elif is_export:
        say("An export ends where it was made; `--head` compares it with what was kept elsewhere.")


def _describe(verdict: Verdict) -> dict[str, object]:
    done, anchor = verdict.progress, verdict.anchor
    return {
        "ok": not verdict.count,
        "events": done.events,
        "batches": done.batches,
        "writers": done.writers,
        "newest_at": None if done.newest is None else json_time(to_moment(done.newest.at)),
        "anchor": None
        if anchor is None
        else {"written_at": json_time(anchor.written_at), "batch": anchor.mark.batch, "event": anchor.mark.event},
        "fault_count": verdict.count,
        "faults": [describe_fault(fault) for fault in verdict.faults],
    }
