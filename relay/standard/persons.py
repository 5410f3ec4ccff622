"""Persons: who in a file has nothing to do with its recipient (standard, sections 3 and 9).

Table 6 as planned and table 7 list the services of all providers of a person.  A person (insurer and insured) none
of whose lines names the recipient as the provider must not be in the file: it is the worst accident that an exchange
can have, and the reason why this is judged although it needs the whole file.

Numbers of persons are held while the file arrives, at most `MOST_PERSONS`; a file with more cannot be judged and is
taken for one with a stranger in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress

from relay.standard.grids import Grid, Row
from relay.standard.plans import INSURED, INSURER

# A hundred times what a large office has in a month; about 20 MB.
MOST_PERSONS = 100_000


class Strangers:
    """The persons of a file who have no line of the recipient's, as far as it was read."""

    __slots__ = ("_doubtful", "_recipient", "_related", "_waiting", "is_overfull")

    def __init__(self, recipient: str) -> None:
        self._recipient = recipient.encode()
        self._related: set[bytes] = set()
        # With the line in which each of them is named first.
        self._waiting: dict[bytes, int] = {}
        # Those of whom a record could not be read, or whose number is none.
        self._doubtful: set[bytes] = set()
        self.is_overfull = False

    def note_rows(self, rows: Iterable[Row], grid: Grid, line_of: Callable[[int], int]) -> None:
        """Take the different *rows* of *grid*: the insurer and the insured first, the provider last."""
        persons = [row[0] + row[1] for row in rows]

        first: dict[bytes, int] = {}

        def line_of_row(index: int) -> int:
            # Asked for a person's first row only, which is that of the person's first record.
            if not first:
                records = [*map(bytes.__add__, grid.column(INSURER), grid.column(INSURED))]
                # Backwards, so that the first one stays.
                first.update(zip(reversed(records), range(len(records) - 1, -1, -1), strict=True))
            return line_of(first[persons[index]])

        self.note(persons, [row[-1] for row in rows], line_of_row)

    def note(self, persons: Sequence[bytes], providers: Iterable[bytes], line_of: Callable[[int], int]) -> None:
        """Take records: the person of each and the provider it names; *line_of* tells the line of the n-th."""
        served = set(compress(persons, map(self._recipient.__eq__, providers)))
        if served:
            self._related |= served
            for person in self._waiting.keys() & served:
                del self._waiting[person]
        strange = set(persons) - self._related
        if strange:
            self._wait(persons, strange, line_of)
        if len(self._related) + len(self._waiting) > MOST_PERSONS:
            self.is_overfull = True

    def note_unread(self, person: bytes, line: int) -> None:
        """Take a record that cannot be read whole: a line of the recipient's in it counts for nothing."""
        self.note([person], [b""], lambda _: line)
        self.doubt([person])

    def doubt(self, persons: Iterable[bytes]) -> None:
        """Let it be open whether *persons* have to do with the recipient."""
        if len(self._doubtful) <= MOST_PERSONS:
            self._doubtful.update(persons)

    def _wait(self, persons: Sequence[bytes], strange: set[bytes], line_of: Callable[[int], int]) -> None:
        for index, person in enumerate(persons):
            if person in strange:
                strange.discard(person)
                # Records may come out of order where not all are alike.
                known = self._waiting.get(person)
                if known is not None or len(self._waiting) <= MOST_PERSONS:
                    self._waiting[person] = min(line_of(index), known or line_of(index))
                if not strange:
                    return

    @property
    def serves_nobody(self) -> bool:
        """True where no line of the recipient's was found at all."""
        return not self._related

    @property
    def lines(self) -> list[int]:
        """The lines in which persons are named first who have no line of the recipient's, in order."""
        return sorted(line for person, line in self._waiting.items() if person not in self._doubtful)

    @property
    def doubtful_lines(self) -> list[int]:
        """The same of persons of whom it is open."""
        return sorted(line for person, line in self._waiting.items() if person in self._doubtful)
