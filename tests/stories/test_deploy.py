"""What lies in scripts/deploy/ is understood by systemd, and the relay works as confined as it says there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterable
from ctypes.util import find_library
from pathlib import Path

import pytest
from house import CARE_MANAGER, HOME_HELP, House, plan_csv, plan_name, run_program

from relay.configfile import load_config

DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"
UNITS = ("relay.service", "relay-backup.service")
TESTS = Path(__file__).parents[1]
has_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read_unit(unit: str) -> dict[str, str]:
    """Return the directives of a unit; the values of one that comes twice, a line each."""
    directives: dict[str, str] = {}
    for line in (DEPLOY / unit).read_text(encoding="utf-8").splitlines():
        key, is_directive, value = line.partition("=")
        if is_directive and not line.startswith("#"):
            directives[key] = f"{directives[key]}\n{value}" if key in directives else value
    return directives


def verify(path: Path, folder: Path) -> str:
    """Return what systemd says of a unit whose program lies elsewhere."""
    copy = folder / path.name
    # A socket is verified together with its service.
    for unit in {path, *([DEPLOY / "relay.service"] if path.suffix == ".socket" else [])}:
        text = unit.read_text(encoding="utf-8").replace("/opt/relay/bin/relay", "/bin/true")
        (folder / unit.name).write_text(text, encoding="utf-8")
    done = run_program(["systemd-analyze", "verify", "--man=no", str(copy)])
    return f"{done.returncode} {done.stdout}{done.stderr}"


@has_systemd
@pytest.mark.parametrize(
    ("unit", "word"), [*((unit, "NoNewPrivileges") for unit in UNITS), ("relay.socket", "Backlog")]
)
def test_systemd_understands_every_directive(unit: str, word: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say; it would say so of a word that it does not know."""
    assert verify(DEPLOY / unit, tmp_path).strip() == "0"
    misspelt = tmp_path / "misspelt" / unit
    misspelt.parent.mkdir()
    misspelt.write_text((DEPLOY / unit).read_text(encoding="utf-8").replace(f"{word}=", f"{word}s="), encoding="utf-8")
    assert f"{word}s" in verify(misspelt, tmp_path)


@has_systemd
@pytest.mark.parametrize(("unit", "most"), [("relay.service", 1.1), ("relay-backup.service", 0.4)])
def test_the_exposure_is_as_the_readme_says(unit: str, most: float) -> None:
    """`systemd-analyze security` gives no worse a mark than the one in the README and in the unit."""
    done = run_program(["systemd-analyze", "security", "--offline=true", "--no-pager", str(DEPLOY / unit)])
    mark = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert mark is not None, done.stdout + done.stderr
    assert float(mark[1]) <= most
    assert f"says {most} " in (DEPLOY / unit).read_text(encoding="utf-8")


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_fits_the_settings(unit: str, prepared_home: Path) -> None:
    """It gives the time that draining takes and the files that connections take, and runs what the README installs."""
    service = read_unit(unit)
    config = load_config(prepared_home, {})
    assert int(service["TimeoutStopSec"]) > config.server.drain_seconds + 10
    assert int(service.get("LimitNOFILE", "65536")) >= config.limits.connections_total + 512
    assert service["ExecStart"].startswith("/opt/relay/bin/relay --home %S/relay ")
    readme = (DEPLOY.parents[1] / "README.md").read_text(encoding="utf-8")
    assert "python3 -m venv /opt/relay" in readme


def expand(names: Iterable[str], groups: dict[str, list[str]]) -> set[str]:
    """Return the system calls that *names* and groups of them (``@…``) stand for."""
    found: set[str] = set()
    for name in names:
        found |= expand(groups[name], groups) if name.startswith("@") else {name}
    return found


def allowed_calls(filters: str) -> set[str]:
    """Return what the lines of ``SystemCallFilter=`` leave, by the groups of this machine's systemd."""
    groups: dict[str, list[str]] = {}
    for line in run_program(["systemd-analyze", "syscall-filter", "--no-pager"]).stdout.splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            group.append(line.strip())
    allowed = expand(["@default"], groups)
    for line in filters.splitlines():
        if line.startswith("~"):
            # What is always allowed cannot be taken away by a group.
            allowed -= expand(line[1:].split(), groups) - expand(["@default"], groups)
        else:
            allowed |= expand(line.split(), groups)
    return allowed


@pytest.fixture
def confined(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return how to get the command under which a program is as confined as in a unit."""
    if find_library("seccomp") is None or shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze or libseccomp is not installed")

    def wrap(unit: str) -> list[str]:
        service = read_unit(unit)
        families = [int(getattr(socket, name)) for name in service["RestrictAddressFamilies"].split()]
        told = tmp_path / f"{unit}.json"
        calls = sorted(allowed_calls(service["SystemCallFilter"]))
        assert "ptrace" not in calls
        assert "connect" in calls
        if os.geteuid() == 0:
            # The unit's user leaves no file to anybody; root, as whom tests run, does so with the anchor.
            calls.append("chown")
        told.write_text(json.dumps({"calls": calls, "families": families}))
        return [sys.executable, str(TESTS / "confined.py"), str(told)]

    return wrap


def test_the_relay_works_as_confined_as_its_unit_says(
    make_house: Callable[..., House], confined: Callable[[str], list[str]]
) -> None:
    """With those system calls, families and rules for memory: login, upload, fetch, renewal of keys, backup, and a calm end."""
    house = make_house()
    house.start(wrap=tuple(confined("relay.service")))
    name = plan_name()
    (house.path / name).write_bytes(plan_csv())
    sent = house.sftp(CARE_MANAGER, f"put {name} send/\nget status/sent.json")
    assert sent.returncode == 0, sent.stderr
    fetched = house.sftp(HOME_HELP, f"get new/{name} fetched\nrm receive/{name}\nls -l receipts")
    assert fetched.returncode == 0, fetched.stderr
    assert (house.path / "fetched").read_bytes() == plan_csv()
    assert house.relay("key", "rotate", "--host-key", "all", "--yes").returncode == 0
    house.wait_for_event("keys.reloaded")
    backup = run_program(
        [*confined("relay-backup.service"), *house_command(house), "backup", str(house.path / "backup.db"), "--json"]
    )
    assert backup.returncode == 0, backup.stderr
    assert json.loads(backup.stdout)["transfers"] == 1
    assert house.stop() == 0


def house_command(house: House) -> list[str]:
    """Return the command of the relay of *house*."""
    return [str(Path(sys.executable).with_name("relay")), "--home", str(house.path)]


def test_what_is_not_in_the_unit_is_refused(confined: Callable[[str], list[str]]) -> None:
    """The confinement of the test above is one: another family, tracing, and memory that becomes code are refused."""
    tried = run_program([*confined("relay.service"), sys.executable, "-c", _TRY])
    assert tried.returncode == 0, tried.stderr
    assert json.loads(tried.stdout) == ["socket", "ptrace"]


_TRY = """
import ctypes, json, socket
refused = []
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
except PermissionError:
    refused.append("socket")
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(0, 0, 0, 0) and ctypes.get_errno() == 1:
    refused.append("ptrace")
print(json.dumps(refused))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files to somebody else")
def test_what_root_does_leaves_the_service_its_files(make_house: Callable[..., House]) -> None:
    """Commands typed by root, and a restore by root into an empty folder, leave nothing that the relay's user cannot open."""
    house = make_house()
    nobody = 65_534
    data = house.config.store.path.parent
    (data / "relay.db.lock").unlink(missing_ok=True)
    for path in (house.path, *house.path.rglob("*")):
        os.chown(path, nobody, nobody)
    backup = house.path / "backup.db"
    assert house.relay("backup", str(backup)).returncode == 0
    assert house.relay("office", "suspend", HOME_HELP, "--yes").returncode == 0
    assert {path.stat().st_uid for path in data.iterdir()} == {nobody}
    shutil.rmtree(data)
    restored = house.relay("restore", str(backup), "--yes")
    assert restored.returncode == 0, restored.stderr
    assert {path.stat().st_uid for path in (data, *data.iterdir())} == {nobody}
