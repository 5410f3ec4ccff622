"""lftp, rclone, curl and sshfs as scripts run them: file by file as a `Program`, and with whole folders."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from house import CARE_MANAGER, HOST, Completed, House, run_program
from programs import Cannot, Said, said, without_dots

from relay.model import OfficeNumber

# lftp kills its ssh as soon as its last command is done, mostly before the CLOSE of what it fetched has left: the file
# is not collected then, and stays in new/.  With a command behind it, whatever it is, the CLOSE arrives.
_STAY = "cls / > /dev/null"


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


def sshfs_command(house: House, folder: Path, office: OfficeNumber = CARE_MANAGER, *options: str) -> list[str]:
    """Return the command that mounts the relay at *folder*."""
    connect = shlex.join(["ssh", *house.openssh_options(office)])
    return ["sshfs", *options, f"{office}@{HOST}:/", str(folder), "-p", str(house.port), "-o", f"ssh_command={connect}"]


@contextlib.contextmanager
def sshfs(house: House, folder: Path, office: OfficeNumber = CARE_MANAGER, *options: str) -> Iterator[Path]:
    """Mount the relay at *folder*; skips the test where this machine lets nobody mount anything."""
    folder.mkdir()
    mounted = run_program(sshfs_command(house, folder, office, *options))
    if mounted.returncode:
        pytest.skip(f"FUSE does not work here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["fusermount", "-u", str(folder)], check=True)


class Lftp(Cannot):
    """lftp over OpenSSH's ssh."""

    name = "lftp"
    needs: tuple[str, ...] = ("lftp", "ssh")

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(lftp(house, f'put "{file}" -o "{target}"', office))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(lftp(house, f'put -c "{file}" -o "{target}"', office))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(lftp(house, f'get "{source}" -o "{file}"; {_STAY}', office))

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(lftp(house, f'get -c "{source}" -o "{file}"; {_STAY}', office))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(lftp(house, f'get -E "{source}" -o "{file}"; {_STAY}', office))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        listed = lftp(house, f'cls -1 --sort=name "{folder}/"', office).stdout.splitlines()
        return [line.removeprefix(f"{folder}/") for line in listed]


class Rclone(Cannot):
    """rclone as Debian has it: 1.60, which writes under the final name."""

    name = "rclone 1.60"
    needs: tuple[str, ...] = ("rclone",)

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(rclone(house, "copyto", str(file), f"relay:/{target}", office=office))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(rclone(house, "copyto", f"relay:/{source}", str(file), office=office))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(rclone(house, "moveto", f"relay:/{source}", str(file), office=office))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        return rclone(house, "lsf", f"relay:/{folder}", office=office).stdout.splitlines()


class Curl(Cannot):
    """curl with libssh2."""

    name = "curl"
    needs: tuple[str, ...] = ("curl",)

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(curl(house, "-T", str(file), path=quote(target), office=office))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return said(curl(house, "-C", "-", "-T", str(file), path=quote(target), office=office))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(curl(house, "-o", str(file), path=quote(source), office=office))

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return said(curl(house, "-C", "-", "-o", str(file), path=quote(source), office=office))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        removing = ("-Q", f'-rm "/{source}"')
        return said(curl(house, "-o", str(file), *removing, path=quote(source), office=office))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        return without_dots(curl(house, "--list-only", path=f"{folder}/", office=office).stdout.splitlines())


class Sshfs(Cannot):
    """sshfs: the tree mounted, and `cp`, `mv` and `ls` on it."""

    name = "sshfs"
    needs: tuple[str, ...] = ("sshfs", "fusermount")

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        with self._mounted(house, office, target) as tree:
            return said(run_program(["cp", str(file), str(tree / target)]))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        with self._mounted(house, office, target) as tree:
            remote = tree / target
            rest = f'tail -c +{remote.stat().st_size + 1} "$0" >> "$1"'
            return said(run_program(["sh", "-c", rest, str(file), str(remote)]))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        with self._mounted(house, office, source) as tree:
            return said(run_program(["cp", str(tree / source), str(file)]))

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        with self._mounted(house, office, source) as tree:
            rest = f'tail -c +{file.stat().st_size + 1} "$0" >> "$1"'
            return said(run_program(["sh", "-c", rest, str(tree / source), str(file)]))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        with self._mounted(house, office, source) as tree:
            return said(run_program(["mv", str(tree / source), str(file)]))

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        with self._mounted(house, office, folder) as tree:
            return run_program(["ls", "-1", str(tree / folder)]).stdout.splitlines()

    @contextlib.contextmanager
    def _mounted(self, house: House, office: OfficeNumber, path: str) -> Iterator[Path]:
        """Mount the tree for a block that works on *path*.

        close() does not wait for the CLOSE on the wire: an unmount right behind it loses that.  So one thread does
        everything in order, and a listing comes last, which the relay answers when the CLOSE before it is done.
        """
        folder = house.path / f"mounted-{time.monotonic_ns()}"
        with sshfs(house, folder, office, "-s") as tree:
            yield tree
            # Empty where what was fetched was all there was.
            for _ in (tree / path).parent.iterdir():
                pass
