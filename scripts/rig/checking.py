"""What checking the content costs: how fast `relay check` reads, and what the server pays for each upload.

The server checks every file of the standard, unless an operator wants no check at all; so a slip is compared with
the same bytes under the name of a text, which the server looks into no further.  That counts what comes of checking,
too: the record of which unit the file belongs to, and whom it is about.

What is looked for is the small difference of two large numbers, each of which the machine moves by more from one minute to
the next.  So both are sent to one server, in turn and a second of each, and the median of the differences counts.
"""

import statistics
import time
from pathlib import Path

from rig.figures import Figure
from rig.machine import tell
from rig.servers import RelayHome
from rig.sides import Bench
from rig.workloads import upload_in_turn

# Some 15 MB, and 1.5 KB.
_PERSONS = {"big": 10_000, "small": 1}
# Reading is quick beside the rest: more of it makes one figure of it that can be relied on.
_READINGS = 3
_TARGET_MS = 0.15
# Pairs of a turn of slips and one of texts for each round of the other workloads, and which part of their files a turn sends.
_PAIRS_FOLD, _PART_OF_FILES = 8, 4


def measure_checking(bench: Bench) -> tuple[list[Figure], float]:
    """Measure reading, from the best of several times, and uploads, in the median of many pairs."""
    tell("(check) relay")
    big, small = (_make_results(bench.home, bench.folder / name, persons) for name, persons in _PERSONS.items())
    reading: list[list[float]] = [[], []]
    for _ in range(_READINGS):
        for file, seconds in zip((big, small), reading, strict=True):
            started = time.perf_counter()
            bench.home.relay("check", str(file))
            seconds.append(time.perf_counter() - started)
    # Both start Python; only what one reads more is reading.
    read = big.stat().st_size - small.stat().st_size
    speed = read / (min(reading[0]) - min(reading[1])) / 1e6
    tell("(check) slips and texts, in turn")
    files, pairs = bench.amounts.files // _PART_OF_FILES, _PAIRS_FOLD * bench.amounts.rounds
    uploads = upload_in_turn(bench.relay, files, pairs)
    added = 1000 * statistics.median(slip.cpu_seconds - text.cpu_seconds for slip, text in uploads)
    what = "a slip of 10 KB costs the server more CPU than the same bytes as a text"
    return [
        Figure("check", "relay check reads", "MB/s", speed),
        Figure("check", what, "ms", added, target=_TARGET_MS),
    ], 0.0


def _make_results(home: RelayHome, folder: Path, persons: int) -> Path:
    home.relay("standard", "make", "UPJSK", "--persons", str(persons), "--out", str(folder))
    return next(folder.iterdir())
