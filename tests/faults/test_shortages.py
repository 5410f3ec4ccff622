"""A machine that is short of something: open files, memory, a disk that may be written to, keys. It is said, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import psutil
import pytest
import raw_sftp as sftp
from faultshim import Ending, MakeHouse, Shim
from house import HOME_HELP, PATIENCE_SECONDS, House, general_name, pdf
from raw_sftp import RawSftp, open_raw

from relay.keymaking import create_keyring

SMALL, LARGE = pdf(10_000), pdf(3_000_000)


@contextlib.asynccontextmanager
async def sender(house: House) -> AsyncIterator[RawSftp]:
    """Log in and open SFTP."""
    async with house.dial() as connection, open_raw(connection) as raw:
        yield raw


def worker_of(house: House) -> psutil.Process:
    """Return the process that serves."""
    (worker,) = house.workers()
    return worker


@contextlib.contextmanager
def limited(process: psutil.Process, what: int, most: int) -> Iterator[None]:
    """Let *process* have no more than that of something."""
    before = resource.prlimit(process.pid, what)
    resource.prlimit(process.pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, what, before)


async def put(raw: RawSftp, number: int, content: bytes = SMALL) -> sftp.Reply:
    """Upload the file of that number."""
    return await raw.put(f"/send/{general_name(number=number)}", content)


async def check_delivered(house: House, expected: dict[int, bytes]) -> None:
    """AssertionError unless the recipient finds exactly these, whole."""
    async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
        names = set(await raw.list("/new")) - {".", ".."}
        assert names == {general_name(number=number) for number in expected}
        for number, content in expected.items():
            assert await raw.get(f"/receive/{general_name(number=number)}") == content


async def test_without_open_files_connections_wait_and_who_is_inside_works(make_house: MakeHouse) -> None:
    """The operator is told once with the setting's name; nobody is turned away, and all get in once there are more."""
    house = make_house(server={"workers": 1})
    house.start()
    worker = worker_of(house)

    async def knock(number: int) -> sftp.Reply:
        async with house.dial(login_timeout=PATIENCE_SECONDS) as connection, open_raw(connection) as raw:
            return await put(raw, number)

    async with sender(house) as raw:
        assert (await put(raw, 0)).code == sftp.OK
        with limited(worker, resource.RLIMIT_NOFILE, worker.num_fds() + 2):
            knocking = [asyncio.create_task(knock(10 + number)) for number in range(12)]
            told = await asyncio.to_thread(house.wait_for_event, "connection.not_accepted")
            assert "LimitNOFILE" in told["advice"]
            assert (await put(raw, 1)).code == sftp.OK
        assert [(await reply).code for reply in knocking] == [sftp.OK] * 12
    assert len(house.journal_lines("connection.not_accepted")) <= 12
    house.wait_for_event("connection.accepted_again")
    await check_delivered(house, dict.fromkeys((0, 1, *range(10, 22)), SMALL))


async def test_without_memory_nothing_is_promised_and_the_server_stays(make_house: MakeHouse) -> None:
    """Whoever was answered OK is delivered; later the same files get through, and the server ends when it is asked to."""
    house = make_house(server={"workers": 1})
    house.start()
    worker, delivered = worker_of(house), dict[int, bytes]()

    async def attempt(number: int, content: bytes) -> None:
        try:
            async with sender(house) as raw:
                if (await put(raw, number, content)).code == sftp.OK:
                    delivered[number] = content
        except (OSError, EOFError, asyncssh.Error):
            # Without memory a connection may end; what counts is that nothing was promised.
            return

    await attempt(0, SMALL)
    assert delivered
    # What the process has mapped already it may use; from here on it gets nothing more.
    with limited(worker, resource.RLIMIT_AS, worker.memory_info().vms):
        await asyncio.gather(*(attempt(number, LARGE) for number in range(1, 7)))
        await attempt(7, SMALL)
    assert worker_of(house).pid == worker.pid, "the server was started anew"
    for number in range(1, 7):
        async with sender(house) as raw:
            assert (await put(raw, number, LARGE)).code == sftp.OK
        delivered[number] = LARGE
    await check_delivered(house, delivered)
    assert house.stop() == 0
    spoken = {line["event"] for line in house.journal_lines()}
    assert not spoken & {"error.unexpected", "not.json"}


async def test_a_disk_that_may_not_be_written_to_is_told_and_goes_on_by_itself(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    """As a kernel does to a failing disk: what is there is read, each upload is told, and writing goes on without hands."""
    house, shim = make_house(), Shim(tmp_path)
    shim.serve(house)
    async with sender(house) as raw, house.dial(HOME_HELP) as two, open_raw(two) as theirs:
        assert (await put(raw, 0)).code == sftp.OK
        shim.arm(1, Ending.FAIL_FROM_THERE, errno.EROFS)
        for _ in range(3):
            reply = await put(raw, 1)
            assert reply.code == sftp.FAILURE
            assert reply.text.startswith("server.busy: ")
        handle = await theirs.open(f"/new/{general_name(number=0)}", sftp.READING)
        assert (await theirs.call(sftp.READ, handle, sftp.Long(0), 32_000)).data == SMALL
        shim.disarm()
        assert (await put(raw, 1)).code == sftp.OK
    (told,) = house.journal_lines("store.failed")
    assert f"The disk of {house.config.store.path.parent} fails, or may no longer be written to" in told["cause"]
    house.wait_for_event("store.recovered")
    await check_delivered(house, {0: SMALL, 1: SMALL})


def test_a_store_on_a_read_only_disk_is_not_served(make_house: MakeHouse) -> None:
    """The server ends at once and says where to look; once the disk may be written to, it starts."""
    house = make_house()
    data = house.config.store.path.parent
    mount = ["mount", "--bind", str(data), str(data)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(data)], check=True, capture_output=True)
        done = house.relay("serve", "--port", "0")
        assert done.returncode == 1, done.stderr
        assert str(data) in done.stderr
        assert "Look at the disk" in done.stderr or "Read-only" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", str(data)], check=True, capture_output=True)
    house.start()
    assert house.stop() == 0


# --- keys --------------------------------------------------------------------------------------------------------

AUTHORITIES, SECRETS = ("user_ca", "host_ca"), ("master.key", "index.key", "audit.key", "host_rsa_key")


def spoil(keys: Path, name: str, fault: str, others: Path) -> None:
    """Do that to a key."""
    if fault == "missing":
        for file in (keys / name, keys / f"{name}.pub"):
            file.unlink(missing_ok=True)
    elif fault == "another relay's":
        shutil.copy2(others / name, keys / name)
    elif fault == "garbage":
        (keys / name).write_bytes(b"no key\n" * 20)
    else:
        (keys / name).chmod(0o644)


async def test_a_key_that_is_not_right_is_told_before_anything_listens(make_house: MakeHouse, tmp_path: Path) -> None:
    """The server ends at once, says which keys and what to type; with the right ones it starts as if nothing had been."""
    house = make_house()
    house.start()
    async with sender(house) as raw:
        assert (await put(raw, 0)).code == sftp.OK
    assert house.stop() == 0
    keys, kept, others = house.path / "keys", tmp_path / "kept", tmp_path / "others"
    keys.rename(kept)
    create_keyring(others)
    for fault, names, mend in (
        ("missing", (*AUTHORITIES, "master.key", "index.key", "host_rsa_key"), "put it back from your backup"),
        ("missing", ("audit.key",), "put it back from your backup"),
        ("readable by others", AUTHORITIES + SECRETS, "chmod 600"),
        ("garbage", AUTHORITIES, "put it back from your backup"),
        ("garbage", SECRETS, "put it back from your backup"),
        # A CA of another relay's is a CA: it is the register that knows none of its certificates.
        ("another relay's", ("host_rsa_key",), "run `relay init`"),
        ("another relay's", ("master.key",), "put back the backup of keys/"),
        ("another relay's", ("index.key",), "from your backup of keys/"),
        ("another relay's", ("audit.key",), "from your backup of keys/"),
    ):
        shutil.copytree(kept, keys)
        for name in names:
            spoil(keys, name, fault, others)
        done = await asyncio.to_thread(house.relay, "serve", "--port", "0")
        shutil.rmtree(keys)
        assert done.returncode == 1, f"{fault} {names}: {done.stdout}{done.stderr}"
        assert mend in done.stderr
        assert "Traceback" not in done.stderr
        # The store says which master key it needs, by its number.
        assert not [name for name in names if name not in done.stderr.replace("the master key", "master.key")], (
            done.stderr
        )
    kept.rename(keys)
    house.start()
    await check_delivered(house, {0: SMALL})
