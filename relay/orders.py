"""Orders: what the supervisor and a worker say to each other, over a pair of sockets.

The end of the line is a word as well: to the supervisor it means that the worker has ended, to a worker that it is
left alone and has to go.  Nobody ever waits for the other to listen.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from enum import StrEnum

# A message is one packet; the system takes twice as much.
MOST_BYTES = 96 * 1024


class Word(StrEnum):
    """What can be said."""

    # The worker to the supervisor.
    READY = "ready"
    FAILED = "failed"
    # The supervisor to a worker.
    LEAD = "lead"
    ADOPT = "adopt"
    STOP = "stop"
    LEAVE = "leave"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Line:
    """One end of the line."""

    socket: socket.socket

    @classmethod
    def pair(cls) -> tuple[Line, Line]:
        """Return both ends."""
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            end.setblocking(False)
        return cls(ends[0]), cls(ends[1])

    def fileno(self) -> int:
        """Return the descriptor, to wait on."""
        return self.socket.fileno()

    def say(self, word: Word, payload: bytes = b"") -> None:
        """Say *word*; lost where the other has ended, or is stuck."""
        with contextlib.suppress(OSError):
            self.socket.send(word.encode() + b" " + payload[:MOST_BYTES])

    def hear(self) -> tuple[Word, bytes] | None:
        """Return the next word, None where there is none yet; EOFError where the other is gone."""
        try:
            said = self.socket.recv(2 * MOST_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not said:
            raise EOFError
        word, _, payload = said.partition(b" ")
        return Word(word.decode()), payload

    def close(self) -> None:
        """End it."""
        self.socket.close()
