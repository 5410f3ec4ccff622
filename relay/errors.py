"""Every refusal and failure of the relay, in one table.

The same rows serve the wire, the ledger, ``status/refused``, ``relay explain`` and the manual, so a
clerk, a vendor and the operator always read the same sentence for the same thing.

Three families leave the rules and the stations:

* `Refused` - the sender's to mend; the same again will be refused again.
* `Deferred` - ours; nothing was promised and the same again may succeed.
* `RelayError` itself - a defect or a broken installation, never shown to an office.

A row's sentences hold only placeholders for what the office told us itself (its own file name, the number it
typed).  What else is known goes into *detail*, which only the journal sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Self

# SFTP version 3 status codes (draft-ietf-secsh-filexfer-02, section 7).
FX_OK = 0
FX_EOF = 1
FX_NO_SUCH_FILE = 2
FX_PERMISSION_DENIED = 3
FX_FAILURE = 4
FX_BAD_MESSAGE = 5
FX_OP_UNSUPPORTED = 8

# Most clients cut or hide longer texts (CLIENTS.md section 2).
CLIENT_TEXT_CHARACTERS = 200


class Severity(StrEnum):
    """What a finding does to the file it was found in."""

    REFUSE = "refuse"
    WARN = "warn"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a stable code and what is said about it.

    *permanent* is False where trying again unchanged may help.  The sentences may hold ``{placeholders}``;
    the remedies say what to do next and never do.  Many a refusal leaves no note and no row in ``status/``: where
    the wire is all that is read, the sentence itself says what to do.

    A remedy holds for a file that is not with its recipient: refused, or looked at before sending.  What to do
    about one that was accepted with a warning is told by `advice_sent_ja` and `advice_sent_en`.
    """

    code: str
    ja: str
    en: str
    remedy_ja: str
    remedy_en: str
    severity: Severity = Severity.REFUSE
    permanent: bool = True
    status: int = FX_FAILURE
    sent_ja: str = ""
    sent_en: str = ""

    @property
    def advice_sent_ja(self) -> str:
        """What its sender does about a file that was accepted all the same, in Japanese."""
        return self.sent_ja or f"送信は済んでいます。{self.remedy_ja}"

    @property
    def advice_sent_en(self) -> str:
        """The same in English."""
        return self.sent_en or f"The file was sent. {self.remedy_en}"


def _rows(*rows: Row) -> Mapping[str, Row]:
    table = {row.code: row for row in rows}
    if len(table) != len(rows):
        raise ValueError("a code stands twice in the table of refusals")
    return MappingProxyType(table)


_EXPORT_AGAIN_JA = "介護ソフトから出力し直して送ってください。同じときは、介護ソフトの窓口にお尋ねください。"
_EXPORT_AGAIN_EN = (
    "Export the file again from your care software and send it. If that does not help, ask its help desk."
)
_CALL_JA = "運営者の窓口に電話でお問い合わせください。"
_CALL_EN = "Please call the operator's help desk."
_LATER_JA = "しばらくしてから、もう一度送ってください。"
_LATER_EN = "Try again in a little while."

TABLE: Mapping[str, Row] = _rows(
    # --- names -------------------------------------------------------------------------------------------------
    Row(
        "name.illegal",
        "このファイル名は使えません（{why_ja}）",
        "the file name cannot be used ({why})",
        "介護ソフトのファイルは、名前を変えずに出力し直してください。自分で作った書類は、名前を短くし、記号を除いてください。",
        "Export care software's files again and keep their names. Give a document of your own a short name without symbols.",
    ),
    Row(
        "name.malformed",
        "ファイル名が決まりの形ではありません（{why_ja}）",
        "the file name follows no known rule ({why})",
        "介護ソフトのファイルは、名前を自分で直さずに出力し直してください。同じときは、介護ソフトの窓口へ。自分で作った書類（PDFなど）は、send/<宛先の事業所番号>/ に入れてください。",
        "Export care software's files again instead of mending their names; if that does not help, ask its help desk. Put a document of your own (a PDF, say) into send/<recipient's office number>/.",
    ),
    Row(
        "name.sender_mismatch",
        "ファイル名の送信元 {sender} は、接続中の事業所 {office} ではありません",
        "the name says sender {sender}, but office {office} is connected",
        "ファイル名は変えず、送信元の事業所で接続し直してください。送信元が違うときは、介護ソフトの自事業所番号を直して出力し直してください。",
        "Keep the name and connect as the office it names; if that is wrong, mend your own office number in your care software and export again.",
    ),
    Row(
        "name.same_office",
        "送信元と宛先が同じ事業所 {office} です",
        "sender and recipient are the same office {office}",
        "介護ソフトで宛先の事業所を選び直し、出力し直してください。ファイル名は自分で変えないでください。",
        "Choose the recipient again in your care software and export again; do not rename the file.",
    ),
    Row(
        "name.check_digit",
        "事業所番号 {office} は打ち間違いかもしれません（最後の1桁が計算と合いません）",
        "the check digit of office number {office} does not fit",
        "番号が正しいか確かめてください。違うときは、介護ソフトで番号を直し、出力し直して送ってください。",
        "Make sure the number is right. If not, mend it in your care software, export again and send that.",
        sent_ja="送信は済んでいます。番号が正しければ、何もしなくて大丈夫です。違うときは、このファイルを send/ から recall/ へ移して取り消してください。",
        sent_en="The file was sent. If the number is right, there is nothing to do; if not, move the file from send/ into recall/ to take it back.",
        severity=Severity.WARN,
    ),
    Row(
        "name.service_type",
        "事業所 {office} は、サービス種類 {service_type} では登録されていません",
        "office {office} is not registered for service type {service_type}",
        "介護ソフトの事業所番号とサービス種類を確かめ、違うときは直し、出力し直して送ってください。正しいときは、運営者の窓口にお伝えください。",
        "Compare office number and service type in your care software; if they are wrong, mend them, export again and send that. If they are right, tell the operator's help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "name.lower_case",
        "ファイル名に英字の小文字があります（決まりは大文字です）",
        "the file name has lower-case letters",
        "介護ソフトが付けた名前のまま送ってください。名前を変えてしまったときは、出力し直してください。",
        "Send files under the names that your care software gave them; if the name was changed, export again.",
        sent_ja="送信は済んでいます。送り直しは要りません。次からは、介護ソフトが付けた名前のまま送ってください。",
        sent_en="The file was sent and need not be sent again. Next time keep the name that your care software gave it.",
        severity=Severity.WARN,
    ),
    Row(
        "name.serial_future",
        "ファイル名の日時 {serial} が、1日以上先になっています",
        "the date and time {serial} in the name lie more than a day ahead",
        "パソコンの日付と時刻を直してから、介護ソフトで出力し直して送ってください。ファイル名は自分で変えないでください。",
        "Set your computer's date and time right, export the file again and send that; do not rename it.",
        sent_ja="送信は済んでいますが、後から送るものより新しいと見られます。send/ から recall/ へ移して取り消し、パソコンの日付と時刻を直し、出力し直して送ってください。",
        sent_en="The file was sent, but it looks newer than what you send later. Move it from send/ into recall/, set your computer's date and time right, export again and send that.",
        severity=Severity.WARN,
    ),
    # --- routes ------------------------------------------------------------------------------------------------
    Row(
        "route.recipient_unknown",
        "宛先の事業所 {office} は登録されていません",
        "recipient office {office} is not registered here",
        "宛先の番号を確かめてください。正しいときは、その事業所はまだここで受け取れません。FAXなど別の方法でお送りください。",
        "Check the number. If it is right, that office cannot receive here yet: use another way, such as fax.",
    ),
    Row(
        "route.recipient_suspended",
        "宛先の事業所 {office} は現在、受信を停止しています",
        "recipient office {office} is suspended at present",
        "いつから受け取れるか、宛先の事業所に電話でお尋ねください。急ぐときは、FAXなど別の方法でお送りください。",
        "Ask the recipient when it can receive again. If it is urgent, use another way, such as fax.",
    ),
    Row(
        "route.recipient_closed",
        "宛先の事業所 {office} は {at} に廃止されていて、受け取れません",
        "recipient office {office} closed on {at} and cannot receive",
        "これからの送り先を、その事業所や保険者に電話で確かめてください。送り先が決まったら、介護ソフトで宛先を選び直し、出力し直して送ってください。",
        "Ask by telephone where to send from now on; then choose that recipient in your care software, export again and send that.",
    ),
    Row(
        "route.recipient_moved",
        "宛先の事業所 {office} の番号は、{at} から {new} に変わりました",
        "the number of recipient office {office} is {new} since {at}",
        "介護ソフトで宛先の事業所番号を新しい番号に直し、出力し直して送ってください。ファイル名は自分で変えないでください。",
        "Change the recipient's number in your care software to the new one, export again and send that; do not rename the file.",
        sent_ja="送信は済み、同じ事業所に届いています。送り直しは要りません。次からは、介護ソフトで宛先を新しい番号に直して送ってください（変更前の月の分は、そのままでかまいません）。",
        sent_en="The file was sent and reached the same office; it need not be sent again. From now on use the new number, except for months before the change.",
        severity=Severity.WARN,
    ),
    Row(
        "route.folder_mismatch",
        "フォルダーは {folder}、ファイル名の宛先は {office} で、一致しません",
        "the folder says {folder}, the name says {office}",
        "ファイル名の宛先が正しければ、send/ に直接入れてください。違うときは、介護ソフトで宛先を選び直し、出力し直してください。",
        "If the name is right, put the file straight into send/. If not, choose the recipient again in your care software and export again.",
    ),
    # --- uploads -----------------------------------------------------------------------------------------------
    Row(
        "upload.looks_cut",
        "ファイルが途中で切れているかもしれないため、受け付けていません",
        "the upload looks cut off and was not accepted",
        "元のファイルが最後まであるか確かめ、もう一度送ってください。同じ内容なら、次は受け付けます。",
        "See whether the file on your disk is whole and send it again. The same content is accepted the second time.",
    ),
    Row(
        "upload.unfinished",
        "送信が途中で終わり、受け付けていません",
        "the upload never finished and was not accepted",
        "もう一度送ってください。",
        "Send it again.",
    ),
    Row(
        "upload.hole",
        "書き込まれていない部分があるため、受け付けていません",
        "parts of the file were never written; it was not accepted",
        "もう一度最初から送ってください。",
        "Send it again from the beginning.",
    ),
    # --- transfers ---------------------------------------------------------------------------------------------
    Row(
        "transfer.conflict",
        "同じ名前で内容の違うファイルを、{at} に受け付けています",
        "another file of this name was accepted at {at}",
        "介護ソフトから出力し直すと、別の名前になって送れます（名前は自分で変えないでください）。自分で作った書類は、名前を変えるか、先のものを send/ から recall/ へ移してから送ってください。",
        "What your care software exports again has another name and can be sent; do not rename it by hand. Give a document of your own another name, or first move the earlier one from send/ into recall/.",
    ),
    Row(
        "transfer.already_collected",
        "この名前のファイルは、{at} に相手が取得済みです",
        "a file of this name was already collected at {at}",
        "同じ内容なら、送り直しは要りません。直したものは、介護ソフトから出力し直して（自分で作った書類は名前を変えて）送ってください。",
        "The same content need not be sent again. What you have mended, export again (a document of your own: rename it) and send that.",
    ),
    Row(
        "transfer.recalled",
        "送信元が {at} に取り消しました",
        "taken back by its sender at {at}",
        "このファイルは取り込まないでください。必要なときは、送信元の事業所に電話してください。",
        "Do not import this file. If you need it, call the sender.",
    ),
    Row(
        "transfer.returned",
        "運営者が {at} に送信元へ返しました",
        "given back to its sender by the operator at {at}",
        "このファイルは取り込まないでください。途中までダウンロードしたものがあれば、削除してください。",
        "Do not import this file; if you have downloaded a part of it, delete that.",
    ),
    Row(
        "transfer.superseded",
        "送信元が {at} に送り直しています。new/ の新しいファイルを使ってください",
        "replaced by its sender at {at}; use the new file in new/",
        "このファイルは使わず、new/ にある新しいファイルをダウンロードしてください。",
        "Leave this file and download the new one from new/.",
    ),
    Row(
        "transfer.held",
        "運営者が確認のため、このファイルを一時的に止めています",
        "held by the operator for the time being",
        "取り込まないでお待ちください。お急ぎのときは、運営者の窓口に電話してください。",
        "Do not import it, and wait. If it is urgent, call the operator's help desk.",
    ),
    Row(
        "transfer.expired",
        "保管期限が過ぎたため、{at} に保管を終えました",
        "the time to collect it was over; it is kept no longer since {at}",
        "必要なときは、送信元に送り直しを頼んでください。",
        "If you need it, ask the sender to send it again.",
    ),
    Row(
        "transfer.destroyed",
        "取得済みのファイルとしての保管を {at} に終えました",
        "collected before, and kept no longer since {at}",
        "前に取得したファイルを使ってください。ないときは、送信元に送り直しを頼んでください。",
        "Use the copy that was fetched before, or ask the sender to export it again.",
    ),
    Row(
        "transfer.not_collected",
        "まだ最後までダウンロードされていません。先にダウンロードしてください",
        "not downloaded to its end yet: do that first",
        "先にパソコンへダウンロードしてください。終わってから、移すか削除してください。",
        "Download it first; then move or remove it.",
    ),
    Row(
        "transfer.accepted",
        "受け付け済みの送信は削除できません。取り消すときは recall/ へ移してください",
        "an accepted file cannot be removed here; to take it back, move it into recall/",
        "取り消すときは、send/ のファイルを recall/ へ移してください。相手が取得した後は取り消せません。",
        "To take it back, move it from send/ into recall/. That cannot be done once it was collected.",
    ),
    # --- content -----------------------------------------------------------------------------------------------
    Row(
        "content.empty",
        "ファイルの中身が空です",
        "the file is empty",
        "元のファイルを開いて中身があるか確かめ、出力（保存）し直して送ってください。同じときは、介護ソフトの窓口にお尋ねください。",
        "See whether the file on your disk holds anything, export or save it again and send that. If that does not help, ask your software's help desk.",
    ),
    Row(
        "content.truncated",
        "ファイルが途中で切れています（{where_ja}）",
        "the file is cut off ({where})",
        "もう一度送ってください。同じときは、介護ソフトから出力し直すか、スキャンや撮影をやり直して送ってください。",
        "Send it again. If that does not help, export (or scan) it again and send that.",
    ),
    Row(
        "content.not_this_kind",
        "名前は {kind} ですが、中身は別の種類のファイルのようです",
        "the name says {kind}, but the content is of another kind",
        "名前を付け替えたものは送らず、元のソフトから出力（保存）し直したものを、名前を変えずに送ってください。",
        "Do not send what was renamed: export or save it again from the program that made it, and keep its name.",
    ),
    Row(
        "content.encoding",
        "文字の保存形式（文字コード）が決まりのシフトJISではありません（{where_ja}）",
        "the encoding is not MS932 ({where})",
        "Excelやメモ帳で保存し直したものは送らず、" + _EXPORT_AGAIN_JA,
        "Do not send what a spreadsheet or an editor saved. " + _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.control_character",
        "読めない文字が混じっていて、壊れているおそれがあります（{where_ja}）",
        "there is a control character ({where})",
        _EXPORT_AGAIN_JA,
        "The file may be damaged. " + _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.line_end",
        "行の終わりの目印（改行）が壊れています（{where_ja}）",
        "a line end is wrong ({where})",
        _EXPORT_AGAIN_JA,
        _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.quote",
        '文章を囲む記号「"」の付き方が違い、項目の区切りが分かりません（{where_ja}）',
        "a quotation mark is wrong ({where})",
        _EXPORT_AGAIN_JA,
        _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.header_row",
        "最初の行が、データではなく項目の見出しになっています（{where_ja}）",
        "the first line holds headings ({where})",
        "見出しを付けない設定で、介護ソフトから出力し直して送ってください。できないときは、介護ソフトの窓口にお尋ねください。",
        "Export again without headings. If your care software cannot do that, ask its help desk.",
    ),
    Row(
        "content.field_count",
        "1行の項目の数が決まりと違います（{where_ja}）",
        "the number of items is wrong ({where})",
        "Excelで保存し直したものは送らず、" + _EXPORT_AGAIN_JA,
        "Do not send what a spreadsheet saved. " + _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.version_unknown",
        "ファイルの形式（項目1「CSVバージョン」）が、いま使えるものではありません（{where_ja}）",
        "the CSV version is none in use ({where})",
        "介護ソフトを最新にして、出力し直して送ってください。同じときは、この文を介護ソフトの窓口にお伝えください。",
        "Update your care software, export again and send that. If that does not help, read this sentence to its help desk.",
    ),
    Row(
        "content.version_mixed",
        "新旧2つの形式（項目1「CSVバージョン」）の行が混じっています（{where_ja}）",
        "one file holds two CSV versions ({where})",
        "2つのファイルをつなぎ合わせたものは送らず、" + _EXPORT_AGAIN_JA,
        "Do not send two files joined into one. " + _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.version_name_mismatch",
        "中身の形式（項目1「CSVバージョン」）と、ファイル名の形が合いません（{where_ja}）",
        "the CSV version does not fit the form of the name ({where})",
        "名前も中身も自分で直さず、" + _EXPORT_AGAIN_JA,
        "Change neither name nor content. " + _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.key_item",
        "保険者番号（6桁）か被保険者番号（10桁）の桁数や文字が正しくありません（{where_ja}）",
        "insurer or insured number is malformed ({where})",
        "番号の先頭の0が消えていないか確かめ、介護ソフトで番号を直し、出力し直して送ってください。",
        "See whether a leading zero was lost, mend the number in your care software, export again and send that.",
    ),
    Row(
        "content.month_mismatch",
        "中身の年月が、ファイル名の年月と違います（{where_ja}）",
        "a month inside differs from the month in the name ({where})",
        "介護ソフトで、送りたい月を選び直し、出力し直して送ってください。ファイル名は自分で変えないでください。",
        "Choose the month again in your care software, export again and send that; do not rename the file.",
    ),
    Row(
        "content.unrelated_person",
        "宛先の事業所を利用していない方が含まれています（{where_ja}）",
        "the file names a person who has nothing to do with the recipient ({where})",
        "宛先を確かめ、その事業所を利用する方だけを選び、介護ソフトから出力し直して送ってください。",
        "Check the recipient, select only persons who use its services, export again and send that.",
    ),
    Row(
        "content.version_period",
        "この月のファイルは、別の形式で出力する決まりです（{where_ja}）",
        "the CSV version does not fit the month ({where})",
        "相手が取り込めないことがあります。この文を介護ソフトの窓口にお伝えください。",
        "The recipient may be unable to import it. Read this sentence to your care software's help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "content.external_character",
        "外字（パソコンに登録した特別な字。相手の画面では違う字になります）があります（{where_ja}）",
        "there is an external character ({where})",
        "氏名や住所などの外字を、介護ソフトで、かなか似た漢字に直し、出力し直して送ってください。",
        "Use kana or a similar kanji in your care software, export again and send that.",
        sent_ja="送信は済んでいます。正しい字を相手の事業所に電話で伝え、次からは、かなか似た漢字にしてください。",
        sent_en="The file was sent. Tell the recipient the right character by telephone, and use kana or a similar kanji next time.",
        severity=Severity.WARN,
    ),
    Row(
        "content.required_item",
        "必ず入れる項目が空です（{where_ja}）",
        "a required item is empty ({where})",
        "介護ソフトでその項目を入力し、出力し直して送ってください。入力してあるときは、介護ソフトの窓口にお尋ねください。",
        "Fill in that item in your care software, export again and send that. If it is filled in, ask its help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "content.item_format",
        "項目の書き方（数字・日付・桁数など）が決まりと違います（{where_ja}）",
        "an item is malformed ({where})",
        "介護ソフトでその項目を確かめ、違うときは直し、出力し直して送ってください。入力が正しいときは、介護ソフトの窓口にお尋ねください。",
        "Check that item in your care software; if it is wrong, mend it, export again and send that. If it is right, ask its help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "content.item_length",
        "項目の文字数が多すぎます（{where_ja}）",
        "an item is too long ({where})",
        "介護ソフトでその項目を短くし、出力し直して送ってください。できないときは、介護ソフトの窓口にお尋ねください。",
        "Shorten that item in your care software, export again and send that. If you cannot, ask its help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "content.date_outside_month",
        "利用日に、ファイル名の月ではない日付があります（{where_ja}）",
        "a date lies outside the month ({where})",
        "介護ソフトで利用日を確かめ、違うときは直し、出力し直して送ってください。",
        "Check the dates of use in your care software; if they are wrong, mend them, export again and send that.",
        severity=Severity.WARN,
    ),
    Row(
        "content.result_office",
        "ほかの事業所の実績が混じっています（{where_ja}）",
        "results of another office ({where})",
        "自分の事業所の実績だけを選び、介護ソフトから出力し直して送ってください。",
        "Select only your own office's results, export again and send that.",
        sent_ja="送信は済んでいます。間違いのときは、すぐに send/ から recall/ へ移して取り消し、相手の事業所に電話してください。",
        sent_en="The file was sent. If that is a mistake, move it from send/ into recall/ at once and call the recipient.",
        severity=Severity.WARN,
    ),
    Row(
        "content.repeated_line",
        "第2表に、課題・援助目標・援助内容の番号が同じ行が2つあります（{where_ja}）",
        "a line number is repeated ({where})",
        "介護ソフトの第2表に同じ行が2回ないか確かめ、あれば直し、出力し直して送ってください。なければ、介護ソフトの窓口へ。",
        "See whether a line stands twice in table 2; if so, mend it, export again and send that. If not, ask your software's help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "content.duplicate_record",
        "まったく同じ行が2つあります（{where_ja}）",
        "a record occurs twice ({where})",
        "介護ソフトに二重の入力がないか確かめ、あれば直し、出力し直して送ってください。なければ、介護ソフトの窓口へ。",
        "See whether something was entered twice; if so, mend it, export again and send that. If not, ask your software's help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "content.link_item",
        "計画作成日と対象年月が、どちらも入っていません（{where_ja}）",
        "both link items are zero ({where})",
        "介護ソフトで計画の作成日と月を確かめ、空なら入力し、出力し直して送ってください。入っていれば、介護ソフトの窓口へ。",
        "Check the plan's date and month in your care software; if they are empty, fill them in, export again and send that. If not, ask its help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "content.dos_end_mark",
        "ファイルの最後に、目に見えない余分な1文字があります",
        "the file ends with a DOS end mark",
        "この文を、介護ソフトの窓口にお伝えください。",
        "Read this sentence to your care software's help desk.",
        sent_ja="送信は済んでいます。何もしなくて大丈夫です。毎回出るときは、介護ソフトの窓口にお伝えください。",
        sent_en="The file was sent and there is nothing to do. If it happens every time, tell your care software's help desk.",
        severity=Severity.WARN,
    ),
    # --- units -------------------------------------------------------------------------------------------------
    Row(
        "unit.incomplete",
        "一緒に送るファイルがそろっていません（{missing_ja}がありません）",
        "the unit is incomplete ({missing} is missing)",
        "足りない書類も選び、介護ソフトから全部を一度に出力し直して送ってください。ファイル名は自分で変えないでください。",
        "Select what is missing, too, export the whole unit again and send that; do not rename the files.",
        severity=Severity.WARN,
    ),
    Row(
        "unit.not_allowed",
        "一緒に送れない書類が混じっています（{why_ja}）",
        "this set of files is no unit of the standard ({why})",
        "書類の種類ごとに分けて、介護ソフトから出力し直して送ってください。分からないときは、介護ソフトの窓口にお尋ねください。",
        "Export the documents apart, kind by kind, and send that. If in doubt, ask your software's help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "unit.annex_missing",
        "介護予防サービス・支援計画書（UPYOBO）に別表（UPYOBO_SUB）が付いていません",
        "the preventive plan (UPYOBO) comes without its annex (UPYOBO_SUB)",
        "別表も含めて、介護ソフトから全部を出力し直して送ってください。ファイル名は自分で変えないでください。",
        "Export the whole unit again with the annex and send that; do not rename the files.",
        severity=Severity.WARN,
    ),
    Row(
        "unit.supplement_mismatch",
        "利用者補足情報（UPHOSOKU）の年月が {month} です。正しくは {expected} です",
        "the supplement (UPHOSOKU) is for month {month}; in this unit it should be {expected}",
        "利用者補足情報を、一緒に送る書類と同時に選び、全部を出力し直して送ってください。同じときは、この文を介護ソフトの窓口へ。",
        "Select the supplement together with what it goes with, export the whole unit again and send that. If that does not help, read this sentence to your software's help desk.",
        severity=Severity.WARN,
    ),
    Row(
        "unit.unrelated_person",
        "{kind}「{kind_ja}」に、UPPLAN（サービス利用票）にいない利用者がいます（{where_ja}）",
        "{kind} names somebody who is not in the use slip UPPLAN ({where})",
        "利用者の選び方を確かめ、全部を介護ソフトから出力し直して送ってください。",
        "Check which persons were selected, export the whole unit again and send that.",
        severity=Severity.WARN,
    ),
    # --- limits and the office ---------------------------------------------------------------------------------
    Row(
        "limit.size",
        "ファイルが大きすぎます（上限 {limit}）",
        "the file is too large (limit {limit})",
        "CSVは切り分けず、利用者を分けて介護ソフトから出力し直してください。PDFや画像は、小さくするか分けて送ってください。",
        "Do not cut a CSV in pieces: export fewer persons at a time. Make PDFs and pictures smaller, or send them in parts.",
    ),
    Row(
        "limit.quota",
        "預けられる量の上限 {limit} に達しています。このファイルは受け付けていません",
        "the storage limit of {limit} is reached; this file was not accepted",
        "相手が前のファイルを取得してから、もう一度送ってください。急ぐときは、運営者の窓口に電話してください。",
        "Send it again when partners have collected earlier files. If it is urgent, call the operator's help desk.",
    ),
    Row(
        "limit.partials",
        "途中で止まった送信が上限の {limit} 件あります。send/ の途中のファイルを続きから送るか、削除してください",
        "there are {limit} unfinished uploads; finish or remove them first",
        "send/ にある途中のファイルを、続きから送るか削除し、それからもう一度送ってください。1日たつと自動で消えます。",
        "Finish or remove the unfinished files in send/, then send it again. They vanish by themselves after a day.",
    ),
    Row(
        "limit.rate",
        "続けて送れるのは1分に {limit} 件までです。このファイルは {seconds} 秒後にもう一度送ってください",
        "at most {limit} files a minute; try again in {seconds} seconds",
        "このファイルは受け付けていません。少し待って、これだけもう一度送ってください。ほかに送れたものは、そのままで大丈夫です。",
        "This file was not accepted. Wait a little and send it again; what was sent before is safe.",
        permanent=False,
    ),
    Row(
        "limit.handles",
        "一度に送受信できるファイルは {limit} 個までです。ほかが終わってから、もう一度行ってください",
        "only {limit} files can be sent or received at once; try again when others are done",
        "いまの送受信が終わるのを待ち、ファイルの数を減らして、もう一度行ってください。",
        "Wait until what is under way has ended and try again with fewer files.",
        permanent=False,
    ),
    Row(
        "office.suspended",
        "事業所 {office} は現在、利用を停止しています。運営者の窓口にお電話ください",
        "office {office} is suspended; call the operator",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.collect_only",
        "事業所 {office} は廃止されたため、新しく送ることはできません（受け取りと取り消しはできます）",
        "office {office} has closed: it can collect and take back, but send nothing new",
        "届いているファイルは、new/ からダウンロードしてください。送る必要があるときは、運営者の窓口に電話してください。",
        "Collect from new/ what waits for you. If something has to be sent, call the operator's help desk.",
    ),
    Row(
        "office.closed",
        "事業所 {office} は廃止され、接続できる期間も終わりました。運営者の窓口にお電話ください",
        "office {office} has closed, and the time to collect is over; call the operator",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.moved",
        "事業所番号 {office} は変更され、もう使えません。新しい番号で接続してください。分からないときは、運営者の窓口にお電話ください",
        "office number {office} was changed and is over; connect with the new number, or call the operator",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.revoked",
        "この証明書は止められていて（失効）、使えません。運営者の窓口にお電話ください",
        "this certificate was revoked; call the operator",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.expired",
        "この証明書は有効期限が切れています。運営者の窓口にお電話ください",
        "this certificate has expired; call the operator",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.unconfirmed",
        "この証明書が使えるか、いま確認できません。しばらくしてから、もう一度接続してください",
        "it cannot be confirmed at the moment that this certificate was not revoked; connect again later",
        f"しばらくしてから、もう一度接続してください。続くときは、{_CALL_JA}",
        f"Connect again later. If it goes on: {_CALL_EN}",
        permanent=False,
    ),
    # --- certificates ------------------------------------------------------------------------------------------
    Row(
        "certificate.private_key",
        "これは秘密鍵です。保存していません。新しい鍵を作り、.pub のファイルだけを入れてください",
        "this is a private key; it was not kept. Make a new key and send only its .pub file",
        "秘密鍵は誰にも渡さないでください。この鍵はもう使わず、新しく作った鍵の .pub のファイルを入れてください。作り方が分からないときは、運営者の窓口に電話してください。",
        "Never give a private key to anybody. Use this one no more and send the .pub file of a new one. If you do not know how to make one, call the operator's help desk.",
    ),
    Row(
        "certificate.not_a_key",
        "公開鍵のファイルではありません（{why_ja}）。名前が .pub で終わるファイルを入れてください",
        "this is no public key file ({why}); use the one ending in .pub",
        "鍵を作ったときの2つのファイルのうち、名前が .pub で終わるほうを certificate/ に入れてください。分からないときは、運営者の窓口に電話してください。",
        "Of the two files that were made with the key, put the one ending in .pub into certificate/. If in doubt, call the operator's help desk.",
    ),
    Row(
        "enrolment.wrong_code",
        "招待コードが正しくありません",
        "this invitation code is not right",
        "手紙やお電話でお伝えしたコードを、もう一度ご確認ください。5回まちがえると使えなくなります。",
        "Please check the code that was told to you; after five wrong tries it can no longer be used.",
    ),
    Row(
        "enrolment.blocked",
        "この招待コードは、まちがいが続いたため使えなくなりました",
        "this invitation was tried wrongly too often and can no longer be used",
        "運営者の窓口に、新しい招待コードをお求めください。",
        "Please ask the operator for a new invitation.",
    ),
    Row(
        "enrolment.used",
        "この招待コードは、もう使われています",
        "this invitation was used already",
        "使った覚えがないときは、すぐに運営者の窓口へお電話ください。ほかのパソコンの分は、新しい招待コードをお求めください。",
        "If it was not you, call the operator at once. For another computer ask for another invitation.",
    ),
    Row(
        "enrolment.cancelled",
        "この招待コードは、運営者が取り消しました",
        "this invitation was cancelled by the operator",
        "運営者の窓口に、新しい招待コードをお求めください。",
        "Please ask the operator for a new invitation.",
    ),
    Row(
        "enrolment.expired",
        "この招待コードの期限が過ぎています",
        "this invitation has expired",
        "運営者の窓口に、新しい招待コードをお求めください。",
        "Please ask the operator for a new invitation.",
    ),
    Row(
        "enrolment.unavailable",
        "いまは証明書を発行できません",
        "certificates cannot be issued at the moment",
        "運営者の窓口にお問い合わせください。招待コードは、まだ使えます。",
        "Please ask the operator; the invitation is still good.",
    ),
    Row(
        "certificate.weak_key",
        "この鍵は種類か長さが合わず、使えません（{kind}）。運営者の窓口にお電話ください",
        "keys of this kind or size are not accepted ({kind}); call the operator",
        "鍵を作った人か運営者の窓口に、「ECDSA、Ed25519 か、2048ビット以上の RSA で作り直してください」とお伝えください。",
        "Tell whoever made the key, or the operator's help desk: ECDSA, Ed25519, or RSA of 2048 bits or more is needed.",
    ),
    Row(
        "certificate.used_key",
        "この鍵は前に使われたため、もう使えません。新しく作った鍵の .pub のファイルを入れてください",
        "this key was used before; put the .pub file of a new one here",
        "新しい鍵を作り、その .pub のファイルを入れてください。作り方が分からないときは、運営者の窓口に電話してください。",
        "Make a new key and put its .pub file here. If you do not know how, call the operator's help desk.",
    ),
    Row(
        "certificate.revoked_key",
        "この鍵は止められていて（失効）、もう使えません。新しく作った鍵の .pub のファイルを入れてください",
        "this key was revoked; put the .pub file of a new one here",
        "新しい鍵を作り、その .pub のファイルを入れてください。作り方が分からないときは、運営者の窓口に電話してください。",
        "Make a new key and put its .pub file here. If you do not know how, call the operator's help desk.",
    ),
    Row(
        "certificate.too_many",
        "有効な証明書が上限の {limit} 枚あります。使わないものを運営者の窓口で止めてもらってください",
        "the limit of {limit} valid certificates is reached; have the operator stop what is not used",
        "使わなくなった証明書を運営者の窓口に伝え、止めてもらってください。",
        "Tell the operator which certificates are no longer used.",
    ),
    Row(
        "certificate.not_issued_here",
        "証明書は、ここでは更新できません。運営者の窓口にお電話ください",
        "certificates are not renewed here; call the operator",
        "運営者の窓口に電話し、公開鍵（.pub のファイル）の渡し方をお尋ねください。",
        "Call the operator's help desk and ask how to hand in your public key (the .pub file).",
    ),
    Row(
        "certificate.only_keys",
        "ここに入れられるのは公開鍵（.pub のファイル）だけです。送るファイルは send/ に入れてください",
        "only public keys (.pub) can be put here; upload into send/",
        "送るファイルは send/ に、新しい公開鍵は certificate/ に入れてください。",
        "Put files to be sent into send/, and a new public key into certificate/.",
    ),
    Row(
        "certificate.in_use",
        "いま接続に使っている証明書は止められません。新しい証明書で接続してから削除してください",
        "the certificate in use cannot be given up; connect with the new one first",
        "新しい証明書で接続してから、古い証明書を削除してください。分からないときは、運営者の窓口に電話してください。",
        "Connect with the new certificate first, then remove the old one. If in doubt, call the operator's help desk.",
    ),
    Row(
        "certificate.not_replaced",
        "この証明書は、ここでは止められません。運営者の窓口にお電話ください",
        "this certificate cannot be given up here; call the operator",
        "止めたいときは、運営者の窓口に電話してください。",
        "To stop it, call the operator's help desk.",
    ),
    # --- the tree ----------------------------------------------------------------------------------------------
    Row(
        "tree.not_found",
        "その名前のファイルやフォルダーは見つかりません",
        "no such file or folder",
        "画面を更新してから、名前とフォルダーを確かめてください。",
        "Refresh the view, then check the name and the folder.",
        status=FX_NO_SUCH_FILE,
    ),
    Row(
        "tree.read_only",
        "ここには書き込めません。送るファイルは send/ に入れてください",
        "nothing can be written here; upload into send/",
        "何も変わっていません。送るファイルは send/ に入れてください。",
        "Nothing was changed. Put files to be sent into send/.",
    ),
    Row(
        "tree.is_directory",
        "フォルダーは指定できません。中のファイルを選んでください",
        "this is a folder; choose the files in it",
        "フォルダーごとではなく、中のファイルだけを選んでください。送るときは send/ に入れてください。",
        "Choose the files inside instead of the folder. To send them, put them into send/.",
    ),
    Row(
        "tree.not_directory",
        "指定した名前は、フォルダーではなくファイルです",
        "this is a file, not a folder",
        "画面を更新し、フォルダーを選び直してください。",
        "Refresh the view and choose a folder.",
    ),
    Row(
        "tree.no_rename",
        "ここでは名前の変更も移動もできません。何も変わっていません",
        "nothing can be renamed or moved here; nothing was changed",
        "何も変わっていません。違うものを送ったときは、send/ から recall/ へ同じ名前で移して取り消し、介護ソフトから出力し直して送ってください。",
        "Nothing was changed. If you sent a wrong file, move it from send/ into recall/ under the same name, export the right one and send that.",
    ),
    Row(
        "tree.no_directories",
        "フォルダーは作れません。中のファイルだけを send/ か send/<宛先の事業所番号>/ に入れてください",
        "folders cannot be made; put the files into send/ or send/<recipient's number>/",
        "フォルダーごとではなく、中のファイルだけを send/ に入れてください。自分で作った書類は send/<宛先の事業所番号>/ へ。",
        "Put the files inside into send/, not the folder; a document of your own into send/<recipient's office number>/.",
    ),
    # --- the relay itself --------------------------------------------------------------------------------------
    Row(
        "server.busy",
        "ただいま混み合っています。受け付けていません。しばらくしてから、もう一度行ってください",
        "busy at the moment; nothing was accepted. Try again in a little while",
        _LATER_JA,
        _LATER_EN,
        permanent=False,
    ),
    Row(
        "server.storage_full",
        "サーバーの保存場所がいっぱいで、受け付けていません。しばらくしてから、もう一度送ってください",
        "the relay's storage is full; nothing was accepted. Try again later",
        "運営者が対応します。急ぐときは、運営者の窓口に電話してください。",
        "The operator is informed. If it is urgent, call the operator's help desk.",
        permanent=False,
    ),
    Row(
        "server.storage_damaged",
        "サーバーの保存場所に障害があり、受け付けていません。運営者の窓口に電話してください",
        "the relay's storage is damaged; nothing was accepted. Call the operator's help desk",
        "運営者が直すまで、送ることも受け取ることもできないことがあります。送ったファイルは、お手元に残しておいてください。",
        "Until the operator has mended it, sending and receiving may fail. Keep your copies of what you have sent.",
        permanent=False,
    ),
    Row(
        "server.fault",
        "サーバーの不具合で、受け付けていません。窓口へのお問い合わせ番号 {reference}",
        "a fault of the relay; nothing was accepted (reference {reference})",
        "もう一度送ってください。また出るときは、お問い合わせ番号を運営者の窓口に伝えてください。",
        "Try again. If it happens again, tell the operator's help desk the reference.",
        permanent=False,
    ),
)


class _Kept(dict[str, object]):
    """Leave a placeholder without a fact as it stands: a missing word must not cost the sentence."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table applied to one file: the code and the facts that its sentences name."""

    code: str
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def row(self) -> Row:
        """The row of the table that this finding is an instance of."""
        return TABLE[self.code]

    @property
    def message_ja(self) -> str:
        """The Japanese sentence with its facts."""
        return self.row.ja.format_map(_Kept(self.facts))

    @property
    def message_en(self) -> str:
        """The English sentence with its facts."""
        return self.row.en.format_map(_Kept(self.facts))

    @property
    def client_text(self) -> str:
        """``code: Japanese / English``, at most `CLIENT_TEXT_CHARACTERS` long: what goes over the wire."""
        text = f"{self.code}: {self.message_ja} / {self.message_en}"
        return text if len(text) <= CLIENT_TEXT_CHARACTERS else text[: CLIENT_TEXT_CHARACTERS - 1] + "…"


def finding(code: str, **facts: object) -> Finding:
    """Make a `Finding`; KeyError when *code* is not in the table, so that a typing error shows at once."""
    if code not in TABLE:
        raise KeyError(code)
    return Finding(code, tuple((key, str(value)) for key, value in facts.items()))


class RelayError(Exception):
    """A defect or a broken installation: for the operator, never for an office."""


class _Answered(RelayError):
    """An outcome with two texts: *finding* for the client, *detail* for the journal alone."""

    def __init__(self, code: str, /, *, detail: str = "", **facts: object) -> None:
        self.finding = finding(code, **facts)
        self.detail = detail
        super().__init__(f"{self.finding.client_text} [{detail}]" if detail else self.finding.client_text)

    def again(self) -> Self:
        """Return the same answer, to keep or to raise once more.

        An exception that was raised holds every frame it went through, and with them the bytes of a request.
        """
        return type(self)(self.code, detail=self.detail, **dict(self.finding.facts))

    @property
    def code(self) -> str:
        """The stable dotted code."""
        return self.finding.code

    @property
    def status(self) -> int:
        """The SFTP status code that carries the text."""
        return self.finding.row.status

    @property
    def client_text(self) -> str:
        """What the client may read; holds nothing that the office did not tell us."""
        return self.finding.client_text


class Refused(_Answered):
    """The sender's to mend, and trying again unchanged will not help."""


class Deferred(_Answered):
    """Ours: nothing was promised, and the same again may succeed."""


class ConfigError(RelayError):
    """The installation cannot start as it stands; the message says what to mend, for the operator's eyes."""
