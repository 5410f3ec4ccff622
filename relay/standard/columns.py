"""Columns: records of one kind and edition, judged item by item over many records at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from collections.abc import Set as AbstractSet

from relay.standard.faults import Faults
from relay.standard.grids import Grid
from relay.standard.items import ITEM_CODES, KEY_ITEM, REQUIRED_ITEM, ItemRule, fixed_length, is_blank
from relay.standard.layouts import Item
from relay.standard.persons import Strangers
from relay.standard.plans import INSURED, INSURER, Plan
from relay.standard.repeats import Repeats
from relay.standard.roster import Roster

_DATE_DIGITS = 8
_NO_DATE = b"00000000"
_NO_MONTH = b"000000"
# What is judged by the month of the name.
_MONTH_CODES = frozenset({"content.month_mismatch", "content.date_outside_month", REQUIRED_ITEM})


class ColumnJudge:
    """What is judged about the items of a file, with what has to be remembered of it.

    *month* is that of the file's name, *sender* the office that results must be of; None where they are not judged.
    """

    __slots__ = ("_faults", "_lines", "_month", "_off", "_records", "_sender", "roster", "strangers")

    def __init__(
        self,
        faults: Faults,
        roster: Roster,
        *,
        month: str | None,
        sender: str | None,
        strangers: Strangers | None,
        off: Collection[str] = (),
    ) -> None:
        self._faults = faults
        self._month = None if _MONTH_CODES.issubset(off) or not month else month.encode()
        self._sender = None if "content.result_office" in off or not sender else sender.encode()
        self._off = frozenset(off)
        self.strangers = strangers
        self.roster = roster
        self._records = Repeats()
        self._lines = Repeats()

    def judge(self, plan: Plan, grid: Grid, line_of: Callable[[int], int]) -> None:
        """Judge the records of *grid*, which are as long as *plan* says; *line_of* tells the line of the n-th."""
        rows = grid.distinct(plan.told)
        self.roster.note(plan, rows)
        if not self._off.issuperset(ITEM_CODES):
            self._judge_items(plan, grid, line_of)
        if "content.duplicate_record" not in self._off:
            self._records.note(grid.records, lambda index: self._faults.add("content.duplicate_record", line_of(index)))
        if plan.provider is not None and self.strangers is not None:
            self.strangers.note_rows(rows, grid, line_of)
        if self._month is not None:
            self._judge_months(plan, grid, self._month, line_of)
        if plan.result_office is not None and self._sender is not None:
            offices = grid.values(plan.result_office)
            if others := {office for office in offices if office != self._sender and not is_blank(office)}:
                item, column = plan.items[plan.result_office], grid.column(plan.result_office)
                self._mark("content.result_office", item, others, column, line_of)
        if plan.plan_date is not None and plan.month is not None and "content.link_item" not in self._off:
            self._judge_link(grid.column(plan.plan_date), grid.column(plan.month), line_of)
        if plan.line and "content.repeated_line" not in self._off:
            self._judge_lines([grid.column(place) for place in plan.line], line_of)

    def note_unread(self, person: bytes, line: int) -> None:
        """Take the person of a record that cannot be read whole: the recipient's line in it counts for nothing."""
        self.roster.is_partial = True
        if self.strangers is not None:
            self.strangers.note_unread(person, line)

    def _judge_items(self, plan: Plan, grid: Grid, line_of: Callable[[int], int]) -> None:
        # All at once, because mostly nothing is wrong in any.
        if grid.is_right(plan):
            return
        for place, rule in plan.rules:
            wrong = rule.find_wrong(grid.values(place))
            if wrong:
                self._report(rule, wrong, grid.column(place), line_of)
                if rule.code == KEY_ITEM and self.strangers is not None:
                    self._doubt(place, wrong, grid)

    def _doubt(self, place: int, wrong: Container[bytes], grid: Grid) -> None:
        """Doubt those whose number is wrong: by their right number they may be served."""
        rows = grid.distinct((INSURER, INSURED))
        persons = [insurer + insured for insurer, insured in rows if (insurer, insured)[place - INSURER] in wrong]
        if self.strangers is not None:
            self.strangers.doubt(persons)

    def _report(
        self, rule: ItemRule, wrong: dict[bytes, str], column: Sequence[bytes], line_of: Callable[[int], int]
    ) -> None:
        for code in set(wrong.values()):
            values = {value for value, reason in wrong.items() if reason == code}
            self._mark(code, rule.item, values, column, line_of)

    def _mark(
        self, code: str, item: Item, values: AbstractSet[bytes], column: Sequence[bytes], line_of: Callable[[int], int]
    ) -> None:
        places = [index for index, value in enumerate(column) if value in values]
        self._faults.add(code, line_of(places[0]), item=item, count=len(places))

    def _judge_months(self, plan: Plan, grid: Grid, month: bytes, line_of: Callable[[int], int]) -> None:
        if plan.month is not None and (others := grid.values(plan.month) - {month}):
            item, column = plan.items[plan.month], grid.column(plan.month)
            # Where it is in doubt whether the item must be there, it does not contradict the name by being empty.
            blank = {value for value in others if plan.plan_date is not None and is_blank(value)}
            if blank:
                self._mark(REQUIRED_ITEM, item, blank, column, line_of)
            if others := others - blank:
                self._mark("content.month_mismatch", item, others, column, line_of)
        if plan.date is not None:
            days = [day for day in grid.values(plan.date) if not day.startswith(month)]
            if outside := {day for day in days if len(day) == _DATE_DIGITS and day.isdigit()}:
                item, column = plan.items[plan.date], grid.column(plan.date)
                self._mark("content.date_outside_month", item, outside, column, line_of)

    def _judge_link(self, dates: Sequence[bytes], months: Sequence[bytes], line_of: Callable[[int], int]) -> None:
        if _NO_DATE not in dates or _NO_MONTH not in months:
            return
        for index, link in enumerate(zip(dates, months, strict=True)):
            if link == (_NO_DATE, _NO_MONTH):
                self._faults.add("content.link_item", line_of(index))

    def _judge_lines(self, columns: Sequence[Sequence[bytes]], line_of: Callable[[int], int]) -> None:
        # An empty number means that of the line above, as on the printed form: such a line is not compared.
        rows = [(index, row) for index, row in enumerate(zip(*columns, strict=True)) if all(row)]
        lines = [b",".join(row) for _, row in rows]
        self._lines.note(lines, lambda at: self._faults.add("content.repeated_line", line_of(rows[at][0])))


def is_cut_value(plan: Plan, value: bytes) -> bool:
    """Say whether *value*, the last item of a record without a line end, is the beginning of a longer one."""
    rule = plan.last
    length = fixed_length(plan.items[-1])
    return rule is not None and length is not None and len(value) < length and bool(rule.find_wrong({value}))
