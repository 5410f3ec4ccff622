"""Run the targets of `fuzzing`, each in a process of its own, and tell what was executed, reached and found."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CORPUS = CHECKOUT / "tests" / "corpus"
WORK = CHECKOUT / "build" / "fuzz"
SHARES = {"wire": 4, "naming": 4, "content": 2, "path": 1, "certificate": 1}
# What runs only where it is asked for: a fault on purpose.
DRILL = "drill"
# Beyond its time an engine reads its corpus and writes its report.
PATIENCE_SECONDS = 300
_BLIND = "fuzzing, not guided by anything: the corpus, then random changes of it"
_MISSING = "  because atheris is not here, and pip found none for this machine: pip install atheris"
# What libFuzzer says of each module and of each new input.
_NOISE = re.compile(r"^(INFO: Instrumenting|#\d+\s+(?!INITED|DONE)).*\n", re.MULTILINE)
_STATE = re.compile(r"^#\d+\s+(INITED|DONE|NEW|REDUCE|pulse|RELOAD)\s+cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_EXECUTED = re.compile(r"number_of_executed_units: (\d+)")


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of one target came to; *log* is what its engine said."""

    target: str
    line: str
    findings: tuple[Path, ...]
    is_failed: bool
    log: str


def main() -> int:
    """Fuzz, replay or minimise as the arguments say; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="./scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="in all, shared by the targets")
    parser.add_argument("--target", choices=[*SHARES, DRILL], help="only this one")
    parser.add_argument("--engine", choices=["atheris", "random"], help="by default atheris where it is installed")
    parser.add_argument("--work", type=Path, default=WORK, help="where new inputs and findings are kept")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input, or the files of a folder, once")
    parser.add_argument("--minimise", action="store_true", help="renew tests/corpus from it and from --work")
    wanted = parser.parse_args()
    targets = [wanted.target] if wanted.target else list(SHARES)
    if wanted.replay:
        if not wanted.target:
            parser.error("--replay needs --target")
        return _start("replay", wanted.target, WORK, ["--inputs", str(wanted.replay)]).returncode and 1
    if wanted.minimise:
        return max(_minimise(target, wanted.work) for target in targets)
    return _fuzz(targets, wanted.seconds, wanted.engine, wanted.work)


def _fuzz(targets: Sequence[str], seconds: int, engine: str | None, work: Path) -> int:
    has_atheris = importlib.util.find_spec("atheris") is not None
    engine = engine or ("atheris" if has_atheris else "random")
    whole = sum(SHARES.get(target, 1) for target in targets)
    reports = [_run(target, max(1, seconds * SHARES.get(target, 1) // whole), engine, work) for target in targets]
    lines = ["fuzzing, guided by coverage (atheris)" if engine == "atheris" else _BLIND]
    if not has_atheris:
        lines.append(_MISSING)
    for report in reports:
        lines.append(f"  {report.target:<12} {report.line}")
        for finding in report.findings:
            replay = shlex.join(["./scripts/fuzz", "--replay", str(finding), "--target", report.target])
            lines.append(f"  {'':<12} again: {replay}")
        if report.is_failed:
            lines.append(_NOISE.sub("", report.log)[-4000:])
    # At once, because CI runs this beside the tests.
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(report.is_failed for report in reports))


def _run(target: str, seconds: int, engine: str, work: Path) -> Report:
    place = work / target
    for folder in ("corpus", "findings"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    before = set((place / "findings").iterdir())
    inputs = [str(CORPUS / target)] if (CORPUS / target).is_dir() else []
    done = _start(engine, target, place, ["--seconds", str(seconds), "--inputs", *inputs], seconds)
    found = tuple(sorted(set((place / "findings").iterdir()) - before))
    log = done.stdout + done.stderr
    is_failed = done.returncode != 0 or bool(found)
    count, reached = _read_atheris(log) if engine == "atheris" else _read_random(done.stdout)
    what = f"{len(found)} FOUND" if found else "FAILED" if is_failed else "nothing found"
    return Report(target, f"{count:>10,} executions in {seconds} s, {reached}: {what}", found, is_failed, log)


def _read_atheris(log: str) -> tuple[int, str]:
    executed = _EXECUTED.search(log)
    states = _STATE.findall(log)
    if not states:
        return 0, "coverage unknown"
    (_, before, _, corpus_before), (_, after, features, corpus) = states[0], states[-1]
    told = f"{before} → {after} places reached ({features} features), corpus {corpus_before} → {corpus}"
    return int(executed[1]) if executed else 0, told


def _read_random(said: str) -> tuple[int, str]:
    lines = said.splitlines()
    return (json.loads(lines[-1])["executions"] if lines else 0), "not guided by coverage"


def _minimise(target: str, work: Path) -> int:
    draft = work / target / "minimised"
    kept, grown = CORPUS / target, work / target / "corpus"
    places = [str(place) for place in (kept, grown) if place.is_dir()]
    done = _start("minimise", target, draft, ["--inputs", *places])
    sys.stdout.write(f"{target}: {done.stdout}")
    if done.returncode == 0:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(draft, kept)
    return done.returncode and 1


def _start(
    what: str, target: str, work: Path, arguments: Sequence[str], seconds: int = 0
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzzing.engines", what, "--target", target, "--work", str(work), *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "scripts")},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds + PATIENCE_SECONDS,
    )
    if what in ("replay", "minimise"):
        sys.stderr.write(done.stderr)
    return done


if __name__ == "__main__":
    sys.exit(main())
