"""The judge of interrupted programs sees what it is there for: each broken promise, planted, is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from abort_judge import Fetching, Sending, Told, View, judge_fetching, judge_sending

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
