"""Months (対象年月) and serials (ファイル連番) in names: digits that must be real dates.

A serial is YYYYMMDDHHMMSS without a time zone; Japan time is meant (standard, section 3).  Fixed width, so serials
compare as text in the order of time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from relay.standard.reasons import Why, quote_part

SERIAL = "[0-9]{14}"
SERIAL_DIGITS = 14
SERIAL_FORMAT = "%Y%m%d%H%M%S"
# No daylight saving time since 1951, so a fixed offset is Japan's zone and needs no zone files.
JAPAN = timezone(timedelta(hours=9), "JST")

# UPHOSOKU when it travels with tables 1-3 (standard, section 2).
NO_MONTH = "000000"

_SERIAL = re.compile(SERIAL)
_MONTH = re.compile("20[0-9]{2}(?:0[1-9]|1[0-2])")


def is_real_month(text: str) -> bool:
    """Say whether *text* is a month of this century as YYYYMM."""
    return _MONTH.fullmatch(text) is not None


def is_real_serial(text: str) -> bool:
    """Say whether *text* is YYYYMMDDHHMMSS and names a second that exists."""
    if _SERIAL.fullmatch(text) is None:
        return False
    try:
        datetime(  # noqa: DTZ001 - only asked whether the date exists
            int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]), int(text[10:12]), int(text[12:])
        )
    except ValueError:
        return False
    return True


def write_serial(at: datetime) -> str:
    """Write the aware time *at* as a serial in Japan time."""
    return at.astimezone(JAPAN).strftime(SERIAL_FORMAT)


def explain_serial(text: str) -> Why | None:
    """Say what is wrong with *text* as a serial; None where nothing is."""
    if is_real_serial(text):
        return None
    shown = quote_part(text)
    if not (text.isascii() and text.isdigit()):
        return Why(f"最後の日時が {shown} です。正しくは数字14桁です", f"serial {shown} is not 14 digits")
    if len(text) != SERIAL_DIGITS:
        return Why(
            f"最後の日時の数字が{len(text)}桁です。正しくは14桁です",
            f"the serial has 14 digits, not {len(text)}",
        )
    return Why(f"最後の日時 {shown} は実在しません", f"serial {shown} is no real date and time")
