"""Several workers of one relay, each with a door of its own, so that a test chooses whom it talks to.

The workers are real processes on one store and one common memory.  What the supervisor does for them (it makes the
memory, and takes back what a dead worker had) is done by the test.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from house import CARE_MANAGER, HOST, House, Pass

from relay.common import Common
from relay.model import OfficeNumber

_WORKER = """
import os, select, sys, threading
from pathlib import Path
from relay import journal
from relay.common import NOBODY, Common
from relay.configfile import load_config
from relay.crew import Crew
from relay.listening import Inherited, open_entrances
from relay.orders import Line
from relay.server import Post, work
home, common, place = Path(sys.argv[1]), Common.attach(int(sys.argv[2]), NOBODY), int(sys.argv[3])
config = load_config(home, os.environ)
journal.configure_journal(config.journal.format, config.journal.level, worker=place)
entrances, (ours, theirs) = open_entrances(config, Inherited()), Line.pair()

def tell():
    select.select([ours.socket], [], [])
    print(f"listening on {entrances.host}:{entrances.port}", flush=True)

threading.Thread(target=tell, daemon=True).start()
work(config, Post(0, place, Crew(1), entrances, theirs, common))
"""


@dataclass
class Door(House):
    """One worker of a house: the same home, a port and a process of its own."""

    index: int = 0

    def open(self, common: Common) -> None:
        """Serve in the place of this worker, and return when connections are taken."""
        assert self.process is None, "the worker runs already"
        with self.journal.open("ab") as journal:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, str(self.path), str(common.fileno()), str(self.index)],
                env={**os.environ, **self.environment, "RELAY_SERVER__HOST": HOST, "RELAY_SERVER__PORT": "0"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=journal,
                encoding="utf-8",
                start_new_session=True,
                pass_fds=common.fds,
            )
        said = self._first_line(self.process)
        assert said.startswith("listening on "), f"the worker did not start: {said}{self.journal.read_text()}"
        self.port = int(said.rpartition(":")[2])


@dataclass
class Several(House):
    """A house with so many *doors*; whoever does not choose one dials each in its turn."""

    doors: list[Door] = field(default_factory=list)
    common: Common = field(default_factory=Common.alone)
    _dialled: int = 0

    @classmethod
    def of(cls, house: House, count: int = 2) -> Several:
        """Serve *house*, which nobody serves, with so many workers."""
        common = Common.create(count)
        doors = [Door(house.path, house.settings, index=index) for index in range(count)]
        several = cls(house.path, house.settings, doors=doors, common=common)
        for door in doors:
            door.open(common)
        return several

    @contextlib.asynccontextmanager
    async def dial(
        self, office: OfficeNumber = CARE_MANAGER, *, pass_: Pass | None = None, **options: Any
    ) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Log in at the next door."""
        self._dialled += 1
        door = self.doors[self._dialled % len(self.doors)]
        async with door.dial(office, pass_=pass_, **options) as connection:
            yield connection

    def bury(self, index: int) -> None:
        """Kill worker *index* where it stands, and do what the supervisor then does."""
        self.doors[index].kill()
        self.common.clear(index)

    def close(self) -> None:
        """Stop the workers that run; the journal is looked at as that of any house."""
        for door in self.doors:
            door.close()
        self.common.close()
