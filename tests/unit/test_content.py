"""Content: what is refused, what is let in, and what the operator can change about it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping

import pytest

from relay.content import start_check
from relay.errors import Finding, Refused, Severity, finding
from relay.model import Address, Grammar, OfficeNumber
from relay.standard.layouts import count_items

RECIPIENT = OfficeNumber("0178515854")
RECORD = b"202407,011234,0000123456,20260401\r\n"


OTHER = b"202407,011234,0000123457,20260401\r\n"


def free(extension: str) -> Address:
    """Return the address of some file with that extension that is not the standard's."""
    return Address(f"x.{extension}", Grammar.FOLDER, extension.upper(), RECIPIENT)


def standard(kind: str = "DLT1KYO", grammar: Grammar = Grammar.STANDARD_41) -> Address:
    """Return the address of a CSV of the standard."""
    return Address(f"{kind}_x.CSV", grammar, kind, RECIPIENT)


def judge(address: Address, *pieces: bytes, severities: Mapping[str, Severity] | None = None) -> tuple[Finding, ...]:
    """Return what is said about a file of these pieces."""
    check = start_check(address, severities or {})
    for piece in pieces:
        check.feed(piece)
    return check.finish()


def code_of(address: Address, *pieces: bytes) -> str:
    """Return the code by which a file of these pieces is refused."""
    with pytest.raises(Refused) as caught:
        judge(address, *pieces)
    return caught.value.code


@pytest.mark.parametrize("content", [b"", b" \r\n\t\r\n"])
@pytest.mark.parametrize("extension", ["csv", "pdf", "jpg", "png", "zip", "json", "xml", "txt", "heic"])
def test_a_file_with_nothing_in_it_is_empty_whatever_its_kind(extension: str, content: bytes) -> None:
    """No bytes, and nothing but blanks and line ends, are refused as empty."""
    pieces = [content[:1], content[1:]] if extension in ("csv", "txt", "heic", "json", "xml") else [content[:0]]
    assert code_of(free(extension), *pieces) == "content.empty"


@pytest.mark.parametrize("extension", ["txt", "tif", "heic", "doc", "xls"])
def test_kinds_without_a_known_end_are_let_in_as_they_are(extension: str) -> None:
    """What cannot be judged is not judged."""
    assert judge(free(extension), b"x") == ()


@pytest.mark.parametrize(
    ("extension", "content"),
    [
        ("pdf", b"PK\3\4"),
        ("jpg", b"\x89PNG\r\n\x1a\n"),
        ("jpeg", b"GIF89a"),
        ("png", b"\xff\xd8\xff\xe0"),
        ("zip", b"%PDF-1.7"),
        ("docx", b"<html>"),
        ("xlsx", b"a,b,c\r\n"),
        ("json", b"  <html>"),
        ("xml", b"\xef\xbb\xbf {}"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_first_bytes(extension: str, content: bytes) -> None:
    """A wrong start is refused while the rest has not arrived yet."""
    check = start_check(free(extension), {})
    pieces = [content[place : place + 1] for place in range(len(content))]
    with pytest.raises(Refused) as caught:
        list(map(check.feed, pieces))
    assert caught.value.code == "content.not_this_kind"
    assert extension.upper() in caught.value.client_text


@pytest.mark.parametrize("extension", ["docx", "xlsx"])
def test_an_office_document_with_a_password_is_let_in(extension: str) -> None:
    """Protected documents are no ZIP, and are sent every day."""
    assert judge(free(extension), b"\xd0\xcf\x11\xe0\xa1", b"\xb1\x1a\xe1" + b"\0" * 504) == ()


@pytest.mark.parametrize(
    "content",
    [
        RECORD + OTHER,
        RECORD + OTHER.rstrip(),
        RECORD.replace(b"\r\n", b"\n") + OTHER,
        RECORD + b"\r\n\r\n",
        RECORD.rstrip(),
        b'"202407","011234","0000123456","20260401"\r\n',
        b'202407,"011234",H000123456,"20260401"',
    ],
)
def test_a_conforming_csv_of_the_standard_is_let_in(content: bytes) -> None:
    """CRLF and LF, no final line end, empty lines at the end and quoting are all right."""
    assert judge(standard(), content) == ()


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (RECORD + b"202407,0112", "line 2, in the middle of the last line"),
        (b"202407,011234,0000", "line 1, in the middle of the last line"),
        (RECORD + b"202407,011234,0000123457,202604", "line 2, in the middle of the last line"),
        (RECORD + b'202407,"0112', "line 2, a quotation mark is never closed"),
        (RECORD + b"202407,011234,0000123456,\x95\x5c\x95", "line 2, in the middle of a character"),
        (RECORD + OTHER[:-1], "line 2, in the middle of a line end"),
    ],
)
def test_a_cut_csv_of_the_standard_is_told_where(content: bytes, where: str) -> None:
    """The sentence says what is missing, in both languages, and quotes nothing."""
    with pytest.raises(Refused) as caught:
        judge(standard(), content)
    assert caught.value.finding.message_en == f"the file is cut off ({where})"
    assert "（" in caught.value.finding.message_ja
    assert "0112" not in caught.value.client_text


def test_one_record_is_measured_by_the_layout_of_its_own_version() -> None:
    """A file of one record has no other to compare with; the standard says how many items it has."""
    assert (count_items("UPPLAN", "3.2"), count_items("UPPLAN", "4.1"), count_items("PDF", "4.1")) == (22, 25, None)
    content = b"202208,011234,0000123456" + b"," * 19
    severities = {"content.unrelated_person": Severity.OFF}
    judge(standard("UPPLAN", Grammar.STANDARD_32), content, severities=severities)
    assert code_of(standard("UPPLAN", Grammar.STANDARD_41), content[:-1]) == "content.truncated"


@pytest.mark.parametrize(
    "content",
    [
        "a,b\r\n≠,\u2122\r\n".encode("utf-16"),
        'a,b\r\n"山田,太郎",x\r\n'.encode("iso2022_jp"),
        b"title\r\na,b,c\r\n1,2,3",
        b"a;b;c\r\n1;2",
        b"a\tb\r\n1",
        "名前,番号\r\n山田".encode() + b",1",
        b"a,b\r1,2\r",
    ],
)
def test_other_csv_may_have_any_encoding_and_form(content: bytes) -> None:
    """Rules of the standard's own files do not hold for others."""
    assert judge(free("csv"), content) == ()


def test_other_csv_that_is_cut_is_refused() -> None:
    """An open quotation mark and a last record short of items tell of a cut in any CSV."""
    assert code_of(free("csv"), b"a,b,c\r\n1,2,3\r\n1,2") == "content.truncated"
    assert code_of(free("csv"), b'a,b,c\r\n1,2,"x') == "content.truncated"


def test_a_picture_with_a_film_behind_it_is_whole_unless_the_standard_says_otherwise() -> None:
    """Telephones append to photographs; the standard's images must end where it looks."""
    photograph = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xda\x00\x02data\xff\xd9" + b"film" * 1000
    assert judge(free("jpg"), photograph) == ()
    image = Address("UPKIHON_IMAGE_x.JPG", Grammar.STANDARD_41, "UPKIHON_IMAGE", RECIPIENT)
    assert code_of(image, photograph) == "content.truncated"


def test_a_picture_whose_parts_make_no_sense_is_judged_by_its_end_alone() -> None:
    """What readers forgive is not refused."""
    odd = b"\xff\xd8\xff\xe0\x00\x00 odd \xff\xd9"
    assert judge(free("jpg"), odd) == ()
    assert code_of(free("jpg"), odd[:-1]) == "content.truncated"


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\0" * 20, b"<!-- mail gateway -->"])
def test_what_stands_behind_the_end_of_a_pdf_harms_nobody(rest: bytes) -> None:
    """Padding and notes behind the last end mark are let in."""
    assert judge(free("pdf"), b"%PDF-1.4\n...%%EOF" + rest) == ()


def test_json_in_the_encoding_of_old_programs_is_not_called_cut() -> None:
    """The second byte of 表 in MS932 is a backslash; such a text is no JSON and is not judged."""
    assert judge(free("json"), '{"name": "表"}'.encode("cp932")) == ()


def test_xml_with_declarations_of_its_own_is_not_judged() -> None:
    """An internal subset can hold anything; a whole file that has one is never refused."""
    assert judge(free("xml"), b'<!DOCTYPE r [<!ENTITY e "<a>">]><r>&e;</r>') == ()


def test_xml_of_other_encodings_is_let_in() -> None:
    """UTF-16 and MS932 are encodings of XML too."""
    text = '<?xml version="1.0"?><r a="能">ソ表</r>'
    for encoding in ("utf-16", "utf-16-be", "cp932", "utf-8-sig"):
        assert judge(free("xml"), text.encode(encoding)) == ()


def test_the_operator_can_turn_a_refusal_into_a_warning_or_off() -> None:
    """A warning is returned and stops nothing; off says nothing."""
    cut = b"%PDF-1.4\nno end"
    (warning,) = judge(free("pdf"), cut, severities={"content.truncated": Severity.WARN})
    assert warning.code == "content.truncated"
    assert judge(free("pdf"), cut, severities={"content.truncated": Severity.OFF}) == ()
    assert judge(free("csv"), b"", severities={"content.empty": Severity.WARN}) == (finding("content.empty"),)
    for severity, said in ((Severity.WARN, (finding("content.not_this_kind", kind="PDF"),)), (Severity.OFF, ())):
        assert judge(free("pdf"), b"%!PS", b"...", severities={"content.not_this_kind": severity}) == said


HOSTILE: Mapping[str, bytes] = {
    "csv": b'"a\n",' * 20_000,
    "jpg": b"\xff\xd8" + b"\xff" * 100_000,
    "json": b"[" * 100_000,
    "xml": b"<!DOCTYPE " + b"x" * 100_000,
    "zip": b"PK\3\4" + b"PK\5\6" * 25_000,
    "pdf": b"%PDF-" + b"%%EOF1" * 20_000,
    "png": b"\x89PNG\r\n\x1a\n" + b"\0" * 100_000,
}


@pytest.mark.parametrize("extension", sorted(HOSTILE))
def test_a_check_holds_a_bounded_part_of_a_file(extension: str) -> None:
    """However long a file made for it goes on, a check does not grow with it."""
    check = start_check(free(extension), {})
    check.feed(HOSTILE[extension])
    tracemalloc.start()
    try:
        for _ in range(20):
            check.feed(HOSTILE[extension][8:])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 80_000


@pytest.mark.parametrize(
    ("address", "content"),
    [
        (free("json"), b"\xef\xbb\xbf\r\xef\xbb\xbf{}"),
        (free("xml"), b" \xef\xbb\xbf\xef\xbb\xbf<r/>"),
        (free("xml"), b'<;x\xd9a,b\r\n" enco"?>\n\xe7\x94\xb0</>\n<r!-- end -->\n'),
        (standard(), b'"202407,\x811"\rU\n202407,123456","2026\xeb\x00260401\n'),
        (standard(), b'"202407"\r\r,"1",2\n"a"b\n'),
    ],
    ids=[
        "two byte order marks",
        "two byte order marks of XML",
        "a stroke of its own",
        "a CR behind a closing mark",
        "and two of them",
    ],
)
def test_what_the_fuzzer_found_is_judged_alike_whole_and_byte_by_byte(address: Address, content: bytes) -> None:
    """A second byte order mark, and a CR between a closing quotation mark and more text, told how a file had arrived."""

    def judged(*pieces: bytes) -> tuple[Finding, ...]:
        try:
            return judge(address, *pieces)
        except Refused as refused:
            return (refused.finding,)

    assert judged(content) == judged(*(content[place : place + 1] for place in range(len(content)))) != ()
