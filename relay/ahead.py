"""Bytes of an upload that arrived ahead of their turn.

Clients pipeline WRITEs, and some let them overtake each other.  What is kept here lies behind a gap that is still
open; a later WRITE over the same bytes wins, whatever its edges.  Bounded in bytes and in pieces, because a piece of
one byte costs far more than a byte.

Pure: no clock, no store.
"""

from __future__ import annotations

# More than a client's requests under way; each piece is one WRITE, or what later ones left of it.
_PIECES_MOST = 256


class Ahead:
    """Pieces by their offset, none touching another's bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pieces: dict[int, bytes] = {}
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def size_bytes(self) -> int:
        """How many bytes are kept."""
        return self._bytes

    def keep(self, offset: int, data: bytes) -> bool:
        """Keep *data*, whose place was `cut` before; False, and nothing is kept, where that would be too much."""
        if self._bytes + len(data) > self._most_bytes or len(self._pieces) >= _PIECES_MOST:
            return False
        self._pieces[offset] = data
        self._bytes += len(data)
        return True

    def cut(self, start: int, end: int | None) -> None:
        """Forget the bytes from *start* to *end*, to the last one where *end* is None."""
        for offset, data in list(self._pieces.items()):
            behind = offset + len(data)
            if start < behind and (end is None or offset < end):
                del self._pieces[offset]
                self._bytes -= len(data)
                if offset < start:
                    self._put(offset, data[: start - offset])
                if end is not None and end < behind:
                    self._put(end, data[end - offset :])

    def take(self, offset: int) -> bytes | None:
        """Return the piece that begins at *offset* and forget it; None where there is none."""
        data = self._pieces.pop(offset, None)
        if data is not None:
            self._bytes -= len(data)
        return data

    def clear(self) -> None:
        """Forget everything."""
        self._pieces, self._bytes = {}, 0

    def _put(self, offset: int, data: bytes) -> None:
        self._pieces[offset] = data
        self._bytes += len(data)
