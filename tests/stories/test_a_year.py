"""A year of one relay with fifty offices, in a minute: what was promised to them holds at the end of every month.

Time is passed in; the store, its history, its keys and its backups are real.  The year has what years have: months
with much to send, files that nobody fetches, second thoughts, files that are given back by telephone, an office that is
suspended and comes back, one that closes and one that changes its number, certificates that are exchanged and revoked, a
new master key, and a disk that is lost and restored from a backup.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledgers import AUDIT_KEY, CA, NOW, Parcel, Shop, certificate, identity, plan_name

from relay.audit import judge_history
from relay.config import HousekeepingSettings
from relay.errors import Refused
from relay.housekeeping import go_round
from relay.ledger import Shelf
from relay.ledger.auditing import open_history
from relay.ledger.backups import inspect_backup, make_backup, restore_backup
from relay.ledger.sqlite import create_store, open_ledger
from relay.lifecycle import State
from relay.model import Office, OfficeEnd, OfficeNumber, OfficeStatus, TransferId
from relay.vault import MasterKey, Vault, new_key

OFFICES = [OfficeNumber(f"01{number:08d}") for number in range(50)]
MANAGERS, SERVICES = OFFICES[:10], OFFICES[10:]
CLOSING, OLD, NEW = SERVICES[5], SERVICES[6], OfficeNumber("0200000006")
A_WEEK = timedelta(days=7)
DAY = timedelta(days=1)
A_MONTH = 60
SETTINGS = HousekeepingSettings()


@dataclass
class Sent:
    """What one office was told about one file."""

    sender: OfficeNumber
    recipient: OfficeNumber
    name: str
    content: bytes
    accepted_at: datetime
    collected_at: datetime | None = None
    is_recalled: bool = False
    returned_at: datetime | None = None

    def state(self, now: datetime) -> State:
        """What has to have become of it, if housekeeping went its round at *now*."""
        if self.is_recalled:
            return State.RECALLED
        if self.returned_at is not None:
            return State.RETURNED
        if self.collected_at is not None:
            is_over = self.collected_at < now - SETTINGS.collected_days * DAY
            return State.DESTROYED if is_over else State.COLLECTED
        return State.EXPIRED if self.accepted_at < now - SETTINGS.uncollected_days * DAY else State.ACCEPTED

    def is_readable(self, now: datetime) -> bool:
        """Whether its bytes have to be there: what was given back is its sender's for a week."""
        state = self.state(now)
        is_back = self.returned_at is not None and self.returned_at >= now - A_WEEK
        return state in (State.ACCEPTED, State.COLLECTED) or (state is State.RETURNED and is_back)


async def open_relay(path: Path, masters: list[MasterKey], index_key: bytes) -> Shop:
    """Open the store at *path*; *masters* is looked at again whenever a key is missing, as keys/ is."""
    vault = Vault(masters[0], index_key, older=masters[1:], find_masters=lambda: masters)
    return Shop(path, vault, await open_ledger(path, vault, AUDIT_KEY))


@dataclass
class Year:
    """The relay, and beside it what its offices were told."""

    path: Path
    masters: list[MasterKey]
    index_key: bytes
    shop: Shop
    chance: random.Random
    now: datetime = NOW
    sent: dict[TransferId, Sent] = field(default_factory=dict)
    number: int = 0
    closed: dict[OfficeNumber, datetime] = field(default_factory=dict)
    moved: dict[OfficeNumber, OfficeNumber] = field(default_factory=dict)

    async def open(self) -> None:
        """Open the store, as a relay that starts does."""
        self.shop = await open_relay(self.path, self.masters, self.index_key)

    async def send(self, sender: OfficeNumber, recipient: OfficeNumber) -> TransferId:
        """Send a file of its own content."""
        self.number += 1
        name = plan_name(self.number, sender, recipient)
        content = f"{sender} {recipient} {self.number}".encode() * 40
        parcel = Parcel(self.shop.vault, content, name, sender, recipient)
        accepted = await self.shop.ledger.commit_transfer(parcel.draft(), now=self.now)
        self.sent[accepted.transfer.id] = Sent(sender, recipient, name, content, self.now)
        return accepted.transfer.id

    async def collect(self, number: TransferId) -> None:
        """Read a file to its end."""
        one = self.sent[number]
        ranges = [(0, len(one.content))]
        reader = identity(self.moved.get(one.recipient, one.recipient))
        await self.shop.ledger.record_served(number, ranges, identity=reader, now=self.now)
        one.collected_at = self.now

    async def recall(self, number: TransferId) -> None:
        """Take a file back."""
        one = self.sent[number]
        await self.shop.ledger.recall_transfer(number, identity=identity(one.sender), now=self.now)
        one.is_recalled = True

    async def give_back(self, number: TransferId) -> None:
        """Give a file back to its sender, as the operator does when he was called."""
        await self.shop.ledger.return_transfer(number, reason="by telephone", actor="operator", now=self.now)
        self.sent[number].returned_at = self.now

    async def end(self, office: OfficeNumber, successor: OfficeNumber | None, days: int) -> None:
        """Let an office close or change its number today, as its operator is told."""
        newcomer = None if successor is None else Office(successor, f"みほん {successor}", "青森県", ("11",))
        end = OfficeEnd(self.now, self.now + days * DAY, successor, "by letter")
        await self.shop.ledger.plan_end(office, end, newcomer=newcomer, actor="operator", now=self.now)
        if successor is None:
            self.closed[office] = end.until
        else:
            self.moved[office] = successor
            await self.shop.ledger.record_certificate(certificate(successor, int(successor)), actor="test")

    async def month(self) -> None:
        """Let a month go by: sending, fetching, second thoughts, and what time does."""
        for _ in range(A_MONTH):
            pair = (self.chance.choice(MANAGERS), self.chance.choice(SERVICES))
            await self.send(*(pair if self.chance.random() < 0.6 else pair[::-1]))
        self.now += 10 * DAY
        for number, one in list(self.sent.items()):
            if one.state(self.now) is State.ACCEPTED and one.accepted_at > self.now - 15 * DAY:
                what = self.chance.random()
                if what < 0.75:
                    await self.collect(number)
                elif what < 0.8:
                    await self.recall(number)
                elif what < 0.83:
                    await self.give_back(number)
        self.now += 20 * DAY
        await go_round(self.shop.ledger, SETTINGS, self.now)
        for one in self.sent.values():
            over = self.closed.get(one.recipient)
            if over is not None and over <= self.now and one.state(self.now) is State.ACCEPTED:
                one.returned_at = self.now
        await self.check()

    async def check(self) -> None:
        """Hold every promise against what the relay has: each file in one state, whole, at one office, and no other."""
        offices = [*OFFICES, *self.moved.values()]
        waiting: dict[OfficeNumber, set[str]] = {office: set() for office in offices}
        stored: dict[OfficeNumber, int] = dict.fromkeys(offices, 0)
        for number, one in self.sent.items():
            found = await self.shop.ledger.find_transfer(number)
            assert found is not None
            state = one.state(self.now)
            told = (found.state, found.sender, found.recipient, found.name, found.collected_at)
            assert told == (state, one.sender, one.recipient, one.name, one.collected_at), number
            if one.is_readable(self.now):
                assert await self.shop.content(number) == one.content
                stored[one.sender] += len(one.content)
            else:
                with pytest.raises(LookupError):
                    await self.shop.ledger.open_payload(number)
            if state is State.ACCEPTED:
                waiting[one.recipient].add(one.name)
                if one.recipient in self.moved:
                    waiting[self.moved[one.recipient]].add(one.name)
        for office in offices:
            assert await self.look(office) == waiting[office]
            assert await self.shop.ledger.stored_bytes(office) == stored[office]
        assert len(await self.shop.ledger.list_transfers()) == len(self.sent)
        with open_history(self.path) as history:
            assert list(judge_history(history.batches(), history.events(), AUDIT_KEY)) == []

    async def look(self, office: OfficeNumber) -> set[str]:
        """Return what an office sees in new/, each name once."""
        found: list[str] = []
        page = await self.shop.ledger.list_shelf(office, Shelf.NEW)
        found += [entry.name for entry in page.entries]
        while page.cursor is not None:
            page = await self.shop.ledger.list_shelf(office, Shelf.NEW, page.cursor)
            found += [entry.name for entry in page.entries]
        assert len(found) == len(set(found))
        return set(found)


@pytest.fixture
async def year(tmp_path: Path) -> Year:
    """Return the relay on its first day, with its offices."""
    path, masters, index_key = tmp_path / "data" / "relay.db", [MasterKey("m1", new_key())], new_key()
    path.parent.mkdir()
    create_store(path)
    year = Year(path, masters, index_key, await open_relay(path, masters, index_key), random.Random(11))
    ledger = year.shop.ledger
    offices = [Office(number, f"みほん {number}", "北海道", ("11",)) for number in OFFICES]
    await ledger.import_offices(offices, suspend_missing=False, actor="test", now=NOW)
    for number in OFFICES:
        await ledger.record_certificate(certificate(number, int(number)), actor="test")
    return year


async def _lose_the_disk(year: Year, backup: Path, kept: Mapping[TransferId, Sent]) -> None:
    """The data folder is gone: come back from *backup*, in which *kept* is what the offices can still count on."""
    await year.shop.ledger.close()
    newest = max(year.sent)
    shutil.rmtree(year.path.parent)
    restore_backup(inspect_backup(backup), year.path, now=year.now, lock_wait_seconds=10)
    await year.open()
    year.sent = dict(kept)
    lost_and_sent_again = await year.send(MANAGERS[0], SERVICES[0])
    # Receipts name files by their numbers: none is given twice.
    assert lost_and_sent_again > newest


async def _close_and_move(year: Year) -> None:
    """One office closes, another one has a new number; to the old one files go on for a while."""
    await year.end(CLOSING, None, 31)
    await year.end(OLD, NEW, 93)
    SERVICES.remove(CLOSING)
    SERVICES.append(NEW)
    for _ in range(3):
        with pytest.raises(Refused, match="recipient_closed"):
            await year.send(MANAGERS[0], CLOSING)
        await year.month()
    SERVICES.remove(OLD)


@pytest.mark.timeout(600)
async def test_a_year_of_fifty_offices(year: Year, tmp_path: Path) -> None:
    """Twelve months, and everything that can come between; the promises hold after each of them."""
    for _ in range(2):
        await year.month()
    # An office is suspended: nothing goes to it or from it, what waits for it stays; then it comes back.
    away = MANAGERS[3]
    await year.shop.ledger.record_office_status(away, OfficeStatus.SUSPENDED, actor="test", now=year.now)
    for pair in ((away, SERVICES[0]), (SERVICES[0], away)):
        with pytest.raises(Refused) as refused:
            await year.send(*pair)
        assert refused.value.code in ("office.suspended", "route.recipient_suspended")
    await year.check()
    await year.shop.ledger.record_office_status(away, OfficeStatus.ACTIVE, actor="test", now=year.now)
    await year.month()
    # A certificate is lost and revoked: what it had sent stays, and it sends nothing more until there is another.
    lost = MANAGERS[4]
    await year.shop.ledger.revoke_certificate(CA, int(lost), reason="lost", actor="test", now=year.now)
    with pytest.raises(Refused, match="revoked"):
        await year.send(lost, SERVICES[1])
    MANAGERS.remove(lost)
    try:
        await year.month()
        # A new master key, in the middle of everything.
        year.masters.insert(0, MasterKey("m2", new_key()))
        await year.shop.ledger.begin_rotation("m2", actor="test", now=year.now)
        await year.send(MANAGERS[0], SERVICES[2])
        rewrapped = await year.shop.ledger.rewrap_all(lambda _count: None)
        assert rewrapped.damaged == 0
        year.masters.pop()
        await year.shop.ledger.end_rotation(actor="test", now=year.now)
        await year.shop.ledger.close()
        await year.open()
        await year.check()
        await _close_and_move(year)
        backup = make_backup(year.path, tmp_path / "backup.db", now=year.now)
        kept = {number: Sent(**vars(one)) for number, one in year.sent.items()}
        await year.send(MANAGERS[1], SERVICES[3])
        await _lose_the_disk(year, backup.path, kept)
        await year.check()
        for _ in range(5):
            await year.month()
        with pytest.raises(Refused, match="recipient_moved"):
            await year.send(MANAGERS[0], OLD)
    finally:
        MANAGERS.insert(4, lost)
        SERVICES[:] = OFFICES[10:]
    states = {one.state(year.now) for one in year.sent.values()}
    assert states == {State.ACCEPTED, State.COLLECTED, State.RECALLED, State.RETURNED, State.EXPIRED, State.DESTROYED}
    await year.shop.ledger.close()
