"""A month's end: a thousand files for one office are one line of what it is to be told, and one mail."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import time, timedelta
from pathlib import Path

from ledgers import NOW, A, B, open_shop, plan_name

from relay.letters import Mailbox, MailPer, Rhythm

MANY = 1_000


async def test_a_thousand_arrivals_wait_as_one_mail(tmp_path: Path) -> None:
    """What waits is counted, not listed: the store keeps one row for each sender, however many files came."""
    rhythm = Rhythm(timedelta(minutes=5), time(8), timedelta(minutes=1))
    shop = await open_shop(tmp_path, mail=rhythm)
    async with shop.ledger:
        await shop.ledger.record_mailbox(B, Mailbox("office@example.jp", MailPer.ARRIVAL), actor="test", now=NOW)
        for number in range(MANY):
            await shop.send(name=plan_name(number))
        (waiting,) = await shop.ledger.list_waiting()
        assert (waiting.office, waiting.gathering, waiting.due_at) == (B, MANY, NOW + timedelta(minutes=5))
    with closing(sqlite3.connect(shop.path)) as store:
        assert store.execute("SELECT sender, arrivals FROM mail_arrival").fetchall() == [(A, MANY)]
