"""Succession: one server takes over from another without refusing a connection.

The old supervisor starts the program anew, whatever version lies on the disk now, and leaves it the sockets and the
memory in which limits are counted.  The new one says when it takes connections; only then does the old one let its
workers leave, who go on with the sessions that they have.  Where the new one cannot start, it says why, and nothing
has changed.

What is left to the successor stands in one variable of its environment, descriptors by their numbers, which stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, fields

from relay.common import NOBODY, Common
from relay.errors import ConfigError
from relay.listening import Entrances, Inherited, adopt

_VARIABLE = "RELAY_SUCCESSION"
# Opening a large store after a crash takes a while; a successor has no crash behind it.
_START_SECONDS = 300.0
_READY = "ready"
_REASON_BYTES = 65_536
# In which way processes keep out of each other's way in the store: those of two ways must not be at it together.  The second
# has the lock of who folds (`relay.ledger.foldahead`).
_STORE_WAY = 2


@dataclass(frozen=True, slots=True)
class Legacy:
    """What a server leaves to its successor: descriptors, -1 where there is none.

    *parent* is the process that leaves it.  *place* is the successor's first place in the memory *common*; it says on
    *answer* how it goes.
    """

    parent: int
    doors: tuple[int, ...]
    metrics: int
    watch: int
    common: int
    inboxes: tuple[int, ...]
    place: int
    answer: int
    store_way: int = _STORE_WAY

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        alone = (self.metrics, self.watch, self.common, self.answer)
        return (*self.doors, *(each for each in alone if each >= 0), *self.inboxes)

    def sockets(self) -> Inherited:
        """Return the sockets; ConfigError where they are none."""
        doors = tuple(adopt(each, "door") for each in self.doors)
        rest = [None if each < 0 else adopt(each, "metrics or watch") for each in (self.metrics, self.watch)]
        return Inherited(doors, rest[0], rest[1])

    def memory(self, workers: int) -> Common | None:
        """Return the memory for so many workers; None where it is of another form, or too small."""
        if self.common < 0:
            return None
        try:
            common = Common.attach(self.common, NOBODY)
        except (ValueError, OSError):
            return None
        return common if common.workers == workers and self.place + workers <= common.places else None

    def report(self, failure: str = "") -> None:
        """Say that connections are taken from now on, or why they cannot be; the old one acts upon it."""
        with contextlib.suppress(OSError):
            os.write(self.answer, (failure or _READY).encode()[:_REASON_BYTES])
            os.close(self.answer)


def find_legacy(environ: MutableMapping[str, str] = os.environ) -> Legacy | None:
    """Take what was left to this process, None where it is nobody's successor."""
    text = environ.pop(_VARIABLE, "")
    if not text:
        return None
    told = json.loads(text)
    if told["parent"] != os.getppid():
        # Of somebody who has ended, or never meant us.
        return None
    try:
        known = {field.name: told[field.name] for field in fields(Legacy)}
    except KeyError as error:
        raise ConfigError(f"the relay that hands over is of another kind (it leaves no {error}): restart it") from None
    if known["store_way"] != _STORE_WAY:
        raise ConfigError("the relay that hands over shares the store in another way than this one: restart it")
    legacy = Legacy(**{**known, "doors": tuple(known["doors"]), "inboxes": tuple(known["inboxes"])})
    for descriptor in legacy.descriptors:
        os.set_inheritable(descriptor, False)
    return legacy


class Successor:
    """A server that is to take over, while it starts."""

    def __init__(self, entrances: Entrances, common: Common | None, place: int, environ: dict[str, str]) -> None:
        """Start it; OSError where that cannot be.  *place* is its first place in *common*."""
        self._began_at = time.monotonic()
        self.answer, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        legacy = Legacy(
            parent=os.getpid(),
            doors=tuple(door.fileno() for door in entrances.doors),
            metrics=_number(entrances.metrics),
            watch=_number(entrances.watch),
            common=-1 if common is None else common.fileno(),
            inboxes=() if common is None else common.fds[1:],
            place=place,
            answer=theirs,
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                # As this one was started, also where the folder behind a link is another one now.
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, **environ, _VARIABLE: json.dumps(asdict(legacy))},
                pass_fds=legacy.descriptors,
            )
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def hear(self) -> str | None:
        """Return what has become of it: '' that it takes connections, or why not; None while it starts."""
        try:
            said = os.read(self.answer, _REASON_BYTES).decode("utf-8", "replace")
        except BlockingIOError:
            if time.monotonic() - self._began_at < _START_SECONDS:
                return None
            said = f"it did not start within {_START_SECONDS:.0f} s"
        if said == _READY:
            return ""
        if not said:
            # It has ended without a word of its own; what Python had to say about it is in the journal's stream.
            said = f"it ended with {self._process.wait()}"
        return said

    def end(self) -> None:
        """End it: it did not take over."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Wait for no more words of it."""
        os.close(self.answer)


def _number(found: socket.socket | None) -> int:
    return -1 if found is None else found.fileno()
