"""The fuzzer's own floor: what it once found stays mended, and what it finds is kept and can be seen again."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

import pytest
from house import Completed, run_program

CHECKOUT = Path(__file__).resolve().parents[2]
CORPUS = CHECKOUT / "tests" / "corpus"
TARGETS = sorted(folder.name for folder in CORPUS.iterdir())
ENGINES = ["random", pytest.param("atheris", marks=pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (./scripts/fuzz does it)"))]  # fmt: skip


def fuzz(*arguments: str) -> Completed:
    """Run what ./scripts/fuzz runs."""
    return run_program([sys.executable, str(CHECKOUT / "scripts" / "fuzz.py"), *arguments])


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_is_in_the_corpus_keeps_what_was_promised(target: str) -> None:
    """Every input that ever reached something new, findings included, is still parsed or refused in words."""
    done = fuzz("--replay", str(CORPUS / target), "--target", target)
    assert done.returncode == 0, done.stderr


def test_the_corpus_is_small_and_of_every_target() -> None:
    """A corpus that is replayed in every run stays a few short files; what is found by hand is minimised first."""
    assert TARGETS == ["certificate", "content", "naming", "path", "wire"]
    files = [file for target in TARGETS for file in (CORPUS / target).iterdir()]
    assert len(files) < 500
    assert max(file.stat().st_size for file in files) <= 1_500


@pytest.mark.parametrize("engine", ENGINES)
def test_a_finding_fails_is_kept_and_comes_with_the_command_that_shows_it_again(engine: str, tmp_path: Path) -> None:
    """A fault on purpose is found by either engine; what is printed below it finds it once more."""
    done = fuzz("--target", "drill", "--engine", engine, "--seconds", "20", "--work", str(tmp_path))
    assert done.returncode == 1
    assert "1 FOUND" in done.stdout
    assert "AssertionError: found, as it should be" in done.stdout
    command = next(line.partition("again: ")[2] for line in done.stdout.splitlines() if "again: " in line)
    program, *arguments = shlex.split(command)
    assert program == "./scripts/fuzz"
    again = fuzz(*arguments)
    assert again.returncode == 1
    assert "found, as it should be" in again.stderr


def test_nothing_found_says_how_much_was_tried(tmp_path: Path) -> None:
    """The report of a target without a finding holds its executions, and whether coverage guided them."""
    done = fuzz("--target", "path", "--engine", "random", "--seconds", "1", "--work", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "not guided by" in done.stdout
    assert "nothing found" in done.stdout
    assert "         0 executions" not in done.stdout
