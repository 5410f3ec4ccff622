"""A certificate is revoked while its holder uploads: what was not committed is not promised."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncssh
from house import CARE_MANAGER, HOME_HELP, House, pdf
from raw_sftp import CLOSE, OPEN, WRITE, WRITING, Long, Raw, open_raw

NO_ATTRIBUTES = b"\0\0\0\0"


async def test_upload_that_is_open_when_its_certificate_is_revoked_is_never_accepted(house: House) -> None:
    """The CLOSE comes within the same second: refused by the commit itself, or the connection has ended; never a file."""
    for number in range(5):
        held = house.certificate(CARE_MANAGER, label=f"{number}")
        assert held.record is not None
        which = held.record.id
        data = pdf(50_000 if number % 2 else 600_000)
        async with house.dial(pass_=held) as connection, open_raw(connection) as raw:
            path = f"/send/{HOME_HELP}/提供票{number}.pdf"
            handle = (await raw.call(OPEN, path, WRITING, Raw(NO_ATTRIBUTES))).handle
            for at in range(0, len(data), 32_000):
                raw.ask(WRITE, handle, Long(at), data[at : at + 32_000])
            assert (await raw.next_reply()).code == 0
            async with house.ledger() as ledger:
                await ledger.revoke_certificates([which], actor="op", now=datetime.now(UTC))
            try:
                answer = await raw.call(CLOSE, handle)
            except (EOFError, BrokenPipeError, asyncssh.Error):
                answer = None
            assert answer is None or answer.text.startswith("office.revoked"), answer
            async with asyncio.timeout(30):
                await connection.wait_closed()
    assert house.transfers() == []
    assert len(house.journal_lines("identity.ended")) == 5
    async with house.connect(HOME_HELP) as caller:
        assert [name for name in await caller.sftp.listdir("/new") if name not in (".", "..")] == []
