"""A crash never looks like tampering: killed at any moment, the history in the store and its anchor hold together."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable

import asyncssh
import pytest
import raw_sftp as sftp
from faultshim import MakeHouse
from house import HOME_HELP, House, general_name, pdf
from raw_sftp import open_raw

from relay.cli.audit_verify import Verdict, _judge_store
from relay.cli.audit_words import say_fault
from relay.keyring import load_keyring

KILLS = 4


def verify(house: House) -> Verdict:
    """Judge as `relay audit verify` does; it has to find nothing wrong."""
    key, config = load_keyring(house.path / "keys").audit_key, house.config
    verdict = _judge_store(config.store.path, config.audit.anchor, key, [], is_quiet=True)
    assert [say_fault(fault) for fault in verdict.faults] == []
    return verdict


async def keep_busy(house: House, number: Callable[[], int]) -> None:
    """Log in, upload and read, again and again, until the server is gone."""
    while True:
        try:
            async with house.dial() as connection, open_raw(connection) as raw:
                for _ in range(5):
                    name = general_name(number=number())
                    assert (await raw.put(f"/send/{name}", pdf(900) + name.encode() + b"\n%%EOF\n")).code == sftp.OK
            async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
                await raw.get(f"/receive/{name}")
        except (EOFError, OSError, asyncssh.Error, AssertionError):
            # Whatever goes wrong once the server is gone is its end; before that, nothing may.
            if house.process is not None and house.process.poll() is None:
                raise
            return


@pytest.mark.timeout(300)
async def test_a_killed_server_leaves_a_history_that_holds(make_house: MakeHouse) -> None:
    """While it writes history in batches and the anchor every few milliseconds; before a restart and after it."""
    house = make_house(audit={"anchor_seconds": 0.02})
    numbers = iter(range(1, 1_000_000))
    chosen = random.Random(20_261_122)
    before = 0
    for _ in range(KILLS):
        house.start()
        # Not waiting for anything: the moment of the kill is what is drawn.
        killer = threading.Timer(chosen.uniform(0.05, 0.9), house.kill)
        killer.start()
        await asyncio.gather(*(keep_busy(house, lambda: next(numbers)) for _ in range(4)))
        killer.join()
        events = verify(house).progress.events
        assert events > before
        before = events
    house.start()
    house.stop()
    verdict = verify(house)
    assert verdict.anchor is not None
    assert verdict.anchor.mark.batch == verdict.progress.batches
