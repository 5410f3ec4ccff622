"""Attacks on the door that have no place elsewhere: CA keys as users, clocks that are set, principals of others."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncssh
import pytest
from asyncssh.constants import MSG_USERAUTH_FAILURE, MSG_USERAUTH_REQUEST
from asyncssh.packet import Boolean, String
from doorway import LETTERED, OFFICE, SUSPENDED, UNREGISTERED, Door, offer, offering

from relay.certificates import issue_certificate, plan_validity


async def test_cas_own_key_is_no_user(door: Door) -> None:
    """Bare, certified by itself, or certified and even in the register: whoever has it is not let in with it."""
    ca = asyncssh.import_private_key(door.keyring.user_ca)
    unknown = await door.certify(OFFICE, key=ca, is_known=False)
    known = await door.certify(OFFICE, key=ca)
    for knock in (unknown, known):
        assert not await knock.gets_in()
        assert (await knock.ssh())[0] == 255
    with pytest.raises(asyncssh.PermissionDenied):
        await known.enter(client_keys=[ca])
    assert set(door.reasons()) == {"ca_key"}
    assert door.sessions == []


async def test_host_ca_signs_nobody_in(door: Door) -> None:
    """The three CAs are not interchangeable: what the host CA or the receipt key signs is a stranger's."""
    for name in ("host_ca", "receipt_key"):
        other = asyncssh.import_private_key((door.keyring.path / name).read_bytes())
        assert not await (await door.certify(OFFICE, ca=other)).gets_in()
    assert set(door.reasons()) == {"unknown_ca"}


async def test_certificate_of_several_offices_opens_for_none_but_them(door: Door) -> None:
    """Two good principals, a suspended and an unregistered one: each by its own standing, a third office not at all."""
    knock = await door.certify(OFFICE, SUSPENDED, UNREGISTERED, "root", "*", "")
    assert await knock.gets_in(OFFICE)
    for user in (LETTERED, SUSPENDED, UNREGISTERED, "root", "*", "", f"{OFFICE},{LETTERED}", f"{OFFICE}\0"):
        with contextlib.suppress(asyncssh.Error, ValueError):
            assert not await knock.gets_in(user), user
    assert {session.identity.office for session in door.sessions} == {OFFICE}


async def test_serial_of_one_certificate_with_the_key_of_another_stays_outside(door: Door) -> None:
    """Who gets the CA to sign a known serial again, for another key or other offices, finds the register knows better."""
    real = await door.certify(OFFICE)
    again = await door.certify(OFFICE, serial=real.record().serial, is_known=False)
    wider = await door.certify(LETTERED, key=real.key, serial=real.record().serial, is_known=False)
    assert not await again.gets_in()
    assert not await wider.gets_in(LETTERED)
    assert set(door.reasons()) == {"unknown_serial"}
    assert await real.gets_in()


async def test_not_yet_valid_is_journalled_with_both_clocks(door: Door) -> None:
    """An office's certificate from a machine whose clock runs ahead: the operator sees which clock says what."""
    knock = await door.certify(OFFICE, valid_after="+2h", valid_before="+3h")
    assert not await knock.gets_in()
    detail = door.lines("login.rejected")[-1]["detail"]
    begins = knock.record().valid_after
    assert begins.isoformat() in detail
    here = datetime.fromisoformat(detail.rpartition("here it is ")[2])
    assert abs(datetime.now(UTC) - here) < timedelta(minutes=10) < begins - here


async def test_certificate_is_good_at_once_for_a_clock_that_runs_behind(door: Door) -> None:
    """What the relay issues begins five minutes back."""
    now = datetime.now(UTC)
    after, before = plan_validity(now + timedelta(minutes=4), 3600)
    knock = await door.certify(OFFICE, is_known=False)
    line, record = issue_certificate(
        knock.key.export_public_key().decode().strip(),
        door.keyring.user_ca or b"",
        serial=4711,
        key_id="ahead",
        offices=[OFFICE],
        valid_after=after,
        valid_before=before,
    )
    await door.ledger.record_certificate(record, actor="test")
    assert await replace(knock, line=line).gets_in()


async def test_clock_that_is_set_back_brings_no_certificate_to_life(door: Door) -> None:
    """What was over at the latest time that the relay has seen stays over; others get in, and the journal says why."""
    short = await door.certify(OFFICE, valid_before="+1h")
    long = await door.certify(LETTERED, valid_before="+10d")
    async with await short.enter() as inside:
        # As the watch does every second, on a day on which the short one is over.
        await door.reception.judge_live(datetime.now(UTC) + timedelta(days=1))
        await inside.wait_closed()
    # The clock is back at today, when the short one would be good.
    assert not await short.gets_in()
    assert await long.gets_in(LETTERED)
    assert door.reasons()[-1] == "expired"
    (told,) = door.lines("clock.set_back")
    apart = datetime.fromisoformat(told["latest"]) - datetime.fromisoformat(told["now"])
    assert timedelta(hours=23) < apart <= timedelta(days=1)


async def test_small_steps_of_the_clock_are_no_news(door: Door) -> None:
    """Clocks are put right by seconds all the time."""
    knock = await door.certify(OFFICE)
    now = datetime.now(UTC)
    for seconds in (0, 5, 3, 6, 2):
        await door.reception.judge_live(now + timedelta(seconds=seconds))
    assert await knock.gets_in()
    assert door.lines("clock.set_back") == []


async def test_revocation_ends_every_connection_of_the_certificate_and_no_other(door: Door) -> None:
    """Ten connections with one certificate, one with another of the same office: one look at the register decides."""
    stolen, other = await door.certify(OFFICE), await door.certify(OFFICE)
    async with contextlib.AsyncExitStack() as stack:
        thieves = [await stack.enter_async_context(await stolen.enter()) for _ in range(10)]
        owner = await stack.enter_async_context(await other.enter())
        await door.reception.judge_live(datetime.now(UTC))
        await stolen.revoke()
        await door.reception.judge_live(datetime.now(UTC))
        await asyncio.gather(*(thief.wait_closed() for thief in thieves))
        assert not owner.is_closed()
    assert len(door.lines("identity.ended")) == 10


async def test_signature_of_another_session_is_no_proof(door: Door) -> None:
    """What somebody signed for one connection opens no other one."""
    knock = await door.certify(OFFICE)
    algorithm = knock.key.sig_algorithms[0]
    async with offering(door) as (client, _):
        body = String(OFFICE) + String("ssh-connection") + String("publickey") + Boolean(True)
        body += String(algorithm) + String(knock.data)
        heard = knock.key.sign(String(client.conn._session_id) + bytes([MSG_USERAUTH_REQUEST]) + body, algorithm)
    async with offering(door) as (client, server):
        assert await offer(client, knock.key, knock.data, signature=heard) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert door.reasons() == ["bad_signature"]


async def test_certificate_that_came_in_before_is_proven_anew(door: Door) -> None:
    """Only what its bytes say is kept: the client's signature, the CA's over other bytes and the register are asked again."""
    knock, thief = await door.certify(OFFICE), asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    assert await knock.gets_in()
    forged = knock.data[:-1] + bytes([knock.data[-1] ^ 1])
    async with offering(door) as (client, server):
        assert await offer(client, thief, knock.data) == MSG_USERAUTH_FAILURE
        assert await offer(client, knock.key, forged) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert door.reasons() == ["bad_signature", "bad_signature"]
    assert await knock.gets_in()
    await knock.revoke()
    assert not await knock.gets_in()
    assert door.reasons()[-1] == "revoked"
