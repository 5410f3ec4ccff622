"""What is older than 93 days stays to be looked up: a folder for each month in ``status/``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import raw_sftp as sftp
from house import CARE_MANAGER, HOME_HELP, House, OfficeNumber, plan_csv, plan_name
from raw_sftp import open_raw

MONTH_FILES = ["received.csv", "received.json", "refused.csv", "refused.json", "sent.csv", "sent.json"]


async def test_what_was_sent_long_ago_is_in_the_folder_of_its_month(make_house: Callable[..., House]) -> None:
    """Both offices find the month in status/, with three tables; today's files no longer show what is in it."""
    house, name = make_house(), plan_name()
    house.start()
    async with house.dial() as one, open_raw(one) as ours:
        assert (await ours.put(f"/send/{name}", plan_csv())).code == sftp.OK
        assert [entry for entry in await ours.list("/status") if "." not in entry] == []
    house.stop()
    with closing(sqlite3.connect(house.config.store.path)) as store, store:
        # Noon in Japan on 15 February 2026, which is over 93 days ago from November on.
        store.execute("UPDATE transfer SET accepted_at = 1771124400000000")
    house.start()

    async def look(office: OfficeNumber, table: str) -> None:
        async with house.dial(office) as one, open_raw(one) as raw:
            assert "2026-02" in await raw.list("/status")
            shown = [entry for entry in await raw.list("/status/2026-02") if entry not in (".", "..")]
            assert sorted(shown) == MONTH_FILES
            rows = json.loads(await raw.get(f"/status/2026-02/{table}.json"))[table]
            assert [row["name"] for row in rows] == [name]
            assert json.loads(await raw.get(f"/status/{table}.json"))[table] == []
            told = await raw.call(sftp.STAT, f"/status/2026-02/{table}.csv")
            assert told.size == len(await raw.get(f"/status/2026-02/{table}.csv"))
            assert (await raw.call(sftp.STAT, "/status/2026-02")).type == sftp.ATTRS
            for missing in (
                "/status/2026-01",
                "/status/2026-13",
                "/status/2026-02/units.csv",
                "/status/2026-01/sent.csv",
            ):
                assert (await raw.call(sftp.STAT, missing)).code == sftp.NO_SUCH_FILE, missing
            for kind in (sftp.RMDIR, sftp.REMOVE):
                assert (await raw.call(kind, "/status/2026-02")).code == sftp.FAILURE
            assert (await raw.put("/status/2026-02/sent.csv", b"x")).code == sftp.FAILURE

    await look(CARE_MANAGER, "sent")
    await look(HOME_HELP, "received")
