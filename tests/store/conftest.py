"""Fixtures of this floor, among them the engines that keep the ledger's contract: its tests run on every one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from doorway import door, keyring, open_door
from ledgers import Shop, open_shop

__all__ = ["door", "keyring", "open_door", "shop"]


@pytest_asyncio.fixture(params=["sqlite"])
async def shop(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """Return an open ledger with a small register."""
    assert request.param == "sqlite"
    opened = await open_shop(tmp_path)
    async with opened.ledger:
        yield opened
