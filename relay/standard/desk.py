"""The desk: where a reader of one format hands in what it reads, and where a whole file is judged.

A reader (`relay.standard.readers`) turns bytes into records whose items stand at the places of the layout.  What they
say is judged here, the same for every format: items, persons, months, versions, and what follows from all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

from relay.model import Address
from relay.standard.columns import ColumnJudge
from relay.standard.faults import Faults
from relay.standard.grids import Grid, make_grid
from relay.standard.persons import MOST_PERSONS, Strangers
from relay.standard.plans import VERSION, Plan, plan_for
from relay.standard.records import STAND_INS
from relay.standard.roster import Roster
from relay.standard.serials import NO_MONTH
from relay.standard.services import CARE_MANAGEMENT
from relay.standard.versions import VERSIONS, Version

UNRELATED_PERSON = "content.unrelated_person"


class Desk:
    """What is found in one file, by whoever reads it.

    *plan* is that of the name; *plans* are those of all editions that the same reader reads, by the version that
    stands in their records.  What is found goes into *faults*; codes in *off* are looked for only where that costs
    nothing.
    """

    __slots__ = ("_address", "_judge", "_versions", "faults", "is_doubtful", "is_lost", "off", "plan", "plans")

    def __init__(
        self,
        address: Address,
        version: Version,
        *,
        recipient_services: Sequence[str] = (),
        sender_services: Sequence[str] = (),
        off: Collection[str] = (),
    ) -> None:
        plan = plan_for(address.kind, version.standard)
        if plan is None:
            raise ValueError(f"{address.kind} is no {version.extension} of {version.standard}")
        self._address = address
        self.plan = plan
        self.plans = _plans_of(address.kind, version.reader)
        self.faults = Faults()
        self.off = off
        # Set by a reader that cannot tell the records apart any more.
        self.is_lost = False
        # Whether it is only for records or numbers that nobody could read that a person is taken for a stranger.
        self.is_doubtful = False
        is_judged = plan.provider is not None and UNRELATED_PERSON not in off
        if is_judged and _is_care_manager(address.recipient_service, recipient_services):
            is_judged = False
        self._judge = ColumnJudge(
            self.faults,
            Roster(address.kind),
            month=address.month,
            sender=_result_office(address, sender_services) if plan.result_office is not None else None,
            strangers=Strangers(address.recipient) if is_judged else None,
            off=off,
        )
        # The versions found, with the line in which each stands first.
        self._versions: dict[str, int] = {}

    @property
    def roster(self) -> Roster:
        """Who is in the file, as far as it was read; asked when it has ended."""
        self._judge.roster.is_partial |= self.is_lost
        return self._judge.roster

    def take(self, plan: Plan, grid: Grid, line_of: Callable[[int], int]) -> None:
        """Judge records as long as *plan* says; *line_of* tells the line, or whatever place is counted, of the n-th."""
        self._judge.judge(plan, grid, line_of)

    def take_records(self, records: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
        """Judge *records*, each as its items in the order of the layout, with the place of each to be told.

        For readers of other formats than CSV.  What MS932 cannot write counts as one character all the same.
        """
        for record, line in zip(records, lines, strict=True):
            items = [item.encode("cp932", "replace").translate(STAND_INS) for item in record]
            plan = self.choose_plan(items[VERSION], len(items), line)
            if plan is None:
                self.report_count(len(items), items[VERSION], line)
                continue
            self.take(plan, make_grid([b",".join(items)], len(items)), (line,).__getitem__)

    def choose_plan(self, version: bytes, count: int, line: int) -> Plan | None:
        """Note the *version* of a record of *count* items; return by which plan to judge it, None where none fits.

        A record that says one edition and is as long as the name's is judged by the name's: its version is what is
        wrong with it.
        """
        stated = self.plans.get(version)
        if stated is None:
            # The version may be wrong or its item missing; with the right number of items it is wrong.
            likely = [self.plan, *(plan for plan in self.plans.values() if plan is not self.plan)]
            found = next((plan for plan in likely if len(plan.items) == count), None)
            if found is not None:
                self._note_version(version, line)
            return found
        self._note_version(version, line)
        return next((plan for plan in (stated, self.plan) if len(plan.items) == count), None)

    def note_version(self, value: str, line: int) -> None:
        """Note a version that is one of this edition's."""
        self._versions[value] = min(line, self._versions.get(value, line))

    def count_items(self, version: bytes) -> int:
        """Return how many items a record has that says *version*."""
        return len(self.plans.get(version, self.plan).items)

    def report_count(self, found: int, version: bytes, line: int) -> None:
        """Note that a record that says *version* has a wrong number of items."""
        expected = self.count_items(version)
        note_ja, note = f"{found}個、正しくは{expected}個", f"{found} items, not {expected}"
        if found == 1:
            note_ja, note = f"カンマで{expected}項目に区切られていません", f"not parted by commas into {expected} items"
        self.faults.add("content.field_count", line, note_ja=note_ja, note=note)

    def note_unread(self, person: bytes, line: int) -> None:
        """Take the person (insurer and insured) of a record that cannot be read whole."""
        self._judge.note_unread(person, line)

    def conclude(self) -> None:
        """Judge what only the whole file tells; nothing is taken afterwards."""
        self._conclude_versions()
        self._conclude_strangers()
        if "content.month_mismatch" in self.faults and "content.month_mismatch" not in self.off:
            # The days are those of the month that the file is about.
            self.faults.drop("content.date_outside_month")

    def _note_version(self, version: bytes, line: int) -> None:
        if version.isascii() and (value := version.decode()) in VERSIONS:
            self.note_version(value, line)
        else:
            known = sorted(VERSIONS)
            note_ja, note = f"使えるのは{'か'.join(known)}", f"{' or '.join(known)} can be used"
            self.faults.add("content.version_unknown", line, note_ja=note_ja, note=note)

    def _conclude_versions(self) -> None:
        lines = sorted((line, value) for value, line in self._versions.items())
        odd, named = "", self.plan.version.value
        if len(lines) > 1:
            odd = "content.version_mixed"
            line, value = lines[1]
            note_ja, note = f"{lines[0][1]}のあとに{value}があります", f"{value} behind {lines[0][1]}"
        elif lines and lines[0][1] != named:
            odd = "content.version_name_mismatch"
            line, value = lines[0]
            note_ja, note = f"中身は{value}、ファイル名は{named}の形です", f"{value} inside, a name as of {named}"
        if odd:
            self.faults.add(odd, line, note_ja=note_ja, note=note)
            if odd not in self.off:
                # Whether it fits the month only follows from it.
                return
        month = self._address.month
        if self.plan.month is None or month is None or month == NO_MONTH:
            return
        for line, value in lines:
            if not VERSIONS[value].holds_in(month):
                right = " / ".join(other for other in VERSIONS if VERSIONS[other].holds_in(month))
                note_ja = f"項目1が{value}" + (f"、正しくは{right}" if right else "")
                note = f"{value} in item 1" + (f", not {right}" if right else "")
                self.faults.add("content.version_period", line, note_ja=note_ja, note=note)

    def _conclude_strangers(self) -> None:
        strangers = self._judge.strangers
        if strangers is None:
            return
        if self.is_lost:
            self.is_doubtful = True
            self.faults.add(UNRELATED_PERSON, 0, note_ja="確かめられません", note="this cannot be told")
        elif strangers.is_overfull:
            note_ja = f"{MOST_PERSONS}人を超え、確かめられません"
            self.faults.add(
                UNRELATED_PERSON, 0, note_ja=note_ja, note=f"more than {MOST_PERSONS} persons cannot be checked"
            )
        elif lines := strangers.lines or strangers.doubtful_lines:
            self.is_doubtful = not strangers.lines
            note_ja, note = f"利用者{len(lines)}人", f"{len(lines)} person" + "s" * (len(lines) > 1)
            if strangers.serves_nobody and len(lines) > 1:
                # Rather the recipient is wrong than all of them.
                note_ja, note = f"利用者{len(lines)}人の全員", f"all {len(lines)} persons"
            self.faults.add(UNRELATED_PERSON, lines[0], note_ja=note_ja, note=note)


@cache
def _plans_of(kind: str, reader: str) -> Mapping[bytes, Plan]:
    """Return the plans for *kind* in all editions that *reader* reads, by the version that stands in their records."""
    plans = [(each.value, plan_for(kind, each.standard)) for each in VERSIONS.values() if each.reader == reader]
    return {value.encode(): plan for value, plan in plans if plan is not None}


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
