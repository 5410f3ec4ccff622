"""``relay housekeeping``: what time does to files: seen beforehand, done now, and when it was done last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.installation import HomeOption, open_installation, run
from relay.cli.terminal import (
    HELP_SETTINGS,
    Column,
    JsonOption,
    YesOption,
    confirm,
    json_time,
    print_json,
    print_table,
    say,
    say_size,
    say_time,
    zoned,
)

if TYPE_CHECKING:
    from relay.config import HousekeepingSettings
    from relay.housekeeping import Done
    from relay.ledger.upkeep import Chore, Due, Rounds

app = typer.Typer(help="What time does to files.", no_args_is_help=True, context_settings=HELP_SETTINGS)

# A round that is late by so many others does not come: the relay stands, or its store is in trouble.
_LATE_ROUNDS = 3
# What each chore is to the operator, by its name.
_WORDS = {
    "expired": "Uncollected files expire",
    "destroyed": "Bytes of collected files go",
    "noticed": "Notices: a file waits",
    "notices_over": "Notices that are over go",
    "unfinished": "Unfinished uploads end",
    "leftovers": "Leftovers of uploads go",
    "unlisted": "Collected files leave send/",
    "names": "Keys of ended files go",
    "notes": "Notes beside refused files go",
    "refusals": "Old refusals go",
    "attempts": "Failed attempts are forgotten",
    "ended": "Offices close or change number",
    "stranded": "Files for closed offices go back",
    "pages": "Free pages go to the disk",
}


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
    from relay.ledger.upkeep import Chore

    async with open_installation(home) as relay:
        settings = relay.config.housekeeping
        plan = await plan_round(relay.ledger, settings, relay.now)
        if dry_run:
            _show_plan(plan, settings, as_json=as_json)
            return
        expiring, destroyed = plan[Chore.EXPIRED].count, plan[Chore.DESTROYED].count
        if expiring or destroyed:
            confirm(
                f"Files that expire: {expiring:,}. Collected files that lose their bytes: {destroyed:,}. Go on?",
                yes=yes,
            )
        _show_done(await go_round(relay.ledger, settings, relay.now), as_json=as_json)


def _show_plan(plan: Mapping[Chore, Due], settings: HousekeepingSettings, *, as_json: bool) -> None:
    if as_json:
        print_json({**_describe_settings(settings), "chores": {chore: _describe(due) for chore, due in plan.items()}})
        return
    print_table(
        [
            Column("What would be done", is_flexible=True),
            Column("Count", justify="right"),
            Column("Size", justify="right"),
            Column(zoned("Since")),
        ],
        [
            (
                _WORDS[chore],
                f"{due.count:,}",
                say_size(due.size_bytes) if due.size_bytes else "-",
                say_time(due.oldest_at, with_zone=False) if due.count else "-",
            )
            for chore, due in plan.items()
        ],
        note=_say_settings(settings) + " Nothing was changed.",
    )


def _show_done(done: Done, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done))
        return
    print_table(
        [Column("What was done", is_flexible=True), Column("Count", justify="right")],
        [(_WORDS[chore], f"{count:,}") for chore, count in done.counts.items()],
    )


@app.command()
def status(*, as_json: JsonOption = False, home: HomeOption = Path()) -> None:
    """Say when housekeeping was done last, what it did, and what comes next and when."""
    run(_status(home, as_json=as_json))


async def _status(home: Path, *, as_json: bool) -> None:
    from relay.housekeeping import ROUND_SECONDS, plan_round

    async with open_installation(home) as relay:
        settings, now = relay.config.housekeeping, relay.now
        rounds = await relay.ledger.read_rounds()
        plan = await plan_round(relay.ledger, settings, now)
    every = timedelta(seconds=ROUND_SECONDS)
    following = None if rounds.last_at is None else rounds.last_at + every
    if as_json:
        print_json(
            {
                "last_at": json_time(rounds.last_at),
                "next_at": json_time(following),
                "is_late": _is_late(rounds, every, now),
                **_describe_settings(settings),
                "chores": {chore: {**_describe_last(rounds, chore), **_describe(due)} for chore, due in plan.items()},
            }
        )
        return
    _say_rounds(rounds, every, now)
    print_table(
        [
            Column("What", is_flexible=True),
            Column(zoned("Last")),
            Column("Then", justify="right"),
            Column("Due", justify="right"),
            Column(zoned("Next")),
        ],
        [_tell_chore(rounds, chore, due, now) for chore, due in plan.items()],
        note=_say_settings(settings),
    )


def _is_late(rounds: Rounds, every: timedelta, now: datetime) -> bool:
    return rounds.last_at is None or now - rounds.last_at > _LATE_ROUNDS * every


def _say_rounds(rounds: Rounds, every: timedelta, now: datetime) -> None:
    from relay.housekeeping import PAUSE

    minutes = every // timedelta(minutes=1)
    if rounds.last_at is None:
        say(f"No round was made yet: a relay that runs makes one at its start, then every {minutes} minutes.")
    elif now - rounds.last_at >= PAUSE:
        say(
            f"The last round was at {say_time(rounds.last_at)}. After a pause of days, or where the clock leapt, a running relay "
            "waits for one day: see whether the clock is right. If it is, `relay housekeeping run` does it now."
        )
    elif _is_late(rounds, every, now):
        say(f"The last round was at {say_time(rounds.last_at)}, and none since: does the relay run? `relay doctor`")
    else:
        say(f"The last round was at {say_time(rounds.last_at)}; the relay makes one every {minutes} minutes.")
    say("")


def _tell_chore(rounds: Rounds, chore: Chore, due: Due, now: datetime) -> tuple[str, str, str, str, str]:
    last_at, count = rounds.chores.get(chore, (None, 0))
    following = "next round" if due.count or (due.next_at is not None and due.next_at <= now) else None
    return (
        _WORDS[chore],
        say_time(last_at, with_zone=False),
        f"{count:,}" if count else "-",
        f"{due.count:,}",
        following or say_time(due.next_at, with_zone=False),
    )


def _say_settings(settings: HousekeepingSettings) -> str:
    kept = f"after {settings.uncollected_days} days" if settings.uncollected_days else "never"
    read = f"after {settings.collected_days} days" if settings.collected_days else "never"
    return f"Uncollected files expire {kept}, collected ones lose their bytes {read} ([housekeeping] in relay.toml)."


def _describe_settings(settings: HousekeepingSettings) -> dict[str, object]:
    return {"uncollected_days": settings.uncollected_days, "collected_days": settings.collected_days}


def _describe_last(rounds: Rounds, chore: Chore) -> dict[str, object]:
    last_at, count = rounds.chores.get(chore, (None, None))
    return {"last_at": json_time(last_at), "last_count": count}


def _describe(due: Due) -> dict[str, object]:
    return {
        "count": due.count,
        "size_bytes": due.size_bytes,
        "oldest_at": json_time(due.oldest_at),
        "next_at": json_time(due.next_at),
    }
