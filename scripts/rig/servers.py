"""Two servers behind one face: the relay, and OpenSSH's own with its internal-sftp.

Both run on loopback in folders of their own, trust the same certification authority, and show a host key of the
same kind with a certificate of the same authority, so that one client talks to either without a difference.
"""

import contextlib
import getpass
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"

# The relay says where it listens; a server that has said nothing by then will not.
_STARTS_WITHIN_SECONDS = 30.0
_STOPS_WITHIN_SECONDS = 30.0

SCRIPTS = Path(__file__).resolve().parent.parent
KEEPER = (sys.executable, "-m", "rig.keeper")


class RigError(Exception):
    """A program did not do what it was started for; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections.

    *user* is the name to log in as: None means the office's own number.  *inbox* is where a file put into
    ``send/`` can be read again.  *wait* waits for it to end by itself.  *start_seconds* passed until it listened.
    """

    label: str
    pid: int
    port: int
    user: str | None
    inbox: str
    wait: Callable[[], int]
    start_seconds: float = 0.0


class RelayHome:
    """A relay in a folder: its keys, its register and its store, made by the `relay` command."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clients = home / "clients"
        self.known_hosts = self.clients / "known_hosts"

    def relay(self, *arguments: str, columns: int = 80) -> str:
        """Run the command; return what it printed, or raise `RigError` with what it complained about."""
        return run([*self._command, *arguments], columns=columns)

    @property
    def _command(self) -> list[str]:
        return [str(Path(sys.executable).with_name("relay")), "--home", str(self.home)]

    def initialise(self, register: Path) -> None:
        """Initialise the relay and register the offices that the file *register* holds."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.relay("init")
        self.relay("office", "import", str(register))
        self.clients.mkdir()
        authority = (self.home / "keys" / "host_ca.pub").read_text().strip()
        self.known_hosts.write_text(f"@cert-authority * {authority}\n")

    def issue(self, number: str) -> Path:
        """Make a key for the office, have it certified, and return where the private key lies."""
        key = self.clients / number / "id"
        key.parent.mkdir()
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", number, "-f", str(key)])
        self.relay("cert", "issue", number, "--public-key", f"{key}.pub")
        return key

    def write_ssh_config(self, numbers: Sequence[str], port: int) -> Path:
        """Write a file for ``sftp -F`` that knows each office by its number; return where it lies."""
        common = f'    HostName {HOST}\n    Port {port}\n    UserKnownHostsFile "{_escape(self.known_hosts)}"\n'
        common += "    GlobalKnownHostsFile none\n    StrictHostKeyChecking yes\n    IdentitiesOnly yes\n"
        config = self.clients / "ssh_config"
        config.write_text(
            "".join(
                f'Host {number}\n    User {number}\n    IdentityFile "{_escape(self.clients / number / "id")}"\n{common}'
                for number in numbers
            )
        )
        return config

    @contextlib.contextmanager
    def serve(self, port: int = 0, workers: int = 1, *, settings: Mapping[str, str] | None = None) -> Iterator[Running]:
        """Run the server until the end of the block, then ask it to end and see that it does.

        *settings* are environment variables.  With one worker there is one process, whose costs are the easiest to tell.
        """
        command = [*KEEPER, *self._command, "serve", "--host", HOST, "--port", str(port), "--workers", str(workers)]
        with (self.home / "journal.txt").open("ab") as journal:
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=journal,
                cwd=SCRIPTS,
                start_new_session=True,
                env={**os.environ, **(settings or {})},
            )
        with ended_after(process):
            assert process.stdout is not None
            said = process.stdout.readline().decode()
            found = re.fullmatch(r"listening on (\S+):(\d+)\n", said)
            if found is None:
                raise RigError(f"the relay did not start; see {self.home / 'journal.txt'}")
            took = time.perf_counter() - started
            yield Running("relay", process.pid, int(found[2]), None, "receive", process.wait, took)


class OpenSshHome:
    """OpenSSH's server in a folder, trusting the authority whose keys lie in *keys*."""

    def __init__(self, home: Path, keys: Path, principals: Sequence[str]) -> None:
        self.home = home
        self.files = home / "files"
        # Root's sessions skip a process that every other user's has; nobody is the fairer measure.
        self._user = "nobody" if os.geteuid() == 0 else getpass.getuser()
        self._prepare(keys, principals)

    def _prepare(self, keys: Path, principals: Sequence[str]) -> None:
        (self.files / "send").mkdir(parents=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
            shutil.chown(self.files / "send", pwd.getpwnam(self._user).pw_uid)
        host_key = self.home / "host_key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)])
        names = f"{HOST},localhost"
        run(["ssh-keygen", "-q", "-h", "-s", str(keys / "host_ca"), "-I", "rig", "-n", names, f"{host_key}.pub"])
        shutil.copy(keys / "user_ca.pub", self.home / "user_ca.pub")
        (self.home / "principals").write_text("".join(f"{principal}\n" for principal in principals))

    def _configuration(self, port: int) -> str:
        settings = {
            "ListenAddress": f"{HOST}:{port}",
            "HostKey": self.home / "host_key",
            "HostCertificate": self.home / "host_key-cert.pub",
            "TrustedUserCAKeys": self.home / "user_ca.pub",
            "AuthorizedPrincipalsFile": self.home / "principals",
            "AuthorizedKeysFile": "none",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "MaxStartups": 1000,
            "PidFile": "none",
            "LogLevel": "ERROR",
            "Subsystem": f"sftp internal-sftp -d {self.files}",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    @contextlib.contextmanager
    def serve(self) -> Iterator[Running]:
        """Run the server until the end of the block."""
        port = free_port()
        configuration = self.home / "sshd_config"
        configuration.write_text(self._configuration(port))
        log = self.home / "log.txt"
        command = [*KEEPER, "/usr/sbin/sshd", "-D", "-f", str(configuration), "-E", str(log)]
        process = subprocess.Popen(command, cwd=SCRIPTS, start_new_session=True)
        with ended_after(process):
            if not answers(port, process):
                raise RigError(f"sshd did not start: {log.read_text() if log.exists() else 'no reason given'}")
            yield Running("OpenSSH", process.pid, port, self._user, "send", process.wait)


def run(command: Sequence[str], *, columns: int = 80) -> str:
    """Run a program to its end; return its standard output, or raise `RigError` with all it said."""
    environment = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
    )
    if done.returncode != 0:
        raise RigError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def free_port() -> int:
    """Find a port that nobody listens on at present."""
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _escape(path: Path) -> str:
    return str(path).replace("%", "%%")


def answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until somebody listens at *port*; False where *process* ends before, or takes too long."""
    import socket

    until = time.monotonic() + _STARTS_WITHIN_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def ended_after(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ask *process* to end at the end of the block, and see that it does."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
