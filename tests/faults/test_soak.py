"""The soak: its judge finds what grows, and honest offices are served beside every crime for as long as it runs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soaking
from soaking import Sample, judge

EVERY_SECONDS = 10.0


def samples(**growing: list[float]) -> list[Sample]:
    """Return an hour of samples in which only the columns named change."""
    count = len(next(iter(growing.values())))
    flat = Sample(0.0, 100.0, 50.0, 8.0, 10.0, 5.0, 20.0, 0, 0)
    return [
        replace(flat, seconds=EVERY_SECONDS * place, **{name: values[place] for name, values in growing.items()})
        for place in range(count)
    ]


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("memory_mib", [100 + 0.2 * place for place in range(360)]),
        ("descriptors", [50 + place // 10 for place in range(360)]),
        ("wal_mib", [8 + 0.4 * place for place in range(360)]),
        ("close_p99_ms", [20.0 + place for place in range(360)]),
    ],
)
def test_what_goes_on_growing_is_found(what: str, values: list[float]) -> None:
    """Whatever leaks slowly is not flat, and nothing else is blamed for it."""
    assert [trend.what for trend in judge(samples(**{what: values})) if not trend.is_flat] == [what]


@pytest.mark.parametrize(
    "values",
    [
        [100.0 + (place % 7) for place in range(360)],
        [60.0 + min(place, 90) for place in range(360)],
        [300.0 - 0.5 * place for place in range(360)],
    ],
    ids=["noise", "growth that ends in the first half", "less and less"],
)
def test_what_a_relay_may_do_is_flat(values: list[float]) -> None:
    """Noise, what is taken up at the beginning, and what is given back are no leaks."""
    assert all(trend.is_flat for trend in judge(samples(memory_mib=values)))


def soak(out: Path, minutes: float, every: float) -> dict[str, object]:
    """Run the soak and return what it says, which must not be that something broke."""
    command = [sys.executable, soaking.__file__, "--minutes", str(minutes), "--every", str(every)]
    done = subprocess.run([*command, "--out", str(out), "--json"], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert done.returncode == 0, told
    assert isinstance(told, dict)
    return told


@pytest.mark.timeout(300)
def test_a_moment_of_the_soak_serves_the_honest_beside_the_hostile(tmp_path: Path) -> None:
    """Files are answered OK while crimes are committed, each sample is in the table, and the relay ends well."""
    told = soak(tmp_path, minutes=0.25, every=3)
    assert told["verdict"] == "too short to judge"
    assert told["failures"] == []
    assert int(str(told["crimes"])) > 0
    with (tmp_path / "soak.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == told["samples"]
    assert int(rows[-1]["files"]) == told["files"]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_minutes_of_the_soak_stay_flat(tmp_path: Path) -> None:
    """Memory, open files, the log of the store and how long offices wait do not grow over the second half."""
    assert soak(tmp_path, minutes=10, every=10)["verdict"] == "flat"
