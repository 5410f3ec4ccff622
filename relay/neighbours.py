"""Neighbours: what one worker asks of another, and is answered.

A question is one datagram into the inbox that every worker has (`relay.common`), its answer one into the asker's.  The
sockets belong to this server's own processes and have no name, so nobody else can write to them.

Who asks waits as long as the other one has what is asked about (*is_there*), and for some seconds at most: a worker
that died, hangs or drains holds nobody up.  Without an answer the asker goes on by what the store says, which decides
in any case; a question whose time is over is not carried out any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from relay import journal
from relay.common import Common

# As long as a client waits for a reply that says nothing (`relay.pace`), and a slow disk's commit in it.
PATIENCE_SECONDS: Final = 10.0
# How often it is looked whether the other one is still there.
_LOOK_SECONDS = 0.05
_DATAGRAM_BYTES = 65_536
# Datagrams that are read before others get their turn.
_AT_ONCE = 64
# A question or its answer, who sent it, its number, and until when, by CLOCK_MONOTONIC, it is waited for.
_HEAD = struct.Struct("<?HQd")

Answer = Callable[[bytes], Awaitable[bytes]]


class Neighbours:
    """The other workers, for this one."""

    def __init__(self, common: Common, answer: Answer) -> None:
        """Know them by *common*; *answer* answers what they ask."""
        self._common = common
        self._answer = answer
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        # A successor in this place must not take for its own what its predecessor is answered.
        self._numbers = itertools.count(secrets.randbits(62))

    @contextlib.contextmanager
    def reachable(self) -> Iterator[None]:
        """Answer for as long as this lasts; what lay in the inbox before was meant for somebody who is gone."""
        inboxes = self._common.inboxes
        if len(inboxes) <= 1:
            yield
            return
        inbox, loop = inboxes[self._common.index][0], asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            while True:
                os.read(inbox, _DATAGRAM_BYTES)
        loop.add_reader(inbox, self._read, inbox)
        try:
            yield
        finally:
            loop.remove_reader(inbox)

    async def ask(self, index: int, question: bytes, is_there: Callable[[], bool]) -> bytes | None:
        """Return what worker *index* answers, or None where none came while it *is_there*."""
        number, until = next(self._numbers), time.monotonic() + PATIENCE_SECONDS
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        if not self._common.inboxes:
            return None
        packet = _HEAD.pack(True, self._common.index, number, until) + question
        try:
            is_sent = False
            while time.monotonic() < until and is_there():
                # An inbox takes few datagrams at a time.
                is_sent = is_sent or self._send(index, packet)
                await asyncio.wait([answered], timeout=_LOOK_SECONDS)
                if answered.done():
                    return answered.result()
            return None
        finally:
            del self._waiting[number]

    def _send(self, index: int, packet: bytes) -> bool:
        try:
            os.write(self._common.inboxes[index][1], packet)
        except OSError:
            return False
        return True

    def _read(self, inbox: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                self._take(os.read(inbox, _DATAGRAM_BYTES))

    def _take(self, packet: bytes) -> None:
        if len(packet) < _HEAD.size:
            # No question: it is this worker's turn (`relay.lineup`).
            self._common.on_called()
            return
        is_question, sender, number, until = _HEAD.unpack_from(packet)
        content = packet[_HEAD.size :]
        if is_question:
            task = asyncio.create_task(self._reply(sender, number, until, content), name="neighbour")
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (answered := self._waiting.get(number)) is not None and not answered.done():
            answered.set_result(content)

    async def _reply(self, sender: int, number: int, until: float, question: bytes) -> None:
        if time.monotonic() > until:
            return
        try:
            answer = await self._answer(question)
        except Exception as error:  # noqa: BLE001 - the one wrapper at this edge
            journal.unexpected_error(journal.new_journal(), reference="neighbour", exception=error)
            return
        packet = _HEAD.pack(False, self._common.index, number, until) + answer
        # Nothing tells when an inbox has room again.
        while not self._send(sender, packet) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
