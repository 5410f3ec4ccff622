"""Why a name is refused: one short reason in Japanese and in English.

A reason goes into the sentence of ``name.illegal`` or ``name.malformed`` and onto the wire, where the whole text
has 200 characters.  It repeats only what the office itself typed, shortened, and never a character that could
turn or hide the rest of the line.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.errors import Refused

# A ten-digit number, a serial that is a few digits too long: more of a wrong part helps nobody to find it.
QUOTED_CHARACTERS = 18


class Why(NamedTuple):
    """One reason in both languages, without a full stop."""

    ja: str
    en: str


def malformed(why: Why) -> Refused:
    """Make the refusal ``name.malformed`` for *why*, for the caller to raise."""
    return Refused("name.malformed", why_ja=why.ja, why=why.en)


def illegal(why: Why) -> Refused:
    """Make the refusal ``name.illegal`` for *why*, for the caller to raise."""
    return Refused("name.illegal", why_ja=why.ja, why=why.en)


def quote_part(text: str) -> str:
    """Shorten a part of a name for a sentence; what does not print is told by its code point."""
    shown = "".join(character if character.isprintable() else name_character(character) for character in text[:64])
    return shown if len(shown) <= QUOTED_CHARACTERS else shown[: QUOTED_CHARACTERS - 1] + "…"


def name_character(character: str) -> str:
    """Return the code point of *character* as ``U+0332``."""
    return f"U+{ord(character):04X}"
