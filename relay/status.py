"""Status: what the ledger knows, as files that an office can open.

Every table comes twice.  The ``.csv`` is for people: Japanese headings and words, Japan time, a byte order mark so
that a spreadsheet reads it as UTF-8, and no cell that a spreadsheet would run.  The ``.json`` is for programs: codes,
UTC, and every name exactly as it is.  The same facts make the same bytes, so that a program which mirrors the folder
fetches nothing anew.

An office sees its own transfers, refusals and certificates of the last 93 days, and of other offices what
``offices_shown`` allows.  Nothing is written here and nothing is decided; what is shown is read from the ledger.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Generic, TypeVar

from relay.config import Config
from relay.errors import Finding
from relay.ledger import Ledger
from relay.lifecycle import State
from relay.model import Certificate, Identity, Office, OfficeNumber, OfficeStatus, Refusal, Transfer
from relay.welcome import render_folder_notice, render_readme

__all__ = [
    "StatusDesk",
    "render_certificates",
    "render_folder_notice",
    "render_offices",
    "render_readme",
    "render_received",
    "render_refused",
    "render_sent",
]

# A quarter and the days by which its bills are late.
SHOWN_DAYS = 93
# Fixed, since Japan has no summer time and a small machine no table of zones.
_JAPAN = timezone(timedelta(hours=9), "JST")
# Begin a formula in one spreadsheet or another; the full-width ones do in Japanese ones.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_TOPICS = ("sent", "received", "refused", "offices", "certificate")
# Rows that are rendered before others get their turn: some milliseconds of work.
_PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Told:
    """A word of ours: *code* for programs, *ja* for people."""

    code: str
    ja: str


Cell = str | int | bool | datetime | Told | tuple[str, ...] | tuple[Finding, ...] | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Column(Generic[T]):
    """A column: its name in JSON, its heading in CSV, and what stands in it."""

    key: str
    heading: str
    cell: Callable[[T], Cell]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A transfer and what the office at its other end is called."""

    transfer: Transfer
    partner: str


@dataclass(frozen=True, slots=True)
class Pass:
    """A certificate as its office sees it at a certain time."""

    certificate: Certificate
    is_in_use: bool
    now: datetime

    @property
    def standing(self) -> Told:
        """Whether it lets anybody in."""
        if self.certificate.revoked_at is not None:
            return Told("revoked", "失効")
        if self.now >= self.certificate.valid_before:
            return Told("expired", "期限切れ")
        return Told("valid", "有効") if self.now >= self.certificate.valid_after else Told("not_yet_valid", "開始前")

    @property
    def days_left(self) -> int:
        """How many whole days it will still let somebody in."""
        is_valid = self.standing.code in ("valid", "not_yet_valid")
        return (self.certificate.valid_before - self.now).days if is_valid else 0


_TO_SENDER: Mapping[State, str] = {
    State.ACCEPTED: "相手は未取得",
    State.COLLECTED: "相手が取得済み",
    State.RECALLED: "取消済み",
    State.EXPIRED: "期限切れ（相手は未取得）",
    State.DISCARDED: "相手が未取得のまま削除",
    State.SUPERSEDED: "送り直しで差し替え済み",
    State.DESTROYED: "相手が取得済み（保管終了）",
}
_TO_RECIPIENT: Mapping[State, str] = {
    State.ACCEPTED: "未取得",
    State.COLLECTED: "取得済み",
    State.RECALLED: "送信元が取消",
    State.EXPIRED: "期限切れ（未取得）",
    State.DISCARDED: "未取得のまま削除",
    State.SUPERSEDED: "送信元が送り直し",
    State.DESTROYED: "取得済み（保管終了）",
}

_SENT: Sequence[_Column[Exchange]] = (
    _Column("number", "受付番号", lambda row: row.transfer.id),
    _Column("accepted_at", "受付日時", lambda row: row.transfer.accepted_at),
    _Column("recipient", "宛先の事業所番号", lambda row: row.transfer.recipient),
    _Column("recipient_name", "宛先の事業所名", lambda row: row.partner),
    _Column("name", "ファイル名", lambda row: row.transfer.name),
    _Column("kind", "種類", lambda row: row.transfer.kind),
    _Column("size_bytes", "サイズ（バイト）", lambda row: row.transfer.size_bytes),
    _Column("state", "状態", lambda row: Told(row.transfer.state, _TO_SENDER[row.transfer.state])),
    _Column("collected_at", "相手の取得日時", lambda row: row.transfer.collected_at),
    _Column("ended_at", "終了日時", lambda row: row.transfer.ended_at),
    _Column("warnings", "注意", lambda row: row.transfer.findings),
    _Column("sha256", "SHA-256", lambda row: row.transfer.sha256.hex()),
)
_RECEIVED: Sequence[_Column[Exchange]] = (
    _Column("number", "受付番号", lambda row: row.transfer.id),
    _Column("accepted_at", "受付日時", lambda row: row.transfer.accepted_at),
    _Column("sender", "送信元の事業所番号", lambda row: row.transfer.sender),
    _Column("sender_name", "送信元の事業所名", lambda row: row.partner),
    _Column("name", "ファイル名", lambda row: row.transfer.delivered_name),
    _Column("kind", "種類", lambda row: row.transfer.kind),
    _Column("size_bytes", "サイズ（バイト）", lambda row: row.transfer.size_bytes),
    _Column("state", "状態", lambda row: Told(row.transfer.state, _TO_RECIPIENT[row.transfer.state])),
    _Column("is_removed", "done/ へ移動", lambda row: row.transfer.is_removed),
    _Column("collected_at", "取得日時", lambda row: row.transfer.collected_at),
    _Column("ended_at", "終了日時", lambda row: row.transfer.ended_at),
    _Column("warnings", "注意", lambda row: row.transfer.findings),
    _Column("sha256", "SHA-256", lambda row: row.transfer.sha256.hex()),
)
_REFUSED: Sequence[_Column[Refusal]] = (
    _Column("last_at", "日時", lambda row: row.last_at),
    _Column("first_at", "初回の日時", lambda row: row.first_at),
    _Column("count", "回数", lambda row: row.count),
    _Column("name", "ファイル名", lambda row: row.name),
    _Column("code", "コード", lambda row: row.finding.code),
    _Column("message_ja", "理由", lambda row: row.finding.message_ja),
    _Column("remedy_ja", "対処", lambda row: row.finding.row.remedy_ja),
    _Column("message_en", "Reason", lambda row: row.finding.message_en),
    _Column("remedy_en", "What to do", lambda row: row.finding.row.remedy_en),
)
_OFFICES: Sequence[_Column[Office]] = (
    _Column("number", "事業所番号", lambda row: row.number),
    _Column("name", "事業所名", lambda row: row.name),
    _Column("prefecture", "都道府県", lambda row: row.prefecture),
    _Column("service_types", "サービス種類", lambda row: tuple(sorted(row.service_types))),
)
_CERTIFICATES: Sequence[_Column[Pass]] = (
    # A program that reads numbers as floating point would round it.
    _Column("serial", "シリアル番号", lambda row: str(row.certificate.serial)),
    _Column("key_id", "名称", lambda row: row.certificate.key_id),
    _Column("key_fingerprint", "鍵の指紋", lambda row: row.certificate.key_fingerprint),
    _Column("valid_after", "有効期間の始まり", lambda row: row.certificate.valid_after),
    _Column("valid_before", "有効期間の終わり", lambda row: row.certificate.valid_before),
    _Column("standing", "状態", lambda row: row.standing),
    _Column("days_left", "残り日数", lambda row: row.days_left),
    _Column("is_in_use", "この接続で使用", lambda row: row.is_in_use),
)


class StatusDesk:
    """Answers for the files in ``status/``.

    The list of all offices is the same for everybody and long, so it is rendered once for each version of the
    register; everything else is rendered when it is asked for.
    """

    FILES = tuple(f"{topic}.{form}" for topic in _TOPICS for form in ("csv", "json"))

    def __init__(self, ledger: Ledger, config: Config) -> None:
        self._ledger = ledger
        self._offices_shown = config.tree.offices_shown
        self._all_offices: dict[bool, tuple[int, bytes]] = {}
        self._rendering = asyncio.Lock()

    async def render(self, office: OfficeNumber, file: str, *, identity: Identity, now: datetime) -> bytes:
        """Return *file* (one of `FILES`) as *office* sees it *now*.  LookupError where there is no such file."""
        if file not in self.FILES:
            raise LookupError(file)
        topic, _, form = file.rpartition(".")
        as_csv = form == "csv"
        since = now - timedelta(days=SHOWN_DAYS)
        match topic:
            case "sent":
                sent = await self._ledger.list_transfers(sender=office, since=since)
                return await _render_aside(partial(render_sent, as_csv=as_csv), await self._name(sent, as_sent=True))
            case "received":
                received = await self._ledger.list_transfers(recipient=office, since=since)
                return await _render_aside(
                    partial(render_received, as_csv=as_csv), await self._name(received, as_sent=False)
                )
            case "refused":
                refused = await self._ledger.list_refusals(office, since=since)
                return await _render_aside(partial(render_refused, as_csv=as_csv), refused)
            case "certificate":
                certificates = await self._ledger.list_certificates(office=office)
                return render_certificates([_as_pass(one, identity, now) for one in certificates], as_csv=as_csv)
            case _:
                return await self._render_offices(office, since, as_csv=as_csv)

    async def _name(self, transfers: Sequence[Transfer], *, as_sent: bool) -> Sequence[Exchange]:
        """Add to each transfer what the office at its other end is called."""
        numbers = [transfer.recipient if as_sent else transfer.sender for transfer in transfers]
        offices = {number: await self._ledger.find_office(number) for number in set(numbers)}
        names = {number: office.name if office else "" for number, office in offices.items()}
        return [Exchange(transfer, names[number]) for transfer, number in zip(transfers, numbers, strict=True)]

    async def _render_offices(self, office: OfficeNumber, since: datetime, *, as_csv: bool) -> bytes:
        if self._offices_shown == "none":
            return render_offices([], as_csv=as_csv)
        if self._offices_shown == "partners":
            sent = await self._ledger.list_transfers(sender=office, since=since)
            received = await self._ledger.list_transfers(recipient=office, since=since)
            numbers = {transfer.recipient for transfer in sent} | {transfer.sender for transfer in received}
            partners = [await self._ledger.find_office(number) for number in sorted(numbers)]
            return render_offices([one for one in partners if one is not None and one.is_active], as_csv=as_csv)
        # One at a time: a second one asking meanwhile finds what the first one made.
        async with self._rendering:
            version = await self._ledger.register_version()
            known, data = self._all_offices.get(as_csv, (None, b""))
            if known != version:
                data = await self._render_all_offices(as_csv=as_csv)
                self._all_offices[as_csv] = (version, data)
            return data

    async def _render_all_offices(self, *, as_csv: bool) -> bytes:
        parts: list[str] = []
        after: OfficeNumber | None = None
        while page := await self._ledger.list_offices(status=OfficeStatus.ACTIVE, after=after, limit=_PAGE_ROWS):
            parts.append(_render(_OFFICES, page, as_csv=as_csv))
            after = page[-1].number
            # There may be 180,000; others get their turn in between.
            await asyncio.sleep(0)
        return _join("offices", parts, _OFFICES, as_csv=as_csv)


async def _render_aside(render: Callable[[Sequence[T]], bytes], rows: Sequence[T]) -> bytes:
    """Render many rows in a thread, so that nobody waits for them."""
    if len(rows) <= _PAGE_ROWS:
        return render(rows)
    return await asyncio.to_thread(render, rows)


def _as_pass(certificate: Certificate, identity: Identity, now: datetime) -> Pass:
    shown = (certificate.ca_fingerprint, certificate.serial)
    return Pass(certificate, is_in_use=shown == (identity.ca_fingerprint, identity.certificate_serial), now=now)


def render_sent(rows: Sequence[Exchange], *, as_csv: bool) -> bytes:
    """Render what an office has sent."""
    return _join("sent", [_render(_SENT, rows, as_csv=as_csv)], _SENT, as_csv=as_csv)


def render_received(rows: Sequence[Exchange], *, as_csv: bool) -> bytes:
    """Render what was sent to an office."""
    return _join("received", [_render(_RECEIVED, rows, as_csv=as_csv)], _RECEIVED, as_csv=as_csv)


def render_refused(rows: Sequence[Refusal], *, as_csv: bool) -> bytes:
    """Render what an office was refused."""
    return _join("refused", [_render(_REFUSED, rows, as_csv=as_csv)], _REFUSED, as_csv=as_csv)


def render_offices(rows: Sequence[Office], *, as_csv: bool) -> bytes:
    """Render the offices that an office may write to."""
    return _join("offices", [_render(_OFFICES, rows, as_csv=as_csv)], _OFFICES, as_csv=as_csv)


def render_certificates(rows: Sequence[Pass], *, as_csv: bool) -> bytes:
    """Render the certificates of an office."""
    return _join("certificate", [_render(_CERTIFICATES, rows, as_csv=as_csv)], _CERTIFICATES, as_csv=as_csv)


def _render(columns: Sequence[_Column[T]], rows: Sequence[T], *, as_csv: bool) -> str:
    if not as_csv:
        facts = ({column.key: _tell_program(column.cell(row)) for column in columns} for row in rows)
        return ",\n".join(json.dumps(fact, ensure_ascii=False) for fact in facts)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_tell_person(column.cell(row)) for column in columns] for row in rows)
    return text.getvalue()


def _join(name: str, parts: Sequence[str], columns: Sequence[_Column[T]], *, as_csv: bool) -> bytes:
    """Put rendered rows together: a line a row, headings above them or brackets around them."""
    if as_csv:
        headings = ",".join(column.heading for column in columns)
        return "".join(["\ufeff", headings, "\r\n", *parts]).encode()
    rows = ",\n".join(part for part in parts if part)
    return f'{{"{name}": [\n{rows}\n]}}\n'.encode()


def _tell_program(cell: Cell) -> object:
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(cell, Told):
        return cell.code
    if isinstance(cell, tuple):
        return [_tell_finding(part) if isinstance(part, Finding) else part for part in cell]
    return cell


def _tell_finding(finding: Finding) -> Mapping[str, str]:
    return {"code": finding.code, "message_ja": finding.message_ja, "message_en": finding.message_en}


def _tell_person(cell: Cell) -> str | int:
    if cell is None or isinstance(cell, bool):
        return "はい" if cell else ""
    if isinstance(cell, int):
        return cell
    if isinstance(cell, datetime):
        return cell.astimezone(_JAPAN).strftime("%Y-%m-%d %H:%M:%S %Z")
    if isinstance(cell, Told):
        return cell.ja
    if isinstance(cell, tuple):
        cell = " / ".join(part.message_ja if isinstance(part, Finding) else part for part in cell)
    return "'" + cell if cell.lstrip(" \u3000").startswith(_FORMULA) else cell
