"""A cable between a client and the relay that a test can hold, let go, pull out or cut with a reset.

It passes bytes on unread.  Held in one direction, it stops taking bytes from that side, so that the program there
fills its buffers and waits: whatever the test does then happens in the middle of a transfer, on any machine.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from house import HOST, House, wait_for

Direction = Literal["up", "down"]
_PIECE_BYTES = 65_536
_LOOK_SECONDS = 0.01


@dataclass
class Cable:
    """All connections that go through it share its fate; *passed* counts the bytes of all."""

    port: int
    passed: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    _most: dict[Direction, float] = field(default_factory=lambda: {"up": math.inf, "down": math.inf})
    _cut: Literal["close", "reset"] | None = None
    _is_half: bool = False
    _is_over: bool = False

    def hold(self, direction: Direction, *, after: int = 0) -> None:
        """Let *after* more bytes pass in *direction*, then none."""
        self._most[direction] = self.passed[direction] + after

    def is_held(self, direction: Direction) -> bool:
        """True once as many bytes have passed as were allowed."""
        return self.passed[direction] >= self._most[direction]

    def wait_until_held(self, direction: Direction) -> None:
        """Wait until the allowed bytes have passed."""
        wait_for(lambda: self.is_held(direction), f"{self._most[direction]} bytes {direction} the cable")

    def release(self) -> None:
        """Let everything pass."""
        self._most = {"up": math.inf, "down": math.inf}

    def pull(self, *, reset: bool = False) -> None:
        """End every connection on both sides, with FIN or, if *reset*, with RST."""
        self._cut = "reset" if reset else "close"

    def end_half(self) -> None:
        """End the way up with a FIN, and go on passing what comes down: the client still listens."""
        self._is_half = True

    def run(self, listener: socket.socket, target: int) -> None:
        """Take connections until the cable is thrown away."""
        threads: list[threading.Thread] = []
        while not self._is_over:
            if select.select([listener], [], [], _LOOK_SECONDS)[0]:
                near, _ = listener.accept()
                far = socket.create_connection((HOST, target))
                threads.append(threading.Thread(target=self._pass_on, args=(near, far)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def throw_away(self) -> None:
        """End the connections and take no more."""
        self._is_over = True

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        ways = [_Way("up", near, far), _Way("down", far, near)]
        with near, far:
            for end in (near, far):
                end.setblocking(False)
            try:
                while not all(way.is_done for way in ways):
                    if self._cut or self._is_over:
                        self._end(near, far)
                        return
                    if self._is_half:
                        ways[0].finish()
                    self._step(ways)
            except OSError:
                return  # one side has gone: the other one is closed as well

    def _step(self, ways: list[_Way]) -> None:
        reading = {way.source: way for way in ways if way.wants_bytes and not self.is_held(way.direction)}
        writing = {way.target: way for way in ways if way.waiting}
        readable, writable, _ = select.select(reading, writing, [], _LOOK_SECONDS)
        for source in readable:
            way = reading[source]
            most = min(_PIECE_BYTES, self._most[way.direction] - self.passed[way.direction])
            self.passed[way.direction] += way.take(int(most))
        for target in writable:
            writing[target].give()

    def _end(self, *ends: socket.socket) -> None:
        if self._cut == "reset":
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass
class _Way:
    direction: Direction
    source: socket.socket
    target: socket.socket
    waiting: bytes = b""
    is_done: bool = False

    @property
    def wants_bytes(self) -> bool:
        return not self.waiting and not self.is_done

    def take(self, most: int) -> int:
        self.waiting = self.source.recv(most) if most else b""
        if most and not self.waiting:
            self.finish()
        return len(self.waiting)

    def finish(self) -> None:
        """Tell the other side that nothing more comes; the second time there is nothing to tell."""
        if not self.is_done:
            self.is_done, self.waiting = True, b""
            self.target.shutdown(socket.SHUT_WR)

    def give(self) -> None:
        self.waiting = self.waiting[self.target.send(self.waiting) :]


@contextlib.contextmanager
def cable_to(house: House) -> Iterator[tuple[Cable, House]]:
    """Lay a cable to *house*; yield it, and the house as it is reached through it."""
    with socket.create_server((HOST, 0)) as listener:
        cable = Cable(listener.getsockname()[1])
        thread = threading.Thread(target=cable.run, args=(listener, house.port))
        thread.start()
        try:
            yield cable, replace(house, port=cable.port)
        finally:
            cable.throw_away()
            thread.join()
