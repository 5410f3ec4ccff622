"""The soak: honest and hostile clients together for as long as is wanted, and whether anything grows.

Run by `./scripts/soak`, which says how.  Every few seconds memory, open files, the log of the store and how long offices
waited are written into a CSV file.  At the end each is judged by its trend over the second half: what a relay takes up in
its first minutes it may keep, what goes on growing would end it one day.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

# The scripts are no package that is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from hostile import CRIMES, Crime
from hostile_tools import put_long
from house import CARE_MANAGER, HOME_HELP, HOST, House, prepare_home

from rig.figures import percentile
from rig.load import Load, Login, Task, prepared
from rig.machine import end_as_by_hand, look_at_machine, tell
from rig.processes import descriptors, pss_bytes
from rig.workloads import Numbers

CHECKOUT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
# Trends of less are noise: too few samples, and a relay that still takes up what it needs.
JUDGED_SECONDS = 300.0
# What honest offices do in each piece: files at random moments, files that are fetched, connections for one file.
_RATE, _LANES, _RELAYED, _CONNECTIONS = 10.0, 8, 20, 5
_NUMBERS = 100_000
# From another network than the crimes, which use up what theirs may.
_SOURCE = "127.9.1.1"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment; the latencies are those of the piece before it."""

    seconds: float
    memory_mib: float
    descriptors: float
    wal_mib: float
    store_mib: float
    close_p50_ms: float
    close_p99_ms: float
    files: int
    crimes: int


# By how much each may grow over the second half: an amount, or a part of what it is on average.
BOUNDS = {
    "memory_mib": (16.0, 0.10),
    "descriptors": (16.0, 0.10),
    "wal_mib": (32.0, 0.50),
    "close_p99_ms": (50.0, 0.50),
}


@dataclass(frozen=True, slots=True)
class Trend:
    """How much something grew over the second half, by a straight line through it, and how much it may."""

    what: str
    mean: float
    growth: float
    allowed: float

    @property
    def is_flat(self) -> bool:
        """True where it did not grow, or no more than noise does."""
        return self.growth <= self.allowed


def judge(samples: Sequence[Sample]) -> list[Trend]:
    """Lay a line through the second half of each column that is bounded."""
    half = samples[len(samples) // 2 :]
    times = [sample.seconds for sample in half]
    trends = []
    for what, (amount, part) in BOUNDS.items():
        values = [float(getattr(sample, what)) for sample in half]
        mean = sum(values) / len(values)
        trends.append(Trend(what, mean, _slope(times, values) * (times[-1] - times[0]), max(amount, part * mean)))
    return trends


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the line with the least squares; 0 where there is but one point."""
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    return (
        sum((at - middle) * (value - mean) for at, value in zip(times, values, strict=True)) / spread if spread else 0.0
    )


@dataclass
class Criminals:
    """Commits one crime after the other in a thread of its own, until it is told to stop."""

    house: House
    committed: int = 0
    failures: list[str] = field(default_factory=list)
    _is_over: bool = False

    def __enter__(self) -> Self:
        """Begin."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._go_on()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the crime that is being committed be the last."""
        self._is_over = True
        self._thread.join()

    async def _go_on(self) -> None:
        for crime in itertools.cycle(CRIMES):
            if self._is_over:
                return
            try:
                await _without_scales(crime)(held_bytes=0).commit(self.house)
            except Exception as error:  # noqa: BLE001 - whatever a crime did not expect is a finding of the soak
                self.failures.append(f"{crime.__name__}: {type(error).__name__}: {error}")
                # The relay may be gone, and then every crime fails at once.
                await asyncio.sleep(1)
            else:
                self.committed += 1


def _without_scales(crime: type[Crime]) -> type[Crime]:
    """Return the crime as it is, but for the weighing, which needs a relay with nothing else to do: here a trend judges."""
    return type(crime.__name__, (crime,), {"assert_bounded": lambda _self, _house: None})


def soak(house: House, seconds: float, piece_seconds: float, table: Path) -> tuple[list[Sample], Criminals]:
    """Load *house* for so long, writing a line into *table* after each piece; Ctrl-C ends it earlier."""
    asyncio.run(put_long(house))
    samples: list[Sample] = []
    numbers, files, started = Numbers(), 0, time.monotonic()
    with table.open("w", newline="", encoding="utf-8") as file, Criminals(house) as criminals:
        writer = csv.writer(file)
        writer.writerow([each.name for each in fields(Sample)])
        try:
            while time.monotonic() - started < seconds:
                with prepared(_honest_work(house, numbers, piece_seconds)) as load:
                    spans = _run(load)
                files += len(spans)
                samples.append(_look(house, time.monotonic() - started, spans, files, criminals.committed))
                writer.writerow([getattr(samples[-1], each.name) for each in fields(Sample)])
                file.flush()
                tell(_describe(samples[-1], seconds))
        except KeyboardInterrupt:
            tell("stopped; judging what there is")
    return samples, criminals


def _honest_work(house: House, numbers: Numbers, seconds: float) -> list[Task]:
    sender, reader = (
        Login(office, str(house.certificate(office).key), _SOURCE) for office in (CARE_MANAGER, HOME_HELP)
    )

    def task(work: str, count: int, **how: object) -> Task:
        first = numbers.take(count or _NUMBERS)
        return Task(work, HOST, house.port, None, (sender,), count, first=first, recipient=HOME_HELP, **how)  # type: ignore[arg-type]

    return [
        task("paced", 0, concurrency=_LANES, rate=_RATE, seconds=seconds),
        task("relayed", _RELAYED, readers=(reader,), path="new"),
        task("connect", _CONNECTIONS),
    ]


def _run(load: Load) -> Sequence[float]:
    return load.go().spans["close"]


def _look(house: House, at: float, spans: Sequence[float], files: int, crimes: int) -> Sample:
    assert house.process is not None
    store = house.config.store.path
    log = store.with_name(f"{store.name}-wal")
    return Sample(
        seconds=round(at, 1),
        memory_mib=round(pss_bytes(house.process.pid) / MIB, 2),
        descriptors=descriptors(house.process.pid),
        wal_mib=round(log.stat().st_size / MIB, 2) if log.exists() else 0.0,
        store_mib=round(store.stat().st_size / MIB, 2),
        close_p50_ms=round(1000 * percentile(spans, 50.0), 2),
        close_p99_ms=round(1000 * percentile(spans, 99.0), 2),
        files=files,
        crimes=crimes,
    )


def _describe(sample: Sample, seconds: float) -> str:
    return (
        f"{sample.seconds:,.0f} of {seconds:,.0f} s: {sample.memory_mib:.0f} MiB, {sample.descriptors:.0f} open files, "
        f"log {sample.wal_mib:.0f} MiB, CLOSE to OK p99 {sample.close_p99_ms:.0f} ms, {sample.files:,} files, "
        f"{sample.crimes} crimes"
    )


def plot(samples: Sequence[Sample], path: Path) -> None:
    """Draw everything that is judged against time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(BOUNDS), 1, sharex=True, figsize=(8, 8), layout="constrained")
    for axes, what in zip(rows, BOUNDS, strict=True):
        axes.plot([sample.seconds / 60 for sample in samples], [getattr(sample, what) for sample in samples])
        axes.set(ylabel=what, ylim=(0, None))
    rows[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Soak a relay of its own; exit code 1 where something grew, broke or ended."""
    parser = argparse.ArgumentParser(prog="soak", description="Honest and hostile clients together, for a long time.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long (10; two hours: 120)")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="how often to look (10)")
    parser.add_argument(
        "--out", type=Path, default=CHECKOUT / "build" / "soak", help="where soak.csv goes (build/soak)"
    )
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw it: .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    wanted = parser.parse_args()
    end_as_by_hand()
    machine = look_at_machine(Path(tempfile.gettempdir()))
    tell(machine.describe())
    wanted.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="relay-soak-") as folder:
        prepare_home(Path(folder) / "home")
        house = House.copy(Path(folder) / "home", Path(folder) / "house", {"server": {"login_seconds": 12}})
        house.start()
        try:
            samples, criminals = soak(house, wanted.minutes * 60, wanted.every, wanted.out / "soak.csv")
        finally:
            # AssertionError where the relay ended by itself or told of a defect.
            house.close()
    if not samples:
        return 130
    if wanted.plot:
        plot(samples, wanted.plot)
    return _report(wanted, machine.describe(), samples, criminals)


def _report(wanted: argparse.Namespace, machine: str, samples: Sequence[Sample], criminals: Criminals) -> int:
    is_judged = samples[-1].seconds >= JUDGED_SECONDS
    trends = judge(samples)
    verdict = "too short to judge" if not is_judged else "flat" if all(each.is_flat for each in trends) else "not flat"
    if wanted.json:
        told = {
            "verdict": verdict,
            "machine": machine,
            "samples": len(samples),
            "seconds": samples[-1].seconds,
            "files": samples[-1].files,
            "crimes": criminals.committed,
            "failures": criminals.failures,
            "trends": {
                each.what: {"mean": each.mean, "growth": each.growth, "allowed": each.allowed} for each in trends
            },
            "table": str(wanted.out / "soak.csv"),
        }
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        print(
            f"{machine}\n{samples[-1].seconds / 60:.1f} minutes, {samples[-1].files:,} files, {criminals.committed} crimes"
        )
        for each in trends:
            print(
                f"{each.what:13} {each.mean:10.1f} on average in the second half, {each.growth:+.1f} over it "
                f"(at most {each.allowed:+.1f})" + ("" if each.is_flat else "  <- grows")
            )
        for failure in criminals.failures:
            print(f"a crime went otherwise than it should: {failure}")
        print(f"{verdict}; every sample is in {wanted.out / 'soak.csv'}")
    return 1 if verdict == "not flat" or criminals.failures else 0


if __name__ == "__main__":
    sys.exit(main())
