"""Offices that stay logged in while programs come and go, and see what is there.

They ask over SFTP, request by request, and the ledger beside the server; nothing of the programs under test is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from house import CARE_MANAGER, DAY_CARE, HOME_HELP, PATIENCE_SECONDS, House
from raw_sftp import OK, RawSftp, open_raw

from relay.ledger.sqlite import SqliteLedger
from relay.model import OfficeNumber, Transfer

T = TypeVar("T")


class Onlookers:
    """A sender, a recipient and an office that has nothing to do with it, on a loop of their own."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self._sessions: dict[OfficeNumber, RawSftp] = {}
        self._ledger: SqliteLedger | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for *work* on their loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def send(self, name: str, content: bytes) -> None:
        """Upload *content*, which is accepted."""
        assert self.run(self._sessions[CARE_MANAGER].put(f"/send/{name}", content)).code == OK

    def received(self, name: str, folder: str = "receive") -> bytes:
        """Return what the recipient reads; it is collected then."""
        return self.run(self._sessions[HOME_HELP].get(f"/{folder}/{name}"))

    def listed(self, office: OfficeNumber, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(name for name in self.run(self._sessions[office].list(f"/{folder}")) if name not in (".", ".."))

    def transfers(self, name: str) -> list[Transfer]:
        """Return the transfers of that name."""
        assert self._ledger is not None
        return [each for each in self.run(self._ledger.list_transfers()) if each.name == name]

    def __enter__(self) -> Self:
        """Log in."""
        self._thread.start()
        self.run(self._log_in())
        return self

    def __exit__(self, *_: object) -> None:
        """Log out."""
        try:
            self.run(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _log_in(self) -> None:
        self._ledger = await self._stack.enter_async_context(self._house.ledger())
        for office in (CARE_MANAGER, HOME_HELP, DAY_CARE):
            connection = await self._stack.enter_async_context(self._house.dial(office))
            self._sessions[office] = await self._stack.enter_async_context(open_raw(connection))
