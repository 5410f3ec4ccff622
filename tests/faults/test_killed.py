"""The server killed at every step of a commit, and started again: what was answered OK is there, nothing is there by half."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncssh
import pytest
import raw_sftp as sftp
from faultshim import Ending, MakeHouse, Shim
from house import HOME_HELP, PATIENCE_SECONDS, House, general_name, pdf
from raw_sftp import open_raw

from relay.keyring import load_keyring
from relay.ledger.sqlite import SqliteLedger
from relay.model import Transfer
from relay.vault import CHUNK_BYTES, Vault

SMALL, LARGE = 10_000, 5 * CHUNK_BYTES + 1_000
# A large upload is some 800 calls: all of them with one that is killed would take an hour.
LARGE_STEPS = 14


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    """Return the means to let a call on the store's files end badly."""
    return Shim(tmp_path)


class Trial:
    """One house, killed again and again: what was sent to it, and what of that was answered OK."""

    def __init__(self, house: House, shim: Shim, size: int) -> None:
        self.house, self.shim = house, shim
        self.body = pdf(size)
        self.sent: dict[str, bytes] = {}
        self.promised: set[str] = set()
        shim.serve(house)

    async def upload(self, name: str) -> bool:
        """Upload; True where the client was answered OK."""
        content = self.sent.setdefault(name, self.body + name.encode() + b"\n%%EOF\n")
        try:
            async with self.house.dial() as connection, open_raw(connection) as raw:
                is_ok = (await raw.put(f"/send/{name}", content)).code == sftp.OK
        except (EOFError, OSError, asyncssh.Error):
            is_ok = False
        if is_ok:
            self.promised.add(name)
        return is_ok

    async def kill_at(self, step: int, how: Ending) -> bool:
        """Upload a new file to a server that is killed at *step*, restart it; False where no such step came."""
        name = general_name(number=1 + len(self.sent))
        self.shim.arm(step, how)
        is_ok = await self.upload(name)
        calls = self.shim.disarm()
        if calls < step:
            assert is_ok, "nobody was killed, and the client was not answered OK"
            return False
        self._bury()
        self.shim.serve(self.house)
        self._examine()
        assert await self.upload(name), "the same file does not get through after the restart"
        return True

    def _bury(self) -> None:
        process, self.house.process = self.house.process, None
        assert process is not None
        with process:
            assert process.wait(PATIENCE_SECONDS) == -9

    def _examine(self) -> None:
        """See that the store is sound and every transfer in it whole, and that none is missing that was promised."""
        keyring = load_keyring(self.house.path / "keys")
        found = self.house.ask(lambda ledger: read_all(ledger, Vault(keyring.master, keyring.index_key)))
        for transfer, content in found:
            assert content == self.sent[transfer.name]
        names = [transfer.name for transfer, _ in found]
        assert len(names) == len(set(names)), "a file became two transfers"
        assert self.promised <= set(names), "a file was answered OK and is not there"
        with closing(sqlite3.connect(self.house.config.store.path)) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert store.execute("PRAGMA foreign_key_check").fetchall() == []
            events = store.execute("SELECT count(*) FROM event WHERE kind = 'accepted'").fetchone()
            assert events == (len(found),), "a transfer without its event, or an event without its transfer"

    async def fetch_all(self) -> None:
        """See that the recipient finds every file that was sent, once and whole."""
        async with self.house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
            names = [name for name in await raw.list("/new") if name not in (".", "..")]
            assert sorted(names) == sorted(self.sent)
            for name in names:
                assert await raw.get(f"/receive/{name}") == self.sent[name]


async def read_all(ledger: SqliteLedger, vault: Vault) -> list[tuple[Transfer, bytes]]:
    """Return every transfer with its bytes, opened and compared with the digest in its record."""
    found = []
    for transfer in await ledger.list_transfers():
        payload = await ledger.open_payload(transfer.id)
        sealer = vault.open_sealer(
            payload.wrapped_key, payload.uid, size_bytes=payload.size_bytes, chunk_count=payload.chunk_count
        )
        parts = [sealer.open_chunk(n, await ledger.read_chunk(payload, n)) for n in range(payload.chunk_count)]
        content = b"".join(parts)
        assert len(content) == transfer.size_bytes
        found.append((transfer, content))
    return found


# What a kill before one step leaves is what a kill after the step before it leaves; only after the last it is new.
@pytest.mark.parametrize("how", [Ending.KILL_BEFORE, Ending.KILL_HALFWAY], ids=["before", "halfway"])
@pytest.mark.timeout(600)
async def test_a_small_upload_is_whole_or_not_there_wherever_the_server_is_killed(
    make_house: MakeHouse, shim: Shim, how: Ending
) -> None:
    """Before and in the middle of every single write and sync of its commit, and right after the last one."""
    trial = Trial(make_house(), shim, SMALL)
    step = 1
    while await trial.kill_at(step, how):
        step += 1
    assert step > 8, "the commit has hardly any steps: the shim does not see them"
    assert await trial.kill_at(step - 1, Ending.KILL_AFTER)
    await trial.fetch_all()


@pytest.mark.timeout(600)
async def test_a_large_upload_is_whole_or_not_there_wherever_the_server_is_killed(
    make_house: MakeHouse, shim: Shim
) -> None:
    """While its chunks are staged and in its commit: at steps over the whole upload, and at each of the last ones."""
    await kill_at_many(Trial(make_house(), shim, LARGE))


@pytest.mark.timeout(600)
async def test_a_checkpoint_may_be_cut_off_anywhere(make_house: MakeHouse, shim: Shim) -> None:
    """While the log is folded into the file after each commit: what was answered before stays whole."""
    await kill_at_many(Trial(make_house(store={"checkpoint_bytes": 65_536}), shim, 8 * SMALL))


async def kill_at_many(trial: Trial) -> None:
    """Kill at steps over the whole upload, each in another way."""
    with trial.shim.counting() as counted:
        assert await trial.upload(general_name(number=0))
    ways = [Ending.KILL_BEFORE, Ending.KILL_HALFWAY, Ending.KILL_AFTER]
    for number, step in enumerate(steps_of(counted[0], LARGE_STEPS)):
        await trial.kill_at(step, ways[number % len(ways)])
    await trial.fetch_all()


def steps_of(total: int, count: int) -> Iterator[int]:
    """Return *count* steps: half of them spread evenly, half the last ones, where the commit is."""
    spread = {1 + place * total // (count // 2) for place in range(count // 2)}
    yield from sorted(spread | set(range(total - count // 2, total + 1)))
