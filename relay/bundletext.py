"""The page in a bundle that a clerk reads first: which program takes which file, in a few steps.

Japanese, and a short English version below.  It says what was found out about the programs, also where the answer is
that something does not work.  No passphrase stands in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.config import Config
from relay.model import Office
from relay.offered import FOREVER
from relay.welcome import JAPAN, as_text, tell_help

PAGE_NAME = "はじめにお読みください.txt"


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands in the page beside the office; *host_keys* are fingerprints, *authority_files* names in the zip."""

    folder: str
    host: str
    port: int
    valid_before: datetime
    host_keys: Sequence[str]
    authority_files: Sequence[str]


def render_page(config: Config, office: Office, facts: Facts) -> bytes:
    """Return the page for *office*, as Notepad reads it."""
    help_ja, help_en = tell_help(config)
    told = {
        "number": office.number,
        "name": office.name,
        "folder": facts.folder,
        "host": facts.host,
        "port": facts.port,
        "authority": facts.authority_files[0],
        "host_keys": "\n".join(f"       {each}" for each in facts.host_keys),
    }
    others = list(enumerate(facts.authority_files[1:], start=2))
    until = None if facts.valid_before >= FOREVER else facts.valid_before.astimezone(JAPAN)
    return as_text(
        _PAGE_JA.format(
            **told,
            until=f"{until:%Y年%m月%d日}" if until else "なし",
            more_ja="".join(_MORE_JA.format(file=file, place=place) for place, file in others),
            help=help_ja,
        )
        + "\n\n"
        + _PAGE_EN.format(
            **told,
            until=f"{until:%Y-%m-%d}" if until else "no end",
            more_en="".join(_MORE_EN.format(file=file) for _, file in others),
            help=help_en,
        )
    )


# There are two while a new host CA takes the place of another.
_MORE_JA = """\
     {file} も、Name を careplan-relay-{place} にして、同じように追加します。
"""

_MORE_EN = """\
    {file} likewise, by another name
"""

_PAGE_JA = """\
はじめにお読みください
======================

  事業所:   {number}  {name}
  接続先:   {host}  （ポート番号 {port}）
  ユーザー名: {number}
  有効期限: {until}

  この一式は、この事業所がファイル連携サーバーにつなぐための鍵です。
  ほかの人に渡したり、メールで送ったりしないでください。
  合言葉（パスフレーズ）は、別に電話や書面でお伝えしています。この中には
  書いてありません。小文字と数字を、間の - も入れて、そのまま入力します。
  合言葉を入力しているあいだ、画面に文字が出ないことがあります。

■ はじめに（どのソフトでも同じ）

  1. エクスプローラーの上の欄に %USERPROFILE% と入力して Enter を押します。
     自分のフォルダーが開きます。
  2. zip の中の「{folder}」フォルダーを、そこへ移します。
     （フォルダーの名前は変えないでください。）
  3. 移したら、元の zip ファイルは削除してください。

■ どのソフトで、どのファイルを使うか

  WinSCP（6.0 以降。おすすめ） … winscp.ini と {number}.ppk
  PuTTY の psftp（0.78 以降）  … putty-host-ca.reg と {number}.ppk
  FileZilla                    … {number}.ppk（下の説明をお読みください）
  OpenSSH の sftp コマンド     … openssh フォルダーの中身

■ WinSCP

  1. WinSCP を開き、ログイン画面の「ツール」から「サイトのインポート」を
     選びます。
  2. 「インポート元」で「INI ファイル」（INI file）を選び、
     「{folder}」フォルダーの winscp.ini を開いて、「取り込み」を
     押します。
       この項目がないとき（6.4 より前）は、新しいサイトに次のとおり入力
       します。転送プロトコル SFTP、ホスト名 {host}、
       ポート番号 {port}、ユーザ名 {number}。「設定」→「SSH」→「認証」の
       「秘密鍵」に {number}.ppk を選び、「保存」を押します。
  3. 接続先が本物かどうかを WinSCP が確かめられるようにします。
     「ツール」→「環境設定」→「セキュリティ」の
     「Trusted host certification authorities」（信頼するホスト認証局）で
     「追加」（Add）を押し、次のとおり入力します。
       Name:        careplan-relay
       Public key:  「参照」（Browse）を押して {authority} を選びます
       Valid hosts: {host} && port:{port}
{more_ja}     画面の言葉は WinSCP の版によって少し違います。
  4. 取り込んだサイトでログインし、合言葉を入力します。

  WinSCP を初めて使うパソコンでは、1〜3 の代わりに、「ツール」→
  「設定のインポート/復元」で winscp.ini を開くこともできます。
  そのパソコンの WinSCP に今ある設定とサイトは、すべて消えますので
  ご注意ください。

■ PuTTY の psftp

  1. putty-host-ca.reg をダブルクリックし、「はい」を押します。
  2. 「{folder}」フォルダーを開き、上の欄に cmd と入力して
     Enter を押します。黒い画面に次の行を入力します。
       psftp -P {port} -i {number}.ppk {number}@{host}
     合言葉を聞かれたら入力します。

■ FileZilla

  FileZilla（3.63 で確かめました）は、鍵ファイルの中の証明書を使いません。
  サイトに鍵ファイルを指定しても、ログインできません。Pageant と一緒に
  使ってください。Pageant は PuTTY（0.78 以降）や WinSCP に付いています。
  1. Pageant を開き、「Add Key」で {number}.ppk を選び、合言葉を入力します。
     パソコンを起動するたびに行います。
  2. FileZilla のサイト マネージャーで、次のとおりにして接続します。
     プロトコル SFTP、ホスト {host}、ポート {port}、
     ログオン タイプ「インタラクティブ」、ユーザー {number}。
  3. 初めてのとき「不明なホスト鍵」と出ます。指紋（SHA256）が次のどれかと
     同じなら OK を押してください。違うときは接続しないで、お電話ください。
{host_keys}

■ OpenSSH の sftp コマンド

  「{folder}」の中の openssh フォルダーを開き、上の欄に cmd と
  入力して Enter を押します。黒い画面に次の行を入力します。
       sftp -F config relay
  合言葉を聞かれたら入力します。

■ つながったら

  README.txt に、ファイルの送り方と受け取り方が書いてあります。
  期限が近づくと「お知らせ.txt」が出ます。新しい一式を窓口に頼んでください。

■ すぐにお電話いただくこと

  この一式や合言葉を、なくした・人に見られた・間違った人に渡したとき。
  パソコンをなくした・捨てる・人に譲るとき。その鍵だけをすぐに止められます。

■ お問い合わせ

{help}
"""

_PAGE_EN = """\
Read me first
=============

  Office {number}  {name}
  Server {host}, port {port}; user name {number}; good until {until}

  This folder holds the key of this office. Give it to nobody else. The
  passphrase was told to you apart from it and stands nowhere in here.

  First move the folder {folder} into %USERPROFILE%
  and delete the zip.

  WinSCP 6.0 or newer: Tools > Import Sites > INI file > winscp.ini (6.4 or
    newer; before, type in the above and {number}.ppk as the private key).
    Preferences > Security > Trusted host certification authorities > Add:
    {authority}, valid for {host} && port:{port}
{more_en}    Instead, on a computer where WinSCP is new: Tools > Import/Restore
    Configuration > winscp.ini; all settings of that WinSCP are replaced.
  psftp of PuTTY 0.78 or newer: open putty-host-ca.reg, then in this folder
    psftp -P {port} -i {number}.ppk {number}@{host}
  FileZilla (3.63 was tried) does not use the certificate in a key file. Load
    {number}.ppk into Pageant (of PuTTY 0.78 or newer, or of WinSCP) and
    connect with logon type "Interactive". It asks about the host key once;
    these are right:
{host_keys}
  OpenSSH, in the folder openssh: sftp -F config relay

  Call at once when this folder, the passphrase or the computer is lost.

Help

{help}
"""
