"""Status: tables for people and for programs, and the texts that welcome a clerk."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay.config import Config, LimitSettings, OperatorSettings
from relay.errors import TABLE, finding
from relay.lifecycle import State
from relay.model import Certificate, Grammar, Office, OfficeNumber, Refusal, Transfer, TransferId
from relay.status import (
    Exchange,
    Pass,
    render_certificates,
    render_folder_notice,
    render_offices,
    render_readme,
    render_received,
    render_refused,
    render_sent,
)
from relay.tree import Folder

AT = datetime(2026, 6, 22, 15, 30, 5, tzinfo=UTC)
OFFICE = Office(OfficeNumber("0178515854"), "みほん野居宅介護支援事業所", "北海道", ("43", "11"))
TRANSFER = Transfer(
    id=TransferId(17),
    sender=OFFICE.number,
    recipient=OfficeNumber("0178529384"),
    name="提供票.pdf",
    delivered_name="0178515854_20260623003005_提供票.pdf",
    grammar=Grammar.FOLDER,
    kind="PDF",
    serial=None,
    month=None,
    in_folder=True,
    state=State.ACCEPTED,
    is_removed=False,
    size_bytes=10_240,
    sha256=bytes(32),
    accepted_at=AT,
    findings=(finding("name.check_digit", office="0178529384"),),
)
CONFIG = Config(
    home=Path("/srv"), operator=OperatorSettings(name="連携窓口", telephone="011-000-0000", hours="平日 9時-17時")
)


def table(data: bytes) -> list[list[str]]:
    """Read a CSV as a spreadsheet does."""
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_a_csv_opens_in_a_spreadsheet_with_japanese_headings_and_japan_time() -> None:
    """Byte order mark, CRLF, headings and words in Japanese, the zone beside the time."""
    data = render_sent([Exchange(TRANSFER, "みほん野ヘルパー")], as_csv=True)
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.count(b"\n") == data.count(b"\r\n") == 2
    row = dict(zip(*table(data), strict=True))
    assert row["受付番号"] == "17"
    assert row["送信日時"] == "2026-06-23 00:30:05 JST"
    assert row["送信先事業所名"] == "みほん野ヘルパー"
    assert row["送信結果"] == "相手は未取得"
    assert row["取得日時"] == ""
    assert "打ち間違い" in row["注意"]
    assert row["対処"] == TABLE["name.check_digit"].advice_sent_ja
    assert row["対処"].startswith("送信は済んでいます。")


def test_json_is_exact_and_in_utc() -> None:
    """A program finds codes, bare numbers, UTC, and nothing that was changed for a spreadsheet."""
    told = replace(TRANSFER, name="=1+1.pdf", collected_at=AT + timedelta(hours=1), state=State.COLLECTED)
    (row,) = json.loads(render_sent([Exchange(told, "@office")], as_csv=False))["sent"]
    assert (row["number"], row["name"], row["recipient_name"]) == (17, "=1+1.pdf", "@office")
    assert (row["state"], row["accepted_at"], row["collected_at"]) == (
        "collected",
        "2026-06-22T15:30:05Z",
        "2026-06-22T16:30:05Z",
    )
    assert [warning["code"] for warning in row["warnings"]] == ["name.check_digit"]
    assert row["ended_at"] is None


def test_a_recipient_sees_the_delivered_name_and_who_sent_it() -> None:
    """The same transfer is told from the other end."""
    removed = replace(TRANSFER, state=State.COLLECTED, is_removed=True)
    row = dict(zip(*table(render_received([Exchange(removed, OFFICE.name)], as_csv=True)), strict=True))
    assert row["ファイル名"] == TRANSFER.delivered_name
    assert (row["送信元事業所番号"], row["送信元事業所名"]) == (OFFICE.number, OFFICE.name)
    assert (row["受信結果"], row["done/ へ移動"]) == ("取得済み", "はい")


def test_a_warning_is_told_with_what_each_side_does_about_it() -> None:
    """The sender is told how to mend it, the recipient whom to ask; once it was taken back there is nothing to do."""
    for render, advice in ((render_sent, "recall/ へ移して取り消して"), (render_received, "送信元の事業所に電話")):
        row = dict(zip(*table(render([Exchange(TRANSFER, "")], as_csv=True)), strict=True))
        assert advice in row["対処"]
        for told in (replace(TRANSFER, findings=()), replace(TRANSFER, state=State.RECALLED)):
            row = dict(zip(*table(render([Exchange(told, "")], as_csv=True)), strict=True))
            assert row["対処"] == ""


@pytest.mark.parametrize("state", State)
def test_every_state_has_words_for_both_sides(state: State) -> None:
    """Nothing disappears silently: whatever became of a transfer is told to both."""
    told = [Exchange(replace(TRANSFER, state=state), "")]
    for render, topic in ((render_sent, "sent"), (render_received, "received")):
        row = dict(zip(*table(render(told, as_csv=True)), strict=True))
        assert row["送信結果" if render is render_sent else "受信結果"]
        assert json.loads(render(told, as_csv=False))[topic][0]["state"] == state.value


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "＝1", "＋1", " =1", "\t=1", "\u3000＠x", '=HYPERLINK("x")']
)
def test_a_cell_that_a_spreadsheet_would_run_is_defused(name: str) -> None:
    """A file name is the sender's to choose; opening the status runs nothing."""
    row = dict(zip(*table(render_sent([Exchange(replace(TRANSFER, name=name), name)], as_csv=True)), strict=True))
    assert row["ファイル名"] == "'" + name
    assert row["送信先事業所名"] == "'" + name


def test_a_name_with_commas_and_quotes_stays_in_its_cell() -> None:
    """What a name holds does not shift the columns."""
    rows = table(render_offices([replace(OFFICE, name='a,"b",c')], as_csv=True))
    assert rows[1] == [OFFICE.number, 'a,"b",c', "北海道", "11 / 43"]


def test_a_refusal_is_told_with_its_reason_and_what_to_do() -> None:
    """The sentence of the wire and the remedy of the same row, in both languages."""
    refused = finding("route.recipient_unknown", office="0178503736")
    refusal = Refusal(OFFICE.number, "UPJSK_x.CSV", refused, AT, AT + timedelta(days=1), 3)
    row = dict(zip(*table(render_refused([refusal], as_csv=True)), strict=True))
    assert (row["コード"], row["回数"]) == ("route.recipient_unknown", "3")
    assert row["理由"] == refused.message_ja
    assert row["対処"] == TABLE["route.recipient_unknown"].remedy_ja
    assert json.loads(render_refused([refusal], as_csv=False))["refused"][0]["message_en"] == refused.message_en


@pytest.mark.parametrize(
    ("days", "revoked", "standing", "left"),
    [(10, False, "valid", 10), (-1, False, "expired", 0), (10, True, "revoked", 0)],
)
def test_a_certificate_is_told_with_its_standing_and_the_days_left(
    days: int, *, revoked: bool, standing: str, left: int
) -> None:
    """A clerk sees in time that a certificate will expire; its serial keeps all its digits."""
    certificate = Certificate(
        ca_fingerprint="SHA256:ca",
        serial=2**63 - 1,
        key_id="窓口のパソコン",
        key_fingerprint="SHA256:key",
        offices=(OFFICE.number,),
        valid_after=AT - timedelta(days=355),
        valid_before=AT + timedelta(days=days),
        issued_at=AT,
        revoked_at=AT if revoked else None,
    )
    data = render_certificates([Pass(certificate, is_in_use=True, now=AT)], as_csv=False)
    (row,) = json.loads(data)["certificate"]
    assert row["serial"] == "9223372036854775807"
    assert (row["standing"], row["days_left"], row["is_in_use"]) == (standing, left, True)


def test_a_table_without_rows_is_still_a_table() -> None:
    """A program finds an empty list, a person the headings."""
    assert json.loads(render_sent([], as_csv=False)) == {"sent": []}
    assert len(table(render_sent([], as_csv=True))) == 1


def test_the_same_facts_make_the_same_bytes() -> None:
    """A program that mirrors the folder fetches nothing anew when nothing has changed."""
    rows = [Exchange(TRANSFER, "x")]
    assert render_sent(rows, as_csv=False) == render_sent(rows, as_csv=False)


def test_the_readme_speaks_to_a_clerk_in_japanese_first() -> None:
    """It says who is logged in, the folders, names, limits, refusals and whom to call; Notepad reads it."""
    config = CONFIG.model_copy(update={"limits": LimitSettings(upload_bytes="500 MiB")})  # type: ignore[arg-type]
    data = render_readme(config, OFFICE)
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.count(b"\n") == data.count(b"\r\n")
    text = data.decode("utf-8-sig")
    japanese, _, english = text.partition("How to use")
    for part in (japanese, english):
        for fact in (OFFICE.number, OFFICE.name, "send/", "receive/", "new/", "done/", "status/", "500 MiB", "docx"):
            assert fact in part
        for fact in ("連携窓口", "011-000-0000", "平日 9時-17時"):
            assert fact in part
    assert not re.search(r"[{}]", text)


def test_the_readme_explains_every_family_of_refusals_that_an_upload_can_meet() -> None:
    """Whatever code a clerk reads begins with a word that README.txt explains."""
    text = render_readme(CONFIG, OFFICE).decode()
    # The tree speaks for itself, units only ever warn, and who enrols has no tree.
    families = {code.partition(".")[0] + "." for code in TABLE} - {"tree.", "unit.", "enrolment."}
    assert not [family for family in families if text.count(f"  {family} ") < 2]


def test_the_readme_names_every_folder_and_how_to_take_back() -> None:
    """Each folder of the tree is explained in both languages; none that is not there is recommended."""
    text = render_readme(CONFIG, OFFICE).decode()
    for folder in Folder:
        assert folder is Folder.ROOT or text.count(f"  {folder.value}/ ") >= 2, folder
    assert "取り消し方" in text
    assert "Taking back" in text


def test_the_readme_fits_a_window_without_wrapping() -> None:
    """No line is wider than 80 columns, with Japanese characters taking two."""
    config = CONFIG.model_copy(update={"operator": OperatorSettings()})
    for line in render_readme(config, OFFICE).decode("utf-8-sig").splitlines():
        width = sum(2 if unicodedata.east_asian_width(character) in "WFA" else 1 for character in line)
        assert width <= 80, line


def test_without_an_operator_s_name_the_readme_still_says_whom_to_ask() -> None:
    """Settings that were left empty leave no empty labels."""
    text = render_readme(Config(home=Path("/srv")), OFFICE).decode()
    assert "電話:" not in text
    assert "運営者にお問い合わせください" in text


def test_the_notice_in_an_address_folder_says_whose_it_is() -> None:
    """A mistyped number that happens to exist is seen before a file goes there."""
    text = render_folder_notice(OFFICE).decode("utf-8-sig")
    assert OFFICE.number in text
    assert f"{OFFICE.name}（北海道）" in text
    assert "go to office" in text


@pytest.mark.parametrize(
    ("name", "grammar", "version"),
    [
        ("UPPLAN_202607_0178515854_43_0178529384_11_20260622084203.CSV", Grammar.STANDARD_41, "202407"),
        ("UPPLAN_202607_0178515854_0178529384_20260622084203.csv", Grammar.STANDARD_32, "202208"),
        ("UPIMG_202607_0178515854_43_0178529384_11_20260622084203.PDF", Grammar.STANDARD_41, ""),
        ("REPORT_0178515854_0178529384_20260622095709.csv", Grammar.GENERAL, ""),
    ],
)
def test_both_tables_tell_the_version_of_the_standard(name: str, grammar: Grammar, version: str) -> None:
    """Of the standard's own CSV files; of others there is none to tell."""
    transfer = replace(TRANSFER, name=name, delivered_name=name, grammar=grammar)
    for render in (render_sent, render_received):
        row = dict(zip(*table(render([Exchange(transfer, "x")], as_csv=True)), strict=True))
        assert row["CSVバージョン"] == version


def test_what_was_sent_is_told_under_the_headings_that_staff_know() -> None:
    """Those of the exchange that care software talks to today."""
    headings = table(render_sent([], as_csv=True))[0]
    known = [
        "受付番号",
        "送信日時",
        "送信先事業所番号",
        "送信先事業所名",
        "ファイル名",
        "ファイル種別",
        "CSVバージョン",
        "メッセージ",
        "送信結果",
        "取得日時",
    ]
    assert set(known) <= set(headings)
