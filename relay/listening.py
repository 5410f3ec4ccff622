"""Listening: the sockets that a server is reached at, opened once, or received from who had them before.

They belong to the supervisor and are inherited by every worker, so that no worker's end closes them and what waits to
be accepted is never lost.  They come

    from systemd      LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, as sd_listen_fds(3) says
    from a relay      that hands over to this one (`relay.succession`)
    from here         where nobody gave them, by ``server.host`` and ``server.port``

To systemd a name tells what a socket is for: ``metrics`` is for monitoring, anything else is a door for SFTP.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.config import Config
from relay.errors import ConfigError

SOCKET_SUFFIX = ".watch"
METRICS = "metrics"
_FIRST = 3
# Connections that wait to be taken: beyond, the system drops them and their clients hang instead of reading why.
BACKLOG = 1024
_CALLERS_WAITING = 64


@dataclass(frozen=True, slots=True)
class Inherited:
    """The sockets that were received at the start."""

    doors: tuple[socket.socket, ...] = ()
    metrics: socket.socket | None = None
    watch: socket.socket | None = None


@dataclass(frozen=True, slots=True)
class Entrances:
    """Where the server is reached: *doors* for SFTP, *metrics* for monitoring, *watch* for the operator.

    *trouble* says why there is no *watch*.
    """

    host: str
    port: int
    doors: tuple[socket.socket, ...]
    metrics: socket.socket | None
    watch: socket.socket | None
    trouble: str = ""

    def close(self) -> None:
        """Let go of all of them; who inherited them still has them."""
        for each in (*self.doors, self.metrics, self.watch):
            if each is not None:
                each.close()


def receive(environ: MutableMapping[str, str] = os.environ) -> Inherited:
    """Take what was inherited for this process, and leave no word of it to its children.

    ConfigError where a door is no socket that listens.
    """
    count, told = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if told != str(os.getpid()) or not count.isdecimal():
        return Inherited()
    doors: list[socket.socket] = []
    metrics: socket.socket | None = None
    for number in range(int(count)):
        descriptor, name = _FIRST + number, names[number] if number < len(names) else ""
        os.set_inheritable(descriptor, False)
        if name == METRICS:
            metrics = adopt(descriptor, name)
        else:
            doors.append(adopt(descriptor, name or "a door"))
    return Inherited(tuple(doors), metrics)


def adopt(descriptor: int, name: str) -> socket.socket:
    """Return the socket behind *descriptor*; ConfigError where it is none that listens."""
    try:
        found = socket.socket(fileno=descriptor)
        is_listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        is_listening = 0
    if not is_listening or found.type != socket.SOCK_STREAM:
        raise ConfigError(
            f"Descriptor {descriptor} ({name}), which was handed over to be listened on, is no socket that listens. "
            "In relay.socket, use ListenStream= and Accept=no."
        )
    return found


def open_entrances(config: Config, inherited: Inherited) -> Entrances:
    """Return what was inherited, and open what was not; ConfigError where a port cannot be had."""
    doors = inherited.doors or _open_doors(config.server.host, config.server.port)
    host = str(doors[0].getsockname()[0]) if inherited.doors else config.server.host
    metrics, trouble = inherited.metrics, ""
    if metrics is not None and config.metrics.port is None:
        metrics.close()
        metrics = None
    if metrics is None and config.metrics.port is not None:
        metrics = _open_metrics(config.metrics.host, config.metrics.port)
    watch = inherited.watch
    if watch is None:
        try:
            watch = _open_watch(socket_path(config))
        except OSError as error:
            trouble = str(error)
    for each in (*doors, metrics, watch):
        if each is not None:
            each.setblocking(False)
    return Entrances(host, int(doors[0].getsockname()[1]), tuple(doors), metrics, watch, trouble)


def _open_doors(host: str, port: int) -> Sequence[socket.socket]:
    try:
        found: list[socket.socket] = []
        for family, _, _, _, (address, *_) in dict.fromkeys(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ):
            # Where any port will do, all addresses of the name get the same one.
            given = int(found[0].getsockname()[1]) if found else port
            found.append(_bind(family, str(address), given, is_everywhere=host == "::"))
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {error.strerror}. "
            "Is another relay running? Set server.port in relay.toml to a free port."
        ) from error
    return found


def _bind(family: int, address: str, port: int, *, is_everywhere: bool = False) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" is every address, those of IPv4 included; any other one is itself.
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_everywhere)
        found.bind((address, port))
        found.listen(BACKLOG)
    except OSError:
        found.close()
        raise
    return found


def _open_metrics(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, (address, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bind(family, str(address), port)
    except OSError as error:
        raise ConfigError(
            f"Metrics cannot listen on {host}:{port}: {error.strerror}. Set metrics.port in relay.toml to a free port, "
            'or to "off".'
        ) from error


def socket_path(config: Config) -> Path:
    """Return where the server of this store can be asked by its own user."""
    path = config.store.path
    return path.with_name(path.name + SOCKET_SUFFIX)


def _open_watch(path: Path) -> socket.socket:
    """Listen on *path*, for this user alone; what an earlier server left there is replaced."""
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        # By the folder's descriptor, because the name of a socket may have 107 bytes only.
        found.bind(f"/proc/self/fd/{folder}/{path.name}")
        found.listen(_CALLERS_WAITING)
    except OSError:
        found.close()
        raise
    finally:
        os.umask(before)
        os.close(folder)
    return found
