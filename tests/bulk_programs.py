"""lftp, rclone, curl and sshfs as scripts run them: whole folders, twice, and going on where they were cut off."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from house import CARE_MANAGER, HOST, Completed, House, run_program

from relay.model import OfficeNumber


@dataclass(frozen=True, slots=True)
class Command:
    """A program with what it is told by its environment."""

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, cwd: Path | None = None) -> Completed:
        """Run it to its end."""
        return run_program(self.words, cwd=cwd, env=self.environment)


def lftp_command(house: House, script: str, office: OfficeNumber = CARE_MANAGER, *settings: str) -> Command:
    """Return the command of a real `lftp` with a script, over the `ssh` that it takes its connection from."""
    connect = shlex.join(["ssh", "-a", "-x", *house.openssh_options(office)])
    lines = [
        f'set sftp:connect-program "{connect}"',
        "set net:max-retries 1",
        "set cmd:fail-exit yes",
        *(f"set {setting}" for setting in settings),
        f"open -u {office},none -p {house.port} sftp://{HOST}",
        script,
    ]
    home = {"HOME": str(house.path), "LFTP_HOME": str(house.path / "lftp")}
    return Command(["lftp", "-c", "; ".join(lines)], home)


def lftp(house: House, script: str, office: OfficeNumber = CARE_MANAGER, *settings: str) -> Completed:
    """Run the real `lftp` with a script."""
    return lftp_command(house, script, office, *settings).run(house.path)


def rclone_command(house: House, *arguments: str, office: OfficeNumber = CARE_MANAGER) -> Command:
    """Return the command of a real `rclone` that tries once; the relay is the remote ``relay:``."""
    held = house.certificate(office)
    # Go's library takes a pattern without a port for port 22 alone.
    known = house.path / f"known_hosts-{house.port}"
    known.write_text(house.known_hosts.read_text().replace("*", f"[{HOST}]:{house.port}", 1))
    settings = {
        "TYPE": "sftp",
        "HOST": HOST,
        "PORT": str(house.port),
        "USER": office,
        "KEY_FILE": str(held.key),
        "PUBKEY_FILE": str(held.certificate),
        "KNOWN_HOSTS_FILE": str(known),
    }
    environment = {f"RCLONE_CONFIG_RELAY_{key}": value for key, value in settings.items()}
    environment |= {"RCLONE_CONFIG": "/dev/null", "HOME": str(house.path)}
    return Command(["rclone", "--retries", "1", "--low-level-retries", "1", *arguments], environment)


def rclone(house: House, *arguments: str, office: OfficeNumber = CARE_MANAGER) -> Completed:
    """Run the real `rclone`."""
    return rclone_command(house, *arguments, office=office).run()


def curl_command(house: House, *arguments: str, path: str, office: OfficeNumber = CARE_MANAGER) -> Command:
    """Return the command of a real `curl` on *path*; libssh2 knows no host certificates, so it asks for none."""
    held = house.certificate(office)
    login = ["--user", f"{office}:", "--key", str(held.key), "--pubkey", str(held.certificate)]
    url = f"sftp://{HOST}:{house.port}/{path}"
    return Command(["curl", "--silent", "--show-error", "--insecure", *login, *arguments, url])


def curl(house: House, *arguments: str, path: str, office: OfficeNumber = CARE_MANAGER) -> Completed:
    """Run the real `curl` on *path*."""
    return curl_command(house, *arguments, path=path, office=office).run()


def sshfs_command(house: House, folder: Path, office: OfficeNumber = CARE_MANAGER) -> list[str]:
    """Return the command that mounts the relay at *folder*."""
    connect = shlex.join(["ssh", *house.openssh_options(office)])
    return ["sshfs", f"{office}@{HOST}:/", str(folder), "-p", str(house.port), "-o", f"ssh_command={connect}"]


@contextlib.contextmanager
def sshfs(house: House, folder: Path, office: OfficeNumber = CARE_MANAGER) -> Iterator[Path]:
    """Mount the relay at *folder*; skips the test where this machine lets nobody mount anything."""
    folder.mkdir()
    mounted = run_program(sshfs_command(house, folder, office))
    if mounted.returncode:
        pytest.skip(f"FUSE does not work here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["fusermount", "-u", str(folder)], check=True)
