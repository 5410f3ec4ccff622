from __future__ import annotations

import pytest

from relay.standard.characters import find_odd, is_plain


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\t"])
def test_half_a_character_before_a_line_end_does_not_join_with_the_next_line(end: bytes) -> None:
    """A first byte in front of a line end is no MS932, though the byte behind the line end would complete it."""
    data = b"\x82" + end + b"\x81@"
    assert not is_plain(data)
    assert [odd.code for odd in find_odd(data)] == ["content.encoding"]
