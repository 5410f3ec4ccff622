"""Naming: the three grammars and their order, what no machine may be given, and the words of each refusal."""

from __future__ import annotations

import re
import unicodedata

import pytest

from relay.errors import Refused
from relay.model import Address, Grammar, OfficeNumber
from relay.naming import NamingRules, OperatorGrammar, decode_name, parse_name, render_name

A = OfficeNumber("0178515854")
B = OfficeNumber("0178529384")
SERIAL = "20260622083604"
RULES = NamingRules(frozenset({"csv", "pdf", "jpg", "jpeg", "txt", "zip"}))


def _refused(name: str, *, folder: OfficeNumber | None = None, rules: NamingRules = RULES) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_name(name, rules, folder=folder)
    text = caught.value.client_text
    assert not text.endswith("…")
    assert "<why" not in text
    return caught.value


@pytest.mark.parametrize("raw", [b"\x83\x65\x83\x58\x83\x67.pdf", b"\xff.pdf", b"\xed\xa0\x80.pdf", b"\xc0\xaf.pdf"])
def test_what_is_not_utf8_is_refused(raw: bytes) -> None:
    """Shift-JIS, stray bytes, surrogates and overlong forms are refused in words."""
    with pytest.raises(Refused) as caught:
        decode_name(raw)
    assert caught.value.code == "name.illegal"
    assert "UTF-8" in caught.value.finding.message_ja


def test_names_are_brought_to_nfc() -> None:
    """A Mac sends ガ in two characters; the relay knows one."""
    decomposed = unicodedata.normalize("NFD", "ガイド.pdf")
    assert decode_name(decomposed.encode()) == "ガイド.pdf"
    assert parse_name(decomposed, RULES, folder=B).name == "ガイド.pdf"


def test_a_decomposed_name_is_measured_after_nfc() -> None:
    """75 characters of three bytes fit, however many bytes the Mac needed for them."""
    name = "ガ" * 75 + ".pdf"
    assert parse_name(decode_name(unicodedata.normalize("NFD", name).encode()), RULES, folder=B).name == name


@pytest.mark.parametrize("name", ["a" * 226 + ".pdf", "ガ" * 76 + ".pdf"])
def test_a_free_name_leaves_room_for_what_is_put_in_front_of_it(name: str) -> None:
    """A free name above 229 bytes would be delivered under one above 255, which no Windows machine can hold."""
    with pytest.raises(Refused, match="more than 229") as caught:
        parse_name(name, RULES, folder=B)
    assert caught.value.code == "name.illegal"


def test_a_name_with_sender_and_serial_may_have_255_bytes() -> None:
    """It is delivered as it is, so nothing is put in front of it."""
    rest = f"_{A}_{B}_20260701090000.pdf"
    name = "R" * (255 - len(rest)) + rest
    assert parse_name(name, RULES).name == name


def test_a_monstrous_name_is_refused_before_it_is_normalised() -> None:
    """Normalising takes quadratic time over combining marks, so nobody is let there with 200 KB of them."""
    with pytest.raises(Refused):
        decode_name("\u0316\u0301".encode() * 50_000)
    assert _refused("\u0316\u0301" * 50_000).code == "name.illegal"


ILLEGAL = [
    ("", "空"),
    ("a/b.pdf", "/"),
    ("..\\a.pdf", "\\"),
    ("C:a.pdf", ":"),
    ("a<b.pdf", "<"),
    ("a|b.pdf", "|"),
    ("a?.pdf", "?"),
    ('a".pdf', '"'),
    ("a*.pdf", "*"),
    ("a\x00.pdf", "U+0000"),
    ("a\n.pdf", "U+000A"),
    ("a\x7f.pdf", "U+007F"),
    ("a\x85.pdf", "U+0085"),
    ("a\u2028.pdf", "U+2028"),
    ("a\u202efdp.exe", "向き"),
    ("a\u2066.pdf", "向き"),
    ("a\u200f.pdf", "向き"),
    ("a\u200b.pdf", "見えない"),
    ("\ufeffUPJSK_1.CSV", "見えない"),
    ("a\ud800.pdf", "文字として読めない"),
    ("a.pdf.", "最後"),
    ("a.pdf ", "最後"),
    (".", "最後"),
    ("..", "最後"),
    ("CON", "CON"),
    ("con.csv", "CON"),
    ("Aux.tar.gz", "AUX"),
    ("NUL .txt", "NUL"),
    ("COM1.csv", "COM1"),
    ("lpt³.pdf", "LPT³"),
    ("CONIN$", "CONIN$"),
    ("a" * 252 + ".pdf", "256バイト"),
    ("サ" * 84 + ".pdf", "256バイト"),
]


@pytest.mark.parametrize(("name", "reason"), ILLEGAL, ids=range(len(ILLEGAL)))
@pytest.mark.parametrize("folder", [None, B])
def test_what_windows_cannot_hold_or_would_mislead_is_illegal(
    name: str, reason: str, folder: OfficeNumber | None
) -> None:
    """Such a name is refused at the top and in a folder alike, and the reason names the character or the rule."""
    refused = _refused(name, folder=folder)
    assert refused.code == "name.illegal"
    assert reason in refused.finding.message_ja


@pytest.mark.parametrize(
    "name", ["a" * 225 + ".pdf", "サ" * 75 + ".pdf", "CONTRACT.pdf", "console.txt", "COM10.csv", "提供票 7月分（案）.pdf",
             "葛\U000e0100飾.pdf", "髙﨑①㈱.pdf", "~$a.txt", "a'b&c.pdf", " x.pdf"],
)  # fmt: skip
def test_ordinary_names_are_legal(name: str) -> None:
    """229 bytes, words that begin like a device, brackets, variants of kanji and company marks may be used."""
    assert parse_name(name, RULES, folder=B).name == name


@pytest.mark.parametrize(
    ("label", "kind"),
    [("REPORT", "PDF"), ("提供票", "PDF"), ("月次_報告_7月", "PDF"), ("report 11", "PDF"), ("X_11", "PDF"),
     ("MESSAGE", "MESSAGE"), ("message", "MESSAGE"), ("MESSAGE_2", "PDF"), ("UPJSKLIST", "PDF")],
)  # fmt: skip
@pytest.mark.parametrize(("ss", "rr"), [("", ""), ("_43", "_11"), ("_43", ""), ("", "_2A")])
def test_the_general_form_says_sender_recipient_and_serial(label: str, kind: str, ss: str, rr: str) -> None:
    """Labels may hold underscores and Japanese; service types are optional on either side."""
    name = f"{label}_{A}{ss}_{B}{rr}_{SERIAL}.pdf"
    address = parse_name(name, RULES)
    assert address == Address(name, Grammar.GENERAL, kind, B, A, ss.strip("_") or None, rr.strip("_") or None, SERIAL)
    assert render_name(address) == name


def test_office_numbers_of_the_general_form_are_read_in_either_case() -> None:
    """A letter typed small is the same office, and no warning is due outside the standard."""
    address = parse_name(f"Report_01a8516384_a2_31b8517277_{SERIAL}.Pdf", RULES)
    assert (address.sender, address.recipient, address.sender_service) == ("01A8516384", "31B8517277", "A2")
    assert (address.kind, address.findings) == ("PDF", ())
    assert render_name(address) == f"Report_01A8516384_A2_31B8517277_{SERIAL}.Pdf"


def test_a_check_digit_is_never_more_than_a_warning() -> None:
    """A number that satisfies neither rule passes with a finding, in the general form too."""
    address = parse_name(f"REPORT_2778507637_{A}_{SERIAL}.pdf", RULES)
    assert [found.code for found in address.findings] == ["name.check_digit"]


UNADDRESSED = [
    ("提供票.pdf", "宛先の事業所番号が名前にありません"),
    (f"REPORT_178515854_{B}_{SERIAL}.pdf", "事業所番号が9桁です。正しくは10桁です"),
    (f"REPORT_{A}_017852938_{SERIAL}.pdf", "事業所番号が9桁です。正しくは10桁です"),
    (f"REPORT_{A}_01O8529384_{SERIAL}.pdf", "3桁目に O は使えません"),
    (f"REPORT_{A}_{B}_2026062208360.pdf", "最後の日時の数字が13桁です。正しくは14桁です"),
    (f"REPORT_{A}_{B}_20260231083604.pdf", "最後の日時 20260231083604 は実在しません"),
    (f"REPORT_{A}_{B}.pdf", "最後に、年月日時分秒の14桁がありません"),
    (f"REPORT_{B}_{SERIAL}.pdf", "事業所番号が1つだけです"),
    (f"{A}_{B}_{SERIAL}.pdf", "見出しがありません"),
    (f"REPORT_０１７８５１５８５４_{B}_{SERIAL}.pdf", "全角の「４」"),
    (f"報告_書_{A}_{B}＿{SERIAL}.pdf", "全角の「＿」"),
    (f"REPORT\u0332{A}\u0332{B}\u0332{SERIAL}.pdf", "下線「_」が別の記号です"),
    ("a.exe", "最後が .exe のファイルは送れません"),
    (f"REPORT_{A}_{B}_{SERIAL}.exe", "最後が .exe のファイルは送れません"),
    (f"REPORT_{A}_{B}_{SERIAL}.pdf.filepart", "最後が .filepart のファイルは送れません"),
    (f"REPORT_{A}_{B}_{SERIAL}", "最後に .pdf などの拡張子がありません"),
    (".pdf", "最後に .pdf などの拡張子がありません"),
    ("a.ＰＤＦ", "最後が .ｐｄｆ のファイルは送れません"),
    ("a." + "x" * 200, "最後が .xxxxxxxxxxxxxxxx… のファイルは送れません"),
]


@pytest.mark.parametrize(("name", "reason"), UNADDRESSED, ids=range(len(UNADDRESSED)))
def test_a_name_that_goes_nowhere_is_told_why(name: str, reason: str) -> None:
    """At the top a name must say its recipient; the refusal says which part of the general form is off."""
    refused = _refused(name)
    assert refused.code == "name.malformed"
    assert reason in refused.finding.message_ja


@pytest.mark.parametrize("name", ["提供票.pdf", "x.PDF", f"REPORT_{A}_{SERIAL}.pdf", f"{A}_{B}_{SERIAL}.pdf"])
def test_a_free_name_goes_where_its_folder_says(name: str) -> None:
    """Anything legal with an allowed extension is a free name there: no sender, no serial, kind by extension."""
    address = parse_name(name, RULES, folder=B)
    assert address == Address(name, Grammar.FOLDER, "PDF", B)
    assert address.is_free


def test_a_name_with_an_address_of_its_own_stays_what_it_is_in_its_folder() -> None:
    """In the right folder it is the same address as at the top of send/."""
    for name in (f"REPORT_{A}_{B}_{SERIAL}.pdf", f"UP1KYO_{A}_43_{B}_11_{SERIAL}.CSV"):
        assert parse_name(name, RULES, folder=B) == parse_name(name, RULES)


@pytest.mark.parametrize("name", [f"REPORT_{A}_{B}_{SERIAL}.pdf", f"UP1KYO_{A}_43_{B}_11_{SERIAL}.CSV"])
def test_a_name_in_another_offices_folder_is_refused(name: str) -> None:
    """Folder and name must agree, or it would be a guess which of the two was mistyped."""
    refused = _refused(name, folder=A)
    assert refused.code == "route.folder_mismatch"
    assert dict(refused.finding.facts) == {"folder": A, "office": B}


@pytest.mark.parametrize(
    "name",
    [f"UPPLAN_{A}_{B}_{SERIAL}.CSV", "upjsk_提供票.pdf", "UPJSK\u0332メモ.pdf", "ＵＰＪＳＫ＿メモ.pdf",
     f"REPORT_{A}_{B}_20260231093000.pdf", f"REPORT_{A}_{B}_２０２６０６２２０８３６０４.pdf"],
)  # fmt: skip
def test_a_spoilt_address_is_no_free_name(name: str) -> None:
    """What begins as the standard's, or has the general form with an unreal part, is refused in a folder too."""
    assert _refused(name, folder=B).code == "name.malformed"


def test_a_name_of_the_standard_never_falls_through_to_the_general_form() -> None:
    """A 3.2 name without its month would fit the general form, and must not."""
    assert "年月がありません" in _refused(f"UPPLAN_{A}_{B}_{SERIAL}.CSV").finding.message_ja
    assert _refused(f"UP1KYO_202607_{A}_43_{B}_11_{SERIAL}.pdf").code == "name.malformed"


def test_the_standards_extensions_are_not_the_operators_to_forbid() -> None:
    """CSV of the standard passes where the operator's list does not name it."""
    rules = NamingRules(frozenset({"pdf"}))
    assert parse_name(f"UP1KYO_{A}_43_{B}_11_{SERIAL}.CSV", rules).is_standard
    assert _refused(f"REPORT_{A}_{B}_{SERIAL}.csv", rules=rules).code == "name.malformed"


OPERATORS = NamingRules(
    RULES.extensions,
    (
        OperatorGrammar("fax", re.compile(r"FAX-(?P<recipient>[0-9A-Za-z]+)(?:-(?P<month>\d{6}))?\.pdf")),
        OperatorGrammar(
            "full", re.compile(r"(?P<serial>\d+)\+(?P<sender>[0-9A-Za-z]*)\+(?P<recipient>[0-9A-Za-z]*)\..*")
        ),
    ),
)


def test_an_operators_grammar_gives_what_its_groups_hold() -> None:
    """Recipient always; sender, serial and month where the pattern has them and they matched."""
    fax = parse_name(f"FAX-{B}-202607.pdf", OPERATORS)
    assert fax == Address(f"FAX-{B}-202607.pdf", Grammar.OPERATOR, "PDF", B, month="202607")
    assert fax.is_free
    full = parse_name(f"{SERIAL}+01a8516384+{B}.txt", OPERATORS)
    assert (full.sender, full.recipient, full.serial, full.kind) == ("01A8516384", B, SERIAL, "TXT")
    assert not full.is_free
    assert render_name(full) == full.name


@pytest.mark.parametrize(
    ("name", "reason"),
    [("FAX-123.pdf", "宛先の事業所番号が3桁です。正しくは10桁です"),
     (f"FAX-{B}-202613.pdf", "年月 202613 は実在しません"),
     (f"20260231000000+{A}+{B}.txt", "20260231000000 は実在しません"),
     (f"{SERIAL}+12+{B}.txt", "送信元の事業所番号が2桁です。正しくは10桁です"),
     (f"{SERIAL}++.txt", "宛先の事業所番号が0桁です。正しくは10桁です"),
     (f"{SERIAL}+{A}+{B}.exe", "最後が .exe のファイル")],
)  # fmt: skip
def test_a_name_that_fits_an_operators_grammar_must_hold_real_values(name: str, reason: str) -> None:
    """A pattern that matched is answerable: its numbers, month and serial are checked like the standard's."""
    refused = _refused(name, rules=OPERATORS)
    assert refused.code == "name.malformed"
    assert reason in refused.finding.message_ja


def test_the_general_form_comes_before_an_operators_grammar() -> None:
    """A greedy pattern cannot take the sender out of a name whose form every office knows."""
    greedy = NamingRules(RULES.extensions, (OperatorGrammar("any", re.compile(r".*?(?P<recipient>\d{10}).*")),))
    assert parse_name(f"REPORT_{A}_{B}_{SERIAL}.pdf", greedy).recipient == B
    assert parse_name(f"note {A}.pdf", greedy).grammar is Grammar.OPERATOR
    assert _refused(f"note {A}.pdf", rules=greedy, folder=B).code == "route.folder_mismatch"


def test_an_operators_pattern_must_fit_the_whole_name() -> None:
    """A pattern that fits only the beginning knows nothing of the rest."""
    assert _refused(f"FAX-{B}.pdf.pdf", rules=OPERATORS).code == "name.malformed"
