"""``relay housekeeping``: what time does to files, seen beforehand or done now."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import (
    HELP_SETTINGS,
    JsonOption,
    YesOption,
    confirm,
    json_time,
    print_facts,
    print_json,
    say_size,
    say_time,
)

if TYPE_CHECKING:
    from relay.config import HousekeepingSettings
    from relay.housekeeping import Done, Plan
    from relay.ledger import Due

app = typer.Typer(help="What time does to files.", no_args_is_help=True, context_settings=HELP_SETTINGS)


@app.callback()
def _housekeeping() -> None:
    """Keep the nouns apart even while this one has a single verb."""


@app.command(name="run")
def run_(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Do now what the server does every ten minutes: let files expire, destroy what its time is over, give space back.

    It may run beside the server.  Bytes that are destroyed cannot be had again.
    """
    run(_run(home, dry_run=dry_run, yes=yes, as_json=as_json))


async def _run(home: Path, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from relay.housekeeping import go_round, plan_round

    async with open_installation(home) as relay:
        settings = relay.config.housekeeping
        plan = await plan_round(relay.ledger, settings, relay.now)
        if dry_run:
            _show_plan(plan, settings, as_json=as_json)
            return
        if plan.expiring.count or plan.destroyed.count:
            confirm(
                f"Let {plan.expiring.count:,} files expire and destroy the bytes of {plan.destroyed.count:,} collected ones?",
                yes=yes,
            )
        _show_done(await go_round(relay.ledger, settings, relay.now), as_json=as_json)


def _show_plan(plan: Plan, settings: HousekeepingSettings, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "expiring": _describe(plan.expiring),
                "destroyed": _describe(plan.destroyed),
                "free_pages": plan.free_pages,
                "uncollected_days": settings.uncollected_days,
                "collected_days": settings.collected_days,
            }
        )
        return
    print_facts(
        [
            (f"Would expire (waiting over {settings.uncollected_days} days)", _say_due(plan.expiring)),
            (f"Would lose their bytes (collected over {settings.collected_days} days ago)", _say_due(plan.destroyed)),
            ("Would go back to the disk", f"{plan.free_pages:,} pages"),
        ]
    )


def _show_done(done: Done, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done))
        return
    print_facts(
        [
            ("Expired", f"{done.expired:,} files"),
            ("Notices given", f"{done.noticed:,}"),
            ("Lost their bytes", f"{done.destroyed:,} files"),
            ("Unfinished uploads ended", f"{done.unfinished:,}"),
            ("Went back to the disk", f"{done.pages:,} pages"),
        ]
    )


def _describe(due: Due) -> dict[str, object]:
    return {"count": due.count, "size_bytes": due.size_bytes, "oldest_at": json_time(due.oldest_at)}


def _say_due(due: Due) -> str:
    if not due.count:
        return "none"
    return f"{due.count:,} files, {say_size(due.size_bytes)}, the oldest of {say_time(due.oldest_at)}"
