"""Checks: what the standard asks of the content of its own CSV files (standard, sections 4 to 9).

A file is fed in pieces of any size and judged while it arrives; the answer does not depend on how it was split, and
what is held does not grow with it beyond the bounds that `records`, `persons` and `repeats` name.

Everything found is gathered and told at the end, in the order in which it explains the rest: first what the bytes
are, then whether they are all there, then the records, then what they say.  What weighs how much is not decided
here: a finding is a code, its severity is its reader's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.errors import Finding
from relay.model import Address, Grammar
from relay.standard.characters import HEAD_BYTES, UTF8_MARK, Utf8Watch, find_odd, is_half_character, name_encoding
from relay.standard.columns import ColumnJudge, is_cut_value
from relay.standard.faults import Faults
from relay.standard.grids import Grid, make_grid, read_grid
from relay.standard.items import is_blank
from relay.standard.kinds import STANDARD_32, STANDARD_41
from relay.standard.persons import MOST_PERSONS, Strangers
from relay.standard.plans import INSURED, INSURER, VERSION, Plan, plan_for
from relay.standard.records import (
    Block,
    BrokenQuoteError,
    Raw,
    RecordReader,
    find_broken,
    find_end,
    is_only_open,
    read_block,
)
from relay.standard.roster import Roster
from relay.standard.serials import NO_MONTH
from relay.standard.services import CARE_MANAGEMENT
from relay.standard.shapes import ShapeReader
from relay.standard.versions import VERSIONS

# One may stand at the very end, where some old programs put it.
_DOS_END = b"\x1a"
_DIGITS = b"0123456789"
_KEY_ITEMS = slice(VERSION, INSURED + 1)

# What the bytes are. After one of these, what is said of records may only follow from it.
FORM_CODES = ("content.encoding", "content.control_character", "content.line_end", "content.quote")
_ORDER = (
    "content.truncated",
    "content.header_row",
    "content.field_count",
    "content.version_unknown",
    "content.version_mixed",
    "content.version_name_mismatch",
    "content.key_item",
    "content.month_mismatch",
    "content.unrelated_person",
)


class StandardCheck:
    """The check of one CSV of the standard.

    *recipient_services* and *sender_services* are those that the register has; none where it has nothing to say.
    """

    __slots__ = (
        "_address",
        "_blank_line",
        "_encoding",
        "_faults",
        "_has_record",
        "_head",
        "_is_lost",
        "_is_overlong",
        "_is_started",
        "_judge",
        "_plan",
        "_plans",
        "_reader",
        "_shapes",
        "_utf8",
        "_versions",
    )

    def __init__(
        self, address: Address, *, recipient_services: Sequence[str] = (), sender_services: Sequence[str] = ()
    ) -> None:
        self._address = address
        standard = STANDARD_41 if address.grammar is Grammar.STANDARD_41 else STANDARD_32
        plan = plan_for(address.kind, standard)
        if plan is None:
            raise ValueError(f"{address.kind} is no CSV of {standard}")
        self._plan = plan
        plans = ((value, plan_for(address.kind, version.standard)) for value, version in VERSIONS.items())
        self._plans = {value.encode(): other for value, other in plans if other is not None}
        self._faults = Faults()
        is_judged = plan.provider is not None and not _is_care_manager(address.recipient_service, recipient_services)
        strangers = Strangers(address.recipient) if is_judged else None
        sender = _result_office(address, sender_services) if plan.result_office is not None else None
        self._judge = ColumnJudge(
            self._faults, Roster(address.kind), month=address.month, sender=sender, strangers=strangers
        )
        self._reader = RecordReader()
        self._shapes = ShapeReader(plan)
        self._utf8 = Utf8Watch()
        self._head = b""
        self._is_started = False
        # What the first bytes say of the encoding, where that is none of the standard's.
        self._encoding: tuple[str, str] | None = None
        # The records cannot be told apart any more; where one is too long, the end is still looked for.
        self._is_lost = False
        self._is_overlong = False
        self._has_record = False
        # An empty line is no fault at the end of a file.
        self._blank_line: int | None = None
        # The versions found, with the line in which each stands first.
        self._versions: dict[str, int] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._utf8.feed(data)
        if not self._is_started:
            self._head += data
            if len(self._head) < HEAD_BYTES:
                return
            data = self._start()
        if not self._is_lost or self._is_overlong:
            self._read(data)

    def finish(self) -> list[Finding]:
        """Return everything that was found in the whole file."""
        if not self._is_started:
            data = self._start()
            if not self._is_lost:
                self._read(data)
        if not self._is_lost:
            self._end()
        self._conclude()
        findings = self._faults.findings()
        return sorted(findings, key=self._rank)

    @property
    def roster(self) -> Roster:
        """Who is in the file, as far as it was read; asked when it has ended."""
        self._judge.roster.is_partial |= self._is_lost
        return self._judge.roster

    # --- bytes ---

    def _start(self) -> bytes:
        self._is_started = True
        data, self._head = self._head, b""
        self._encoding = name_encoding(data)
        self._is_lost = self._encoding is not None and not data.startswith(UTF8_MARK)
        return data.removeprefix(UTF8_MARK)

    def _read(self, data: bytes) -> None:
        raw = self._reader.feed(data)
        if raw is not None:
            self._judge_raw(raw)
        if self._reader.is_overlong and not self._is_lost:
            self._is_lost = self._is_overlong = True
            self._find_odd(self._reader.rest(), self._reader.line, is_whole=False)

    def _judge_raw(self, raw: Raw, *, is_ended: bool = True) -> None:
        grid = self._shapes.read(raw.data) or read_grid(raw.data, len(self._plan.items))
        if grid is not None and grid.values(VERSION) == {self._plan.version_bytes}:
            self._has_record = True
            self._end_blank_lines()
            self._versions.setdefault(self._plan.version.value, raw.line)
            self._judge_grid(self._plan, grid, raw.line.__add__, is_ended=is_ended)
            return
        try:
            block = read_block(raw)
        except BrokenQuoteError as broken:
            self._lose(raw, broken.place)
            return
        self._find_odd(raw.data, raw.line)
        self._sort_out(block, is_ended=is_ended)

    def _lose(self, raw: Raw, place: int) -> None:
        """Judge what stands before a record whose quotation marks are wrong, and give up at that one."""
        begin = find_end(raw.data[:place])
        line = raw.line + raw.data.count(b"\n", 0, begin)
        if begin:
            self._judge_raw(Raw(raw.data[:begin], raw.line))
        self._is_lost = True
        self._faults.add("content.quote", raw.line + raw.data.count(b"\n", 0, place))
        end = raw.data.find(b"\n", place)
        # Nothing after the line is looked at, because how much of it is here depends on how it arrived.
        self._find_odd(raw.data[begin : end + 1] if end >= 0 else raw.data[begin:], line)

    def _find_odd(self, data: bytes, line: int, *, is_whole: bool = True) -> None:
        if not is_whole and is_half_character(data):
            data = data[:-1]
        for odd in find_odd(data):
            self._faults.add(odd.code, line + odd.line, count=odd.count)

    # --- the end ---

    def _end(self) -> None:
        """Judge what stands behind the last line end."""
        rest = self._reader.rest()
        line = self._reader.line
        if rest.endswith(_DOS_END):
            rest = rest.removesuffix(_DOS_END)
            self._faults.add("content.dos_end_mark", 0)
        cut = self._find_cut(rest)
        if cut is not None:
            self._faults.add("content.truncated", line, note_ja=cut[0], note=cut[1])
            self._find_odd(rest.removesuffix(b"\r"), line, is_whole=False)
            self._note_unread(rest.replace(b'"', b""), line)
        elif rest:
            self._judge_raw(Raw(rest, line), is_ended=False)

    def _find_cut(self, rest: bytes) -> tuple[str, str] | None:
        if self._reader.is_open:
            is_cut = is_only_open(rest, find_broken(rest))
            return ("引用符が閉じていません", "a quotation mark is never closed") if is_cut else None
        if rest.endswith(b"\r"):
            return "改行の途中です", "in the middle of a line end"
        if is_half_character(rest):
            return "文字の途中です", "in the middle of a character"
        return None

    # --- records ---

    def _sort_out(self, block: Block, *, is_ended: bool) -> None:
        """Judge records one by one as far as that tells by which plan to judge them together."""
        groups: dict[str, tuple[Plan, list[int]]] = {}
        for index, record in enumerate(block.records):
            plan = self._place(record, block.line_of(index), is_ended=is_ended)
            if plan is not None:
                groups.setdefault(plan.version.value, (plan, []))[1].append(index)
        for plan, places in groups.values():
            grid = make_grid([block.records[place] for place in places], len(plan.items))
            lines = [block.line_of(place) for place in places]
            self._judge_grid(plan, grid, lines.__getitem__, is_ended=is_ended)

    def _judge_grid(self, plan: Plan, grid: Grid, line_of: Callable[[int], int], *, is_ended: bool) -> None:
        self._judge.judge(plan, grid, line_of)
        if not is_ended and is_cut_value(plan, grid.column(len(plan.items) - 1)[-1]):
            self._report_short(line_of(0))

    def _place(self, record: bytes, line: int, *, is_ended: bool) -> Plan | None:
        """Return by which plan *record* is to be judged; None where it is none or has another number of items."""
        if is_blank(record):
            self._blank_line = self._blank_line or line
            return None
        self._end_blank_lines()
        is_first, self._has_record = not self._has_record, True
        items = record.split(b",")
        if is_first and _is_header(items):
            self._faults.add("content.header_row", line)
            return None
        version = items[VERSION]
        plan = self._plans.get(version)
        expected = plan or self._plan
        if plan is None:
            # The version may be wrong or its item missing; with the right number of items it is wrong.
            expected = next((other for other in self._likely_plans() if len(other.items) == len(items)), self._plan)
        if len(items) != len(expected.items):
            if not is_ended and len(items) < len(expected.items):
                self._report_short(line)
            else:
                self._report_count(len(items), len(expected.items), line)
            self._note_unread(record, line)
            return None
        self._note_version(version, line)
        return expected

    def _likely_plans(self) -> list[Plan]:
        return [self._plan, *(plan for plan in self._plans.values() if plan is not self._plan)]

    def _note_version(self, version: bytes, line: int) -> None:
        if version.isascii() and (value := version.decode()) in VERSIONS:
            self._versions[value] = min(line, self._versions.get(value, line))
        else:
            self._faults.add("content.version_unknown", line)

    def _note_unread(self, record: bytes, line: int) -> None:
        items = record.split(b",")[_KEY_ITEMS]
        if len(items) > INSURED:
            self._judge.note_unread(items[INSURER] + items[INSURED], line)

    def _end_blank_lines(self) -> None:
        if self._blank_line is not None:
            self._faults.add("content.field_count", self._blank_line, note_ja="空の行です", note="an empty line")
            self._blank_line = None

    def _report_short(self, line: int) -> None:
        self._faults.add("content.truncated", line, note_ja="最後の行の途中です", note="in the middle of the last line")

    def _report_count(self, found: int, expected: int, line: int) -> None:
        note_ja, note = f"{found}項目あります。正しくは{expected}項目です", f"{found} items, not {expected}"
        self._faults.add("content.field_count", line, note_ja=note_ja, note=note)

    # --- the whole ---

    def _conclude(self) -> None:
        faults = self._faults
        if self._is_overlong and self._reader.is_open:
            open_ja, open_en = "引用符が閉じていません", "a quotation mark is never closed"
            faults.add("content.truncated", self._reader.line, note_ja=open_ja, note=open_en)
        elif self._is_overlong:
            faults.add("content.quote", self._reader.line, note_ja="行が長すぎます", note="the line is too long")
        if self._encoding is None and self._utf8.is_utf8:
            self._encoding = "UTF-8", "UTF-8"
        if self._encoding is not None:
            # It explains whatever bytes are no MS932.
            faults.drop("content.encoding")
            faults.add("content.encoding", 0, note_ja=f"{self._encoding[0]} です", note=self._encoding[1])
        self._conclude_versions()
        self._conclude_strangers()

    def _conclude_versions(self) -> None:
        lines = sorted((line, value) for value, line in self._versions.items())
        if len(lines) > 1:
            self._faults.add("content.version_mixed", lines[1][0])
        elif lines and lines[0][1] != self._plan.version.value:
            self._faults.add("content.version_name_mismatch", lines[0][0])
        month = self._address.month
        if self._plan.month is None or month is None or month == NO_MONTH:
            return
        for line, value in lines:
            if not VERSIONS[value].holds_in(month):
                self._faults.add("content.version_period", line)

    def _conclude_strangers(self) -> None:
        strangers = self._judge.strangers
        if strangers is None:
            return
        code = "content.unrelated_person"
        if self._is_lost:
            self._faults.add(code, 0, note_ja="確かめられません", note="this cannot be told")
        elif strangers.is_overfull:
            note_ja = f"{MOST_PERSONS}人を超え、確かめられません"
            self._faults.add(code, 0, note_ja=note_ja, note=f"more than {MOST_PERSONS} persons cannot be checked")
        elif lines := strangers.lines:
            note_ja, note = f"利用者{len(lines)}人", f"{len(lines)} person" + "s" * (len(lines) > 1)
            self._faults.add(code, lines[0], note_ja=note_ja, note=note)

    def _rank(self, found: Finding) -> tuple[int, int, int]:
        """Sort the bytes first, by line; then what `_ORDER` says; then the rest by line."""
        line = int(dict(found.facts).get("line", "0"))
        if found.code in FORM_CODES:
            return 0, line, FORM_CODES.index(found.code)
        if found.code == "content.truncated":
            # Records that are short before the last one tell of something else than a cut.
            earlier = self._faults.first_line("content.field_count")
            return (2, 1, line) if earlier is not None and earlier < line else (1, 0, line)
        if found.code in _ORDER:
            place = _ORDER.index(found.code)
            return 2, 0 if place <= _ORDER.index("content.field_count") else place, line
        return 3, line, 0


def _is_header(items: Sequence[bytes]) -> bool:
    """Say whether a record holds the names of items: where the first three should be numbers, no digit stands."""
    keys = items[_KEY_ITEMS]
    return any(keys) and not any(digit in key for key in keys for digit in _DIGITS)


def _is_care_manager(named: str | None, registered: Sequence[str]) -> bool:
    """Say whether the recipient plans care: by the name, where the register does not know better."""
    if named is None:
        return not CARE_MANAGEMENT.isdisjoint(registered)
    return named in CARE_MANAGEMENT and (not registered or not CARE_MANAGEMENT.isdisjoint(registered))


def _result_office(address: Address, sender_services: Sequence[str]) -> str | None:
    """Return the office that results must be of: the sender's, unless it may forward those of others."""
    if address.sender_service is not None:
        return None if address.sender_service in CARE_MANAGEMENT else address.sender
    return address.sender if sender_services and CARE_MANAGEMENT.isdisjoint(sender_services) else None
