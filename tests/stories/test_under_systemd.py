"""What systemd is told and gives: readiness, reloading and ending over a real socket, and a port that it opened itself."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from house import HOST, PATIENCE_SECONDS, House, MakeHouse, relay_command, run_program, wait_for


class Manager:
    """The side of the service manager: a datagram socket, and everything that was said to it."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until so many messages match; return the last match."""

        def look() -> list[re.Match[str]]:
            try:
                while True:
                    self.said.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                pass
            found = [match for said in self.said if (match := re.search(pattern, said, re.MULTILINE))]
            return found if len(found) >= count else []

        return wait_for(look, f"{pattern} among {self.said}")[-1]

    def close(self) -> None:
        """End listening."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Return a service manager that listens."""
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def test_systemd_hears_that_it_is_ready_reloads_lives_and_ends(make_house: MakeHouse, manager: Manager) -> None:
    """READY, WATCHDOG again and again, RELOADING with its moment and READY behind it, STOPPING; all by the first process."""
    house = make_house(server={"workers": 2})
    house.start(wrap=("env", f"NOTIFY_SOCKET={manager.address}", "WATCHDOG_USEC=1000000"))
    manager.wait_for(r"^READY=1$")
    manager.wait_for(rf"^STATUS=2 of 2 workers serve port {house.port}$")
    manager.wait_for(r"^WATCHDOG=1$", 3)
    assert house.process is not None
    house.process.send_signal(signal.SIGHUP)
    manager.wait_for(r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
    manager.wait_for(r"^READY=1$", 2)
    assert manager.said.index("READY=1") > next(
        n for n, said in enumerate(manager.said) if said.startswith("RELOADING")
    )
    house.workers()[0].kill()
    manager.wait_for(r"^STATUS=1 of 2 workers")
    assert house.stop() == 0
    manager.wait_for(r"^STOPPING=1$")
    # Its children know nothing of the socket, so that none of them can speak for the service.
    assert not [said for said in manager.said if "MAINPID" in said]


def test_systemd_hears_who_takes_over(make_house: MakeHouse, manager: Manager) -> None:
    """At a hand-over the old process names the new one, which then speaks for itself, and the old one says no more."""
    house = make_house()
    house.start(wrap=("env", f"NOTIFY_SOCKET={manager.address}"))
    process, house.process = house.process, None
    assert process is not None
    with process:
        process.send_signal(signal.SIGUSR2)
        successor = psutil.Process(int(manager.wait_for(r"^MAINPID=(\d+)$")[1]))
        assert process.wait(PATIENCE_SECONDS) == 0
    manager.wait_for(r"^READY=1$", 2)
    assert not [said for said in manager.said if said == "STOPPING=1"]
    successor.terminate()
    manager.wait_for(r"^STOPPING=1$")
    psutil.wait_procs([successor], PATIENCE_SECONDS)
    assert not successor.is_running()


# What systemd does between fork and exec: sd_listen_fds(3).
_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="relay.socket")
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_port_that_systemd_opened_is_served_and_outlives_the_relay(make_house: MakeHouse, workers: int) -> None:
    """Who connects while the relay is restarted is not refused: the connection waits, and the next one serves it."""
    house = make_house(server={"workers": workers})
    with socket.create_server((HOST, 0)) as opened:
        activate = (sys.executable, "-c", _ACTIVATE, str(opened.fileno()))
        house.start(wrap=activate, pass_fds=(opened.fileno(),))
        assert house.port == opened.getsockname()[1]
        await look_in(house)
        assert house.stop() == 0
        waiting = asyncio.create_task(look_in(house))
        await asyncio.to_thread(house.start, wrap=activate, pass_fds=(opened.fileno(),))
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)


async def look_in(house: House) -> None:
    """Log in and look."""
    async with house.connect() as caller:
        await caller.sftp.listdir("send")


def test_a_descriptor_that_is_no_listening_socket_is_refused_in_words(make_house: MakeHouse) -> None:
    """With Accept=yes systemd would hand over a connection: the relay does not start, and says what to write instead."""
    house = make_house()
    here, there = socket.socketpair()
    with here, there:
        done = run_program(
            [sys.executable, "-c", _ACTIVATE, str(here.fileno()), *relay_command(house.path), "serve"],
            env=house.environment,
            pass_fds=(here.fileno(),),
        )
    assert done.returncode == 1
    assert "Accept=no" in done.stderr
