"""What checking the content costs: how fast `relay check` reads, and what the server pays for each upload.

The server checks every file of the standard, unless an operator wants no check at all; so a slip is compared with
the same bytes under the name of a text, which the server looks into no further.  That counts what comes of checking,
too: the record of which unit the file belongs to, and whom it is about.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from rig.servers import RelayHome
from rig.workloads import Amounts, Side, upload

# Some 15 MB, and 1.5 KB.
_PERSONS = {"big": 10_000, "small": 1}
# Reading is quick beside the rest: more of it makes one figure of it that can be relied on.
_READINGS = 3


@dataclass(frozen=True, slots=True)
class CheckCost:
    """*bytes_per_second* of `relay check`; *added_cpu_seconds* of the server for a slip of 10 KB."""

    bytes_per_second: float
    added_cpu_seconds: float


def measure_checking(side: Side, home: RelayHome, amounts: Amounts, *, rounds: int) -> CheckCost:
    """Measure both, from the best of several times; for uploads, of *rounds*."""
    big, small = (_make_results(home, side.scratch / name, persons) for name, persons in _PERSONS.items())
    reading: list[list[float]] = [[], []]
    uploading: list[list[float]] = [[], []]
    for _ in range(_READINGS):
        for file, seconds in zip((big, small), reading, strict=True):
            started = time.perf_counter()
            home.relay("check", str(file))
            seconds.append(time.perf_counter() - started)
    for _ in range(rounds):
        for is_text, spent in zip((False, True), uploading, strict=True):
            spent.append(upload(side, amounts, is_text=is_text)["b"].cpu_seconds)
    # Both start Python; only what one reads more is reading.
    read = big.stat().st_size - small.stat().st_size
    return CheckCost(read / (min(reading[0]) - min(reading[1])), min(uploading[0]) - min(uploading[1]))


def _make_results(home: RelayHome, folder: Path, persons: int) -> Path:
    home.relay("standard", "make", "UPJSK", "--persons", str(persons), "--out", str(folder))
    return next(folder.iterdir())
