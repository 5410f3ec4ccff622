"""The reader of the standard's CSV: from bytes to records, and what is wrong with them as bytes and as lines.

Records of one edition go on together, as columns (`relay.standard.grids`), mostly without being taken apart
(`relay.standard.shapes`); only where something is odd is each looked at by itself.  What is held is what `records`
names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.standard.characters import HEAD_BYTES, UTF8_MARK, Utf8Watch, find_odd, is_half_character, name_encoding
from relay.standard.columns import is_cut_value
from relay.standard.desk import Desk
from relay.standard.grids import Grid, make_grid, read_grid
from relay.standard.items import is_blank
from relay.standard.plans import INSURED, INSURER, VERSION, Plan
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
from relay.standard.shapes import ShapeReader

# One may stand at the very end, where some old programs put it.
_DOS_END = b"\x1a"
_DIGITS = b"0123456789"
_KEY_ITEMS = slice(VERSION, INSURED + 1)


class CsvReader:
    """Reads one CSV, in pieces of any size; what it finds is at the *desk*."""

    __slots__ = (
        "_blank_line",
        "_desk",
        "_encoding",
        "_faults",
        "_has_record",
        "_head",
        "_is_overlong",
        "_is_started",
        "_plan",
        "_records",
        "_shapes",
        "_utf8",
    )

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._faults = desk.faults
        self._plan = desk.plan
        self._records = RecordReader()
        self._shapes = ShapeReader(desk.plan)
        self._utf8 = Utf8Watch()
        self._head = b""
        self._is_started = False
        # What the first bytes say of the encoding, where that is none of the standard's.
        self._encoding: tuple[str, str] | None = None
        # Where a record is too long, the end is still looked for.
        self._is_overlong = False
        self._has_record = False
        # An empty line is no fault at the end of a file.
        self._blank_line: int | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._utf8.feed(data)
        if not self._is_started:
            self._head += data
            if len(self._head) < HEAD_BYTES:
                return
            data = self._start()
        if not self._desk.is_lost or self._is_overlong:
            self._read(data)

    def finish(self) -> None:
        """Read what is left; nothing may be fed afterwards."""
        if not self._is_started:
            data = self._start()
            if not self._desk.is_lost:
                self._read(data)
        if not self._desk.is_lost:
            self._end()
        self._conclude()

    # --- bytes ---

    def _start(self) -> bytes:
        self._is_started = True
        data, self._head = self._head, b""
        self._encoding = name_encoding(data)
        self._desk.is_lost = self._encoding is not None and not data.startswith(UTF8_MARK)
        return data.removeprefix(UTF8_MARK)

    def _read(self, data: bytes) -> None:
        raw = self._records.feed(data)
        if raw is not None:
            self._judge_raw(raw)
        if self._records.is_overlong and not self._desk.is_lost:
            self._desk.is_lost = self._is_overlong = True
            self._find_odd(self._records.rest(), self._records.line, is_whole=False)

    def _judge_raw(self, raw: Raw, *, is_ended: bool = True) -> None:
        grid = self._shapes.read(raw.data) or read_grid(raw.data, len(self._plan.items))
        if grid is not None and grid.values(VERSION) == {self._plan.version_bytes}:
            self._has_record = True
            self._end_blank_lines()
            self._desk.note_version(self._plan.version.value, raw.line)
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
        self._desk.is_lost = True
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
        rest = self._records.rest()
        line = self._records.line
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
        if self._records.is_open:
            is_cut = is_only_open(rest, find_broken(rest))
            return ('文章を囲む記号「"」が閉じていません', "a quotation mark is never closed") if is_cut else None
        if rest.endswith(b"\r"):
            return "行の終わりの途中で終わっています", "in the middle of a line end"
        if is_half_character(rest):
            return "文字の途中で終わっています", "in the middle of a character"
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
        self._desk.take(plan, grid, line_of)
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
        plan = self._desk.choose_plan(items[VERSION], len(items), line)
        if plan is None:
            if not is_ended and len(items) < self._desk.count_items(items[VERSION]):
                self._report_short(line)
            else:
                self._desk.report_count(len(items), items[VERSION], line)
            self._note_unread(record, line)
        return plan

    def _note_unread(self, record: bytes, line: int) -> None:
        items = record.split(b",")[_KEY_ITEMS]
        if len(items) > INSURED:
            self._desk.note_unread(items[INSURER] + items[INSURED], line)

    def _end_blank_lines(self) -> None:
        if self._blank_line is not None:
            self._faults.add(
                "content.field_count", self._blank_line, note_ja="途中に空の行があります", note="an empty line"
            )
            self._blank_line = None

    def _report_short(self, line: int) -> None:
        self._faults.add(
            "content.truncated", line, note_ja="最後の行の途中で終わっています", note="in the middle of the last line"
        )

    # --- the whole ---

    def _conclude(self) -> None:
        faults = self._faults
        if self._is_overlong and self._records.is_open:
            open_ja, open_en = '文章を囲む記号「"」が閉じていません', "a quotation mark is never closed"
            faults.add("content.truncated", self._records.line, note_ja=open_ja, note=open_en)
        elif self._is_overlong:
            faults.add("content.quote", self._records.line, note_ja="行が長すぎます", note="the line is too long")
        if self._encoding is None and self._utf8.is_utf8:
            self._encoding = "UTF-8", "UTF-8"
        if self._encoding is not None:
            # It explains whatever bytes are no MS932.
            faults.drop("content.encoding")
            faults.add("content.encoding", 0, note_ja=self._encoding[0], note=self._encoding[1])


def _is_header(items: Sequence[bytes]) -> bool:
    """Say whether a record holds the names of items: where the first three should be numbers, no digit stands."""
    keys = items[_KEY_ITEMS]
    return any(keys) and not any(digit in key for key in keys for digit in _DIGITS)
