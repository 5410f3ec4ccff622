"""The content of the standard's CSV: rules beyond the single item, what the operator may change, and what is held."""

from __future__ import annotations

import re
import tracemalloc

import pytest
from standard_files import (
    ANNEX,
    DAY_CARE,
    DELETION,
    HELPERS,
    MANAGER,
    OLD_RESULTS,
    OLD_SLIP,
    PLAN_LINES,
    PLAN_SUPPLEMENT,
    RESULTS,
    RESULTS_DELETION,
    SLIP,
    SUPPLEMENT,
    judge,
    slip,
    write,
)

from relay.content import start_check
from relay.errors import CLIENT_TEXT_CHARACTERS, TABLE, Severity
from relay.naming import NamingRules, parse_name
from relay.standard import persons, repeats
from relay.standard.faults import Faults
from relay.standard.layouts import count_items, layout
from relay.standard.records import RECORD_BYTES
from relay.standard.services import CARE_MANAGEMENT, SERVICE_SCOPES
from relay.standard.versions import VERSIONS, current_version

PERSON = ["202407", "019992", "0000000001"]
WANDERER = slip(("0000000001", "02", HELPERS), ("0000000002", "02", DAY_CARE))
MIXED = write(slip(("0000000001", "02", HELPERS)) + slip(("0000000001", "03", HELPERS), version="202208"))
OLD = write(slip(("0000000001", "02", HELPERS), month="202502", version="202208"))


def supplement(plan_date: str, month: str) -> bytes:
    """Return one record of UPHOSOKU with these link items."""
    record = [*PERSON, plan_date, "ﾐﾎﾝ", "見本", "1", "19350101", *[""] * 54, month]
    return write([record])


def plan_line(issue: str, aim: str, help_: str, text: str) -> list[str]:
    """Return one record of table 2 with these numbers."""
    return [*PERSON, "20260601", "20260601", issue, "", aim, "", "", "", "", help_, text, *[""] * 8]


# --- persons -----------------------------------------------------------------------------------------------------


def test_a_person_whom_the_recipient_does_not_serve_is_told_by_line_and_never_by_number() -> None:
    """The worst accident: the sentence says where and how many, and nothing of who it is."""
    (found,) = judge(SLIP, write(WANDERER)).findings
    assert found.code == "content.unrelated_person"
    assert "2行目" in found.message_ja
    assert "1人" in found.message_ja
    assert "0000000002" not in found.client_text


def test_a_person_is_known_by_insurer_and_number_together() -> None:
    """The same insured number with another insurer is somebody else."""
    records = slip(("0000000001", "02", HELPERS), ("0000000001", "03", HELPERS), ("0000000001", "04", DAY_CARE))
    assert judge(SLIP, write(records)).codes == ()
    records[2][1] = "019993"
    assert judge(SLIP, write(records)).codes == ("content.unrelated_person",)


def test_the_recipients_line_may_come_long_after_the_persons_first() -> None:
    """A person waits for a line of the recipient's until the end of the file."""
    rows = [(f"{number:010d}", "02", DAY_CARE) for number in range(300)]
    rows += [(f"{number:010d}", "03", HELPERS) for number in range(300)]
    data = write(slip(*rows))
    assert judge(SLIP, data[:9_000], data[9_000:20_000], data[20_000:]).codes == ()
    assert judge(SLIP, write(slip(*rows[:-1]))).codes == ("content.unrelated_person",)


def test_table_7_is_judged_as_table_6_and_other_kinds_are_not() -> None:
    """Only the slip and its annex name providers for every person."""
    record = [
        *PERSON,
        "20260601",
        "202607",
        "",
        DAY_CARE,
        "",
        "111211",
        *["", "", ""],
        "1",
        "",
        "",
        "1",
        *[""] * 16,
        "0",
    ]
    record += [""] * 4
    assert len(record) == count_items("UPSIKYU", "4.1")
    assert judge(ANNEX, write([record])).codes == ("content.unrelated_person",)
    record[6] = HELPERS
    assert judge(ANNEX, write([record])).codes == ()
    assert judge(SUPPLEMENT, supplement("00000000", "202607")).codes == ()


@pytest.mark.parametrize(
    ("name", "services", "is_judged"),
    [
        (SLIP, (), True),
        (SLIP.replace(f"{HELPERS}_11", f"{HELPERS}_46"), (), False),
        (SLIP.replace(f"{HELPERS}_11", f"{HELPERS}_43"), ("43",), False),
        # The register knows better than a name that calls a provider a care manager.
        (SLIP.replace(f"{HELPERS}_11", f"{HELPERS}_43"), ("11",), True),
        (SLIP, ("11", "43"), True),
        (OLD_SLIP, (), True),
        (OLD_SLIP, ("11",), True),
        (OLD_SLIP, ("46",), False),
    ],
)
def test_who_plans_care_may_be_told_of_anybody(name: str, services: tuple[str, ...], *, is_judged: bool) -> None:
    """A support centre is no provider in any line; names of 3.2 do not say it, so the register does."""
    old = {"month": "202502", "version": "202208"} if name == OLD_SLIP else {}
    data = write(slip(("0000000001", "02", DAY_CARE), **old))
    expected = ("content.unrelated_person",) if is_judged else ()
    assert judge(name, data, recipient_services=services).codes == expected


@pytest.mark.parametrize("code", ["content.field_count", "content.quote", "content.truncated"])
def test_a_record_that_cannot_be_read_does_not_hide_a_person(code: str) -> None:
    """An operator who lets broken records through still lets no stranger through."""
    broken = {
        "content.field_count": write([*WANDERER[:1], WANDERER[1][:-1]]),
        "content.quote": write(WANDERER).replace(b",387,", b',3"87,'),
        "content.truncated": write(WANDERER)[:-20],
    }[code]
    severities = {code: Severity.WARN}
    assert judge(SLIP, broken, severities=severities).codes == ("content.unrelated_person",)


def findings(name: str, data: bytes, severities: dict[str, Severity] | None = None) -> list[str]:
    """Return the codes of everything that is found, as `relay check` lists it."""
    check = start_check(parse_name(name, NamingRules(frozenset({"csv"}))), severities or {})
    check.feed(data)
    return [judged.finding.code for judged in check.find_all()]


def test_nobody_is_called_a_stranger_for_what_nobody_could_read() -> None:
    """A person whose lines are short is not said to be unrelated beside that; a real stranger is, by the line."""
    served = slip(("0000000001", "02", HELPERS), ("0000000003", "02", HELPERS))
    served[0].pop()
    assert findings(SLIP, write(served)) == ["content.field_count"]
    assert findings(SLIP, write([*served, WANDERER[1]])) == ["content.field_count", "content.unrelated_person"]
    mistyped = slip(("0000000001", "02", HELPERS), ("000000001", "03", DAY_CARE))
    assert findings(SLIP, write(mistyped)) == ["content.key_item"]
    assert findings(SLIP, write(mistyped), {"content.key_item": Severity.WARN})[0] == "content.unrelated_person"
    lowered = {"content.field_count": Severity.WARN}
    assert findings(SLIP, write(served), lowered) == ["content.unrelated_person", "content.field_count"]


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n",
        b"PK\3\4" + bytes(range(256)),
        b"\xff\xd8\xff\xe0" + bytes(range(256)),
        b"<html><body>502</body></html>\r\n",
        b"<a>",
    ],
)
def test_another_format_under_the_name_of_a_csv_is_called_so(data: bytes) -> None:
    """Nobody is told of items and encodings of what is a PDF, a workbook, a picture or a web page."""
    assert findings(SLIP, data) == ["content.not_this_kind"]
    assert judge(SLIP, *(data[at : at + 1] for at in range(len(data)))) == judge(SLIP, data)
    assert "content.not_this_kind" not in findings(SLIP, data, {"content.not_this_kind": Severity.WARN})


def test_what_a_spreadsheet_or_a_wrong_recipient_does_is_said_in_its_words() -> None:
    """Tabs in place of commas, and a file whose every person is somebody else's."""
    tabs = judge(SLIP, write(slip(("0000000001", "02", HELPERS))).replace(b",", b"\t"))
    assert "カンマで25項目に区切られていません" in tabs.findings[0].message_ja
    strangers = judge(SLIP, write(slip(("0000000001", "02", DAY_CARE), ("0000000002", "02", DAY_CARE))))
    assert "利用者2人の全員" in strangers.findings[0].message_ja


def test_what_only_follows_from_the_cause_is_not_said_beside_it() -> None:
    """Of a file of another month or edition, neither its days nor its period are told as well."""
    rows = (("0000000001", "02", HELPERS), ("0000000001", "03", HELPERS))
    assert findings(SLIP, write(slip(*rows, month="202608"))) == ["content.month_mismatch"]
    old = write(slip(*rows, version="202208"))
    assert findings(SLIP, old) == ["content.version_name_mismatch"]
    unasked = {"content.version_name_mismatch": Severity.OFF, "content.month_mismatch": Severity.OFF}
    assert findings(SLIP, old, unasked) == ["content.version_period"]
    assert "content.date_outside_month" in findings(SLIP, write(slip(*rows, month="202608")), unasked)


def test_more_persons_than_can_be_held_are_not_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be judged is not promised."""
    monkeypatch.setattr(persons, "MOST_PERSONS", 100)
    assert judge(SLIP, write(slip(*((f"{n:010d}", "02", HELPERS) for n in range(100))))).codes == ()
    assert judge(SLIP, write(slip(*((f"{n:010d}", "02", HELPERS) for n in range(101))))).codes == (
        "content.unrelated_person",
    )


# --- versions ----------------------------------------------------------------------------------------------------


def test_versions_are_compared_with_each_other_with_the_name_and_with_the_month() -> None:
    """Each record is as long as its own version says, and what is wrong is called by its name."""
    assert judge(SLIP, MIXED).codes == ("content.version_mixed",)
    assert judge(OLD_SLIP, OLD).codes == ()
    assert judge(OLD_SLIP.replace("202502", "202504"), OLD.replace(b"202502", b"202504")).codes == (
        "content.version_period",
    )
    new = write(slip(("0000000001", "02", HELPERS), month="202502"))
    assert judge(OLD_SLIP, new).codes == ("content.version_name_mismatch",)
    assert judge(SLIP, OLD.replace(b"202502", b"202607")).codes == ("content.version_name_mismatch",)


def test_the_tables_agree_with_each_other() -> None:
    """Every version has layouts, every item a number in order, every service one scope."""
    for version in VERSIONS.values():
        assert current_version(version.standard) == version
        items = layout(version.standard, "UPPLAN")
        assert [item.number for item in items] == list(range(1, len(items) + 1))
    assert frozenset({"43", "46"}) == CARE_MANAGEMENT
    assert SERVICE_SCOPES["A2"] == "general"
    with pytest.raises(KeyError):
        current_version("5.0")


# --- other items -------------------------------------------------------------------------------------------------


def test_results_of_another_office_are_told_unless_the_sender_forwards_them() -> None:
    """Of a name of 3.2 the register tells whether the sender plans care; without it nothing is said."""
    mine = write(slip(("0000000001", "02", HELPERS)))
    others = write(slip(("0000000001", "02", DAY_CARE)))
    assert judge(RESULTS, mine).codes == ()
    assert judge(RESULTS, others).codes == ("content.result_office",)
    forwarded = f"UPJSK_202607_{MANAGER}_43_0108506627_46_20260622092951.CSV"
    assert judge(forwarded, others).codes == ()
    old = write(slip(("0000000001", "02", DAY_CARE), month="202502", version="202208"))
    assert judge(OLD_RESULTS, old, sender_services=("11",)).codes == ("content.result_office",)
    assert judge(OLD_RESULTS, old, sender_services=("43",)).codes == ()
    assert judge(OLD_RESULTS, old).codes == ()
    assert judge(RESULTS_DELETION, write([[*PERSON, "202607", DAY_CARE, "11"]])).codes == ("content.result_office",)


def test_a_supplement_must_be_linked_to_a_plan_or_a_month() -> None:
    """Items 4 and 63 both zero link it to nothing; its month is that of the name, 000000 included."""
    assert judge(PLAN_SUPPLEMENT, supplement("20260601", "000000")).codes == ()
    assert judge(PLAN_SUPPLEMENT, supplement("00000000", "000000")).codes == ("content.link_item",)
    assert judge(PLAN_SUPPLEMENT, supplement("20260601", "202607")).codes == ("content.month_mismatch",)
    assert judge(SUPPLEMENT, supplement("00000000", "")).codes == ("content.required_item",)


def test_a_line_number_of_table_2_is_repeated_only_if_all_three_numbers_are_there() -> None:
    """An empty number means that of the line above, so such lines are not compared."""
    assert judge(PLAN_LINES, write([plan_line("1", "1", "1", "a"), plan_line("1", "1", "2", "b")])).codes == ()
    assert judge(PLAN_LINES, write([plan_line("1", "1", "1", "a"), plan_line("1", "1", "1", "b")])).codes == (
        "content.repeated_line",
    )
    assert judge(PLAN_LINES, write([plan_line("1", "", "1", "a"), plan_line("1", "", "1", "b")])).codes == ()


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    """A line end inside quotation marks is a line end to an editor, and no end of a record."""
    records = [plan_line("1", "1", "1", '"a\r\nb\nc"'), plan_line("1", "1", "2", "d"), plan_line("1", "1", "200", "e")]
    (found,) = judge(PLAN_LINES, write(records)).findings
    assert (found.code, dict(found.facts)["line"]) == ("content.item_length", "5")


def test_half_width_kana_that_happen_to_be_utf_8_are_ms932() -> None:
    """Only what yields kana, kanji or full-width forms is taken for UTF-8 (section 4)."""
    kana = "ﾂｱ"
    kana.encode("cp932").decode("utf-8")
    assert judge(PLAN_LINES, write([plan_line("1", "1", "1", kana)])).codes == ()


def test_one_fault_is_told_once_with_its_count() -> None:
    """A thousand bad records make one sentence."""
    records = slip(*((f"{number:010d}", "02", HELPERS) for number in range(1000)))
    for record in records:
        record[3] = ""
    (found,) = judge(SLIP, write(records)).findings
    assert found.message_ja == "必ず入れる項目が空です（1行目、項目4「作成年月日」、ほか999か所）"
    assert dict(found.facts)["item"] == "4"


# --- what the operator may change, and what is held ---------------------------------------------------------------


def test_the_operator_can_set_every_content_code() -> None:
    """Refuse becomes a warning, a warning a refusal, and off says nothing."""
    data = write(WANDERER)
    code = "content.unrelated_person"
    assert judge(SLIP, data, severities={code: Severity.WARN}).codes == (code,)
    assert judge(SLIP, data, severities={code: Severity.OFF}).codes == ()
    twice = write(slip(("0000000001", "02", HELPERS)) * 2)
    found = judge(SLIP, twice, severities={"content.duplicate_record": Severity.REFUSE})
    assert (found.verdict, found.codes) == ("refuse", ("content.duplicate_record",))


def test_everything_can_be_told_at_once() -> None:
    """Who checks before sending wants all of it: refusals first, then warnings."""
    records = slip(("0000000001", "02", HELPERS), ("0000000002", "02", DAY_CARE))
    records[0][4], records[0][3] = "202608", ""
    check = start_check(parse_name(SLIP, NamingRules(frozenset({"csv"}))), {})
    check.feed(write(records))
    assert [(judged.finding.code, judged.severity) for judged in check.find_all()] == [
        ("content.month_mismatch", Severity.REFUSE),
        ("content.unrelated_person", Severity.REFUSE),
        ("content.required_item", Severity.WARN),
    ]


def test_every_sentence_fits_over_the_wire_with_its_longest_place_and_names_no_value() -> None:
    """What a clerk needs stands first and is never cut off: code, Japanese sentence and place."""
    longest = max(layout("4.1", "UPYOBO"), key=lambda item: len(item.name_ja))
    for code, row in TABLE.items():
        if not code.startswith("content."):
            continue
        assert set(re.findall(r"{(\w+)}", row.ja + row.en)) <= {"where", "where_ja", "kind"}, code
        faults = Faults()
        faults.add(code, 123_456, item=longest, count=100)
        (found,) = faults.findings()
        assert len(f"{code}: {found.message_ja}") < CLIENT_TEXT_CHARACTERS * 2 / 3, found.message_ja


@pytest.mark.parametrize("quoted", ["", '"'])
def test_a_record_that_never_ends_is_refused_and_not_held(quoted: str) -> None:
    """Beyond a mebibyte it is a quotation mark gone astray: open at the end a cut, else wrong."""
    data = write(slip(("0000000001", "02", HELPERS))) + b"202407," + quoted.encode()
    check = start_check(parse_name(SLIP, NamingRules(frozenset({"csv"}))), {"content.unrelated_person": Severity.OFF})
    check.feed(data)
    tracemalloc.start()
    try:
        for _ in range(40):
            check.feed(b"x" * 100_000)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < RECORD_BYTES * 1.3
    assert peak < RECORD_BYTES * 9
    (found, *_) = check.find_all()
    assert found.finding.code == ("content.truncated" if quoted else "content.quote")
    assert judge(SLIP, data + b"x" * 4_000_000).codes == (found.finding.code,)


def test_what_is_held_does_not_grow_with_a_file() -> None:
    """Megabytes of records that all differ leave no more than the digests and persons that are allowed."""
    rows = [(f"{number % 50:010d}", f"{number % 30 + 1:02d}", HELPERS) for number in range(1500)]
    data = write(slip(*rows))
    check = start_check(parse_name(SLIP, NamingRules(frozenset({"csv"}))), {})
    tracemalloc.start()
    try:
        for number in range(30):
            check.feed(data.replace(b"0900,0945", b"%02d%02d,2345" % divmod(number, 60)))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 16 << 20
    assert peak < 24 << 20
    assert {found.code for found in check.finish()} <= {"content.duplicate_record"}


def test_a_deletion_of_one_record_conforms() -> None:
    """The smallest file of the standard."""
    assert judge(DELETION, b"202407,019992,0000000001,20260601").codes == ()


def test_repetitions_are_found_among_as_many_records_as_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows is compared with what is held, however it arrives, and not with itself."""
    monkeypatch.setattr(repeats, "MOST_DIGESTS", 10)
    rows = [(f"{number:010d}", "02", HELPERS) for number in range(12)]
    last_twice = write(slip(*rows, rows[11]))
    first_twice = write(slip(*rows, rows[0], rows[9]))
    for size in (1, 300, 10_000):
        pieces = [last_twice[start : start + size] for start in range(0, len(last_twice), size)]
        assert judge(SLIP, *pieces).codes == ()
        pieces = [first_twice[start : start + size] for start in range(0, len(first_twice), size)]
        assert judge(SLIP, *pieces).codes == ("content.duplicate_record",)


CONTENT = [code for code in TABLE if code.startswith("content.")]


@pytest.mark.parametrize("code", CONTENT)
def test_a_check_that_is_off_changes_nothing_but_its_own_finding(code: str) -> None:
    """What is left out for it serves no other check."""
    for name, records in (
        (
            SLIP,
            [
                *slip(("0000000001", "02", DAY_CARE), ("0000000002", "32", HELPERS), month="202608"),
                *slip(("1", "x", "")),
            ],
        ),
        (PLAN_LINES, [plan_line("1", "1", "1", "a"), plan_line("1", "1", "1", "b"), plan_line("1", "1", "1", "b")]),
    ):
        data = write(records) + b"\x1a"
        told = findings(name, data, dict.fromkeys(CONTENT, Severity.WARN))
        rest = findings(name, data, {**dict.fromkeys(CONTENT, Severity.WARN), code: Severity.OFF})
        follows = {
            "content.month_mismatch": {"content.date_outside_month"},
            "content.version_mixed": {"content.version_period"},
        }
        assert set(rest) - follows.get(code, set()) == set(told) - {code}


def test_an_operator_who_wants_no_check_pays_for_none() -> None:
    """With every check off nothing is read: whatever the bytes are, nothing is said, and nobody is listed."""
    off = dict.fromkeys(CONTENT, Severity.OFF)
    check = start_check(parse_name(SLIP, NamingRules(frozenset({"csv"}))), off)
    check.feed(write(WANDERER))
    assert check.finish() == ()
    assert check.gist.roster is None
    assert judge(SLIP, b"\0\xff", severities=off).codes == ()
    # One that is left is computed.
    del off["content.unrelated_person"]
    assert judge(SLIP, write(WANDERER), severities=off).codes == ("content.unrelated_person",)
