"""What a vendor's tests and a clerk's script see: ``relay check`` and ``relay standard``, the real program, offline."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from relay.standard.census import Census
from relay.standard.kinds import KINDS

RELAY = Path(sys.executable).with_name("relay")
SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
REGISTER = SAMPLES / "offices.csv"
NOW = ("--on", "2026-12-01")
A, B = "0178515854", "0178529384"
SLIP = f"UPPLAN_202507_{A}_43_{B}_11_20250622090000.CSV"
# Offered by another office than the one in the name: only --as can tell.
BY_ANOTHER = "refuse/sender-is-not-the-uploader/"
needs_samples = pytest.mark.skipif(not SAMPLES.exists(), reason="the shared samples are not beside this checkout")

Json = Mapping[str, object]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[Json]:
        """What --json printed, one object a line."""
        return [cast(Json, json.loads(line)) for line in self.out.splitlines()]

    @property
    def files(self) -> dict[str, Json]:
        """The objects that are about a file, by its path."""
        return {cast(str, entry["file"]): entry for entry in self.objects if "file" in entry}

    @property
    def units(self) -> list[Json]:
        """The objects that are about a unit."""
        return [entry for entry in self.objects if "unit" in entry]


def relay(*words: str | Path, cwd: Path | None = None) -> Outcome:
    """Run the program where no relay lives: nothing of an installation may be needed."""
    environ = {**os.environ, "RELAY_HOME": "/nowhere", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([RELAY, *words], cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def codes(entry: Json) -> list[str]:
    """Return the codes of an object's findings, in order."""
    return [cast(str, found["code"]) for found in cast(list[Json], entry["findings"])]


def expected_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of one of the samples' tables."""
    return list(csv.DictReader((SAMPLES / name).read_text("utf-8").splitlines()))


def make_nameable(rows: list[dict[str, str]], folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Write the files that lie nowhere because not every system can hold their names; yield those that this one can."""
    for place, row in enumerate(rows):
        if row["file"]:
            continue
        raw = (
            bytes.fromhex(row["name_bytes_hex"]) if row["name_bytes_hex"] else json.loads(row["name_escaped"]).encode()
        )
        if b"/" in raw or b"\0" in raw or len(raw) > 255:
            continue
        own = folder / str(place)
        own.mkdir()
        path = own / os.fsdecode(raw)
        path.write_bytes((SAMPLES / row["content_from"]).read_bytes())
        yield path, row


def agrees(entry: Json, row: dict[str, str]) -> bool:
    """Say whether a file got its verdict, for the reason that is expected."""
    reasons = [] if row["reason_code"] == "ok" else [row["reason_code"]]
    return entry["verdict"] == row["verdict"] and codes(entry)[:1] == reasons


@needs_samples
def test_every_sample_gets_its_verdict_in_one_run(tmp_path: Path) -> None:
    """All files of the samples, and those whose names are hard to keep, are judged as their table says."""
    rows = expected_rows("expected.csv")
    extra = dict(make_nameable(rows, tmp_path))
    done = relay("check", "--json", *NOW, "--offices", REGISTER, "accept", "warn", "refuse", *extra, cwd=SAMPLES)
    assert (done.code, done.err) == (2, "")
    files = done.files
    wrong = [
        (row["file"], row["reason_code"], files[row["file"]])
        for row in rows
        if row["file"] and not row["file"].startswith(BY_ANOTHER) and not agrees(files[row["file"]], row)
    ]
    assert wrong == []
    by_folder = {path.rpartition("/")[0]: entry for path, entry in files.items()}
    assert len(extra) > 5
    assert [row for path, row in extra.items() if not agrees(by_folder[str(path.parent)], row)] == []
    assert len(files) == len(extra) + sum(1 for row in rows if row["file"])


@needs_samples
def test_a_file_of_another_office_is_found_when_the_office_is_known() -> None:
    """With --as the sender in the name must be that office; the other checks are the same."""
    (row,) = (row for row in expected_rows("expected.csv") if row["file"].startswith(BY_ANOTHER))
    done = relay("check", "--json", *NOW, "--as", row["uploader_office"], "--offices", REGISTER, SAMPLES / row["file"])
    assert done.code == 2
    assert codes(done.objects[0]) == ["name.sender_mismatch"]
    own = relay("check", "--json", *NOW, "--as", row["uploader_office"], SAMPLES / "accept" / "pdf-report")
    assert codes(own.objects[0]) == ["name.sender_mismatch"]


@needs_samples
def test_every_batch_of_the_samples_is_the_unit_it_was_meant_as() -> None:
    """With --units each directory is one unit, whole or said to lack what it lacks; other units disturb none."""
    done = relay("check", "--json", "--units", *NOW, "accept", cwd=SAMPLES)
    assert done.code == 0
    by_folder: dict[str, list[Json]] = {}
    for unit in done.units:
        by_folder.setdefault(cast(list[str], unit["files"])[0].rpartition("/")[0], []).append(unit)
    for row in expected_rows("expected_units.csv"):
        (unit,) = by_folder[row["batch"]]
        assert unit["verdict"] == row["verdict"]
        assert row["unit_id"] in cast(list[str], unit["units"])
        assert codes(unit) == ([] if row["reason_code"] == "ok" else [row["reason_code"]])


@needs_samples
def test_nothing_that_is_said_holds_the_number_of_a_person() -> None:
    """Findings name lines and items; no insured number of any sample is in what is printed, for people or programs."""
    numbers: set[str] = set()
    for path in SAMPLES.rglob("*.CSV"):
        census = Census()
        census.feed(path.read_bytes())
        numbers |= {person.decode("ascii", "replace").partition(",")[2] for person in census.finish()}
    offices = {row["office_number"] for row in csv.DictReader(REGISTER.read_text("utf-8").splitlines())}
    numbers = {number for number in numbers if len(number) == 10} - offices
    assert len(numbers) > 3
    for form in ((), ("--json",)):
        said = relay("check", *form, "--units", *NOW, "accept", "warn", "refuse", cwd=SAMPLES).out
        assert [number for number in numbers if number in said] == []


@needs_samples
def test_the_exit_code_tells_warnings_and_refusals_apart() -> None:
    """0 where all is well or only warned about, 1 for warnings where that is asked for, 2 for a refusal."""
    fine, warned, broken = "accept/lf-line-ends", "warn/item-too-long", "refuse/utf-8"
    for words, code in (
        ([fine], 0),
        ([fine, warned], 0),
        (["--strict", fine], 0),
        (["--strict", fine, warned], 1),
        (["--strict", warned, broken], 2),
        (["--strict", "--units", "accept/unit-without-annex"], 1),
        (["--units", "accept/unit-without-annex"], 0),
    ):
        assert relay("check", *NOW, *words, cwd=SAMPLES).code == code, words


@needs_samples
def test_a_person_can_act_on_what_is_said() -> None:
    """File, line, item by number and name, what is wrong, where the standard says so and how to mend it, in words."""
    said = relay("check", *NOW, "warn/required-item-empty", cwd=SAMPLES).out
    for words in (
        "注意        warn/required-item-empty/UPJSK_",
        "\n  必ず入れる項目が空です（1行目、項目4「作成年月日」",
        "\n    対処  介護ソフトでその項目を入力し、出力し直して送ってください。",
        "\n    content.required_item: a required item is empty (line 1",
        "\n    根拠  標準仕様4.1版 別紙「CSVファイルレイアウト定義書」",
        "\nファイル 1件（問題なし 0件、注意 1件、送れません 0件）\n「注意」のファイルも送れます。",
    ):
        assert words in said
    places = [said.index(word) for word in ("必ず入れる", "対処", "content.required_item", "根拠")]
    assert places == sorted(places), "what to do stands right under what is wrong"
    assert not any(line.endswith(" ") for line in said.splitlines())
    (entry,) = relay("check", "--json", *NOW, "warn/required-item-empty", cwd=SAMPLES).objects
    (found,) = cast(list[Json], entry["findings"])
    assert list(entry) == ["file", "verdict", "findings"]
    assert list(found) == ["code", "severity", "line", "item", "message_ja", "message_en"]
    assert (found["severity"], found["line"], found["item"]) == ("warn", 1, 4)


def make_slip(folder: Path, *words: str) -> Path:
    """Make a whole use-slip unit between two offices."""
    made = relay("standard", "make", "V41-K2", "--out", folder, "--sender", A, "--recipient", B, *words)
    assert made.code == 0, made.err
    return folder / SLIP


def test_what_is_made_passes_and_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    """Every unit of both editions, written twice: equal bytes, no warning, and every unit complete."""
    for edition in ("4.1", "3.2"):
        one, two = tmp_path / f"{edition}-1", tmp_path / f"{edition}-2"
        register = tmp_path / f"{edition}.csv"
        words = ("standard", "make", "all", "--standard", edition, "--partners", "2", "--seed", "9")
        assert relay(*words, "--out", one, "--register", register).code == 0
        assert relay(*words, "--out", two).code == 0
        first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, two))
        assert first == second
        done = relay("check", "--json", "--units", "--strict", "--offices", register, one)
        assert (done.code, done.err) == (0, "")
        assert len(done.files) == len(first)
        assert all(unit["is_complete"] for unit in done.units)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """Making the same unit again into the same folder is refused and changes no byte."""
    slip = make_slip(tmp_path / "out")
    before = slip.read_bytes()
    again = relay("standard", "make", "V41-K2", "--out", slip.parent, "--sender", A, "--recipient", B, "--persons", "9")
    assert again.code == 2
    assert "nothing that is there is overwritten" in again.err
    assert slip.read_bytes() == before


def test_a_unit_with_a_stranger_names_the_file_and_the_line(tmp_path: Path) -> None:
    """A supplement with a person whom the slip lacks is found when both are there."""
    slip = make_slip(tmp_path)
    supplement = slip.with_name(slip.name.replace("UPPLAN", "UPHOSOKU"))
    first = supplement.read_bytes().partition(b"\r\n")[0]
    cells = first.split(b",")
    cells[2] = b"9999999999"
    supplement.write_bytes(supplement.read_bytes() + b",".join(cells) + b"\r\n")
    (unit,) = relay("check", "--json", "--units", tmp_path).units
    assert codes(unit) == ["unit.unrelated_person"]
    (found,) = cast(list[Json], unit["findings"])
    assert found["line"] == 4
    assert unit["is_complete"]


def test_a_refused_file_is_missing_from_its_unit_and_the_message_travels_along(tmp_path: Path) -> None:
    """What would not be accepted does not count; a message of the same serial is listed with the unit."""
    slip = make_slip(tmp_path)
    slip.write_bytes(b"")
    message = tmp_path / f"MESSAGE_{A}_{B}_20250622090000.txt"
    message.write_text("よろしくお願いします", "utf-8")
    done = relay("check", "--json", "--units", tmp_path)
    assert done.code == 2
    (unit,) = done.units
    assert (unit["unit"], unit["missing"]) == ("V41-K2", ["UPPLAN"])
    assert cast(list[str], unit["files"])[-1] == str(message)


def test_one_name_stands_for_one_content(tmp_path: Path) -> None:
    """The same file twice is one file; the same name with other bytes is refused, letter case aside."""
    slip = make_slip(tmp_path / "a")
    other = tmp_path / "b"
    other.mkdir()
    shutil.copy(slip, other)
    assert relay("check", "--units", "--strict", tmp_path).code == 0
    (other / SLIP).rename(other / SLIP.lower())
    (other / SLIP.lower()).write_bytes(slip.read_bytes().replace(b"\r\n", b"\n"))
    files = relay("check", "--json", tmp_path).files
    assert codes(files[str(slip)]) == []
    assert codes(files[str(other / SLIP.lower())])[0] == "transfer.conflict"


def test_a_free_name_needs_the_folder_of_its_recipient(tmp_path: Path) -> None:
    """As on the server, a name that says nobody is accepted in send/OFFICE/ alone."""
    text = "連絡事項".encode()
    folder = tmp_path / "send" / B
    folder.mkdir(parents=True)
    for parent in (tmp_path, folder):
        (parent / "お知らせ.txt").write_bytes(text)
    files = relay("check", "--json", tmp_path).files
    assert codes(files[str(tmp_path / "お知らせ.txt")]) == ["name.malformed"]
    assert codes(files[str(folder / "お知らせ.txt")]) == []


def test_without_a_register_nothing_is_said_about_offices(tmp_path: Path) -> None:
    """Unknown senders and recipients are refused by a register only, and --as must be in it."""
    slip = make_slip(tmp_path / "out")
    register = tmp_path / "offices.csv"
    heading = "office_number,name_ja,prefecture,service_types,status\n"
    assert relay("check", slip).code == 0
    register.write_text(f"{heading}{A},甲,北海道,43,active\n", "utf-8")
    unknown = relay("check", "--json", "--offices", register, slip)
    assert codes(unknown.objects[0]) == ["route.recipient_unknown"]
    register.write_text(f"{heading}{B},乙,北海道,11,active\n", "utf-8")
    nobody = relay("check", "--json", "--offices", register, slip)
    assert codes(nobody.objects[0]) == ["name.sender_mismatch"]
    assert relay("check", "--offices", register, "--as", A, slip).code == 2
    register.write_text("name\nx\n", "utf-8")
    broken = relay("check", "--offices", register, slip)
    assert broken.code == 2
    assert "offices.csv:1: the headings lack" in broken.err


def test_names_that_do_not_print_are_escaped(tmp_path: Path) -> None:
    """A name that is no UTF-8 or would move the cursor is refused, and shown in letters and digits alone."""
    for name in (b"\x83\x7d.CSV", b"a\x1b[2Jb.CSV", "a\u202eb.CSV".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    files = relay("check", "--json", tmp_path).files
    assert [codes(entry) for entry in files.values()] == [["name.illegal"]] * 3
    assert {path.rpartition("/")[2] for path in files} == {"\\udc83}.CSV", "a\\x1b[2Jb.CSV", "a\\u202eb.CSV"}
    assert "\x1b" not in relay("check", tmp_path).out


def test_a_bar_shows_how_far_it_is_where_somebody_watches(tmp_path: Path) -> None:
    """On a terminal the progress goes to stderr; what is found stays clean for a pipe, and a pipe gets no bar."""
    slip = make_slip(tmp_path)
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    program = subprocess.Popen([RELAY, "check", "--json", tmp_path], stdout=subprocess.PIPE, stderr=theirs, env=environ)
    os.close(theirs)
    out, _ = program.communicate(timeout=60)
    watched = os.read(ours, 65536).decode()
    os.close(ours)
    assert "checking" in watched
    assert len([json.loads(line) for line in out.splitlines()]) == 3
    assert relay("check", "--json", slip).err == ""


def test_folders_are_searched_and_hidden_files_left_out(tmp_path: Path) -> None:
    """Every file below a folder is judged once, in order; a folder without files is told, not passed over."""
    slip = make_slip(tmp_path / "b" / "deep")
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / "b" / ".git").mkdir()
    (tmp_path / "b" / ".git" / "config").write_bytes(b"x")
    done = relay("check", "--json", tmp_path, slip)
    assert len(done.objects) == 3
    assert list(done.files) == sorted(done.files)
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = relay("check", empty)
    assert (nothing.code, nothing.out) == (2, "")
    assert "there are no files here" in nothing.err


def test_the_tables_are_told_to_people_and_programs() -> None:
    """All kinds, all units, and the items of a kind in either edition."""
    kinds = json.loads(relay("standard", "kinds", "--json").out)
    assert [kind["kind"] for kind in kinds] == list(KINDS)
    units = json.loads(relay("standard", "units", "--json").out)
    assert {unit["standard"] for unit in units} == {"3.2", "4.1"}
    for edition, count in (("4.1", 25), ("3.2", 22)):
        items = json.loads(relay("standard", "layout", "UPJSK", "--standard", edition, "--json").out)
        assert [item["item"] for item in items] == list(range(1, count + 1))
    shown = relay("standard", "layout", "upplan").out
    assert "UPPLAN  第6表（サービス利用票）予定" in shown
    assert "対象年月" in shown
    for words, why in ((("UPKIHON_IMAGE",), "is an image"), (("UP3KYO", "--standard", "3.2"), "does not exist in 3.2")):
        refused = relay("standard", "layout", *words)
        assert refused.code == 2
        assert why in refused.err


def test_what_cannot_be_made_is_told() -> None:
    """An unknown word, a month or serial that is none, and an office that would write to itself."""
    for words, why in (
        (("V41-K9",), "neither a unit nor a kind"),
        (("UP3KYO", "--standard", "3.2"), "neither a unit nor a kind of 3.2"),
        (("UPJSK", "--month", "202513"), "is no month"),
        (("UPJSK", "--serial", "20250231000000"), "is no serial"),
        (("UPJSK", "--sender", A, "--recipient", A), "cannot send to itself"),
        (("UPJSK", "--sender", "17851585"), "office number"),
    ):
        refused = relay("standard", "make", *words, "--out", "/nowhere/at/all")
        assert refused.code == 2, words
        assert why in refused.err
