"""Judging files before they are sent: the relay's own checks, on a disk, without a server or a store.

A file is read once, in pieces.  Everything that is wrong is told, not only what the server would name first; that comes
first, so the verdict and its code are the server's.

The register is optional.  Without it nothing is said about offices that are unknown or suspended.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from relay.content import start_check
from relay.errors import Finding, Refused, Severity, finding
from relay.model import Address, Office, OfficeNumber, fold_name
from relay.naming import NamingRules, decode_name, parse_name
from relay.routing import resolve_route
from relay.standard.census import Census
from relay.standard.guidance import find_guidance
from relay.standard.offices import parse_office_number
from relay.standard.units import (
    SLIP,
    SLIP_ANNEX,
    SUPPLEMENT,
    UnitFile,
    UnitKey,
    UnitVerdict,
    belongs_to,
    find_unit_key,
    import_rank,
    judge_unit,
)

PIECE_BYTES = 1 << 18
_WITH_PERSONS = frozenset({SLIP, SLIP_ANNEX, SUPPLEMENT})
# Who sends, where neither the name nor the caller says so; nobody's number.
_NOBODY = OfficeNumber("")


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to be said about a file or a unit; *line* and *item* count from 1, None where there is none."""

    code: str
    severity: Severity
    message_ja: str
    message_en: str
    line: int | None = None
    item: int | None = None
    section_ja: str = ""
    section_en: str = ""
    mend_ja: str = ""
    mend_en: str = ""


@dataclass(frozen=True, slots=True)
class FileReport:
    """What was found in one file; *address* is None where its name was not understood."""

    path: Path
    remarks: tuple[Remark, ...]
    address: Address | None = None
    persons: Mapping[bytes, int] | None = None

    @property
    def verdict(self) -> str:
        """``accept``, ``warn`` or ``refuse``."""
        return _worst(self.remarks)


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What the files of one unit are together; *paths* in the order of import, companions last."""

    key: UnitKey
    paths: tuple[Path, ...]
    judged: UnitVerdict
    remarks: tuple[Remark, ...]

    @property
    def verdict(self) -> str:
        """``accept``, ``warn`` or ``refuse``."""
        return _worst(self.remarks)


@dataclass(slots=True)
class Judge:
    """Judges one file after the other; remembers what was accepted, because a name is never given twice.

    *sender* is the office that would be logged in, None for whoever the name says.  *offices* is the register, None
    where there is none.
    """

    rules: NamingRules
    now: datetime
    sender: OfficeNumber | None = None
    offices: Mapping[OfficeNumber, Office] | None = None
    with_persons: bool = False
    _accepted: dict[tuple[OfficeNumber | None, OfficeNumber, str], tuple[bytes, Path]] = field(default_factory=dict)

    def judge(self, path: Path) -> FileReport:
        """Say what the relay would say to the file at *path*, and what it would go on to say."""
        try:
            name = decode_name(os.fsencode(path.name))
            address = parse_name(name, self.rules, folder=_find_folder(path))
        except Refused as refused:
            return FileReport(path, (_remark(refused.finding),))
        content = self._judge_content(path, address)
        remarks = [*self._judge_route(address), *content.remarks]
        if _worst(remarks) != Severity.REFUSE:
            conflict = self._find_conflict(path, address, content.digest)
            remarks += [conflict] if conflict else []
        # What refuses comes first; sorting keeps the order of everything else.
        remarks.sort(key=lambda remark: remark.severity is not Severity.REFUSE)
        return FileReport(path, tuple(remarks), address, content.persons)

    def _judge_route(self, address: Address) -> Iterator[Remark]:
        number = self.sender or address.sender or _NOBODY
        sender = self._find_office(number)
        if sender is None:
            yield _unknown_sender(number)
            return
        try:
            route = resolve_route(address, sender=sender, recipient=self._find_office(address.recipient), now=self.now)
        except Refused as refused:
            yield _remark(refused.finding)
            yield from map(_remark, address.findings)
        else:
            yield from map(_remark, route.findings)

    def _find_office(self, number: OfficeNumber) -> Office | None:
        """Return what is known of an office; without a register each is taken to take part."""
        if self.offices is None or number == _NOBODY:
            return Office(number, "", "", ())
        return self.offices.get(number)

    def _judge_content(self, path: Path, address: Address) -> _Content:
        """Read the file once, for everything that is asked of its content."""
        known = self.offices or {}
        sender, recipient = known.get(self.sender or address.sender or _NOBODY), known.get(address.recipient)
        check = start_check(
            address,
            {},
            sender_services=sender.service_types if sender else (),
            recipient_services=recipient.service_types if recipient else (),
        )
        wants_census = self.with_persons and address.is_standard and address.kind in _WITH_PERSONS
        census = Census() if wants_census else None
        digest = hashlib.sha256()
        try:
            for piece in _read(path):
                digest.update(piece)
                if census is not None:
                    census.feed(piece)
                check.feed(piece)
        except Refused as refused:
            return _Content((_remark(refused.finding),))
        found = tuple(_remark(judged.finding, judged.severity) for judged in check.find_all())
        return _Content(found, digest.digest(), census.finish() if census is not None else None)

    def _find_conflict(self, path: Path, address: Address, digest: bytes) -> Remark | None:
        """Remember the file as accepted; or say that another with other bytes has its name (letter case aside)."""
        key = (address.sender, address.recipient, fold_name(address.name))
        known, first = self._accepted.setdefault(key, (digest, path))
        if known == digest:
            return None
        return replace(
            _remark(finding("transfer.conflict")),
            message_ja=f"同じ名前で内容の違うファイルがあります（{show_path(first)}）",
            message_en=f"another file has this name and other content ({show_path(first)})",
            mend_ja="どちらを送るかを決めてください。両方なら、一方を介護ソフトから出力し直すと、別の日時の名前になります。",
            mend_en="Decide which one to send. If both, export one again, which gives it another serial.",
        )


@dataclass(frozen=True, slots=True)
class _Content:
    """What one reading of a file gave; *digest* only of one that was read to its end."""

    remarks: tuple[Remark, ...]
    digest: bytes = b""
    persons: Mapping[bytes, int] | None = None


def judge_units(reports: Sequence[FileReport]) -> Iterator[UnitReport]:
    """Yield the units that the accepted ones among *reports* are, in order of sender, recipient and serial."""
    units: dict[UnitKey, list[FileReport]] = {}
    companions: list[FileReport] = []
    for report in reports:
        if report.address is None or report.verdict == Severity.REFUSE:
            continue
        key = find_unit_key(report.address)
        if key is None:
            companions.append(report)
        else:
            units.setdefault(key, []).append(report)
    for key in sorted(units, key=lambda key: (key.sender, key.recipient, key.serial, key.sender_service or "")):
        yield _judge_unit(key, units[key], companions)


def _judge_unit(key: UnitKey, members: Sequence[FileReport], companions: Sequence[FileReport]) -> UnitReport:
    # The same file found in two folders is one file.
    unique = {fold_name(report.path.name): report for report in reversed(members)}
    files = [
        (report, UnitFile(report.address.kind, report.address.month, report.persons))
        for report in unique.values()
        if report.address is not None
    ]
    files.sort(key=lambda pair: (import_rank(pair[1].kind), pair[0].path.name))
    judged = judge_unit(key.standard, [file for _, file in files])
    paths = [report.path for report, _ in files]
    paths += [report.path for report in companions if report.address and belongs_to(report.address, key)]
    remarks = [_remark(found) for found in judged.findings]
    if judged.forms:
        # The row of the table says more exactly where this unit stands.
        source = judged.forms[0].source
        remarks = [
            replace(remark, section_ja=source, section_en=source) if remark.code == "unit.incomplete" else remark
            for remark in remarks
        ]
    return UnitReport(key, tuple(paths), judged, tuple(remarks))


def show_path(path: Path) -> str:
    """Return *path* for a terminal or a program: what does not print, or is no character at all, is escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in str(path)
    )


def _worst(remarks: Sequence[Remark]) -> str:
    if not remarks:
        return "accept"
    return "refuse" if any(remark.severity is Severity.REFUSE for remark in remarks) else "warn"


def _remark(found: Finding, severity: Severity | None = None) -> Remark:
    facts = dict(found.facts)
    guidance = find_guidance(found.code)
    return Remark(
        found.code,
        severity or found.row.severity,
        found.message_ja,
        found.message_en,
        line=int(facts["line"]) if "line" in facts else None,
        item=int(facts["item"]) if "item" in facts else None,
        section_ja=guidance.section_ja,
        section_en=guidance.section_en,
        mend_ja=guidance.mend_ja,
        mend_en=guidance.mend_en,
    )


def _unknown_sender(number: OfficeNumber) -> Remark:
    # Nobody could be logged in as this office, so whoever sends the file, the name is not theirs.
    return replace(
        _remark(finding("name.sender_mismatch", sender=number, office=number)),
        message_ja=f"送信元の事業所 {number} は登録されていません",
        message_en=f"sender office {number} is not registered",
        mend_ja="介護ソフトの自事業所番号を確かめてください。正しいときは、運営者の窓口に電話してください。",
        mend_en="Check your own office number in your care software. If it is right, call the operator's help desk.",
    )


def _find_folder(path: Path) -> OfficeNumber | None:
    """Return the office of ``…/send/<office>/name``, the folder in which free names are allowed."""
    return parse_office_number(path.parent.name) if path.parent.parent.name == "send" else None


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
