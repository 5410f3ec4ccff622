"""README's first hour, followed by somebody who knows nothing else: its very lines, in empty folders, with bare environments.

What is not done is told here: the environments are not made anew (that takes the network), but those of the tests are
put in their places; and the port is any free one on this machine alone.
"""

from __future__ import annotations

import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from house import HOST, PATIENCE_SECONDS
from keyboard import Terminal

CHECKOUT = Path(__file__).parents[2]
_LEFT_OUT = re.compile(r"^(python3 -m venv|\S*pip install) .*$", re.MULTILINE)
# What a fresh clone does not have.
_NOT_CLONED = (".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", "build", ".hypothesis")
_CODE = re.compile(r"\b[0-9A-Z]{4}(?:-[0-9A-Z]{4}){12}\b")
_BOLD = re.compile(r"\x1b\[[0-9;]*m")


def read_steps() -> list[str]:
    """Return the blocks of commands of README's first hour, in their order."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    chapter = text.partition("\n## The first hour\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", chapter, re.DOTALL)


@dataclass(frozen=True)
class Person:
    """Somebody with a home folder of his own and nothing in the environment."""

    home: Path

    def __post_init__(self) -> None:
        """Make the home."""
        self.home.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """As a login gives it."""
        return {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

    def type(self, lines: str, answers: tuple[tuple[str, str], ...] = ()) -> tuple[int, str]:
        """Type *lines* into a shell that stops at the first fault, and answer what is asked; return how it ended."""
        script = self.home / ".typed"
        script.write_text(f"set -e\n{lines}\necho ended well\n", encoding="utf-8")
        command = ["env", "-i", *(f"{key}={value}" for key, value in self.environment.items()), "bash", str(script)]
        with Terminal(command, cwd=self.home) as terminal:
            for question, answer in answers:
                terminal.wait_for(question)
                terminal.type(answer + "\n")
            shown = terminal.read_to_end()
        return (0 if "ended well" in shown else 1), shown

    def carry(self, *scripts: str) -> None:
        """Take files of the clone along."""
        for script in scripts:
            shutil.copy(CHECKOUT / "scripts" / script, self.home)


@contextmanager
def serving(person: Person, folder: Path, line: str) -> Iterator[int]:
    """Run the block's last line, which serves, for a block; yield the port."""
    command = line.replace("--host 0.0.0.0", f"--host {HOST} --port 0").split()
    environment = {
        **person.environment,
        "PATH": f"{folder}/.venv/bin:/usr/local/bin:/usr/bin:/bin",
        "RELAY_HOME": str(person.home / "relay"),
    }
    journal = person.home / "journal.txt"
    with journal.open("wb") as errors, subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", start_new_session=True
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            readable, _, _ = select.select([server.stdout], [], [], PATIENCE_SECONDS)
            said = server.stdout.readline() if readable else ""
            assert said.startswith(f"listening on {HOST}:"), said + journal.read_text()
            yield int(said.rpartition(":")[2])
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE_SECONDS)


@pytest.mark.skipif(shutil.which("sftp") is None, reason="OpenSSH's sftp is not installed")
def test_whoever_follows_the_readme_lets_two_offices_exchange_files(tmp_path: Path) -> None:
    """From a clone to an answer in the first office's inbox, with nothing typed that README does not say."""
    steps = [_LEFT_OUT.sub("", step).strip() for step in read_steps()]
    assert len(steps) == 5
    operator, first, second = (Person(tmp_path / name) for name in ("operator", "first", "second"))
    clone = operator.home / "relay-source"
    shutil.copytree(CHECKOUT, clone, ignore=shutil.ignore_patterns(*_NOT_CLONED))
    (clone / ".venv").symlink_to(sys.prefix)
    *set_up, serve = steps[0].splitlines()
    assert serve.startswith("relay serve")
    code, shown = operator.type("\n".join([f"cd {clone}", *set_up]))
    assert code == 0, shown
    codes = _CODE.findall(_BOLD.sub("", shown))
    assert len(codes) == 2, shown
    with serving(operator, clone, serve) as port:

        def there(step: str) -> str:
            return step.replace("relay.example.jp:2222", f"{HOST}:{port}")

        first.carry("enroll", "bulk_transfer.py")
        code, shown = first.type(there(steps[1]), (("Invitation code: ", codes[0]),))
        assert code == 0, shown
        second.carry("enroll", "sync-openssh.sh")
        code, shown = second.type(there(steps[2]), (("Invitation code: ", codes[1]),))
        assert code == 0, shown
        assert "よろしくお願いします。" in shown
        (first.home / "env").symlink_to(sys.prefix)
        code, shown = first.type(steps[3])
        assert code == 0, shown
        assert "承知しました。" in shown
        # The doctor may well find something to look at on a machine that is nobody's server.
        code, shown = operator.type(f"cd {clone}\n" + steps[4].replace("relay doctor", "relay doctor || [ $? = 1 ]"))
        assert code == 0, shown
        for word in ("2 transfers", "Its recipient has it.", "0 broken"):
            assert word in shown, shown
    assert [path.read_text() for path in (first.home / "shop" / "inbox").glob("*_返事.txt")] == ["承知しました。\n"]


def test_the_rest_of_the_readme_names_what_there_is() -> None:
    """Each file of scripts/ that README speaks of is there, and each chapter that it sends readers to."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"`\.?/?(scripts/[\w./-]+)`", text):
        assert (CHECKOUT / path).exists(), path
    for chapter in ("How an office connects", "Limits"):
        assert f"\n## {chapter}\n" in text
