"""File names of the standard, in the forms of 4.1 and 3.2 (standard, section 2).

::

    4.1  KIND[_YYYYMM]_sender_ss_recipient_rr_YYYYMMDDHHMMSS.CSV      UPKIHON_IMAGE_…_YYYYMMDDHHMMSS_nnnn.jpg
    3.2  KIND[_YYYYMM]_sender_recipient_YYYYMMDDHHMMSS.CSV

A name that begins with a kind and ``_`` is the standard's and nobody else's: it fits or it is refused, and the
refusal says which part is wrong.  Lower case is read as capitals.  A name that only looks like one to the eye
(full-width letters, U+0332 for ``_`` as copied from the published PDF) counts as begun and is refused.

Whether the offices exist and whose name it is are not asked here.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from relay.errors import Finding, finding
from relay.model import Address, Grammar, OfficeNumber
from relay.standard.kinds import KINDS, STANDARD_32, STANDARD_41, Kind, find_leading_kind
from relay.standard.offices import (
    OFFICE_NUMBER,
    SERVICE_TYPE,
    explain_office_number,
    has_check_digit,
)
from relay.standard.reasons import Why, malformed, name_character, quote_part
from relay.standard.serials import NO_MONTH, SERIAL, explain_serial, is_real_month, is_real_serial
from relay.standard.versions import VERSIONS, version_for

# The one kind that may say "no month".
_KIND_WITHOUT_MONTH = "UPHOSOKU"
_BRANCH_DIGITS = 4
# What `_` becomes when a name is copied from the published PDF.
COMBINING_LOW_LINE = "\u0332"


# Of files with records, in every edition.
_EXTENSIONS = tuple(dict.fromkeys(version.extension.upper() for version in VERSIONS.values()))


def _compile_form(kind: Kind) -> re.Pattern[str]:
    month = "_(?P<month>[0-9]{6})" if kind.has_month else ""
    coded = (
        f"(?P<sender>{OFFICE_NUMBER})_(?P<sender_service>{SERVICE_TYPE})"
        f"_(?P<recipient>{OFFICE_NUMBER})_(?P<recipient_service>{SERVICE_TYPE})"
    )
    plain = f"|(?P<sender_32>{OFFICE_NUMBER})_(?P<recipient_32>{OFFICE_NUMBER})" if kind.is_in_32 else ""
    ending = rf"_[0-9]{{{_BRANCH_DIGITS}}}\.JPE?G" if kind.is_image else rf"\.(?P<extension>{'|'.join(_EXTENSIONS)})"
    return re.compile(f"{kind.name}{month}_(?:{coded}{plain})_(?P<serial>{SERIAL}){ending}")


_FORMS: Mapping[str, re.Pattern[str]] = MappingProxyType({kind.name: _compile_form(kind) for kind in KINDS.values()})


def parse_standard_name(name: str) -> Address | None:
    """Read *name* (legal, NFC) by the standard; None where it is none of the standard's names.

    Raises ``name.malformed`` for a name that begins as one of the standard's and does not hold what follows.
    """
    if not name.isascii() or name[:1] == " ":
        if find_leading_kind(look_alike(name)) is None:
            return None
        raise malformed(
            explain_foreign_character(name) or Why("名前が空白で始まっています", "the name begins with a blank")
        )
    upper = name.upper()
    kind = find_leading_kind(upper)
    if kind is None:
        return None
    match = _FORMS[kind.name].fullmatch(upper)
    if match is None or not _has_real_dates(kind, match) or not _is_of_an_edition(kind, match):
        raise malformed(_explain(kind, upper))
    return _read_address(name, upper, kind, match)


def render_standard_name(address: Address) -> str:
    """Write the name of *address* from its parts: capitals, and the extension as the sender wrote it."""
    stem, _, extension = address.name.rpartition(".")
    parts = [address.kind, address.month, address.sender, address.sender_service]
    parts += [address.recipient, address.recipient_service, address.serial]
    if KINDS[address.kind].is_image:
        parts.append(stem[-_BRANCH_DIGITS:])
    return "_".join(part for part in parts if part) + "." + extension


def find_check_digits(*numbers: OfficeNumber | None) -> tuple[Finding, ...]:
    """Return a warning for each of *numbers* whose check digit satisfies no rule, once a number."""
    return tuple(
        finding("name.check_digit", office=number)
        for number in dict.fromkeys(numbers)
        if number is not None and not has_check_digit(number)
    )


def look_alike(name: str) -> str:
    """Return what a reader takes *name* for: full-width forms as ASCII, U+0332 as ``_``, capitals, no leading blank.

    For recognising what a name was meant to be, never for reading it.
    """
    return unicodedata.normalize("NFKC", name.replace(COMBINING_LOW_LINE, "_")).lstrip().upper()


def explain_foreign_character(name: str) -> Why:
    """Name the first character outside ASCII in *name*, and where it comes from; without one, blame the first blank."""
    foreign = next((character for character in name if not character.isascii()), None)
    if foreign is None:
        return Why("名前が空白で始まっています", "the name begins with a blank")
    if COMBINING_LOW_LINE in name:
        return Why(
            "下線「_」が別の記号です。PDFから写した名前ではありませんか", "U+0332 in place of _, as copied from a PDF"
        )
    code = name_character(foreign)
    if foreign == "\u3000":
        return Why("全角の空白があります", "there is a full-width blank")
    if foreign.isprintable() and unicodedata.east_asian_width(foreign) == "F":
        return Why(
            f"全角の「{foreign}」があります。決まりは半角です", f"full-width {foreign} ({code}) in place of half-width"
        )
    return Why(f"使えない文字「{quote_part(foreign)}」があります", f"character {code} is not ASCII")


def _has_real_dates(kind: Kind, match: re.Match[str]) -> bool:
    return (not kind.has_month or _is_month_of(kind, match["month"])) and is_real_serial(match["serial"])


def _is_of_an_edition(kind: Kind, match: re.Match[str]) -> bool:
    """Say whether there is an edition with names of this form and extension that has the kind."""
    if kind.is_image:
        return True
    version = version_for(STANDARD_32 if match["sender"] is None else STANDARD_41, match["extension"])
    return version is not None and version.standard in kind.standards


def _is_month_of(kind: Kind, month: str) -> bool:
    return is_real_month(month) or (month == NO_MONTH and kind.name == _KIND_WITHOUT_MONTH)


def _read_address(name: str, upper: str, kind: Kind, match: re.Match[str]) -> Address:
    parts = match.groupdict()
    is_41 = parts["sender"] is not None
    sender = OfficeNumber(parts["sender"] if is_41 else parts["sender_32"])
    recipient = OfficeNumber(parts["recipient"] if is_41 else parts["recipient_32"])
    findings = find_check_digits(sender, recipient)
    dot = name.rindex(".")
    if name[:dot] != upper[:dot]:
        findings = (finding("name.lower_case"), *findings)
    return Address(
        name=name,
        grammar=Grammar.STANDARD_41 if is_41 else Grammar.STANDARD_32,
        kind=kind.name,
        recipient=recipient,
        sender=sender,
        sender_service=parts["sender_service"],
        recipient_service=parts["recipient_service"],
        serial=parts["serial"],
        month=parts.get("month"),
        findings=findings,
    )


def _explain(kind: Kind, upper: str) -> Why:
    """Say what is wrong with *upper*, which begins with *kind* and does not fit: the first fault from the left."""
    fault = _extension_fault(kind, upper)
    if fault is not None:
        return fault
    parts = deque(upper.rpartition(".")[0].removeprefix(kind.name + "_").split("_"))
    return next(_faults(kind, parts), Why(f"{kind.name} の名前の形に合いません", f"not the form of a {kind.name} name"))


def _extension_fault(kind: Kind, upper: str) -> Why | None:
    _, dot, extension = upper.rpartition(".")
    allowed = ("JPG", "JPEG") if kind.is_image else _EXTENSIONS
    if dot and extension in allowed:
        return None
    if not dot:
        return Why(f"名前の最後に .{allowed[0]} がありません", f"the extension .{allowed[0]} is missing")
    shown = quote_part("." + extension)
    return Why(
        f"名前の最後が {shown} です。正しくは .{allowed[0]} です", f"the extension is .{allowed[0]}, not {shown}"
    )


def _faults(kind: Kind, parts: deque[str]) -> Iterator[Why]:
    """Go through *parts* from the left, taking off what was looked at, and tell what is wrong."""
    yield from _month_faults(kind, parts)
    yield from _office_faults("送信元", "sender", parts)
    has_services = bool(parts) and len(parts[0]) < len(NO_MONTH)
    if has_services or not kind.is_in_32:
        yield from _service_faults("送信元", "sender's", parts)
    yield from _office_faults("宛先", "recipient", parts)
    if has_services or not kind.is_in_32:
        yield from _service_faults("宛先", "recipient's", parts)
    elif parts and len(parts[0]) < len(NO_MONTH):
        yield Why("送信元のサービス種類コードがありません", "the sender's service type code is missing")
    yield from _serial_faults(parts)
    yield from _branch_faults(kind, parts)
    if parts:
        shown = quote_part("_" + "_".join(parts))
        yield Why(f"余分な「{shown}」が付いています", f"{shown} is too much")


def _month_faults(kind: Kind, parts: deque[str]) -> Iterator[Why]:
    first = parts[0]
    is_like_month = len(first) == len(NO_MONTH) and first.isdigit()
    if not kind.has_month:
        if is_like_month:
            yield Why(f"{kind.name} の名前に、余分な年月が付いています", f"a {kind.name} name has no month")
        return
    # An office number stands where the month should: the whole part was left out.
    if not first or explain_office_number(first) is None or len(first) > len(NO_MONTH) + 2:
        yield Why("年月がありません", "the month is missing")
    parts.popleft()
    if is_like_month and first == NO_MONTH and kind.name != _KIND_WITHOUT_MONTH:
        yield Why(f"年月が {NO_MONTH} です。この書類では使えません", f"only {_KIND_WITHOUT_MONTH} has month {NO_MONTH}")
    elif not _is_month_of(kind, first):
        shown = quote_part(first)
        yield Why(f"年月 {shown} は実在しません", f"{shown} is no real month")


def _office_faults(role_ja: str, role_en: str, parts: deque[str]) -> Iterator[Why]:
    if not parts or not parts[0] or (len(parts) == 1 and is_real_serial(parts[0])):
        yield Why(f"{role_ja}の事業所番号がありません", f"the {role_en}'s office number is missing")
        return
    fault = explain_office_number(parts.popleft())
    if fault is not None:
        yield Why(f"{role_ja}の{fault.ja}", f"{role_en}: {fault.en}")


def _service_faults(role_ja: str, role_en: str, parts: deque[str]) -> Iterator[Why]:
    if not parts or not parts[0] or len(parts[0]) >= len(NO_MONTH):
        yield Why(f"{role_ja}のサービス種類コードがありません", f"the {role_en} service type code is missing")
        return
    part = parts.popleft()
    if re.fullmatch(SERVICE_TYPE, part) is None:
        shown = quote_part(part)
        yield Why(
            f"サービス種類コードが {shown} です。正しくは英数字2桁です", f"service type {shown} is not 2 characters"
        )


def _serial_faults(parts: deque[str]) -> Iterator[Why]:
    if not parts or not parts[0]:
        yield Why("最後に、年月日時分秒の14桁がありません", "the serial (14 digits) is missing")
        return
    fault = explain_serial(parts.popleft())
    if fault is not None:
        yield fault


def _branch_faults(kind: Kind, parts: deque[str]) -> Iterator[Why]:
    if not kind.is_image:
        return
    branch = parts.popleft() if parts else ""
    if not (len(branch) == _BRANCH_DIGITS and branch.isdigit()):
        yield Why("最後に、0001 などの画像の番号がありません", "the image's branch number (4 digits) is missing")
