"""A unit on its way: its message, what is missing of it and whom it is about are told to its two offices alone."""

from __future__ import annotations

import json
from typing import Any

from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House
from unit_files import insured_numbers, make_files

from relay.model import EventKind, OfficeNumber
from relay.standard.making import MadeFile

KINDS = ("UPPLAN", "UPSIKYU", "UPHOSOKU")
FIRST, SECOND = "20250630100000", "20250630110000"
LETTER = "髙橋花子様の予定を変更しました"


def units_of(office: OfficeNumber, house: House) -> list[dict[str, Any]]:
    """Fetch status/units.json with the real sftp."""
    target = house.path / f"units-{office}.json"
    done = house.sftp(office, f"get status/units.json {target}\nget status/units.csv {target}.csv\n")
    assert done.returncode == 0, done.stderr
    units: list[dict[str, Any]] = json.loads(target.read_bytes())["units"]
    assert target.with_name(target.name + ".csv").read_bytes().startswith("\ufeff送受信".encode())
    return units


def upload(house: House, *files: MadeFile) -> None:
    """Put files into send/ with the real sftp."""
    folder = house.path / "outgoing"
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file.name).write_bytes(file.content)
    done = house.sftp(CARE_MANAGER, "".join(f"put {file.name} send/\n" for file in files), cwd=folder)
    assert done.returncode == 0, done.stderr


def test_a_unit_is_told_to_its_two_offices_and_to_nobody_else(house: House) -> None:
    """Sent in parts, corrected, with a message: both see it, and no number or word is in the clear anywhere."""
    ends = {"sender": CARE_MANAGER, "recipient": HOME_HELP}
    slip, *rest = make_files(*KINDS, serial=FIRST, persons=4, **ends)
    again = make_files(*KINDS, serial=SECOND, persons=4, **ends)
    letter = MadeFile(f"MESSAGE_{CARE_MANAGER}_{HOME_HELP}_{SECOND}.txt", f"{LETTER}\r\nよろしく".encode("cp932"))
    upload(house, slip)
    for office in (CARE_MANAGER, HOME_HELP):
        (unit,) = units_of(office, house)
        assert (unit["is_complete"], unit["missing"]) == (False, ["UPSIKYU", "UPHOSOKU"])
    assert "UPSIKYU" in house.relay("transfer", "units", "--incomplete").stdout
    upload(house, *rest, *again, letter)
    numbers = insured_numbers(slip)
    for office in (CARE_MANAGER, HOME_HELP):
        later, earlier = units_of(office, house)
        assert later["is_complete"]
        assert earlier["is_complete"]
        assert later["messages"] == [LETTER]
        assert {person["insured"] for person in later["persons"]} == numbers
        assert {(person["is_latest"], person["supersedes"]) for person in later["persons"]} == {(True, FIRST)}
        assert {person["latest"] for person in earlier["persons"]} == {SECOND}
    assert units_of(DAY_CARE, house) == []
    (number,) = [each.id for each in house.transfers() if each.kind == "MESSAGE"]
    assert LETTER in house.relay("transfer", "show", str(number), "--reveal").stdout
    assert [event.detail for event in house.events() if event.kind is EventKind.NAMES_REVEALED] == [str(number)]
    _assert_nothing_is_clear(house, numbers)


def _assert_nothing_is_clear(house: House, numbers: set[str]) -> None:
    told = [
        house.relay("transfer", verb, *options)
        for verb, *options in (["list"], ["list", "--json"], ["units"], ["units", "--json"], ["show", "7", "--json"])
    ]
    assert all(each.returncode == 0 for each in told)
    seen = [(each.stdout + each.stderr).encode() for each in told]
    (house.path / "outgoing").rename(house.path.parent / "outgoing")
    for status in house.path.glob("units-*"):
        status.unlink()
    seen += [file.read_bytes() for file in house.path.rglob("*") if file.is_file()]
    assert any(b"SQLite format 3" in each for each in seen)
    secrets = [
        *(number.encode() for number in numbers),
        "花子".encode(),
        "花子".encode("cp932"),
        "花子".encode("utf-16le"),
    ]
    assert len(numbers) == 4
    for each in seen:
        assert not [secret for secret in secrets if secret in each]


def test_the_list_of_transfers_says_how_their_unit_stands(house: House) -> None:
    """Without persons; a file that is part of none has none."""
    slip, annex, _ = make_files(*KINDS, serial=FIRST, sender=CARE_MANAGER, recipient=HOME_HELP)
    report = MadeFile(f"REPORT_{CARE_MANAGER}_{HOME_HELP}_{SECOND}.txt", b"text")
    upload(house, slip, annex, report)
    listed = {each["kind"]: each["unit"] for each in json.loads(house.relay("transfer", "list", "--json").stdout)}
    assert listed["UPPLAN"] == {"standing": "incomplete", "is_complete": False, "missing": ["UPHOSOKU"]}
    assert listed["UPSIKYU"] == listed["UPPLAN"]
    assert listed["TXT"] is None
    assert "incomplete" in house.relay("transfer", "list").stdout
    (unit,) = json.loads(house.relay("transfer", "units", "--json").stdout)
    assert (unit["serial"], [file["kind"] for file in unit["files"]]) == (FIRST, ["UPPLAN", "UPSIKYU"])
    assert "persons" not in unit
