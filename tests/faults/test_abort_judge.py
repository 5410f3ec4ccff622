"""The judge of interrupted programs sees what it is there for: each broken promise, planted, is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from abort_judge import (
    SEEN,
    Act,
    Deed,
    Fate,
    Fetching,
    Found,
    Sending,
    Told,
    View,
    judge_fetching,
    judge_found,
    judge_sending,
    possible_fates,
)

CONTENT = b"whole file"
THERE = View(("new", "receive"), ("accepted",), ("accepted",))
READ = View(("receive",), ("collected",), ("collected",))
RELAYED = Sending(CONTENT, Told.DONE, THERE, CONTENT, Told.DONE, READ, CONTENT)
STOPPED = Sending(CONTENT, Told.FAILED, View(), None, Told.DONE, THERE, CONTENT)
UNREAD = Fetching(CONTENT, CONTENT[:4], THERE, CONTENT, READ)
COLLECTED = Fetching(CONTENT, CONTENT, READ, CONTENT, READ)


@pytest.mark.parametrize(
    "case", [RELAYED, STOPPED, replace(RELAYED, told=Told.NOTHING), replace(STOPPED, told=Told.NOTHING)]
)
def test_what_a_relay_may_do_with_an_upload_passes(case: Sending) -> None:
    """Relayed or not, told or not: both are right, as long as they fit."""
    assert judge_sending(case) == []


@pytest.mark.parametrize(
    "case", [UNREAD, COLLECTED, replace(UNREAD, kept=CONTENT), replace(UNREAD, kept=b""), replace(COLLECTED, kept=None)]
)
def test_what_a_relay_may_do_with_a_download_passes(case: Fetching) -> None:
    """What was not collected may be read again, even where the program has it all."""
    assert judge_fetching(case) == []


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (replace(RELAYED, read=CONTENT[:5]), "half"),
        (replace(STOPPED, read_again=CONTENT[:5]), "half"),
        (replace(STOPPED, told=Told.DONE), "lost"),
        (replace(STOPPED, seen=THERE), "unclear"),
        (replace(RELAYED, seen=replace(THERE, folders=("receive",))), "unclear"),
        (replace(RELAYED, seen=replace(THERE, received=())), "unclear"),
        (replace(RELAYED, seen=replace(THERE, sent=())), "untold"),
        (replace(STOPPED, seen=replace(View(), sent=("accepted",))), "untold"),
        (replace(STOPPED, told_again=Told.FAILED), "stuck"),
        (replace(STOPPED, read_again=None), "stuck"),
        (replace(RELAYED, seen_again=replace(READ, received=("collected", "accepted"))), "twice"),
        (replace(RELAYED, seen=replace(THERE, sent=("accepted", "accepted"))), "twice"),
    ],
)
def test_planted_fault_of_an_upload_is_named(case: Sending, fault: str) -> None:
    """One fact is made wrong, and the judge says which promise it breaks."""
    assert [said for said in judge_sending(case) if said.startswith(f"{fault}: ")]


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (replace(COLLECTED, kept=CONTENT[:-1]), "unread"),
        (replace(UNREAD, seen=replace(THERE, folders=("receive",))), "vanished"),
        (replace(COLLECTED, seen=replace(READ, folders=("new", "receive"))), "stale"),
        (replace(UNREAD, seen=replace(THERE, folders=("new",))), "gone"),
        (replace(UNREAD, seen=replace(THERE, sent=("collected",))), "untold"),
        (replace(UNREAD, read_again=CONTENT[:-1]), "half"),
        (replace(UNREAD, read_again=None), "half"),
        (replace(UNREAD, seen_again=THERE), "stuck"),
    ],
)
def test_planted_fault_of_a_download_is_named(case: Fetching, fault: str) -> None:
    """One fact is made wrong, and the judge says which promise it breaks."""
    assert [said for said in judge_fetching(case) if said.startswith(f"{fault}: ")]


SENT = Deed(Act.SEND, 10, 20, is_ok=True)
CLOSED = Deed(Act.READ, 30, 40, is_ok=True)
PUT_AWAY = Deed(Act.SHELVE, 50, 60, is_ok=True)
TAKEN_BACK = Deed(Act.RECALL, 30, 40, is_ok=True)
STORY = (SENT, CLOSED, PUT_AWAY)


def found_as(fate: Fate) -> Found:
    """Return what is found of a file that this has become of."""
    return Found(SEEN[fate], None if fate in (Fate.NOWHERE, Fate.RECALLED) else CONTENT)


@pytest.mark.parametrize(
    ("deeds", "ended", "fates"),
    [
        (STORY, 9, {Fate.NOWHERE}),
        (STORY, 10, {Fate.NOWHERE, Fate.WAITING}),
        (STORY, 20, {Fate.WAITING}),
        (STORY, 39, {Fate.WAITING, Fate.READ}),
        (STORY, 40, {Fate.READ}),
        (STORY, 55, {Fate.READ, Fate.SHELVED}),
        (STORY, 99, {Fate.SHELVED}),
        ((SENT, TAKEN_BACK), 35, {Fate.WAITING, Fate.RECALLED}),
        ((SENT, TAKEN_BACK), 40, {Fate.RECALLED}),
        ((SENT, replace(TAKEN_BACK, is_ok=False)), 99, {Fate.WAITING}),
        ((replace(SENT, answered=None),), 99, {Fate.NOWHERE, Fate.WAITING}),
        ((replace(SENT, answered=None), replace(SENT, began=25, answered=29)), 99, {Fate.WAITING}),
        ((SENT, CLOSED, replace(SENT, began=45, answered=49)), 99, {Fate.READ}),
    ],
)
def test_what_may_have_become_of_a_file_follows_from_what_was_answered(
    deeds: tuple[Deed, ...], ended: int, fates: set[Fate]
) -> None:
    """What was answered is so; what was asked for and not answered may be so; what was asked later is not."""
    assert possible_fates(deeds, ended) == fates
    for fate in Fate:
        assert (judge_found(CONTENT, deeds, ended, found_as(fate)) == []) == (fate in fates)


@pytest.mark.parametrize(
    ("ended", "found", "fault"),
    [
        (20, found_as(Fate.NOWHERE), "lost"),
        (5, found_as(Fate.WAITING), "invented"),
        (20, found_as(Fate.READ), "unread"),
        (20, found_as(Fate.SHELVED), "unread"),
        (40, found_as(Fate.WAITING), "forgotten"),
        (20, found_as(Fate.RECALLED), "forgotten"),
        (60, found_as(Fate.READ), "forgotten"),
        (20, replace(found_as(Fate.WAITING), read=CONTENT[:-1]), "half"),
        (20, replace(found_as(Fate.WAITING), read=bytes(len(CONTENT))), "half"),
        (20, replace(found_as(Fate.WAITING), read=None), "unclear"),
        (9, replace(found_as(Fate.NOWHERE), read=CONTENT), "unclear"),
        (20, Found(View(("receive",), ("accepted",), ("accepted",)), CONTENT), "unclear"),
        (20, Found(View(("new", "receive"), ("accepted",), ()), CONTENT), "unclear"),
        (20, Found(View(("new", "receive"), ("accepted", "accepted"), ("accepted",)), CONTENT), "twice"),
        (20, Found(View(("new", "receive"), ("accepted",), ("accepted", "recalled")), CONTENT), "twice"),
    ],
)
def test_planted_fault_of_what_is_found_is_named(ended: int, found: Found, fault: str) -> None:
    """After a story of sending, reading and putting away, each wrong finding breaks the promise that it should."""
    assert [said for said in judge_found(CONTENT, STORY, ended, found) if said.startswith(f"{fault}: ")]
