"""What the ledger counts for the operator: what waits and how long, who uses the relay and with what."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledgers import NOW, A, B, C, Shop, plan_name

from relay.cli.stats import tabulate_prefectures
from relay.ledger.figures import AGE_NAMES, AGES, Backlog
from relay.model import EventKind, Office, OfficeNumber

REFERENCE = Path(__file__).parents[3] / "shared" / "standard" / "adoption-2023-11-06.csv"
A_MOMENT = timedelta(seconds=1)


async def send_at(shop: Shop, at: datetime, number: int, recipient: OfficeNumber = B) -> int:
    """Accept a file at that time; return its number."""
    parcel = shop.parcel(b"content %d" % number, plan_name(number, recipient=recipient), recipient=recipient)
    return (await shop.ledger.commit_transfer(parcel.draft(), now=at)).transfer.id


async def test_each_waiting_file_stands_in_the_column_of_its_age(shop: Shop) -> None:
    """Files on both sides of every bound are counted on the right side of it, and the oldest tells since when."""
    ages = sorted([*(age + A_MOMENT for age in AGES), *(age - A_MOMENT for age in AGES)], reverse=True)
    for number, age in enumerate(ages):
        await send_at(shop, NOW - age, number)
    (waiting,) = await shop.ledger.count_waiting(now=NOW)
    assert waiting.office == B
    assert waiting.counts == (1, 2, 2, 2, 2, 1)
    assert waiting.total == len(ages)
    assert waiting.oldest_at == NOW - ages[0]
    assert await shop.ledger.measure_backlog(now=NOW) == Backlog(waiting.counts, waiting.oldest_at)


async def test_only_what_nobody_has_collected_waits_and_each_office_has_its_row(shop: Shop) -> None:
    """A file that was collected is not counted; offices for whom nothing waits have no row."""
    await send_at(shop, NOW - timedelta(hours=2), 1)
    collected = await shop.send(b"read", plan_name(2))
    await send_at(shop, NOW, 3, recipient=C)
    await shop.collect(collected)
    found = {each.office: each.counts for each in await shop.ledger.count_waiting(now=NOW)}
    assert found == {B: (0, 0, 1, 0, 0, 0), C: (1, 0, 0, 0, 0, 0)}
    assert (await shop.ledger.measure_backlog(now=NOW)).counts == (1, 0, 1, 0, 0, 0)


async def test_nothing_waits_in_an_empty_store(shop: Shop) -> None:
    """A store without a transfer has no rows, and nothing that is old."""
    assert await shop.ledger.count_waiting(now=NOW) == []
    assert await shop.ledger.measure_backlog(now=NOW) == Backlog((0,) * len(AGE_NAMES), None)


async def test_logins_are_counted_by_month_in_japan_and_by_program(shop: Shop) -> None:
    """At 15:30 UTC of the last of July it is August in Japan; the same program again counts up, another has its own row."""
    for office, software, at in (
        (A, "SSH-2.0-WinSCP_release_6.3", NOW),
        (A, "SSH-2.0-WinSCP_release_6.3", NOW),
        (A, "SSH-2.0-OpenSSH_9.2p1", NOW - timedelta(hours=1)),
        (B, "SSH-2.0-WinSCP_release_6.3", NOW),
    ):
        shop.ledger.note_use(office, software, now=at)
    await shop.ledger.record_event(EventKind.COMMAND, actor="test", detail="", now=NOW)
    months = await shop.ledger.use_by_month(since=NOW - timedelta(days=93))
    assert [(each.month, each.using, each.logins) for each in months] == [("2026-07", 1, 1), ("2026-08", 2, 3)]
    programs = {each.software: (each.offices, each.logins) for each in await shop.ledger.use_by_software(since=NOW)}
    assert programs == {"WinSCP_release_6.3": (2, 3)}


async def test_an_office_cannot_fill_the_store_with_names_of_programs(shop: Shop) -> None:
    """Beyond twenty programs of an office in a month the rest counts as "other", and a name is cut at 64 characters."""
    for number in range(50):
        shop.ledger.note_use(A, f"SSH-2.0-{number:03d}\x1b{'x' * 500}", now=NOW)
    await shop.ledger.record_event(EventKind.COMMAND, actor="test", detail="", now=NOW)
    found = await shop.ledger.use_by_software(since=NOW)
    assert len(found) == 21
    assert {each.software: each.logins for each in found}["other"] == 30
    assert all(len(each.software) <= 64 and each.software.isprintable() for each in found)


async def test_files_are_told_by_month_and_kind(shop: Shop) -> None:
    """Accepted, collected and their bytes are summed for each month of acceptance and for each kind."""
    await send_at(shop, NOW - timedelta(hours=1), 1)
    await shop.collect(await shop.send(b"12345", plan_name(2)))
    months = await shop.ledger.use_by_month(since=NOW - timedelta(days=1))
    assert [(each.month, each.transfers, each.collected) for each in months] == [("2026-07", 1, 0), ("2026-08", 1, 1)]
    (kind,) = await shop.ledger.use_by_kind(since=NOW - timedelta(days=1))
    assert (kind.kind, kind.transfers, kind.collected, kind.size_bytes, kind.senders) == ("UPPLAN", 2, 1, 14, 1)


async def test_a_probe_writes_and_changes_nothing(shop: Shop) -> None:
    """Asking whether the store can be used leaves no event and no other version of the register."""
    before = await shop.ledger.register_version(), len(await shop.ledger.list_events())
    await shop.ledger.probe()
    assert (await shop.ledger.register_version(), len(await shop.ledger.list_events())) == before


@pytest.mark.skipif(not REFERENCE.exists(), reason="the standard is not beside this checkout")
async def test_the_table_by_prefecture_is_that_of_the_existing_system(shop: Shop) -> None:
    """A register as large as the existing system's, with as many offices using it, gives its table figure for figure."""
    with REFERENCE.open(encoding="utf-8-sig", newline="") as file:
        reference = list(csv.DictReader(file))
    places = Counter(office.prefecture for office in await shop.ledger.list_offices() if office.is_active)
    assert places == {"北海道": 3}
    offices, using = [], []
    for row in reference[:-1]:
        there = int(row["offices"]) - places[row["prefecture_ja"]]
        numbers = [OfficeNumber(f"{row['prefecture_code']}9{number:07d}") for number in range(there)]
        offices += [Office(number, "みほん", row["prefecture_ja"], ("11",)) for number in numbers]
        using += numbers[: int(row["using_offices"])]
    await shop.ledger.import_offices(offices, suspend_missing=False, actor="test", now=NOW)
    for number in using:
        shop.ledger.note_use(number, "SSH-2.0-WinSCP_release_6.3", now=NOW)
    await shop.ledger.record_event(EventKind.COMMAND, actor="test", detail="", now=NOW)
    table = tabulate_prefectures(await shop.ledger.use_by_prefecture(since=NOW))
    assert [{name: str(cell) for name, cell in row.items()} for row in table] == reference
