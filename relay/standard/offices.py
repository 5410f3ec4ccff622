"""Office numbers (事業所番号): their form, their check digit, and what is wrong with one that is mistyped.

Ten characters; only the third may be a letter, never I, O or Q (standard, section 6).  The check digit is weak
evidence: one real number in a thousand satisfies neither rule, so it is never more than a warning.
"""

from __future__ import annotations

import re
from functools import lru_cache

from relay.model import OfficeNumber
from relay.standard.reasons import Why, quote_part

OFFICE_NUMBER_CHARACTERS = 10

# [0-9], not \d: \d matches full-width digits.  For text that was upper-cased.
OFFICE_NUMBER = "[0-9]{2}[0-9A-HJ-NPR-Z][0-9]{7}"
# The same in either case, spelt out: re.IGNORECASE would let U+212A and U+017F in.
OFFICE_NUMBER_ANY_CASE = "[0-9]{2}[0-9A-HJ-NPR-Za-hj-npr-z][0-9]{7}"
# サービス種類コード (standard, section 8): any two characters; which of them an office has, the register knows.
SERVICE_TYPE = "[0-9A-Z]{2}"
SERVICE_TYPE_ANY_CASE = "[0-9A-Za-z]{2}"

_OFFICE_NUMBER = re.compile(OFFICE_NUMBER_ANY_CASE)
_CLASS_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
_VALUES = {digit: value for value, digit in enumerate("0123456789" + _CLASS_LETTERS)}


def parse_office_number(text: str) -> OfficeNumber | None:
    """Read an office number typed in either case; None where *text* is none.

    Blanks around it are not forgiven: whoever reads from a form strips them first.
    """
    return OfficeNumber(text.upper()) if _OFFICE_NUMBER.fullmatch(text) else None


def add_check_digit(nine: str) -> OfficeNumber:
    """Return the office number that begins with these *nine* characters, its last digit by the published rule."""
    number = parse_office_number(f"{nine}{_check_digit(nine)}")
    if number is None:
        raise ValueError(f"{nine!r} does not begin an office number")
    return number


@lru_cache(maxsize=8192)
def has_check_digit(number: OfficeNumber) -> bool:
    """Say whether the last digit of *number* satisfies the nine-character rule or the six-digit one.

    The six-digit rule is no published one; it explains medical numbers of four prefectures (section 6).
    """
    check = int(number[9])
    return check in (_check_digit(number[:9]), _check_digit(number[3:9]))


def _check_digit(characters: str) -> int:
    total = 0
    for place, character in enumerate(reversed(characters)):
        product = _VALUES[character] * (2 if place % 2 == 0 else 1)
        total += sum(map(int, str(product)))
    return -total % 10


def explain_office_number(text: str) -> Why | None:
    """Say what is wrong with *text* as an office number; None where nothing is."""
    if parse_office_number(text) is not None:
        return None
    if len(text) != OFFICE_NUMBER_CHARACTERS:
        return _explain_length(text)
    for place, character in enumerate(text):
        if not re.fullmatch("[0-9A-HJ-NPR-Za-hj-npr-z]" if place == 2 else "[0-9]", character):  # noqa: PLR2004 - the third
            shown = quote_part(character)
            return Why(
                f"事業所番号の{place + 1}桁目に {shown} は使えません",
                f"{shown} cannot be character {place + 1} of an office number",
            )
    raise AssertionError("every character fits, yet the whole does not")


def _explain_length(text: str) -> Why:
    length = len(text)
    hint_ja = hint_en = ""
    # Spreadsheets drop the leading zero of every number from Hokkaido to Tochigi.
    if length == OFFICE_NUMBER_CHARACTERS - 1 and text.isascii() and text.isdigit():
        hint_ja, hint_en = "。先頭の0が欠けていませんか", "; leading 0 lost?"
    return Why(
        f"事業所番号が{length}桁です。正しくは10桁です{hint_ja}",
        f"an office number has 10 characters, not {length}{hint_en}",
    )
