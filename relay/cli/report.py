"""``relay report``: the page of a month for an inspection (運営指導): what one office sent and was sent, and when.

As text, or as HTML that prints on paper; in Japanese, because that is who reads it.  Each row has the number under
which the office finds the signed receipts in its ``receipts/``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.installation import HomeOption, find_office, open_installation, run
from relay.cli.terminal import CommandRefused, say
from relay.lifecycle import State
from relay.model import EventKind, Office, OfficeNumber, Refusal, Transfer

if TYPE_CHECKING:
    from relay.cli.installation import Installation

_JAPAN = timezone(timedelta(hours=9))
_MONTH = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
_STATES: Mapping[State, str] = {
    State.ACCEPTED: "未取得",
    State.COLLECTED: "取得済み",
    State.DESTROYED: "取得済み（保管終了）",
    State.RECALLED: "送信元が取消",
    State.RETURNED: "運営者が送信元へ返却",
    State.SUPERSEDED: "送り直しで差し替え",
    State.DISCARDED: "未取得のまま削除",
    State.EXPIRED: "期限切れ（未取得）",
}
_STYLE = """
body { font-family: "Noto Sans CJK JP", "Yu Gothic", Meiryo, sans-serif; font-size: 10pt; margin: 12mm; }
h1 { font-size: 15pt; } h2 { font-size: 12pt; margin-top: 8mm; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 0.3pt solid #888; padding: 1mm 1.5mm; text-align: left; vertical-align: top; }
th { background: #eee; } td.number { text-align: right; } .digest { font: 7pt monospace; color: #444; }
tr { break-inside: avoid; } thead { display: table-header-group; } @page { size: A4 landscape; margin: 10mm; }
"""


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    at: str
    partner: str
    name: str
    size: str
    result: str
    collected: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Report:
    """Everything that stands on the page."""

    office: Office
    month: str
    made: str
    sent: list[_Line]
    received: list[_Line]
    refused: list[tuple[str, str, str, str]]

    @property
    def title(self) -> str:
        return f"送受信の記録　{self.month[:4]}年{int(self.month[5:])}月"


def report(
    office: Annotated[str, typer.Argument(metavar="OFFICE", help="Whose month.")],
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, in Japan.")],
    *,
    as_html: Annotated[bool, typer.Option("--html", help="For printing, instead of text.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, metavar="FILE", help="Write it there.")
    ] = None,
    reveal: Annotated[
        bool, typer.Option(help="Show the names of files that may name a person; it is recorded that you did.")
    ] = False,
    home: HomeOption = Path(),
) -> None:
    """Print what an office sent and was sent in a month, for an inspection."""
    if _MONTH.fullmatch(month) is None:
        raise CommandRefused(f"{month!r} is no month: write 2026-11")
    made = run(_gather(home, office, month, reveal=reveal))
    text = _render_html(made) if as_html else _render_text(made)
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    say(f"{output}: {len(made.sent):,} sent, {len(made.received):,} received, {len(made.refused):,} refused")


async def _gather(home: Path, number: str, month: str, *, reveal: bool) -> _Report:
    from relay.receipttext import span_of

    async with open_installation(home) as relay:
        office = await find_office(relay.ledger, number)
        since, until = span_of(month)
        numbers = await relay.ledger.list_receipted(office.number, since=since, until=until)
        found = [transfer for each in numbers if (transfer := await relay.ledger.find_transfer(each)) is not None]
        refusals = await relay.ledger.list_refusals(office.number, since=since)
        if reveal:
            await _record_revealing(relay, office.number, month)
        names = await _partners(relay, office.number, found)
        return _Report(
            office,
            month,
            _time(relay.now),
            [_line(each, each.recipient, names, reveal=reveal) for each in found if each.sender == office.number],
            [_line(each, each.sender, names, reveal=reveal) for each in found if each.recipient == office.number],
            [_refused(each, reveal=reveal) for each in refusals if since <= each.first_at < until],
        )


async def _record_revealing(relay: Installation, office: OfficeNumber, month: str) -> None:
    detail = f"report {office} {month}"
    await relay.ledger.record_event(EventKind.NAMES_REVEALED, actor=relay.actor, detail=detail, now=relay.now)


async def _partners(
    relay: Installation, office: OfficeNumber, transfers: Iterable[Transfer]
) -> Mapping[OfficeNumber, str]:
    numbers = {number for each in transfers for number in (each.sender, each.recipient)} - {office}
    known = {number: await relay.ledger.find_office(number) for number in numbers}
    return {number: one.name if one else "" for number, one in known.items()}


def _line(transfer: Transfer, partner: OfficeNumber, names: Mapping[OfficeNumber, str], *, reveal: bool) -> _Line:
    return _Line(
        transfer.id,
        _time(transfer.accepted_at),
        f"{partner} {names.get(partner, '')}".strip(),
        transfer.name if reveal else transfer.public_name,
        f"{transfer.size_bytes:,}",
        _STATES[transfer.state] + ("（誤送信の連絡あり）" if transfer.reported_at else ""),
        _time(transfer.collected_at or transfer.ended_at),
        transfer.sha256.hex(),
    )


def _refused(refusal: Refusal, *, reveal: bool) -> tuple[str, str, str, str]:
    extension = refusal.name.rpartition(".")[2].lower() if "." in refusal.name else ""
    name = refusal.name if reveal else f"*.{extension}" if extension.isalnum() else "*"
    return (
        _time(refusal.first_at),
        f"{refusal.count}回",
        name,
        f"{refusal.finding.message_ja}（{refusal.finding.code}）",
    )


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(_JAPAN):%Y-%m-%d %H:%M:%S}"


def _render_text(made: _Report) -> str:
    lines = [
        made.title,
        "=" * 60,
        f"事業所　　{made.office.number}　{made.office.name}",
        f"作成日時　{made.made}（日本時間）",
    ]
    for heading, rows in (("送信", made.sent), ("受信", made.received)):
        lines += ["", f"■ {heading}（{len(rows)}件）", ""]
        for row in rows:
            lines += [
                f"{row.at}　受付番号 {row.number}　{row.result} {row.collected}".rstrip(),
                f"    相手　　 {row.partner}",
                f"    ファイル {row.name}（{row.size} バイト）",
                f"    SHA-256  {row.digest}",
            ]
    lines += ["", f"■ 受け付けられなかったもの（{len(made.refused)}件）", ""]
    lines += [f"{at}　{count}　{name}\n    {why}" for at, count, name, why in made.refused]
    return "\n".join([*lines, "", *_closing(made), ""])


def _closing(made: _Report) -> tuple[str, ...]:
    return (
        f"受付番号ごとの署名付きの証明書類は、事業所の receipts/{made.month}/ にあります。",
        "SHA-256 が同じファイルは、そのとき送受信されたファイルと同じ内容です。",
    )


def _render_html(made: _Report) -> str:
    def table(heading: str, at: str, partner: str, rows: list[_Line]) -> str:
        head = "".join(
            f"<th>{word}</th>" for word in ("受付番号", at, partner, "ファイル名", "サイズ", "結果", "取得・終了日時")
        )
        body = "".join(
            f'<tr><td class="number">{row.number}</td><td>{row.at}</td><td>{html.escape(row.partner)}</td>'
            f'<td>{html.escape(row.name)}<br><span class="digest">{row.digest}</span></td>'
            f'<td class="number">{row.size}</td><td>{row.result}</td><td>{row.collected}</td></tr>\n'
            for row in rows
        )
        return f"<h2>{heading}（{len(rows)}件）</h2>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"

    refused = "".join(
        f"<tr><td>{at}</td><td>{count}</td><td>{html.escape(name)}</td><td>{html.escape(why)}</td></tr>\n"
        for at, count, name, why in made.refused
    )
    closing = "".join(f"<p>{html.escape(line)}</p>\n" for line in _closing(made))
    return (
        f'<!DOCTYPE html>\n<html lang="ja"><head><meta charset="utf-8"><title>{made.title}</title><style>{_STYLE}</style>'
        f"</head>\n<body><h1>{made.title}</h1>\n"
        f"<p>事業所　{made.office.number}　{html.escape(made.office.name)}<br>作成日時　{made.made}（日本時間）</p>\n"
        + table("送信", "送信日時", "宛先", made.sent)
        + table("受信", "受信日時", "送信元", made.received)
        + f"<h2>受け付けられなかったもの（{len(made.refused)}件）</h2>\n<table><thead><tr><th>日時</th><th>回数</th>"
        f"<th>ファイル名</th><th>理由</th></tr></thead>\n<tbody>{refused}</tbody></table>\n{closing}</body></html>\n"
    )
