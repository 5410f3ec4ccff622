"""An upload that has ended is gone at once, with all that judged it: nothing of it waits for the garbage collector."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
from house import CARE_MANAGER, plan_csv, plan_name
from indoors import identity_of, open_indoors, prepared_store

from relay import journal
from relay.manners import Manners

__all__ = ["prepared_store"]


@pytest.mark.parametrize("is_finished", [True, False])
async def test_an_upload_that_has_ended_leaves_no_garbage(
    tmp_path: Path, prepared_store: Path, *, is_finished: bool
) -> None:
    """Committed or given up, it is freed with its last handle, the garbage collector switched off."""
    store = tmp_path / "relay.db"
    store.write_bytes(prepared_store.read_bytes())
    async with open_indoors(store) as relay:
        intake, identity = relay.desks.intake, identity_of(CARE_MANAGER)
        upload = await intake.open(plan_name(), None, identity, Manners(), journal.new_journal(), is_afresh=True)
        assert upload.write_now(0, plan_csv())
        gc.collect()
        gc.disable()
        try:
            await (upload.close() if is_finished else upload.abort("the test"))
            intake.forget(upload, identity)
            gone = weakref.ref(upload)
            del upload
            assert gone() is None
        finally:
            gc.enable()
