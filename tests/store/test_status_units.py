"""status/units: both offices see their units, with persons and messages; nobody else sees anything."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ledgers import NOW, A, B, C, Shop, identity, open_shop
from unit_files import SLIP, deliver, insured_numbers, make_files, message

from relay.config import Config
from relay.model import OfficeNumber
from relay.status import SHOWN_DAYS, StatusDesk

LATER = "20250630110000"


async def read(shop: Shop, office: OfficeNumber, topic: str = "units", now: datetime = NOW) -> list[dict[str, Any]]:
    """Return the rows that *office* finds."""
    desk = StatusDesk(shop.ledger, Config(home=Path("/srv")))
    data = await desk.render(office, f"{topic}.json", identity=identity(office), now=now)
    rows: list[dict[str, Any]] = json.loads(data)[topic]
    return rows


async def test_both_offices_see_the_unit_and_nobody_else_does(tmp_path: Path) -> None:
    """The same persons from both ends, told as sent or received; a third office finds nothing."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        files = make_files(*SLIP, persons=3)
        await deliver(shop, files)
        (sent,), (received,) = await read(shop, A), await read(shop, B)
        assert (sent["direction"], received["direction"]) == ("sent", "received")
        for unit in (sent, received):
            assert unit["is_complete"]
            assert {person["insured"] for person in unit["persons"]} == insured_numbers(files[0])
        assert await read(shop, C) == []


async def test_a_later_unit_supersedes_and_a_deletion_is_the_last_word(tmp_path: Path) -> None:
    """Slip, corrected slip, deletion: told of each person, at both ends."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        await deliver(shop, make_files(*SLIP))
        await deliver(shop, make_files(*SLIP, serial=LATER))
        await deliver(shop, make_files("DLTPLAN", serial="20250630120000"))
        for office in (A, B):
            deletion, second, first = await read(shop, office)
            assert {person["is_latest"] for person in deletion["persons"]} == {True}
            assert {person["is_deletion"] for person in deletion["persons"]} == {True}
            assert {person["supersedes"] for person in deletion["persons"]} == {LATER}
            assert {(person["is_latest"], person["supersedes"]) for person in second["persons"]} == {
                (False, first["serial"])
            }


async def test_the_message_is_shown_to_both_in_three_places(tmp_path: Path) -> None:
    """With its unit, and among what was sent and received; also before its unit is there."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        await deliver(shop, [message("変更があります\r\n二行目".encode("cp932"), services=False)])
        assert [row["message"] for row in await read(shop, A, "sent")] == ["変更があります"]
        assert [row["message"] for row in await read(shop, B, "received")] == ["変更があります"]
        assert await read(shop, B) == []
        await deliver(shop, make_files("UPJSK"))
        for office in (A, B):
            (unit,) = await read(shop, office)
            assert unit["messages"] == ["変更があります"]
            assert [file["kind"] for file in unit["files"]] == ["UPJSK", "MESSAGE"]
        assert await read(shop, C, "sent") == await read(shop, C, "received") == []


async def test_a_unit_at_the_edge_of_the_days_shown_is_whole(tmp_path: Path) -> None:
    """Shown while its newest file is, with what came earlier; then not at all."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        base, *rest = make_files(*SLIP)
        await deliver(shop, [base], now=NOW - timedelta(days=3))
        await deliver(shop, rest, now=NOW)
        edge = NOW + timedelta(days=SHOWN_DAYS)
        (unit,) = await read(shop, A, now=edge)
        assert unit["is_complete"]
        assert await read(shop, A, now=edge + timedelta(days=1)) == []


async def test_many_units_are_rendered_aside_and_whole(tmp_path: Path) -> None:
    """More than a turn of the event loop has room for."""
    shop = await open_shop(tmp_path)
    async with shop.ledger:
        for second in range(40):
            await deliver(shop, make_files("UPJSK", serial=f"{20250630100000 + second}"))
        units = await read(shop, A)
        assert len(units) == 40
        assert [all(person["is_latest"] for person in unit["persons"]) for unit in units] == [True] + [False] * 39
