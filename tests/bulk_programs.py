"""lftp, rclone, curl and sshfs as scripts run them: whole folders, twice, and going on where they were cut off."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import CARE_MANAGER, HOST, Completed, House, run_program

from relay.model import OfficeNumber


def lftp(house: House, script: str, office: OfficeNumber = CARE_MANAGER, *settings: str) -> Completed:
    """Run the real `lftp` with a script, over the `ssh` that it takes its connection from."""
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
    return run_program(["lftp", "-c", "; ".join(lines)], cwd=house.path, env=home)


def rclone(house: House, *arguments: str, office: OfficeNumber = CARE_MANAGER) -> Completed:
    """Run the real `rclone`, tried once; the relay is the remote ``relay:``."""
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
    return run_program(["rclone", "--retries", "1", "--low-level-retries", "1", *arguments], env=environment)


def curl(house: House, *arguments: str, path: str, office: OfficeNumber = CARE_MANAGER) -> Completed:
    """Run the real `curl` on *path*; libssh2 knows no host certificates, so it is not asked whom it talks to."""
    held = house.certificate(office)
    login = ["--user", f"{office}:", "--key", str(held.key), "--pubkey", str(held.certificate)]
    url = f"sftp://{HOST}:{house.port}/{path}"
    return run_program(["curl", "--silent", "--show-error", "--insecure", *login, *arguments, url])


@contextlib.contextmanager
def sshfs(house: House, folder: Path, office: OfficeNumber = CARE_MANAGER) -> Iterator[Path]:
    """Mount the relay at *folder*; skips the test where this machine lets nobody mount anything."""
    folder.mkdir()
    connect = shlex.join(["ssh", *house.openssh_options(office)])
    mounted = run_program(
        ["sshfs", f"{office}@{HOST}:/", str(folder), "-p", str(house.port), "-o", f"ssh_command={connect}"]
    )
    if mounted.returncode:
        pytest.skip(f"FUSE does not work here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["fusermount", "-u", str(folder)], check=True)
