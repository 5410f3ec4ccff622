"""The relay as the service of a real systemd, with the unit and the socket that come with it.

It is a user's manager, in a mount namespace of its own: it stands beside whatever runs this machine and starts nothing
else.  What confines the service is left out of the unit, which only the machine's own manager can do (`test_deploy`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
from house import HOST, PATIENCE_SECONDS, House, MakeHouse, relay_command, run_program, wait_for

DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"
# What the unit says of how the relay begins, tells, is told, and ends.
KEPT = (
    "[Unit]", "[Service]", "Type=", "NotifyAccess=", "WatchdogSec=", "TimeoutStartSec=", "ExecStart=", "ExecReload=",
    "Restart=", "RestartSec=", "KillSignal=", "KillMode=", "TimeoutStopSec=", "StartLimit",
)  # fmt: skip
PROGRAMS = tuple(Path(folder) / "systemd" for folder in ("/usr/lib/systemd", "/lib/systemd"))
ACTIVE = ("--property=ActiveState", "--value")
# systemd takes nobody for booted with it, and starts no user's manager, without that folder.
BEGIN = """
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system &&
exec "$1" --user --log-target=console --unit=basic.target
"""


@dataclass(frozen=True, slots=True)
class Manager:
    """A running manager; *folder* holds its sockets and the units that it reads."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Where it and its commands look."""
        runtime, config = str(self.folder / "run"), str(self.folder / "config")
        return {"XDG_RUNTIME_DIR": runtime, "XDG_CONFIG_HOME": config, "HOME": str(self.folder)}

    def __call__(self, *words: str) -> str:
        """Run systemctl; return what it says."""
        done = run_program(["systemctl", "--user", *words], env=self.environment)
        assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def install(self, house: House, port: int) -> None:
        """Let it know the relay of *house* as a service, and its *port* as a socket."""
        units = self.folder / "config" / "systemd" / "user"
        program = [line for line in (DEPLOY / "relay.service").read_text().splitlines() if line.startswith(KEPT)]
        environment = " ".join(f'"{name}={value}"' for name, value in house.environment.items())
        program += [
            f"WorkingDirectory={house.path}",
            f"StandardError=append:{house.journal}",
            f"Environment={environment}",
        ]
        begin = "\n".join(program).replace("/opt/relay/bin/relay --home %S/relay", " ".join(relay_command(house.path)))
        (units / "relay.service").write_text(begin)
        listening = (DEPLOY / "relay.socket").read_text()
        (units / "relay.socket").write_text(listening.replace("=2222", f"={HOST}:{port}"))
        self("daemon-reload")

    def main(self) -> int:
        """Return the process that it takes for the relay."""
        return int(self("show", "relay.service", "--property=MainPID", "--value"))


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Return a manager of one's own."""
    program = next((path for path in PROGRAMS if path.exists()), None)
    if program is None or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("systemd or unshare is not installed, or this is not root")
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="systemd-") as name:
        manager = Manager(Path(name))
        (manager.folder / "run").mkdir(0o700)
        (manager.folder / "config" / "systemd" / "user").mkdir(parents=True)
        environment = {**os.environ, **manager.environment}
        environment.pop("DBUS_SESSION_BUS_ADDRESS", None)
        said = manager.folder / "said.txt"
        with said.open("wb") as output:
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", BEGIN, "sh", str(program)],
                env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        entrance = manager.folder / "run" / "systemd" / "private"
        wait_for(lambda: entrance.exists() or process.poll() is not None, "a manager")
        if process.poll() is not None:
            pytest.skip(f"systemd runs no user's manager here: {said.read_text()}")
        yield manager
        manager("exit")
        process.wait(PATIENCE_SECONDS)


class Visitor:
    """Somebody who logs in again and again; a refused connection ends it, *cut* counts those that did not end well."""

    def __init__(self, house: House) -> None:
        self.cut = self.well = 0
        self._house = house
        self._task = asyncio.create_task(self._visit())

    async def look_in(self) -> None:
        """Log in and look."""
        async with self._house.connect() as caller:
            await caller.sftp.listdir("send")

    async def leave(self) -> None:
        """Come no more; ConnectionRefusedError if one was refused."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _visit(self) -> None:
        while True:
            try:
                await self.look_in()
            except (asyncssh.Error, ConnectionResetError, BrokenPipeError):
                self.cut += 1
            else:
                self.well += 1


async def test_systemd_keeps_every_connection_through_reload_hand_over_and_restart(
    make_house: MakeHouse, manager: Manager
) -> None:
    """It takes the new process of a hand-over for the service, starts one that died again, and nobody is refused meanwhile."""
    house = make_house(server={"workers": 2})
    with socket.create_server((HOST, 0)) as free:
        house.port = free.getsockname()[1]
    manager.install(house, house.port)
    processes = [0]

    async def ask(*words: str) -> str:
        return await asyncio.to_thread(manager, *words)

    def is_another() -> bool:
        return manager.main() not in processes and manager("show", "relay.service", *ACTIVE) == "active"

    async def follow() -> None:
        await asyncio.to_thread(wait_for, is_another, "a new process")
        processes.append(manager.main())
        await visitor.look_in()

    await ask("start", "relay.socket")
    # Who comes first has it started.
    visitor = Visitor(house)
    await follow()
    await ask("reload", "relay.service")
    await ask("kill", "--kill-whom=main", "--signal=USR2", "relay.service")
    await follow()
    assert await ask("show", "relay.service", "--property=NRestarts", "--value") == "0"
    assert visitor.cut == 0, "reload and hand-over cost nobody anything"
    await ask("restart", "relay.service")
    await follow()
    await ask("kill", "--kill-whom=main", "--signal=KILL", "relay.service")
    await follow()
    await visitor.leave()
    assert visitor.well
    await ask("stop", "relay.socket", "relay.service")
    assert await ask("show", "relay.service", "--property=Result", "--value") == "success"
