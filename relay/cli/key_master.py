"""``relay key rotate --master``: everything in the store under a new master key, and the old one destroyed.

What lies in an older backup of the store dies with the old key: that is what a rotation is for.  It may run while
the relay serves, and goes on where it was when it was interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relay.cli.installation import open_installation
from relay.cli.terminal import CommandFailed, confirm, console, say

if TYPE_CHECKING:
    from pathlib import Path

    from relay.cli.installation import Installation


async def rotate_master(home: Path, *, yes: bool) -> None:
    """Rotate the master key of the relay in *home*; CommandFailed where something opens under neither key."""
    from relay.keymaking import begin_master_rotation, destroy_old_master

    async with open_installation(home) as relay:
        if not relay.keyring.older_masters:
            confirm("Make a new master key, and wrap the key of every file in the store with it?", yes=yes)
        old, new = begin_master_rotation(relay.config.keys_path)
        await relay.ledger.begin_rotation(new.id, actor=relay.actor, now=relay.now)
        say(f"The new master key {new.id} is in use; {old.id} still opens what it wrapped.")
        await _rewrap(relay)
        say(f"Back up {relay.config.keys_path} again, now: without {new.id} this store cannot be read.")
        say("Backups of the store from before this moment can only be read with the older backup of the keys;")
        say("to let them die, destroy that one too.")
        confirm(f"Destroy the old master key {old.id}?", yes=yes)
        destroy_old_master(relay.config.keys_path)
        await relay.ledger.end_rotation(actor=relay.actor, now=relay.now)
        say(f"The old master key {old.id} was destroyed.")


async def _rewrap(relay: Installation) -> None:
    total = await relay.ledger.count_unrotated()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), disable=not console(stderr=True).is_terminal) as progress:
        bar = progress.add_task("wrapping keys again", total=total)
        rewrapped = await relay.ledger.rewrap_all(lambda count: progress.advance(bar, count))
    say(f"{rewrapped.done:,} keys and notes were wrapped again.")
    if rewrapped.damaged:
        raise CommandFailed(
            f"{rewrapped.damaged:,} open under neither key, so the old key is kept: these rows were damaged, or sealed "
            "under a key that is not in keys/. Put that key's file back as keys/master.old.key and run this again, or "
            "restore the store from a backup."
        )
