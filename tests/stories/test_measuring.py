"""The scripts that measure run, and what they say of a run holds together; no time is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# The scripts are no package that is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from house import CARE_MANAGER, HOME_HELP, HOST, House

from relay.lifecycle import State
from rig.load import Login, Task, prepared

CHECKOUT = Path(__file__).resolve().parents[2]


def run_script(name: str, *arguments: str) -> dict[str, object]:
    """Run a script of the rig to its end and return what it says as JSON."""
    command = [sys.executable, str(CHECKOUT / "scripts" / name), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


@pytest.mark.timeout(300)
def test_a_moment_of_the_busiest_hour_is_played_and_everybody_is_served(tmp_path: Path) -> None:
    """Offices of all 47 prefectures log in, poll, send and fetch; nobody is turned away, lost or answered wrongly."""
    told = run_script(
        "month_end.py", "--register", "0.001", "--fraction", "0.001", "--speed", "200", "--seconds", "2",
        "--workers", "2", "--folder", str(tmp_path),
    )  # fmt: skip
    assert told["prefectures"] == 47
    (step,) = told["steps"]  # type: ignore[misc]
    counts = step["counts"]
    assert not counts.keys() & {"failed", "turned away"}, counts
    assert counts["login"] > 0
    assert counts["poll"] > 0
    assert step["share"] == pytest.approx(0.2)
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="OpenSSH's server is not installed")
def test_the_bench_compares_and_says_where_and_when() -> None:
    """One workload, quickly: a line with ours, theirs, ratio, target and verdict, and the machine it was taken on."""
    told = run_script("bench.py", "--quick", "--only", "d")
    (figure,) = told["figures"]  # type: ignore[misc]
    assert figure["ours"] > 0
    assert figure["theirs"]["OpenSSH"] > 0
    assert figure["ratio"] == pytest.approx(figure["ours"] / figure["theirs"]["OpenSSH"])
    assert figure["verdict"] in ("met", "missed")
    machine = told["machine"]
    assert isinstance(machine, dict)
    assert machine["sync_seconds"] > 0
    assert str(told["command"]).startswith("./scripts/bench --quick --only d")


def test_recipients_in_the_bench_fetch_what_they_look_for(house: House) -> None:
    """What a steady pace leaves in the ``new/`` that it lists would make each listing longer than the one before."""
    sender, reader = (Login(office, str(house.certificate(office).key)) for office in (CARE_MANAGER, HOME_HELP))
    task = Task(
        "paced", HOST, house.port, None, (sender,), 0, 4,
        readers=(reader,), path="new", rate=40.0, seconds=0.5, look_every=1,
    )  # fmt: skip
    with prepared([task]) as load:
        outcome = load.go()
    assert outcome.done == len(outcome.spans["visible"]) > 0
    assert {transfer.state for transfer in house.transfers()} == {State.COLLECTED}
