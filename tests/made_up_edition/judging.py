"""An edition in another format, as it would come: four tables in this folder, and the reader below.

Run in a process of its own, because the tables of the standard are read once: takes a name and a file, prints what is
found in it, a line of code, severity, line, item for each, and then whom it is about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from relay.standard import tables

tables.FOLDERS.append(Path(__file__).parent)

from relay.content import start_check  # noqa: E402 - the tables come first
from relay.errors import Refused  # noqa: E402
from relay.naming import NamingRules, parse_name  # noqa: E402
from relay.standard.desk import Desk  # noqa: E402
from relay.standard.readers import READERS  # noqa: E402


class MadeUpReader:
    """Reads one JSON object a line in UTF-8: a person, a month, and what each office does on which day."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._kept = b""
        self._line = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        *lines, self._kept = (self._kept + data).split(b"\n")
        for line in lines:
            self._read(line)

    def finish(self) -> None:
        """Read what is left, which is no whole line."""
        if self._kept:
            self._desk.faults.add("content.truncated", self._line + 1)

    def _read(self, line: bytes) -> None:
        self._line += 1
        try:
            told = json.loads(line)
        except ValueError:
            self._desk.is_lost = True
            self._desk.faults.add("content.not_this_kind", self._line)
            return
        head = [told["edition"], told["insurer"], told["insured"], told["month"]]
        records = [[*head, done["day"], done["office"], done.get("note", "")] for done in told["services"]]
        self._desk.take_records(records, [self._line] * len(records))


READERS["made-up"] = MadeUpReader


def tell(name: str, file: Path) -> Iterator[str]:
    """Yield what is found in *file* under *name*, and whom it is about."""
    try:
        address = parse_name(name, NamingRules(frozenset({"csv"})))
    except Refused as refused:
        yield refused.code
        return
    check = start_check(address, {})
    for piece in file.read_bytes().splitlines(keepends=True):
        check.feed(piece[:7])
        check.feed(piece[7:])
    for judged in check.find_all():
        facts = dict(judged.finding.facts)
        yield f"{judged.finding.code} {judged.severity.value} {facts.get('line', '-')} {facts.get('item', '-')}"
    roster = check.gist.roster
    yield f"persons {sorted({listed.insured for listed in roster} if roster else set())}"


if __name__ == "__main__":
    sys.stdout.writelines(line + "\n" for line in tell(sys.argv[1], Path(sys.argv[2])))
