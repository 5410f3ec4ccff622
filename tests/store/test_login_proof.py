"""What makes an identity, and what ends it: probes, signatures, the register as it changes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import UTC, datetime

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_SUCCESS,
)
from doorway import HUNG_UP, LETTERED, MSG_USERAUTH_PK_OK, OFFICE, STRANGER_CA, Door, offer, offering

from relay.errors import Deferred
from relay.model import Office, OfficeNumber


async def test_probe_binds_nothing(door: Door) -> None:
    """A probe that was answered well leaves the connection nobody's."""
    knock = await door.certify(OFFICE)
    async with offering(door) as (client, server):
        assert await offer(client, knock.key, knock.data, is_signed=False) == MSG_USERAUTH_PK_OK
        assert server.office is None
        assert await offer(client, knock.key, knock.data) == MSG_USERAUTH_SUCCESS
        assert server.office == OFFICE


async def test_probe_for_one_office_and_signature_for_another_is_the_other(door: Door) -> None:
    """What counts is what was signed: the probe before it, for whomever, is forgotten."""
    knock = await door.certify(OFFICE, LETTERED)
    async with offering(door) as (client, server):
        assert await offer(client, knock.key, knock.data, is_signed=False) == MSG_USERAUTH_PK_OK
        assert await offer(client, knock.key, knock.data, user=LETTERED) == MSG_USERAUTH_SUCCESS
        assert server.office == LETTERED


async def test_probe_with_one_certificate_and_signature_with_another_stays_outside(door: Door) -> None:
    """A probe with a good certificate opens nothing for the key of another one."""
    good = await door.certify(OFFICE)
    other = await door.certify(OFFICE, ca=STRANGER_CA)
    async with offering(door) as (client, server):
        assert await offer(client, good.key, good.data, is_signed=False) == MSG_USERAUTH_PK_OK
        assert await offer(client, other.key, other.data) == MSG_USERAUTH_FAILURE
        assert await offer(client, other.key, good.data) == MSG_USERAUTH_FAILURE
        assert server.office is None


async def test_certificate_revoked_between_probe_and_signature_stays_outside(door: Door) -> None:
    """The register is asked again for the signature."""
    knock = await door.certify(OFFICE)
    banners: list[str] = []
    async with offering(door, banners) as (client, server):
        assert await offer(client, knock.key, knock.data, is_signed=False) == MSG_USERAUTH_PK_OK
        await knock.revoke()
        assert await offer(client, knock.key, knock.data) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert len(banners) == 1
    assert door.reasons() == ["revoked"]


async def test_login_after_a_failed_one_is_who_signed(door: Door) -> None:
    """Several attempts on one connection: the identity is that of the one that succeeded."""
    mine = await door.certify(LETTERED)
    theirs = await door.certify(OFFICE)
    async with offering(door) as (client, server):
        stolen = await offer(client, mine.key, theirs.data)
        assert stolen == MSG_USERAUTH_FAILURE
        assert await offer(client, mine.key, mine.data, user=LETTERED) == MSG_USERAUTH_SUCCESS
        assert server.office == LETTERED


# --- whoever is inside stays judged ------------------------------------------------------------------------------------

REVOKE = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from relay.keyring import load_keyring
from relay.ledger.sqlite import open_ledger
from relay.model import OfficeStatus
from relay.vault import Vault

async def main(home, keys, what, who):
    keyring = load_keyring(Path(keys))
    async with await open_ledger(Path(home) / "relay.db", Vault(keyring.master, keyring.index_key), keyring.audit_key) as ledger:
        now = datetime.now(UTC)
        if what == "revoke":
            await ledger.revoke_certificate(keyring.user_ca_fingerprint, int(who), reason="lost", actor="test", now=now)
        else:
            await ledger.record_office_status(who, OfficeStatus.SUSPENDED, actor="test", now=now)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("what", "sentence"), [("revoke", "was revoked"), ("suspend", "is suspended")])
async def test_what_another_process_takes_away_ends_open_sessions(door: Door, what: str, sentence: str) -> None:
    """Within five seconds of the command, with the reason in the client's words; others stay."""
    knock = await door.certify(OFFICE)
    other = await door.certify(LETTERED)
    watch = asyncio.ensure_future(door.reception.watch_register())
    lost: asyncio.Queue[Exception | None] = asyncio.Queue()

    class Client(asyncssh.SSHClient):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.put_nowait(exc)

    try:
        async with await other.enter(LETTERED) as bystander:
            client = await knock.enter(client_factory=Client)
            await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
            who = str(knock.record().serial) if what == "revoke" else OFFICE
            command = [sys.executable, "-c", REVOKE, str(door.path), str(door.keyring.path), what, who]
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0
            async with asyncio.timeout(5):
                error = await lost.get()
            assert sentence in str(error)
            assert not bystander.is_closed()
            assert await other.gets_in(LETTERED)
            assert not await knock.gets_in()
    finally:
        watch.cancel()
    (line,) = door.lines("identity.ended")
    assert (line["office"], line["serial"]) == (OFFICE, knock.record().serial)


async def test_certificate_that_expires_ends_its_sessions(door: Door) -> None:
    """A session outlives its certificate by no more than a look at the register."""
    knock = await door.certify(OFFICE)
    async with await knock.enter() as client:
        await door.reception.judge_live(datetime.now(UTC))
        assert not client.is_closed()
        await door.reception.judge_live(knock.record().valid_before)
        await client.wait_closed()
    assert door.lines("identity.ended")[0]["reason"].startswith("expired")


async def test_login_that_read_the_register_before_a_revocation_is_ended_at_the_next_look(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However close the two are: a login remembers which register it was judged by."""
    knock = await door.certify(OFFICE)
    find_office = door.ledger.find_office

    async def find_office_too_late(number: OfficeNumber) -> Office | None:
        with contextlib.suppress(LookupError):
            await knock.revoke()
        return await find_office(number)

    monkeypatch.setattr(door.ledger, "find_office", find_office_too_late, raising=False)
    # asyncssh's client probes or signs at once; the raw one signs at once.
    async with offering(door) as (client, server):
        assert await offer(client, knock.key, knock.data) == MSG_USERAUTH_SUCCESS
        assert server.office == OFFICE
        await door.reception.judge_live(datetime.now(UTC))
        assert await client.answers.get() == HUNG_UP
    assert door.lines("identity.ended")[0]["reason"].startswith("revoked")


async def test_store_that_cannot_be_read_is_no_wrong_key(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told to try again, nothing is rejected, and whoever is inside stays."""
    knock = await door.certify(OFFICE)

    async def busy(*_: object) -> int:
        raise Deferred("server.busy", detail="locked")

    async with await knock.enter() as inside:
        monkeypatch.setattr(door.ledger, "register_version", busy, raising=False)
        with pytest.raises(asyncssh.DisconnectError, match=r"server\.busy"):
            await knock.enter()
        assert not inside.is_closed()
    assert door.reasons() == []
    assert door.lines("login.deferred")[0]["detail"] == "locked"


async def test_defect_in_the_hook_is_a_failure_and_not_the_end(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of our own leaves the connection standing, lets nobody in and is journalled."""
    knock = await door.certify(OFFICE)

    async def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(door.ledger, "find_certificate", fail, raising=False)
    async with offering(door) as (client, server):
        assert await offer(client, knock.key, knock.data) == MSG_USERAUTH_FAILURE
        assert await offer(client, knock.key, knock.data) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert len(door.lines("error.unexpected")) == 2
