"""The next edition: a format that nobody foresaw needs tables and a reader, and gets the same checks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from standard_files import DAY_CARE, HELPERS, MANAGER

JUDGING = Path(__file__).parents[1] / "made_up_edition" / "judging.py"
NAME = f"UPTAMESI_202607_{MANAGER}_43_{HELPERS}_11_20260622084203.JSON"

Line = dict[str, object]


def judge(folder: Path, lines: list[Line], *, name: str = NAME, cut: int = 0) -> list[str]:
    """Return what is printed of these *lines*, without the last *cut* bytes."""
    file = folder / "file"
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    file.write_bytes(data[: len(data) - cut])
    run = subprocess.run(
        [sys.executable, str(JUDGING), name, str(file)], capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout.splitlines()


def month_of(insured: str, *services: tuple[str, str], month: str = "202607", edition: str = "209901") -> Line:
    """Return the line of one person; a service is a day and an office."""
    done = [{"day": f"{month}{day}", "office": office, "note": 'a,"b'} for day, office in services]
    return {"edition": edition, "insurer": "019992", "insured": insured, "month": month, "services": done}


CONFORMING = [
    month_of("0000000001", ("01", HELPERS), ("02", DAY_CARE)),
    month_of("H000000002", ("03", HELPERS)),
]


def test_a_conforming_file_of_a_made_up_edition_is_accepted_with_its_persons(tmp_path: Path) -> None:
    """Its records are read, persons and all; nothing but tables and a reader was added."""
    assert judge(tmp_path, CONFORMING) == ["persons ['0000000001', 'H000000002']"]


def _stranger(lines: list[Line]) -> None:
    lines.append(month_of("0000000003", ("01", DAY_CARE)))


def _other_month(lines: list[Line]) -> None:
    lines[1] = month_of("H000000002", ("03", HELPERS), month="202608")


def _bad_key(lines: list[Line]) -> None:
    lines[1]["insured"] = "12345"


def _two_editions(lines: list[Line]) -> None:
    lines[1]["edition"] = "202407"


def _long_note(lines: list[Line]) -> None:
    lines[0]["services"] = [{"day": "20260701", "office": HELPERS, "note": "長い備考です"}]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_stranger, "content.unrelated_person refuse 3 -"),
        (_other_month, "content.month_mismatch refuse 2 4"),
        (_bad_key, "content.key_item refuse 2 3"),
        (_two_editions, "content.version_mixed refuse 2 -"),
        (_long_note, "content.item_length warn 1 7"),
    ],
)
def test_the_same_checks_run_on_it(tmp_path: Path, change: Callable[[list[Line]], None], found: str) -> None:
    """Persons, months, keys, versions and lengths are judged as in a CSV, with line and item."""
    lines: list[Line] = json.loads(json.dumps(CONFORMING))
    change(lines)
    assert judge(tmp_path, lines)[0] == found


def test_its_own_form_is_its_readers(tmp_path: Path) -> None:
    """What is cut is told by the reader, and a name of another edition is no name of this kind."""
    assert judge(tmp_path, CONFORMING, cut=4)[0] == "content.truncated refuse 2 -"
    assert judge(tmp_path, CONFORMING, name=NAME.replace("JSON", "CSV")) == ["name.malformed"]
    assert judge(tmp_path, CONFORMING, name=NAME.replace("UPTAMESI", "UPPLAN")) == ["name.malformed"]
