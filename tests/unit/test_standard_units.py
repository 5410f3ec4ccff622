"""Units: which set of kinds is which unit, and what is said about one that is not whole."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relay.model import Address, OfficeNumber
from relay.naming import NamingRules, parse_name
from relay.standard.kinds import KINDS
from relay.standard.units import (
    UNIT_FORMS,
    UnitFile,
    UnitKey,
    UnitVerdict,
    belongs_to,
    find_unit_key,
    import_rank,
    judge_unit,
)

SHARED = Path(__file__).parents[3] / "shared"
PACKAGED = Path(__file__).parents[2] / "relay" / "standard" / "units.csv"
RULES = NamingRules(frozenset({"csv", "jpg", "pdf", "txt"}))
SERIAL = "20260622083604"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared pages are not beside this checkout")


def parse(name: str) -> Address:
    """Read a name that is known to be good."""
    return parse_name(name, RULES)


def judge(kinds: str, standard: str = "4.1", month: str = "202607") -> UnitVerdict:
    """Judge a set of kinds, separated by blanks; ``KIND:month`` has a month of its own."""
    files = []
    for entry in kinds.split():
        kind, _, own = entry.partition(":")
        default = ("000000" if "UP1KYO" in kinds else month) if KINDS[kind].has_month else None
        files.append(UnitFile(kind, own or default))
    return judge_unit(standard, files)


def codes(verdict: UnitVerdict) -> list[str]:
    """Return the codes of what was found."""
    return [found.code for found in verdict.findings]


def sample_batches() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of expected_units.csv."""
    path = SHARED / "samples" / "expected_units.csv"
    if path.exists():
        for row in csv.DictReader(path.read_text("utf-8").splitlines()):
            yield row["batch"], row


@needs_shared
def test_the_packaged_table_is_the_shared_one() -> None:
    """The copy in the package has not drifted from the standard's table."""
    assert PACKAGED.read_bytes() == (SHARED / "standard" / "units.csv").read_bytes()


@needs_shared
@pytest.mark.parametrize("row", [pytest.param(row, id=batch) for batch, row in sample_batches()])
def test_every_batch_of_the_samples_gets_its_verdict(row: dict[str, str]) -> None:
    """The files of a directory are the unit they were meant as, whole or short of what the table says."""
    addresses = [parse(path.name) for path in sorted((SHARED / "samples" / row["batch"]).iterdir())]
    keys = {find_unit_key(address) for address in addresses}
    assert len(keys) == 1
    key = keys.pop()
    assert key is not None
    assert key.standard == row["standard"]
    verdict = judge_unit(key.standard, [UnitFile(address.kind, address.month) for address in addresses])
    assert row["unit_id"] in [form.id for form in verdict.forms]
    expected = [] if row["verdict"] == "accept" else [row["reason_code"]]
    assert codes(verdict) == expected
    assert verdict.is_complete == (row["reason_code"] in ("ok", "unit.annex_missing"))


def test_every_form_is_complete_with_its_required_kinds() -> None:
    """Each row of the table is found again by its own kinds, with and without the optional ones."""
    for form in UNIT_FORMS:
        for kinds in (form.required, form.required + form.optional):
            verdict = judge(" ".join(kinds), form.standard)
            assert form in verdict.forms
            assert verdict.is_complete
            expected = ["unit.annex_missing"] if "UPYOBO" in kinds and "UPYOBO_SUB" not in kinds else []
            assert codes(verdict) == expected


def test_every_kind_has_a_unit_in_each_of_its_standards() -> None:
    """No kind is without a place to travel in, so a single file always has a unit that it belongs to."""
    for kind in KINDS.values():
        for standard in kind.standards:
            assert judge(kind.name, standard).forms, (kind.name, standard)


@pytest.mark.parametrize(
    ("kinds", "unit", "missing"),
    [
        ("UP1KYO", "V41-K1", "UP2KYO UP3KYO UPHOSOKU"),
        ("UPSIKYU", "V41-K2", "UPPLAN UPHOSOKU"),
        ("UPHOSOKU:000000", "V41-K1", "UP1KYO UP2KYO UP3KYO"),
        ("UPHOSOKU:202607", "V41-K2", "UPPLAN UPSIKYU"),
        ("UPYOBO_SUB", "V41-Y3", "UPYOBO"),
        ("UPKIHON_IMAGE", "V41-Y1", "UPKIHON"),
        ("UPYOBO_SUB UPKIHON", "V41-Y2", "UPYOBO"),
        ("UPKIHON UPKIHON_IMAGE UPKIHON_IMAGE", "V41-Y1", ""),
    ],
)
def test_a_set_that_is_short_is_told_what_is_missing(kinds: str, unit: str, missing: str) -> None:
    """The nearest unit is named, and the kinds it still wants, in the order of the table."""
    verdict = judge(kinds)
    assert [form.id for form in verdict.forms][:1] == [unit]
    assert verdict.missing == tuple(missing.split())
    assert codes(verdict) == (["unit.incomplete"] if missing else [])


@pytest.mark.parametrize(
    "kinds",
    ["UP1KYO UPPLAN", "UPJSK DLTJSK", "UPPLAN UPSIKYU UPHOSOKU UPJSK", "DLT1KYO UP1KYO", "UPKIHON UPPLAN"],
)
def test_kinds_of_two_units_under_one_serial_are_not_allowed(kinds: str) -> None:
    """What no row of the table holds together is told as such, not as something missing."""
    verdict = judge(kinds)
    assert verdict.forms == ()
    assert not verdict.is_complete
    assert codes(verdict)[0] == "unit.not_allowed"
    assert all(kind in verdict.findings[0].message_ja for kind in kinds.split())


def test_a_plan_of_three_tables_is_no_unit_of_the_older_standard() -> None:
    """Table 3 is new in version 4, and the plan of two tables is short of it there."""
    assert codes(judge("UP1KYO UP2KYO UP3KYO UPHOSOKU", "3.2")) == ["unit.not_allowed"]
    assert codes(judge("UP1KYO UP2KYO UPHOSOKU", "3.2")) == []
    assert judge("UP1KYO UP2KYO UPHOSOKU", "4.1").missing == ("UP3KYO",)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("UP1KYO UP2KYO UP3KYO UPHOSOKU:202607", ["unit.supplement_mismatch"]),
        ("UPPLAN UPSIKYU UPHOSOKU:000000", ["unit.supplement_mismatch"]),
        ("UPPLAN UPSIKYU UPHOSOKU:202608", ["unit.supplement_mismatch"]),
        ("UPPLAN UPSIKYU:202608 UPHOSOKU", ["unit.not_allowed"]),
        ("UPPLAN UPPLAN:202608 UPSIKYU:202608 UPHOSOKU:202608", ["unit.not_allowed"]),
    ],
)
def test_the_months_of_a_unit_agree(kinds: str, expected: list[str]) -> None:
    """A supplement says no month beside a plan and the slip's month beside a slip; a slip and its annex agree."""
    assert codes(judge(kinds)) == expected


def slip(supplement: Sequence[bytes], annex: Sequence[bytes]) -> UnitVerdict:
    """Judge a use slip with persons a and b, and these in the other two files, one a line."""

    def file(kind: str, persons: Sequence[bytes]) -> UnitFile:
        return UnitFile(kind, "202607", {person: line for line, person in enumerate(persons, 1)})

    return judge_unit("4.1", [file("UPPLAN", [b"a", b"b"]), file("UPHOSOKU", supplement), file("UPSIKYU", annex)])


def test_a_person_whom_the_slip_lacks_is_told_with_the_line_and_without_the_person() -> None:
    """The kind, the first line and the number of persons are named; who it is, is not."""
    assert slip([b"a"], [b"a", b"b"]).findings == ()
    (found,) = slip([b"a", b"x", b"y"], [b"b"]).findings
    assert found.code == "unit.unrelated_person"
    assert dict(found.facts)["line"] == "2"
    assert (
        found.message_ja
        == "UPHOSOKU「利用者補足情報」に、UPPLAN（サービス利用票）にいない利用者がいます（2行目から2人）"
    )
    assert found.message_en == "UPHOSOKU names somebody who is not in the use slip UPPLAN (2 persons from line 2 on)"
    assert [dict(found.facts)["kind"] for found in slip([b"x"], [b"x"]).findings] == ["UPHOSOKU", "UPSIKYU"]


def test_persons_are_compared_only_where_both_sides_were_looked_at() -> None:
    """Without the slip, or with files nobody opened, nothing is claimed about persons."""
    unread = [UnitFile("UPPLAN", "202607"), UnitFile("UPSIKYU", "202607", {b"x": 1}), UnitFile("UPHOSOKU", "202607")]
    assert judge_unit("4.1", unread).findings == ()


def test_files_of_one_unit_share_their_key_and_its_message_travels_with_it() -> None:
    """Both service types are part of the key; a message or report may leave them out."""
    a, b = OfficeNumber("0178515854"), OfficeNumber("0178529384")
    plan = parse(f"UPPLAN_202607_{a}_43_{b}_11_{SERIAL}.CSV")
    key = UnitKey(a, b, "43", "11", SERIAL)
    assert find_unit_key(plan) == key
    assert find_unit_key(parse(f"MESSAGE_{a}_{b}_{SERIAL}.txt")) is None
    assert belongs_to(plan, key)
    assert belongs_to(parse(f"MESSAGE_{a}_{b}_{SERIAL}.txt"), key)
    assert belongs_to(parse(f"REPORT_{a}_43_{b}_11_{SERIAL}.pdf"), key)
    assert not belongs_to(parse(f"REPORT_{a}_43_{b}_15_{SERIAL}.pdf"), key)
    assert not belongs_to(parse(f"MESSAGE_{b}_{a}_{SERIAL}.txt"), key)
    assert not belongs_to(parse(f"UPPLAN_202607_{a}_43_{b}_15_{SERIAL}.CSV"), key)


def test_the_base_file_is_imported_before_what_depends_on_it() -> None:
    """Sorted by rank, plan, slip, basic information and preventive plan come before their annexes and supplement."""
    kinds = ["UPHOSOKU", "UP3KYO", "UP2KYO", "UP1KYO"]
    assert min(kinds, key=import_rank) == "UP1KYO"
    assert min(["UPSIKYU", "UPHOSOKU", "UPPLAN"], key=import_rank) == "UPPLAN"
    assert sorted(["UPKIHON_SUB1", "UPYOBO_SUB", "UPYOBO", "UPKIHON"], key=import_rank)[:2] == ["UPKIHON", "UPYOBO"]
