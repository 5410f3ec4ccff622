"""Quick starts: the first steps of a clerk and of who writes software, in Japanese, as README.txt and README.md have them.

One text for both places; `tests/unit/test_quickstart.py` holds README.md to it.  No line is wider than 76 columns, since
Notepad does not wrap.
"""

from __future__ import annotations

FOR_CLERKS = """\
■ はじめての方へ（事務の方の手順）

  1. つなぐ      WinSCP などで、このサーバーにつなぎます。つなぎ方は、招待
                 コードか設定一式と一緒に届いたご案内のとおりです。
  2. 送る        介護ソフトが出力したファイルを、名前を変えずに send に移し
                 ます。宛先はファイル名で決まります。
  3. 確かめる    status の sent.csv を開きます。載っていれば、送信は済んで
                 います。相手が受け取ると「相手が取得済み」に変わります。
  4. 受け取る    new のファイルを、自分のパソコンに移します。コピーでもかま
                 いません。最後まで読むと、new からなくなります。
  5. 間違えたら  send から recall に移します。相手が受け取る前なら、取り消せ
                 ます。
  6. 断られたら  「（ファイル名）.refused.txt」が send にできます。開いて、
                 書いてあるとおりに直し、もう一度送ります。
  7. ときどき    お知らせ.txt と 証明書の期限.txt があれば、開いて読みます。
"""

FOR_VENDORS = """\
■ 介護ソフトを開発する方へ

  接続  SFTP（バージョン3）です。ユーザー名は事業所番号、認証は OpenSSH の
        証明書だけで、パスワードはありません。
  送信  send/ に、規格どおりの名前で書きます。CLOSE に OK が返れば保存は済ん
        でいて、手元のファイルを消してもかまいません。途中の名前（NAME.part
        や NAME.tmp）で書いたときは、RENAME への OK がそれに当たります。
        返事を受け取れなかったら、同じものをもう一度送ります。同じ名前で
        同じ内容なら、二重には届きません。
  失敗  エラーの文は「コード: 日本語 / 英語」です。server. と limit.rate は
        時間をおいて同じものを、ほかは直してから送ります。エラーの文が取れ
        ないライブラリーでは、status/refused.json を読みます。
  確認  status/sent.json に、送ったものの name、sha256、state があります。
  受信  new/ を1分から10分おきに見て、ファイルを最後まで読み、CLOSE します。
        保存できたら、receive/NAME を done/NAME に RENAME します。途中までし
        か読まなかったものは、new/ に残ります。
  更新  証明書が終わる前に、新しい公開鍵を certificate/ に書き、同じ場所から
        新しい証明書を読みます。期限は status/certificate.json にあります。
  試験  ./scripts/demo で、手元にサーバーが立ちます。relay check は、送る前
        のファイルをサーバーと同じ基準で調べます。relay standard make が
        見本を作ります。
  手本  scripts/ の bulk_transfer.py（Python）、sync-openssh.sh（sh だけ）、
        sync-windows.ps1（PowerShell）、winscp-sync.txt（WinSCP）です。
"""
