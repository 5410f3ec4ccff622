"""The sheet of units: unit by unit what is there and what is missing, and of each person what is the latest.

For people one line a person and month or date, so that a spreadsheet can sort and filter by any of it, with the unit's
own facts in every line; for programs one object a unit.  Only the two offices of a unit may be shown it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.errors import Finding
from relay.lifecycle import State
from relay.model import Transfer
from relay.sheets import Column, Told, advise, join_rows, render_rows, tell_program
from relay.standard.kinds import KINDS
from relay.standard.roster import MOST_LISTED, Subject
from relay.unitparts import UnitPart
from relay.units import Matter, Standing, Unit

_STANDINGS: Mapping[Standing, str] = {
    Standing.COMPLETE: "そろっています",
    Standing.INCOMPLETE: "不足があります",
    Standing.NOT_ALLOWED: "決められた組み合わせではありません",
    Standing.VOID: "有効なファイルがありません",
}
_SUBJECTS: Mapping[Subject, str] = {
    Subject.PLAN: "居宅サービス計画（作成日）",
    Subject.SLIP: "サービス利用票（年月）",
    Subject.RESULTS: "実績（年月）",
    Subject.BASIC: "利用者基本情報（相談日）",
    Subject.PREVENTIVE: "介護予防サービス・支援計画書（作成日）",
}
_NOT_ALL_JA = f"利用者が{MOST_LISTED:,}人を超えるか、読めない行があり、全員は出ていません"


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A unit as one of its two offices sees it; *words* say what became of a file, from its side."""

    unit: Unit
    is_sent: bool
    partner: str
    words: Mapping[State, str]

    @property
    def direction(self) -> Told:
        """Which way it went."""
        return Told("sent", "送信") if self.is_sent else Told("received", "受信")

    @property
    def standing(self) -> Told:
        """Whether it is complete."""
        return Told(self.unit.standing, _STANDINGS[self.unit.standing])

    @property
    def partner_number(self) -> str:
        """The office at the other end."""
        return self.unit.key.recipient if self.is_sent else self.unit.key.sender

    @property
    def accepted_at(self) -> datetime:
        """When the newest of its files came."""
        return max(part.transfer.accepted_at for part in self.unit.parts)

    def name(self, transfer: Transfer) -> str:
        """What the file is called at this end."""
        return transfer.name if self.is_sent else transfer.delivered_name


@dataclass(frozen=True, slots=True)
class _Line:
    """A unit, and one of the persons in it if there are any."""

    row: UnitRow
    matter: Matter | None

    @property
    def unit(self) -> Unit:
        return self.row.unit


_COLUMNS: Sequence[Column[_Line]] = (
    Column("direction", "送受信", lambda line: line.row.direction),
    Column("partner", "相手の事業所番号", lambda line: line.row.partner_number),
    Column("partner_name", "相手の事業所名", lambda line: line.row.partner),
    Column("serial", "ファイル連番", lambda line: line.unit.key.serial),
    Column("sender_service", "送信元のサービス種類", lambda line: line.unit.key.sender_service),
    Column("recipient_service", "宛先のサービス種類", lambda line: line.unit.key.recipient_service),
    Column("accepted_at", "最後の受付日時", lambda line: line.row.accepted_at),
    Column("titles", "送信単位", lambda line: _titles(line.unit)),
    Column("standing", "そろい具合", lambda line: line.row.standing),
    Column("missing", "足りないファイル", lambda line: tuple(map(_name_kind, line.unit.missing))),
    Column("files", "ファイル", lambda line: tuple(_say_file(part, line.row) for part in line.unit.parts)),
    Column("messages", "メッセージ", lambda line: line.unit.messages),
    Column("warnings", "注意", lambda line: _warnings(line.unit)),
    Column("remedy_ja", "対処", lambda line: advise(_warnings(line.unit), is_sent=line.row.is_sent)),
    Column("insurer", "保険者番号", lambda line: line.matter.entry.insurer if line.matter else None),
    Column("insured", "被保険者番号", lambda line: line.matter.entry.insured if line.matter else None),
    Column("subject", "内容", lambda line: _SUBJECTS[line.matter.entry.subject] if line.matter else None),
    Column("key", "年月・日付", lambda line: line.matter.entry.key if line.matter else None),
    Column("provider", "提供事業所・サービス種類", lambda line: line.matter.entry.provider if line.matter else None),
    Column("action", "登録・削除", lambda line: _say_action(line.matter)),
    Column("latest", "最新か", lambda line: _say_latest(line.matter)),
    Column("supersedes", "置き換えた連番", lambda line: line.matter.supersedes if line.matter else None),
    Column("note", "備考", lambda line: _NOT_ALL_JA if line.unit.is_partial else None),
)


def render_units(rows: Sequence[UnitRow], *, as_csv: bool) -> bytes:
    """Render the units of an office, both those it sent and those it received."""
    if as_csv:
        lines = [_Line(row, matter) for row in rows for matter in row.unit.matters or (None,)]
        return join_rows("units", [render_rows(_COLUMNS, lines, as_csv=True)], _COLUMNS, as_csv=True)
    parts = [json.dumps(_describe(row), ensure_ascii=False) for row in rows]
    return join_rows("units", parts, _COLUMNS, as_csv=False)


def _titles(unit: Unit) -> tuple[str, ...]:
    forms = unit.verdict.forms if unit.verdict else ()
    return tuple(dict.fromkeys(form.title_ja for form in forms))


def _warnings(unit: Unit) -> tuple[Finding, ...]:
    return unit.verdict.findings if unit.verdict else ()


def _name_kind(kind: str) -> str:
    return f"{kind} {KINDS[kind].title_ja}"


def _say_file(part: UnitPart, row: UnitRow) -> str:
    return f"{part.transfer.kind} 受付番号{part.transfer.id}（{row.words[part.transfer.state]}）"


def _say_action(matter: Matter | None) -> Told | None:
    if matter is None:
        return None
    return Told("delete", "削除") if matter.is_deletion else Told("register", "登録")


def _say_latest(matter: Matter | None) -> str | None:
    if matter is None:
        return None
    return "最新" if matter.is_latest else f"連番{matter.latest}が最新"


def _describe(row: UnitRow) -> Mapping[str, object]:
    unit, key = row.unit, row.unit.key
    return {
        "direction": row.direction.code,
        "sender": key.sender,
        "sender_service": key.sender_service,
        "recipient": key.recipient,
        "recipient_service": key.recipient_service,
        "partner_name": row.partner,
        "serial": key.serial,
        "standard": key.standard,
        "accepted_at": tell_program(row.accepted_at),
        "standing": unit.standing.value,
        "is_complete": unit.standing is Standing.COMPLETE,
        "forms": [form.id for form in unit.verdict.forms] if unit.verdict else [],
        "missing": list(unit.missing),
        "warnings": tell_program(_warnings(unit)),
        "remedy_ja": list(advise(_warnings(unit), is_sent=row.is_sent)),
        "files": [_describe_file(part.transfer, row) for part in unit.parts],
        "messages": list(unit.messages),
        "persons": list(_describe_persons(unit)),
        "persons_are_partial": unit.is_partial,
    }


def _describe_file(transfer: Transfer, row: UnitRow) -> Mapping[str, object]:
    return {
        "number": transfer.id,
        "kind": transfer.kind,
        "name": row.name(transfer),
        "state": transfer.state.value,
        "accepted_at": tell_program(transfer.accepted_at),
    }


def _describe_persons(unit: Unit) -> Iterator[Mapping[str, object]]:
    for matter in unit.matters:
        entry = matter.entry
        yield {
            "insurer": entry.insurer,
            "insured": entry.insured,
            "subject": entry.subject.value,
            "key": entry.key,
            "provider": entry.provider,
            "is_deletion": matter.is_deletion,
            "is_latest": matter.is_latest,
            "latest": matter.latest,
            "supersedes": matter.supersedes,
        }
