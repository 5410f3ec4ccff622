"""The operator looks at what time will do to files, and lets it be done now."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import raw_sftp as sftp
from house import HOME_HELP, Completed, House, plan_csv, plan_name, relay_command, run_program
from raw_sftp import open_raw


def assert_status_tells(house: House, did: dict[str, int]) -> None:
    """What was done now is what was done last, nothing is due any more, and the rest says when it will be."""
    told = json.loads(house.relay("housekeeping", "status", "--json").stdout)
    assert told["is_late"] is False
    for chore, count in did.items():
        last = told["chores"][chore]
        if count:
            assert (last["last_count"], last["last_at"]) == (count, told["last_at"]), chore
    assert [chore for chore, last in told["chores"].items() if last["count"] and chore != "pages"] == []
    (waiting,) = (transfer for transfer in house.transfers() if transfer.state == "accepted")
    due_at = waiting.accepted_at + timedelta(days=93)
    assert told["chores"]["expired"]["next_at"] == f"{due_at:%Y-%m-%dT%H:%M:%SZ}"
    assert f"{due_at.astimezone():%Y-%m-%d %H:%M}" in house.relay("housekeeping", "status").stdout


def test_old_files_end_and_both_offices_read_so(make_house: Callable[..., House]) -> None:
    """Shown first, asked for, done beside the running server; status and receipts of both offices tell it."""
    house = make_house()
    house.start()

    async def send() -> None:
        async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
            for number in range(3):
                assert (await ours.put(f"/send/{plan_name(number=number)}", plan_csv())).code == sftp.OK
            assert await theirs.get(f"/new/{plan_name(number=2)}") == plan_csv()

    asyncio.run(send())
    # A quarter and a year later, as far as the store can tell.
    with closing(sqlite3.connect(house.config.store.path)) as store, store:
        store.execute("UPDATE transfer SET accepted_at = accepted_at - 94 * 86400 * 1000000 WHERE id = 1")
        store.execute(
            "UPDATE transfer SET accepted_at = accepted_at - 366 * 86400 * 1000000, "
            "collected_at = collected_at - 365 * 86400 * 1000000 WHERE id = 3"
        )

    def housekeeping(*more: str) -> Completed:
        return run_program([*relay_command(house.path), "housekeeping", "run", *more])

    planned = housekeeping("--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    told = json.loads(planned.stdout)
    foreseen = {chore: due["count"] for chore, due in told["chores"].items()}
    assert (foreseen["expired"], foreseen["destroyed"]) == (1, 1)
    assert re.search(r"Uncollected files expire +1 ", housekeeping("--dry-run").stdout)
    assert housekeeping().returncode == 2, "nobody was asked"
    assert {transfer.state for transfer in house.transfers()} == {"accepted", "collected"}
    done = housekeeping("--yes", "--json")
    assert done.returncode == 0, done.stderr
    did = json.loads(done.stdout)
    assert {**foreseen, "pages": did["pages"]} == did
    assert did["expired"] == did["destroyed"] == 1
    assert_status_tells(house, did)
    states = {transfer.id: str(transfer.state) for transfer in house.transfers()}
    assert states == {1: "expired", 2: "accepted", 3: "destroyed"}

    async def look() -> None:
        async with house.dial() as one, house.dial(HOME_HELP) as two, open_raw(one) as ours, open_raw(two) as theirs:
            assert [name for name in await theirs.list("/new") if name.startswith("UP")] == [plan_name(number=1)]
            for raw in (ours, theirs):
                receipts = [name for month in await raw.list("/receipts") if month.startswith("20")
                            for name in await raw.list(f"/receipts/{month}")]  # fmt: skip
                assert any(name.endswith("00000001-expired.txt") for name in receipts)
            # Nothing stands in the way of sending it again; what was collected and is over does not come twice.
            assert (await ours.put(f"/send/{plan_name(number=0)}", plan_csv(600))).code == sftp.OK
            refused = await ours.put(f"/send/{plan_name(number=2)}", plan_csv())
            assert "transfer.already_collected" in refused.text

    asyncio.run(look())
