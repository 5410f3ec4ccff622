"""Servers and load on processors of their own, so that the load keeps time and the server's times are the server's.

Where both run on the same processors, whoever sends at a certain moment comes late to it, and what it then measures is also
how long the server was kept from its processor by the programs that load it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from rig.servers import Running
from rig.workloads import Side

_HALF = 2


def halves() -> tuple[Sequence[int], Sequence[int]]:
    """Return the processors for servers and those for the load: none for servers where there is only one."""
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // _HALF
    return processors[:half], processors[half:]


@contextmanager
def kept_on(processors: Sequence[int]) -> Iterator[None]:
    """Keep this process, and whatever it starts in the block, on *processors*."""
    everything = os.sched_getaffinity(0)
    try:
        # A process that is started inherits it, with all threads it will have.
        os.sched_setaffinity(0, processors)
        yield
    finally:
        os.sched_setaffinity(0, everything)


def pinned(side: Side, servers: Sequence[int], load: Sequence[int]) -> Side:
    """Return *side* with its server kept on the processors *servers* and whatever is started beside it on *load*."""

    @contextmanager
    def start() -> Iterator[Running]:
        with kept_on(servers), side.start() as server, kept_on(load):
            yield server

    return replace(side, start=start)
