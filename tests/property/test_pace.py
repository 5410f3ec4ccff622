"""The token bucket of an office, with a clock that hypothesis turns."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.common import Common
from relay.model import OfficeNumber
from relay.pace import PATIENCE_SECONDS, Pace, plan_turn

A, B = OfficeNumber("0178515854"), OfficeNumber("0178529384")
# A rounding error of the sum of some hundred spans.
TOLERANCE = 1e-6
rates = st.integers(1, 20_000)
spans = st.lists(st.one_of(st.just(0.0), st.floats(0, 200)), max_size=200)


def walk(per_minute: int, waits: list[float]) -> list[tuple[float, float]]:
    """Take a turn after each of *waits*; return when each was asked for and when it began, refused ones left out."""
    now, full_at, begun = 1_000_000.0, 0.0, []
    for span in waits:
        now += span
        turn = plan_turn(full_at, now, per_minute=per_minute)
        full_at = turn.full_at
        if not turn.is_too_long:
            begun.append((now, now + turn.wait_seconds))
    return begun


@given(rates, spans)
def test_no_minute_holds_more_than_two_minutes_worth(per_minute: int, waits: list[float]) -> None:
    """A full bucket and what flows into it in a minute: no more begins in any minute, whatever the interleaving."""
    begun = sorted(moment for _, moment in walk(per_minute, waits))
    most = 2 * per_minute + 1
    for first, last in zip(begun, begun[most:], strict=False):
        assert last - first > 60 - TOLERANCE


@given(rates, spans)
def test_turns_come_in_order_and_nobody_waits_longer_than_he_can(per_minute: int, waits: list[float]) -> None:
    """First come, first served; and each wait is one that a client bears."""
    begun = walk(per_minute, waits)
    assert all(0 <= moment - asked <= PATIENCE_SECONDS + TOLERANCE for asked, moment in begun)
    assert all(earlier <= later + TOLERANCE for (_, earlier), (_, later) in pairwise(begun))


@given(rates, st.floats(0, 1e9), st.floats(0, 1e6))
def test_what_was_told_is_so(per_minute: int, now: float, ahead: float) -> None:
    """Whoever was told to come again after so many seconds, and does, need not wait; a refusal takes nothing."""
    full_at = now + ahead
    turn = plan_turn(full_at, now, per_minute=per_minute)
    if turn.is_too_long:
        assert turn.full_at == full_at
    again = plan_turn(full_at, now + turn.wait_seconds, per_minute=per_minute)
    assert again.wait_seconds == pytest.approx(0, abs=1e-3)


@given(rates)
def test_a_minutes_worth_begins_at_once(per_minute: int) -> None:
    """An office that was quiet for a minute sends so many without any wait, and the next one waits its spacing."""
    pace = Pace(per_minute, clock=lambda: 50_000.0)
    assert all(pace.take_turn(A).wait_seconds == 0 for _ in range(per_minute))
    turn = pace.take_turn(A)
    assert turn.wait_seconds == pytest.approx(60 / per_minute, abs=1e-3)
    assert turn.is_too_long is (60 / per_minute > PATIENCE_SECONDS)
    assert pace.take_turn(B).wait_seconds == 0


def test_offices_that_send_no_more_leave_room_for_others() -> None:
    """Sixty thousand offices, one file each, find room in memory for a quarter of that: full buckets are forgotten."""
    now = 0.0
    common, full = Common.alone(), list[str]()
    common.on_full = full.append
    pace = Pace(60, common, clock=lambda: now)
    for number in range(60_000):
        now = number / 1_000
        assert pace.take_turn(OfficeNumber(f"{number:010d}")).wait_seconds == 0
    assert full == []


def test_an_office_has_one_bucket_in_all_workers() -> None:
    """What one worker takes out of it is gone for the other, and another office's is full."""
    supervisor = Common.create(2)
    paces = [Pace(60, Common.attach(supervisor.fileno(), index), clock=lambda: 7.0) for index in range(2)]
    assert all(paces[number % 2].take_turn(A).wait_seconds == 0 for number in range(60))
    assert [pace.take_turn(A).wait_seconds for pace in paces] == [pytest.approx(1.0), pytest.approx(2.0)]
    assert paces[0].take_turn(B).wait_seconds == 0
    supervisor.close()


def test_a_run_of_ten_thousand_files_is_neither_refused_nor_slowed_by_default() -> None:
    """The default is one that no bulk transfer meets, however fast it is."""
    from relay.config import LimitSettings

    pace = Pace(LimitSettings().transfers_per_minute, clock=lambda: 7.0)
    assert all(pace.take_turn(A).wait_seconds == 0 for _ in range(10_000))
