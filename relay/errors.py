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
    the remedies say what to do next and never do.
    """

    code: str
    ja: str
    en: str
    remedy_ja: str
    remedy_en: str
    severity: Severity = Severity.REFUSE
    permanent: bool = True
    status: int = FX_FAILURE


def _rows(*rows: Row) -> Mapping[str, Row]:
    table = {row.code: row for row in rows}
    if len(table) != len(rows):
        raise ValueError("a code stands twice in the table of refusals")
    return MappingProxyType(table)


_EXPORT_AGAIN_JA = "介護ソフトから出力し直して、もう一度送ってください。"
_EXPORT_AGAIN_EN = "Export the file again from your care software and send it once more."
_CHECK_NUMBER_JA = "ファイル名の事業所番号を確かめてください。"
_CHECK_NUMBER_EN = "Check the office number in the file name."
_CALL_JA = "運営者の窓口に電話でお問い合わせください。"
_CALL_EN = "Please call the operator's help desk."
_LATER_JA = "しばらくしてから、もう一度送ってください。"
_LATER_EN = "Try again in a little while."
_NOTHING_JA = "送信は済んでいます。次の送信までにご確認ください。"
_NOTHING_EN = "The file was sent. Please check before the next one."

TABLE: Mapping[str, Row] = _rows(
    # --- names -------------------------------------------------------------------------------------------------
    Row(
        "name.illegal",
        "このファイル名は使えません（{why_ja}）",
        "the file name cannot be used ({why})",
        "ファイル名を短くし、記号や特殊な文字を除いてください。",
        "Shorten the name and remove special characters.",
    ),
    Row(
        "name.malformed",
        "ファイル名の付け方が決まりと違います（{why_ja}）",
        "the file name follows no known rule ({why})",
        "介護ソフトが出力した名前のまま送るか、send/<宛先の事業所番号>/ に入れてください。",
        "Keep the name your software gave it, or put the file into send/<recipient's office number>/.",
    ),
    Row(
        "name.sender_mismatch",
        "ファイル名の送信元 {sender} は、ログイン中の事業所 {office} ではありません",
        "the name says sender {sender}, but office {office} is logged in",
        _CHECK_NUMBER_JA,
        _CHECK_NUMBER_EN,
    ),
    Row(
        "name.same_office",
        "送信元と宛先が同じ事業所 {office} です",
        "sender and recipient are the same office {office}",
        _CHECK_NUMBER_JA,
        _CHECK_NUMBER_EN,
    ),
    Row(
        "name.check_digit",
        "事業所番号 {office} は打ち間違いかもしれません（最後の1桁が計算と合いません）",
        "the check digit of office number {office} does not fit",
        _NOTHING_JA,
        _NOTHING_EN,
        Severity.WARN,
    ),
    Row(
        "name.service_type",
        "ファイル名のサービス種類 {service_type} は、事業所 {office} の登録にありません",
        "office {office} is not registered for service type {service_type}",
        _NOTHING_JA,
        _NOTHING_EN,
        Severity.WARN,
    ),
    Row(
        "name.lower_case",
        "ファイル名に英字の小文字があります（決まりは大文字です）",
        "the file name has lower-case letters",
        _NOTHING_JA,
        _NOTHING_EN,
        Severity.WARN,
    ),
    Row(
        "name.serial_future",
        "ファイル名の日時 {serial}（連番）が1日以上先になっています",
        "the serial {serial} lies more than a day ahead",
        "パソコンの日付と時刻を確かめてください。",
        "Check the date and time of your computer.",
        Severity.WARN,
    ),
    # --- routes ------------------------------------------------------------------------------------------------
    Row(
        "route.recipient_unknown",
        "宛先の事業所 {office} は登録されていません",
        "recipient office {office} is not registered here",
        "宛先の番号を確かめてください。正しければ、その事業所はまだこの連携に参加していません。",
        "Check the number. If it is right, that office has not joined yet.",
    ),
    Row(
        "route.recipient_suspended",
        "宛先の事業所 {office} は現在、受信を停止しています",
        "recipient office {office} is suspended at present",
        "宛先の事業所に直接ご確認ください。",
        "Please contact the recipient directly.",
    ),
    Row(
        "route.folder_mismatch",
        "フォルダーは {folder}、ファイル名の宛先は {office} で、一致しません",
        "the folder says {folder}, the name says {office}",
        "どちらが正しい宛先かを確かめ、正しいフォルダーに入れてください。",
        "Find out which one is right and use that folder.",
    ),
    # --- uploads -----------------------------------------------------------------------------------------------
    Row(
        "upload.looks_cut",
        "途中で切れたように見えるため、受け付けていません",
        "the upload looks cut off and was not accepted",
        "もう一度送ってください。同じ内容なら2回目に受け付けます。",
        "Send it again. The same content is accepted the second time.",
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
        "同じ名前で内容の違うファイルを {at} に受け付けています",
        "another file of this name was accepted at {at}",
        "出力し直して新しい連番で送るか、先のファイルを取り消してください。",
        "Export again with a new serial, or take the first one back.",
    ),
    Row(
        "transfer.already_collected",
        "この名前のファイルは {at} に相手が取得済みです",
        "a file of this name was already collected at {at}",
        "出力し直して、新しい連番で送ってください。",
        "Export again with a new serial.",
    ),
    Row(
        "transfer.recalled",
        "送信元が {at} に取り消しました",
        "taken back by its sender at {at}",
        "このファイルは取り込まないでください。必要なときは送信元に連絡してください。",
        "Do not import this file. If you need it, call the sender.",
    ),
    Row(
        "transfer.superseded",
        "送信元が {at} に送り直しました。新しいほうを取得してください",
        "replaced by its sender at {at}; fetch the new one",
        "new/ にある新しいファイルを取得してください。",
        "Fetch the new file from new/.",
    ),
    Row(
        "transfer.not_collected",
        "まだ取得していません。読み終えてから移してください",
        "not collected yet: read the whole file first",
        "ファイルを最後までダウンロードしてから削除してください。",
        "Download the whole file before you remove it.",
    ),
    Row(
        "transfer.accepted",
        "受け付け済みの送信は削除できません。取り消すときは recall/ へ移してください",
        "an accepted file cannot be removed here; to take it back, move it into recall/",
        "取り消すときは recall/ へ移してください。",
        "To take it back, move it into recall/.",
    ),
    # --- content -----------------------------------------------------------------------------------------------
    Row(
        "content.empty",
        "ファイルの中身が空です",
        "the file is empty",
        _EXPORT_AGAIN_JA,
        _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.truncated",
        "ファイルが途中で切れています（{where_ja}）",
        "the file is cut off ({where})",
        "もう一度送ってください。続くときは出力し直してください。",
        "Send it again. If that does not help, export it again.",
    ),
    Row(
        "content.not_this_kind",
        "名前は {kind} ですが、中身は {kind} のファイルではありません",
        "the content is no {kind}",
        _EXPORT_AGAIN_JA,
        _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.encoding",
        "文字の保存形式（文字コード）が決まりのシフトJISではありません（{where_ja}）",
        "the encoding is not MS932 ({where})",
        "Excelやメモ帳で保存し直したものは送らず、介護ソフトから出力し直してください。",
        "Export it again and send it without opening it in a spreadsheet or an editor.",
    ),
    Row(
        "content.control_character",
        "文字として読めないデータが混じっています（{where_ja}）",
        "there is a control character ({where})",
        "ファイルが壊れているおそれがあります。" + _EXPORT_AGAIN_JA,
        "The file may be damaged. " + _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.line_end",
        "行の終わりの改行が壊れています（{where_ja}）",
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
        "最初の行が項目名（見出し）になっています（{where_ja}）",
        "the first line holds headings ({where})",
        "見出しの行を付けずに、介護ソフトから出力し直してください。",
        "Export without headings.",
    ),
    Row(
        "content.field_count",
        "1行の項目の数が決まりと違います（{where_ja}）",
        "the number of items is wrong ({where})",
        "Excelで保存し直したものは送らず、介護ソフトから出力し直してください。",
        "Do not send what a spreadsheet saved; export it again from your care software.",
    ),
    Row(
        "content.version_unknown",
        "ファイルの版（項目1「CSVバージョン」）が、使える版のどれでもありません（{where_ja}）",
        "the CSV version is none in use ({where})",
        "介護ソフトを最新にして出力し直してください。同じときは、介護ソフトの窓口にお尋ねください。",
        "Update your care software and export again. If that does not help, ask its help desk.",
    ),
    Row(
        "content.version_mixed",
        "1つのファイルに2つの版（項目1「CSVバージョン」）が混じっています（{where_ja}）",
        "one file holds two CSV versions ({where})",
        _EXPORT_AGAIN_JA,
        _EXPORT_AGAIN_EN,
    ),
    Row(
        "content.version_name_mismatch",
        "中身の版（項目1「CSVバージョン」）とファイル名の版が合いません（{where_ja}）",
        "the CSV version does not fit the form of the name ({where})",
        "名前も中身も直さず、介護ソフトから出力し直してください。同じときは、介護ソフトの窓口にお尋ねください。",
        "Export it again and change neither name nor content. If that does not help, ask your software's help desk.",
    ),
    Row(
        "content.key_item",
        "保険者番号（6桁）か被保険者番号（10桁）の桁数や文字が違います（{where_ja}）",
        "insurer or insured number is malformed ({where})",
        "番号の先頭の0が消えていないか確かめ、介護ソフトで直して出力し直してください。",
        "See whether a leading zero was lost, mend the number in your care software and export it again.",
    ),
    Row(
        "content.month_mismatch",
        "中身の年月が、ファイル名の年月と違います（{where_ja}）",
        "a month inside differs from the month in the name ({where})",
        "どの月のファイルかを確かめ、介護ソフトから出力し直してください。ファイル名は変えないでください。",
        "Find out which month it is for, export it again and keep its name.",
    ),
    Row(
        "content.unrelated_person",
        "宛先の事業所を利用していない方が含まれています（{where_ja}）",
        "the file names a person who has nothing to do with the recipient ({where})",
        "宛先を確かめ、その事業所を利用する方だけを選んで、介護ソフトから出力し直してください。",
        "Check the recipient and export only persons who use its services.",
    ),
    *(
        Row(code, ja, en, _NOTHING_JA, _NOTHING_EN, Severity.WARN)
        for code, ja, en in (
            (
                "content.version_period",
                "この月のファイルは、別の版（項目1「CSVバージョン」）で作る決まりです（{where_ja}）",
                "the CSV version does not fit the month ({where})",
            ),
            (
                "content.external_character",
                "外字（相手の画面では違う字になる文字）があります（{where_ja}）",
                "there is an external character ({where})",
            ),
            ("content.required_item", "必ず入れる項目が空です（{where_ja}）", "a required item is empty ({where})"),
            (
                "content.item_format",
                "項目の書き方（数字・日付・桁数など）が決まりと違います（{where_ja}）",
                "an item is malformed ({where})",
            ),
            ("content.item_length", "項目が長すぎます（{where_ja}）", "an item is too long ({where})"),
            (
                "content.date_outside_month",
                "利用日がファイル名の月の日付ではありません（{where_ja}）",
                "a date lies outside the month ({where})",
            ),
            (
                "content.result_office",
                "ほかの事業所の実績が入っています（{where_ja}）",
                "results of another office ({where})",
            ),
            (
                "content.repeated_line",
                "第2表に、課題・援助目標・援助内容の番号が同じ行が2つあります（{where_ja}）",
                "a line number is repeated ({where})",
            ),
            (
                "content.duplicate_record",
                "まったく同じ行が2つあります（{where_ja}）",
                "a record occurs twice ({where})",
            ),
            (
                "content.link_item",
                "計画作成日と対象年月が両方とも0で、どの計画・どの月のものか分かりません（{where_ja}）",
                "both link items are zero ({where})",
            ),
            (
                "content.dos_end_mark",
                "ファイルの最後に、目に見えない余分な1文字があります",
                "the file ends with a DOS end mark",
            ),
        )
    ),
    # --- units -------------------------------------------------------------------------------------------------
    Row(
        "unit.incomplete",
        "一緒に送るファイル（送信単位）がそろっていません（{missing_ja}がありません）",
        "the unit is incomplete ({missing} is missing)",
        "足りないファイルを、名前の日時（連番）を同じにして送るか、全部を出力し直してください。",
        "Send what is missing under the same serial, or export the whole unit again.",
        Severity.WARN,
    ),
    Row(
        "unit.not_allowed",
        "一緒に送るファイル（送信単位）の組み合わせが決まりと違います（{why_ja}）",
        "this set of files is no unit of the standard ({why})",
        "書類の種類ごとに分けて、介護ソフトから出力し直してください。",
        "Export each unit again under a serial of its own.",
        Severity.WARN,
    ),
    Row(
        "unit.annex_missing",
        "介護予防サービス・支援計画書（UPYOBO）に別表（UPYOBO_SUB）が付いていません",
        "the preventive plan (UPYOBO) comes without its annex (UPYOBO_SUB)",
        "別表も含めて出力し直し、新しい連番で送ってください。",
        "Export again with the annex, under a new serial.",
        Severity.WARN,
    ),
    Row(
        "unit.supplement_mismatch",
        "利用者補足情報（UPHOSOKU）の年月が {month} です。一緒に送る書類に合わせると {expected} です",
        "the supplement (UPHOSOKU) is for month {month}; in this unit it should be {expected}",
        _EXPORT_AGAIN_JA,
        _EXPORT_AGAIN_EN,
        Severity.WARN,
    ),
    Row(
        "unit.unrelated_person",
        "{kind}「{kind_ja}」に、UPPLAN（サービス利用票）にいない利用者がいます（{where_ja}）",
        "{kind} names somebody who is not in the use slip UPPLAN ({where})",
        "利用者の選択を確かめ、全部を出力し直してください。",
        "Check which persons were selected and export the whole unit again.",
        Severity.WARN,
    ),
    # --- limits and the office ---------------------------------------------------------------------------------
    Row(
        "limit.size",
        "ファイルが大きすぎます（上限 {limit}）",
        "the file is too large (limit {limit})",
        "ファイルを分けて送ってください。",
        "Split the file.",
    ),
    Row(
        "limit.quota",
        "預けられる量の上限 {limit} に達しています",
        "the storage limit of {limit} is reached",
        "相手が取得するのを待つか、運営者に連絡してください。",
        "Wait until partners have collected, or call the operator.",
    ),
    Row(
        "limit.partials",
        "途中までの送信が上限の {limit} 件あります。続きを送るか、削除してください",
        "there are {limit} unfinished uploads; finish or remove them first",
        "send/ にある途中のファイルの続きを送るか、削除してください。1日たつと自動で消えます。",
        "Finish or remove the unfinished files in send/. They vanish by themselves after a day.",
    ),
    Row(
        "limit.rate",
        "送るのが速すぎます（1分に {limit} 件まで）。{seconds} 秒後にもう一度送ってください",
        "too many files at once (limit {limit} a minute); try again in {seconds} seconds",
        "少し待ってから、もう一度送ってください。送ったものはそのままで大丈夫です。",
        "Wait a little and try again. What was sent is safe.",
        permanent=False,
    ),
    Row(
        "limit.handles",
        "同時に開けるファイルは {limit} 個までです",
        "only {limit} files can be open at once",
        "開いているファイルを閉じてください。",
        "Close files that are open.",
        permanent=False,
    ),
    Row(
        "office.suspended",
        "事業所 {office} は現在、利用を停止しています",
        "office {office} is suspended",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.revoked",
        "この証明書は失効しています",
        "this certificate is no longer valid",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.expired",
        "この証明書は有効期限が切れています",
        "this certificate has expired",
        _CALL_JA,
        _CALL_EN,
    ),
    Row(
        "office.unconfirmed",
        "この証明書が失効していないことを、いま確認できません",
        "it cannot be confirmed at the moment that this certificate was not revoked",
        f"しばらくしてから、もう一度接続してください。続くときは、{_CALL_JA}",
        f"Connect again later. If it goes on: {_CALL_EN}",
        permanent=False,
    ),
    # --- certificates ------------------------------------------------------------------------------------------
    Row(
        "certificate.private_key",
        "これは秘密鍵です。受け取らずに捨てました",
        "this is a private key; it was not kept",
        "新しい鍵を作り、公開鍵（.pub のファイル）だけを入れてください。秘密鍵は誰にも渡さないでください。",
        "Make a new key and send only its public half (.pub). Never give a private key to anybody.",
    ),
    Row(
        "certificate.not_a_key",
        "公開鍵のファイルではありません（{why_ja}）",
        "this is no public key file ({why})",
        "鍵を作ったときにできた、.pub で終わるファイルを入れてください。",
        "Use the file ending in .pub that was made together with the key.",
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
        "運営者に、新しい招待コードをお求めください。",
        "Please ask the operator for a new invitation.",
    ),
    Row(
        "enrolment.used",
        "この招待コードは、もう使われています",
        "this invitation was used already",
        "使った覚えがないときは、すぐに運営者へお電話ください。ほかのパソコンの分は、新しい招待コードをお求めください。",
        "If it was not you, call the operator at once. For another computer ask for another invitation.",
    ),
    Row(
        "enrolment.cancelled",
        "この招待コードは、運営者が取り消しました",
        "this invitation was cancelled by the operator",
        "運営者に、新しい招待コードをお求めください。",
        "Please ask the operator for a new invitation.",
    ),
    Row(
        "enrolment.expired",
        "この招待コードの期限が過ぎています",
        "this invitation has expired",
        "運営者に、新しい招待コードをお求めください。",
        "Please ask the operator for a new invitation.",
    ),
    Row(
        "enrolment.unavailable",
        "いまは証明書を発行できません",
        "certificates cannot be issued at the moment",
        "運営者にお問い合わせください。招待コードは、まだ使えます。",
        "Please ask the operator; the invitation is still good.",
    ),
    Row(
        "certificate.weak_key",
        "この種類や長さの鍵は使えません（{kind}）",
        "keys of this kind or size are not accepted ({kind})",
        "ECDSA、Ed25519 か、2048ビット以上の RSA で鍵を作り直してください。",
        "Make an ECDSA or Ed25519 key, or an RSA key of 2048 bits or more.",
    ),
    Row(
        "certificate.used_key",
        "この鍵は前に使われています。新しい鍵が必要です",
        "this key was used before; a new one is needed",
        "新しい鍵を作り、その公開鍵（.pub のファイル）を入れてください。",
        "Make a new key and put its public half (.pub) here.",
    ),
    Row(
        "certificate.revoked_key",
        "この鍵は失効しています。使うことはできません",
        "this key was revoked and cannot be used again",
        "新しい鍵を作り、その公開鍵（.pub のファイル）を入れてください。",
        "Make a new key and put its public half (.pub) here.",
    ),
    Row(
        "certificate.too_many",
        "有効な証明書が上限の {limit} 枚あります",
        "the limit of {limit} valid certificates is reached",
        "使わなくなった証明書を、運営者の窓口に伝えて止めてもらってください。",
        "Tell the operator which certificates are no longer used.",
    ),
    Row(
        "certificate.not_issued_here",
        "証明書をここで更新することはできません",
        "certificates are not renewed here",
        "公開鍵（.pub のファイル）を運営者の窓口に送ってください。",
        "Send your public key (the .pub file) to the operator.",
    ),
    Row(
        "certificate.only_keys",
        "ここに入れられるのは公開鍵（.pub のファイル）だけです",
        "only public keys (.pub) can be put here",
        "送るファイルは send/ に、新しい公開鍵は certificate/ に入れてください。",
        "Put files to be sent into send/, and a new public key into certificate/.",
    ),
    Row(
        "certificate.in_use",
        "いま接続に使っている証明書は、ここで止められません",
        "the certificate that is in use cannot be given up",
        "新しい証明書で接続し直してから、古い証明書を削除してください。",
        "Log in with the new certificate first, then remove the old one.",
    ),
    Row(
        "certificate.not_replaced",
        "いまの証明書で置き換えたものだけを止められます",
        "only a certificate that the one in use has replaced can be given up",
        "ほかの証明書を止めるときは、運営者の窓口に電話してください。",
        "To stop any other certificate, call the operator.",
    ),
    # --- the tree ----------------------------------------------------------------------------------------------
    Row(
        "tree.not_found",
        "見つかりません",
        "no such file or folder",
        "名前とフォルダーを確かめてください。",
        "Check the name and the folder.",
        status=FX_NO_SUCH_FILE,
    ),
    Row(
        "tree.read_only",
        "ここには書き込めません。送るファイルは send/ に入れてください",
        "nothing can be written here; upload into send/",
        "送るファイルは send/ に入れてください。",
        "Put files to be sent into send/.",
    ),
    Row(
        "tree.is_directory",
        "フォルダーです。ファイル名を付けてください",
        "this is a folder; give a file name",
        "send/ の後にファイル名を付けてください。",
        "Add the file name after the folder.",
    ),
    Row(
        "tree.not_directory",
        "フォルダーではありません",
        "this is not a folder",
        "フォルダーの名前を指定してください。",
        "Give the name of a folder.",
    ),
    Row(
        "tree.no_rename",
        "ここでは名前の変更も移動もできません",
        "nothing can be renamed or moved here",
        "新しい名前で送り直してください。",
        "Send it again under the new name.",
    ),
    Row(
        "tree.no_directories",
        "フォルダーは作れません。send/<登録済みの事業所番号>/ はそのまま使えます",
        "folders cannot be made; send/<registered office>/ is simply there",
        "send/<宛先の事業所番号>/ に直接入れてください。",
        "Put files straight into send/<recipient's office number>/.",
    ),
    # --- the relay itself --------------------------------------------------------------------------------------
    Row(
        "server.busy",
        "ただいま混み合っています。何も受け付けていません",
        "busy at the moment; nothing was accepted",
        _LATER_JA,
        _LATER_EN,
        permanent=False,
    ),
    Row(
        "server.storage_full",
        "保存場所がいっぱいです。何も受け付けていません",
        "the relay's storage is full; nothing was accepted",
        "運営者が対応します。" + _LATER_JA,
        "The operator is informed. " + _LATER_EN,
        permanent=False,
    ),
    Row(
        "server.fault",
        "サーバーの不具合です。何も受け付けていません（受付 {reference}）",
        "a fault of the relay; nothing was accepted (reference {reference})",
        "もう一度送ってください。続くときは参照番号を窓口に伝えてください。",
        "Try again. If it stays, tell the help desk the reference.",
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
