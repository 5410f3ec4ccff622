"""The life of a transfer: its states and the steps that are allowed between them.

This table is the only place that says what may follow what.  The ledger asks it before it writes, inside the
transaction, so that two sessions at once cannot take two steps from one state.

A state says what became of the *promise*.  Whether the recipient has put the file away (``done/``) and whether
the payload still exists are told by columns of their own, because both can be true in several states.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """What became of an accepted file."""

    ACCEPTED = "accepted"
    COLLECTED = "collected"
    RECALLED = "recalled"
    RETURNED = "returned"
    EXPIRED = "expired"
    DISCARDED = "discarded"
    SUPERSEDED = "superseded"
    DESTROYED = "destroyed"


class Step(StrEnum):
    """What can happen to an accepted file."""

    COLLECT = "collect"
    RECALL = "recall"
    RETURN = "return"
    EXPIRE = "expire"
    DISCARD = "discard"
    SUPERSEDE = "supersede"
    DESTROY = "destroy"


_STEPS: Mapping[State, Mapping[Step, State]] = MappingProxyType(
    {
        State.ACCEPTED: {
            Step.COLLECT: State.COLLECTED,
            Step.RECALL: State.RECALLED,
            Step.RETURN: State.RETURNED,
            Step.EXPIRE: State.EXPIRED,
            Step.DISCARD: State.DISCARDED,
            Step.SUPERSEDE: State.SUPERSEDED,
        },
        # Collecting again is no news and no fault: a recipient may read a file as often as it likes.
        State.COLLECTED: {Step.COLLECT: State.COLLECTED, Step.DESTROY: State.DESTROYED},
        State.RECALLED: {},
        # Given back by the operator, before anybody had collected it.
        State.RETURNED: {},
        State.EXPIRED: {},
        # Thrown away unread it still lies in done/, where its recipient might read it.
        State.DISCARDED: {Step.RETURN: State.RETURNED},
        State.SUPERSEDED: {},
        State.DESTROYED: {},
    }
)

# Live: the payload exists and the name is taken (DESIGN section 4, Repeats and conflicts).
LIVE = frozenset({State.ACCEPTED, State.COLLECTED})


class IllegalStepError(Exception):
    """A step that the table does not allow; nothing was changed."""

    def __init__(self, state: State, step: Step) -> None:
        super().__init__(f"a transfer that is {state} cannot {step}")
        self.state = state
        self.step = step


def advance(state: State, step: Step) -> State:
    """Return the state after *step*; IllegalStepError where the table has none."""
    try:
        return _STEPS[state][step]
    except KeyError:
        raise IllegalStepError(state, step) from None
