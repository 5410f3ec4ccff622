"""What is read of a file for the sake of its unit: whom it is about, how its message begins, and what stays sealed."""

from __future__ import annotations

import json

import pytest
from ledgers import A, new_vault
from unit_files import RULES, insured_numbers, make_files, message

from relay.content import Gist, read_first_line, start_check
from relay.naming import parse_name
from relay.standard import roster
from relay.standard.making import MadeFile
from relay.standard.roster import Listed, Subject
from relay.unitparts import PERSONS, SealedPart, read_entries, seal_part
from relay.vault import Sealer, Vault, new_key, new_uid

KEYS = {
    "UP1KYO": (Subject.PLAN, 8),
    "UP2KYO": (Subject.PLAN, 8),
    "UP3KYO": (Subject.PLAN, 8),
    "DLT1KYO": (Subject.PLAN, 8),
    "UPPLAN": (Subject.SLIP, 6),
    "UPSIKYU": (Subject.SLIP, 6),
    "DLTPLAN": (Subject.SLIP, 6),
    "UPJSK": (Subject.RESULTS, 6),
    "DLTJSK": (Subject.RESULTS, 6),
    "UPKIHON": (Subject.BASIC, 8),
    "UPKIHON_SUB1": (Subject.BASIC, 8),
    "UPKIHON_SUB2": (Subject.BASIC, 8),
    "DLTKIHON": (Subject.BASIC, 8),
    "UPYOBO": (Subject.PREVENTIVE, 8),
    "UPYOBO_SUB": (Subject.PREVENTIVE, 8),
    "DLTYOBO": (Subject.PREVENTIVE, 8),
}


def gist_of(file: MadeFile, *, piece: int = 1_000) -> Gist:
    """Return what is kept of *file*, fed in pieces."""
    check = start_check(parse_name(file.name, RULES), {})
    for at in range(0, len(file.content), piece):
        check.feed(file.content[at : at + piece])
    check.finish()
    return check.gist


def listed_in(file: MadeFile) -> list[Listed]:
    """Return who is in *file*."""
    found = gist_of(file).roster
    assert found is not None
    return list(found)


def seal(file: MadeFile, gist: Gist | None = None, vault: Vault | None = None) -> tuple[SealedPart, Sealer]:
    """Return what an upload of *file* would keep, and what opens it."""
    sealer = Sealer(new_key(), new_uid())
    part = seal_part(parse_name(file.name, RULES), A, gist or gist_of(file), vault or new_vault(), sealer)
    assert part is not None
    return part, sealer


@pytest.mark.parametrize("kind", KEYS)
def test_each_person_is_listed_under_the_key_of_what_the_file_says(kind: str) -> None:
    """A plan by its date, a slip and results by the month, basic information by the consultation."""
    (file,) = make_files(kind, persons=3)
    found = listed_in(file)
    subject, digits = KEYS[kind]
    assert {each.subject for each in found} == {subject}
    assert all(len(each.key) == digits and each.key.isdigit() for each in found)
    assert {each.insured for each in found} == insured_numbers(file)
    if subject is not Subject.RESULTS:
        assert len(found) == 3


def test_every_csv_of_the_standard_has_such_a_key() -> None:
    """But for the image, which holds no number; the supplement goes with what it supplements."""
    from relay.standard.kinds import KINDS

    assert set(KEYS) | {"UPHOSOKU", "UPKIHON_IMAGE"} == set(KINDS)


@pytest.mark.parametrize(("base", "subject", "digits"), [("UP1KYO", Subject.PLAN, 8), ("UPPLAN", Subject.SLIP, 6)])
def test_a_supplement_is_listed_with_what_it_supplements(base: str, subject: Subject, digits: int) -> None:
    """By the plan's date beside a plan, by the month beside a slip."""
    (file,) = (file for file in make_files(base, "UPHOSOKU") if "UPHOSOKU" in file.name)
    assert {(each.subject, len(each.key)) for each in listed_in(file)} == {(subject, digits)}


def test_results_of_two_providers_are_two_matters() -> None:
    """A deletion of results names provider and service type, so neither replaces the other's."""
    (file,) = make_files("UPJSK", persons=1)
    (one,) = {each.part for each in listed_in(file)}
    other = MadeFile(file.name, file.content.replace(one.split()[0].encode(), b"0178512687"))
    assert {each.part for each in listed_in(other)} == {"0178512687 " + one.split()[1]}


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_the_list_does_not_depend_on_how_the_file_arrived(piece: int) -> None:
    """Any split gives the same persons."""
    (file,) = make_files("UPPLAN", persons=5)[:1]
    assert list(gist_of(file, piece=piece).roster or ()) == listed_in(file)


def test_a_list_that_is_too_long_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a file is bounded; the rest of the file is judged all the same."""
    monkeypatch.setattr(roster, "MOST_LISTED", 10)
    (file,) = make_files("DLTPLAN", persons=40)
    found = gist_of(file, piece=300).roster
    assert found is not None
    assert (len(list(found)), found.is_partial) == (10, True)
    part, _ = seal(file)
    assert part.is_partial
    assert len(part.persons or b"") == 10 * 16


def test_what_was_sealed_is_read_again() -> None:
    """Digests, keys and numbers, in the order of the file."""
    (file,) = make_files("UP1KYO", persons=3)
    vault = new_vault()
    part, sealer = seal(file, vault=vault)
    entries = read_entries(part.keys, part.persons, lambda: sealer.open_part(PERSONS, part.persons_sealed or b""))
    assert entries is not None
    told = {(entry.insurer, entry.insured, entry.subject, entry.key) for entry in entries}
    assert told == {each[:4] for each in listed_in(file)}
    assert all(entry.person == vault.index("person", entry.insurer or "", entry.insured or "") for entry in entries)


def test_only_dates_and_months_are_kept_in_the_clear() -> None:
    """A number that stands where the date should be, which is only warned of, is not told by the keys."""
    (file,) = make_files("DLT1KYO", persons=1)
    (person,) = listed_in(file)
    number = person.insured.encode()
    part, _ = seal(MadeFile(file.name, file.content.replace(person.key.encode(), number)))
    assert part.keys is not None
    assert json.loads(part.keys)[0][1] == ""
    assert person.insured not in part.keys


def test_a_file_that_could_not_be_read_whole_lists_who_was_read() -> None:
    """Where the operator lets such a file pass, nobody is told to be missing from it."""
    (file,) = make_files("DLTPLAN", persons=3)
    check = start_check(parse_name(file.name, RULES), {})
    check.feed(file.content + b'202407,x"y,\r\n')
    with pytest.raises(Exception, match="quote"):
        check.finish()
    found = check.gist.roster
    assert found is not None
    assert found.is_partial


def test_a_free_name_is_no_part_of_a_unit() -> None:
    """Without a serial it belongs to none."""
    address = parse_name("plan.pdf", RULES, folder=A)
    assert seal_part(address, A, Gist(), new_vault(), Sealer(new_key(), new_uid())) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("変更あり\r\n二行目".encode(), "変更あり"),
        ("髙橋様 変更\r\n".encode("cp932"), "髙橋様 変更"),
        (b"\xef\xbb\xbf" + "印付き\n".encode(), "印付き"),
        (b"\r\n \r\n  after blank lines \n", "after blank lines"),
        ("あ".encode() * 1_000, "あ" * 200),
        ("あ".encode("cp932") * 1_000, "あ" * 200),
        (b"tab\there\x1b[31m\nsecond", "tab here [31m"),
        (b"\xff\xfeh\x00i\x00", None),
    ],
)
@pytest.mark.parametrize("piece", [1, 5_000])
def test_a_message_is_told_by_its_first_line(text: bytes, line: str | None, piece: int) -> None:
    """In UTF-8 or else MS932, without what steers a terminal, not longer than a table has room for."""
    assert gist_of(message(text), piece=piece).first_line == line


def test_half_a_character_at_the_end_of_what_is_known_is_left_out() -> None:
    """The beginning of a long line may end anywhere."""
    assert read_first_line("あい".encode()[:-1]) == "あ"


def test_other_texts_keep_no_line() -> None:
    """Only the unit's message is shown; a report is a file."""
    other = MadeFile(message(b"x").name.replace("MESSAGE", "REPORT"), b"text")
    assert gist_of(other) == Gist()
    assert seal(other)[0].line_sealed is None
