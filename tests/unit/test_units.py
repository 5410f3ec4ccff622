"""Units as an office sees them: whole or not, what counts, and what is the latest of each person."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.lifecycle import State
from relay.model import Grammar, OfficeNumber, Transfer, TransferId
from relay.standard.roster import Subject
from relay.unitparts import Entry, UnitPart
from relay.units import Standing, Unit, assemble_units
from relay.unitsheet import UnitRow, render_units

A, B, C = (OfficeNumber(number) for number in ("0178515854", "0178529384", "0178512687"))
AT = datetime(2026, 6, 22, 15, 30, 5, tzinfo=UTC)
WORDS = {state: f"<{state}>" for state in State}
SLIP = ("UPPLAN", "UPSIKYU", "UPHOSOKU")


def entry(person: int = 1, key: str = "202607", subject: Subject = Subject.SLIP, part: str = "") -> Entry:
    """Return a person in a file."""
    return Entry(bytes([person] * 16), subject, key, part, "019992", f"{person:010}")


def part(
    kind: str,
    second: int = 0,
    *entries: Entry,
    number: int = 1,
    state: State = State.ACCEPTED,
    ends: tuple[OfficeNumber, OfficeNumber] = (A, B),
    services: tuple[str | None, str | None] = ("43", "11"),
    grammar: Grammar = Grammar.STANDARD_41,
    first_line: str | None = None,
) -> UnitPart:
    """Return a file of the unit with this serial."""
    transfer = Transfer(
        id=TransferId(number),
        sender=ends[0],
        recipient=ends[1],
        name=f"{kind}.CSV",
        delivered_name=f"{kind}.CSV",
        grammar=grammar,
        kind=kind,
        serial=f"{20260622000000 + second}",
        month="202607" if kind in SLIP else None,
        in_folder=False,
        state=state,
        is_removed=False,
        size_bytes=1,
        sha256=bytes(32),
        accepted_at=AT,
    )
    return UnitPart(transfer, *services, entries or None, first_line=first_line)


def slip(second: int, *entries: Entry, **how: Any) -> list[UnitPart]:
    """Return a whole slip unit about these persons."""
    return [part(kind, second, *entries, **how) for kind in SLIP]


def latest(units: tuple[Unit, ...]) -> dict[str, tuple[bool, bool, str | None]]:
    """Return of each unit, by the last digits of its serial, what it says of its one person."""
    return {
        unit.key.serial[-1]: (matter.is_latest, matter.is_deletion, matter.supersedes and matter.supersedes[-1])
        for unit in units
        for matter in unit.matters
    }


def test_files_of_one_serial_are_a_unit_in_the_order_of_import() -> None:
    """Whatever order they came in; the highest serial is told first."""
    one, two = assemble_units([part("UPHOSOKU", 1), *slip(2), part("UPPLAN", 1), part("UPSIKYU", 1)])
    assert [each.key.serial[-1] for each in (one, two)] == ["2", "1"]
    assert [each.transfer.kind for each in two.parts] == ["UPPLAN", "UPHOSOKU", "UPSIKYU"]
    assert two.standing is Standing.COMPLETE


def test_what_is_missing_is_told_and_nothing_is_held_back() -> None:
    """An incomplete unit stands in the list with its files."""
    (unit,) = assemble_units([part("UPPLAN")])
    assert (unit.standing, unit.missing) == (Standing.INCOMPLETE, ("UPSIKYU", "UPHOSOKU"))
    (odd,) = assemble_units([part("UPPLAN"), part("UP1KYO")])
    assert odd.standing is Standing.NOT_ALLOWED


@pytest.mark.parametrize("state", [State.RECALLED, State.EXPIRED, State.DISCARDED, State.SUPERSEDED])
def test_a_file_that_its_recipient_never_had_does_not_count(state: State) -> None:
    """It is shown, and the unit is judged as if it had not come; where none is left nothing is said of anybody."""
    parts = slip(0, entry())
    (unit,) = assemble_units([*parts[:2], replace(parts[2], transfer=replace(parts[2].transfer, state=state))])
    assert (unit.missing, len(unit.parts)) == (("UPHOSOKU",), 3)
    (void,) = assemble_units(slip(0, entry(), state=state))
    assert (void.standing, void.matters, len(void.parts)) == (Standing.VOID, (), 3)


@pytest.mark.parametrize("state", [State.ACCEPTED, State.COLLECTED, State.DESTROYED])
def test_a_file_counts_until_and_after_it_was_collected(state: State) -> None:
    """What the recipient took stays part of the unit when its storage has ended."""
    (unit,) = assemble_units(slip(0, state=state))
    assert unit.standing is Standing.COMPLETE


def test_a_file_sent_again_after_it_was_recalled_stands_for_it() -> None:
    """Two transfers of one name, of which one counts, are one file of the unit."""
    (unit,) = assemble_units([*slip(0), part("UPPLAN", state=State.RECALLED, number=7)])
    assert unit.standing is Standing.COMPLETE


def test_the_highest_serial_is_the_latest_and_supersedes_the_one_before() -> None:
    """Whatever arrived first, and once a unit however many of its files name the person."""
    units = assemble_units([*slip(3, entry()), *slip(1, entry()), *slip(2, entry())])
    assert latest(units) == {"3": (True, False, "2"), "2": (False, False, "1"), "1": (False, False, None)}
    assert units[2].matters[0].latest[-1] == "3"


def test_a_deletion_is_the_latest_too() -> None:
    """It supersedes the plan, and a new plan supersedes it."""
    plan, date = Subject.PLAN, "20260601"
    parts = [part(kind, at, entry(1, date, plan)) for at, kind in enumerate(("UP1KYO", "DLT1KYO"))]
    assert latest(assemble_units(parts)) == {"0": (False, False, None), "1": (True, True, "0")}
    again = [*parts, part("UP1KYO", 2, entry(1, date, plan))]
    assert latest(assemble_units(again)) == {
        "0": (False, False, None),
        "1": (False, True, "0"),
        "2": (True, False, "1"),
    }


def test_a_unit_that_does_not_count_supersedes_nothing() -> None:
    """After a recall the unit before it is the latest again."""
    units = assemble_units([*slip(1, entry()), *slip(2, entry(), state=State.RECALLED)])
    assert latest(units) == {"1": (True, False, None)}


@pytest.mark.parametrize(
    "other",
    [
        slip(2, entry(person=2)),
        slip(2, entry(key="202608")),
        slip(2, entry(part="ab")),
        slip(2, entry(), ends=(A, C)),
        slip(2, entry(), ends=(C, B)),
        slip(2, entry(), services=("43", "78")),
        [part("UPJSK", 2, entry(subject=Subject.RESULTS))],
    ],
    ids=["person", "month", "provider", "recipient", "sender", "service", "subject"],
)
def test_only_the_same_matter_between_the_same_offices_is_superseded(other: list[UnitPart]) -> None:
    """Another person, month, provider, office, service or subject is another matter."""
    units = assemble_units([*slip(1, entry()), *other])
    assert [matter.is_latest for unit in units for matter in unit.matters] == [True, True]


def test_a_person_without_a_proper_date_is_compared_with_nothing() -> None:
    """No key, no matter; the person still counts where files of the unit are compared."""
    (unit,) = assemble_units([part("UPPLAN", 0, entry(1, "")), part("UPSIKYU", 0, entry(2, "")), part("UPHOSOKU")])
    assert unit.matters == ()
    assert unit.verdict is not None
    assert [found.code for found in unit.verdict.findings] == ["unit.unrelated_person"]


def test_where_not_everybody_is_known_nobody_is_told_to_be_missing() -> None:
    """A list that was cut says so and is not compared."""
    cut = replace(part("UPPLAN", 0, entry(1)), is_partial=True)
    (unit,) = assemble_units([cut, part("UPSIKYU", 0, entry(2)), part("UPHOSOKU")])
    assert unit.is_partial
    assert unit.verdict is not None
    assert unit.verdict.findings == ()


def test_numbers_are_told_by_whichever_file_can_be_read() -> None:
    """One file of the unit was destroyed, another not yet."""
    gone = replace(entry(), insurer=None, insured=None)
    (unit,) = assemble_units([part("UPPLAN", 0, gone), part("UPSIKYU", 0, entry()), part("UPHOSOKU", 0, gone)])
    assert [matter.entry.insured for matter in unit.matters] == ["0000000001"]


@pytest.mark.parametrize(
    ("services", "is_shown"),
    [(("43", "11"), True), ((None, None), True), (("43", None), True), (("43", "78"), False)],
)
def test_a_message_goes_with_its_unit(*, services: tuple[str | None, str | None], is_shown: bool) -> None:
    """Same offices and serial; where its name has services, they have to be the unit's."""
    message = part("MESSAGE", services=services, grammar=Grammar.GENERAL, first_line="hello")
    (unit,) = assemble_units([*slip(0), message])
    assert unit.messages == (("hello",) if is_shown else ())
    assert unit.standing is Standing.COMPLETE
    assert assemble_units([message]) == ()


def test_a_recalled_message_is_not_shown() -> None:
    """It may have gone to the wrong office."""
    message = part("MESSAGE", grammar=Grammar.GENERAL, first_line="hello", state=State.RECALLED)
    (unit,) = assemble_units([*slip(0), message])
    assert unit.messages == ()


def test_files_of_3_2_are_units_of_3_2() -> None:
    """Their names have no services, and their plan no table 3."""
    (unit,) = assemble_units(slip(0, services=(None, None), grammar=Grammar.STANDARD_32))
    assert unit.verdict is not None
    assert [form.id for form in unit.verdict.forms] == ["V32-2"]


# --- the sheet ---------------------------------------------------------------------------------------------------


def rows(parts: list[UnitPart], *, is_sent: bool = True) -> list[UnitRow]:
    """Return units as one side sees them."""
    return [UnitRow(unit, is_sent, "みほん野", WORDS) for unit in assemble_units(parts)]


def table(data: bytes) -> list[dict[str, str]]:
    """Read a CSV as a spreadsheet does."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_a_spreadsheet_has_a_line_for_each_person() -> None:
    """With the facts of the unit in every line."""
    parts = [*slip(1, entry(1), entry(2)), *slip(2, entry(1)), part("UPJSK", 3)]
    lines = table(render_units(rows(parts), as_csv=True))
    assert [line["ファイル連番"][-1] for line in lines] == ["3", "2", "1", "1"]
    assert [line["被保険者番号"] for line in lines] == ["", "0000000001", "0000000001", "0000000002"]
    assert [line["最新か"] for line in lines] == ["", "最新", "連番20260622000002が最新", "最新"]
    assert lines[1]["置き換えた連番"] == "20260622000001"
    assert {line["そろい具合"] for line in lines} == {"そろっています"}
    assert "UPPLAN 受付番号1（<accepted>）" in lines[1]["ファイル"]


def test_a_spreadsheet_names_what_is_missing_and_what_was_cut() -> None:
    """In words: the kind and what it is called."""
    parts = [replace(part("UPPLAN", 1, entry()), is_partial=True)]
    (line,) = table(render_units(rows(parts), as_csv=True))
    assert "UPSIKYU 第7表" in line["足りないファイル"]
    assert line["そろい具合"] == "不足があります"
    assert "5,000人" in line["備考"]


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_program_finds_an_object_a_unit(*, is_sent: bool) -> None:
    """Files with numbers and states, persons with what they supersede, codes for the rest."""
    parts = [*slip(1, entry()), *slip(2, entry()), part("MESSAGE", 2, grammar=Grammar.GENERAL, first_line="=1+1")]
    one, two = json.loads(render_units(rows(parts, is_sent=is_sent), as_csv=False))["units"]
    assert (one["direction"], one["serial"], one["standing"]) == (
        "sent" if is_sent else "received",
        "20260622000002",
        "complete",
    )
    assert (one["messages"], two["messages"]) == (["=1+1"], [])
    assert [file["kind"] for file in one["files"]] == ["UPPLAN", "UPHOSOKU", "UPSIKYU", "MESSAGE"]
    (person,) = one["persons"]
    assert (person["insured"], person["key"], person["is_latest"], person["supersedes"]) == (
        "0000000001",
        "202607",
        True,
        "20260622000001",
    )
    assert one["forms"] == ["V41-K2", "V41-Y4"]


def test_a_message_runs_nothing_in_a_spreadsheet() -> None:
    """Its first line is its sender's to choose."""
    parts = [*slip(1), part("MESSAGE", 1, grammar=Grammar.GENERAL, first_line="=HYPERLINK(1)")]
    (line,) = table(render_units(rows(parts), as_csv=True))
    assert line["メッセージ"] == "'=HYPERLINK(1)"
