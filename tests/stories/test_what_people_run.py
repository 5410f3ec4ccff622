"""The scripts that the README names do what it says of them."""

import re
import shutil
import subprocess
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = ("check", "test", "demo", "bench", "month-end", "soak")


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    command = [str(CHECKOUT / "scripts" / "demo"), "--once", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("sftp") is None, reason="OpenSSH's sftp is not installed")
def test_demo_keeps_what_it_promises_and_can_be_played_again(tmp_path: Path) -> None:
    """A month at the relay goes as told, twice in the same folder."""
    home = tmp_path / "a folder with blanks"
    for _ in range(2):
        played = run_demo("--home", str(home))
        assert played.returncode == 0, played.stdout + played.stderr
        assert "recipient office 0178503736 is not registered here" in played.stdout
        assert "content.truncated: " in played.stdout
        assert "content.unrelated_person: " in played.stdout
        assert "incomplete" in played.stdout
        assert "collected" in played.stdout


def test_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    """What lies in a folder of somebody else is still there after the demo was pointed at it."""
    (tmp_path / "thesis.txt").write_text("years of work")
    played = run_demo("--home", str(tmp_path))
    assert played.returncode == 1
    assert "was not made by a demo" in played.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_in_its_head_how_to_use_it(script: str) -> None:
    """A script can be run, stops at the first fault, and tells its usage."""
    path = CHECKOUT / "scripts" / script
    text = path.read_text()
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in text
    assert f"#   ./scripts/{script}" in text


def test_constraints_hold_the_version_of_everything_that_is_installed() -> None:
    """Every distribution that the relay or its tests need, at any remove, has one exact version."""
    lines = (CHECKOUT / "scripts" / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {_canonical(name): version for name, version in pinned.items()}
    installed = {_canonical(dist.name): dist.version for dist in distributions()}
    for name in _closure("careplan-relay", installed):
        assert pinned.get(name) == installed[name], name


def _closure(root: str, installed: dict[str, str]) -> set[str]:
    found = {root}
    waiting = [root]
    while waiting:
        asking = waiting.pop()
        for requirement in requires(asking) or []:
            name = _canonical(re.split(r"[^A-Za-z0-9._-]", requirement)[0])
            extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
            is_wanted = extra is None or (asking == root and extra[1] == "test")
            if is_wanted and name in installed and name not in found:
                found.add(name)
                waiting.append(name)
    return found - {root}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
