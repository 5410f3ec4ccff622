"""Departures: what offices are told when one of them closes (廃止), changes its number (番号変更), or does not after all.

Three sides read three texts: the office itself, the one that follows it, and those that exchanged files with it lately.
Days are Japan's.  A text says what is so, from when and until when, and what to do; the operator's reason stays in history.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from relay.ledger.bulletin import Notice
from relay.model import Office, OfficeEnd, OfficeNumber
from relay.sheets import JAPAN

# Who comes back from a month's leave still reads it.
_TOLD_AFTER = timedelta(days=31)


def tell_closing(office: Office, end: OfficeEnd, partners: tuple[OfficeNumber, ...], now: datetime) -> list[Notice]:
    """Return the notices of a closing, for the office and for its partners."""
    facts = {"name": office.name, "number": office.number, "on": _day(end.at), "until": _last_day(end.until)}
    facts["is"] = "ました" if end.at <= now else "ます"
    over = max(end.until, now) + _TOLD_AFTER
    about = office.number
    return [
        Notice("事業所の廃止について", _CLOSING.format(**facts), now, over, about=about, audience=partners),
        Notice("この事業所の廃止について", _CLOSING_OWN.format(**facts), now, over, office=about, about=about),
    ]


def tell_moving(
    office: Office, successor: Office, end: OfficeEnd, partners: tuple[OfficeNumber, ...], now: datetime
) -> list[Notice]:
    """Return the notices of a new number, for both numbers of the office and for its partners."""
    facts = {
        "name": successor.name, "number": office.number, "new": successor.number,
        "on": _day(end.at), "until": _last_day(end.until), "is": "りました" if end.at <= now else "ります",
    }  # fmt: skip
    over, about = max(end.until, now) + _TOLD_AFTER, office.number
    others = tuple(partner for partner in partners if partner != successor.number)
    return [
        Notice("事業所番号の変更について", _MOVING.format(**facts), now, over, about=about, audience=others),
        Notice("この事業所番号の変更について", _MOVING_OWN.format(**facts), now, over, office=about, about=about),
        Notice(
            "旧番号あてのファイルについて", _MOVING_NEW.format(**facts), now, over, office=successor.number, about=about
        ),
    ]


def tell_reopening(office: Office, partners: tuple[OfficeNumber, ...], now: datetime) -> list[Notice]:
    """Return the notice that what was told is not so, for the office and for its partners."""
    text = _REOPENING.format(name=office.name, number=office.number)
    title, until = "廃止・番号変更の取り消しについて", now + _TOLD_AFTER
    return [
        Notice(title, text, now, until, about=office.number, audience=partners),
        Notice(title, text, now, until, office=office.number, about=office.number),
    ]


def _day(at: datetime) -> str:
    return f"{at.astimezone(JAPAN):%Y-%m-%d}"


def _last_day(until: datetime) -> str:
    """Return the last day before *until*, which is the first moment of what follows."""
    return _day(until - timedelta(seconds=1))


_CLOSING = """\
{name}（{number}）は、{on} に廃止され{is}。
{on} からは、この事業所へ送信できません。
{until} までに取得されなかったファイルは、送信元へお返しします。
これからの送り先は、その事業所や保険者に電話で確かめてください。"""
_CLOSING_OWN = """\
{name}（{number}）は、{on} に廃止され{is}。{on} からは送信できません。
届いているファイルは、{until} までに new/ からすべてダウンロードしてください。
{until} を過ぎると接続できなくなり、取得していないファイルは送信元へ返されます。
status/ と receipts/ の記録も、必要なものはそれまでにダウンロードしてください。"""
_MOVING = """\
{name} の事業所番号は、{on} から変わ{is}。
  これまでの番号  {number}
  新しい番号      {new}
介護ソフトに登録している番号を、新しい番号に直してください（変更前の月の分は、これまでの番号のままです）。
{until} までは、これまでの番号あてに送っても同じ事業所に届きます。その後は受け付けられません。"""
_MOVING_OWN = """\
この事業所の番号は、{on} に {number} から {new} へ変わ{is}。
新しい番号の証明書で接続してください。まだのときは、運営者の窓口に電話してください。
{until} までは、これまでの番号と証明書でも接続し、変更前の月の分などを送受信できます。
{number} あてに届いたファイルは、新しい番号で接続しても receive/ と new/ に見えます。"""
_MOVING_NEW = """\
{on} から、変更前の番号 {number} あてのファイルも、この事業所の receive/ と new/ に届きます。
ファイル名の宛先が {number} でも、誤送信ではありません。そのまま取得してください。
{number} で送ったファイルの状況も、status/ に出ます。"""
_REOPENING = """\
先にお知らせした {name}（{number}）の廃止または番号の変更は、取り消されました。
これまでどおり {number} あてに送信できます。"""
