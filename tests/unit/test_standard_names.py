"""The standard's names: kinds, office numbers, serials, and the reason for each fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import Refused
from relay.model import Address, Grammar, OfficeNumber
from relay.standard.kinds import KINDS, Purpose, find_leading_kind
from relay.standard.names import parse_standard_name, render_standard_name
from relay.standard.offices import explain_office_number, has_check_digit, parse_office_number
from relay.standard.serials import explain_serial, is_real_month, is_real_serial

SHARED_KINDS = Path(__file__).parents[3] / "shared" / "standard" / "kinds.csv"
PACKAGED_KINDS = Path(__file__).parents[2] / "relay" / "standard" / "kinds.csv"

A = "0178515854"
B = "0178529384"
SERIAL = "20260622083604"


def _parse(name: str) -> Address:
    address = parse_standard_name(name)
    assert address is not None
    return address


def _refusal(name: str) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_standard_name(name)
    assert caught.value.code == "name.malformed"
    return caught.value


def test_the_table_of_kinds_is_that_of_the_standard() -> None:
    """All eighteen kinds are there; six carry a month, one is an image, nine are also in 3.2."""
    assert len(KINDS) == 18
    assert {k for k, v in KINDS.items() if v.has_month} == {
        "UPHOSOKU", "UPPLAN", "UPJSK", "UPSIKYU", "DLTPLAN", "DLTJSK",
    }  # fmt: skip
    assert [k for k, v in KINDS.items() if v.is_image] == ["UPKIHON_IMAGE"]
    assert {k for k, v in KINDS.items() if v.is_in_32} == {
        "UP1KYO", "UP2KYO", "DLT1KYO", "UPHOSOKU", "UPPLAN", "UPJSK", "UPSIKYU", "DLTPLAN", "DLTJSK",
    }  # fmt: skip
    assert {k for k, v in KINDS.items() if v.purpose is Purpose.DELETE} == {k for k in KINDS if k.startswith("DLT")}


@pytest.mark.skipif(not SHARED_KINDS.exists(), reason="the shared pages are not beside this checkout")
def test_the_packaged_table_is_the_shared_one() -> None:
    """The copy in the package has not drifted from the standard's table."""
    assert PACKAGED_KINDS.read_bytes() == SHARED_KINDS.read_bytes()


def test_the_longer_kind_wins() -> None:
    """UPKIHON_SUB1 is no UPKIHON, and a kind without its underscore is none."""
    names = ("UPKIHON_SUB1_", "UPKIHON_IMAGE_", "UPKIHON_0", "UPYOBO_SUB_", "UPKIHON_SUB3_", "UPKIHON.CSV", "XUPJSK_")
    kinds = [found.name if (found := find_leading_kind(name)) else None for name in names]
    assert kinds == ["UPKIHON_SUB1", "UPKIHON_IMAGE", "UPKIHON", "UPYOBO_SUB", "UPKIHON", None, None]


@pytest.mark.parametrize("text", ["0178515854", "01A8516384", "31b8517277", "00Z0000000"])
def test_office_numbers_are_read_in_either_case(text: str) -> None:
    """Ten characters, the third possibly a letter, come back in capitals."""
    assert parse_office_number(text) == text.upper()


@pytest.mark.parametrize(
    "text",
    ["", "178515854", "00178515854", "01I8516384", "01O8516384", "01q8516384", "A178515854", "017851585A",
     "０１７８５１５８５４", "0178515854\n", " 0178515854", "01\u212a8516384", "٠١٧٨٥١٥٨٥٤"],
)  # fmt: skip
def test_what_is_no_office_number_is_none(text: str) -> None:
    """Wrong length, I, O, Q, letters elsewhere, digits that are not ASCII and stray blanks are no office number."""
    assert parse_office_number(text) is None
    assert explain_office_number(text) is not None


@pytest.mark.parametrize(
    ("number", "holds"),
    [("0178515854", True), ("01A8516384", True), ("31B8517277", True), ("1318534539", True),
     ("2778507637", False), ("0300000100", False), ("0300000005", False)],
)  # fmt: skip
def test_either_check_digit_rule_is_enough(number: str, holds: bool) -> None:  # noqa: FBT001 - a fact of the table
    """The nine-character rule or the six-digit one; the standard's own examples satisfy neither."""
    assert has_check_digit(OfficeNumber(number)) is holds


def test_a_lost_leading_zero_is_told() -> None:
    """Nine digits are what a spreadsheet leaves of a number from Hokkaido."""
    why = explain_office_number("178515854")
    assert why is not None
    assert why.ja == "事業所番号が9桁です。正しくは10桁です。先頭の0が欠けていませんか"
    assert "not 9" in why.en
    assert explain_office_number("0178515854") is None


@pytest.mark.parametrize("text", ["20260231093000", "20261301000000", "20260622240000", "20260622236000",
                                  "20260622235960", "00000101000000", "2026062209300", "２０２６０６２２０９３０００"])  # fmt: skip
def test_serials_must_name_a_second_that_exists(text: str) -> None:
    """31 February, month 13, hour 24, second 60, year 0, 13 digits and full-width digits are no serial."""
    assert not is_real_serial(text)
    assert explain_serial(text) is not None


def test_real_dates_pass() -> None:
    """A leap day and the last second of a year are real."""
    assert is_real_serial("20280229000000")
    assert is_real_serial("20991231235959")
    assert explain_serial("20280229000000") is None
    assert is_real_month("202612")
    assert not is_real_month("202600")
    assert not is_real_month("190001")


def test_a_name_of_41_says_everything() -> None:
    """Kind, month, both offices with their service types, serial; nothing is found wrong."""
    name = f"UPPLAN_202607_{A}_43_{B}_2A_{SERIAL}.CSV"
    assert _parse(name) == Address(
        name, Grammar.STANDARD_41, "UPPLAN", OfficeNumber(B), OfficeNumber(A), "43", "2A", SERIAL, "202607"
    )


def test_a_name_of_32_has_no_service_types() -> None:
    """The form of 3.2 is the same without the codes."""
    address = _parse(f"UP1KYO_{A}_{B}_{SERIAL}.CSV")
    assert (address.grammar, address.sender_service, address.month) == (Grammar.STANDARD_32, None, None)
    assert not address.is_free


def test_lower_case_is_read_as_capitals_and_warned_about() -> None:
    """A name in lower case means the same; only the extension may be in either case without a word."""
    address = _parse(f"upjsk_202607_01a8516384_a2_{A}_43_{SERIAL}.csv")
    assert (address.kind, address.sender, address.sender_service) == ("UPJSK", "01A8516384", "A2")
    assert [found.code for found in address.findings] == ["name.lower_case"]
    assert _parse(f"UPJSK_202607_{B}_11_{A}_43_{SERIAL}.csv").findings == ()
    assert render_standard_name(address) == f"UPJSK_202607_01A8516384_A2_{A}_43_{SERIAL}.csv"


def test_each_bad_check_digit_is_warned_about_once() -> None:
    """Two numbers give two warnings, the same number twice gives one."""
    both = _parse(f"UP1KYO_0300000100_43_0300000005_11_{SERIAL}.CSV")
    assert [dict(found.facts) for found in both.findings] == [{"office": "0300000100"}, {"office": "0300000005"}]
    assert len(_parse(f"UP1KYO_0300000100_43_0300000100_11_{SERIAL}.CSV").findings) == 1


@pytest.mark.parametrize("extension", ["jpg", "JPG", "jpeg", "JPEG"])
def test_the_image_has_a_branch_number(extension: str) -> None:
    """The only name that is no CSV ends with four digits and a JPEG extension."""
    name = f"UPKIHON_IMAGE_{A}_46_{B}_11_{SERIAL}_0001.{extension}"
    assert _parse(name).kind == "UPKIHON_IMAGE"
    assert render_standard_name(_parse(name)) == name


@pytest.mark.parametrize("name", ["提供票.pdf", f"REPORT_{A}_{B}_{SERIAL}.pdf", "UPJSK.CSV", "UPJSKX_1.CSV", ""])
def test_other_names_are_not_the_standards_business(name: str) -> None:
    """A name that begins with no kind and underscore is left to the other grammars."""
    assert parse_standard_name(name) is None


FAULTS = [
    (f"UPPLAN_{A}_{B}_{SERIAL}.CSV", "年月がありません"),
    (f"UPJSK_{B}_11_{A}_43_{SERIAL}.CSV", "年月がありません"),
    (f"UPJSK_178529384_11_{A}_43_{SERIAL}.CSV", "年月がありません"),
    (f"UPJSK_202613_{B}_11_{A}_43_{SERIAL}.CSV", "年月 202613 は実在しません"),
    (f"UPJSK_2026_{B}_11_{A}_43_{SERIAL}.CSV", "年月 2026 は実在しません"),
    (f"UPPLAN_000000_{A}_43_{B}_11_{SERIAL}.CSV", "年月が 000000 です。この書類では使えません"),
    (f"DLT1KYO_202607_{A}_43_{B}_11_{SERIAL}.CSV", "DLT1KYO の名前に、余分な年月が付いています"),
    (f"UPKIHON_000000_{A}_43_{B}_11_{SERIAL}.CSV", "UPKIHON の名前に、余分な年月が付いています"),
    (f"UPJSK_202607_178529384_11_{A}_43_{SERIAL}.CSV", "送信元の事業所番号が9桁です。正しくは10桁です"),
    (f"UPJSK_202607_{B}_11_00178515854_43_{SERIAL}.CSV", "宛先の事業所番号が11桁です。正しくは10桁です"),
    (f"UPJSK_202607_01I8529384_11_{A}_43_{SERIAL}.CSV", "送信元の事業所番号の3桁目に I は使えません"),
    (f"UPJSK_202607_{B}_11_{A}_43_20260231093000.CSV", "最後の日時 20260231093000 は実在しません"),
    (f"UPJSK_202607_{B}_11_{A}_43_202607011093000.CSV", "最後の日時の数字が15桁です。正しくは14桁です"),
    (f"UPJSK_202607_{B}_11_{A}_43_{SERIAL} (1).CSV", "正しくは数字14桁です"),
    (f"UPJSK_202607_{B}_11_{A}_43.CSV", "最後に、年月日時分秒の14桁がありません"),
    (f"UPJSK_202607_{B}_11_{A}_{SERIAL}.CSV", "宛先のサービス種類コードがありません"),
    (f"UPJSK_202607_{B}_{A}_43_{SERIAL}.CSV", "送信元のサービス種類コードがありません"),
    (f"UP3KYO_{A}_{B}_{SERIAL}.CSV", "送信元のサービス種類コードがありません"),
    (f"UPJSK_202607_{B}_1_{A}_43_{SERIAL}.CSV", "サービス種類コードが 1 です。正しくは英数字2桁です"),
    (f"UPJSK_202607_{B}_11_{SERIAL}.CSV", "宛先の事業所番号がありません"),
    (f"UPJSK_202607_{B}_11_{A}_43_{SERIAL}_2.CSV", "余分な「_2」が付いています"),
    (f"UPJSK_202607_{B}_11_{A}_43_{SERIAL}.pdf", "名前の最後が .PDF です。正しくは .CSV です"),
    (f"UPJSK_202607_{B}_11_{A}_43_{SERIAL}", "名前の最後に .CSV がありません"),
    (f"UPKIHON_IMAGE_{A}_46_{B}_11_{SERIAL}.jpg", "最後に、0001 などの画像の番号がありません"),
    (f"UPKIHON_IMAGE_{A}_46_{B}_11_{SERIAL}_0001.CSV", "名前の最後が .CSV です。正しくは .JPG です"),
    (f"UPJSK\u0332202607\u0332{B}\u033211\u0332{A}\u033243\u0332{SERIAL}.CSV", "下線「_」が別の記号です"),
    (f"UPJSK_202607_{B}_11_{A}_43_{SERIAL}\u0332.CSV", "下線「_」が別の記号です"),
    (f"ＵＰＪＳＫ_202607_{B}_11_{A}_43_{SERIAL}.CSV", "全角の「Ｕ」"),
    (f"UPJSK_202607_０１７８５２９３８４_11_{A}_43_{SERIAL}.CSV", "全角の「０」"),
    (f"UPJSK＿202607_{B}_11_{A}_43_{SERIAL}.CSV", "全角の「＿」"),
    (f"upj\u017fk_202607_{B}_11_{A}_43_{SERIAL}.CSV", "使えない文字「ſ」"),
    (f" UPJSK_202607_{B}_11_{A}_43_{SERIAL}.CSV", "名前が空白で始まっています"),
    (f"\u3000UPJSK_202607_{B}_11_{A}_43_{SERIAL}.CSV", "全角の空白があります"),
    ("UP1KYO_\U00012544.CSV", "使えない文字「U+12544」"),
    ("UPJSK_.CSV", "年月がありません"),
    ("UP1KYO_.CSV", "送信元の事業所番号がありません"),
    ("UPJSK_提供票.pdf", "使えない文字「提」"),
]


@pytest.mark.parametrize(("name", "reason"), FAULTS, ids=range(len(FAULTS)))
def test_a_wrong_name_is_refused_with_the_part_that_is_wrong(name: str, reason: str) -> None:
    """The refusal names the first wrong part, in words a clerk can act on, and fits on the wire."""
    refused = _refusal(name)
    assert reason in refused.finding.message_ja
    assert not refused.client_text.endswith("…")
    assert "<" not in refused.client_text
