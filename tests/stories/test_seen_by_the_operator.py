"""The operator looks: what waits, what became of a file, how the relay is used; on a real store, after real sessions."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

import pytest
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, Completed, House, MakeHouse, general_name, pdf, plan_csv, plan_name
from keyboard import Terminal
from rich.cells import cell_len

from relay.cli.top import find_quantile
from relay.model import EventKind, OfficeNumber

FREE = "提供票 山田花子.pdf"


async def send(house: House, name: str, content: bytes, office: OfficeNumber = CARE_MANAGER) -> None:
    """Send a file and hang up."""
    async with house.connect(office) as caller, caller.sftp.open(f"send/{name}", "wb") as file:
        await file.write(content)


async def fetch(house: House, name: str, office: OfficeNumber = HOME_HELP) -> None:
    """List what is new and read one of it."""
    async with house.connect(office) as caller:
        assert name in await caller.sftp.listdir("new")
        async with caller.sftp.open(f"new/{name}", "rb") as file:
            await file.read()


def data(done: Completed) -> Any:
    """Return what a command printed with --json."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def look(house: House, width: int, *arguments: str) -> list[str]:
    """Return what a command shows in a terminal of that width."""
    command = [*relay(house), *arguments]
    environment = {**house.environment, "COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}
    with Terminal(command, **environment) as terminal:
        shown = terminal.read_to_end()
    return [line.rstrip("\r") for line in strip(shown).split("\n")]


def relay(house: House) -> list[str]:
    """Return the command line of *house*."""
    from house import relay_command

    return relay_command(house.path)


def strip(text: str) -> str:
    """Take the bold and dim of a terminal away."""
    head, *parts = text.split("\x1b[")
    return head + "".join(part[part.index("m") + 1 :] for part in parts)


async def test_the_queue_shows_who_has_not_fetched_what(house: House) -> None:
    """Two offices that have not fetched stand in it with their numbers and names, the fuller one first; who fetched is gone."""
    await send(house, plan_name(number=1), plan_csv())
    await send(house, plan_name(number=2), plan_csv())
    await send(house, general_name(recipient=DAY_CARE), pdf())
    rows = data(house.relay("queue", "--json"))
    assert [(row["office"], row["total"], row["ages"]["<5m"] + row["ages"]["<1h"]) for row in rows] == [
        (HOME_HELP, 2, 2),
        (DAY_CARE, 1, 1),
    ]
    assert data(house.relay("queue", "--json", "--sort", "office"))[0]["office"] == DAY_CARE
    assert len(data(house.relay("queue", "--json", "--limit", "1"))) == 1
    await fetch(house, general_name(recipient=DAY_CARE), DAY_CARE)
    assert [row["office"] for row in data(house.relay("queue", "--json"))] == [HOME_HELP]
    for width in (80, 120):
        lines = look(house, width, "queue")
        assert [line for line in lines if line.startswith("TOTAL")]
        assert [line for line in lines if line.startswith(HOME_HELP)]
        assert max(map(cell_len, lines)) <= width, lines


async def test_a_trace_tells_the_whole_life_of_a_file(house: House) -> None:
    """By its name alone: a refused try, the acceptance with its certificate, the listing, the collection and the receipts."""
    name = plan_name()
    with pytest.raises(Exception, match=r"content\."):
        await send(house, name, b"this is no CSV of the standard, though it ends\r\n" * 9)
    await send(house, name, plan_csv())
    await fetch(house, name)
    house.wait_for(lambda: [each for each in house.events() if each.kind is EventKind.LISTED], "the listing in history")
    (life,) = data(house.relay("trace", name, "--json"))
    assert [step["what"] for step in life["steps"]] == ["refused", "accepted", "listed", "collected"]
    serial = asyncssh_serial(house)
    assert f"certificate {serial}" in life["steps"][1]["text"]
    async with house.connect(CARE_MANAGER) as caller:
        for path in life["receipts"]:
            assert await caller.sftp.exists(path), path
    assert len(life["receipts"]) == 2
    assert data(house.relay("trace", str(life["number"]), "--json")) == [life]
    for width in (80,):
        lines = look(house, width, "trace", name)
        assert max(map(cell_len, lines)) <= width, lines
        assert "Its recipient has it." in lines


def asyncssh_serial(house: House) -> str:
    """Return the serial of the care manager's certificate, as `relay cert list` tells it."""
    certificates = data(house.relay("cert", "list", "--office", CARE_MANAGER, "--json"))
    return str(certificates[0]["serial"])


async def test_a_free_name_is_traced_without_being_shown_and_revealing_is_recorded(house: House) -> None:
    """The name is told as *.pdf unless --reveal is given, and that stands in history before anything is shown."""
    await send(house, f"{HOME_HELP}/{FREE}", pdf())
    hidden = house.relay("trace", FREE, "--from", CARE_MANAGER, "--to", HOME_HELP)
    assert hidden.returncode == 0, hidden.stderr
    assert "*.pdf" in hidden.stdout
    assert "山田" not in hidden.stdout
    assert not [each for each in house.events() if each.kind is EventKind.NAMES_REVEALED]
    shown = house.relay("trace", FREE, "--from", CARE_MANAGER, "--to", HOME_HELP, "--reveal")
    assert FREE in shown.stdout
    assert [each for each in house.events() if each.kind is EventKind.NAMES_REVEALED]
    assert "山田" not in " ".join(each.detail for each in house.events())
    assert house.relay("transfer", "hold", "1", "--reason", "sent to the wrong office", "--yes").returncode == 0
    held = house.relay("trace", "1").stdout
    assert "held it: gone from its recipient's directories" in held
    assert "The operator holds it" in held
    assert house.relay("queue").stdout.startswith("nothing waits")
    unclear = house.relay("trace", FREE)
    assert (unclear.returncode, "--from and --to" in unclear.stderr) == (2, True)
    assert house.relay("trace", "999").returncode == 2


async def test_how_the_relay_is_used_is_counted_from_real_logins(make_house: MakeHouse) -> None:
    """Two of four active offices of Hokkaido logged in: 50 percent; each program has its row, and CSV, JSON and bars agree."""
    house = make_house()
    house.start()
    await send(house, plan_name(), plan_csv())
    assert house.sftp(HOME_HELP, "ls new\n").returncode == 0
    house.stop()
    (hokkaido, total) = data(house.relay("stats", "--json"))
    assert hokkaido == {
        "prefecture_code": "01",
        "prefecture_ja": "北海道",
        "offices": 4,
        "using_offices": 2,
        "percent": 50.0,
    }
    assert (total["prefecture_code"], total["offices"], total["using_offices"]) == ("total", 4, 2)
    table = list(csv.DictReader(io.StringIO(house.relay("stats", "--csv").stdout)))
    assert [row["percent"] for row in table] == ["50.0", "50.0"]
    (month,) = data(house.relay("stats", "month", "--json"))
    assert (month["using_offices"], month["logins"], month["files"], month["collected"]) == (2, 2, 1, 0)
    (kind,) = data(house.relay("stats", "kind", "--json"))
    assert (kind["kind"], kind["files"], kind["size_bytes"]) == ("UPPLAN", 1, len(plan_csv()))
    programs = data(house.relay("stats", "software", "--json"))
    assert sorted(row["software"].partition("_")[0] for row in programs) == ["AsyncSSH", "OpenSSH"]
    for by, width, *options in (("prefecture", 80), ("month", 80), ("software", 80), ("kind", 120, "--chart")):
        lines = look(house, int(width), "stats", str(by), *map(str, options))
        assert max(map(cell_len, lines)) <= int(width), lines
    assert "█" in house.relay("stats", "--chart").stdout
    assert house.relay("stats", "--chart", "--csv").returncode == 2


async def test_top_shows_who_is_here_and_what_goes_through(house: House) -> None:
    """Once as text, once for a program, and live until Ctrl-C: the office that is connected, and the file that it sent."""
    async with house.connect(CARE_MANAGER) as caller:
        async with caller.sftp.open(f"send/{plan_name()}", "wb") as file:
            await file.write(plan_csv())
        state = data(await asyncio.to_thread(house.relay, "top", "--json"))
        assert [(each["office"], each["sessions"]) for each in state["present"]] == [(CARE_MANAGER, 1)]
        assert state["counters"]["relay_transfers_accepted"] == 1
        lines = await asyncio.to_thread(look, house, 80, "top", "--once")
        assert max(map(cell_len, lines)) <= 80, lines
        assert [line for line in lines if line.startswith(CARE_MANAGER)]

        def watch() -> None:
            with Terminal([*relay(house), "top", "--interval", "0.5"], **house.environment, TERM="xterm") as terminal:
                for _ in range(3):
                    terminal.wait_for("slowest commits")
                terminal.type("\x03")
                terminal.read_to_end()

        await asyncio.to_thread(watch)
    house.stop()
    gone = house.relay("top", "--once")
    assert (gone.returncode, "does not run" in gone.stderr) == (1, True)


def test_what_lies_within_a_part_of_a_histogram() -> None:
    """Half, nine of ten and all of what was counted: the bound they lie below; beyond the last there is none to name."""
    bounds, counts = (0.1, 1.0, 10.0), (5, 4, 1, 0)
    assert [find_quantile(bounds, counts, part) for part in (0.5, 0.9, 1.0)] == [0.1, 1.0, 10.0]
    assert find_quantile(bounds, (0, 0, 0, 1), 0.5) == float("inf")
    assert find_quantile(bounds, (0, 0, 0, 0), 0.5) is None
