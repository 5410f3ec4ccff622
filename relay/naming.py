"""Naming: a file name becomes an address, or a refusal in words.

Three grammars are tried in this order, and a name is never guessed between two (DESIGN section 6):

1. the care-plan standard's; a name that begins with one of its kinds and ``_`` is judged by it alone;
2. the general form ``LABEL_<sender>[_ss]_<recipient>[_rr]_<YYYYMMDDHHMMSS>.<ext>``, then the operator's own;
3. anything legal with an allowed extension, inside ``send/<recipient>/``.

A name that has the shape of the general form, but whose serial is no real date or whose digits are full-width,
is refused and not taken for a free one, in a folder too: it says a recipient, and it may be another.

Whatever comes in, only `Refused` comes out.  No clock, no register, no disk: the same name gives the same answer,
which is why answers are remembered.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from relay.errors import Refused
from relay.model import Address, Grammar, OfficeNumber
from relay.standard.names import (
    COMBINING_LOW_LINE,
    explain_foreign_character,
    find_check_digits,
    look_alike,
    parse_standard_name,
    render_standard_name,
)
from relay.standard.offices import (
    OFFICE_NUMBER_ANY_CASE,
    SERVICE_TYPE_ANY_CASE,
    explain_office_number,
    parse_office_number,
)
from relay.standard.reasons import Why, illegal, malformed, name_character, quote_part
from relay.standard.serials import SERIAL, explain_serial, is_real_month, is_real_serial

# The kind of a unit's message, and the label that makes a name one.
MESSAGE_KIND = "MESSAGE"

NAME_BYTES = 255
# What the recipient sees in front of a free name: sender and time of acceptance, each with its ``_`` (DESIGN section 3).
_FREE_PREFIX_BYTES = 26
# No name of 255 bytes is longer than this before NFC; more is not even normalised, which takes quadratic time.
_RAW_LENGTH = 1024
# One OPEN is followed by a few STATs of the same name; names are personal, so no more than that is remembered.
_REMEMBERED_NAMES = 2048

_GENERAL = re.compile(
    rf"(?P<label>.+)_(?P<sender>{OFFICE_NUMBER_ANY_CASE})(?:_(?P<sender_service>{SERVICE_TYPE_ANY_CASE}))?"
    rf"_(?P<recipient>{OFFICE_NUMBER_ANY_CASE})(?:_(?P<recipient_service>{SERVICE_TYPE_ANY_CASE}))?"
    rf"_(?P<serial>{SERIAL})\.(?P<extension>[^.]+)"
)

# What was meant as an office number, a digit lost or doubled.
_OFFICE_LIKE = re.compile(r"[0-9]{2}[0-9A-Za-z][0-9]{6,8}")

_WINDOWS_RESERVED = r'<>:"/\\|?*'
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
# Characters that show nothing make two names that look the same; none of them has a use in a file name here.
_INVISIBLE = "\u00ad\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_NO_CHARACTER = "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
_ILLEGAL = re.compile(f"[{_WINDOWS_RESERVED}{_CONTROL}{_DIRECTION}{_INVISIBLE}{_NO_CHARACTER}]")
_ILLEGAL_CLASSES = (
    (re.compile(f"[{_CONTROL}]"), Why("目に見えない文字（{code}）があります", "control character {code}")),
    (
        re.compile(f"[{_DIRECTION}]"),
        Why("文字の向きを変える、見えない文字（{code}）があります", "{code} changes the direction of text"),
    ),
    (re.compile(f"[{_INVISIBLE}]"), Why("目に見えない文字（{code}）があります", "invisible character {code}")),
    (re.compile(f"[{_NO_CHARACTER}]"), Why("文字として読めないもの（{code}）があります", "{code} is no character")),
    (re.compile("."), Why("記号「{character}」は使えません", "{character} is not allowed")),
)
# Reserved with any extension and in any case; Windows also drops blanks before the dot.
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class OperatorGrammar:
    """An operator's own form of names.

    *pattern* must fit the whole name and have the group ``recipient``, and may have ``sender``, ``serial`` (14
    digits, a real date) and ``month`` (YYYYMM).
    """

    label: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class NamingRules:
    """What an operator decides about names; *extensions* in lower case without the dot, *grammars* in order."""

    extensions: frozenset[str]
    grammars: tuple[OperatorGrammar, ...] = ()


def decode_name(raw: bytes) -> str:
    """Read the bytes of a name as UTF-8 and bring them to NFC; ``name.illegal`` where they are not UTF-8.

    Whether the name may be used is asked by `parse_name`.
    """
    if len(raw) > _RAW_LENGTH:
        raise illegal(_too_long(len(raw)))
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise illegal(
            Why("送信に使ったソフトの文字コードの設定が UTF-8 ではありません", "the name is not UTF-8")
        ) from None
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def parse_name(name: str, rules: NamingRules, *, folder: OfficeNumber | None = None) -> Address:
    """Say what *name* says, by the first grammar that knows it.

    *folder* is the office of ``send/<office>/``: with it a name that no other grammar knows is a free one for that
    office.  Raises ``name.illegal``, ``name.malformed``, or ``route.folder_mismatch`` where the name and the folder
    say different recipients.
    """
    return _parse_name(name, rules, folder)


def render_name(address: Address) -> str:
    """Write the name of *address* as its grammar has it: kind and office numbers in capitals, the rest as it was.

    The result folds to the same as the name it was parsed from.
    """
    if address.is_standard:
        return render_standard_name(address)
    match = _GENERAL.fullmatch(address.name) if address.grammar is Grammar.GENERAL else None
    if match is None:
        return address.name
    parts = [match["label"], address.sender, address.sender_service]
    parts += [address.recipient, address.recipient_service, address.serial]
    return "_".join(part for part in parts if part) + "." + match["extension"]


@lru_cache(maxsize=_REMEMBERED_NAMES)
def _parse_name(name: str, rules: NamingRules, folder: OfficeNumber | None) -> Address:
    name = _normalise_legal(name)
    address = _parse_addressed_name(name, rules)
    if address is not None:
        if address.is_free:
            _require_room_for_prefix(name)
        if folder is not None and address.recipient != folder:
            raise Refused("route.folder_mismatch", folder=folder, office=address.recipient)
        return address
    if folder is None:
        raise malformed(_explain_unaddressed(name))
    _require_room_for_prefix(name)
    return Address(name=name, grammar=Grammar.FOLDER, kind=_extension(name).upper(), recipient=folder)


def _normalise_legal(name: str) -> str:
    """Return *name* in NFC; ``name.illegal`` where a Windows machine could not hold it or a reader be misled."""
    if not name:
        raise illegal(Why("名前が空です", "the name is empty"))
    if len(name) > _RAW_LENGTH:
        raise illegal(_too_long(len(name)))
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    bad = _ILLEGAL.search(name)
    if bad is not None:
        raise illegal(_explain_illegal(bad[0]))
    length = len(name) if name.isascii() else len(name.encode())
    if length > NAME_BYTES:
        raise illegal(_too_long(length))
    if name[-1] in ". ":
        raise illegal(Why("名前の最後が点「.」か空白です", "the name ends with a dot or blank"))
    device = _DEVICE.match(name)
    if device is not None:
        shown = device[1].upper()
        raise illegal(Why(f"{shown} は Windows が使う名前です", f"{shown} is a device name of Windows"))
    return name


def _require_room_for_prefix(name: str) -> None:
    length, most = len(name.encode()), NAME_BYTES - _FREE_PREFIX_BYTES
    if length > most:
        raise illegal(_too_long(length, most))


def _too_long(length: int, most: int = NAME_BYTES) -> Why:
    return Why(
        f"長すぎます。{length}バイトで、上限は{most}、かなや漢字は1字で3です", f"{length} bytes, more than {most}"
    )


def _explain_illegal(character: str) -> Why:
    why = next(why for pattern, why in _ILLEGAL_CLASSES if pattern.match(character))
    code = name_character(character)
    return Why(why.ja.format(code=code, character=character), why.en.format(code=code, character=character))


def _parse_addressed_name(name: str, rules: NamingRules) -> Address | None:
    """Read a name that itself says its recipient; None for a free one, which has an allowed extension all the same."""
    address = parse_standard_name(name)
    if address is not None:
        return address
    _require_extension(name, rules)
    match = _GENERAL.fullmatch(name)
    if match is not None:
        return _read_general(name, match)
    if not name.isascii() and _GENERAL.fullmatch(look_alike(name)) is not None:
        raise malformed(_explain_look_alike(name))
    for grammar in rules.grammars:
        match = grammar.pattern.fullmatch(name)
        if match is not None:
            return _read_operators(name, match)
    return None


def _extension(name: str) -> str:
    stem, _, extension = name.rpartition(".")
    return extension.lower() if stem else ""


def _require_extension(name: str, rules: NamingRules) -> None:
    extension = _extension(name)
    if extension in rules.extensions:
        return
    if not extension:
        raise malformed(Why("名前の最後に .pdf などの拡張子がありません", "the extension is missing"))
    shown = quote_part("." + extension)
    raise malformed(Why(f"最後が {shown} のファイルは送れません", f"the extension {shown} is not allowed"))


def _read_general(name: str, match: re.Match[str]) -> Address:
    fault = explain_serial(match["serial"])
    if fault is not None:
        raise malformed(fault)
    sender, recipient = OfficeNumber(match["sender"].upper()), OfficeNumber(match["recipient"].upper())
    sender_service, recipient_service = match["sender_service"], match["recipient_service"]
    is_message = match["label"].isascii() and match["label"].upper() == MESSAGE_KIND
    return Address(
        name=name,
        grammar=Grammar.GENERAL,
        kind=MESSAGE_KIND if is_message else match["extension"].upper(),
        recipient=recipient,
        sender=sender,
        sender_service=sender_service.upper() if sender_service else None,
        recipient_service=recipient_service.upper() if recipient_service else None,
        serial=match["serial"],
        findings=find_check_digits(sender, recipient),
    )


def _read_operators(name: str, match: re.Match[str]) -> Address:
    parts = match.groupdict()
    recipient = _read_office("宛先", "recipient", parts["recipient"] or "")
    sender = _read_office("送信元", "sender", parts["sender"]) if parts.get("sender") else None
    serial, month = parts.get("serial") or None, parts.get("month") or None
    if serial is not None and not is_real_serial(serial):
        raise malformed(explain_serial(serial) or Why("最後の日時が違います", "the serial is wrong"))
    if month is not None and not is_real_month(month):
        shown = quote_part(month)
        raise malformed(Why(f"年月 {shown} は実在しません", f"{shown} is no real month"))
    return Address(
        name=name,
        grammar=Grammar.OPERATOR,
        kind=_extension(name).upper(),
        recipient=recipient,
        sender=sender,
        serial=serial,
        month=month,
        findings=find_check_digits(sender, recipient),
    )


def _read_office(role_ja: str, role_en: str, text: str) -> OfficeNumber:
    number = parse_office_number(text)
    if number is None:
        fault = explain_office_number(text) or Why("事業所番号が違います", "the office number is wrong")
        raise malformed(Why(f"{role_ja}の{fault.ja}", f"{role_en}: {fault.en}"))
    return number


def _explain_look_alike(name: str) -> Why:
    # The label may be Japanese, so what is told is the last character that only looks like an ASCII one.
    odd = (c for c in reversed(name) if not c.isascii() and unicodedata.normalize("NFKC", c).isascii())
    return explain_foreign_character(name if COMBINING_LOW_LINE in name else next(odd, name))


def _explain_unaddressed(name: str) -> Why:
    """Say why *name*, legal and of an allowed extension, goes nowhere: which part of the general form is off."""
    if _GENERAL.fullmatch("X_" + name):
        return Why("先頭に REPORT などの見出しがありません", "a label such as REPORT must come first")
    parts = name.rpartition(".")[0].split("_")
    numbers = [part for part in parts if _OFFICE_LIKE.fullmatch(part)][-2:]
    fault = next((why for number in numbers if (why := explain_office_number(number)) is not None), None)
    if fault is not None:
        return fault
    if not numbers:
        return Why("宛先の事業所番号が名前にありません", "the name says no recipient")
    if len(numbers) == 1:
        return Why(
            "事業所番号が1つだけです。送信元と宛先の2つが要ります",
            "one office number, but sender and recipient are needed",
        )
    if parts[-1] in numbers:
        return Why("最後に、年月日時分秒の14桁がありません", "the serial (14 digits) is missing")
    return explain_serial(parts[-1]) or Why("名前の形が違います", "the parts are in the wrong order")
