"""``relay top``: the server as it is at this moment: who is here, how much goes through, how long it takes.

It asks the running server over its socket, and so must be run as the user that the relay runs as.  Rates and latencies
are those between two looks; the first look tells them since the start of the server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict, cast

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relay.census import AGE_LABELS
from relay.cli.installation import HomeOption
from relay.cli.terminal import CommandFailed, JsonOption, Tone, console, print_json, say_size
from relay.cli.watching import ask_server
from relay.exposition import HistogramFacts

_COMMITS_SHOWN = 5
_PRESENT_SHOWN = 10
_LATE_SECONDS = 0.2
_WORDS_MOST = 4


class GaugeFacts(TypedDict):
    """`relay.exposition.Gauges` in JSON."""

    sessions: int
    connections: int
    strangers: int
    handles: int
    uploads: int
    lag_seconds: float
    is_draining: bool
    is_anchor_behind: bool
    waiting: list[int]
    oldest_waiting_seconds: float
    store_bytes: int
    log_bytes: int
    free_bytes: int
    looked_at: float


class CommitFacts(TypedDict):
    """`relay.meters.Commit` in JSON."""

    at: float
    seconds: float
    count: int


class PresentFacts(TypedDict):
    """`relay.exposition.Present` in JSON."""

    office: str
    software: str
    sessions: int
    handles: int
    uploads: int


class WorkerFacts(TypedDict):
    """One worker of several, in JSON."""

    worker: int
    pid: int
    sessions: int
    connections: int
    uploads: int
    logins: int
    requests: int
    lag_seconds: float
    cpu_seconds: float


class StateFacts(TypedDict):
    """What the server tells at ``/state``."""

    version: str
    started_at: float
    gauges: GaugeFacts
    counters: dict[str, int]
    rejected: dict[str, int]
    refusals: dict[str, int]
    limits: dict[str, int]
    histograms: dict[str, HistogramFacts]
    commits: list[CommitFacts]
    present: list[PresentFacts]
    workers: list[WorkerFacts]
    silent: list[int]
    deaths: int


@dataclass(frozen=True, slots=True)
class Look:
    """What the server said, and when."""

    at: float
    state: StateFacts


def top(
    *,
    interval: Annotated[float, typer.Option(min=0.5, max=3600, metavar="SECONDS", help="How often to look.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print, end.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = Path(),
) -> None:
    """Watch the running relay: sessions, rates, latencies, what waits, the slowest commits.  Ctrl-C ends it.

    With --json one look is printed as the server tells it.
    """
    first = _look(home)
    if as_json:
        print_json(first.state)
        return
    out = console()
    before = _start_of(first)
    if once or not out.is_terminal:
        out.print(render(before, first, width=out.width))
        return
    now = first
    with Live(render(before, now, width=out.width), console=out, screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(interval)
                before, now = now, _look(home)
                live.update(render(before, now, width=out.width), refresh=True)
        except KeyboardInterrupt:
            return


def _look(home: Path) -> Look:
    from relay.configfile import load_config

    try:
        answer = ask_server(load_config(home), "/state")
    except OSError as error:
        raise CommandFailed(
            f"no relay can be asked here ({error.strerror or error}): it does not run, or runs as another user. "
            "`relay serve` starts it, `relay doctor` looks closer"
        ) from error
    return Look(time.time(), cast(StateFacts, json.loads(answer.text)))


def _start_of(look: Look) -> Look:
    """Return what the server would have said when it started."""
    state = look.state
    counters = dict.fromkeys(state["counters"], 0)
    empty = {
        name: HistogramFacts(bounds=each["bounds"], counts=[0] * len(each["counts"]), sum=0.0)
        for name, each in state["histograms"].items()
    }
    nothing: dict[str, int] = {}
    workers = [WorkerFacts(**{**each, "logins": 0, "requests": 0, "cpu_seconds": 0.0}) for each in state["workers"]]
    return Look(
        state["started_at"],
        {
            **state,
            "counters": counters,
            "histograms": empty,
            "rejected": nothing,
            "refusals": nothing,
            "limits": nothing,
            "workers": workers,
        },
    )


def render(before: Look, now: Look, *, width: int) -> Group:
    """Return what is shown: figures between two looks, at most *width* columns wide."""
    parts: list[Text | Table] = [
        _head(now),
        Text(),
        _rates(before, now),
        Text(),
        _latencies(before, now),
        Text(),
        _waiting(now),
    ]
    for title, counts in (
        ("Refused", _grown(before.state["refusals"], now.state["refusals"])),
        ("Logins rejected", _grown(before.state["rejected"], now.state["rejected"])),
        ("Limits reached", _grown(before.state["limits"], now.state["limits"])),
    ):
        if counts:
            parts.append(_line(title, counts, width))
    if len(now.state["workers"]) > 1:
        parts += [Text(), _workers(before, now)]
    parts += [Text(), _commits(now), Text(), _present(now.state["present"], width)]
    return Group(*parts)


def _head(now: Look) -> Text:
    gauges, state = now.state["gauges"], now.state
    lag = f"{gauges['lag_seconds'] * 1000:.0f} ms late"
    text = Text.assemble(
        (f"relay {state['version']}", "bold"),
        f"  up {_say_span(now.at - state['started_at'])}  ",
        (lag, Tone.BAD if gauges["lag_seconds"] > _LATE_SECONDS else ""),
        f"\n{gauges['sessions']} sessions, {gauges['connections']} connections ({gauges['strangers']} not logged in), "
        f"{gauges['uploads']} uploads, {gauges['handles']} handles",
    )
    if gauges["is_draining"]:
        text.append("\nIt is ending: no new connections.", style=Tone.BAD)
    return text


def _rates(before: Look, now: Look) -> Table:
    seconds = max(now.at - before.at, 0.001)

    def rate(name: str) -> float:
        return max(0, now.state["counters"][name] - before.state["counters"].get(name, 0)) / seconds

    table = _grid("right", "right", "right", "right", "right", "right", "right")
    table.add_row(
        *(Text(title, style="bold") for title in ("", "accepted", "collected", "logins", "requests", "in", "out"))
    )
    names = ("relay_transfers_accepted", "relay_transfers_collected", "relay_logins", "relay_requests")
    table.add_row(
        "each s",
        *(f"{rate(name):.1f}" for name in names),
        say_size(round(rate("relay_received_bytes"))),
        say_size(round(rate("relay_sent_bytes"))),
    )
    counters = now.state["counters"]
    table.add_row(
        "in all",
        *(f"{counters[name]:,}" for name in names),
        say_size(counters["relay_received_bytes"]),
        say_size(counters["relay_sent_bytes"]),
    )
    return table


def _latencies(before: Look, now: Look) -> Table:
    table = _grid("left", "right", "right", "right", "right")
    table.add_row(*(Text(title, style="bold") for title in ("", "count", "half in", "9 of 10 in", "99 of 100 in")))
    for name, title in (
        ("relay_accept_seconds", "OPEN to OK"),
        ("relay_commit_seconds", "commit"),
        ("relay_first_visible_seconds", "until listed"),
        ("relay_collection_age_seconds", "until collected"),
    ):
        after, earlier = now.state["histograms"][name], before.state["histograms"][name]
        counts = [max(0, one - other) for one, other in zip(after["counts"], earlier["counts"], strict=True)]
        table.add_row(
            title, f"{sum(counts):,}", *(_say_quantile(after["bounds"], counts, part) for part in (0.5, 0.9, 0.99))
        )
    return table


def find_quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """Return the bound below which *part* of what was counted lies: infinity beyond the last, None where nothing was."""
    wanted, reached = part * sum(counts), 0
    if not wanted:
        return None
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        reached += count
        if reached >= wanted:
            return bound
    return float("inf")


def _say_quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> str:
    bound = find_quantile(bounds, counts, part)
    if bound is None:
        return "-"
    return f"over {_say_span(bounds[-1])}" if bound == float("inf") else _say_span(bound)


def _say_span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, most, size in (("s", 120, 1), ("min", 7200, 60), ("h", 172_800, 3600)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _waiting(now: Look) -> Text:
    gauges = now.state["gauges"]
    if not gauges["looked_at"]:
        return Text("What waits has not been counted yet.", style=Tone.FADED)
    ages = "  ".join(f"{label} {count:,}" for label, count in zip(AGE_LABELS, gauges["waiting"], strict=True) if count)
    told = f"{sum(gauges['waiting']):,} waiting" + (f": {ages}" if ages else "")
    store = f"store {say_size(gauges['store_bytes'])}, log {say_size(gauges['log_bytes'])}, free {say_size(gauges['free_bytes'])}"
    return Text(f"{told}\n{store}  (counted {_say_span(max(0.0, now.at - gauges['looked_at']))} ago)")


def _grown(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}


def _line(title: str, counts: Mapping[str, int], width: int) -> Text:
    most = sorted(counts.items(), key=lambda each: -each[1])[:_WORDS_MOST]
    text = Text(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in most))
    text.truncate(width, overflow="ellipsis")
    return text


def _workers(before: Look, now: Look) -> Table:
    """Return a line for each worker: what it has, and how much of a core it took between two looks."""
    seconds = max(now.at - before.at, 0.001)
    earlier = {each["pid"]: each["cpu_seconds"] for each in before.state["workers"]}
    table = _grid("left", "right", "right", "right", "right", "right", "right")
    titles = ("worker", "sessions", "connections", "uploads", "logins", "requests", "of a core")
    table.add_row(*(Text(title, style="bold") for title in titles))
    for each in now.state["workers"]:
        part = max(0.0, each["cpu_seconds"] - earlier.get(each["pid"], 0.0)) / seconds
        is_silent = each["worker"] in now.state["silent"]
        table.add_row(
            Text(f"{each['worker']} ({each['pid']})", style=Tone.BAD if is_silent else ""),
            *(f"{each[name]:,}" for name in ("sessions", "connections", "uploads", "logins", "requests")),
            "does not answer" if is_silent else f"{part:.0%}",
        )
    return table


def _commits(now: Look) -> Table:
    slowest = sorted(now.state["commits"], key=lambda each: -each["seconds"])[:_COMMITS_SHOWN]
    table = _grid("left", "right", "right")
    table.add_row(*(Text(title, style="bold") for title in ("slowest commits", "took", "in one")))
    for each in slowest:
        table.add_row(f"{_say_span(max(0.0, now.at - each['at']))} ago", _say_span(each["seconds"]), str(each["count"]))
    return table


def _present(present: Sequence[PresentFacts], width: int) -> Table:
    table = _grid("left", "right", "right", "right", "left")
    table.add_row(*(Text(title, style="bold") for title in ("here", "sessions", "uploads", "handles", "with")))
    for each in present[:_PRESENT_SHOWN]:
        software = Text(each["software"])
        software.truncate(max(10, width - 44), overflow="ellipsis")
        table.add_row(each["office"], str(each["sessions"]), str(each["uploads"]), str(each["handles"]), software)
    if len(present) > _PRESENT_SHOWN:
        table.add_row(Text(f"and {len(present) - _PRESENT_SHOWN:,} more", style=Tone.FADED))
    return table


def _grid(*sides: str) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for side in sides:
        table.add_column(justify="left" if side == "left" else "right", no_wrap=True)
    return table
