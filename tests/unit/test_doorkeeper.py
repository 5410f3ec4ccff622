"""Who is counted together before login, and when nobody new is taken."""

from __future__ import annotations

import asyncio

import pytest

from relay.doorkeeper import STRANGERS_SHARE, Load, Turnstile, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("203.0.113.255", "203.0.113.0/24"),
        ("203.0.114.7", "203.0.114.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_connections_are_counted_by_the_network_that_one_party_holds(address: str, network: str) -> None:
    """An IPv4 /24 and an IPv6 /64; an IPv4 address seen through an IPv6 socket is an IPv4 address."""
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("lags", "room"),
    [
        ([], 100),
        ([9.0, 9.0], 100),
        ([0.5, 0.5, 0.5], 40),
        ([9.0, 0.4, 9.0], 100),
        ([9.0] * 4, 20),
        ([9.0] * 9, 7),
        ([9.0] * 9 + [0.1], 12),
        ([9.0] * 9 + [0.1, 9.0, 9.0], 12),
        ([9.0] * 9 + [0.1] * 99, 100),
    ],
)
def test_a_server_that_was_late_each_of_the_last_times_takes_fewer(lags: list[float], room: int) -> None:
    """A burst is no overload; while it lasts, the room is halved down to a few; then it grows step by step."""
    load = Load(0.5, least=7, most=100)
    for lag in lags:
        load.note(lag, strangers=80)
    assert load.room == room


def test_the_least_is_never_more_than_all() -> None:
    """An operator who allows one login at a time has one, busy or not."""
    load = Load(0.5, least=16, most=1)
    for lag in (9.0, 9.0, 9.0, 0.0):
        load.note(lag, strangers=1)
        assert load.room == 1


def test_what_strangers_cost_is_paid_for_before_the_next_ones_turn() -> None:
    """One part of the time is theirs: the others follow as a pause, and pauses add up."""
    now = 100.0
    turnstile = Turnstile(lambda: now)
    assert turnstile.pause_seconds == 0
    turnstile.note_work(1.0)
    turnstile.note_work(0.5)
    assert turnstile.pause_seconds == 1.5 * (STRANGERS_SHARE - 1)
    now += 4.0
    assert turnstile.pause_seconds == 1.5 * (STRANGERS_SHARE - 1) - 4.0
    now += 1_000.0
    assert turnstile.pause_seconds == 0


async def test_strangers_pass_in_the_order_in_which_they_came_and_none_before_it_is_paid() -> None:
    """Whoever goes away from the line leaves it to those behind."""
    now, passed = 0.0, []
    turnstile = Turnstile(lambda: now)
    turnstile.note_work(0.001)

    async def pass_through(who: int) -> None:
        await turnstile.take_turn()
        passed.append(who)

    waiting = [asyncio.create_task(pass_through(who)) for who in range(5)]
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert passed == []
    waiting[0].cancel()
    waiting[2].cancel()
    now = 1.0
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60.0)
    assert passed == [1, 3, 4]
