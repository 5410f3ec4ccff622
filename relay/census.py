"""Census: what each worker is doing and has done, and all of them together.

A worker writes its `Sight` into the crew's memory when somebody asks, and what it has counted every second.  Who asks,
the worker that answers monitoring, adds up what all wrote.  What a worker had counted when it ended is kept by the supervisor
with the counts of those that ended before, so that no total ever goes back while the server runs.

Who does not write when asked does not turn its loop: that is how a hung worker is found out.
"""

from __future__ import annotations

import asyncio
import pickle
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from relay.crew import Crew
from relay.meters import Meters

AGE_LABELS = ("5m", "1h", "1d", "1w", "1M", "older")
# Longer than any loop is late that still turns.
_ANSWER_SECONDS = 2.0
_LOOK_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is there at this moment.

    *waiting* are files that nobody has collected, for each of `AGE_LABELS`, the youngest first; it and the sizes are
    as old as *looked_at* says (seconds since 1970; 0 where nobody has looked yet).
    """

    sessions: int = 0
    connections: int = 0
    strangers: int = 0
    handles: int = 0
    uploads: int = 0
    lag_seconds: float = 0.0
    is_draining: bool = False
    is_anchor_behind: bool = False
    waiting: tuple[int, ...] = (0,) * len(AGE_LABELS)
    oldest_waiting_seconds: float = 0.0
    store_bytes: int = 0
    log_bytes: int = 0
    free_bytes: int = 0
    looked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Present:
    """An office that is here: its sessions, handles and uploads, and what its program calls itself."""

    office: str
    software: str
    sessions: int
    handles: int
    uploads: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process takes of the machine."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    open_files: int = 0
    most_files: int = 0


@dataclass(frozen=True, slots=True)
class Sight:
    """What one worker is doing, and has counted since it started, when the clock of the machine was *at*."""

    at: float = 0.0
    index: int = -1
    pid: int = 0
    meters: Meters = field(default_factory=Meters)
    gauges: Gauges = field(default_factory=Gauges)
    limits: Counter[str] = field(default_factory=Counter)
    present: tuple[Present, ...] = ()
    usage: Usage = field(default_factory=Usage)

    def pack(self) -> bytes:
        """Return this as bytes for the other processes of this server."""
        return pickle.dumps(self)

    @classmethod
    def unpack(cls, data: bytes) -> Sight:
        """Return what a process of this server has packed."""
        # Only processes forked from this one's parent can write there.
        return cast(Sight, pickle.loads(data))  # noqa: S301


@dataclass(frozen=True, slots=True)
class Census:
    """All workers that are there, in their order, which of them *silent*, and the *total* since the server started."""

    total: Sight
    workers: tuple[Sight, ...] = ()
    silent: tuple[int, ...] = ()


async def gather(crew: Crew) -> Census:
    """Ask every worker, this one too, and return what they say; who is silent for two seconds counts as seen last."""
    asked = {index: crew.written(index) for index in range(crew.size) if crew.pid(index)}
    for index in asked:
        crew.ring(index)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _ANSWER_SECONDS
    silent = [*asked]
    while silent and loop.time() < deadline:
        await asyncio.sleep(_LOOK_SECONDS)
        silent = [index for index in silent if crew.written(index) == asked[index] and crew.pid(index)]
    while (read := _read_all(crew)) is None:  # noqa: ASYNC110 - another process ends it, within microseconds
        await asyncio.sleep(_LOOK_SECONDS)
    past, workers = read
    return Census(add_up([past, *workers]), tuple(workers), tuple(silent))


def _read_all(crew: Crew) -> tuple[Sight, list[Sight]] | None:
    """Return what those that ended have counted, and each worker; None where one has ended just then."""
    before = crew.burials
    workers = [Sight.unpack(data) for index in range(crew.size) if (data := crew.read(index))]
    past = crew.read_past()
    return None if crew.burials != before or before % 2 else (Sight.unpack(past) if past else Sight(), workers)


def bury(crew: Crew, index: int) -> None:
    """Add what the worker has counted to what those before it have, and clear its place."""
    crew.burials += 1
    past = crew.read_past()
    written = [Sight.unpack(data) for data in (crew.read(index), crew.read_kept(index)) if data]
    if written:
        counted = max(written, key=lambda sight: sight.at)
        # Whoever was there has gone.
        ended = Sight(meters=counted.meters, limits=counted.limits, usage=Usage(counted.usage.cpu_seconds))
        crew.write_past((add_up([Sight.unpack(past), ended]) if past else ended).pack())
    crew.leave(index)
    crew.burials += 1


def add_up(sights: Sequence[Sight]) -> Sight:
    """Return all of them as one; late is as late as the latest."""
    meters = Meters(started_at=min((sight.meters.started_at for sight in sights), default=0.0))
    limits: Counter[str] = Counter()
    for sight in sights:
        meters.add(sight.meters)
        limits.update(sight.limits)
    each, used = [sight.gauges for sight in sights], [sight.usage for sight in sights]
    gauges = Gauges(
        sessions=sum(gauges.sessions for gauges in each),
        connections=sum(gauges.connections for gauges in each),
        strangers=sum(gauges.strangers for gauges in each),
        handles=sum(gauges.handles for gauges in each),
        uploads=sum(gauges.uploads for gauges in each),
        lag_seconds=max((gauges.lag_seconds for gauges in each), default=0.0),
        is_anchor_behind=any(gauges.is_anchor_behind for gauges in each),
    )
    usage = Usage(
        sum(usage.cpu_seconds for usage in used),
        sum(usage.memory_bytes for usage in used),
        sum(usage.open_files for usage in used),
        max((usage.most_files for usage in used), default=0),
    )
    present = tally([present for sight in sights for present in sight.present])
    return Sight(meters=meters, gauges=gauges, limits=limits, present=tuple(present), usage=usage)


def tally(each: Sequence[Present]) -> list[Present]:
    """Return one line for each office and program, the busiest first."""
    found: dict[tuple[str, str], Present] = {}
    for one in each:
        before = found.get((one.office, one.software), Present(one.office, one.software, 0, 0, 0))
        found[one.office, one.software] = Present(
            one.office,
            one.software,
            before.sessions + one.sessions,
            before.handles + one.handles,
            before.uploads + one.uploads,
        )
    return sorted(found.values(), key=lambda one: (-one.uploads, -one.handles, -one.sessions, one.office))


def measure_processor() -> float:
    """Return how much of the processor's time this process has taken, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure_usage() -> Usage:
    """Return what this process takes; memory that is shared with the others counts for its part."""
    return Usage(
        cpu_seconds=measure_processor(),
        memory_bytes=_read_memory(),
        open_files=len([*Path("/proc/self/fd").iterdir()]) - 1,
        most_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _read_memory() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
