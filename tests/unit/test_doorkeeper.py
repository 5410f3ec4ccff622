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
    ("lags", "is_busy"),
    [
        ([], False),
        ([9.0], False),
        ([9.0, 9.0], False),
        ([0.5, 0.5, 0.5], True),
        ([9.0, 0.4, 9.0], False),
        ([0.1, 0.6, 0.6, 0.6], True),
        ([0.6, 0.6, 0.6, 0.1], False),
        ([0.6, 0.6, 0.6, 0.1, 0.6, 0.6], False),
    ],
)
def test_a_server_that_was_late_each_of_the_last_times_is_busy(lags: list[float], is_busy: bool) -> None:  # noqa: FBT001
    """A burst is no overload, and one wake in time ends it."""
    load = Load(0.5)
    for lag in lags:
        load.note(lag)
    assert load.is_busy is is_busy
