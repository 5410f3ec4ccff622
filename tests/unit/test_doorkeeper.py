"""Who is counted together before login, and when nobody new is taken."""

from __future__ import annotations

import pytest

from relay.doorkeeper import Load, network_of


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
