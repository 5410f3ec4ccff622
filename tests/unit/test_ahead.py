"""Bytes that arrive ahead of their turn, against a plain dictionary of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.ahead import Ahead

pieces = st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=12))


@given(st.lists(pieces, max_size=12), st.integers(0, 40))
def test_the_last_write_wins_whatever_its_edges(writes: list[tuple[int, bytes]], start: int) -> None:
    """What comes out in order is what a dictionary of single bytes holds."""
    ahead, model = Ahead(1_000), dict[int, int]()
    for offset, data in writes:
        ahead.cut(offset, offset + len(data))
        assert ahead.keep(offset, data)
        model.update(enumerate(data, offset))
    ahead.cut(0, start)
    found: dict[int, int] = {}
    for offset in range(60):
        found.update(enumerate(ahead.take(offset) or b"", offset))
    assert found == {at: byte for at, byte in model.items() if at >= start}
    assert not ahead


def test_no_more_is_kept_than_allowed() -> None:
    """Too many bytes and too many pieces are both turned away, and leave what was there."""
    ahead = Ahead(1_000)
    assert ahead.keep(10, b"x" * 900)
    assert not ahead.keep(2_000, b"x" * 101)
    ahead.clear()
    kept = sum(ahead.keep(2 * number, b"x") for number in range(1_000))
    assert 64 <= kept <= 500
