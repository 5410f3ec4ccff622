"""What makes the bytes: atheris, which follows what they reach, or, where there is none, chance alone.

Run as a program of its own for one target (``python -m fuzzing.engines``), because libFuzzer takes its process over
and because atheris has to be there before what it watches is imported.  It prints one JSON line at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

# One input that takes longer is a finding: a client must not be able to keep the event loop.
INPUT_SECONDS = 5
MEMORY_MIB = 1024
FOUND = 77
Run = Callable[[bytes], None]


def main() -> int:
    """Do what the arguments say for one target; 77 where something was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["atheris", "random", "replay", "minimise"])
    parser.add_argument("--target", required=True)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="where new inputs and findings are kept")
    parser.add_argument("--inputs", type=Path, nargs="*", default=[], help="files, or folders of them")
    wanted = parser.parse_args()
    is_guided = wanted.what == "atheris"
    with atheris.instrument_imports(include=["relay"]) if is_guided else contextlib.nullcontext():
        targets = importlib.import_module("fuzzing.targets")
    target = targets.DRILL if wanted.target == "drill" else targets.TARGETS[wanted.target]
    if is_guided:
        return _run_atheris(target, wanted.seconds, wanted.work, wanted.inputs)
    if wanted.what == "minimise":
        return minimise(target.run, wanted.work, wanted.inputs)
    inputs = list(read_inputs(wanted.inputs))
    if wanted.what == "random":
        inputs = [*inputs, *target.tokens]
        return _run_random(target.run, target.longest, wanted.seconds, wanted.work, inputs)
    return _replay(target.run, inputs)


def read_inputs(places: list[Path]) -> Iterator[bytes]:
    """Return what files hold, and the files in folders."""
    for place in places:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        yield from (file.read_bytes() for file in files)


def _run_atheris(target: Any, seconds: int, work: Path, inputs: list[Path]) -> int:
    """Let libFuzzer run; it says on stderr what it did, and ends the process."""
    words = work / "tokens"
    escaped = ("".join(f"\\x{byte:02x}" for byte in token) for token in target.tokens)
    words.write_text("".join(f'"{token}"\n' for token in escaped))
    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={work / 'findings'}/",
        "-use_value_profile=1",
        "-print_final_stats=1",
        # 0 draws one.  By hand every run tries other inputs; where a commit is judged, the same ones judge it again.
        f"-seed={int(bool(os.environ.get('CI')))}",
    ]
    if target.tokens:
        flags.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], *flags, str(work / "corpus"), *map(str, inputs)], target.run)
    atheris.Fuzz()
    return 0


def _replay(run: Run, inputs: list[bytes]) -> int:
    """Run each input once."""
    for data in inputs:
        if not _holds(run, data):
            return FOUND
    _tell(executions=len(inputs))
    return 0


def _run_random(run: Run, longest: int, seconds: int, work: Path, inputs: list[bytes]) -> int:
    """Run the corpus, then changed inputs of it for so long; nothing guides them."""
    chance, count = random.Random(1 if os.environ.get("CI") else None), 0  # noqa: S311 - no secret depends on it
    deadline = time.monotonic() + seconds
    for data in inputs:
        count += 1
        if not _holds(run, data):
            return _keep(data, work)
    while time.monotonic() < deadline:
        count += 1
        data = _mutate(chance, inputs)[:longest]
        if not _holds(run, data):
            return _keep(data, work)
    _tell(executions=count)
    return 0


def _mutate(chance: random.Random, inputs: list[bytes]) -> bytes:
    data = bytearray(chance.choice(inputs or [b""]))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randint(0, len(data))
        until = min(len(data), at + chance.choice((0, 1, 1, 2, 4, 16)))
        other = chance.choice(inputs or [b""])
        start = chance.randint(0, len(other))
        put = (b"", chance.randbytes(chance.randint(1, 4)), other[start : start + chance.randint(1, 32)])
        data[at:until] = chance.choice(put)
    return bytes(data)


def _holds(run: Run, data: bytes) -> bool:
    try:
        run(data)
    except Exception:  # noqa: BLE001 - whatever it is, it was found
        traceback.print_exc()
        return False
    return True


def _keep(data: bytes, work: Path) -> int:
    (work / "findings" / f"crash-{_name(data)}").write_bytes(data)
    return FOUND


def minimise(run: Run, into: Path, places: list[Path]) -> int:
    """Write into a folder the shortest inputs that together reach every line and jump that all of them reach.

    What was a finding once (``found-…``) stays in any case.
    """
    inputs = sorted(set(read_inputs(places)), key=lambda data: (len(data), data))
    reached: set[tuple[str, int, int]] = set()
    kept = []
    for data in inputs:
        arcs = _trace(run, data)
        if arcs - reached:
            reached |= arcs
            kept.append(data)
    into.mkdir(parents=True, exist_ok=True)
    for file in into.iterdir():
        file.unlink()
    for data in kept:
        (into / _name(data)).write_bytes(data)
    for file in (file for place in places for file in place.glob("found-*")):
        shutil.copy(file, into)
    _tell(executions=len(inputs), arcs=len(reached), kept=len(kept), bytes=sum(map(len, kept)))
    return 0


def _trace(run: Run, data: bytes) -> set[tuple[str, int, int]]:
    """Return the jumps from line to line that an input takes inside the relay."""
    arcs: set[tuple[str, int, int]] = set()
    last: dict[FrameType, int] = {}

    def step(frame: FrameType, event: str, _: object) -> Any:
        if "/relay/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            arcs.add((frame.f_code.co_filename, last.get(frame, 0), frame.f_lineno))
            last[frame] = frame.f_lineno
        elif event == "return":
            last.pop(frame, None)
        return step

    sys.settrace(step)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return arcs


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _tell(**facts: int) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    sys.exit(main())
