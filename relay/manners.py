"""How a client's program ends a whole file, and so which CLOSE looks cut off (DESIGN section 4, Completeness).

Some programs close a file that was interrupted as if it were whole.  What tells the two apart is how the file was
written: the lengths of its WRITEs, and whether its size was set.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

# The lengths in which OpenSSH's sftp writes a file: all but the last one (CLIENTS.md, section 3).
_FULL_WRITES = frozenset({32_768, 261_120})


@dataclass(frozen=True, slots=True)
class Manners:
    """How this client's program tells a whole file from a cut one (DESIGN section 4, Completeness).

    *ends_short*: its last WRITE is shorter than the others (OpenSSH).  *sets_size*: it sets the size before it closes
    a whole file (lftp).
    """

    ends_short: bool = False
    sets_size: bool = False


class Handwriting:
    """What is known of how one upload was written."""

    __slots__ = ("_looked_whole", "_manners", "_write_lengths", "declared_size")

    def __init__(self, manners: Manners, *, looked_whole: bool = False) -> None:
        """Begin; *looked_whole* where it goes on with what was closed before, and looked whole then.

        *declared_size* is what the client said that the size is, None where it did not.
        """
        self._manners = manners
        self._looked_whole = looked_whole
        self._write_lengths: set[int] = set()
        self.declared_size: int | None = None

    def note_write(self, length: int) -> None:
        """Remember that a WRITE had this length."""
        self._write_lengths.add(length)

    def looks_cut(self, size: int) -> bool:
        """True where this client's program would have ended a whole file of *size* bytes otherwise."""
        lengths = self._write_lengths
        if self.declared_size == size or (self._looked_whole and not lengths):
            return False
        if self._manners.sets_size:
            return True
        # One that was taken up again and to which nothing was added ended as it had been cut off.
        return self._manners.ends_short and len(lengths) <= 1 and lengths <= _FULL_WRITES
