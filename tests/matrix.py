"""The client matrix: which programs there are, what each can do, and what its users notice of a refusal.

`DECLARED` is what is promised; each cell of it is a test in `clients/test_matrix.py` that fails where the program does
otherwise.  What a run saw is printed at its end.  README.md shows the declaration between two marks:

    .venv/bin/python tests/matrix.py        (`./scripts/check --fix` does it as well)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- client matrix: written by tests/matrix.py -->\n", "<!-- end of the client matrix -->\n"
PROPERTY = "client matrix"

DEEDS = {
    "small": "upload small",
    "large": "upload large",
    "same": "same file again",
    "other": "other bytes, same name",
    "up": "resume upload",
    "down": "resume download",
    "list": "list",
    "fetch": "fetch",
    "remove": "fetch and delete",
    "name": "wrong name",
    "content": "broken file",
    "many": "list 100,000",
}
# What is seen of a deed.  Where something has to be refused, it is never taken; the words say what the user notices.
DONE, GOES_ON, STARTS_OVER = "yes", "goes on", "starts over"
READS_WHY, READS_WHY_AND_0, FAILS, SILENT, CANNOT = "says why", "says why, exits 0", "fails", "silent", "–"
OUTCOMES = frozenset({DONE, GOES_ON, STARTS_OVER, READS_WHY, READS_WHY_AND_0, FAILS, SILENT, CANNOT})

_TABLE = """
client      | small | large | same | other    | up          | down        | list | fetch | remove | name     | content           | many
sftp        | yes   | yes   | yes  | says why | goes on     | goes on     | yes  | yes   | yes    | says why | says why          | yes
scp         | yes   | yes   | yes  | says why | starts over | starts over | –    | yes   | –      | says why | says why          | –
psftp       | yes   | yes   | yes  | says why | goes on     | goes on     | yes  | yes   | yes    | says why | says why          | yes
pscp        | yes   | yes   | yes  | says why | starts over | starts over | yes  | yes   | –      | says why | says why, exits 0 | yes
WinSCP      | yes   | yes   | yes  | says why | goes on     | goes on     | yes  | yes   | yes    | says why | says why          | yes
FileZilla   | yes   | yes   | yes  | says why | goes on     | goes on     | yes  | yes   | yes    | says why | says why          | yes
lftp        | yes   | yes   | yes  | says why | goes on     | goes on     | yes  | yes   | yes    | says why | says why          | yes
rclone 1.60 | yes   | yes   | yes  | says why | starts over | starts over | yes  | yes   | yes    | says why | says why          | yes
rclone 1.63 | yes   | yes   | yes  | says why | starts over | starts over | yes  | yes   | yes    | says why | says why          | yes
curl        | yes   | yes   | yes  | fails    | goes on     | goes on     | yes  | yes   | yes    | fails    | silent            | yes
sshfs       | yes   | yes   | yes  | fails    | goes on     | goes on     | yes  | yes   | yes    | fails    | silent            | yes
paramiko    | yes   | yes   | yes  | says why | goes on     | goes on     | yes  | yes   | yes    | says why | says why          | yes
asyncssh    | yes   | yes   | yes  | says why | goes on     | goes on     | yes  | yes   | yes    | says why | says why          | yes
"""
# Why a cell has no test.
REASONS = {
    ("scp", "list"): "scp only copies",
    ("scp", "many"): "scp only copies",
    ("scp", "remove"): "scp only copies",
    ("pscp", "remove"): "pscp only copies and lists",
}


def _read_table(text: str) -> dict[tuple[str, str], str]:
    head, *rows = ([cell.strip() for cell in line.split("|")] for line in text.strip().splitlines())
    return {(row[0], deed): cell for row in rows for deed, cell in zip(head[1:], row[1:], strict=True)}


DECLARED = _read_table(_TABLE)
CLIENTS = tuple(dict.fromkeys(client for client, _ in DECLARED))


def doing(deed: str) -> list[str]:
    """Return the clients that can do *deed*."""
    return [client for client in CLIENTS if DECLARED[client, deed] != CANNOT]


def markdown() -> str:
    """Return the declared matrix as it stands in README.md, between the two marks."""
    lines = ["| | " + " | ".join(DEEDS.values()) + " |", "|---|" + "---|" * len(DEEDS)]
    lines += [f"| {client} | {' | '.join(DECLARED[client, deed] for deed in DEEDS)} |" for client in CLIENTS]
    reasons = dict.fromkeys(reason for _, reason in sorted(REASONS.items()))
    return "".join(f"{line}\n" for line in [*lines, "", f"–: {', '.join(reasons)}."])


def printed(seen: dict[tuple[str, str], str]) -> Iterable[str]:
    """Yield the lines of what a run has seen; a cell that was not run is empty."""
    width = max(map(len, CLIENTS))
    columns = {deed: max(len(deed), *(len(seen.get((client, deed), "")) for client in CLIENTS)) for deed in DEEDS}
    yield " " * width + "  " + "  ".join(deed.ljust(size) for deed, size in columns.items()).rstrip()
    for client in CLIENTS:
        cells = {deed: CANNOT if (client, deed) in REASONS else seen.get((client, deed), "") for deed in DEEDS}
        yield f"{client:{width}}  " + "  ".join(cell.ljust(columns[deed]) for deed, cell in cells.items()).rstrip()


def marked(text: str) -> tuple[str, str, str]:
    """Return what stands before, between and behind the marks in README.md."""
    before, _, rest = text.partition(BEGIN)
    between, _, behind = rest.partition(END)
    return before, between, behind


def write_readme() -> None:
    """Bring README.md up to date with the declaration."""
    before, _, behind = marked(README.read_text(encoding="utf-8"))
    README.write_text(f"{before}{BEGIN}{markdown()}{END}{behind}", encoding="utf-8")


if __name__ == "__main__":
    write_readme()
