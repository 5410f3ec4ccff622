"""The house that tests live in reads its journal as it is written: whole lines, and what a kill leaves of one."""

from __future__ import annotations

import mmap

import pytest
from house import _parse_line

_LINE, _TORN = b'{"event": "told"}\n', b'{"event": "to'


@pytest.mark.parametrize(
    ("written", "start", "event"),
    [
        (_LINE, 0, "told"),
        (_TORN + _LINE, mmap.PAGESIZE - len(_TORN), "told"),
        (_TORN, mmap.PAGESIZE - len(_TORN), None),
        # Not where a kill tears it.
        (_TORN + _LINE, mmap.PAGESIZE - len(_TORN) - 1, "not.json"),
        (_TORN, 0, "not.json"),
        (b"Traceback (most recent call last):\n", 0, "not.json"),
        (b"strace: Process 7 attached\n", 0, None),
    ],
)
def test_a_line_is_torn_by_a_kill_only_where_a_page_of_the_file_ends(
    written: bytes, start: int, event: str | None
) -> None:
    """What is no JSON is a defect everywhere else."""
    line = _parse_line(written, start)
    assert (line and line["event"]) == event
