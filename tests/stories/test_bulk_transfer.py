"""`scripts/bulk_transfer.py`: whole folders there and back, refused files told, and killed at any moment."""

from __future__ import annotations

import fcntl
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
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
    run_program,
    wait_for,
)
from keyboard import Terminal

from relay.ledger.storefile import open_reader

SCRIPTS = Path(__file__).parents[2] / "scripts"
# For getting any further, not for all of it.
PATIENCE_SECONDS = 300


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """Return a relay, serving, with an identity folder for two offices."""
    return with_identities(make_house())


def with_identities(house: House) -> House:
    """Start *house* and give two offices a folder such as `scripts/enroll` makes."""
    house.start()
    for office in (CARE_MANAGER, HOME_HELP):
        folder = house.path / "identities" / office
        folder.mkdir(parents=True)
        held = house.certificate(office)
        shutil.copy(held.key, folder / "id_relay")
        shutil.copy(held.certificate, folder / "id_relay-cert.pub")
        (folder / "config").write_text(
            f"Host careplan-relay\n  HostName {HOST}\n  Port {house.port}\n  User {office}\n"
            f"  IdentityFile {folder}/id_relay\n  CertificateFile {folder}/id_relay-cert.pub\n"
            f"  UserKnownHostsFile {house.known_hosts}\n"
        )
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
    assert (again.returncode, again.stdout) == (0, "nothing to do\n")


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


@dataclass
class Killer:
    """Runs the script again and again until it ends by itself, each time killed when it is so much further.

    Every third time it is the relay that is killed, and started again, while the script goes on.  There is no deadline
    for the whole: there is one for getting any further.
    """

    house: House
    chance: random.Random
    far: int
    kills: int

    def run(self, words: list[str], progress: Callable[[], int]) -> None:
        """Run *words* to a good end, with so many kills on the way."""
        for kill in range(self.kills):
            goal = progress() + self.chance.randrange(self.far)
            with started(words) as process:
                if self._wait(process, lambda goal=goal: progress() >= goal, progress) is not None:
                    # It was done before; or the relay was away for longer than it is patient.
                    continue
                if kill % 3 == 2:
                    self.house.kill()
                    self.house.start(port=self.house.port)
                else:
                    process.kill()
                    process.wait(PATIENCE_SECONDS)
        for _ in range(3):
            with started(words) as process:
                code = self._wait(process, lambda: False, progress)
            if code == 0:
                return
        raise AssertionError(f"it ends with {code}, three times")

    @staticmethod
    def _wait(
        process: subprocess.Popen[bytes], is_far_enough: Callable[[], bool], progress: Callable[[], int]
    ) -> int | None:
        """Wait until the script is far enough, or has ended; return its code then."""
        best, deadline = progress(), time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and not is_far_enough():
            if (now := progress()) > best:
                best, deadline = now, time.monotonic() + PATIENCE_SECONDS
            assert time.monotonic() < deadline, f"no further than {best} for {PATIENCE_SECONDS} s"
            time.sleep(0.02)
        return process.poll()


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for a block, with nothing to say; it is gone afterwards."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with process:
        try:
            yield process
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()


def count_transfers(house: House, where: str) -> int:
    """Return how many transfers there are; in a store of many without opening their names."""
    with closing(open_reader(house.config.store.path)) as reader:
        return int(reader.execute(f"SELECT count(*) FROM transfer WHERE {where}").fetchone()[0])


@pytest.mark.parametrize(
    ("count", "far", "kills"),
    [
        pytest.param(120, 40, 4, id="a few"),
        pytest.param(10_000, 1_500, 12, id="ten thousand", marks=[pytest.mark.long, pytest.mark.timeout(7_200)]),
    ],
)
def test_killed_at_random_each_file_arrives_exactly_once(
    house: House, tmp_path: Path, *, count: int, far: int, kills: int
) -> None:
    """Sender, fetcher and relay are killed again and again: nothing is missing, nothing is there twice."""
    out, inbox = tmp_path / "out", tmp_path / "in"
    made = fill(out, count)
    killer = Killer(house, random.Random(count), far, kills)
    (out / "sent").mkdir()
    killer.run(
        command(house, CARE_MANAGER, "send", out),
        lambda: count_transfers(house, "1") + len(list((out / "sent").iterdir())),
    )
    assert names(out) == set()
    assert names(out / "sent") == set(made)
    assert count_transfers(house, "state = 'accepted'") == count_transfers(house, "1") == count
    inbox.mkdir()
    killer.run(
        command(house, HOME_HELP, "fetch", inbox),
        lambda: len(names(inbox)) + count_transfers(house, "shelf = 'done'"),
    )
    assert names(inbox) == set(made)
    assert all((inbox / name).read_bytes() == content for name, content in made.items())
    assert count_transfers(house, "state = 'collected' AND shelf = 'done'") == count
    assert len({line["name"] for line in journal_of(inbox)}) == len(journal_of(inbox)) == count


def journal_of(folder: Path) -> list[dict[str, str]]:
    """Return what the program's journal says was fetched; the end of a line may have been cut off."""
    lines = []
    for text in (folder / ".bulk_transfer.journal").read_text().splitlines():
        with suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if line["what"] == "fetched"]


def test_a_large_file_that_was_changed_is_not_mixed_with_what_is_there(house: House, tmp_path: Path) -> None:
    """Only the very same bytes go on where an earlier run was ended; others begin anew."""
    out = tmp_path / "out"
    out.mkdir()
    name = general_name(number=600)
    (out / name).write_bytes(pdf(40_000_000))
    with started(command(house, CARE_MANAGER, "send", out)) as process:
        wait_for(lambda: count_rows(house, "partial") or count_rows(house, "chunk"), "the upload's first bytes")
        process.kill()
    (out / name).write_bytes(changed := pdf(39_000_000).replace(b"%PDF-1.7", b"%PDF-1.4"))
    sent = bulk(house, CARE_MANAGER, "send", out)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    (transfer,) = house.transfers()
    assert transfer.sha256 == sha256(changed).digest()


def count_rows(house: House, table: str) -> int:
    """Return how many rows a table of the store has."""
    with closing(open_reader(house.config.store.path)) as reader:
        return int(reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_two_runs_in_one_folder_do_not_meet(house: House, tmp_path: Path) -> None:
    """The second one says so and ends with 3; nothing is sent twice, and the first one's files are its own."""
    out = tmp_path / "out"
    fill(out, 1)
    with (out / ".bulk_transfer.lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = bulk(house, CARE_MANAGER, "send", out)
    assert (second.returncode, "another run is at work" in second.stderr) == (3, True)
    assert names(out) == {plan_name(number=0)}
    assert bulk(house, CARE_MANAGER, "send", out).returncode == 0


def test_a_file_that_cannot_be_read_or_kept_stops_no_other(house: House, tmp_path: Path) -> None:
    """It is told by its own name with exit code 1, not as a relay that cannot be reached."""
    out, inbox = tmp_path / "out", tmp_path / "in"
    made = fill(out, 3)
    assert bulk(house, CARE_MANAGER, "send", out).returncode == 0
    inbox.mkdir()
    # Where its draft would be written there is a folder: a disk that does not take this one file.
    spoilt = plan_name(number=1)
    blocker = inbox / f".{sha256(spoilt.encode()).hexdigest()[:16]}.part"
    blocker.mkdir()
    fetched = bulk(house, HOME_HELP, "fetch", inbox)
    assert fetched.returncode == 1, fetched.stderr
    assert re.search(rf"failed +{re.escape(spoilt)}: .*[Dd]irectory", fetched.stdout), fetched.stdout
    assert names(inbox) == set(made) - {spoilt}
    blocker.rmdir()
    assert bulk(house, HOME_HELP, "fetch", inbox).returncode == 0
    assert names(inbox) == set(made)


def test_what_the_relay_has_no_room_for_stays_for_another_day(make_house: Callable[..., House], tmp_path: Path) -> None:
    """A full quota is no fault of the file: it is told and left where it is, and goes when there is room."""
    house = with_identities(make_house(limits={"upload_bytes": 8_000, "stored_bytes_per_office": 8_000}))
    out = tmp_path / "out"
    out.mkdir()
    for number in range(2):
        (out / general_name(number=number)).write_bytes(pdf(5_000))
    full = bulk(house, CARE_MANAGER, "send", out)
    assert (full.returncode, full.stdout.count("limit.quota")) == (1, 1), full.stdout
    assert len(names(out)) == len(names(out / "sent")) == 1
    assert not (out / "refused").exists()


def test_without_asyncssh_it_says_what_is_missing() -> None:
    """No traceback for who runs it with a bare Python."""
    bare = run_program([sys.executable, "-S", str(SCRIPTS / "bulk_transfer.py"), "send", "."])
    assert (bare.returncode, bare.stdout) == (2, "")
    assert bare.stderr.endswith("asyncssh is needed: python3 -m pip install asyncssh rich\n")


def test_an_office_that_is_let_in_no_more_is_told_so_at_once(house: House, tmp_path: Path) -> None:
    """Exit code 2 and a sentence, without trying again and again."""
    out = tmp_path / "out"
    fill(out, 1)
    assert house.relay("office", "suspend", CARE_MANAGER, "--yes").returncode == 0
    refused = bulk(house, CARE_MANAGER, "send", out)
    assert (refused.returncode, "does not let this office in" in refused.stderr) == (2, True), refused.stderr
    assert len(house.journal_lines("login.rejected")) == 1
    assert names(out) == {plan_name(number=0)}


def test_a_first_file_to_an_office_goes_where_the_relay_lists_partners_only(
    make_house: Callable[..., House], tmp_path: Path
) -> None:
    """Who is not in the list of offices is asked for by its folder, which also tells its name."""
    house = with_identities(make_house(tree={"offices_shown": "partners"}))
    out = tmp_path / "out"
    fill(out, 1)
    (out / general_name(number=8, recipient="0178503736")).write_bytes(pdf())
    shown = bulk(house, CARE_MANAGER, "send", out, "--dry-run")
    assert f"{HOME_HELP} みほん野ヘルパーステーション" in shown.stdout
    assert shown.stdout.count("takes no part") == 1
    assert bulk(house, CARE_MANAGER, "send", out).returncode == 1
    assert [transfer.recipient for transfer in house.transfers()] == [HOME_HELP]


def test_a_bar_on_a_terminal_and_lines_otherwise(house: House, tmp_path: Path) -> None:
    """Who looks sees how far it is; a file of output has one line a file and no cursor movements."""
    fill(tmp_path / "seen", 30)
    with Terminal(command(house, CARE_MANAGER, "send", tmp_path / "seen"), TERM="xterm") as terminal:
        shown = terminal.read_to_end()
    assert "sending" in shown
    assert "30/30" in shown
    (tmp_path / "lines").mkdir()
    for number in range(100, 103):
        (tmp_path / "lines" / plan_name(number=number)).write_bytes(plan_csv())
    piped = bulk(house, CARE_MANAGER, "send", tmp_path / "lines")
    assert [line.split()[0] for line in piped.stdout.splitlines()[:-1]] == ["sent"] * 3
    assert piped.stdout.endswith("\n3 sent\n")
    assert (piped.stderr, "\x1b" in piped.stdout) == ("", False)


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
