"""News: what stands in an office's お知らせ.txt; without news there is none.

Three sorts: what the operator tells, newest first; files that he holds, gave back or noted as misdirected
(`relay.incidents`); and files that wait and will expire, of which a notice was given (`relay.housekeeping`).  Both
offices of such a file read of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from relay.config import Config
from relay.incidents import tell_incident
from relay.ledger import Ledger
from relay.ledger.bulletin import Notice
from relay.ledger.intervening import Incident
from relay.model import OfficeNumber, Transfer
from relay.welcome import JAPAN, as_text, tell_help

# What does not fit a page that somebody reads is in status/.
_FILES_MOST = 50
# So long what was done to a file is news; one that is held is as long as it is.
_INCIDENTS_SHOWN = timedelta(days=31)


class NewsDesk:
    """Answers for お知らせ.txt; keeps nothing."""

    def __init__(self, ledger: Ledger, config: Config) -> None:
        self._ledger = ledger
        self._config = config

    async def render(self, office: OfficeNumber, *, now: datetime) -> tuple[bytes, datetime] | None:
        """Return the page, and since when it is so; None where there is nothing to tell.

        Files that wait are told anew every day, because of the days that are left.
        """
        notices = await self._ledger.list_notices_for(office, now=now)
        own = (office, *await self._ledger.list_former(office))
        waiting: list[Transfer] = []
        incidents: list[Incident] = []
        for number in own:
            if self._config.housekeeping.uncollected_days > 0 and await self._ledger.has_noticed(number):
                waiting += await self._ledger.list_noticed(number, limit=_FILES_MOST + 1)
            incidents += await self._ledger.list_incidents(number, since=now - _INCIDENTS_SHOWN)
        if not notices and not waiting and not incidents:
            return None
        kept = timedelta(days=self._config.housekeeping.uncollected_days)
        today = now.astimezone(JAPAN).replace(hour=0, minute=0, second=0, microsecond=0)
        times = [*(notice.from_at for notice in notices), *(incident.at for incident in incidents)]
        changed = max(times + ([today] if waiting else []))
        return render_news(self._config, own, notices, incidents, waiting, kept=kept, now=now), changed


def render_news(
    config: Config,
    own: Sequence[OfficeNumber],
    notices: Sequence[Notice],
    incidents: Sequence[Incident],
    waiting: Sequence[Transfer],
    *,
    kept: timedelta,
    now: datetime,
) -> bytes:
    """Return the page: Japanese, with a line of English where it is about files; *own* are the numbers of the office."""
    parts = ["お知らせ\n========"]
    parts += [_say_notice(notice) for notice in notices]
    parts += [_say_incident(incident, own) for incident in incidents[:_FILES_MOST]]
    received = [one for one in waiting if one.recipient in own]
    sent = [one for one in waiting if one.sender in own]
    if received:
        parts.append(
            _say_files(_TO_FETCH, received, kept, now, lambda one: f"送信元 {one.sender}  {one.delivered_name}")
        )
    if sent:
        parts.append(_say_files(_NOT_FETCHED, sent, kept, now, lambda one: f"宛先 {one.recipient}  {one.name}"))
    help_ja, _help_en = tell_help(config)
    parts.append(f"■ お問い合わせ\n\n{help_ja}")
    return as_text("\n\n".join(parts) + "\n")


def _say_notice(notice: Notice) -> str:
    title = f"{notice.from_at.astimezone(JAPAN):%Y-%m-%d}  {notice.title}".rstrip()
    lines = "\n".join(f"  {line}".rstrip() for line in notice.text.strip().splitlines())
    return f"■ {title}\n\n{lines}"


def _say_incident(incident: Incident, own: Sequence[OfficeNumber]) -> str:
    file = incident.transfer
    is_sent = file.sender in own
    words = tell_incident(incident, file.sender if is_sent else file.recipient)
    name = f"宛先 {file.recipient}  {file.name}" if is_sent else f"送信元 {file.sender}  {file.delivered_name}"
    advice = words.advice.replace("。", "。\n  ").rstrip()
    return (
        f"■ {incident.at.astimezone(JAPAN):%Y-%m-%d}  {words.title}\n\n  受付番号 {file.id}  {_one_line(name)}\n"
        f"  理由: {_one_line(incident.reason)}\n\n  {advice}\n  {words.en}"
    )


def _say_files(
    words: str, files: Sequence[Transfer], kept: timedelta, now: datetime, say: Callable[[Transfer], str]
) -> str:
    lines = [
        f"  {one.accepted_at.astimezone(JAPAN) + kept:%Y-%m-%d}（あと{max(0, (one.accepted_at + kept - now).days)}日）  "
        f"受付番号 {one.id}  {_one_line(say(one))}"
        for one in files[:_FILES_MOST]
    ]
    if len(files) > _FILES_MOST:
        lines.append("  ほかにもあります。status/ の一覧をご覧ください。")
    return words + "\n\n" + "\n".join(lines)


def _one_line(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)


_TO_FETCH = """\
■ 取得されていないファイルがあります

  次の日を過ぎると保管を終え、取得できなくなります。
  new/ から、最後までダウンロードしてください。
  These files wait in new/ and will be removed on the day shown."""
_NOT_FETCHED = """\
■ 相手が取得していないファイルがあります

  次の日を過ぎると保管を終えます。相手に電話などでご連絡ください。
  要らなくなったファイルは recall/ へ移すと取り消せます。
  These files were not collected; on the day shown they will be removed."""
