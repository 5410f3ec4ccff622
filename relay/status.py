"""Status: what the ledger knows, as files that an office can open.

Every table comes twice, as CSV for people and as JSON for programs (see `relay.sheets`).  The same facts make the same
bytes, so that a program which mirrors the folder fetches nothing anew.

An office sees its own transfers and refusals of the last 93 days, what was before in a folder for each month, its
certificates, and of other offices what ``offices_shown`` allows.  Nothing is written here and nothing is decided; what is shown is read from the ledger.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from relay.config import Config
from relay.incidents import tell_incident
from relay.ledger import Ledger
from relay.ledger.intervening import Incident
from relay.lifecycle import State
from relay.model import (
    Certificate,
    Grammar,
    Identity,
    Office,
    OfficeNumber,
    OfficeStatus,
    Refusal,
    Transfer,
    TransferId,
)
from relay.notices import level_of
from relay.sheets import JAPAN, Column, Told, advise, join_rows, render_rows
from relay.unitparts import UnitPart
from relay.units import COUNTED, assemble_units
from relay.unitsheet import UnitRow, render_units
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
    "render_units",
]

# A quarter and the days by which its bills are late.
SHOWN_DAYS = 93
# The files of a unit may come on different days: so much earlier is looked for those of a unit that is shown.
_UNIT_DAYS = 31
_TOPICS = ("sent", "received", "units", "refused", "offices", "certificate")
_HISTORY = ("sent", "received", "refused")
# Rows that are rendered before others get their turn: some milliseconds of work.
_PAGE_ROWS = 1000
# The same of files of units, with all the persons in them.
_PAGE_PARTS = 30

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A transfer, what the office at its other end is called, and how it begins if it is a unit's message.

    *due_at* is until when it waits to be collected; *incident* what the operator did to it last; *former* the old number
    of the office that reads of it, where it was sent under that one.
    """

    transfer: Transfer
    partner: str
    first_line: str | None = None
    due_at: datetime | None = None
    incident: Incident | None = None
    former: OfficeNumber | None = None


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

    @property
    def notice_days(self) -> int | None:
        """Which notice of its end has been given: so many days ahead."""
        return None if self.certificate.revoked_at else level_of(self.certificate.valid_before, self.now)


_TO_SENDER: Mapping[State, str] = {
    State.ACCEPTED: "相手は未取得",
    State.COLLECTED: "相手が取得済み",
    State.RECALLED: "取消済み",
    State.RETURNED: "運営者が返却（相手は未取得）",
    State.EXPIRED: "期限切れ（相手は未取得）",
    State.DISCARDED: "相手が未取得のまま削除",
    State.SUPERSEDED: "送り直しで差し替え済み",
    State.DESTROYED: "相手が取得済み（保管終了）",
}
_TO_RECIPIENT: Mapping[State, str] = {
    State.ACCEPTED: "未取得",
    State.COLLECTED: "取得済み",
    State.RECALLED: "送信元が取消",
    State.RETURNED: "運営者が送信元へ返却",
    State.EXPIRED: "期限切れ（未取得）",
    State.DISCARDED: "未取得のまま削除",
    State.SUPERSEDED: "送信元が送り直し",
    State.DESTROYED: "取得済み（保管終了）",
}

# Unicode's categories of what steers a text instead of standing in it.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# By the form of the name, which the version in the records has to agree with (standard, section 9).
_CSV_VERSIONS: Mapping[Grammar, str] = {Grammar.STANDARD_41: "202407", Grammar.STANDARD_32: "202208"}


def _escape(name: str) -> str:
    r"""Return the name of a refused file so that it can be read: an override or line end shows as \u202e or \n."""
    return "".join(
        character if unicodedata.category(character) not in _UNSEEN else character.encode("unicode_escape").decode()
        for character in name
    )


def _csv_version(transfer: Transfer) -> str:
    """Return the version of the standard's CSV that a file is written in, '' for any other file."""
    is_csv = transfer.name.upper().endswith(".CSV")
    return _CSV_VERSIONS.get(transfer.grammar, "") if is_csv else ""


def _advise(transfer: Transfer, *, is_sent: bool) -> tuple[str, ...]:
    """Return what to do about a file's warnings; nothing about one that was taken back or has ended otherwise."""
    return advise(transfer.findings, is_sent=is_sent) if transfer.state in COUNTED else ()


def _tell_state(transfer: Transfer, words: Mapping[State, str]) -> Told:
    """Say what became of a file; one that the operator holds is still accepted, a misdirected one still collected."""
    if transfer.is_held:
        return Told("held", "運営者が確認のため停止中")
    reported = "" if transfer.reported_at is None else "・誤送信の連絡あり"
    return Told(transfer.state, words[transfer.state] + reported)


def _tell_notes(row: Exchange, *, is_sent: bool) -> str | None:
    """Say what the operator did to a file, why, and what to do about it; and why it has another number in its name."""
    notes = []
    if row.incident is not None:
        advice = tell_incident(row.incident, row.transfer.sender if is_sent else row.transfer.recipient).advice
        notes.append(f"{advice}（理由: {row.incident.reason}）")
    if row.former is not None:
        notes.append(
            f"変更前の番号 {row.former} で送ったものです" if is_sent
            else f"変更前の番号 {row.former} あてに届いたものです（誤送信ではありません）"
        )  # fmt: skip
    return " / ".join(notes) or None


_SENT: Sequence[Column[Exchange]] = (
    Column("number", "受付番号", lambda row: row.transfer.id),
    Column("accepted_at", "送信日時", lambda row: row.transfer.accepted_at),
    Column("recipient", "送信先事業所番号", lambda row: row.transfer.recipient),
    Column("recipient_name", "送信先事業所名", lambda row: row.partner),
    Column("name", "ファイル名", lambda row: row.transfer.name),
    Column("kind", "ファイル種別", lambda row: row.transfer.kind),
    Column("csv_version", "CSVバージョン", lambda row: _csv_version(row.transfer)),
    Column("size_bytes", "サイズ（バイト）", lambda row: row.transfer.size_bytes),
    Column("state", "送信結果", lambda row: _tell_state(row.transfer, _TO_SENDER)),
    Column("collected_at", "取得日時", lambda row: row.transfer.collected_at),
    Column("ended_at", "終了日時", lambda row: row.transfer.ended_at),
    Column("completes", "途中で切れた送信の受付番号", lambda row: row.transfer.completes),
    Column("message", "メッセージ", lambda row: row.first_line),
    Column("warnings", "注意", lambda row: row.transfer.findings),
    Column("remedy_ja", "対処", lambda row: _advise(row.transfer, is_sent=True)),
    Column("sha256", "SHA-256", lambda row: row.transfer.sha256.hex()),
    Column("due_at", "相手の取得期限", lambda row: row.due_at),
    Column("reported_at", "誤送信の連絡日時", lambda row: row.transfer.reported_at),
    Column("note_ja", "連絡", lambda row: _tell_notes(row, is_sent=True)),
)
_RECEIVED: Sequence[Column[Exchange]] = (
    Column("number", "受付番号", lambda row: row.transfer.id),
    Column("accepted_at", "受信日時", lambda row: row.transfer.accepted_at),
    Column("sender", "送信元事業所番号", lambda row: row.transfer.sender),
    Column("sender_name", "送信元事業所名", lambda row: row.partner),
    Column("name", "ファイル名", lambda row: row.transfer.delivered_name),
    Column("kind", "ファイル種別", lambda row: row.transfer.kind),
    Column("csv_version", "CSVバージョン", lambda row: _csv_version(row.transfer)),
    Column("size_bytes", "サイズ（バイト）", lambda row: row.transfer.size_bytes),
    Column("state", "受信結果", lambda row: _tell_state(row.transfer, _TO_RECIPIENT)),
    Column("is_removed", "done/ へ移動", lambda row: row.transfer.is_removed),
    Column("collected_at", "取得日時", lambda row: row.transfer.collected_at),
    Column("ended_at", "終了日時", lambda row: row.transfer.ended_at),
    Column("completes", "途中で切れた受信の受付番号", lambda row: row.transfer.completes),
    Column("message", "メッセージ", lambda row: row.first_line),
    Column("warnings", "注意", lambda row: row.transfer.findings),
    Column("remedy_ja", "対処", lambda row: _advise(row.transfer, is_sent=False)),
    Column("sha256", "SHA-256", lambda row: row.transfer.sha256.hex()),
    Column("due_at", "取得期限", lambda row: row.due_at),
    Column("reported_at", "誤送信の連絡日時", lambda row: row.transfer.reported_at),
    Column("note_ja", "連絡", lambda row: _tell_notes(row, is_sent=False)),
)
_REFUSED: Sequence[Column[Refusal]] = (
    Column("last_at", "日時", lambda row: row.last_at),
    Column("first_at", "初回の日時", lambda row: row.first_at),
    Column("count", "回数", lambda row: row.count),
    Column("name", "ファイル名", lambda row: _escape(row.name)),
    Column("code", "コード", lambda row: row.finding.code),
    Column("message_ja", "理由", lambda row: row.finding.message_ja),
    Column("remedy_ja", "対処", lambda row: row.finding.row.remedy_ja),
    Column("message_en", "Reason", lambda row: row.finding.message_en),
    Column("remedy_en", "What to do", lambda row: row.finding.row.remedy_en),
)
_OFFICES: Sequence[Column[Office]] = (
    Column("number", "事業所番号", lambda row: row.number),
    Column("name", "事業所名", lambda row: row.name),
    Column("prefecture", "都道府県", lambda row: row.prefecture),
    Column("service_types", "サービス種類", lambda row: tuple(sorted(row.service_types))),
)
_CERTIFICATES: Sequence[Column[Pass]] = (
    # A program that reads numbers as floating point would round it.
    Column("serial", "シリアル番号", lambda row: str(row.certificate.serial)),
    Column("key_id", "名称", lambda row: row.certificate.key_id),
    Column("label", "用途", lambda row: row.certificate.label),
    Column("key_fingerprint", "鍵の指紋", lambda row: row.certificate.key_fingerprint),
    Column("valid_after", "有効期間の始まり", lambda row: row.certificate.valid_after),
    Column("valid_before", "有効期間の終わり", lambda row: row.certificate.valid_before),
    Column("standing", "状態", lambda row: row.standing),
    Column("days_left", "残り日数", lambda row: row.days_left),
    Column("notice_days", "期限の予告（日前）", lambda row: row.notice_days),
    Column("is_in_use", "この接続で使用", lambda row: row.is_in_use),
)


class StatusDesk:
    """Answers for the files in ``status/``.

    The list of all offices is the same for everybody and long, so it is rendered once for each version of the
    register; everything else is rendered when it is asked for.
    """

    FILES = tuple(f"{topic}.{form}" for topic in _TOPICS for form in ("csv", "json"))
    # What a month leaves behind; the rest tells how things are now.
    MONTH_FILES = tuple(f"{topic}.{form}" for topic in _HISTORY for form in ("csv", "json"))

    def __init__(self, ledger: Ledger, config: Config) -> None:
        self._ledger = ledger
        self._config = config
        self._all_offices: dict[bool, tuple[int, bytes]] = {}
        self._rendering = asyncio.Lock()

    async def list_months(self, office: OfficeNumber, *, now: datetime) -> Sequence[str]:
        """Return the months, oldest first, of which *office* has something that the files of today may not show."""
        facts = [await self._ledger.oldest_fact(one) for one in (office, *await self._ledger.list_former(office))]
        oldest = min((fact for fact in facts if fact is not None), default=None)
        first_shown = now - timedelta(days=SHOWN_DAYS)
        if oldest is None or oldest >= first_shown:
            return ()
        first, last = (_count_months(moment) for moment in (oldest, first_shown))
        return tuple(f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(first, last + 1))

    async def render(
        self, office: OfficeNumber, file: str, *, identity: Identity, now: datetime, month: str | None = None
    ) -> bytes:
        """Return *file* (one of `FILES`) as *office* sees it *now*, or as its *month* (one of `list_months`) was.

        LookupError where there is no such file.
        """
        if file not in (self.FILES if month is None else self.MONTH_FILES):
            raise LookupError(file)
        topic, _, form = file.rpartition(".")
        as_csv = form == "csv"
        since, until = (now - timedelta(days=SHOWN_DAYS), None) if month is None else _bounds(month)
        match topic:
            case "sent" | "received":
                return await self._render_exchanges(office, (since, until), as_sent=topic == "sent", as_csv=as_csv)
            case "units":
                return await self._render_units(office, since, as_csv=as_csv)
            case "refused":
                refused = await self._ledger.list_refusals(office, since=since, until=until)
                return await _render_aside(partial(render_refused, as_csv=as_csv), refused)
            case "certificate":
                certificates = await self._ledger.list_certificates(office=office)
                return render_certificates([_as_pass(one, identity, now) for one in certificates], as_csv=as_csv)
            case _:
                return await self._render_offices(office, since, as_csv=as_csv)

    async def _render_exchanges(
        self, office: OfficeNumber, span: tuple[datetime, datetime | None], *, as_sent: bool, as_csv: bool
    ) -> bytes:
        """Render what *office* sent or was sent, under all numbers that it has had, newest first."""
        transfers: list[Transfer] = []
        lines: dict[TransferId, str] = {}
        incidents: dict[TransferId, Incident] = {}
        since, until = span
        for number in (office, *await self._ledger.list_former(office)):
            one, other = (number, None) if as_sent else (None, number)
            transfers += await self._ledger.list_transfers(sender=one, recipient=other, since=since, until=until)
            lines |= await self._ledger.list_first_lines(sender=one, recipient=other, since=since)
            # Nothing is done to a file before it was accepted.
            incidents |= {each.transfer.id: each for each in await self._ledger.list_incidents(number, since=since)}
        transfers.sort(key=lambda transfer: -transfer.id)
        names = await self._find_names(transfer.recipient if as_sent else transfer.sender for transfer in transfers)

        def render(rows: Sequence[Transfer]) -> bytes:
            exchanges = [
                Exchange(
                    transfer,
                    names[transfer.recipient if as_sent else transfer.sender],
                    lines.get(transfer.id) if transfer.state in COUNTED else None,
                    self._due_at(transfer),
                    incidents.get(transfer.id),
                    own if (own := transfer.sender if as_sent else transfer.recipient) != office else None,
                )
                for transfer in rows
            ]
            return (render_sent if as_sent else render_received)(exchanges, as_csv=as_csv)

        return await _render_aside(render, transfers)

    def _due_at(self, transfer: Transfer) -> datetime | None:
        """Return when a file that waits expires; a held one does not."""
        kept = timedelta(days=self._config.housekeeping.uncollected_days)
        if not kept or transfer.state is not State.ACCEPTED or transfer.is_held:
            return None
        return transfer.accepted_at + kept

    async def _find_names(self, numbers: Iterable[OfficeNumber]) -> Mapping[OfficeNumber, str]:
        offices = {number: await self._ledger.find_office(number) for number in set(numbers)}
        return {number: office.name if office else "" for number, office in offices.items()}

    async def _render_units(self, office: OfficeNumber, since: datetime, *, as_csv: bool) -> bytes:
        early = since - timedelta(days=_UNIT_DAYS)
        sent: list[UnitPart] = []
        received: list[UnitPart] = []
        own = (office, *await self._ledger.list_former(office))
        for number in own:
            sent += await self._ledger.list_unit_parts(sender=number, since=early, is_readable=True)
            received += await self._ledger.list_unit_parts(recipient=number, since=early, is_readable=True)
        ends = {part.transfer.recipient for part in sent} | {part.transfer.sender for part in received}
        names = await self._find_names(ends)

        def render(parts: Sequence[UnitPart]) -> bytes:
            rows = _as_unit_rows(parts, own, names)
            return render_units([row for row in rows if row.accepted_at >= since], as_csv=as_csv)

        return await _render_aside(render, [*sent, *received], most=_PAGE_PARTS)

    async def _render_offices(self, office: OfficeNumber, since: datetime, *, as_csv: bool) -> bytes:
        shown = self._config.tree.offices_shown
        if shown == "none":
            return render_offices([], as_csv=as_csv)
        if shown == "partners":
            return render_offices(await self._find_partners(office, since), as_csv=as_csv)
        # One at a time: a second one asking meanwhile finds what the first one made.
        async with self._rendering:
            version = await self._ledger.register_version()
            known, data = self._all_offices.get(as_csv, (None, b""))
            if known != version:
                data = await self._render_all_offices(as_csv=as_csv)
                self._all_offices[as_csv] = (version, data)
            return data

    async def _find_partners(self, office: OfficeNumber, since: datetime) -> Sequence[Office]:
        """Return the active offices that *office* exchanged files with, those whose number changed by the new one."""
        found: dict[OfficeNumber, Office] = {}
        for own in (office, *await self._ledger.list_former(office)):
            for number in await self._ledger.list_partners(own, since=since):
                partner = await self._ledger.find_office(number)
                now = partner if partner is None else await self._ledger.find_successor(partner) or partner
                if now is not None and now.is_active and now.number != office:
                    found[now.number] = now
        return [found[number] for number in sorted(found)]

    async def _render_all_offices(self, *, as_csv: bool) -> bytes:
        parts: list[str] = []
        after: OfficeNumber | None = None
        while page := await self._ledger.list_offices(status=OfficeStatus.ACTIVE, after=after, limit=_PAGE_ROWS):
            parts.append(render_rows(_OFFICES, page, as_csv=as_csv))
            after = page[-1].number
            # There may be 180,000; others get their turn in between.
            await asyncio.sleep(0)
        return join_rows("offices", parts, _OFFICES, as_csv=as_csv)


def _count_months(moment: datetime) -> int:
    day = moment.astimezone(JAPAN)
    return day.year * 12 + day.month - 1


def _bounds(month: str) -> tuple[datetime, datetime]:
    """Return when *month* begins and ends, in Japan."""
    begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=JAPAN)
    return begin, (begin + timedelta(days=31)).replace(day=1)


def _as_unit_rows(
    parts: Sequence[UnitPart], own: Sequence[OfficeNumber], names: Mapping[OfficeNumber, str]
) -> Iterator[UnitRow]:
    # What an office sent to one of its own numbers, before that was its own, was found twice.
    for unit in assemble_units([*{part.transfer.id: part for part in parts}.values()]):
        is_sent = unit.key.sender in own
        partner = names[unit.key.recipient if is_sent else unit.key.sender]
        yield UnitRow(unit, is_sent, partner, _TO_SENDER if is_sent else _TO_RECIPIENT)


async def _render_aside(render: Callable[[Sequence[T]], bytes], rows: Sequence[T], *, most: int = _PAGE_ROWS) -> bytes:
    """Render many rows in a thread, so that nobody waits for them."""
    if len(rows) <= most:
        return render(rows)
    return await asyncio.to_thread(render, rows)


def _as_pass(certificate: Certificate, identity: Identity, now: datetime) -> Pass:
    shown = (certificate.ca_fingerprint, certificate.serial)
    return Pass(certificate, is_in_use=shown == (identity.ca_fingerprint, identity.certificate_serial), now=now)


def render_sent(rows: Sequence[Exchange], *, as_csv: bool) -> bytes:
    """Render what an office has sent."""
    return join_rows("sent", [render_rows(_SENT, rows, as_csv=as_csv)], _SENT, as_csv=as_csv)


def render_received(rows: Sequence[Exchange], *, as_csv: bool) -> bytes:
    """Render what was sent to an office."""
    return join_rows("received", [render_rows(_RECEIVED, rows, as_csv=as_csv)], _RECEIVED, as_csv=as_csv)


def render_refused(rows: Sequence[Refusal], *, as_csv: bool) -> bytes:
    """Render what an office was refused."""
    return join_rows("refused", [render_rows(_REFUSED, rows, as_csv=as_csv)], _REFUSED, as_csv=as_csv)


def render_offices(rows: Sequence[Office], *, as_csv: bool) -> bytes:
    """Render the offices that an office may write to."""
    return join_rows("offices", [render_rows(_OFFICES, rows, as_csv=as_csv)], _OFFICES, as_csv=as_csv)


def render_certificates(rows: Sequence[Pass], *, as_csv: bool) -> bytes:
    """Render the certificates of an office."""
    return join_rows("certificate", [render_rows(_CERTIFICATES, rows, as_csv=as_csv)], _CERTIFICATES, as_csv=as_csv)
