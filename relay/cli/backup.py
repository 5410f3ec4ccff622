"""``relay backup`` and ``relay restore``: a second store, made while the relay runs, and the way back."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import (
    CommandFailed,
    CommandRefused,
    JsonOption,
    YesOption,
    confirm,
    console,
    json_time,
    parse_span,
    print_json,
    say,
    say_size,
    say_time,
    warn,
)

if TYPE_CHECKING:
    from relay.config import Config
    from relay.ledger.backups import Backup

_KEPT = 48
# What ends backups that go on by themselves, between two.
_ENDING = (signal.SIGTERM, signal.SIGINT)


def backup(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where it goes.", show_default=False, dir_okay=False)
    ] = None,
    *,
    every: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Go on for ever, one each span: 5m, 1h.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --every: the folder, on another disk or machine.", show_default=False),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=1, metavar="N", help="With --every: keep the newest N, and one a day for 31 days.")
    ] = _KEPT,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Back the store up, also while the relay runs; every backup is read through before it counts.

    It holds no keys: back up keys/ once after each change of keys, somewhere else.
    """
    from relay.configfile import load_config

    if (file is None) == (every is None) or (every is None) != (to is None):
        raise CommandRefused("name a FILE, or say --every SPAN --to DIR")
    config = load_config(home)
    if file is not None:
        made = _make(config, file, force=force)
        _report(made, as_json=as_json)
    elif to is not None and every is not None:
        _keep_making(config, to, parse_span(every), keep, as_json=as_json)


def _make(config: Config, file: Path, *, force: bool = False) -> Backup:
    from relay.ledger.backups import make_backup

    refusal = CommandRefused(f"{file} is there already: choose another place, or overwrite with --force")
    if file.exists() and not force:
        raise refusal
    try:
        err = console(stderr=True)
        with Progress(transient=True, console=err, disable=not err.is_terminal) as bar:
            task = bar.add_task("copying", total=None)

            def tell(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            return make_backup(config.store.path, file, now=datetime.now(UTC), overwrite=force, progress=tell)
    except FileExistsError:
        raise refusal from None
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}") from error


def _report(made: Backup, *, as_json: bool) -> None:
    if as_json:
        print_json(_describe(made))
        return
    say(f"{made.path}: {made.transfers:,} transfers, {say_size(made.size_bytes)}, as of {say_time(made.taken_at)}")
    if made.master_id is not None:
        say(f"It can be read with the master key {made.master_id}; keep that apart from it.")


def _describe(made: Backup) -> dict[str, object]:
    return {
        "file": str(made.path),
        "taken_at": json_time(made.taken_at),
        "size_bytes": made.size_bytes,
        "form": made.form,
        "transfers": made.transfers,
        "newest_transfer_at": json_time(made.newest_at),
        "master_key": made.master_id,
    }


def _keep_making(config: Config, folder: Path, span: timedelta, keep: int, *, as_json: bool) -> None:
    """Make backups until somebody ends this; one that fails is told, and the next is tried."""
    from relay.errors import ConfigError
    from relay.ledger.backups import list_backups, name_backup, plan_removal

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Blocked, they wait until they are waited for: a handler that sets an event can come while that event is being looked at,
    # and then waits for ever.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    while True:
        try:
            made = _make(config, folder / name_backup(datetime.now(UTC)))
        except (ConfigError, CommandFailed, CommandRefused) as error:
            warn(f"{say_time(datetime.now(UTC))}: no backup was made: {error}")
        else:
            _report(made, as_json=as_json)
            # Never before a newer one is there and was read through.
            for old in plan_removal(list_backups(folder), keep):
                old.unlink(missing_ok=True)
        if signal.sigtimedwait(_ENDING, span.total_seconds()) is not None:
            return


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it holds and what would be lost.")] = False,
    yes: YesOption = False,
    home: HomeOption = Path(),
) -> None:
    """Put a backup in the place of the store; the relay must be stopped.

    Says which keys it needs and, to the second, from when on what was done is lost.  The store that was there is kept.
    """
    from relay.configfile import load_config
    from relay.ledger.backups import inspect_backup

    config = load_config(home)
    found = inspect_backup(file)
    say(f"{file}: {found.transfers:,} transfers, {say_size(found.size_bytes)}, as of {say_time(found.taken_at)}")
    _check_keys(config, found)
    _say_what_is_lost(config, found)
    if dry_run:
        say("Nothing was changed.")
        return
    confirm("Put it in the place of the store?", yes=yes)
    run(_restore(home, config, found))


def _check_keys(config: Config, found: Backup) -> None:
    from relay.keyring import load_keyring

    keyring = load_keyring(config.keys_path)
    held = {keyring.master.id, *(key.id for key in keyring.older_masters)}
    if found.master_id is not None and found.master_id not in held:
        raise CommandRefused(
            f"{found.path} needs the master key {found.master_id}, and {config.keys_path} holds {', '.join(sorted(held))}: "
            "put back the backup of keys/ from that time, or choose a newer backup"
        )
    say(f"Its keys are here (master key {found.master_id or keyring.master.id}).")


def _say_what_is_lost(config: Config, found: Backup) -> None:
    from relay.keyring import load_keyring
    from relay.ledger.anchor import AnchorDamagedError, read_anchor

    say(f"What was done after {say_seconds(found.taken_at)} is not in it, and is lost:")
    try:
        anchor = read_anchor(config.audit.anchor, load_keyring(config.keys_path).audit_key)
    except (OSError, AnchorDamagedError):
        anchor = None
    # The anchor tells its time in whole seconds: within the second of the backup it is not the earlier one.
    taken_at = found.taken_at.replace(microsecond=0)
    if anchor is not None and anchor.written_at >= taken_at:
        lost = int((anchor.written_at - taken_at).total_seconds())
        say(f"  the relay was last seen at work at {say_seconds(anchor.written_at)}, {lost:,} seconds later.")
    say(
        "  Files accepted since must be sent again; what was taken back since is there again; who was revoked or suspended"
    )
    say("  since gets in again until you say it anew. The journal of the relay tells what there was.")


def say_seconds(at: datetime) -> str:
    """Say a time to the second, as the clock on the operator's wall shows it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


async def _restore(home: Path, config: Config, found: Backup) -> None:
    from relay.ledger.backups import restore_backup
    from relay.ledger.sqlite import plan_upgrade
    from relay.model import EventKind

    try:
        aside = restore_backup(
            found, config.store.path, now=datetime.now(UTC), lock_wait_seconds=config.store.lock_wait_seconds
        )
    except OSError as error:
        raise CommandFailed(f"{error.filename or config.store.path} cannot be written: {error.strerror}") from error
    say(f"{config.store.path} is the backup now." + (f" The store before is kept as {aside.name}." if aside else ""))
    if plan_upgrade(config.store.path):
        say(
            "It was made by an older version: run `relay db upgrade`, then `relay audit accept --reason …`, then start."
        )
        return
    async with open_installation(home) as relay:
        detail = f"backup of {found.taken_at:%Y-%m-%dT%H:%M:%SZ}"
        await relay.ledger.record_event(EventKind.STORE_RESTORED, actor=relay.actor, detail=detail, now=relay.now)
        await relay.ledger.accept_store(actor=relay.actor, detail=detail, now=relay.now)
    say("History says so, and the audit's anchor vouches for it. Start the relay with `relay serve`.")
