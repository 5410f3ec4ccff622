"""A relay of a test's own: a home in a folder, made by the real command line, served by a real process.

`Prepared` makes one home a test run, with its keys, a small register and a certificate for each office; a `House`
is a copy of it that can be started, stopped, killed and restarted, and called with every client.  Ports are always
0, and nothing waits for a time: it waits for a fact, with a deadline.

A house that is closed fails its test where the journal tells of a defect, unless the test says `expects_defects`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import paramiko
import psutil

from relay.certificates import draw_serial, issue_certificate, plan_validity
from relay.config import Config
from relay.configfile import load_config
from relay.keyring import load_keyring
from relay.ledger.sqlite import SqliteLedger, open_ledger
from relay.model import Certificate, Event, OfficeNumber, Refusal, Transfer

HOST = "127.0.0.1"
# What has not happened by then will not; generous, because tests share the machine.
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.01

CARE_MANAGER = OfficeNumber("0178515854")
HOME_HELP = OfficeNumber("0178529384")
DAY_CARE = OfficeNumber("0178512687")
LETTERED = OfficeNumber("01A8516384")
SUSPENDED = OfficeNumber("0178536215")
# Well-formed, and registered nowhere.
UNREGISTERED = OfficeNumber("0178503736")
OFFICES = (CARE_MANAGER, HOME_HELP, DAY_CARE, LETTERED)
SERVICES = {CARE_MANAGER: "43", HOME_HELP: "11", DAY_CARE: "15", LETTERED: "A2", SUSPENDED: "11", UNREGISTERED: "11"}
_REGISTER = """\
office_number,name_ja,prefecture,service_types,status
0178515854,みほん野居宅介護支援事業所,北海道,43,active
0178529384,みほん野ヘルパーステーション,北海道,11,active
0178512687,デイサービスみほん野①号館,北海道,15|78,active
01A8516384,みほん野通所・訪問サービス,北海道,A2|A6,active
0178536215,みほん野ケアサービス（休止中）,北海道,11,suspended
"""
MONTH = "202607"
_PERSONS = 1_000
_FIRST_SERIAL = datetime(2026, 6, 22, 8, 0, tzinfo=UTC)

T = TypeVar("T")
Completed = subprocess.CompletedProcess[str]


# --- names and contents ------------------------------------------------------------------------------------------


def serial(number: int) -> str:
    """Return a file serial (YYYYMMDDHHMMSS), one for each number."""
    return f"{_FIRST_SERIAL + timedelta(seconds=number):%Y%m%d%H%M%S}"


def plan_name(sender: str = CARE_MANAGER, recipient: str = HOME_HELP, number: int = 0) -> str:
    """Return the name of a use slip (UPPLAN) of the standard 4.1; another one for each number."""
    types = SERVICES[OfficeNumber(sender)], SERVICES[OfficeNumber(recipient)]
    return f"UPPLAN_{MONTH}_{sender}_{types[0]}_{recipient}_{types[1]}_{serial(number)}.CSV"


def general_name(
    extension: str = "pdf",
    sender: str = CARE_MANAGER,
    recipient: str = HOME_HELP,
    number: int = 0,
    *,
    label: str = "REPORT",
) -> str:
    """Return a name of the general form."""
    return f"{label}_{sender}_{recipient}_{serial(number)}.{extension}"


def plan_csv(size_bytes: int = 5_000, recipient: str = HOME_HELP, sender: str = CARE_MANAGER) -> bytes:
    """Return a conforming use slip of the standard 4.1, exactly so long where one record is no longer than that."""
    records = [_plan_record(number, recipient, sender) for number in range(_PERSONS)]
    length = len(records[0])
    count = max(1, size_bytes // length)
    # After as many records as there are persons, the next hour: no record occurs twice.
    blocks = [
        b"".join(records).replace(b",0900,0945,", b",%02d%02d,2345," % divmod(n, 60))
        for n in range(min(24 * 60, count // _PERSONS + 1))
    ]
    whole = b"".join(blocks[n % len(blocks)] for n in range(count // _PERSONS + 1))[: (count - 1) * length]
    # What is missing goes into the last record's name of the equipment, which is free text.
    missing = max(0, size_bytes - count * length)
    return whole + _plan_record(count - 1, recipient, sender, "x" * missing)


def _plan_record(number: int, recipient: str, sender: str, equipment: str = "") -> bytes:
    insured = f"{8_566_330_000 + number % _PERSONS:010d}"
    return (
        f'202407,019992,{insured},20260622,{MONTH},{sender},"仮名　ケア子",387,0,20260702,,0900,0945,1,111211,,,'
        f'"{equipment}",,{recipient},"仮名ステーション",,0,{sender},\r\n'
    ).encode("cp932")


def pdf(size_bytes: int = 5_000) -> bytes:
    """Return something that a PDF may look like from outside: its head, a body, its trailer."""
    head, end = b"%PDF-1.7\n", b"\nstartxref\n9\n%%EOF\n"
    return head + b"%" + bytes(1 + n % 251 for n in range(251)) * (size_bytes // 251) + end


# --- the home ----------------------------------------------------------------------------------------------------


def relay_command(home: Path) -> list[str]:
    """Return the command of the relay at *home*, without its verb."""
    return [str(Path(sys.executable).with_name("relay")), "--home", str(home)]


def run_program(command: list[str], **options: Any) -> Completed:
    """Run a program to its end and keep what it says as text; it never waits for a keyboard."""
    chosen: dict[str, Any] = {"stdin": subprocess.DEVNULL, "timeout": 2 * PATIENCE_SECONDS, **options}
    chosen["env"] = {**os.environ, "LC_ALL": "C.UTF-8", **options.get("env", {})}
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, **chosen)


def prepare_home(path: Path) -> None:
    """Make a relay at *path* with the command line: keys, register, and a certificate in ``issued/`` for each office."""
    path.mkdir(parents=True)
    (path / "offices.csv").write_text(_REGISTER, encoding="utf-8")
    for arguments in (
        ["init"],
        ["office", "import", str(path / "offices.csv")],
        *(["cert", "issue", number] for number in (*OFFICES, SUSPENDED)),
    ):
        done = run_program([*relay_command(path), *arguments])
        if done.returncode:
            raise RuntimeError(f"relay {' '.join(arguments)}: {done.stdout}{done.stderr}")


@dataclass(frozen=True, slots=True)
class Pass:
    """A key and its certificate as files, and what the register knows of it."""

    office: OfficeNumber
    key: Path
    certificate: Path
    record: Certificate | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """As asyncssh takes it."""
        return str(self.key), str(self.certificate)


@dataclass(frozen=True, slots=True)
class Caller:
    """An asyncssh client that has logged in and opened SFTP."""

    connection: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient


@dataclass
class House:
    """One relay in *path*; *settings* override ``relay.toml`` by section and key."""

    path: Path
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    expects_defects: bool = False
    port: int = 0
    process: subprocess.Popen[str] | None = None
    _passes: dict[OfficeNumber, Pass] = field(default_factory=dict)
    _made: int = 0

    @classmethod
    def copy(cls, prepared: Path, path: Path, settings: Mapping[str, Mapping[str, object]]) -> House:
        """Make a house of one's own from a home that nobody serves."""
        shutil.copytree(prepared, path)
        house = cls(path, settings)
        authority = (path / "keys" / "host_ca.pub").read_text().strip()
        house.known_hosts.write_text(f"@cert-authority * {authority}\n")
        return house

    # --- the server ----------------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """What the relay's processes are told beyond ``relay.toml``."""
        chosen: dict[str, dict[str, object]] = {"journal": {"format": "json"}, "server": {"drain_seconds": 0}}
        # One process starts soonest; RELAY_SERVER__WORKERS=3 runs any test with three.
        chosen["server"]["workers"] = int(os.environ.get("RELAY_SERVER__WORKERS", "1"))
        for section, values in self.settings.items():
            chosen.setdefault(section, {}).update(values)
        return {
            f"RELAY_{section}__{key}".upper(): value if isinstance(value, str) else json.dumps(value)
            for section, values in chosen.items()
            for key, value in values.items()
        }

    @property
    def config(self) -> Config:
        """The settings that the server runs with."""
        return load_config(self.path, self.environment)

    @property
    def journal(self) -> Path:
        """What the servers of this house have written to stderr."""
        return self.path / "journal.txt"

    def start(self, *, wrap: tuple[str, ...] = (), port: int = 0, pass_fds: tuple[int, ...] = ()) -> None:
        """Serve, and return when connections are taken; *wrap* is a command to run it under (``strace -f …``).

        It inherits *pass_fds* under their numbers.
        """
        assert self.process is None, "the relay runs already"
        with self.journal.open("ab") as journal:
            self.process = subprocess.Popen(
                [*wrap, *relay_command(self.path), "serve", "--host", HOST, "--port", str(port)],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=journal,
                encoding="utf-8",
                start_new_session=True,
                pass_fds=pass_fds,
            )
        said = self._first_line(self.process)
        assert said.startswith("listening on "), f"the relay did not start: {said}{self.journal.read_text()}"
        self.port = int(said.rpartition(":")[2])

    @staticmethod
    def _first_line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], PATIENCE_SECONDS)
        return process.stdout.readline() if readable else "nothing was said"

    def workers(self) -> list[psutil.Process]:
        """Return the processes that serve; their parent is the supervisor."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return [each for each in family if each.name().startswith("relay-worker-")]

    def stop(self) -> int:
        """Ask the server to end as an operator does; return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power cut does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop if it runs, then start; the port is another one."""
        if self.process is not None:
            self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        assert process is not None, "the relay does not run"
        with process:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            if number is signal.SIGKILL:
                # All at once: none of them can act upon the end of another.
                os.killpg(process.pid, signal.SIGKILL)
            else:
                family[0].send_signal(number)
            try:
                return process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                for member in family:
                    member.kill()
                raise AssertionError(f"the relay did not end:\n{self.journal.read_text()[-4000:]}") from None

    def close(self) -> None:
        """Stop what runs; AssertionError where a server ended by itself, badly, or told of a defect."""
        if self.process is not None:
            assert self.process.poll() is None, f"the relay ended by itself:\n{self.journal.read_text()[-4000:]}"
            code = self.stop()
            assert code == 0, f"the relay ended with {code}:\n{self.journal.read_text()[-4000:]}"
        if not self.expects_defects and self.journal.exists():
            defects = [line for line in self.journal_lines() if line["event"] in ("error.unexpected", "not.json")]
            assert not defects, json.dumps(defects, ensure_ascii=False, indent=1)

    def memory_bytes(self) -> int:
        """Return the memory of the server's processes: their proportional share (PSS)."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(int(member.memory_full_info().pss) for member in family)

    # --- what it knows -------------------------------------------------------------------------------------------

    def journal_lines(self, *events: str) -> list[dict[str, Any]]:
        """Return the journal's lines, those of some events if any are named; what is no JSON is ``not.json``."""
        lines, end = [], 0
        for written in self.journal.read_bytes().splitlines(keepends=True):
            line, end = _parse_line(written, end), end + len(written)
            if line is not None:
                lines.append(line)
        return [line for line in lines if not events or line["event"] in events]

    @contextlib.asynccontextmanager
    async def ledger(self) -> AsyncIterator[SqliteLedger]:
        """Open the ledger beside the server, as the command line does."""
        keyring = load_keyring(self.path / "keys")
        async with await open_ledger(self.config.store.path, keyring.open_vault(), keyring.audit_key) as ledger:
            yield ledger

    def ask(self, question: Callable[[SqliteLedger], Coroutine[Any, Any, T]]) -> T:
        """Ask the ledger something and wait for the answer, with or without a running loop."""

        async def work() -> T:
            async with self.ledger() as ledger:
                return await question(ledger)

        return run_aside(work())

    def transfers(self) -> list[Transfer]:
        """Return every transfer, newest first."""
        return self.ask(lambda ledger: ledger.list_transfers())

    def refusals(self, office: OfficeNumber = CARE_MANAGER) -> list[Refusal]:
        """Return what was refused to *office*, newest first."""
        since = datetime(2020, 1, 1, tzinfo=UTC)
        return self.ask(lambda ledger: ledger.list_refusals(office, since=since))

    def events(self) -> list[Event]:
        """Return the history, oldest first."""
        return self.ask(lambda ledger: ledger.list_events())

    def relay(self, *arguments: str) -> Completed:
        """Run the command line on this house, in a process of its own."""
        return run_program([*relay_command(self.path), *arguments], env=self.environment)

    def wait_for(self, fact: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
        """Wait until *fact* returns something true, and return it; AssertionError names *what* did not come."""
        return wait_for(fact, what, seconds)

    def wait_for_event(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait until the journal has so many lines of *event*; return the last of them."""
        found = wait_for(
            lambda: lines if len(lines := self.journal_lines(event)) >= count else [], f"{event} in the journal"
        )
        return found[-1]

    # --- passes --------------------------------------------------------------------------------------------------

    @property
    def known_hosts(self) -> Path:
        """A file that trusts this relay's host certificates."""
        return self.path / "known_hosts"

    def certificate(self, office: OfficeNumber = CARE_MANAGER, **changes: Any) -> Pass:
        """Return the key and certificate of *office*: that of the prepared home, or a new one with *changes*.

        *algorithm* (``ecdsa-sha2-nistp256``), *offices* (its principals), *valid_after*, *valid_before*, *label*, and
        *is_known* (recorded in the register).
        """
        if not changes:
            if office not in self._passes:
                key = self.path / "issued" / office
                self._passes[office] = Pass(office, key, key.with_name(f"{office}-cert.pub"))
            return self._passes[office]
        return self._make_pass(office, **changes)

    def _make_pass(
        self,
        office: OfficeNumber,
        *,
        algorithm: str = "ecdsa-sha2-nistp256",
        offices: tuple[OfficeNumber, ...] | None = None,
        valid_after: datetime | None = None,
        valid_before: datetime | None = None,
        label: str = "",
        is_known: bool = True,
    ) -> Pass:
        self._made += 1
        private = asyncssh.generate_private_key(algorithm)
        key = self.path / "issued" / f"{office}-{self._made}"
        key.touch(0o600)
        private.write_private_key(key)
        after, before = plan_validity(datetime.now(UTC), 86_400)
        line, record = issue_certificate(
            private.export_public_key().decode().strip(),
            load_keyring(self.path / "keys").user_ca,
            serial=draw_serial(),
            key_id=f"{office} {self._made}",
            offices=offices if offices is not None else (office,),
            valid_after=valid_after or after,
            valid_before=valid_before or before,
            label=label,
        )
        certificate = key.with_name(f"{key.name}-cert.pub")
        certificate.write_text(f"{line}\n")
        if is_known:
            self.ask(lambda ledger: ledger.record_certificate(record, actor="test"))
        return Pass(office, key, certificate, record)

    # --- clients -------------------------------------------------------------------------------------------------

    def openssh_options(self, office: OfficeNumber = CARE_MANAGER, *, pass_: Pass | None = None) -> list[str]:
        """Return the options that `ssh`, `sftp` and `scp` need to log in as *office*, without host and port."""
        held = pass_ or self.certificate(office)
        options = {
            "BatchMode": "yes",
            "CertificateFile": str(held.certificate),
            "GlobalKnownHostsFile": "none",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
        }
        return ["-F", "none", "-i", str(held.key), *(f"-o{key}={value}" for key, value in options.items())]

    def sftp_command(self, office: OfficeNumber = CARE_MANAGER, *options: str, user: str | None = None) -> list[str]:
        """Return the command of a real `sftp` that talks to this house."""
        where = f"{user or office}@{HOST}"
        return ["sftp", *self.openssh_options(office), f"-P{self.port}", *options, where]

    def sftp(self, office: OfficeNumber, batch: str, *options: str, cwd: Path | None = None) -> Completed:
        """Run the real `sftp` with a batch; what it prints for staff is in *stdout* and *stderr*."""
        return run_program(
            self.sftp_command(office, "-b", "-", *options), input=batch, stdin=None, cwd=cwd or self.path
        )

    def scp(self, office: OfficeNumber, *arguments: str | Path) -> Completed:
        """Run the real `scp`; a remote path is written ``:send/``."""
        places = [f"{office}@{HOST}{text}" if (text := str(each)).startswith(":") else text for each in arguments]
        return run_program(["scp", *self.openssh_options(office), f"-P{self.port}", *places])

    def putty_options(self, office: OfficeNumber = CARE_MANAGER) -> list[str]:
        """Return what `psftp` and `pscp` need to log in, with a .ppk that `puttygen` makes."""
        held = self.certificate(office)
        ppk = held.key.with_suffix(".ppk")
        if not ppk.exists():
            made = run_program(["puttygen", str(held.key), "--certificate", str(held.certificate), "-o", str(ppk)])
            assert made.returncode == 0, made.stderr
        fingerprints = [
            asyncssh.read_public_key(file).get_fingerprint() for file in (self.path / "keys").glob("host_*_key.pub")
        ]
        trusted = [part for fingerprint in fingerprints for part in ("-hostkey", fingerprint)]
        return ["-batch", "-noagent", "-P", str(self.port), "-i", str(ppk), *trusted]

    def psftp(self, office: OfficeNumber, batch: str, cwd: Path | None = None) -> Completed:
        """Run PuTTY's real `psftp` with a batch."""
        script = self.path / f"psftp-{time.monotonic_ns()}"
        script.write_text(batch, encoding="utf-8")
        command = ["psftp", *self.putty_options(office), "-b", str(script), f"{office}@{HOST}"]
        return run_program(command, cwd=cwd or self.path, env={"HOME": str(self.path)})

    def pscp(self, office: OfficeNumber, *arguments: str | Path) -> Completed:
        """Run PuTTY's real `pscp` over SFTP; a remote path is written ``:send/``."""
        places = [f"{office}@{HOST}{text}" if (text := str(each)).startswith(":") else text for each in arguments]
        return run_program(["pscp", "-sftp", *self.putty_options(office), *places], env={"HOME": str(self.path)})

    @contextlib.asynccontextmanager
    async def dial(
        self, office: OfficeNumber = CARE_MANAGER, *, pass_: Pass | None = None, **options: Any
    ) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Log in with asyncssh's client, without opening anything."""
        chosen: dict[str, Any] = {
            "username": office,
            "client_keys": [(pass_ or self.certificate(office)).pair],
            "known_hosts": str(self.known_hosts),
            "agent_path": None,
            "config": None,
            "gss_host": None,
            **options,
        }
        async with await asyncssh.connect(HOST, self.port, **chosen) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def connect(
        self, office: OfficeNumber = CARE_MANAGER, *, pass_: Pass | None = None, **options: Any
    ) -> AsyncIterator[Caller]:
        """Log in with asyncssh's client and open SFTP."""
        async with (
            self.dial(office, pass_=pass_, **options) as connection,
            connection.start_sftp_client() as sftp,
        ):
            yield Caller(connection, sftp)

    @contextlib.contextmanager
    def paramiko(self, office: OfficeNumber = CARE_MANAGER) -> Iterator[paramiko.SFTPClient]:
        """Log in with paramiko and open SFTP."""
        held = self.certificate(office)
        key = paramiko.PKey.from_path(str(held.key))
        key.load_certificate(str(held.certificate))
        with paramiko.SSHClient() as client:
            # paramiko knows no host certificates: it is told the keys.
            for file in (self.path / "keys").glob("host_*_key.pub"):
                word, data = file.read_text().split()[:2]
                known = paramiko.PKey.from_type_string(word, base64.b64decode(data))
                client.get_host_keys().add(f"[{HOST}]:{self.port}", word, known)
            client.connect(
                HOST,
                self.port,
                username=office,
                pkey=key,
                allow_agent=False,
                look_for_keys=False,
                timeout=PATIENCE_SECONDS,
            )
            with client.open_sftp() as sftp:
                yield sftp


def _parse_line(written: bytes, start: int) -> dict[str, Any] | None:
    """Parse a line of the journal, a file, in which it begins at *start*; None where nothing of the relay is left of it.

    Who is killed while he writes leaves what lies before the end of one of the file's pages, as between two the kernel looks
    whether he is; what somebody else says next stands right behind it.
    """
    # Who watches the server's calls writes to the same file.
    if written.startswith(b"strace: "):
        return None
    pages = range(start - start % mmap.PAGESIZE + mmap.PAGESIZE, start + len(written) + 1, mmap.PAGESIZE)
    for rest in (written, *(written[page - start :] for page in pages)):
        if not rest:
            return None
        with contextlib.suppress(ValueError):
            line = json.loads(rest)
            if isinstance(line, dict):
                return line
    return {"event": "not.json", "text": written.decode(errors="replace")}


def wait_for(fact: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Wait until *fact* returns something true, and return it; AssertionError names *what* did not come."""
    deadline = time.monotonic() + seconds
    while True:
        found = fact()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} seconds"
        time.sleep(_LOOK_SECONDS)


def run_aside(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end on a loop of its own, also where the caller's own loop is running."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


# What the fixture of this name returns: settings in, a house that is not started out.
MakeHouse = Callable[..., House]
