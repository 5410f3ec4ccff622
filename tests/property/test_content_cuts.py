"""Content: the answer does not depend on how a file is split, and a file cut anywhere is not taken for a whole one."""

from __future__ import annotations

import io
import itertools
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.content import start_check
from relay.errors import Refused
from relay.model import Address, Grammar, OfficeNumber

RECIPIENT = OfficeNumber("0178515854")


def free(extension: str) -> Address:
    """Return the address of some file with that extension that is not the standard's."""
    return Address(f"x.{extension}", Grammar.FOLDER, extension.upper(), RECIPIENT)


def judge(address: Address, pieces: Iterable[bytes]) -> str:
    """Return the code by which these pieces are refused, with its facts, or ``ok``."""
    check = start_check(address, {})
    try:
        for piece in pieces:
            check.feed(piece)
        assert check.finish() == ()
    except Refused as refused:
        return refused.client_text
    return "ok"


def is_refused_as_cut(address: Address, data: bytes) -> bool:
    """Judge *data* in one piece; what is cut is either truncated or, with nothing left, empty."""
    verdict = judge(address, [data])
    assert verdict == "ok" or verdict.startswith(("content.truncated:", "content.empty:")), verdict
    return verdict != "ok"


# --- files of every format ---------------------------------------------------------------------------------------


def pdf() -> bytes:
    """A PDF that was saved twice: the first end mark stands close before the second part."""
    first = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\nxref\n0 1\ntrailer\n<<>>\nstartxref\n9\n%%EOF\n"
    return first + b"2 0 obj\n<< /Kind /Update >>\nendobj\nxref\n0 1\ntrailer\n<<>>\nstartxref\n99\n%%EOF\r\n"


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg() -> bytes:
    """A progressive JPEG with a whole thumbnail in its header and stuffed bytes and restarts in its scans."""
    thumbnail = b"\xff\xd8" + _segment(0xDB, b"q" * 8) + _segment(0xDA, b"s") + b"ab\xff\x00c\xff\xd9"
    head = b"\xff\xd8" + _segment(0xE1, b"Exif\0\0" + thumbnail) + _segment(0xDB, b"\0" * 65)
    scan = _segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + bytes(range(255)) + b"\xff\x00\xff\xd0\xff\xff\x00zz"
    return head + scan + b"\xff" + _segment(0xC4, b"\xff\xd9tables") + scan + b"\xff\xff\xd9"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png() -> bytes:
    """A PNG of one pixel."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"IEND", b"")


def archive(comment: bytes = b"") -> bytes:
    """A ZIP that holds another one as it is, so that an end record stands in its middle."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        packed.writestr("a.txt", "abc")
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("inner.zip", inner.getvalue())
        packed.writestr("b.txt", "def")
        packed.comment = comment
    return outer.getvalue()


def large_archive() -> bytes:
    """A ZIP with the end records of the large form, as a program writes that streams."""
    plain = archive()
    end = plain.rindex(b"PK\5\6")
    count, size, offset = struct.unpack("<HII", plain[end + 10 : end + 20])
    large = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    small = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return plain[:end] + large + locator + small


JSON = json.dumps(
    {"名": 'a"b\\', "list": [1, {"x": "}]"}, "\\\\"], "e": {}, "n": None}, ensure_ascii=False, indent=1
).encode()

XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE r SYSTEM "r.dtd">\n<!-- <r> -->\n<r a="/x">'
    "<r>山田<![CDATA[<r>]]></r><e b='>'/><e /><r></r ></r>\n<!-- end -->\n"
).encode()


WHOLE: Sequence[tuple[str, bytes]] = [
    ("pdf", pdf()),
    ("jpg", jpeg()),
    ("png", png()),
    ("zip", archive()),
    ("zip", archive(b"comment")),
    ("zip", large_archive()),
    ("docx", archive()),
    ("json", JSON),
    ("json", b'\xef\xbb\xbf "a\\"b" '),
    ("json", b"true\n"),
    ("xml", XML),
]


def is_whole(extension: str, beginning: bytes, data: bytes) -> bool:
    """Say whether the *beginning* of *data* is itself a whole file of its format."""
    if extension == "pdf":
        # A PDF that was saved twice begins with the whole PDF that was saved first.
        return beginning.rstrip().endswith(b"%%EOF")
    if extension == "json":
        return len(beginning) >= len(data.rstrip())
    if extension == "xml":
        _, root, rest = beginning.partition(b"</r ></r>")
        return bool(root) and rest.strip() in (b"", b"<!-- end -->")
    return beginning == data


@pytest.mark.parametrize(("extension", "data"), WHOLE)
def test_a_file_cut_at_any_byte_is_refused_unless_it_is_still_whole(extension: str, data: bytes) -> None:
    """Every beginning of a file that is not itself a whole file is refused, and the whole file is not."""
    for length in range(len(data) + 1):
        beginning = data[:length]
        assert is_refused_as_cut(free(extension), beginning) != is_whole(extension, beginning, data), length


# --- splitting ---------------------------------------------------------------------------------------------------


def split(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return *data* in pieces that begin at *places*; some may be empty."""
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(borders)]


TOKENS: dict[str, Sequence[bytes]] = {
    "csv": [b'"', b",", b"\n", b"\r\n", b"a", b" ", b"\x95\x5c", b"\x81", b"\x1a", b"x" * 1100, b"\0"],
    "pdf": [b"%PDF-", b"%%EOF", b"\n", b"1 0 obj", b"xref", b"\0", b"x" * 600],
    "jpg": [b"\xff\xd8", b"\xff", b"\xd9", b"\xda", b"\x00", b"\x03", b"\xff\xe0\x00\x04", b"\xd0", b"x" * 700],
    "png": [b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND", b"\xaeB`\x82", b"IEND"],
    "zip": [b"PK\3\4", b"PK\5\6", b"PK\6\7", b"PK\6\6", b"\0" * 16, b"\0\0", b"\4\0\0\0", archive()],
    "json": [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\\\\",
        b"1",
        b" ",
        b"\xe5\xb1\xb1",
        b"\x8e",
        b"true",
        b"\xef\xbb\xbf",
    ],
    "xml": [
        b"<",
        b">",
        b"/",
        b"<r>",
        b"</r>",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"]]>",
        b"<?",
        b"?>",
        b"<!DOCTYPE",
        b"[",
        b" ",
        b"\0",
        b"!",
        b"\xef\xbb\xbf",
        b"x" * 3000,
    ],
}


@given(st.data())
def test_any_split_gives_the_same_answer(data: st.DataObject) -> None:
    """What a file is told does not depend on the sizes of the pieces in which a client happened to send it."""
    extension = data.draw(st.sampled_from(sorted(TOKENS)))
    content = b"".join(data.draw(st.lists(st.sampled_from(TOKENS[extension]), max_size=40)))
    places = data.draw(st.lists(st.integers(0, len(content)), max_size=12))
    makers: Sequence[Callable[[str], Address]] = [free]
    if extension == "jpg":
        makers = [free, lambda ext: Address(f"x.{ext}", Grammar.STANDARD_41, "UPPLAN", RECIPIENT)]
    address = data.draw(st.sampled_from(makers))(extension)
    whole = judge(address, [content])
    assert judge(address, split(content, places)) == whole
    assert judge(address, split(content, range(min(len(content), 3000)))) == whole


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_whole_file_is_whole_however_it_is_split(whole: tuple[str, bytes], places: list[int]) -> None:
    """No piece, however small, hides the end of a file."""
    extension, data = whole
    assert judge(free(extension), split(data, places)) == "ok"


@given(
    st.lists(st.lists(st.text(max_size=5), min_size=4, max_size=4), min_size=1, max_size=5),
    st.sampled_from(["", "\r\n"]),
)
def test_a_csv_that_any_program_writes_is_never_refused(rows: list[list[str]], end: str) -> None:
    """Conforming CSV passes, with and without its last line end, in any encoding that keeps ASCII."""
    lines = ["x," + ",".join('"' + item.replace('"', '""') + '"' for item in row) for row in rows]
    data = ("\r\n".join(lines) + end).encode("utf-8", "replace")
    assert judge(free("csv"), [data]) == "ok"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON_VALUES)
def test_json_that_any_program_writes_is_never_refused(value: object) -> None:
    """Conforming JSON passes, whatever its strings hold."""
    assert judge(free("json"), [json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")]) == "ok"


@given(
    st.binary(max_size=200), st.sampled_from(["csv", "pdf", "jpg", "png", "zip", "xlsx", "json", "xml", "txt", "heic"])
)
def test_no_bytes_make_a_check_fail_otherwise_than_by_refusing(data: bytes, extension: str) -> None:
    """For any bytes there is an answer."""
    judge(free(extension), [data])
