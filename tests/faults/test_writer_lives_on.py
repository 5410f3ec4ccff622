"""Whatever fails beside a commit, the one who writes lives on: the next who asks is answered."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from house import PATIENCE_SECONDS
from ledgers import Shop, open_shop, plan_name
from nthcall import NO_MEMORY, Trap, Way, trap_store

from relay.errors import Deferred
from relay.ledger.disktime import DiskTime

# More calls than two commits make, each with its checkpoint.
_CALLS_MOST = 400


def trap_locks(patch: pytest.MonkeyPatch, trap: Trap) -> None:
    """Let the kernel have no room for another lock."""
    real = fcntl.flock

    def failing(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and trap.springs():
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        real(file, operation)

    patch.setattr(fcntl, "flock", failing)


def trap_memory(patch: pytest.MonkeyPatch, trap: Trap) -> None:
    """Let the store's engine find no memory."""
    trap_store(patch, trap, NO_MEMORY)


async def _send(shop: Shop, number: int) -> str | None:
    """Return the name of what was sent; None where it could not be now."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await shop.send(b"content", plan_name(number))).name
    except Deferred:
        return None


@pytest.mark.parametrize("is_quick", [False, True])
@pytest.mark.parametrize("trap_them", [trap_locks, trap_memory])
async def test_who_comes_after_any_failure_is_answered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trap_them: Callable[[pytest.MonkeyPatch, Trap], None],
    is_quick: bool,  # noqa: FBT001 - pytest gives it by its name
) -> None:
    """The Nth call for a lock or for memory fails, in the commit or in the checkpoint behind it, for every N.

    So whether the event loop goes on beside the commit or, where the disk *is_quick*, stands still for it.
    """
    monkeypatch.setattr(DiskTime, "is_quick", is_quick)
    trap = Trap()
    trap_them(monkeypatch, trap)
    # The log is folded into the store after each commit.
    shop = await open_shop(tmp_path, checkpoint_bytes=1)
    told: list[str | None] = []
    async with shop.ledger:
        for at in range(1, _CALLS_MOST):
            trap.arm(at, Way.ONCE)
            told += [await _send(shop, 3 * at), await _send(shop, 3 * at + 1)]
            trap.disarm()
            last = await _send(shop, 3 * at + 2)
            assert last is not None, f"nobody is served after call {at}"
            told.append(last)
            if not trap.sprung:
                break
        assert 1 < at < _CALLS_MOST - 1
        assert None in told
        assert {each.name for each in await shop.ledger.list_transfers(limit=1_000)} >= {name for name in told if name}
