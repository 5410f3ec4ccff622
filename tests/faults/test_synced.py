"""The order of syncing and answering, seen from outside: no OK leaves before the store's log is on the disk."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import raw_sftp as sftp
from faultshim import MakeHouse
from house import CARE_MANAGER, PATIENCE_SECONDS, House, general_name, pdf
from raw_sftp import open_raw

from relay.vault import CHUNK_BYTES

CALLS = "pwrite64,pwritev,write,writev,sendto,sendmsg,fdatasync,fsync"
# 17802 1690000000.123456 fdatasync(12</home/x/relay.db-wal>) = 0 <0.000123>, or its two halves.
LINE = re.compile(
    r"(?P<pid>\d+) +(?P<at>\d+\.\d+) (?:<\.\.\. (?P<resumed>\w+) resumed>.*|(?P<call>\w+)\(\d+<(?P<file>.*?)>(?P<rest>.*))"
)


@dataclass(frozen=True, slots=True)
class Act:
    """One call: what was done to which file, and the places in the record where it began and where it had returned."""

    call: str
    file: str
    began: int
    ended: int
    result: str

    @property
    def is_log_write(self) -> bool:
        """True for a write into the store's log."""
        return self.call in ("pwrite64", "pwritev", "write") and self.file.endswith("relay.db-wal")

    @property
    def is_log_sync(self) -> bool:
        """True for a sync of the store's log that succeeded."""
        return self.call in ("fdatasync", "fsync") and self.file.endswith("relay.db-wal") and self.result == "0"

    @property
    def is_reply(self) -> bool:
        """True for bytes that left on a connection."""
        return self.file.startswith(("TCP", "socket:"))


def parse_trace(text: str) -> list[Act]:
    """Read what `strace -f -ttt -yy -o` wrote, joining calls that another thread interrupted, in order of their begin."""
    acts: list[Act] = []
    open_calls: dict[str, tuple[str, str, int]] = {}
    for place, line in enumerate(text.splitlines()):
        match = LINE.match(line)
        if match is None:
            continue
        result = line.rpartition("= ")[2].split(" ")[0]
        if match["resumed"]:
            call, file, began = open_calls.pop(match["pid"])
            assert call == match["resumed"]
            acts.append(Act(call, file, began, place, result))
        elif line.endswith("<unfinished ...>"):
            open_calls[match["pid"]] = (match["call"], match["file"], place)
        else:
            acts.append(Act(match["call"], match["file"], place, place, result))
    return sorted(acts, key=lambda act: act.began)


def check_order(acts: list[Act]) -> None:
    """AssertionError unless the log was synced after its last write, and the last answer left after that."""
    last_write = [act for act in acts if act.is_log_write][-1]
    syncs = [act for act in acts if act.is_log_sync and act.began > last_write.ended]
    assert syncs, "the log was not synced after its last write"
    synced = syncs[0].ended
    early = [act for act in acts if act.is_reply and last_write.began <= act.began < synced]
    assert not early, f"{len(early)} packets left between the last write of the log and its sync"
    late = [act for act in acts if act.is_reply and act.began > synced]
    assert late, "nothing left after the sync, so the OK had left before it"
    assert len(late) == 1, "the OK is the one thing that was left to say"


TRACE = """\
10    1.0 pwrite64(5</x/relay.db-wal>, "", 24, 0) = 24
10 1.1 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "", 24, 0) = 24
11 1.2 pwrite64(5</x/relay.db-wal>, "", 8192, 24) = 8192
11 1.3 fdatasync(5</x/relay.db-wal> <unfinished ...>
10 1.4 write(2</dev/null>, "", 1) = 1
11 1.5 <... fdatasync resumed>) = 0
10 1.6 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "", 24, 0) = 24
"""


def test_the_order_is_judged_rightly() -> None:
    """The judge of this file passes the right order and no other: too early, never synced, sync failed, other file."""
    check_order(parse_trace(TRACE))
    lines = TRACE.splitlines()
    early = [*lines[:4], lines[6], lines[5]]
    failed = [line.replace("= 0", "= -1 EIO") if "resumed" in line else line for line in lines]
    other = [line.replace("fdatasync(5</x/relay.db-wal>", "fdatasync(6</x/relay.db>") for line in lines]
    never = [line for line in lines if "fdatasync" not in line]
    for wrong in (early, failed, other, never, [*lines, lines[2]]):
        with pytest.raises(AssertionError):
            check_order(parse_trace("\n".join(wrong)))


@pytest.fixture
def traced(make_house: MakeHouse, tmp_path: Path) -> tuple[House, Path]:
    """Return a house that serves under strace, and the file of its record."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("ptrace is not permitted here, so nobody can watch the server's calls")
    house, record = make_house(), tmp_path / "trace.txt"
    house.start(wrap=("strace", "-f", "-ttt", "-yy", "-s", "0", "-e", f"trace={CALLS}", "-o", str(record)))
    return house, record


@pytest.mark.parametrize("size", [5_000, 4 * CHUNK_BYTES + 1_000], ids=["small", "large"])
async def test_the_log_is_synced_before_the_ok_leaves(traced: tuple[House, Path], size: int) -> None:
    """After CLOSE: the last write of the log, then its sync, then the OK, in this order and nothing in between."""
    house, record = traced
    # What it writes down of its first round would otherwise be the last thing that the killed server did.
    while json.loads(house.relay("housekeeping", "status", "--json").stdout)["last_at"] is None:  # noqa: ASYNC110 - another process does it
        await asyncio.sleep(0.1)
    content = pdf(size)
    async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{general_name()}")
        for at in range(0, len(content), 32_000):
            reply = await raw.call(sftp.WRITE, handle, sftp.Long(at), content[at : at + 32_000])
            assert reply.code == sftp.OK
        assert (await raw.call(sftp.CLOSE, handle)).code == sftp.OK
        # Killed with the client still connected: the OK is the last thing that the server said.
        _kill_under_strace(house)
    check_order(parse_trace(record.read_text()))


def _kill_under_strace(house: House) -> None:
    """Kill the server alone, so that strace can write down the rest of its record."""
    process, house.process = house.process, None
    assert process is not None
    with process:
        servers = psutil.Process(process.pid).children(recursive=True)
        for server in servers:
            # The first one's end must not be anything that the others can act upon.
            server.suspend()
        for server in servers:
            server.kill()
        process.wait(PATIENCE_SECONDS)
