"""Items: whether a value has the form, the length and the presence that the layout asks for (standard, section 5).

A column of values is judged at once: what differs in it is put together and matched by one expression, and only
where that fails is each value looked at.  Whatever the table leaves in doubt is not judged, and a form whose wording
is not known here is no form: a new table must not make refusals of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from relay.standard.layouts import Item
from relay.standard.offices import OFFICE_NUMBER

REQUIRED_ITEM = "content.required_item"
ITEM_LENGTH = "content.item_length"
ITEM_FORMAT = "content.item_format"
KEY_ITEM = "content.key_item"
# What single items are judged for.
ITEM_CODES = frozenset({REQUIRED_ITEM, ITEM_LENGTH, ITEM_FORMAT, KEY_ITEM})

_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)0229"
_DATE = (
    "(?:[0-9]{4}(?:(?:0[13578]|1[02])(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)(?:0[1-9]|[12][0-9]|30)"
    f"|02(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP})"
)
_MONTH = "[0-9]{4}(?:0[1-9]|1[0-2])"
_TIME = "(?:(?:[01][0-9]|2[0-3])[0-5][0-9]|2400)"
_SERVICE_CODE = "[0-9A-Z]{6}"

# The wordings of the table, each as the expression that a value must match.
_FORMS: Mapping[str, str] = MappingProxyType(
    {
        "YYYYMM": _MONTH,
        "YYYYMM|000000": f"(?:{_MONTH}|000000)",
        "YYYYMMDD": _DATE,
        "YYYYMMDD|00000000": f"(?:{_DATE}|00000000)",
        "HHMM": _TIME,
        "HHMM|9999": f"(?:{_TIME}|9999)",
        "digits": "[0-9]+",
        "digits or empty": "[0-9]+",
        "1-99": "(?:0?[1-9]|[1-9][0-9])",
        "1..": "0*[1-9][0-9]*",
        "1.. or empty": "0*[1-9][0-9]*",
        "31 flags 0|1 or empty": "[01]{31}",
        "NNN-NNNN": "[0-9]{3}-[0-9]{4}",
        "99.99": r"[0-9]+(?:\.[0-9]+)?",
        "office number": OFFICE_NUMBER,
        "office number|9999999999": OFFICE_NUMBER,
        "9999999999 fixed": "9{10}",
        "service type code": "[0-9A-Z]{2}",
        "service code (2-character type + 4)": _SERVICE_CODE,
        "service code|type+AAAA|type+EEEE|type+ZZZZ|999999": _SERVICE_CODE,
        "insurer number (6 digits)": "[0-9]{6}",
        "insured number (10 digits|H+9 digits)": "[0-9H][0-9]{9}",
        "not used (empty)": "",
    }
)
# A list of codes, such as ``06|12|13``.
_CODES = re.compile("[0-9A-Z]+(?:[|][0-9A-Z]+)+")

_OF_ONE_LENGTH = ("YYYY", "HHMM", "NNN")

# Stands behind the values of one column where several are judged at once; no text holds it.
COLUMN_END = b"\0"

# Any value, as an expression.
ANYTHING = b'[^\n\0,"]*'

# A wide blank in MS932; an item of nothing but blanks says nothing.
_WIDE_BLANK = b"\x81\x40"


@dataclass(frozen=True, slots=True)
class ItemRule:
    """What is judged about one item; *code* is what a wrong form is called."""

    item: Item
    code: str
    is_needed: bool
    form: re.Pattern[bytes] | None
    length: int | None
    # One value that is right beyond doubt, and many with LF between them. Neither takes a comma or a quotation mark:
    # those of a text are stand-ins here.
    right_value: bytes
    right: re.Pattern[bytes]

    def find_wrong(self, column: Collection[bytes]) -> dict[bytes, str]:
        """Return the values of *column* (as a set) that are wrong, each with the code that says how."""
        if self.right.fullmatch(b"\n".join(column)):
            return {}
        judged = ((value, self._judge(value)) for value in column)
        return {value: code for value, code in judged if code is not None}

    def _judge(self, value: bytes) -> str | None:
        if self.right.fullmatch(value):
            return None
        if is_blank(value):
            return (REQUIRED_ITEM if self.code == ITEM_FORMAT else self.code) if self.is_needed else None
        if self.length is not None and count_characters(value) > self.length and self.code == ITEM_FORMAT:
            return ITEM_LENGTH
        return self.code if self.form is not None and not self.form.fullmatch(value) else None


def rule_for(item: Item, *, code: str = ITEM_FORMAT, is_strict: bool = False) -> ItemRule | None:
    """Return what is to be judged about *item*, None where nothing is certain.

    With *is_strict* the item is judged by what the table says even where it marks a doubt.
    """
    form = find_form(item) if item.is_format_certain or is_strict else None
    length = item.length if item.is_length_certain or is_strict else None
    if form is not None and item.format.startswith(_OF_ONE_LENGTH):
        # A date with slashes is rather of the wrong form than too long.
        length = None
    is_needed = item.required is True and (item.is_required_certain or is_strict)
    if form is None and length is None and not is_needed:
        return None
    right = _express_right(form, length, is_needed=is_needed)
    judged = re.compile(form.encode()) if form is not None else None
    return ItemRule(item, code, is_needed, judged, length, right, many(right))


def find_form(item: Item) -> str | None:
    """Return the expression that a value of *item* must match; None where its wording tells of none."""
    if item.format in _FORMS:
        return _FORMS[item.format]
    return f"(?:{item.format})" if _CODES.fullmatch(item.format) else None


def fixed_length(item: Item) -> int | None:
    """Return the length that every value of *item* has; None where they differ."""
    return item.length if item.format.startswith((*_OF_ONE_LENGTH, "service", "office", "ins")) else None


def is_blank(value: bytes) -> bool:
    """Say whether *value* holds nothing but blanks."""
    return not value or not value.replace(_WIDE_BLANK, b"").strip(b" \t")


def count_characters(value: bytes) -> int:
    """Return how many characters *value* has; stand-ins count as what they stand for."""
    return len(value) if value.isascii() else len(value.decode("cp932", "replace"))


def many(value: bytes) -> re.Pattern[bytes]:
    """Return what matches values that match *value*, with LF between them."""
    return re.compile(b"(?:%b)(?:\n(?:%b))*" % (value, value))


def _express_right(form: str | None, length: int | None, *, is_needed: bool) -> bytes:
    if form is not None:
        value = form if is_needed else f"(?:{form})?"
        if length is not None and ("+" in form or "*" in form):
            value = f'(?=[^\n\0,"]{{0,{length}}}(?:[\n\0,"]|\\Z)){value}'
    elif length is not None:
        # Characters of one byte and of two; of what is needed, the first is none that begins as a blank would.
        first, other = (
            f"(?:[{one}#-+\\--~\1-\4\xa1-\xdf]|[{two}-\x9f\xe0-\xfc][\x40-\xfc])"
            for one, two in (("!", "\x82"), (" !", "\x81"))
        )
        value = f"{first}{other}{{0,{length - 1}}}" if is_needed else f"{other}{{0,{length}}}"
    else:
        # Of text that is needed, anything that does not begin as a blank would.
        value = '[^ \t\n\0,"\x81][^\n\0,"]*'
    return value.encode("latin-1")
