"""``relay db``: the store's form, brought forward after a new version was installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import HELP_SETTINGS, YesOption, confirm, say

app = typer.Typer(help="The store itself.", no_args_is_help=True, context_settings=HELP_SETTINGS)


@app.callback()
def _db() -> None:
    """Keep the nouns apart even while this one has a single verb."""


@app.command()
def upgrade(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: YesOption = False,
    home: HomeOption = Path(),
) -> None:
    """Bring the store to the form that this version needs; the relay must be stopped, and there is no way back.

    Each step is done whole or not at all: after an interruption, run it again.
    """
    from relay.configfile import load_config
    from relay.ledger.sqlite import plan_upgrade, upgrade_store

    config = load_config(home)
    path = config.store.path
    steps = plan_upgrade(path)
    if not steps:
        say(f"The store {path} has the form this version needs. Nothing is to be done.")
        return
    say(f"The store {path} lacks {len(steps)} step{'s' if len(steps) > 1 else ''}:")
    for step in steps:
        say(f"  {step.number:>4}  {step.title}")
    if dry_run:
        say("Nothing was changed.")
        return
    confirm(
        "An older version cannot use the store afterwards. Is there a backup, and shall it be upgraded now?", yes=yes
    )
    upgrade_store(path, lambda step: say(f"done  {step.number}"), lock_wait_seconds=config.store.lock_wait_seconds)
    say("The store is ready; start the relay again.")
    run(_note(home))


async def _note(home: Path) -> None:
    """Let history tell of the upgrade, which it could not before it had this form."""
    async with open_installation(home):
        """Opening the relay writes which command did so."""
