"""`scripts/bulk_transfer.py`: whole folders there and back, refused files told, and killed at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import (
    CARE_MANAGER,
    HOME_HELP,
    HOST,
    Completed,
    House,
    general_name,
    pdf,
    plan_csv,
    plan_name,
    relay_command,
    run_program,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"
PATIENCE_SECONDS = 900


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """Return a relay, serving, with an identity folder for two offices as `scripts/enroll` makes it."""
    house = make_house()
    house.start()
    for office in (CARE_MANAGER, HOME_HELP):
        invited = run_program([*relay_command(house.path), "cert", "invite", office, "--json"])
        code = json.loads(invited.stdout)["code"]
        folder = house.path / "identities" / office
        enrolled = run_program(
            [sys.executable, str(SCRIPTS / "enroll"), f"{HOST}:{house.port}", code, "--folder", str(folder)]
        )
        assert enrolled.returncode == 0, enrolled.stderr
    return house


def command(house: House, office: str, do: str, folder: Path, *more: str) -> list[str]:
    """Return the command line of an office's script."""
    identity = str(house.path / "identities" / office)
    return [sys.executable, str(SCRIPTS / "bulk_transfer.py"), do, str(folder), "--identity", identity, *more]


def bulk(house: House, office: str, do: str, folder: Path, *more: str) -> Completed:
    """Run it to its end."""
    return run_program(command(house, office, do, folder, *more), timeout=PATIENCE_SECONDS)


def fill(folder: Path, count: int) -> dict[str, bytes]:
    """Put files into *folder*, each of another content."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {plan_name(number=number): plan_csv(400 + number) for number in range(count)}
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return made


def names(folder: Path) -> set[str]:
    """Return the files in a folder that are not the program's own."""
    return {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}


def test_a_folder_goes_and_comes(house: House, tmp_path: Path) -> None:
    """Small and large, named and free: sent, confirmed, moved; fetched, put away; a second run finds nothing to do."""
    out, inbox = tmp_path / "out", tmp_path / "in"
    made = fill(out, 12)
    large = pdf(3_000_000)
    (out / general_name(number=500)).write_bytes(large)
    (out / HOME_HELP).mkdir()
    (out / HOME_HELP / "提供票 七月.pdf").write_bytes(pdf())
    (out / "half.csv.part").write_bytes(b"still being written")
    sent = bulk(house, CARE_MANAGER, "send", out)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert names(out) == {"half.csv.part"}
    assert names(out / "sent") == {*made, general_name(number=500)}
    assert names(out / "sent" / HOME_HELP) == {"提供票 七月.pdf"}
    fetched = bulk(house, HOME_HELP, "fetch", inbox, "--json")
    assert fetched.returncode == 0, fetched.stderr
    lines = [json.loads(line) for line in fetched.stdout.splitlines()]
    assert lines[-1]["summary"] == {"fetched": 14}
    for name, content in made.items():
        assert (inbox / name).read_bytes() == content
    assert (inbox / general_name(number=500)).read_bytes() == large
    assert any(name.endswith("提供票 七月.pdf") for name in names(inbox))
    assert all(transfer.state == "collected" and transfer.is_removed for transfer in house.transfers())
    again = bulk(house, HOME_HELP, "fetch", inbox)
    assert (again.returncode, again.stdout) == (0, "")


def test_before_anything_is_sent_it_is_shown_to_whom(house: House, tmp_path: Path) -> None:
    """--dry-run names each recipient's office beside the file, and what would be refused; nothing moves."""
    out = tmp_path / "out"
    fill(out, 2)
    (out / "memo.pdf").write_bytes(pdf())
    shown = bulk(house, CARE_MANAGER, "send", out, "--dry-run")
    assert shown.returncode == 1
    assert shown.stdout.count(f"{HOME_HELP} みほん野ヘルパーステーション") == 2
    assert "no recipient" in shown.stdout
    assert names(out) == {plan_name(number=0), plan_name(number=1), "memo.pdf"}
    assert house.transfers() == []


def test_what_is_refused_is_told_with_its_reason(house: House, tmp_path: Path) -> None:
    """A broken file, an empty one, another sender, an unknown office: moved to refused/, the rest goes."""
    out = tmp_path / "out"
    made = fill(out, 3)
    broken = general_name(number=7)
    (out / broken).write_bytes(b"this is no PDF")
    (out / plan_name(number=50)).write_bytes(b"")
    (out / plan_name(sender=HOME_HELP, recipient=CARE_MANAGER, number=51)).write_bytes(plan_csv())
    (out / general_name(number=8, recipient="0178503736")).write_bytes(pdf())
    sent = bulk(house, CARE_MANAGER, "send", out)
    assert sent.returncode == 1
    assert names(out) == set()
    assert names(out / "sent") == set(made)
    reasons = {path.name: path.read_text("utf-8") for path in (out / "refused").glob("*.reason.txt")}
    assert len(reasons) == 4
    assert "content." in reasons[f"{broken}.reason.txt"]
    assert len(house.transfers()) == 3


def killed_runs(house: House, office: str, do: str, folder: Path, seed: int) -> Iterator[int]:
    """Run the script again and again, killed after a random number of its lines, until it ends by itself."""
    chance = random.Random(seed)
    for _ in range(12):
        lines = chance.randrange(0, 25)
        words = command(house, office, do, folder, "--json")
        with subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None
            for number, line in enumerate(process.stdout):
                if number >= lines and "summary" not in line:
                    process.send_signal(signal.SIGKILL)
                    break
            code = process.wait(PATIENCE_SECONDS)
        yield code
        if code >= 0:
            return


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(150, id="a few"),
        pytest.param(10_000, id="ten thousand", marks=[pytest.mark.long, pytest.mark.timeout(3_600)]),
    ],
)
def test_killed_at_random_each_file_arrives_exactly_once(house: House, tmp_path: Path, count: int) -> None:
    """Sender and fetcher are killed again and again: nothing is missing, nothing is there twice."""
    out, inbox = tmp_path / "out", tmp_path / "in"
    made = fill(out, count)
    list(killed_runs(house, CARE_MANAGER, "send", out, 1))
    last = bulk(house, CARE_MANAGER, "send", out)
    assert last.returncode == 0, last.stdout + last.stderr
    assert names(out / "sent") == set(made)
    assert len(house.transfers()) == count
    list(killed_runs(house, HOME_HELP, "fetch", inbox, 2))
    assert bulk(house, HOME_HELP, "fetch", inbox).returncode == 0
    assert names(inbox) == set(made)
    assert all((inbox / name).read_bytes() == content for name, content in made.items())
    assert all(transfer.state == "collected" and transfer.is_removed for transfer in house.transfers())


def test_it_watches_and_comes_back_after_the_relay_was_away(house: House, tmp_path: Path) -> None:
    """What appears is sent, also after the relay was stopped and started again; SIGTERM ends it in peace."""
    folder = tmp_path / "shop"
    (folder / "outbox").mkdir(parents=True)
    # The port is the same again only if it is said.
    port = house.port
    words = command(house, CARE_MANAGER, "watch", folder, "--every", "0.5")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        fill(folder / "outbox", 1)
        assert "sent" in process.stdout.readline()
        house.stop()
        assert "next try" in process.stderr.readline()
        house.start(port=port)
        (folder / "outbox" / plan_name(number=70)).write_bytes(plan_csv())
        assert plan_name(number=70) in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    assert names(folder / "outbox" / "sent") == {plan_name(number=0), plan_name(number=70)}


def test_a_relay_that_is_away_is_told_in_a_sentence(house: House, tmp_path: Path) -> None:
    """Exit code 3 and no traceback; the files stay where they are."""
    out = tmp_path / "out"
    made = fill(out, 1)
    house.stop()
    away = bulk(house, CARE_MANAGER, "send", out)
    assert away.returncode == 3
    assert "cannot be reached" in away.stderr
    assert "Traceback" not in away.stderr
    assert names(out) == set(made)
    house.start()
