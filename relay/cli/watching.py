"""Asking the server that runs on this store, over its socket."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from dataclasses import dataclass

from relay.config import Config
from relay.listening import socket_path

_SECONDS = 10.0
_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    text: str


def ask_server(config: Config, path: str) -> Answer:
    """Ask for *path*; OSError where no server answers."""
    where = socket_path(config)
    folder = os.open(where.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as caller:
            caller.settimeout(_SECONDS)
            # By the folder's descriptor, because the name of a socket may have 107 bytes only.
            caller.connect(f"/proc/self/fd/{folder}/{where.name}")
            caller.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            said = bytearray()
            while len(said) < _ANSWER_BYTES and (part := caller.recv(65_536)):
                said += part
    finally:
        os.close(folder)
    head, found, body = bytes(said).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not found or len(words) < 3 or not words[1].isdigit():  # noqa: PLR2004 - version, status, reason
        raise ConnectionError("the server hung up")
    return Answer(int(words[1]), body.decode("utf-8", "replace"))
