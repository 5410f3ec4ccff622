"""What waits when an office is suspended: nothing is lost, and time goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ledgers import NOW, A, B, C, Shop, plan_name

from relay.config import HousekeepingSettings
from relay.errors import Refused
from relay.housekeeping import go_round
from relay.lifecycle import State
from relay.model import OfficeStatus


async def test_what_waits_for_a_suspended_office_stays_and_what_it_sent_is_delivered(shop: Shop) -> None:
    """Nobody can send to it; its own files are collected; resumed in time it collects, and else they expire."""
    first, second = await shop.send(), await shop.send(name=plan_name(1))
    own = await shop.send(name=plan_name(2, B, C), sender=B, recipient=C)
    await shop.ledger.record_office_status(B, OfficeStatus.SUSPENDED, actor="test", now=NOW)
    with pytest.raises(Refused) as caught:
        await shop.send(name=plan_name(3))
    assert caught.value.code == "route.recipient_suspended"
    assert (await shop.collect(own)).state is State.COLLECTED
    await go_round(shop.ledger, HousekeepingSettings(), NOW + timedelta(days=50))
    assert await shop.ledger.has_noticed(A)
    await shop.ledger.record_office_status(B, OfficeStatus.ACTIVE, actor="test", now=NOW)
    assert (await shop.collect(first)).state is State.COLLECTED
    done = await go_round(shop.ledger, HousekeepingSettings(), NOW + timedelta(days=94))
    found = await shop.ledger.find_transfer(second.id)
    assert (done.expired, found and found.state) == (1, State.EXPIRED)
