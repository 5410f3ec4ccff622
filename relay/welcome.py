"""Welcome: the texts that meet whoever looks into the tree for the first time.

Written for a clerk in an office, who has a file to send and a mouse: Japanese first, then English, in words that ask
for no knowledge of SFTP.  Notepad reads them: UTF-8 with a byte order mark, CRLF.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta, timezone

from relay.config import Config, OperatorSettings, describe_size
from relay.model import Office, OfficeStatus, Refusal
from relay.quickstart import FOR_CLERKS, FOR_VENDORS

# Fixed, since Japan has no summer time and a small machine no table of zones.
JAPAN = timezone(timedelta(hours=9))


def render_readme(config: Config, office: Office) -> bytes:
    """Return README.txt as *office* sees it."""
    size = describe_size(config.limits.upload_bytes)
    extensions = " ".join(config.names.extensions)
    facts = {"number": office.number, "name": office.name, "size": size, "extensions": extensions}
    help_ja, help_en = tell_help(config)
    starts = {"clerks": FOR_CLERKS, "vendors": FOR_VENDORS}
    return as_text(
        _README_JA.format(**facts, **starts, help=help_ja) + "\n\n" + _README_EN.format(**facts, help=help_en)
    )


def render_refusal_note(config: Config, refusal: Refusal) -> bytes:
    """Return the note beside a refused file in ``send/``: what happened, why, and what to do."""
    told = refusal.finding
    at = f"{refusal.last_at.astimezone(JAPAN):%Y-%m-%d %H:%M} JST"
    help_ja, help_en = tell_help(config)
    return as_text(
        _NOTE_JA.format(name=refusal.name, at=at, count=refusal.count, code=told.code, why=told.message_ja,
                        remedy=told.row.remedy_ja, help=help_ja)
        + "\n\n"
        + _NOTE_EN.format(name=refusal.name, at=at, count=refusal.count, code=told.code, why=told.message_en,
                          remedy=told.row.remedy_en, help=help_en)
    )  # fmt: skip


def render_folder_notice(office: Office) -> bytes:
    """Return the notice in ``send/<office>/`` that says whose folder it is."""
    place = f"（{office.prefecture}）" if office.prefecture else ""
    new = office.end.successor if office.status is OfficeStatus.MOVED and office.end else None
    moved_ja = f"この番号は変わりました。次からは新しい番号 {new} あてに送ってください。\n\n" if new else ""
    moved_en = f"This number was changed: from now on use {new}.\n" if new else ""
    return as_text(
        f"このフォルダーに入れたファイルは、次の事業所に届きます。\n\n  {office.number}  {office.name}{place}\n\n"
        f"{moved_ja}違う事業所のときは、ここに入れないでください。\n\n"
        f"Files put into this folder go to office {office.number} ({office.name}).\n"
        f"{moved_en}If that is not the office you mean, do not put anything here.\n"
    )


def tell_help(config: Config) -> tuple[str, str]:
    """Return whom to call, in Japanese and in English."""
    return (
        _tell_operator(config.operator, ("窓口", "電話", "受付時間"), "運営者にお問い合わせください。"),
        _tell_operator(config.operator, ("Help desk", "Telephone", "Hours"), "Please ask the operator."),
    )


def _tell_operator(operator: OperatorSettings, labels: Sequence[str], otherwise: str) -> str:
    facts = (operator.name, operator.telephone, operator.hours)
    lines = [f"  {label}: {fact}" for label, fact in zip(labels, facts, strict=True) if fact]
    return "\n".join(lines) or f"  {otherwise}"


def as_text(text: str) -> bytes:
    """Return *text* as Notepad reads it."""
    return ("\ufeff" + text.replace("\n", "\r\n")).encode()


_NOTE_JA = """\
このファイルは受け付けられませんでした。相手に届いていません。
==============================================================

  ファイル: {name}
  日時:     {at}（{count}回）
  理由:     {why}
  対処:     {remedy}
  コード:   {code}

  この案内は、同じ名前のファイルが受け付けられると消えます。
  削除してもかまいません。1週間たっても消えます。

■ お問い合わせ

{help}
"""

_NOTE_EN = """\
This file was not accepted. It has not reached anybody.
=======================================================

  File:       {name}
  Time:       {at} ({count} times)
  Why:        {why}
  What to do: {remedy}
  Code:       {code}

  This note vanishes when a file of that name is accepted, when you remove
  it, or after a week.

Help

{help}
"""

_README_JA = """\
ファイル連携サーバーのご案内
============================

  ログイン中の事業所: {number}  {name}

{clerks}
■ フォルダー

  send/     送るファイルをここに入れます。宛先はファイル名で決まります。
            入れたファイルは、相手が取得する（最後までダウンロードする）
            まで一覧に残ります。
  recall/   send/ のファイルをここへ移すと、送信を取り消します。
  receive/  届いたファイルの一覧です。
  new/      届いたファイルのうち、まだ取得していないものです。
  done/     receive/ や new/ から削除したファイルです。まだ読めます。
  certificate/ 証明書の更新に使います。新しい公開鍵（.pub）を入れると、
            新しい証明書がここにできます。
  status/   送受信の状況です。.csv は表計算ソフトで開けます（直近93日分）。
              sent      送ったもの          received  届いたもの
                        「注意」があるときは「対処」の列もお読みください。
                        直して送り直すと、新しいほうが最新になります。
              units     一緒に送るファイルの不足と、利用者ごとの最新のもの
              refused   受け付けられなかったもの
              offices   送ることができる事業所
              certificate  この事業所の証明書
            それより前の分は、月ごとのフォルダー（例 2026-01）にあります。
  receipts/ 受付や取得の証明書類です（月ごと）。運営指導のときなどに使えます。

■ 送り方

  1. 介護ソフトが出力したファイルは、名前を変えずに send/ に入れてください。
       例  UPPLAN_202607_0178515854_43_0178529384_11_20260622084203.CSV
           種類_年月_送信元_サービス種類_宛先_サービス種類_日時
  2. そのほかのファイルは、次の形の名前にして send/ に入れてください。
       例  REPORT_0178515854_0178529384_20260622095709.pdf
           見出し_送信元の事業所番号_宛先の事業所番号_年月日時分秒.拡張子
  3. 名前を変えたくないときは send/<宛先の事業所番号>/ に入れてください。
       例  send/0178529384/提供票.pdf
     フォルダーを作る必要はありません。番号をそのまま入力すると開きます。
     相手には、送信元の番号と受付日時が名前の前に付いて届きます。

  送信元は、必ずログイン中の事業所 {number} です。
  事業所番号は10桁です。先頭の 0 も省かないでください。
  大きさは1つ {size} まで、拡張子は次のものです。
    {extensions}

■ 取り消し方

  send/ のファイルを recall/ へ移してください（ドラッグか名前の変更）。
  相手の一覧からすぐに消え、status/ に「取消済み」と出ます。
  相手が取得した後は取り消せません。そのときは取得された日時が出ます。
  send/ で削除しても、送信は取り消されません。
  取り消したファイルは recall/ の一覧に1週間残りますが、中身は残りません。
  運営者がお返ししたファイルは、1週間 recall/ からダウンロードできます。

■ 受け取り方

  new/ か receive/ のファイルを、最後までダウンロードしてください。
  読み終えたファイルは、削除すると done/ に移ります。
  まだ読んでいないファイルは削除できないことがあります。

■ 受け付けられなかったとき

  画面に理由が出ます。同じ文が status/refused.csv に残り、send/ の
  そのファイルの横に「（ファイル名）.refused.txt」という案内が出ます。
  そのファイルは相手に届いていません。理由を直して、もう一度送ってください。

  name.     ファイル名が決まりの形でないか、送信元の番号が違います。
            名前を自分で直さず、介護ソフトから出力し直してください。
  route.    宛先が登録されていないか、停止しています。番号を確かめてください。
  upload.   送信が途中で切れたようです。もう一度送ってください。
  content.  中身が空か、途中で切れているか、決まりと違います。介護ソフトから
            出力し直し、同じときは介護ソフトの窓口にお尋ねください。
  transfer. 同じ名前のファイルを先に受け付けています。介護ソフトから
            出力し直すと、別の名前になって送れます。
  limit.    大きすぎるか、続けて送りすぎか、預けている量が上限です。
  office.   事業所か証明書が利用できません。窓口にお電話ください。
  certificate. 公開鍵が使えません。画面の文のとおりにしてください。
  server.   サーバー側の都合です。しばらくしてから、もう一度送ってください。

{vendors}
■ お問い合わせ

{help}
"""

_README_EN = """\
How to use this file relay
==========================

  You are logged in as office {number}  {name}

Folders

  send/     Put files to be sent here. The file's name says who receives it.
            A file stays listed until the recipient has collected it.
  recall/   Move a file from send/ to here to take it back.
  receive/  What was sent to you.
  new/      The part of it that you have not collected yet.
  done/     What you removed from receive/ or new/. It can still be read.
  certificate/ Renewal: put a new public key (.pub) here and fetch the new
            certificate (-cert.pub).
  status/   What became of your files in the last 93 days: sent, received,
            units (what is missing, which plan is the latest of whom),
            refused, offices you can send to, your certificates. The .csv
            files open in a spreadsheet; programs read the .json files.
            What was before is in a folder for each month, such as 2026-01.
  receipts/ Signed receipts of what was accepted and collected, a folder a
            month, for showing to whoever asks.

Sending

  1. Put files that your care software exported into send/ and keep their
     names:
       UPPLAN_202607_0178515854_43_0178529384_11_20260622084203.CSV
       kind_month_sender_service type_recipient_service type_date and time
  2. Give any other file a name of this form and put it into send/:
       REPORT_0178515854_0178529384_20260622095709.pdf
       label_sender_recipient_year month day hour minute second.extension
  3. To keep a name as it is, put the file into
     send/<office number of the recipient>/. There is no need to make that
     folder. The recipient sees your number and the time before the name.

  The sender is always the office that is logged in: {number}.
  An office number has ten characters; do not leave out a leading zero.
  A file may have up to {size}, and one of these extensions:
    {extensions}

Taking back

  Move the file from send/ into recall/ (drag it there, or rename it). It
  vanishes from the recipient's folders at once. After the recipient has
  collected it, the move is refused and says when that was. Removing a file
  from send/ never takes it back. recall/ lists what you took back for a
  week; the content is gone. What the operator gave back to you can be
  downloaded from there for a week.

Receiving

  Download files from new/ or receive/ to their end. Removing a file that
  you have read moves it to done/. One that you have not read may not be
  removable.

When a file is refused

  Your program shows the reason; status/refused.csv keeps it, and a note
  called <file name>.refused.txt lies in send/. The file did not reach
  anybody. Mend the reason and send it again.

  name.     The name breaks the rules or names another sender. Export the
            file again rather than renaming it by hand.
  route.    The recipient is unknown or suspended. Check the number.
  upload.   The upload looks cut off. Send it again.
  content.  The file is empty, cut off or not as it should be. Export it
            again; if that does not help, ask your software's help desk.
  transfer. A file of this name was accepted before. What your software
            exports again has another name and can be sent.
  limit.    The file is too large, too many were sent at once, or too much
            is stored already.
  office.   The office or its certificate cannot be used. Please call.
  certificate. The public key cannot be used; the sentence says why.
  server.   The fault is ours. Try again in a little while.

Help

{help}
"""
