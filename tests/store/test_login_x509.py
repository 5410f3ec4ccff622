"""The second road over a real connection: asyncssh's client with X.509 certificates, and what its attackers try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from doorway import LETTERED, MSG_USERAUTH_PK_OK, OFFICE, PATIENCE_SECONDS, Door, OpenDoor, offer, offering, until
from outside_cas import DAY, TLS_CLIENT, Holder, Key, make_root, now, publish_lists, trust, wire_chain

from relay.config import CertificateSettings, OfficeRuleSettings
from relay.model import CertificateKind, EventKind, RevocationCause
from relay.offered import fingerprint
from relay.x509 import number_of, parse_link
from relay.x509files import load_trust

# asyncssh's client asks pyOpenSSL in a way that this is about to forget.
pytestmark = pytest.mark.filterwarnings("ignore:X509[.]get_:DeprecationWarning")

RULE = OfficeRuleSettings(field="subject.CN", pattern="(?P<office>[0-9A-Z]{10})")
ON = CertificateSettings(x509=True, x509_offices=(RULE,))
KIND = b"x509v3-ecdsa-sha2-nistp256"


@dataclass
class Outside:
    """A door with a second road, and the CA that it leads from."""

    door: Door
    keys: Path
    root: Holder
    sub: Holder

    def adopt(self) -> None:
        """Let the door know what lies in its keys now."""
        faults: list[str] = []
        trusted = load_trust(self.keys, faults.append)
        assert faults == []
        self.door.reception.adopt(replace(self.door.keyring, x509=trusted))

    def publish(self, *revoked: Holder) -> None:
        """Publish the lists of both CAs."""
        publish_lists(self.keys, self.root.list_revoked(), self.sub.list_revoked([one.certificate for one in revoked]))
        self.adopt()

    async def enter(self, who: Holder, user: str = OFFICE, **options: Any) -> asyncssh.SSHClientConnection:
        """Log in with asyncssh's client, as anybody would: a key file, and a file with the chain."""
        key, chain = self.keys / "id", self.keys / "id.pem"
        key.write_bytes(who.ssh_key.export_private_key("pkcs8-pem"))
        chain.write_bytes(b"".join(one.pem for one in who.line))
        chosen = {"client_keys": [(str(key), str(chain))], "known_hosts": None, "agent_path": None, **options}
        return await asyncssh.connect("127.0.0.1", self.door.port, username=user, config=None, **chosen)

    async def gets_in(self, who: Holder, user: str = OFFICE) -> bool:
        """Tell whether asyncssh's client is let in, and gets a session as that office."""
        try:
            async with await self.enter(who, user) as client:
                await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
                await until(lambda: len(self.door.lines("login.accepted")) == len(self.door.sessions))
                return self.door.sessions[-1].identity.office == user.upper()
        except asyncssh.PermissionDenied:
            return False

    async def known(self) -> list[Any]:
        """Return what the register has."""
        return await self.door.ledger.list_certificates()


async def ended(client: asyncssh.SSHClientConnection) -> None:
    """Wait until the server has ended the connection."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await client.wait_closed()


def prepare(door: Door, path: Path) -> Outside:
    """Trust a CA at *door*."""
    for folder in ("trusted_x509_cas", "x509_crls"):
        (path / "keys" / folder).mkdir(parents=True, mode=0o700)
    root = make_root()
    outside = Outside(door, path / "keys", root, root.certify_ca("Outside Sub", path_length=0))
    trust(outside.keys, root)
    outside.publish()
    return outside


@pytest.fixture
async def outside(open_door: OpenDoor, tmp_path: Path) -> AsyncIterator[Outside]:
    """A door that lets outside certificates in."""
    return prepare(await open_door(certificates=ON), tmp_path)


# --- who gets in ---------------------------------------------------------------------------------------------------

KEYS: dict[str, Key] = {
    "nistp256": ec.generate_private_key(ec.SECP256R1()),
    "nistp384": ec.generate_private_key(ec.SECP384R1()),
    "nistp521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
async def test_an_outside_certificate_of_every_kind_gets_in(outside: Outside, key: Key) -> None:
    """Each kind of RFC 6187 opens the door, twice; the journal has its true serial, the register knows it once."""
    who = outside.sub.certify(OFFICE, key=key)
    assert await outside.gets_in(who)
    assert await outside.gets_in(who)
    (known,) = await outside.known()
    assert known.kind is CertificateKind.X509
    assert known.offices == (OFFICE,)
    assert known.serial == number_of(parse_link(who.der)) == outside.door.sessions[0].identity.certificate_serial
    assert [line["key_id"] for line in outside.door.lines("login.accepted")] == [known.key_id] * 2
    assert int(known.key_id.removeprefix("x509 "), 16) == who.certificate.serial_number
    met = [one for one in await outside.door.ledger.list_events() if one.kind is EventKind.CERTIFICATE_MET]
    assert [(one.office, one.detail) for one in met] == [(OFFICE, f"{known.serial} {known.key_id}")]
    assert outside.door.lines("error.unexpected") == []


async def test_lower_case_is_the_same_office(outside: Outside) -> None:
    """01a8… is 01A8… on this road as well."""
    assert await outside.gets_in(outside.sub.certify(LETTERED), LETTERED.lower())


async def test_the_first_road_stays_as_it_is(outside: Outside) -> None:
    """An OpenSSH certificate opens the same door for both programs, and X.509 is not said to be its kind."""
    knock = await outside.door.certify(OFFICE)
    assert await knock.gets_in()
    assert (await knock.ssh())[:2] == (0, f"{OFFICE}\n")
    assert (await outside.known())[0].kind is CertificateKind.OPENSSH


async def test_nobody_gets_in_where_it_is_not_switched_on(open_door: OpenDoor, tmp_path: Path) -> None:
    """Off by default, whoever is trusted; on, it takes a CA; only then are clients told of it."""
    outside = prepare(await open_door(), tmp_path)
    who = outside.sub.certify(OFFICE)
    assert outside.door.reception.foreign.signature_algorithms == ()
    async with offering(outside.door) as (client, _):
        assert not any(name.startswith(b"x509v3-") for name in client.conn._server_sig_algs)
        assert await offer(client, who.ssh_key, who.chain(), algorithm=KIND) == MSG_USERAUTH_FAILURE
    assert outside.door.reasons() == ["key_algorithm"]


async def test_nobody_gets_in_where_no_ca_is_trusted(outside: Outside) -> None:
    """Switched on, with an empty folder."""
    (outside.keys / "trusted_x509_cas" / "ca0.pem").unlink()
    outside.adopt()
    assert not await outside.gets_in(outside.sub.certify(OFFICE))
    assert outside.door.lines("x509.trusted")[-1]["anchors"] == 0
    assert outside.door.lines("x509.trusted")[-1]["level"] == "warning"


async def test_clients_are_told_of_it_where_it_is_on(outside: Outside) -> None:
    """Beside the algorithms of the first road, without SHA-1."""
    async with offering(outside.door) as (client, _):
        told = {name.decode() for name in client.conn._server_sig_algs}
    assert {name for name in told if name.startswith("x509v3-")} == {
        "x509v3-ecdsa-sha2-nistp256",
        "x509v3-ecdsa-sha2-nistp384",
        "x509v3-ecdsa-sha2-nistp521",
        "x509v3-rsa2048-sha256",
    }
    assert {"ssh-ed25519", "rsa-sha2-512"} <= told


async def test_the_tls_client_purpose_is_a_setting(open_door: OpenDoor, tmp_path: Path) -> None:
    """What was made for TLS clients is refused, and let in where the operator says so."""
    outside = prepare(await open_door(certificates=ON), tmp_path)
    who = outside.sub.certify(OFFICE, purposes=[TLS_CLIENT])
    assert not await outside.gets_in(who)
    assert outside.door.reasons() == ["purpose"]


async def test_the_tls_client_purpose_can_be_allowed(open_door: OpenDoor, tmp_path: Path) -> None:
    """The same certificate with the setting."""
    settings = ON.model_copy(update={"x509_tls_client": True})
    outside = prepare(await open_door(certificates=settings), tmp_path)
    assert await outside.gets_in(outside.sub.certify(OFFICE, purposes=[TLS_CLIENT]))


# --- attacks -------------------------------------------------------------------------------------------------------


async def test_a_probe_binds_nothing(outside: Outside) -> None:
    """Somebody who shows a good chain without its key is nobody, and the register does not learn of it."""
    who, own = outside.sub.certify(OFFICE), make_root().ssh_key
    async with offering(outside.door) as (client, server):
        assert await offer(client, own, who.chain(), is_signed=False, algorithm=KIND) == MSG_USERAUTH_PK_OK
        assert server.identity is None
        assert await offer(client, own, who.chain(), algorithm=KIND) == MSG_USERAUTH_FAILURE
        assert server.identity is None
    assert outside.door.reasons() == ["bad_signature"]
    assert await outside.known() == []


async def test_a_signature_for_another_connection_is_none(outside: Outside) -> None:
    """What was signed once is good on its own connection only."""
    who = outside.sub.certify(OFFICE)
    async with offering(outside.door) as (client, server):
        signature = who.ssh_key.sign(b"another session", b"ecdsa-sha2-nistp256")
        answer = await offer(client, who.ssh_key, who.chain(), algorithm=KIND, signature=signature)
        assert answer == MSG_USERAUTH_FAILURE
        assert server.identity is None
        assert await offer(client, who.ssh_key, who.chain(), algorithm=KIND) == MSG_USERAUTH_SUCCESS


async def test_bad_chains_are_refused_and_the_good_one_gets_in(outside: Outside) -> None:
    """Truncated, oversized, of a stranger and of another office: each refused, and no defect is told."""
    who, other = outside.sub.certify(OFFICE), outside.sub.certify(LETTERED)
    stranger = make_root().certify_ca("Outside Sub").certify(OFFICE)
    crimes = {
        who.chain()[:-40]: "malformed",
        wire_chain(KIND, [who.der] * 7): "malformed",
        wire_chain(KIND, [who.der], [bytes(33_000)]): "malformed",
        wire_chain(b"x509v3-ssh-dss", [who.der]): "key_algorithm",
        stranger.chain(): "unknown_ca",
        other.chain(): "wrong_principal",
    }
    async with offering(outside.door) as (client, _):
        for data in crimes:
            assert await offer(client, who.ssh_key, data, is_signed=False, algorithm=KIND) == MSG_USERAUTH_FAILURE
        assert await offer(client, who.ssh_key, who.chain(), algorithm=KIND) == MSG_USERAUTH_SUCCESS
    assert outside.door.reasons() == list(crimes.values())
    assert outside.door.lines("error.unexpected") == []


async def test_sha1_of_the_client_is_refused(outside: Outside) -> None:
    """x509v3-ssh-rsa signs with SHA-1 where nothing else is said."""
    who = outside.sub.certify(OFFICE, key=KEYS["rsa"])
    async with offering(outside.door) as (client, _):
        chain = who.chain(kind=b"x509v3-ssh-rsa")
        assert await offer(client, who.ssh_key, chain, algorithm=b"x509v3-ssh-rsa") == MSG_USERAUTH_FAILURE
    assert outside.door.reasons() == ["signature_algorithm"]


# --- thrown out ----------------------------------------------------------------------------------------------------


async def test_revoked_by_its_ca_before_the_login(outside: Outside) -> None:
    """It is refused, and its holder alone is told why."""
    who, banners = outside.sub.certify(OFFICE), list[str]()
    outside.publish(who)
    async with offering(outside.door, banners) as (client, _):
        own = make_root().ssh_key
        assert await offer(client, own, who.chain(), algorithm=KIND) == MSG_USERAUTH_FAILURE
        assert banners == []
        assert await offer(client, who.ssh_key, who.chain(), algorithm=KIND) == MSG_USERAUTH_FAILURE
        assert ["office.revoked" in banner for banner in banners] == [True]
    assert outside.door.reasons() == ["revoked", "revoked"]


async def test_revoked_by_its_ca_during_a_session(outside: Outside) -> None:
    """The list is exchanged, and the next look ends the connection of whom it names, and nobody else's."""
    who, other = outside.sub.certify(OFFICE), outside.sub.certify(LETTERED)
    client, stays = await outside.enter(who), await outside.enter(other, LETTERED)
    outside.publish(who)
    await outside.door.reception.judge_live(datetime.now(UTC))
    await ended(client)
    assert [line["reason"].split(":")[0] for line in outside.door.lines("identity.ended")] == ["revoked"]
    assert not stays.is_closed()
    stays.close()
    await stays.wait_closed()


async def test_a_list_that_ends_confirms_nobody_any_more(outside: Outside) -> None:
    """A session ends with the list that it rests on, and its user reads that it is not his certificate."""
    client = await outside.enter(outside.sub.certify(OFFICE))
    await outside.door.reception.judge_live(now() + timedelta(hours=23))
    assert not client.is_closed()
    await outside.door.reception.judge_live(now() + 2 * DAY)
    await ended(client)
    assert [line["reason"].split(":")[0] for line in outside.door.lines("identity.ended")] == ["unconfirmed"]


async def test_a_list_that_is_renewed_in_time_goes_on(outside: Outside) -> None:
    """A long session outlives the list that it began with, and is not asked about again every second."""
    client = await outside.enter(outside.sub.certify(OFFICE))
    until_then = now() + 3 * DAY
    lists = [one.list_revoked(until=until_then) for one in (outside.root, outside.sub)]
    publish_lists(outside.keys, *lists)
    outside.adopt()
    await outside.door.reception.judge_live(now() + 2 * DAY)
    assert not client.is_closed()
    (server,) = outside.door.reception.attendance.live
    assert server.identity is not None
    assert server.identity.valid_before == until_then
    client.close()
    await ended(client)


async def test_a_list_that_cannot_be_read_leaves_the_one_before(outside: Outside) -> None:
    """Half a list, or a web server's page, is told and changes nothing; a forged one confirms nobody."""
    who = outside.sub.certify(OFFICE)
    publish_lists(outside.keys, b"<html>not found</html>", outside.sub.list_revoked()[:200])
    outside.adopt()
    assert {line["file"] for line in outside.door.lines("x509.list_unusable")} == {"list0.crl", "list1.crl"}
    assert await outside.gets_in(who)
    publish_lists(outside.keys, outside.root.list_revoked(), outside.sub.list_revoked(key=make_root().key))
    outside.adopt()
    banners: list[str] = []
    async with offering(outside.door, banners) as (client, _):
        assert await offer(client, who.ssh_key, who.chain(), algorithm=KIND) == MSG_USERAUTH_FAILURE
    assert ["office.unconfirmed" in banner for banner in banners] == [True]


async def test_the_operator_throws_out_whom_the_ca_does_not(outside: Outside) -> None:
    """Revoking it here ends its session, and keeps it out, though its CA's list says nothing."""
    who = outside.sub.certify(OFFICE)
    client = await outside.enter(who)
    (known,) = await outside.known()
    await outside.door.ledger.revoke_certificates([known.id], actor="test", now=datetime.now(UTC))
    await outside.door.reception.judge_live(datetime.now(UTC))
    await ended(client)
    assert not await outside.gets_in(who)
    assert outside.door.reasons()[-1] == "revoked"


async def test_a_revoked_key_opens_nothing_with_any_certificate(outside: Outside) -> None:
    """A key that was revoked before it was ever seen is out as well, and so is every new certificate of it."""
    who = outside.sub.certify(OFFICE)
    key = fingerprint(parse_link(who.der).key_data)
    await outside.door.ledger.revoke_certificates(
        [], keys=[key], cause=RevocationCause.STOLEN, actor="test", now=datetime.now(UTC)
    )
    assert not await outside.gets_in(who)
    assert not await outside.gets_in(outside.sub.certify(OFFICE, key=who.key))
    assert outside.door.reasons() == ["revoked"] * 2
    assert await outside.known() == []


async def test_a_ca_that_is_trusted_no_more(outside: Outside) -> None:
    """Taking a CA away ends whom it let in."""
    client = await outside.enter(outside.sub.certify(OFFICE))
    (outside.keys / "trusted_x509_cas" / "ca0.pem").write_bytes(make_root().pem)
    outside.adopt()
    await outside.door.reception.judge_live(datetime.now(UTC))
    await ended(client)
    assert [line["reason"].split(":")[0] for line in outside.door.lines("identity.ended")] == ["unknown_ca"]
