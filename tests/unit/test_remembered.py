"""What is remembered of what clients send, so as not to work it out again, stays small however long that is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from house import CARE_MANAGER
from indoors import identity_of

from relay.common import Common
from relay.config import LimitSettings
from relay.sftp import wire
from relay.sftp.handles import Handles
from relay.sftp.limits import Shares
from relay.sftp.order import find_lanes
from relay.tree import resolve_path
from relay.vault import MasterKey, Vault, new_key

# As many as the largest of these memories holds, nearly as long as a path may be.
_TEXTS, _CHARACTERS = 2_048, 4_000
_KEPT_BYTES_MOST = 1024 * 1024
_SHORT_CHARACTERS = 100
_VAULT = Vault(MasterKey("m", new_key()), new_key())
_COMMON = Common.alone()

REMEMBERING: dict[str, Callable[[str], object]] = {
    "digests of names": lambda text: _VAULT.index("1312345678", text),
    "places of counts": lambda text: _COMMON.total("uploads", text),
    "places in the tree": lambda text: resolve_path(f"/send/{text}".encode()),
}


@pytest.mark.parametrize("ask", REMEMBERING.values(), ids=REMEMBERING)
def test_long_paths_are_not_remembered(ask: Callable[[str], object]) -> None:
    """Two thousand different paths of 4,000 characters leave less than 1 MiB behind."""
    tracemalloc.start()
    try:
        for number in range(_TEXTS):
            ask(f"{number}{'x' * _CHARACTERS}")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < _KEPT_BYTES_MOST, f"{kept / 1024 / 1024:.1f} MiB"


def test_what_waits_is_known_by_little_of_a_long_handle() -> None:
    """A handle of 200,000 bytes, which the relay gave nobody, makes a lane of a few characters."""
    handles = Handles(1, Shares(LimitSettings()).join(identity_of(CARE_MANAGER)))
    lanes = find_lanes(wire.Request(wire.FSTAT, 1, bytes(200_000)), handles)
    assert lanes
    assert sum(map(len, lanes)) < _SHORT_CHARACTERS
