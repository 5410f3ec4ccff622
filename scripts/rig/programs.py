"""The programs that offices use, and how each is told to put files into ``send/`` and to fetch them again.

Each takes a `Call`: where the server is, who logs in, and which files.  All go on relative paths, which lead to the same
place on the relay and on a server that shows a home folder.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rig.load import Login
from rig.servers import HOST, RigError

_NO_HOST_CHECK = ("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oGlobalKnownHostsFile=/dev/null")
# A client that hangs must not hang the bench.
_MOST_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a program: *files* are put into ``send/``, or those of their names fetched from *source* into *out*."""

    port: int
    user: str
    login: Login
    files: Sequence[Path]
    fingerprints: Sequence[str]
    source: str = ""
    out: Path = field(default_factory=Path)

    @property
    def is_put(self) -> bool:
        """True where files are put."""
        return not self.source

    def openssh(self) -> list[str]:
        """Return what ssh and sftp are told."""
        certificate = f"-oCertificateFile={self.login.key}-cert.pub"
        options = ("-oBatchMode=yes", "-oIdentitiesOnly=yes", "-oIdentityAgent=none", "-oLogLevel=ERROR", certificate)
        return ["-F", "none", "-i", self.login.key, *options, *_NO_HOST_CHECK]

    def script(self) -> str:
        """Return the lines for sftp and psftp."""
        if self.is_put:
            return "".join(f"put {file} send/{file.name}\n" for file in self.files)
        return "".join(f"get {self.source}/{file.name} {self.out / file.name}\n" for file in self.files)


@dataclass(frozen=True, slots=True)
class Told:
    """A command with what goes into it and what its environment says."""

    words: Sequence[str]
    text: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def _sftp(call: Call) -> Told:
    words = ["sftp", *call.openssh(), "-q", "-b", "-", "-P", str(call.port), f"{call.user}@{HOST}"]
    return Told(words, call.script())


def _psftp(call: Call) -> Told:
    key = Path(call.login.key)
    ppk = key.with_suffix(".ppk")
    if not ppk.exists():
        made = ["puttygen", str(key), "--certificate", f"{key}-cert.pub", "-o", str(ppk)]
        subprocess.run(made, check=True, capture_output=True)
    script = key.with_suffix(".psftp")
    script.write_text(call.script())
    trusted = [part for fingerprint in call.fingerprints for part in ("-hostkey", fingerprint)]
    words = ["psftp", "-batch", "-noagent", "-P", str(call.port), "-i", str(ppk), *trusted, "-b", str(script)]
    return Told([*words, f"{call.user}@{HOST}"])


def _lftp(call: Call) -> Told:
    connect = shlex.join(["ssh", "-a", "-x", *call.openssh()])
    if call.is_put:
        work = f"put -O send {shlex.join(map(str, call.files))}"
    else:
        # Without a command behind it lftp ends its ssh before the last CLOSE has left.
        sources = shlex.join(f"{call.source}/{file.name}" for file in call.files)
        work = f"get -O {shlex.quote(str(call.out))} {sources}; cls / > /dev/null"
    lines = [f'set sftp:connect-program "{connect}"', "set net:max-retries 1", "set cmd:fail-exit yes"]
    lines += [f"open -u {call.user},none -p {call.port} sftp://{HOST}", work]
    return Told(["lftp", "-c", "; ".join(lines)])


def _rclone(call: Call) -> Told:
    key = call.login.key
    settings = {"TYPE": "sftp", "HOST": HOST, "PORT": str(call.port), "USER": call.user}
    settings |= {"KEY_FILE": key, "PUBKEY_FILE": f"{key}-cert.pub", "SHELL_TYPE": "none"}
    environment = {f"RCLONE_CONFIG_RELAY_{name}": value for name, value in settings.items()}
    names = Path(f"{key}.names")
    names.write_text("".join(f"{file.name}\n" for file in call.files))
    # It compares what is there before it begins, as it does for people.
    folder, listed = str(call.files[0].parent), ["--files-from", str(names)]
    ends = [folder, "relay:send"] if call.is_put else [f"relay:{call.source}", str(call.out)]
    words = ["rclone", "--retries", "1", "--low-level-retries", "1", "copy", *listed, *ends]
    return Told(words, environment=environment | {"RCLONE_CONFIG": "/dev/null"})


def _curl(call: Call) -> Told:
    login = ["--user", f"{call.user}:", "--key", call.login.key, "--pubkey", f"{call.login.key}-cert.pub"]
    words = ["curl", "--silent", "--show-error", "--insecure", *login]
    base = f"sftp://{HOST}:{call.port}/~"
    for file in call.files:
        here = ["-T", str(file)] if call.is_put else ["-o", str(call.out / file.name)]
        words += [*here, f"{base}/{'send' if call.is_put else call.source}/{file.name}"]
    return Told(words)


PROGRAMS: Mapping[str, tuple[Callable[[Call], Told], Sequence[str]]] = {
    "sftp": (_sftp, ("sftp",)),
    "psftp": (_psftp, ("psftp", "puttygen")),
    "lftp": (_lftp, ("lftp", "ssh")),
    "rclone": (_rclone, ("rclone",)),
    "curl": (_curl, ("curl",)),
}


def installed_programs() -> list[str]:
    """Name those that are here."""
    return [name for name, (_, needs) in PROGRAMS.items() if all(map(shutil.which, needs))]


def find_fingerprints(port: int) -> list[str]:
    """Ask the server for its host keys, for programs that want to be told which one to trust."""
    keys = subprocess.run(["ssh-keyscan", "-p", str(port), HOST], capture_output=True, check=True).stdout
    listed = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=keys, capture_output=True, check=True).stdout
    return sorted({line.split()[1] for line in listed.decode().splitlines()})


def run_program(name: str, call: Call) -> None:
    """Run it to its end; RigError where it did not do what it was told, with all that it said."""
    told = PROGRAMS[name][0](call)
    done = subprocess.run(
        told.words,
        input=told.text,
        capture_output=True,
        text=True,
        check=False,
        timeout=_MOST_SECONDS,
        env={**os.environ, **told.environment},
    )
    if done.returncode != 0:
        raise RigError(f"{name}: exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    if not call.is_put and (missing := [file.name for file in call.files if not (call.out / file.name).exists()]):
        raise RigError(f"{name} fetched {len(call.files) - len(missing)} of {len(call.files)} files\n{done.stderr}")
