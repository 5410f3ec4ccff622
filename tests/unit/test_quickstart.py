"""The quick starts: the same words in README.md and in every office's README.txt, and true of what there is."""

import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from relay.config import Config
from relay.errors import TABLE
from relay.model import Office, OfficeNumber
from relay.quickstart import FOR_CLERKS, FOR_VENDORS
from relay.welcome import render_readme

CHECKOUT = Path(__file__).parents[2]
# As Notepad opens on an office's small screen.
_COLUMNS = 76


@pytest.mark.parametrize("text", [FOR_CLERKS, FOR_VENDORS], ids=["clerks", "vendors"])
def test_both_places_have_the_same_words(text: str) -> None:
    """README.md has the text line by line, README.txt with the line ends of Windows."""
    assert f"```text\n{text}```\n" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    office = Office(OfficeNumber("0178515854"), "みほん野居宅介護支援事業所", "北海道", ("43",))
    served = render_readme(Config(home=Path("/")), office).decode()
    assert text.replace("\n", "\r\n") in served
    assert max(cell_len(line) for line in text.splitlines()) <= _COLUMNS


def test_what_may_be_sent_again_unchanged_is_what_the_table_says() -> None:
    """Of the codes that a program meets while it sends, just those named pass by themselves; handles are its own."""
    passing = {
        code
        for code, row in TABLE.items()
        if not row.permanent and not code.startswith(("enrolment.", "office.", "server."))
    }
    assert passing - {"limit.handles"} <= {"limit.rate", "limit.partials"}
    assert "limit.rate" in passing
    for script in re.findall(r"(?:bulk|sync|winscp)[\w-]+\.\w+", FOR_VENDORS):
        assert (CHECKOUT / "scripts" / script).is_file()
