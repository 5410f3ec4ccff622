"""What a server leaves to its successor is taken only by one that can live beside it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import pytest

from relay.errors import ConfigError
from relay.succession import _VARIABLE, Legacy, find_legacy


@pytest.mark.parametrize("way", [None, 1, 3])
def test_who_shares_the_store_in_another_way_is_not_succeeded(way: int | None) -> None:
    """Workers of an older or a newer version would not keep out of each other's way while both live."""
    left = asdict(Legacy(os.getppid(), (), -1, -1, -1, (), 0, 2))
    assert find_legacy({_VARIABLE: json.dumps(left)}) is not None
    left.pop("store_way") if way is None else left.update(store_way=way)
    with pytest.raises(ConfigError, match="restart it"):
        find_legacy({_VARIABLE: json.dumps(left)})
