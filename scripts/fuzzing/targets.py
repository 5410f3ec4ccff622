"""What is fuzzed: one function for each reader of strangers' bytes, with what must hold for any bytes whatever.

Each target takes bytes, uses them as a client could, and raises whatever it finds: an exception that is not the
module's own, or an AssertionError where two answers disagree that must not.  They are pure and remember nothing, so
that an input tells the same every time.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC

from relay import naming, offered, tree
from relay.content import start_check
from relay.errors import TABLE, Finding, Refused
from relay.model import Address, Grammar, OfficeNumber, fold_name
from relay.naming import NAME_BYTES, NamingRules, OperatorGrammar, decode_name, parse_name, render_name
from relay.sftp import wire
from relay.sftp.wire import Framer, Init, Request, WireError
from relay.standard.kinds import KINDS
from relay.standard.offices import parse_office_number
from relay.standard.roster import Listed
from relay.temporary import is_temporary, strip_temporary

FOLDER = OfficeNumber("0178529384")
RULES = NamingRules(
    frozenset({"csv", "pdf", "jpg", "txt"}),
    (OperatorGrammar("fax", re.compile(r"FAX-(?P<recipient>[^-]*)-?(?P<month>.*)\.pdf")),),
)
# Only what parses is asked for its fields; both ends are here so that no mistake is shared with the codec.
_STRING_FIRST = (wire.OPEN, wire.SETSTAT, wire.FSETSTAT, wire.MKDIR)
_TWO_STRINGS = (wire.RENAME, wire.SYMLINK)
_LENGTH_BYTES = 4
# Control characters, surrogates, line and paragraph ends.
_MISLEADING = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Target:
    """Something to fuzz: *tokens* are words that an engine may put in, *share* is its part of the time."""

    run: Callable[[bytes], None]
    longest: int
    share: int
    tokens: tuple[bytes, ...] = ()


def fuzz_wire(data: bytes) -> None:
    """A stream cut in two ways holds the same packets; each is a message that says what it holds, or a WireError."""
    size, stream = 1 + (data[0] if data else 0), data[1:]
    whole = _cut(stream, len(stream) or 1)
    assert whole == _cut(stream, size)
    for packet in whole[0]:
        try:
            message = wire.parse_packet(packet)
        except WireError as error:
            assert error.request_id is None or error.request_id == struct.unpack_from(">I", packet, 1)[0]
        else:
            _check_message(packet, message)


def _cut(stream: bytes, size: int) -> tuple[list[bytes], str]:
    framer, packets = Framer(), []
    try:
        for start in range(0, len(stream), size):
            framer.feed(stream[start : start + size])
            while (packet := framer.next_packet()) is not None:
                assert packet
                packets.append(bytes(packet))
    except WireError as error:
        assert error.request_id is None
        return packets, error.crime
    assert framer.held_bytes == len(stream) - sum(_LENGTH_BYTES + len(packet) for packet in packets)
    return packets, ""


def _check_message(packet: bytes, message: Init | Request) -> None:
    if isinstance(message, Init):
        assert packet.startswith(struct.pack(">BI", wire.INIT, message.version))
        return
    head = struct.pack(">BI", message.type, message.id)
    assert packet.startswith(head + b"".join(_fields(message)))
    if message.type == wire.EXTENDED:
        for read in (wire.extension_handle, wire.extension_path, wire.extension_paths):
            try:
                read(message)
            except WireError as error:
                assert error.request_id == message.id


def _fields(message: Request) -> Iterator[bytes]:
    """Write what was read, up to attributes, which keep less than they hold."""
    kind = message.type
    if kind == wire.EXTENDED:
        yield _string(message.subject) + message.target
    elif kind in _TWO_STRINGS:
        yield _string(message.subject) + _string(message.target)
    elif kind == wire.READ:
        yield _string(message.subject) + struct.pack(">QI", message.offset, message.length)
    elif kind == wire.WRITE:
        yield _string(message.subject) + struct.pack(">Q", message.offset) + _string(bytes(message.data))
    elif kind in _STRING_FIRST or message.subject:
        yield _string(message.subject)


def _string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def fuzz_naming(data: bytes) -> None:
    """A name is refused in words or becomes an address that can be written, and read again as the same."""
    folder = FOLDER if data[:1] > b"\x7f" else None
    naming._parse_name.cache_clear()  # noqa: SLF001 - what is remembered would not be run again
    try:
        name = decode_name(data[1:])
        address = parse_name(name, RULES, folder=folder)
    except Refused as refused:
        _check_words(refused, "name.", "route.folder_mismatch")
        return
    _check_temporary(name)
    assert unicodedata.is_normalized("NFC", address.name)
    assert len(address.name.encode()) <= NAME_BYTES
    assert not _MISLEADING & set(map(unicodedata.category, address.name))
    assert parse_office_number(address.recipient) == address.recipient
    assert folder in (None, address.recipient)
    if any(name.upper().startswith(f"{kind}_") for kind in KINDS):
        assert address.is_standard, "a name of the standard fell through to another grammar"
    written = render_name(address)
    assert fold_name(written) == fold_name(address.name)
    again = parse_name(written, RULES, folder=folder)
    assert _without_case(again) == _without_case(address)


def _without_case(address: Address) -> Address:
    return replace(address, name="", findings=())


def _check_temporary(name: str) -> None:
    final = strip_temporary(name)
    assert final is None or (is_temporary(name) and final and len(final) < len(name) and final in name)


def _check_words(refused: Refused, *allowed: str) -> None:
    assert refused.code in TABLE
    assert refused.code.startswith(allowed)
    assert refused.client_text.isprintable(), refused.client_text
    refused.client_text.encode()


def fuzz_path(data: bytes) -> None:
    """A path is refused in words or is a place whose own path leads there again, with no way up left in it."""
    tree._resolve_short.cache_clear()  # noqa: SLF001 - as above
    try:
        place = tree.resolve_path(data)
    except Refused as refused:
        _check_words(refused, "name.illegal")
        return
    assert place.path.startswith("/")
    assert place.lane or place.path == "/"
    assert not {"..", "."} & set(place.path.split("/"))
    assert "\0" not in place.path
    assert tree.resolve_path(place.path.encode()) == place


def fuzz_certificate(data: bytes) -> None:
    """Bytes are a certificate's claims, or rejected for a reason in printable words."""
    for read in (offered.parse_certificate, _parse_line, offered.signature_algorithm):
        try:
            found = read(data)
        except offered.CertificateRejected as rejected:
            assert rejected.detail.isprintable(), rejected.detail
        else:
            if isinstance(found, str):
                assert found.isprintable(), found
            else:
                assert len(found.principals) <= offered.PRINCIPALS
                assert found.valid_after.tzinfo is found.valid_before.tzinfo is UTC


def _parse_line(data: bytes) -> offered.OfferedCertificate:
    return offered.parse_certificate_line(data.decode("latin-1"))


_OTHERS = ("csv", "pdf", "jpg", "png", "zip", "docx", "json", "xml", "txt")
CONTENTS = tuple(
    [Address(f"x.{extension}", Grammar.FOLDER, extension.upper(), FOLDER) for extension in _OTHERS]
    + [
        Address("MESSAGE_x.txt", Grammar.GENERAL, "MESSAGE", FOLDER),
        Address("UPKIHON_IMAGE_x.JPG", Grammar.STANDARD_41, "UPKIHON_IMAGE", FOLDER),
        *(Address(f"{kind}_x.CSV", Grammar.STANDARD_41, kind, FOLDER, month="202607") for kind in ("UPPLAN", "UPJSK")),
        Address("UP1KYO_x.CSV", Grammar.STANDARD_32, "UP1KYO", FOLDER),
        Address("DLT1KYO_x.CSV", Grammar.STANDARD_41, "DLT1KYO", FOLDER),
    ]
)


def fuzz_content(data: bytes) -> None:
    """A file is judged alike whole and in pieces; it is refused in words or told about."""
    head, body = data[:2].ljust(2, b"\0"), data[2:]
    address = CONTENTS[head[0] % len(CONTENTS)]
    assert _judge(address, body, len(body) or 1) == _judge(address, body, 1 + head[1] % 64)


def _judge(address: Address, body: bytes, size: int) -> tuple[tuple[Finding, ...], list[Listed], str | None]:
    check = start_check(address, {})
    try:
        for start in range(0, len(body), size):
            check.feed(body[start : start + size])
        found = check.finish()
    except Refused as refused:
        _check_words(refused, "content.")
        return (refused.finding,), [], None
    return found, [*(check.gist.roster or ())], check.gist.first_line


def fuzz_drill(data: bytes) -> None:
    """A fault on purpose, to see that a fault is found, kept and told."""
    assert b"!" not in data, "found, as it should be"


_NAME_TOKENS = tuple(
    text.encode()
    for text in (
        *(f"{kind}_" for kind in KINDS),
        *("REPORT_", "MESSAGE_", "_0178515854", "_0178529384", "_01A8516384", "_43", "_11", "_202607", "_000000"),
        *("_20260622080000", "_0001", ".CSV", ".JPG", ".pdf", ".txt", ".filepart", ".part", ".tmp", ".in.", "FAX-"),
        *(".0a1b2c3d.partial", "提供票", "＿", "\u0332", "\u202e", "CON", ".refused.txt"),
    )
)
_PATH_TOKENS = (
    *(b"/send/", b"/receive/", b"/new/", b"/done/", b"/recall/", b"/status/", b"..", b"//", b"/README.txt"),
    *(
        b"0178529384",
        b".refused.txt",
        "宛先 ".encode(),
        "お知らせ.txt".encode(),
        b".filepart",
        b".pdf",
        b"\xff",
        b"e\xcc\x81",
    ),
)
_WIRE_TOKENS = (b"\0\0\0\5\1\0\0\0\3", b"fsync@openssh.com", b"posix-rename@openssh.com", b"limits@openssh.com")
_CONTENT_TOKENS = (
    *(b"202407,", b"202208,", b"\r\n", b'"', b'""', b"%PDF-", b"%%EOF", b"\xff\xd8\xff", b"\xff\xd9", b"PK\5\6"),
    *(b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82", b"<![CDATA[", b"-->", b"<?xml", b"\xef\xbb\xbf", b"\xff\xfe", b"PK\6\7"),
)

TARGETS: Mapping[str, Target] = {
    "wire": Target(fuzz_wire, 600, 4, _WIRE_TOKENS),
    "naming": Target(fuzz_naming, 300, 4, _NAME_TOKENS),
    "content": Target(fuzz_content, 600, 2, _CONTENT_TOKENS),
    "path": Target(fuzz_path, 300, 1, _PATH_TOKENS),
    "certificate": Target(fuzz_certificate, 1500, 1, tuple(kind.encode() for kind in offered.CERTIFICATE_KINDS)),
}
# Run only where it is asked for by name.
DRILL = Target(fuzz_drill, 64, 1)
