"""An operator's day at the command line: the real program, on a real store, in a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner

from relay.certificates import FOREVER, parse_certificate_line
from relay.cli import app
from relay.content import Gist
from relay.keyring import load_keyring
from relay.ledger import SealedChunk, SealedPayload, TransferDraft
from relay.ledger.sqlite import open_ledger
from relay.model import Certificate, EventKind, Identity, OfficeNumber
from relay.naming import NamingRules, parse_name
from relay.routing import resolve_route
from relay.unitparts import seal_part
from relay.vault import Sealer, Vault, new_key, new_uid

RELAY = Path(sys.executable).with_name("relay")
# For a vendor, or for a machine on which there is no relay.
APART = {("cert", "sign"), ("check",)}
CARE_MANAGER = OfficeNumber("0178515854")
HELPER = OfficeNumber("0178529384")
LETTERED = OfficeNumber("01A8516384")
STANDARD_NAME = f"UP1KYO_{CARE_MANAGER}_43_{HELPER}_11_20260622083604.CSV"
REGISTER = """\
office_number,name_ja,prefecture,service_types,status
0178515854,みほん野居宅介護支援事業所,北海道,43,active
0178529384,みほん野ヘルパーステーション,北海道,11,active
01A8516384,みほん野通所・訪問サービス,北海道,A2|A6,active
1318534539,医療法人みほん野会　見本クリニックと、とても長い名前の付いた訪問看護ステーション東京,東京都,16|66,active
0178536215,みほん野ケアサービス（休止中）,北海道,11,suspended
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> object:
        """What --json printed."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Operator:
    """Somebody at the keyboard of one relay."""

    home: Path

    def __call__(self, *arguments: str | Path, **environment: str) -> Outcome:
        """Type a command; nobody answers questions."""
        done = subprocess.run(
            [RELAY, *arguments],
            env={**self._environment, **environment},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    @property
    def _environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "COLUMNS", "LINES"))
        }
        return {**kept, "RELAY_HOME": str(self.home), "TZ": "Asia/Tokyo", "PYTHONWARNINGS": "error"}

    def look(self, width: int, *arguments: str, answer: str = "") -> tuple[int, list[str]]:
        """Type a command in a terminal of *width* columns, and *answer* when asked; return what it shows."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        environment = {**self._environment, "TERM": "xterm", "NO_COLOR": "1"}
        program = subprocess.Popen([RELAY, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, answer.encode())
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # Linux says EIO where the other side is gone
                break
        os.close(ours)
        return program.wait(timeout=30), strip_codes(shown.decode()).splitlines()


def strip_codes(text: str) -> str:
    """Take the bold and dim of a terminal away."""
    parts = text.split("\x1b[")
    return parts[0] + "".join(part[part.index("m") + 1 :] for part in parts[1:])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A relay with a register, made once."""
    home = tmp_path_factory.mktemp("relay") / "home"
    home.mkdir()
    operator = Operator(home)
    assert operator("init").code == 0
    (home / "offices.csv").write_text(REGISTER)
    assert operator("office", "import", "offices.csv").code == 0
    return home


@pytest.fixture
def operator(made: Path, tmp_path: Path) -> Operator:
    """An operator of a relay of one's own."""
    return Operator(shutil.copytree(made, tmp_path / "home"))


def relay_files(home: Path, *names: str) -> list[int]:
    """Put files through the store of *home* as intake would, from the care manager to the helper."""

    async def commit() -> list[int]:
        keyring = load_keyring(home / "keys")
        vault = Vault(keyring.master, keyring.index_key)
        start = datetime.now(UTC)
        known = Certificate("SHA256:x", 1, "test", "SHA256:y", (CARE_MANAGER,), start, FOREVER, start)
        identity = Identity(CARE_MANAGER, known.ca_fingerprint, known.serial, known.key_id, FOREVER)
        numbers = []
        async with await open_ledger(home / "data" / "relay.db", vault, keyring.audit_key) as ledger:
            await ledger.record_certificate(known, actor="test")
            sender, recipient = await ledger.find_office(CARE_MANAGER), await ledger.find_office(HELPER)
            assert sender is not None
            for name in names:
                now = datetime.now(UTC)
                address = parse_name(name, NamingRules(frozenset({"csv", "pdf"})), folder=HELPER)
                route = resolve_route(address, sender=sender, recipient=recipient, now=now)
                uid, key, content = new_uid(), new_key(), name.encode()
                payload = SealedPayload(
                    uid=uid,
                    wrapped_key=vault.wrap_key(key, uid, size_bytes=len(content), chunk_count=1),
                    size_bytes=len(content),
                    chunk_count=1,
                    sha256=sha256(content).digest(),
                    chunks=(SealedChunk(0, Sealer(key, uid).seal_chunk(0, content)),),
                    name_sealed=None if address.is_standard else Sealer(key, uid).seal_name(name),
                )
                part = seal_part(address, CARE_MANAGER, Gist(), vault, Sealer(key, uid))
                draft = TransferDraft(
                    route, identity, payload, in_folder=True, client_mtime=None, findings=(), part=part
                )
                numbers.append((await ledger.commit_transfer(draft, now=now)).transfer.id)
        return numbers

    return asyncio.run(commit())


def revealings(home: Path) -> list[str]:
    """The history's lines about names that were revealed."""

    async def read() -> list[str]:
        keyring = load_keyring(home / "keys")
        async with await open_ledger(
            home / "data" / "relay.db", Vault(keyring.master, keyring.index_key), keyring.audit_key
        ) as ledger:
            events = await ledger.list_events()
        return [f"{event.actor}: {event.detail}" for event in events if event.kind is EventKind.NAMES_REVEALED]

    return asyncio.run(read())


# --- init


def test_init_twice_keeps_every_byte(operator: Operator) -> None:
    """A second init says what is there already and overwrites nothing."""
    (operator.home / "relay.toml").write_text("# mine\n")
    before = {file: file.read_bytes() for file in operator.home.rglob("*") if file.is_file()}
    again = operator("init")
    assert again.code == 0
    assert [line.split()[0] for line in again.out.splitlines()[:3]] == ["kept"] * 3
    assert {file: file.read_bytes() for file in operator.home.rglob("*") if file.is_file()} == before


def test_init_makes_no_new_keys_for_an_old_store(operator: Operator) -> None:
    """A store whose master key is gone needs the backup, not a key that opens nothing."""
    (operator.home / "keys" / "master.key").unlink()
    outcome = operator("init")
    assert outcome.code == 1
    assert "put it back from your backup" in outcome.err
    assert not (operator.home / "keys" / "master.key").exists()


def test_home_may_be_said_before_the_command_behind_it_or_in_the_environment(operator: Operator) -> None:
    """All three name the same relay; the current folder is the default."""
    elsewhere = {"RELAY_HOME": "/nowhere"}
    shown = operator("office", "show", CARE_MANAGER)
    assert shown.code == 0
    assert operator("--home", operator.home, "office", "show", CARE_MANAGER, **elsewhere) == shown
    assert operator("office", "show", CARE_MANAGER, "--home", operator.home, **elsewhere) == shown
    assert operator("office", "show", CARE_MANAGER, RELAY_HOME=".") == shown


# --- what is wrong is said in words


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda home: shutil.rmtree(home / "keys"), "run `relay init`"),
        (lambda home: (home / "keys" / "user_ca").chmod(0o644), "chmod 600"),
        (lambda home: (home / "keys" / "master.key").write_text("x"), "master.key"),
        (lambda home: shutil.rmtree(home / "data"), "relay.db"),
        (lambda home: (home / "data" / "relay.db").write_text("x" * 5000), "relay.db"),
        (lambda home: (home / "relay.toml").write_text("[server]\nprot = 1\nport = 'x'\n"), "prot"),
        (lambda home: (home / "relay.toml").unlink(), "relay init"),
    ],
)
def test_a_broken_installation_is_told_in_words_by_every_command(
    operator: Operator, spoil: Callable[[Path], object], words: str
) -> None:
    """Exit code 1, what is wrong and what to do; never a traceback."""
    spoil(operator.home)
    for command in (["office", "list"], ["transfer", "list", "--json"], ["config", "check"]):
        outcome = operator(*command)
        assert outcome.code == 1, command
        assert words in outcome.err + outcome.out
        assert "Traceback" not in outcome.err
    checked = operator("config", "check", "--json")
    assert checked.code == 1
    assert isinstance(checked.data, dict)
    assert checked.data["ok"] is False


def test_config_check_and_show_tell_what_holds(operator: Operator) -> None:
    """All is in order, and a setting from the environment is marked as set."""
    assert operator("config", "check").code == 0
    shown = operator("config", "show", RELAY_SERVER__PORT="2022").out
    assert "server.port                         2022" in shown
    changed = [line.split()[0] for line in shown.splitlines() if line.endswith("set")]
    assert changed == ["server.port"]
    data = operator("config", "show", "--json", RELAY_SERVER__PORT="2022").data
    assert isinstance(data, dict)
    assert data["server"]["port"] == 2022


def test_a_command_that_is_not_understood_ends_with_2(operator: Operator) -> None:
    """Usage errors, and numbers that are none."""
    for command in (["frob"], ["office", "show"], ["office", "show", "178515854"], ["transfer", "show", "x"]):
        assert operator(*command).code == 2, command


# --- offices


def test_an_office_is_added_changed_suspended_and_resumed(operator: Operator) -> None:
    """The life of one entry of the register."""
    assert operator("office", "add", "0178512687", "--name", "デイサービス", "-s", "15", "-s", "a2").code == 0
    again = operator("office", "add", "0178512687", "--name", "x")
    assert (again.code, "registered already" in again.err) == (2, True)
    assert operator("office", "add", "0178512687", "--update", "--name", "デイサービスみほん野").code == 0
    assert operator("office", "suspend", "0178512687").code == 2
    assert operator("office", "suspend", "0178512687", "--yes").code == 0
    shown = operator("office", "show", "0178512687", "--json").data
    assert shown == {
        "office_number": "0178512687",
        "name_ja": "デイサービスみほん野",
        "prefecture": "北海道",
        "service_types": ["15", "A2"],
        "status": "suspended",
        "ends_at": None,
        "until_at": None,
        "successor": None,
        "former": [],
        "mail": None,
        "certificates": [],
    }
    assert operator("office", "resume", "0178512687").out.endswith("is active\n")


def test_a_number_with_a_doubtful_check_digit_is_taken_with_a_warning(operator: Operator) -> None:
    """One real number in a thousand breaks the rule."""
    outcome = operator("office", "add", "0178512688", "--name", "みほん")
    assert outcome.code == 0
    assert "check digit" in outcome.err


def test_suspending_asks_on_a_terminal(operator: Operator) -> None:
    """No is no, yes is yes."""
    code, shown = operator.look(80, "office", "suspend", HELPER, answer="n\n")
    assert code == 2
    assert "nothing was changed" in "".join(shown)
    code, shown = operator.look(80, "office", "suspend", HELPER, answer="y\n")
    assert code == 0
    assert "is suspended" in "".join(shown)


def test_an_import_changes_all_or_nothing(operator: Operator) -> None:
    """Every bad line is told at once, by file and line; what is good is counted."""
    bad = REGISTER.replace("0178529384", "178529384").replace("01A8516384", "01I8516384") + "0178515854,x,y,43,active\n"
    (operator.home / "bad.csv").write_text(bad)
    outcome = operator("office", "import", "bad.csv")
    assert outcome.code == 2
    assert [line.partition(": ")[0] for line in outcome.err.splitlines()[:-1]] == [
        "bad.csv:3",
        "bad.csv:4",
        "bad.csv:7",
    ]
    assert "leading 0 lost" in outcome.err
    assert "3 lines are wrong in bad.csv; nothing was changed" in outcome.err
    changed = (
        REGISTER.replace("みほん野ヘルパー", "みほん野新ヘルパー") + "2778507637,デイホームみほん野,大阪府,15,active\n"
    )
    (operator.home / "good.csv").write_bytes(changed.encode("cp932"))
    counts = operator("office", "import", "good.csv", "--json").data
    assert isinstance(counts, dict)
    assert [counts[name] for name in ("added", "updated", "unchanged", "suspended")] == [1, 1, 4, 0]


def test_an_import_leaves_offices_alone_that_the_file_lacks_unless_told(operator: Operator) -> None:
    """--suspend-missing asks, because a file that was cut off would lock everybody out."""
    (operator.home / "few.csv").write_text("\n".join(REGISTER.splitlines()[:3]))
    assert operator("office", "import", "few.csv").code == 0
    asked = operator("office", "import", "few.csv", "--suspend-missing")
    assert (asked.code, "2 of 4 active offices are not in the file" in asked.err) == (2, True)
    assert operator("office", "import", "few.csv", "--suspend-missing", "--yes").code == 0
    active = operator("office", "list", "--status", "active", "--json").data
    assert isinstance(active, list)
    assert [office["office_number"] for office in active] == [CARE_MANAGER, HELPER]


def test_lists_are_sorted_limited_and_counted(operator: Operator) -> None:
    """The note below says how many there are."""
    shown = operator("office", "list", "--sort", "prefecture", "--reverse", "-n", "2").out.splitlines()
    assert shown[2].startswith("1318534539")
    assert shown[-1] == "2 of 5 offices; --limit 0 shows all"
    assert operator("office", "list").out.splitlines()[-1] == "5 offices"
    assert operator("office", "list", "--prefecture", "沖縄県").out == "no offices\n"


# --- certificates


def make_key(folder: Path, kind: str = "ed25519") -> Path:
    """A key pair as an office would make it."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "ケアソフト PC-3", "-f", folder / "id"]
    subprocess.run(command, check=True)
    return folder / "id.pub"


needs_openssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")


@needs_openssh
def test_a_certificate_is_written_beside_the_key_as_ssh_keygen_does(operator: Operator) -> None:
    """id.pub becomes id-cert.pub, is in the register, and is not overwritten by accident."""
    make_key(operator.home)
    issued = operator("cert", "issue", CARE_MANAGER, "--public-key", "id.pub", "--also", "01a8516384", "--valid", "30d")
    assert issued.code == 0, issued.err
    line = (operator.home / "id-cert.pub").read_text()
    offered = parse_certificate_line(line)
    assert offered.principals == (CARE_MANAGER, LETTERED)
    assert line.endswith(" ケアソフト PC-3\n")
    assert f"sftp -i id -P 2222 {CARE_MANAGER}@127.0.0.1" in issued.out
    assert "@cert-authority [127.0.0.1]:2222 ssh-ed25519 " in issued.out
    again = operator("cert", "issue", CARE_MANAGER, "--public-key", "id.pub")
    assert (again.code, "--force" in again.err) == (2, True)
    assert operator("cert", "issue", CARE_MANAGER, "--public-key", "id.pub", "--force").code == 0
    assert operator("cert", "issue", CARE_MANAGER, "--public-key", "id.pub", "--out", "b-cert.pub").code == 0
    listed = operator("cert", "list", "--office", LETTERED, "--json").data
    assert isinstance(listed, list)
    assert [(entry["serial"], entry["state"]) for entry in listed] == [(str(offered.serial), "valid")]
    assert operator("cert", "list", "--expiring", "31d", "--json").data == listed
    assert operator("cert", "list", "--expiring", "29d").out == "no certificates\n"


@needs_openssh
def test_without_a_public_key_a_pair_is_made(operator: Operator) -> None:
    """ECDSA P-256 in OpenSSH's format, its owner's alone, where the output says."""
    outcome = operator("cert", "issue", HELPER, "--label", "ヘルパー PC-1")
    private = operator.home / "issued" / HELPER
    assert f"private key  {private} " in outcome.out
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    shown = subprocess.run(["ssh-keygen", "-l", "-f", private], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("256 SHA256:")
    assert "(ECDSA)" in shown
    data = operator("cert", "show", private.with_name(f"{HELPER}-cert.pub"), "--json").data
    assert isinstance(data, dict)
    assert (data["label"], data["key_fingerprint"]) == ("ヘルパー PC-1", shown.split()[1])
    assert operator("cert", "issue", HELPER).code == 2


@needs_openssh
def test_a_key_that_would_not_open_the_door_is_not_certified(operator: Operator) -> None:
    """A private key, an unknown office, a broken span: exit code 2, and nothing in the register."""
    make_key(operator.home)
    for command, words in (
        ([CARE_MANAGER, "--public-key", "id"], "private key"),
        (["3178516104", "--public-key", "id.pub"], "not registered"),
        ([CARE_MANAGER, "--public-key", "id.pub", "--valid", "365"], "no span"),
        ([CARE_MANAGER, "--public-key", "offices.csv"], "public key"),
        ([CARE_MANAGER, "--public-key", "id.pub", "--also", "123"], "no office number"),
    ):
        outcome = operator("cert", "issue", *command)
        assert (outcome.code, words in outcome.err) == (2, True), outcome.err
    assert operator("cert", "list", "--json").data == []


def test_a_certificate_whose_file_cannot_be_written_is_revoked_again(operator: Operator) -> None:
    """The record comes first; what nobody holds is not left valid."""
    outcome = operator("cert", "issue", CARE_MANAGER, "--out", "/proc/nowhere/key")
    assert (outcome.code, "cannot be written" in outcome.err) == (1, True)
    listed = operator("cert", "list", "--json").data
    assert isinstance(listed, list)
    assert [entry["state"] for entry in listed] == ["revoked"]


def test_a_certificate_is_revoked_for_good(operator: Operator) -> None:
    """Revoking needs a yes, keeps the reason, and twice is no fault."""
    issued = operator("cert", "issue", CARE_MANAGER, "--json").data
    assert isinstance(issued, dict)
    serial = issued["serial"]
    assert operator("cert", "revoke", serial).code == 2
    assert operator("cert", "revoke", serial, "--yes", "--reason", "PC を紛失").code == 0
    shown = operator("cert", "show", serial, "--json").data
    assert isinstance(shown, dict)
    assert (shown["state"], shown["revoke_reason"]) == ("revoked", "PC を紛失")
    assert "already" in operator("cert", "revoke", serial, "--yes").out
    assert operator("cert", "revoke", "12345", "--yes").code == 2


# --- transfers


def test_free_names_are_hidden_until_somebody_reveals_them_and_is_written_down(operator: Operator) -> None:
    """The list shows *.pdf; --reveal shows the name and leaves an event that says who looked at which."""
    free, standard = relay_files(operator.home, "見本花子様 提供票.pdf", STANDARD_NAME)
    listed = operator("transfer", "list", "--json").data
    assert isinstance(listed, list)
    assert [(entry["number"], entry["name"]) for entry in listed] == [(standard, STANDARD_NAME), (free, "*.pdf")]
    assert "花子" not in operator("transfer", "list").out + operator("transfer", "show", str(free)).out
    assert revealings(operator.home) == []
    assert "見本花子様 提供票.pdf" in operator("transfer", "show", str(free), "--reveal").out
    assert "見本花子様 提供票.pdf" in operator("transfer", "list", "--reveal").out
    actors = revealings(operator.home)
    assert len(actors) == 2
    assert all(line.startswith("operator ") and line.endswith(f": {free}") for line in actors)


def test_transfers_are_found_by_sender_recipient_state_and_time(operator: Operator) -> None:
    """Filters, order and limit."""
    numbers = relay_files(operator.home, "a.pdf", "bb.pdf", "ccc.pdf")

    def found(*options: str) -> list[int]:
        data = operator("transfer", "list", "--json", *options).data
        assert isinstance(data, list)
        return [entry["number"] for entry in data]

    assert found("--from", CARE_MANAGER, "--to", HELPER, "--since", "1d") == numbers[::-1]
    assert found("--from", HELPER) == found("--state", "collected") == found("--since", "2999-01-01") == []
    assert found("--sort", "size", "-n", "1") == numbers[:1]
    assert found("--sort", "size", "--reverse") == numbers[::-1]
    assert operator("transfer", "list", "-n", "2").out.splitlines()[-1] == "the first 2 transfers; --limit 0 shows all"
    assert operator("transfer", "list", "-n", "3").out.splitlines()[-1] == "3 transfers"
    assert operator("transfer", "show", "999").code == 2


# --- explain


@pytest.mark.parametrize(
    ("name", "options", "code", "verdict", "reason"),
    [
        (STANDARD_NAME, [], 0, "accept", None),
        (STANDARD_NAME.replace("_11_", "_15_"), [], 0, "warn", "name.service_type"),
        (STANDARD_NAME, ["--as", HELPER], 2, "refuse", "name.sender_mismatch"),
        (STANDARD_NAME.replace(HELPER, "3178516104"), [], 2, "refuse", "route.recipient_unknown"),
        (STANDARD_NAME.replace(HELPER, "0178536215"), [], 2, "refuse", "route.recipient_suspended"),
        ("提供票.pdf", [], 2, "refuse", "name.malformed"),
        ("提供票.pdf", ["--folder", HELPER], 0, "accept", None),
        ("提供票.pdf", ["--folder", "3178516104"], 2, "refuse", "route.recipient_unknown"),
        (STANDARD_NAME, ["--folder", LETTERED], 2, "refuse", "route.folder_mismatch"),
        ("a\tb.pdf", ["--folder", HELPER], 2, "refuse", "name.illegal"),
        ("\udcff.pdf", ["--folder", HELPER], 2, "refuse", "name.illegal"),
    ],
)
def test_explain_says_what_would_happen_and_why(
    operator: Operator, *, name: str, options: Sequence[str], code: int, verdict: str, reason: str | None
) -> None:
    """The verdict, its code and its sentences in both languages; 0 for accepted, 2 for refused."""
    as_office = [] if "--as" in options else ["--as", CARE_MANAGER.lower()]
    outcome = operator("explain", name, *as_office, *options, "--json")
    assert outcome.code == code, outcome.err
    told = outcome.data
    assert isinstance(told, dict)
    assert (told["verdict"], told["code"]) == (verdict, reason)
    assert told["message_ja"]
    assert told["message_en"]
    if reason is None:
        assert (told["recipient"], told["kind"] in ("UP1KYO", "PDF")) == (HELPER, True)
    spoken = operator("explain", name, *as_office, *options)
    assert (spoken.code, verdict in spoken.out) == (code, True)


# --- serve


def test_serve_that_cannot_start_says_why(operator: Operator) -> None:
    """A port that is no port, and keys that are gone."""
    assert operator("serve", "--port", "70000").code == 2
    assert operator("serve", "--host", "a b").code == 1
    shutil.rmtree(operator.home / "keys")
    outcome = operator("serve", "--port", "0")
    assert (outcome.code, "relay init" in outcome.err) == (1, True)


def test_serve_says_where_it_listens_and_ends_when_asked(operator: Operator) -> None:
    """One line on stdout when it accepts connections; SIGTERM ends it with 0."""
    command = [RELAY, "serve", "--port", "0", "--home", operator.home]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        rest, journal = server.communicate(timeout=30)
    assert line.startswith("listening on 127.0.0.1:"), journal
    assert (server.returncode, rest) == (0, ""), journal


# --- how it looks


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal_a_row_a_line(operator: Operator, width: int) -> None:
    """Japanese names count two columns each; numbers, times and states are never cut."""
    numbers = relay_files(operator.home, "見本花子様 提供票.pdf", STANDARD_NAME)
    for _ in range(2):
        operator("cert", "issue", CARE_MANAGER, "--also", HELPER, "--label", "とても長い名前のパソコン" * 3, "--force")
    for command, rows in (
        (["office", "list"], 5),
        (["cert", "list"], 3),
        (["transfer", "list"], 2),
        (["transfer", "list", "--reveal"], 2),
        (["transfer", "units"], 1),
    ):
        code, shown = operator.look(width, *command)
        assert code == 0
        assert len(shown) == rows + 3, "\n".join(shown)
        assert max(map(cell_len, shown)) <= width, "\n".join(shown)
        assert not any("…" in line.split()[0] for line in shown)
    _, shown = operator.look(width, "transfer", "list")
    assert [line.split()[0] for line in shown[2:4]] == [str(number) for number in reversed(numbers)]
    assert all("accepted" in line and HELPER in line for line in shown[2:4])
    assert "(JST)" in shown[0]
    for command in (["office", "show", "1318534539"], ["explain", "提供票.pdf", "--as", HELPER]):
        assert max(map(cell_len, operator.look(width, *command)[1])) <= width


def _all_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "commands"):
        yield words
        return
    for name, inner in command.commands.items():
        yield from _all_commands(inner, (*words, name))


def test_help_of_every_command_is_there(operator: Operator) -> None:
    """Every command there is answers --help, and says where its relay lives unless it needs none."""
    root = get_command(app)
    found = set(_all_commands(root))
    assert {("init",), ("serve",), ("office", "import"), ("cert", "invite"), ("key", "rotate")} <= found
    for words in sorted(found):
        outcome = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
        needs_a_relay = words not in APART and words[0] != "standard"
        assert (outcome.exit_code, "--home" in outcome.output) == (0, needs_a_relay), words
    # As an operator types it, in a process of its own.
    assert operator("cert", "issue", "--help").code == 0
    assert operator("--version").out.strip()[0].isdigit()


def test_a_reader_that_goes_away_is_no_fault(operator: Operator) -> None:
    """`relay office list | head -1` complains about nothing."""
    command = f"{RELAY} office list --json --home {operator.home} | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
