"""The judge of everything that offices exchanged sees each broken promise that is planted, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from abort_judge import Claim, Fetch, Row, Sight, Told, digest, judge_exchange

A, B, C = "0178515854", "0178529384", "0178512687"
FIRST, SECOND, THIRD, OTHER = (digest(content) for content in (b"first", b"second", b"third", b"other"))
# What A sent to B: read, waiting, put away after it was read, taken back, and what was not answered and is not there.
CLAIMS = (
    Claim(A, B, "read.pdf", FIRST, Told.DONE),
    Claim(A, B, "waits.pdf", SECOND, Told.DONE),
    Claim(A, B, "away.pdf", THIRD, Told.FAILED),
    Claim(A, B, "back.pdf", OTHER, Told.DONE, taken_back=Told.DONE),
    Claim(A, B, "never.pdf", OTHER, Told.NOTHING),
)
FETCHES = (
    Fetch(B, "read.pdf", FIRST, Told.DONE),
    Fetch(B, "away.pdf", THIRD, Told.NOTHING),
    Fetch(B, "waits.pdf", OTHER, Told.FAILED),
)
STATES = (
    ("read.pdf", "collected", FIRST),
    ("waits.pdf", "accepted", SECOND),
    ("away.pdf", "collected", THIRD),
    ("back.pdf", "recalled", OTHER),
)
SENDER = Sight(sent=tuple(Row(B, *row) for row in STATES))
RECIPIENT = Sight(
    received=tuple(Row(A, *row) for row in STATES),
    new=frozenset({"waits.pdf"}),
    receive=frozenset({"read.pdf", "waits.pdf"}),
    done=frozenset({"away.pdf"}),
    read={"read.pdf": FIRST, "waits.pdf": SECOND, "away.pdf": THIRD},
)
SIGHTS = {A: SENDER, B: RECIPIENT, C: Sight()}


def with_state(sight: Sight, name: str, state: str | None) -> Sight:
    """Return *sight* with another state of *name*, or without it."""

    def change(rows: tuple[Row, ...]) -> tuple[Row, ...]:
        changed = (replace(row, state=state or "") if row.name == name else row for row in rows)
        return tuple(row for row in changed if row.state)

    return replace(sight, received=change(sight.received), sent=change(sight.sent))


def without(sight: Sight, name: str) -> Sight:
    """Return *sight* with nothing of *name* at all."""
    folders = {folder: getattr(sight, folder) - {name} for folder in ("new", "receive", "done")}
    read = {each: sha256 for each, sha256 in sight.read.items() if each != name}
    return replace(with_state(sight, name, None), read=read, **folders)


def doubled(sight: Sight, name: str) -> Sight:
    """Return *sight* with *name* twice."""
    rows = tuple(row for row in sight.received if row.name == name)
    return replace(sight, received=sight.received + rows)


@pytest.mark.parametrize("is_settled", [True, False])
def test_what_a_relay_may_do_with_an_exchange_passes(is_settled: bool) -> None:  # noqa: FBT001 - pytest names it
    """Read, waiting, put away, taken back, never arrived: each as it was told."""
    assert judge_exchange(CLAIMS, FETCHES, SIGHTS, is_settled=is_settled) == []


def test_what_was_not_answered_may_be_there_or_not() -> None:
    """A file whose sender got no answer is there whole, or nowhere."""
    claims = [replace(claim, told=Told.NOTHING) for claim in CLAIMS]
    assert judge_exchange(claims, FETCHES, SIGHTS) == []
    gone = {office: without(sight, "waits.pdf") for office, sight in SIGHTS.items()}
    assert judge_exchange(claims, FETCHES, gone) == []


def test_what_time_ended_is_not_lost() -> None:
    """A file that was to expire may have, and one that was not may not."""
    ended = {office: with_state(sight, "back.pdf", "expired") for office, sight in SIGHTS.items()}
    claims = [replace(CLAIMS[3], taken_back=None), *CLAIMS[:3]]
    assert faults(judge_exchange(claims, FETCHES, ended)) == {"lost", "ended"}
    claims[0] = replace(claims[0], may_be=frozenset({"expired"}))
    assert judge_exchange(claims, FETCHES, ended) == []


def faults(broken: list[str]) -> set[str]:
    """Return the promises that were said to be broken."""
    return {said.partition(":")[0] for said in broken}


Plant = Callable[[Sight], Sight]
PLANTED: dict[str, tuple[str, Plant, set[str], bool]] = {
    # What was done, at which office, which promises that breaks, and whether it shows while programs are at work.
    "answered and gone": (B, lambda sight: without(sight, "waits.pdf"), {"lost", "untold"}, True),
    "shown and nowhere in the status": (
        B, lambda sight: with_state(sight, "waits.pdf", None), {"lost", "untold", "invented"}, True,
    ),
    "at another office": (C, lambda _: without(RECIPIENT, "back.pdf"), {"invented", "untold", "unread"}, True),
    "at the right office twice": (B, lambda sight: doubled(sight, "waits.pdf"), {"twice", "untold"}, True),
    "told to the sender twice": (
        A, lambda sight: replace(sight, sent=(*sight.sent, sight.sent[0])), {"twice", "untold"}, True,
    ),
    "other bytes in the status": (
        B,
        lambda sight: replace(sight, received=(replace(sight.received[0], sha256=OTHER), *sight.received[1:])),
        {"half", "lost", "untold", "unread"},
        True,
    ),
    "other bytes in the folder": (
        B, lambda sight: replace(sight, read={**sight.read, "waits.pdf": OTHER}), {"half"}, True,
    ),
    "a file that nobody sent": (
        B, lambda sight: replace(sight, receive=sight.receive | {"more.pdf"}), {"invented"}, False,
    ),
    "a row that nobody sent": (
        B,
        lambda sight: replace(sight, received=(*sight.received, Row(A, "more.pdf", "recalled", OTHER))),
        {"invented", "untold"},
        True,
    ),
    "collected and not read": (
        B, lambda sight: with_state(sight, "waits.pdf", "collected"), {"unread", "stale", "untold"}, True,
    ),
    "read, answered and not collected": (
        B, lambda sight: with_state(sight, "read.pdf", "accepted"), {"forgotten", "vanished", "untold"}, False,
    ),
    "out of new/ and not collected": (B, lambda sight: replace(sight, new=frozenset()), {"vanished"}, False),
    "in new/ and collected": (B, lambda sight: replace(sight, new=sight.new | {"read.pdf"}), {"stale"}, False),
    "in no folder": (B, lambda sight: replace(sight, done=frozenset()), {"gone"}, False),
    "in two folders": (B, lambda sight: replace(sight, done=sight.receive | sight.done), {"twice"}, False),
    "there and not to be read": (
        B, lambda sight: replace(sight, read={**{n: d for n, d in sight.read.items() if n != "waits.pdf"}}), {"gone"}, False,
    ),
    "taken back, told so, and there": (
        B, lambda sight: with_state(sight, "back.pdf", "accepted"), {"kept", "untold", "gone", "vanished"}, True,
    ),
    "taken back and nobody asked": (
        B, lambda sight: with_state(sight, "waits.pdf", "recalled"), {"lost", "ended", "untold", "invented"}, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_fault_of_an_exchange_is_named(planted: str) -> None:
    """One fact is made wrong at one office; the judge names what it breaks, and while all go on whatever shows then."""
    office, plant, broken, shows_at_work = PLANTED[planted]
    sights = {**SIGHTS, office: plant(SIGHTS[office])}
    assert faults(judge_exchange(CLAIMS, FETCHES, sights)) == broken
    at_work = faults(judge_exchange(CLAIMS, FETCHES, sights, is_settled=False))
    assert bool(at_work) is shows_at_work
    assert at_work <= broken


def test_program_that_was_given_other_bytes_is_noticed() -> None:
    """A download that its program calls whole, with bytes that nobody sent."""
    fetches = [*FETCHES, Fetch(B, "waits.pdf", FIRST, Told.NOTHING)]
    assert faults(judge_exchange(CLAIMS, fetches, SIGHTS)) == {"half"}
