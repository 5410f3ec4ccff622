"""The script that needs `sh` and OpenSSH alone: everything sent and fetched once, whatever happens to it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from house import (
    CARE_MANAGER,
    DAY_CARE,
    HOME_HELP,
    HOST,
    UNREGISTERED,
    Completed,
    House,
    general_name,
    pdf,
    plan_csv,
    plan_name,
    run_program,
)
from programs import need

from relay.lifecycle import State
from relay.model import OfficeNumber

SCRIPTS = Path(__file__).parents[2] / "scripts"
SCRIPT = SCRIPTS / "sync-openssh.sh"
KILLS = 5


@pytest.fixture(autouse=True)
def _openssh() -> None:
    need("sftp")


class Desk:
    """One office's computer: the configuration that `enroll` writes, and a folder."""

    def __init__(self, house: House, folder: Path, office: OfficeNumber = CARE_MANAGER) -> None:
        self.house, self.folder, self.office = house, folder, office
        self.config = folder.with_name(f"{folder.name}.config")
        self.shell = ["sh"]
        (folder / "outbox").mkdir(parents=True)

    @property
    def command(self) -> list[str]:
        """The script's command line; the configuration is written anew, since a restarted relay has another port."""
        loader = SourceFileLoader("enroll", str(SCRIPTS / "enroll"))
        spec = importlib.util.spec_from_loader("enroll", loader)
        assert spec is not None
        enroll = importlib.util.module_from_spec(spec)
        loader.exec_module(enroll)
        held, known = self.house.certificate(self.office), self.house.known_hosts
        self.config.write_text(enroll.render_config(HOST, self.house.port, self.office, held.key, known))
        return [*self.shell, str(SCRIPT), "-F", str(self.config), str(self.folder)]

    def sync(self) -> Completed:
        """Run the script to its end."""
        return run_program(self.command)

    def put(self, name: str, data: bytes) -> None:
        """Put a file into outbox/."""
        file = self.folder / "outbox" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)

    def names(self, box: str) -> list[str]:
        """Return the files in a folder, with that of an office before the name."""
        return sorted(str(f.relative_to(self.folder / box)) for f in (self.folder / box).rglob("*") if f.is_file())


@pytest.fixture
def desk(house: House, tmp_path: Path) -> Desk:
    """Return a care manager's computer, in a folder whose name is no easy one."""
    return Desk(house, tmp_path / "介護 files [1]")


# A broken file, a recipient that is nowhere, another sender, and one that nobody can read in its name alone.
REFUSED = {
    plan_name(number=90): (plan_csv()[:-40], "content.truncated"),
    plan_name(recipient=UNREGISTERED, number=91): (plan_csv(), "route.recipient_unknown"),
    plan_name(sender=DAY_CARE, number=92): (plan_csv(), "name.sender_mismatch"),
    "提供票.pdf": (pdf(), "name.malformed"),
}
FREE = ("提供票 7月分.pdf", "a [1] 'b'.pdf", "-r.pdf", "計画書（案）.pdf", "100% & $HOME.pdf", "x" * 200 + ".pdf")


def fill(desk: Desk) -> dict[str, bytes]:
    """Put forty files into outbox/; return what is to be accepted of them."""
    good = {plan_name(number=n): plan_csv(4_000 + n) for n in range(26)}
    good |= {general_name(number=n): pdf(5_000 + n) for n in range(3)}
    # As long as what sftp writes at once: it looks as if it were cut off, the first time.
    good[general_name("txt", number=99)] = b"x" * 261_120
    good |= {f"{HOME_HELP}/{name}": pdf(6_000 + at) for at, name in enumerate(FREE)}
    everything = [*good.items(), *((name, data) for name, (data, _) in REFUSED.items())]
    assert len(everything) == 40
    for name, data in everything:
        desk.put(name, data)
    return good


def send_back(desk: Desk, count: int) -> dict[str, bytes]:
    """Let the other office send so many files to *desk*'s office, and three more; return them under the names that arrive."""
    office = Desk(desk.house, desk.folder.with_name("partner"), HOME_HELP)
    files = {
        general_name(sender=HOME_HELP, recipient=desk.office, number=n): pdf(7_000 + 997 * n) for n in range(count)
    }
    files |= {f"{desk.office}/{name}": pdf(600_000 + at) for at, name in enumerate(FREE[:3])}
    for name, data in files.items():
        office.put(name, data)
    done = office.sync()
    assert done.returncode == 0, done.stdout + done.stderr
    by_digest = {hashlib.sha256(data).digest(): data for data in files.values()}
    came = [t for t in desk.house.transfers() if t.recipient == desk.office]
    assert len(came) == len(files)
    return {t.delivered_name: by_digest[t.sha256] for t in came}


def assert_sent(desk: Desk, good: dict[str, bytes]) -> None:
    """What was to be sent is with the relay once, in sent/ here, and nothing is left."""
    assert desk.names("outbox") == []
    assert desk.names("sent") == sorted(good)
    assert all((desk.folder / "sent" / name).read_bytes() == data for name, data in good.items())
    held = [t for t in desk.house.transfers() if t.sender == desk.office]
    assert sorted((t.name, t.sha256) for t in held) == sorted(
        (Path(name).name, hashlib.sha256(data).digest()) for name, data in good.items()
    )
    for name, (data, code) in REFUSED.items():
        assert (desk.folder / "refused" / name).read_bytes() == data
        assert code in (desk.folder / "refused" / f"{name}.reason.txt").read_text(encoding="utf-8")


def assert_cleared(desk: Desk) -> None:
    """Everything that came is in done/ at the relay, and read to its end."""
    came = [t for t in desk.house.transfers() if t.recipient == desk.office]
    assert {(t.state, t.is_removed) for t in came} == {(State.COLLECTED, True)}


def test_everything_goes_and_comes_once(desk: Desk) -> None:
    """Forty files, four of them refused, and some that arrive: all is where it belongs; a second run does nothing."""
    good = fill(desk)
    coming = send_back(desk, 5)
    done = desk.sync()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sent 36, refused 4, fetched 8, left 0" in done.stdout, done.stderr
    assert_sent(desk, good)
    assert {name: (desk.folder / "inbox" / name).read_bytes() for name in desk.names("inbox")} == coming
    assert_cleared(desk)
    again = desk.sync()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "sent 0, refused 0, fetched 0, left 0" in again.stdout
    assert [file.name for file in (desk.folder / ".careplan-relay").iterdir() if file.name.startswith("run")] == []


@pytest.mark.parametrize("shell", ["bash --posix", "busybox sh"])
def test_other_shells_do_as_well(desk: Desk, shell: str) -> None:
    """One file goes, one is refused, some come, with the shells of a Mac and of a small box."""
    desk.shell = shell.split()
    need(desk.shell[0])
    free = f"{HOME_HELP}/{FREE[0]}"
    desk.put(free, pdf())
    desk.put("提供票.pdf", pdf())
    coming = send_back(desk, 1)
    done = desk.sync()
    assert "sent 1, refused 1, fetched 4, left 0" in done.stdout, done.stdout + done.stderr
    assert desk.names("sent") == [free]
    assert {name: (desk.folder / "inbox" / name).read_bytes() for name in desk.names("inbox")} == coming


@pytest.fixture
def group(desk: Desk) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Return a list of runs, of which nothing outlives the test."""
    runs: list[subprocess.Popen[bytes]] = []
    yield runs
    for run in runs:
        kill_group(run)


def kill_group(run: subprocess.Popen[bytes]) -> None:
    """End a run and what it has started, where anything of them is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)


def test_killed_at_any_moment_nothing_goes_or_comes_twice(desk: Desk, group: list[subprocess.Popen[bytes]]) -> None:
    """Killed five times, alone or with its sftp, while another program takes away what arrives: each file once."""
    good = fill(desk)
    coming = send_back(desk, 20)
    taken: Counter[str] = Counter()
    for kill in range(KILLS):
        ahead = len(desk.house.journal_lines()) + random.randint(1, 60)
        run = subprocess.Popen(
            desk.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        group.append(run)
        desk.house.wait_for(
            lambda run=run, ahead=ahead: run.poll() is not None or len(desk.house.journal_lines()) >= ahead,
            "the moment to kill it",
        )
        if kill % 2:
            kill_group(run)
        else:
            run.kill()
        run.wait()
        take(desk, coming, taken)
    last = [desk.sync() for _ in range(2)]
    assert last[1].returncode == 0, [one.stdout + one.stderr for one in last]
    take(desk, coming, taken)
    assert taken == Counter(list(coming))
    assert_sent(desk, good)
    assert_cleared(desk)


def take(desk: Desk, coming: dict[str, bytes], taken: Counter[str]) -> None:
    """Do what care software does with inbox/: read a file, and remove it."""
    for name in desk.names("inbox"):
        file = desk.folder / "inbox" / name
        assert file.read_bytes() == coming[name]
        file.unlink()
        taken[name] += 1


def test_a_file_that_was_taken_back_is_sent_again(desk: Desk) -> None:
    """That the relay once held these bytes under this name is no reason to believe that it holds them."""
    name = plan_name()
    desk.put(name, plan_csv())
    assert desk.sync().returncode == 0
    desk.house.sftp(CARE_MANAGER, f"rename send/{name} recall/{name}")
    desk.put(name, plan_csv())
    assert desk.sync().returncode == 0
    assert sorted(t.state for t in desk.house.transfers()) == [State.ACCEPTED, State.RECALLED]


def test_an_old_refusal_says_nothing_of_a_new_try(desk: Desk) -> None:
    """A file that was refused, mended, and then met a relay that is away stays in outbox/ until it is there again."""
    name = plan_name()
    desk.put(name, b"")
    assert desk.sync().returncode == 1
    (desk.folder / "refused" / name).unlink()
    desk.put(name, plan_csv())
    desk.house.stop()
    done = run_program([*desk.shell, str(SCRIPT), "-F", str(desk.config), str(desk.folder)])
    assert done.returncode == 3, done.stdout + done.stderr
    assert "サーバーと通信できません" in done.stderr
    assert desk.names("outbox") == [name]
    desk.house.start()
    assert desk.sync().returncode == 0
    assert desk.names("sent") == [name]


def test_nothing_that_exists_is_overwritten(desk: Desk) -> None:
    """A file in inbox/ or sent/ that has the name of a new one stays, and the new one comes beside it."""
    coming = send_back(desk, 1)
    (desk.folder / "inbox").mkdir()
    for name in coming:
        (desk.folder / "inbox" / name).write_bytes(b"mine")
    assert desk.sync().returncode == 0
    inbox = {name: (desk.folder / "inbox" / name).read_bytes() for name in desk.names("inbox")}
    assert sum(data == b"mine" for data in inbox.values()) == len(coming)
    assert sorted(data for data in inbox.values() if data != b"mine") == sorted(coming.values())


def test_one_run_at_a_time(desk: Desk) -> None:
    """While a run is at work another one does nothing; that a dead one has left its mark stops nobody."""
    state = desk.folder / ".careplan-relay"
    state.mkdir()
    sleeper = subprocess.Popen(["sh", "-c", "read line", SCRIPT.name], stdin=subprocess.PIPE)
    (state / "lock").symlink_to(str(sleeper.pid))
    try:
        assert desk.sync().returncode == 3
    finally:
        sleeper.kill()
        sleeper.communicate()
    assert desk.sync().returncode == 0
    # Another program has its number now.
    (state / "lock").symlink_to(str(os.getpid()))
    assert desk.sync().returncode == 0


def test_wrong_usage_is_told() -> None:
    """Without a folder it shows how to call it."""
    done = run_program(["sh", str(SCRIPT)])
    assert done.returncode == 2
    assert "sync-openssh.sh [-F CONFIG]" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    """It is POSIX sh, and clean."""
    done = run_program(["shellcheck", "--shell=sh", "--severity=warning", str(SCRIPT)])
    assert done.returncode == 0, done.stdout
