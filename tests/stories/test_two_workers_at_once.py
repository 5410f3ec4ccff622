"""Two sessions of one office do the same thing at the same moment, each with a worker of its own: it ends as with one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from house import MakeHouse
from several import Several
from test_two_at_once import (
    test_one_temporary_name_is_renamed_twice,
    test_two_temporary_names_are_given_one_final_name,
    test_what_was_cut_off_is_resumed_by_two,
)

__all__ = [
    "test_one_temporary_name_is_renamed_twice",
    "test_two_temporary_names_are_given_one_final_name",
    "test_what_was_cut_off_is_resumed_by_two",
]


@pytest.fixture
def house(make_house: MakeHouse) -> Iterator[Several]:
    """Return a relay of two workers; of two sessions each has one of them."""
    several = Several.of(make_house())
    yield several
    several.close()
