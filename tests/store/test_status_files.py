"""Status files: what an office finds in ``status/`` comes from the ledger, and is its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pytest
from ledgers import AUDIT_KEY

from relay.config import Config, TreeSettings
from relay.errors import finding
from relay.ledger import SealedChunk, SealedPayload, TransferDraft, views
from relay.ledger.sqlite import SqliteLedger, create_store, open_ledger
from relay.model import Address, Certificate, Grammar, Identity, Office, OfficeNumber, OfficeStatus, Route, Transfer
from relay.status import StatusDesk
from relay.vault import MasterKey, Sealer, Vault, new_key, new_uid

NOW = datetime(2026, 6, 22, 9, 0, tzinfo=UTC)
CARE, HELPER, DAY, AWAY = (OfficeNumber(f"017851585{digit}") for digit in range(4))
NAMES = {CARE: "居宅", HELPER: "ヘルパー", DAY: "デイ", AWAY: "休止中"}


@dataclass
class Desk:
    """A store with four offices, and what is needed to fill and read it."""

    ledger: SqliteLedger
    vault: Vault

    def identity(self, office: OfficeNumber) -> Identity:
        """Return the identity of *office* with certificate 1."""
        return Identity(office, "SHA256:ca", 1, "key", NOW + timedelta(days=30))

    async def send(self, sender: OfficeNumber, recipient: OfficeNumber, name: str, *, at: datetime = NOW) -> Transfer:
        """Commit a small transfer."""
        content = f"{sender} {recipient} {name} {at}".encode()
        uid, key = new_uid(), new_key()
        sealer = Sealer(key, uid)
        address = Address(name, Grammar.FOLDER, "PDF", recipient)
        payload = SealedPayload(
            uid=uid,
            wrapped_key=self.vault.wrap_key(key, uid, size_bytes=len(content), chunk_count=1),
            size_bytes=len(content),
            chunk_count=1,
            sha256=sha256(content).digest(),
            chunks=(SealedChunk(0, sealer.seal_chunk(0, content)),),
            name_sealed=sealer.seal_name(name),
        )
        draft = TransferDraft(Route(address, sender, recipient), self.identity(sender), payload, True, None, ())
        return (await self.ledger.commit_transfer(draft, now=at)).transfer

    async def read(
        self, office: OfficeNumber, topic: str, *, shown: Literal["all", "partners", "none"] = "all"
    ) -> list[dict[str, Any]]:
        """Return the rows that *office* finds in a file."""
        desk = StatusDesk(self.ledger, Config(home=Path("/srv"), tree=TreeSettings(offices_shown=shown)))
        data = await desk.render(office, f"{topic}.json", identity=self.identity(office), now=NOW)
        rows: list[dict[str, Any]] = json.loads(data)[topic]
        return rows


def certificate(serial: int, *offices: OfficeNumber) -> Certificate:
    """Return a certificate that is valid now."""
    return Certificate(
        ca_fingerprint="SHA256:ca",
        serial=serial,
        key_id=f"key {serial}",
        key_fingerprint="SHA256:key",
        offices=offices,
        valid_after=NOW - timedelta(days=100),
        valid_before=NOW + timedelta(days=30),
        issued_at=NOW - timedelta(days=100),
    )


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A store with four offices, one of them suspended."""
    path = tmp_path / "relay.db"
    create_store(path)
    vault = Vault(MasterKey("m", bytes(32)), bytes(32))
    async with await open_ledger(path, vault, AUDIT_KEY) as ledger:
        for number, name in NAMES.items():
            await ledger.record_office(Office(number, name, "北海道", ("43",)), actor="test", now=NOW)
        await ledger.record_certificate(certificate(1, *NAMES), actor="test")
        await ledger.record_office_status(AWAY, OfficeStatus.SUSPENDED, actor="test", now=NOW)
        yield Desk(ledger, vault)


async def test_both_ends_see_a_transfer_and_nobody_else_does(desk: Desk) -> None:
    """The sender finds it under sent, the recipient under received, a third office nowhere."""
    transfer = await desk.send(CARE, HELPER, "提供票.pdf")
    (sent,) = await desk.read(CARE, "sent")
    (received,) = await desk.read(HELPER, "received")
    assert (sent["number"], sent["recipient_name"], sent["name"]) == (transfer.id, "ヘルパー", "提供票.pdf")
    assert (received["number"], received["sender_name"]) == (transfer.id, "居宅")
    assert received["name"] == transfer.delivered_name
    for office, topic in ((CARE, "received"), (HELPER, "sent"), (DAY, "sent"), (DAY, "received")):
        assert await desk.read(office, topic) == []


async def test_what_became_of_a_transfer_is_seen_by_its_sender(desk: Desk) -> None:
    """Collected is told with its time once the recipient has read all of it."""
    transfer = await desk.send(CARE, HELPER, "a.pdf")
    await desk.ledger.record_served(
        transfer.id, [(0, transfer.size_bytes)], identity=desk.identity(HELPER), now=NOW + timedelta(minutes=5)
    )
    (sent,) = await desk.read(CARE, "sent")
    assert (sent["state"], sent["collected_at"]) == ("collected", "2026-06-22T09:05:00Z")


async def test_tables_hold_the_last_93_days_newest_first(desk: Desk) -> None:
    """What is older is not in the current file."""
    for days in (94, 92, 1):
        await desk.send(CARE, HELPER, f"{days}.pdf", at=NOW - timedelta(days=days))
    assert [row["name"] for row in await desk.read(CARE, "sent")] == ["1.pdf", "92.pdf"]


async def test_an_office_sees_its_own_refusals_only(desk: Desk) -> None:
    """The same refusal again is counted, not repeated."""
    for minute in range(3):
        await desk.ledger.record_refusal(
            CARE, "x.csv", finding("content.empty"), now=NOW - timedelta(minutes=9 - minute)
        )
    (row,) = await desk.read(CARE, "refused")
    assert (row["code"], row["count"], row["name"]) == ("content.empty", 3, "x.csv")
    assert await desk.read(HELPER, "refused") == []


async def test_offices_are_the_active_ones_and_follow_the_register(desk: Desk) -> None:
    """A suspended office is not offered; a change of the register is seen at the next look."""
    status = StatusDesk(desk.ledger, Config(home=Path("/srv")))

    async def numbers() -> list[str]:
        data = await status.render(CARE, "offices.json", identity=desk.identity(CARE), now=NOW)
        rows = json.loads(data)["offices"]
        assert all(set(row) == {"number", "name", "prefecture", "service_types"} for row in rows)
        return [row["number"] for row in rows]

    assert await numbers() == [CARE, HELPER, DAY]
    await desk.ledger.record_office_status(AWAY, OfficeStatus.ACTIVE, actor="test", now=NOW)
    assert await numbers() == [CARE, HELPER, DAY, AWAY]


async def test_many_offices_come_whole_and_are_rendered_once(desk: Desk) -> None:
    """A register of several pages loses none at their borders, and the second look costs nothing."""
    offices = [Office(OfficeNumber(f"13{number:08}"), f"office {number}", "東京都", ()) for number in range(2500)]
    await desk.ledger.import_offices(offices, suspend_missing=False, actor="test", now=NOW)
    status = StatusDesk(desk.ledger, Config(home=Path("/srv")))
    first = await status.render(CARE, "offices.csv", identity=desk.identity(CARE), now=NOW)
    assert len(first.splitlines()) == 1 + 3 + 2500
    second = await status.render(HELPER, "offices.csv", identity=desk.identity(HELPER), now=NOW)
    assert second is first


async def test_the_operator_decides_which_offices_are_shown(desk: Desk) -> None:
    """Partners are those with whom files were exchanged, in either direction; none is none."""
    await desk.send(CARE, HELPER, "a.pdf")
    await desk.send(DAY, CARE, "b.pdf")
    assert [row["number"] for row in await desk.read(CARE, "offices", shown="partners")] == [HELPER, DAY]
    assert [row["number"] for row in await desk.read(HELPER, "offices", shown="partners")] == [CARE]
    assert await desk.read(CARE, "offices", shown="none") == []


async def test_an_office_sees_its_certificates_and_which_one_it_uses(desk: Desk) -> None:
    """Others' certificates are not shown."""
    await desk.ledger.record_certificate(certificate(2, CARE), actor="test")
    await desk.ledger.record_certificate(certificate(3, HELPER), actor="test")
    rows = await desk.read(CARE, "certificate")
    assert {row["serial"]: row["is_in_use"] for row in rows} == {"1": True, "2": False}


async def test_more_rows_than_fit_a_turn_are_all_there(desk: Desk) -> None:
    """A busy office's table is rendered aside, and whole."""
    empty = finding("content.empty")
    await asyncio.gather(*(desk.ledger.record_refusal(CARE, f"{n}.csv", empty, now=NOW) for n in range(1100)))
    assert len(await desk.read(CARE, "refused")) == 1100


async def test_a_file_that_is_not_there_is_no_file(desk: Desk) -> None:
    """Only the names that the folder lists can be read."""
    status = StatusDesk(desk.ledger, Config(home=Path("/srv")))
    assert len(status.FILES) == 12
    for name in ("sent.txt", "sent", "../sent.csv", ""):
        with pytest.raises(LookupError):
            await status.render(CARE, name, identity=desk.identity(CARE), now=NOW)


async def test_older_months_are_files_of_their_own(desk: Desk) -> None:
    """What is older than 93 days is found in its month, in Japan's time, and nowhere else; an office sees its own."""
    status = StatusDesk(desk.ledger, Config(home=Path("/srv")))
    assert await status.list_months(CARE, now=NOW) == ()
    newest = await desk.send(CARE, HELPER, "new.pdf")
    # 2026-01-01 in Japan is still 2025 in UTC.
    old = await desk.send(CARE, HELPER, "old.pdf", at=datetime(2025, 12, 31, 15, 0, tzinfo=UTC))
    before = await desk.send(HELPER, CARE, "before.pdf", at=datetime(2025, 12, 31, 14, 59, tzinfo=UTC))
    await desk.ledger.record_refusal(CARE, "bad.pdf", finding("content.empty"), now=datetime(2026, 2, 10, tzinfo=UTC))
    assert await status.list_months(CARE, now=NOW) == ("2025-12", "2026-01", "2026-02", "2026-03")
    assert await status.list_months(DAY, now=NOW) == ()

    async def numbers(office: OfficeNumber, topic: str, month: str | None) -> list[object]:
        data = await status.render(office, f"{topic}.json", identity=desk.identity(office), now=NOW, month=month)
        return [row.get("number", row["name"]) for row in json.loads(data)[topic]]

    assert await numbers(CARE, "sent", None) == [newest.id]
    assert await numbers(CARE, "sent", "2026-01") == [old.id]
    assert await numbers(CARE, "sent", "2025-12") == []
    assert await numbers(CARE, "received", "2025-12") == [before.id]
    assert await numbers(HELPER, "sent", "2025-12") == [before.id]
    assert await numbers(HELPER, "received", "2026-01") == [old.id]
    assert await numbers(CARE, "refused", "2026-02") == ["bad.pdf"]
    assert await numbers(DAY, "sent", "2026-01") == []
    with pytest.raises(LookupError):
        await status.render(CARE, "offices.csv", identity=desk.identity(CARE), now=NOW, month="2026-01")


async def test_many_transfers_are_read_in_pages_and_none_is_lost_between(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the length of a page, the list is the same: newest first, each once, as long as was asked for."""
    sent = [(await desk.send(CARE, HELPER, f"{number}.pdf")).id for number in range(7)]
    await desk.send(HELPER, DAY, "other.pdf")
    for most in (1, 3, 7, 100):
        monkeypatch.setattr(views, "_PAGE_TRANSFERS", most)
        found = await desk.ledger.list_transfers(sender=CARE, since=NOW, until=NOW + timedelta(seconds=1))
        assert [transfer.id for transfer in found] == sent[::-1]
        assert [transfer.name for transfer in found] == [f"{number}.pdf" for number in range(7)][::-1]
        assert [transfer.id for transfer in await desk.ledger.list_transfers(sender=CARE, limit=4)] == sent[:2:-1]
        assert await desk.ledger.list_transfers(sender=CARE, until=NOW) == []
