"""The running relay goes by other settings, and leaves its place to another version, without refusing a connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import asyncssh
import psutil
import pytest
from house import PATIENCE_SECONDS, House, MakeHouse, general_name, pdf, wait_for
from watching import ask, dial_socket, read_metrics

WORKERS = 3


def change_settings(house: House, pattern: str, replacement: str) -> None:
    """Replace what matches in ``relay.toml``."""
    file = house.path / "relay.toml"
    text, count = re.subn(pattern, replacement, file.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1, pattern
    file.write_text(text, encoding="utf-8")


def signal_house(house: House, number: signal.Signals) -> None:
    """Send a signal to the process that was started."""
    assert house.process is not None
    house.process.send_signal(number)


# --- other settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, WORKERS])
async def test_changed_settings_hold_at_once_in_every_worker_and_open_sessions_stay(
    make_house: MakeHouse, workers: int
) -> None:
    """After SIGHUP each worker refuses what is larger than now allowed, on the sessions that were open before as well."""
    house = make_house(server={"workers": workers})
    house.start()
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(house.connect()) for _ in range(workers)]
        change_settings(house, r"^upload_bytes = .*", "upload_bytes = 1000")
        change_settings(house, r"^login_seconds = .*", "login_seconds = 31.0")
        change_settings(house, r"^lock_wait_seconds = .*", "lock_wait_seconds = 11.0")
        signal_house(house, signal.SIGHUP)
        told = await asyncio.to_thread(house.wait_for_event, "settings.adopted")
        for number, caller in enumerate(callers):
            with pytest.raises(asyncssh.SFTPError, match=r"limit\.size"):
                async with caller.sftp.open(f"send/{general_name(number=number)}", "wb") as file:
                    await file.write(pdf())
            assert "1000 B" in (await read(caller.sftp, "README.txt")).decode()
    assert told["changed"] == ["server.login_seconds", "limits.upload_bytes"]
    assert told["need_restart"] == ["store.lock_wait_seconds"]


async def read(sftp: asyncssh.SFTPClient, path: str) -> bytes:
    """Return a file's content."""
    async with sftp.open(path, "rb") as file:
        return await file.read()


async def test_settings_with_a_fault_leave_everything_as_it_was(house: House) -> None:
    """A relay.toml that cannot be used is told of in words, nothing changes, and a mended one is taken."""
    change_settings(house, r"^upload_bytes = .*", 'upload_bytes = "much"')
    signal_house(house, signal.SIGHUP)
    told = await asyncio.to_thread(house.wait_for_event, "settings.unusable")
    assert "upload_bytes" in told["reason"]
    async with house.connect() as caller:
        assert "2 GiB" in (await read(caller.sftp, "README.txt")).decode()
        change_settings(house, r"^upload_bytes = .*", 'upload_bytes = "3 MiB"')
        signal_house(house, signal.SIGHUP)
        await asyncio.to_thread(house.wait_for_event, "settings.adopted")
        await asyncio.to_thread(wait_for, lambda: house.config.limits.upload_bytes == 3 * 2**20, "the file")
        async with house.connect() as another:
            assert "3 MiB" in (await read(another.sftp, "README.txt")).decode()


# --- another version ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ended(house: House, successor: int) -> Iterator[psutil.Process]:
    """Have the process that took over, and end it: it is nobody's child any more."""
    process = psutil.Process(successor)
    try:
        yield process
    finally:
        process.terminate()
        psutil.wait_procs([process], PATIENCE_SECONDS)
        assert not process.is_running(), house.journal.read_text()[-3000:]


class Knocking:
    """Connects over and over, each time for a login and a look, and counts how each of them ended."""

    def __init__(self, house: House) -> None:
        self.outcomes: Counter[str] = Counter()
        self._house = house
        self._is_over = False

    async def knock(self) -> None:
        """Go on until it is over."""
        while not self._is_over:
            try:
                async with self._house.connect() as caller:
                    await caller.sftp.listdir("send")
            except (OSError, asyncssh.Error) as error:
                self.outcomes[f"{type(error).__name__}: {error}"] += 1
            else:
                self.outcomes["served"] += 1

    @contextlib.asynccontextmanager
    async def under_way(self, callers: int) -> AsyncIterator[None]:
        """Knock with so many at once meanwhile, and for a little before and after."""
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self.knock())
            await self._wait_for_more(callers)
            yield
            await self._wait_for_more(2 * callers)
            self._is_over = True

    async def _wait_for_more(self, count: int) -> None:
        wanted = self.outcomes["served"] + count
        await asyncio.to_thread(wait_for, lambda: self.outcomes["served"] >= wanted, "more who were served")


@pytest.mark.parametrize("workers", [1, WORKERS])
async def test_a_hand_over_refuses_no_connection_and_loses_no_upload(make_house: MakeHouse, workers: int) -> None:
    """Six clients that connect without a pause are all served; an upload that was half sent is finished with the old one."""
    house = make_house(server={"workers": workers})
    house.start()
    old, house_process = house.workers(), house.process
    assert house_process is not None
    knocking = Knocking(house)
    async with house.connect() as caller, caller.sftp.open(f"send/{general_name()}", "wb") as file:
        await file.write(pdf()[:1000])
        async with knocking.under_way(6):
            signal_house(house, signal.SIGUSR2)
            told = await asyncio.to_thread(house.wait_for_event, "handover.done")
            successor = told["successor"]
        with ended(house, successor):
            assert [*knocking.outcomes] == ["served"], knocking.outcomes
            new = psutil.Process(successor).children()
            assert len(new) == workers
            assert not {worker.pid for worker in new} & {worker.pid for worker in old}
            # Monitoring asks the new one, at the same socket.
            assert (await asyncio.to_thread(ask, dial_socket(house), "/readyz")) == (200, "ready\n")
            await file.write(pdf()[1000:], 1000)
            await file.close()
            await caller.sftp.stat(f"send/{general_name()}")
            caller.connection.close()
            await caller.connection.wait_closed()
            house.process = None
            with house_process:
                assert await asyncio.to_thread(house_process.wait, PATIENCE_SECONDS) == 0
            assert [transfer.name for transfer in house.transfers()] == [general_name()]
            async with house.connect() as another:
                assert await another.sftp.listdir("send")
            assert house.config.store.path.with_name("relay.db.watch").exists()
    kinds = [(event.kind.value, event.detail) for event in house.events() if event.kind.value.startswith("server.")]
    assert kinds == [
        ("server.started", ""),
        ("server.started", "took over"),
        ("server.stopped", "handed over"),
        ("server.stopped", ""),
    ]
    assert house.relay("audit", "verify").returncode == 0
    assert not house.config.store.path.with_name("relay.db.watch").exists()


async def test_where_the_new_version_cannot_start_the_old_one_goes_on_and_says_why(make_house: MakeHouse) -> None:
    """A successor that finds a faulty relay.toml ends, the journal says with what, and an open session notices nothing."""
    house = make_house(server={"workers": WORKERS})
    house.start()
    before = {worker.pid for worker in house.workers()}
    async with house.connect() as caller:
        change_settings(house, r"^upload_bytes = .*", 'upload_bytes = "much"')
        signal_house(house, signal.SIGUSR2)
        told = await asyncio.to_thread(house.wait_for_event, "handover.failed")
        assert "upload_bytes" in told["reason"]
        await caller.sftp.listdir("send")
        change_settings(house, r"^upload_bytes = .*", 'upload_bytes = "2 GiB"')
        async with house.connect() as another:
            await another.sftp.listdir("send")
    assert {worker.pid for worker in house.workers()} == before
    assert read_metrics(house)["relay_draining", ()] == 0
