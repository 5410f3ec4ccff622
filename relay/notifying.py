"""Notifying: what systemd is told of the server, by the protocol of sd_notify(3).

Without systemd, or where its socket cannot be written to, nothing happens: who serves offices does not wait for who
watches.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_MICRO = 1_000_000


class Notifier:
    """Tells the service manager; made once, in the process that it knows as the main one."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Take the manager's address out of *environ*, so that no child speaks for the service."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watched, told = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        # What a successor, who will be the main process, has to know.
        self.environ = {
            name: value for name, value in (("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", watched)) if value
        }
        self._address = address
        is_watched = watched.isdecimal() and told in ("", str(os.getpid()))
        # Half of the time that is allowed, as sd_watchdog_enabled(3) advises; None where nobody waits for a sign.
        self.sign_seconds = int(watched) / _MICRO / 2 if is_watched else None
        self._socket = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def tell(self, *lines: str) -> None:
        """Send *lines*, such as ``READY=1``, in one message."""
        if self._socket is not None:
            address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), address)

    def reloading(self) -> None:
        """Say that the settings are being read again; `tell` ``READY=1`` ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
