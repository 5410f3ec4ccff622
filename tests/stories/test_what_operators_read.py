"""What operators read: every command there is, at a terminal of 80 columns, as it was looked at and kept.

The texts lie in ``what_operators_read/``, a file a noun.  A command that is not among the examples here fails the test;
so does a word that changed.  RELAY_KEEP_WORDS=1 keeps what is read now: look at the difference before it is committed.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import raw_sftp as sftp
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, House, general_name, pdf, plan_csv, plan_name
from raw_sftp import open_raw
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner
from typist import COLUMNS, Shown, Typist, typing

from relay.cli import app

KEPT = Path(__file__).with_name("what_operators_read")
REGISTER = """\
office_number,name_ja,prefecture,service_types,status
0178515854,みほん野居宅介護支援事業所,北海道,43,active
0178529384,みほん野ヘルパーステーション,北海道,11,active
0178512687,デイサービスみほん野①号館,北海道,15|78,active
1318534539,医療法人みほん野会　見本クリニックと、とても長い名前の付いた訪問看護ステーション東京,東京都,16|66,active
0178536215,みほん野ケアサービス（休止中）,北海道,11,suspended
"""
FREE = "見本花子様 提供票.pdf"
DAY_MICROSECONDS = 86_400 * 1_000_000

# What is typed of each command, in this order; the second of a pair is what is answered.  The first ones build up what
# the later ones show.
EXAMPLES: dict[str, list[str | tuple[str, str]]] = {
    "init": ["init"],
    "config check": ["config check"],
    "config show": ["config show"],
    "db upgrade": ["db upgrade --dry-run"],
    "office list": ["office list", "office list --status suspended --json"],
    "office show": [
        "office show 1318534539",
        "office show 0178515854",
        "office show 178515854",
        "office show 3178516104",
    ],
    "office add": [
        "office add 0178512695 --name みほん野訪問入浴 --service-type 12",
        "office add 0178515854 --name x",
        "office add 0178512695 --update --name みほん野訪問入浴介護",
    ],
    "office import": [
        "office import offices.csv",
        "office import wrong.csv",
        ("office import few.csv --suspend-missing", "n\n"),
    ],
    "office suspend": [("office suspend 0178512695", "n\n"), ("office suspend 0178512695", "y\n")],
    "office resume": ["office resume 0178512695"],
    "office close": [
        "office close 0178512695 --reason 廃止届 --dry-run",
        ("office close 0178512695 --reason 廃止届", "y\n"),
        "office close 0178512695 --reason x --yes",
    ],
    "office reopen": ["office reopen 0178512695 --reason 取り下げ --yes"],
    "office move": [
        "office move 0178512695 0178510004 --reason 法人の変更 --dry-run",
        "office move 0178512695 0178510004 --reason 法人の変更 --yes",
        "office show 0178512695",
    ],
    "office mail": [
        "office mail 0178515854 --address office@example.jp --per day",
        "office mail 0178515854 --per none",
    ],
    "cert issue": [
        "cert issue 0178515854 --label 予備のパソコン --out spare",
        "cert issue 0178515854",
        "cert issue 0178536215",
    ],
    "cert invite": ["cert invite 1318534539"],
    "cert invitations": ["cert invitations", "cert invitations --cancel 00000000 --yes"],
    "cert bundle": ["cert bundle 0178512687 --host relay.example.jp --out bundle.zip"],
    "cert list": ["cert list", "cert list --expiring 400d --json"],
    "cert show": ["cert show {serial}", "cert show 1"],
    "cert revoke": [
        ("cert revoke {serial} --cause lost", "n\n"),
        "cert revoke {serial} --cause stolen --yes",
        "cert revoke",
    ],
    "cert krl": ["cert krl revoked.krl"],
    "cert sign": ["cert sign apart.pub --office 0178515854 --ca-key keys/user_ca --out apart-cert.pub"],
    "cert import": ["cert import apart-cert.pub"],
    "transfer list": ["transfer list", "transfer list --reveal"],
    "transfer show": ["transfer show 1", "transfer show 2 --reveal", "transfer show 999"],
    "transfer units": ["transfer units", "transfer units --incomplete"],
    "transfer hold": [
        ("transfer hold 4 --reason 電話で申し出", "y\n"),
        "transfer hold 2 --reason x --yes",
        "transfer hold 4 --reason x --yes",
    ],
    "transfer release": ["transfer release 4 --reason 宛先を確かめた --yes", "transfer release 2 --reason x --yes"],
    "transfer return": [("transfer return 5 --reason 宛先違い", "y\n"), "transfer return 5 --reason x --yes"],
    "queue": ["queue", "queue --json"],
    "trace": ["trace 2", "trace 999", "trace {plan}"],
    "top": ["top --once"],
    "stats": ["stats prefecture", "stats month", "stats kind --chart", "stats software"],
    "report": ["report 0178515854", "report 0178515854 --month {month}"],
    "housekeeping status": ["housekeeping status"],
    "housekeeping run": [
        "housekeeping run --dry-run",
        ("housekeeping run", "n\n"),
        "housekeeping run --yes",
        "housekeeping status",
    ],
    "notice add": [
        "notice add 年末年始は窓口を休みます。 --title 年末年始 --until 2099-01-04",
        "notice add x --until 2020-01-01",
    ],
    "notice list": ["notice list"],
    "notice remove": ["notice remove 1", "notice remove 1"],
    "receipt signers": ["receipt signers"],
    "receipt verify": ["receipt verify receipt.txt"],
    "mail test": ["mail test you@example.jp"],
    "mail queue": ["mail queue"],
    "key list": ["key list"],
    "key rotate": [
        "key rotate --master --yes",
        "key rotate --user-ca --yes",
        "key rotate --host-key ed25519 --yes",
        "key rotate",
    ],
    "key retire": ["key retire SHA256:nothing --yes"],
    "audit verify": ["audit verify"],
    "audit list": ["audit list -n 12"],
    "audit show": ["audit show 1", "audit show 9999"],
    "audit head": ["audit head"],
    "audit export": ["audit export history.jsonl"],
    "audit accept": ["audit accept --reason 試し --yes"],
    "backup": ["backup backup.db", "backup backup.db", "backup"],
    "restore": [("restore backup.db", "n\n"), "restore backup.db --yes"],
    "doctor": ["doctor", "doctor --reach 127.0.0.1:1 --backups nowhere"],
    "explain": [
        "explain {plan} --as 0178515854",
        f"explain '{FREE}' --as 0178515854",
        f"explain '{FREE}' --as 0178515854 --folder 0178529384",
    ],
    "check": ["check plans --as 0178515854 --units --offices offices.csv"],
    "standard make": ["standard make V41-K2 --persons 1 --partners 1 --seed 7 --out made"],
    "standard kinds": ["standard kinds"],
    "standard layout": ["standard layout UPPLAN"],
    "standard units": ["standard units"],
    "serve": ["serve --host 'a b'", "serve --port 70000"],
}


@pytest.fixture
def screens() -> Iterator[dict[str, str]]:
    """Type everything, in the order of the examples, on one store; texts by noun."""
    place = Path(tempfile.mkdtemp(prefix="relay-", dir="/tmp"))
    try:
        with typing(place) as typist:
            yield _type_everything(typist, place)
    finally:
        shutil.rmtree(place)


def _type_everything(typist: Typist, place: Path) -> dict[str, str]:
    pages: dict[str, str] = {}
    for words, examples in EXAMPLES.items():
        noun = words.split()[0]
        page = pages.setdefault(noun, "")
        for example in examples:
            line, answer = example if isinstance(example, tuple) else (example, "")
            line = line.replace("{plan}", plan_name()).replace("{month}", f"{datetime.now(UTC):%Y-%m}")
            line = line.replace("{serial}", _serial(place)) if "{serial}" in line else line
            page += _say(line, answer, typist.type(*_split(line), answer=answer), place)
        pages[noun] = page
        if words == "init":
            _fill(typist, place)
    return pages


def _split(line: str) -> list[str]:
    return [quoted or bare for quoted, bare in re.findall(r"'([^']*)'|(\S+)", line)]


def _fill(typist: Typist, place: Path) -> None:
    """Make a register, certificates and files, some of them old, some refused, one taken back."""
    (place / "offices.csv").write_text(REGISTER, encoding="utf-8")
    (place / "wrong.csv").write_text(REGISTER.replace("0178529384", "178529384"), encoding="utf-8")
    (place / "few.csv").write_text("\n".join(REGISTER.splitlines()[:3]), encoding="utf-8")
    for command in (
        "office import offices.csv",
        *(f"cert issue {office}" for office in (CARE_MANAGER, HOME_HELP, DAY_CARE)),
    ):
        shown = typist.type(*command.split())
        assert shown.code == 0, shown.screen
    (place / "plans").mkdir()
    (place / "plans" / plan_name()).write_bytes(plan_csv())
    (place / "plans" / plan_name(number=1)).write_bytes(plan_csv()[:-20])
    (place / "plans" / "memo.pdf").write_bytes(pdf())
    shutil.copy(place / "issued" / f"{DAY_CARE}.pub", place / "apart.pub")
    house = House(place)
    authority = (place / "keys" / "host_ca.pub").read_text().strip()
    house.known_hosts.write_text(f"@cert-authority * {authority}\n")
    house.start()
    try:
        asyncio.run(_exchange(house))
    finally:
        house.close()
    with closing(sqlite3.connect(house.config.store.path)) as store, store:
        for number, days in ((1, 94), (2, 40), (3, 50), (5, 3)):
            store.execute(
                "UPDATE transfer SET accepted_at = accepted_at - ?1, collected_at = collected_at - ?1 WHERE id = ?2",
                (days * DAY_MICROSECONDS, number),
            )


async def _exchange(house: House) -> None:
    async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
        for number in range(2):
            assert (await ours.put(f"/send/{plan_name(number=number)}", plan_csv())).code == sftp.OK
        assert (await ours.put(f"/send/{general_name(number=2)}", pdf(300_000))).code == sftp.OK
        assert (await ours.put(f"/send/{HOME_HELP}/{FREE}", pdf())).code == sftp.OK
        assert (await ours.put(f"/send/{general_name(recipient=DAY_CARE, number=4)}", pdf())).code == sftp.OK
        assert await theirs.get(f"/new/{plan_name(number=1)}") == plan_csv()
        assert (await ours.put(f"/send/{plan_name(number=9)}", b"")).code != sftp.OK
        receipts = [f"/receipts/{month}/{name}" for month in await ours.list("/receipts") if month.startswith("20")
                    for name in await ours.list(f"/receipts/{month}")]  # fmt: skip
        signed = [path for path in receipts if "00000002-collected.txt" in path]
        for path in signed:
            (house.path / f"receipt.txt{path.partition('.txt')[2]}").write_bytes(await ours.get(path))


def _serial(place: Path) -> str:
    """Return the serial of a certificate that was issued."""
    with closing(sqlite3.connect(place / "data" / "relay.db")) as store:
        return str(store.execute("SELECT min(serial) FROM certificate").fetchone()[0])


# Each keeps the width, so that what stands below each other stays so.
_RULES: Sequence[tuple[str, Any]] = (
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "YYYY-MM-DDThh:mm:ssZ"),
    (r"\b20\d\d-\d\d-\d\d\b", "YYYY-MM-DD"),
    (r"\b20\d\d-\d\d\b", "YYYY-MM"),
    (r"\b\d\d:\d\d:\d\d\b", "hh:mm:ss"),
    (r"\b\d\d:\d\d\b(?!:)", "hh:mm"),
    (r"\b20\d{6}(?=-0|T\d{6})", "YYYYMMDD"),
    (r"(?<=YYYYMMDDT)\d{6}", "hhmmss"),
    (r"(?<=SHA256:)[A-Za-z0-9+/]{2,43}(?=\W|$)", lambda found: "x" * len(found[0])),
    (r"\b[0-9A-Z]{4}(-[0-9A-Z]{4}){12}\b", "-".join(["CODE"] * 13)),
    (r"(?<=AAAA)[A-Za-z0-9+/=]{30,}", lambda found: "x" * len(found[0])),
    (r"\b[0-9a-f]{64}\b", "h" * 64),
    (r"\b(?=[0-9a-f]*[a-f])[0-9a-f]{8}\b|(?<=key )\d{8}\b|(?<=; )\d{8}(?= still)", "hhhhhhhh"),
    (r"(?m)^(Invitation  )?[0-9A-HJKMNP-TV-Z]{8}(?=$|  1318)", lambda found: (found[1] or "") + "INVITED8"),
    (r"(?m)^(Passphrase   ).*", r"\1xxxxx-xxxxx-xxxxx-xxxxx"),
    (r"relay-audit-1\S+", "relay-audit-1…"),
    (r"(?m)^ {2,}\d{2,3}(?=  YYYY-MM-DD hh:mm:ss  )", "  NNN"),
    (r"\d+(?= events)", "N"),
    # Only where the last round of the server's anchor was behind the backup.
    (r"(?m)^  the relay was last seen at work at .*\n", ""),
    (r"(?<=form )\d+", "N"),
    (r"(?<=names batch )\d+", "N"),
    (r"\d+(?=( batches| writers|/\d+ batches))", "N"),
    (r"(?<=until )hh:mm", "hh:mm"),
    (r"(?<!\S)[0-9.]+ [KMG]iB(?= are free| of|, as of|, undamaged| [a-z])", "N GiB"),
    (r"(?<=of )[0-9.]+ [KMGT]iB(?= are free)", "N GiB"),
    # Bars are drawn over, and how often depends on the machine.
    (r"(?m)^(?:(?:[a-z ]+ .*(?:-:--:--|0:hh:mm|━.*))?\n)*(?:[a-z ]+ .*(?:-:--:--|0:hh:mm|━.*))\n+", ""),
    # Machines differ in their disks and limits.
    (r"(?m)^\w+ +(?:disk|open files): .*\n(?: {8}.*\n)*", ""),
    (r"\d+ looked at: \d+ well, \d+ to look at", "N looked at: N well, N to look at"),
)


def _say(line: str, answer: str, shown: Shown, place: Path) -> str:
    text = shown.screen.replace(str(place), "/tmp/relay-XXXXXXXX").replace("\r", "\n")
    text = "\n".join(row.rstrip() for row in text.split("\n")).strip("\n") + "\n"
    for pattern, put in _RULES:
        text = re.sub(pattern, put, text)
    typed = f" ({answer.strip()})" if answer else ""
    end = f"[{shown.code}]\n" if shown.code else ""
    return f"$ relay {line}{typed}\n{text.lstrip()}{end}\n"


def _all_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(words)
        return
    for name, inner in command.commands.items():
        yield from _all_commands(inner, (*words, name))


def _all_groups(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    yield " ".join(words)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _all_groups(inner, (*words, name))


def check_page(noun: str, page: str) -> None:
    """Compare a page with what was kept; with RELAY_KEEP_WORDS=1 keep it first."""
    file = KEPT / f"{noun}.txt"
    if os.environ.get("RELAY_KEEP_WORDS"):
        KEPT.mkdir(exist_ok=True)
        file.write_text(page, encoding="utf-8")
    kept = file.read_text(encoding="utf-8")
    assert page == kept, f"{file.name}: if this is how it shall read: RELAY_KEEP_WORDS=1, and look at the difference"
    boxed = [row for row in page.splitlines() if set("─│") & set(row)]
    assert [row for row in boxed if cell_len(row) > COLUMNS] == []
    assert "Traceback" not in page


@pytest.mark.timeout(900)
def test_every_command_reads_as_it_was_kept(screens: dict[str, str]) -> None:
    """No command is forgotten, none shows other words than those that were looked at, and tables fit 80 columns."""
    assert set(EXAMPLES) == set(_all_commands(get_command(app)))
    for noun, page in screens.items():
        # How wide a table of history is depends on the name of who types.
        if noun != "audit" or os.getuid() == 0:
            check_page(noun, page)
    assert {file.stem for file in KEPT.iterdir()} == {*screens, "help"}


def test_the_help_of_every_command_reads_as_it_was_kept() -> None:
    """Each command and each noun says what it is for and what it takes."""
    page = ""
    for words in _all_groups(get_command(app)):
        outcome = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": str(COLUMNS), "NO_COLOR": "1"})
        assert outcome.exit_code == 0, words
        rows = (row.rstrip() for row in outcome.output.splitlines())
        page += f"$ relay {words} --help".replace("  ", " ") + "\n" + "\n".join(row for row in rows if row) + "\n\n"
    check_page("help", page)
