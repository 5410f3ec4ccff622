"""Notices about certificates: what an office reads of an end to come, and of how to renew.

Written as the texts in `relay.welcome` are: for a clerk, Japanese first, plain, and saying what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.config import Config
from relay.welcome import JAPAN, as_text, tell_help

# So many days before its end a certificate is spoken of, each time anew.
LEVELS = (60, 30, 14, 7, 1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate whose end is near."""

    label: str
    serial: int
    valid_before: datetime
    is_in_use: bool

    def days_left(self, now: datetime) -> int:
        """Return for how many days it is good yet, the one that has begun included."""
        return math.ceil((self.valid_before - now) / _DAY)

    def announced_at(self, now: datetime) -> datetime:
        """Return since when its end is spoken of as it is now."""
        return self.valid_before - (level_of(self.valid_before, now) or 0) * _DAY


def level_of(valid_before: datetime, now: datetime) -> int | None:
    """Return which of `LEVELS` has been reached, None where the end is far, or past."""
    left = valid_before - now
    if left <= timedelta(0):
        return None
    return min((level for level in LEVELS if left <= level * _DAY), default=None)


def say_ending(ending: Ending, now: datetime, *, can_renew: bool) -> str:
    """Return the one line that is said at a login."""
    days, date = ending.days_left(now), f"{ending.valid_before.astimezone(JAPAN):%Y-%m-%d}"
    if can_renew:
        do_ja, do = (
            "新しい公開鍵（.pub）を certificate/ に入れてください",
            "put a new public key (.pub) into certificate/",
        )
    else:
        do_ja, do = "運営者に更新を依頼してください", "ask the operator for a new one"
    return (
        f"証明書の期限まであと{days}日です（{date}）。{do_ja} / "
        f"this certificate ends in {days} day{'' if days == 1 else 's'} ({date}): {do}"
    )


def render_ending(config: Config, endings: Sequence[Ending], now: datetime, *, can_renew: bool) -> bytes:
    """Return the notice of ends to come."""
    rows = sorted(endings, key=lambda ending: ending.valid_before)
    lines_ja = "\n".join(
        f"  {_date(one)}（あと{one.days_left(now)}日）  {one.label or '名称なし'}{'  ← この接続で使用中' if one.is_in_use else ''}"
        for one in rows
    )
    lines_en = "\n".join(
        f"  {_date(one)} ({one.days_left(now)} days)  {one.label or '-'}{'  <- in use now' if one.is_in_use else ''}"
        for one in rows
    )
    help_ja, help_en = tell_help(config)
    do_ja, do_en = (_RENEW_JA, _RENEW_EN) if can_renew else (_ASK_JA, _ASK_EN)
    return as_text(
        f"証明書の期限が近づいています。\n==============================\n\n{lines_ja}\n\n"
        f"期限を過ぎると接続できなくなります。\n\n{do_ja}\n\n{help_ja}\n\n"
        f"A certificate is about to end.\n==============================\n\n{lines_en}\n\n"
        f"After that day it opens no connection.\n\n{do_en}\n\n{help_en}\n"
    )


def render_guide(config: Config, *, can_renew: bool) -> bytes:
    """Return how a certificate is renewed."""
    help_ja, help_en = tell_help(config)
    do_ja, do_en = (_RENEW_JA, _RENEW_EN) if can_renew else (_ASK_JA, _ASK_EN)
    return as_text(
        f"証明書の更新のしかた\n====================\n\n{do_ja}\n\n{_FILES_JA}\n\n{help_ja}\n\n"
        f"How to renew a certificate\n==========================\n\n{do_en}\n\n{_FILES_EN}\n\n{help_en}\n"
    )


def _date(ending: Ending) -> str:
    return f"{ending.valid_before.astimezone(JAPAN):%Y-%m-%d %H:%M} JST"


_RENEW_JA = """\
  1. パソコンで新しい鍵を作ります。
       OpenSSH:  ssh-keygen -t ecdsa -f new
       PuTTYgen: ECDSA を選び Generate、Save public key で new.pub に保存
  2. 公開鍵 new.pub だけを certificate/ に入れます。
     秘密鍵（.pub の付かないファイルや .ppk）は、絶対に送らないでください。
  3. certificate/ にできた new-cert.pub をダウンロードします。
  4. 接続ソフトの設定を、新しい鍵と new-cert.pub に替えて、つなぎ直します。
  5. つながったら、certificate/ から古い証明書のファイルを削除できます。
     削除すると古い証明書は使えなくなります。残しても期限までそのまま使えます。"""
_RENEW_EN = """\
  1. Make a new key on your computer:
       OpenSSH:  ssh-keygen -t ecdsa -f new
       PuTTYgen: choose ECDSA, Generate, "Save public key" as new.pub
  2. Put the public key new.pub, and nothing else, into certificate/.
     Never send a private key (a file without .pub, or a .ppk).
  3. Download new-cert.pub from certificate/.
  4. Let your program use the new key with new-cert.pub, and connect again.
  5. You may then remove the old certificate's file from certificate/, which
     ends it. Left alone it stays good until its date."""
_ASK_JA = """\
  新しい鍵を作り、公開鍵（.pub のファイル）を運営者に送って、
  新しい証明書を受け取ってください。"""
_ASK_EN = """\
  Make a new key, send its public half (.pub) to the operator, and ask for
  a new certificate."""
_FILES_JA = """\
  certificate/ にあるもの
    …-cert.pub   いま有効な、この事業所の証明書
    known_hosts  サーバーを確かめるための行（OpenSSH 用）"""
_FILES_EN = """\
  In certificate/
    ...-cert.pub  the certificates of your office that are good now
    known_hosts   how OpenSSH recognises this server"""
