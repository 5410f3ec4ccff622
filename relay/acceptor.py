"""Acceptor: takes connections from sockets that several processes share, so that each gets its part.

All workers are woken by a connection and one of them has it.  Left to themselves they share unevenly: with one
connection at a time one worker of four took 139 of 200, and connections stay for hours.  So who has more connections
than another waits a few milliseconds, in which the other takes it; who is left alone with it takes it in the end.

Ending to accept loses nothing: what waits stays in the sockets, which others have as well.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence

from relay import journal
from relay.crew import Crew
from relay.edge import Welcomer
from relay.journal import Journal

# For the other one to wake up and take it; three times, should he be busy just then.
_COURTESY_SECONDS = 0.003
_COURTESIES = 3
_PAUSE_SECONDS = 1.0
# The client is gone already, or something that is wrong with it alone (accept(2)).
_ITS_OWN = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.EAGAIN}


class Acceptor:
    """Takes connections for one worker."""

    def __init__(
        self,
        doors: Sequence[socket.socket],
        welcomer: Welcomer,
        crew: Crew,
        index: int,
        count: Callable[[], int],
        line: Journal,
    ) -> None:
        """Prepare for *doors*; *count* tells how many connections there are."""
        self._doors = doors
        self._welcomer = welcomer
        self._crew = crew
        self._index = index
        self._count = count
        self._line = line
        self._courtesies: dict[socket.socket, int] = {}
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._arriving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        # Told once, however many connections wait.
        self._is_short = False

    def open(self) -> None:
        """Begin to accept."""
        self._is_open = True
        self._crew.open(self._index, is_open=True)
        for door in self._doors:
            self._attend(door)

    async def close(self) -> None:
        """Accept no more, leave the sockets to those who also have them, and receive who was accepted already."""
        self._is_open = False
        self._crew.open(self._index, is_open=False)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for door in self._doors:
            self._loop.remove_reader(door)
            door.close()
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _attend(self, door: socket.socket) -> None:
        self._timers.pop(door, None)
        self._loop.add_reader(door, self._accept, door)

    def _pause(self, door: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(door)
        self._timers[door] = self._loop.call_later(seconds, self._attend, door)

    def _accept(self, door: socket.socket) -> None:
        count = self._count() + len(self._arriving)
        given = self._courtesies.get(door, 0)
        if given < _COURTESIES and self._crew.has_less_busy(self._index, count):
            self._courtesies[door] = given + 1
            self._pause(door, _COURTESY_SECONDS)
            return
        self._courtesies[door] = 0
        try:
            guest, _ = door.accept()
        except OSError as error:
            if error.errno not in _ITS_OWN:
                # No descriptors, no memory: the connection waits, and asking at once would only take up time.
                if not self._is_short:
                    journal.accept_failed(self._line, cause=str(error), seconds=_PAUSE_SECONDS)
                self._is_short = True
                self._pause(door, _PAUSE_SECONDS)
            return
        if self._is_short:
            self._is_short = False
            journal.accept_recovered(self._line)
        self._crew.note_connections(self._index, count + 1)
        task = self._loop.create_task(self._receive(guest))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _receive(self, guest: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._welcomer.receive, guest)
        except OSError:
            # Gone again.
            guest.close()
