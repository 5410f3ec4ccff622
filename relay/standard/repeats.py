"""Repeats: what occurs in a file more than once.

Digests are held, not records, and at most `MOST_DIGESTS` of them: what follows is compared with the records held
and no longer with each other, so that in a very long file a repetition may go unnoticed.  A digest has 64 bits, so
that two different records are taken for one in less than one of a thousand million such files; it is only a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

# About 10 MB; at 150 bytes a record, the first 15 MB of a file.
MOST_DIGESTS = 100_000


class Repeats:
    """What of a file was seen before."""

    __slots__ = ("_digests",)

    def __init__(self) -> None:
        self._digests: set[int] = set()

    def note(self, things: Sequence[Hashable], found: Callable[[int], None]) -> None:
        """Take *things*; *found* is called with the index of each that was there before, here or earlier."""
        digests = set(map(hash, things))
        is_strange = self._digests.isdisjoint(digests)
        if is_strange and len(self._digests) >= MOST_DIGESTS:
            return
        if is_strange and len(digests) == len(things) and len(self._digests) + len(digests) <= MOST_DIGESTS:
            self._digests |= digests
            return
        for index, thing in enumerate(things):
            digest = hash(thing)
            if digest in self._digests:
                found(index)
            elif len(self._digests) < MOST_DIGESTS:
                self._digests.add(digest)
