"""Who gets in: every rule of DESIGN section 5 over a real connection, with real certificates, stores and clients."""
# ruff: noqa: ARG002, D102 - the methods of sessions and clients are asyncssh's to name and to explain

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest
from asyncssh.constants import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from asyncssh.packet import Boolean, String

from relay import journal
from relay.auth import ConnectionFacts, OfficeServer, Reception
from relay.certificates import parse_certificate_line
from relay.config import Config, LimitSettings, ServerSettings
from relay.errors import Deferred
from relay.keyring import Keyring, create_keyring
from relay.ledger.sqlite import SqliteLedger, create_store, open_ledger
from relay.model import Certificate, Identity, Office, OfficeNumber, OfficeStatus
from relay.vault import Vault

OFFICE = OfficeNumber("0178515854")
LETTERED = OfficeNumber("01A8516384")
SUSPENDED = OfficeNumber("0178536215")
UNREGISTERED = OfficeNumber("3178516104")
PATIENCE_SECONDS = 20
# RFC 4252 section 7
MSG_USERAUTH_PK_OK = 60
# An answer that is the end of the connection.
HUNG_UP = -1


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """A relay's keys."""
    return create_keyring(tmp_path_factory.mktemp("login") / "keys")


def write_secret(file: Path, key: asyncssh.SSHKey) -> None:
    """Write a private key as OpenSSH wants to find it."""
    file.touch(0o600)
    key.write_private_key(file)


class Greeting(asyncssh.SSHServerSession[bytes]):
    """Says who has come in, and stays until the client closes."""

    def __init__(self, identity: Identity, facts: ConnectionFacts) -> None:
        self.identity = identity
        self.facts = facts
        self._channel: Any = None

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def session_started(self) -> None:
        self._channel.write(self.identity.office.encode() + b"\n")

    def eof_received(self) -> bool:
        self._channel.exit(0)
        return True


@dataclass
class Door:
    """A reception that listens on a real store, and what is needed to knock."""

    path: Path
    keyring: Keyring
    ledger: SqliteLedger
    reception: Reception
    port: int
    log: io.StringIO
    sessions: list[Greeting] = field(default_factory=list)
    serials: int = 0

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the journal's lines of one event."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    def reasons(self) -> list[str]:
        """Return why logins were rejected."""
        return [line["reason"] for line in self.lines("login.rejected")]

    async def certify(
        self,
        *principals: str,
        ca: asyncssh.SSHKey | None = None,
        key: asyncssh.SSHKey | None = None,
        is_known: bool = True,
        critical: str | None = None,
        **options: Any,
    ) -> Knock:
        """Make a key and a certificate with asyncssh's or OpenSSH's own hands, known to the register if wanted."""
        self.serials += 1
        key = key or asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        ca = ca or asyncssh.import_private_key(self.keyring.user_ca)
        file = self.path / f"id{self.serials}"
        write_secret(file, key)
        key.write_public_key(f"{file}.pub")
        certificate_file = Path(f"{file}-cert.pub")
        if critical is None:
            options = {"serial": self.serials, "principals": list(principals), **options}
            ca.generate_user_certificate(key, f"key {self.serials}", **options).write_certificate(certificate_file)
        else:
            write_secret(self.path / "ca", ca)
            command = ["ssh-keygen", "-q", "-s", str(self.path / "ca"), "-I", "test", "-z", str(self.serials)]
            command += ["-n", ",".join(principals), "-O", critical, f"{file}.pub"]
            await asyncio.to_thread(subprocess.run, command, check=True)
        knock = Knock(self, file, key, await asyncio.to_thread(certificate_file.read_text))
        if is_known:
            await self.ledger.record_certificate(knock.record(), actor="test")
        return knock


@dataclass
class Knock:
    """A key and its certificate, and the clients that can use them."""

    door: Door
    file: Path
    key: asyncssh.SSHKey
    line: str

    def record(self) -> Certificate:
        """Return what the register would know."""
        offered = parse_certificate_line(self.line)
        return Certificate(
            ca_fingerprint=offered.ca_fingerprint,
            serial=offered.serial,
            key_id=offered.key_id,
            key_fingerprint=offered.key_fingerprint,
            offices=tuple(OfficeNumber(name) for name in offered.principals),
            valid_after=offered.valid_after,
            valid_before=offered.valid_before,
            issued_at=offered.valid_after,
        )

    @property
    def data(self) -> bytes:
        """The certificate as it goes over the wire."""
        return asyncssh.import_certificate(self.line).public_data

    async def revoke(self) -> None:
        """Revoke the certificate."""
        record, now = self.record(), datetime.now(UTC)
        await self.door.ledger.revoke_certificate(
            record.ca_fingerprint, record.serial, reason="lost", actor="test", now=now
        )

    async def enter(self, user: str = OFFICE, **options: Any) -> asyncssh.SSHClientConnection:
        """Log in with asyncssh's client."""
        chosen: dict[str, Any] = {
            "username": user,
            "client_keys": [(self.key, asyncssh.import_certificate(self.line))],
            "known_hosts": None,
            "agent_path": None,
            "gss_host": None,
            "config": None,
            **options,
        }
        return await asyncssh.connect("127.0.0.1", self.door.port, **chosen)

    async def gets_in(self, user: str = OFFICE) -> bool:
        """Tell whether asyncssh's client is let in, and gets a session as the right office."""
        try:
            async with await self.enter(user) as client:
                channel, session = await client.create_session(
                    asyncssh.SSHClientSession, subsystem="sftp", encoding=None
                )
                del session
                channel.close()
                await channel.wait_closed()
                return self.door.sessions[-1].identity.office == user.upper()
        except asyncssh.PermissionDenied:
            return False

    async def ssh(self, user: str = OFFICE, *options: str) -> tuple[int, str, str]:
        """Log in with OpenSSH; return its exit status, output and errors."""
        known = self.door.path / "known_hosts"
        known.write_text(f"@cert-authority * {self.door.keyring.host_ca}\n")
        command = [
            "ssh",
            "-F",
            "none",
            "-T",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
        ]
        command += [
            "-o",
            f"UserKnownHostsFile={known}",
            "-o",
            "StrictHostKeyChecking=yes",
            "-i",
            str(self.file),
            *options,
        ]
        command += ["-p", str(self.door.port), f"{user}@127.0.0.1", "-s", "sftp"]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture
async def open_door(tmp_path: Path, keyring: Keyring) -> AsyncIterator[OpenDoor]:
    """Return how to open a door with settings of one's own."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*, limits: LimitSettings | None = None, **server: Any) -> Door:
            log = io.StringIO()
            journal.configure_journal("json", "debug", log)
            config = Config(home=tmp_path, server=ServerSettings(port=0, **server), limits=limits or LimitSettings())
            store = tmp_path / "relay.db"
            create_store(store)
            ledger = await open_ledger(store, Vault(keyring.master, keyring.index_key))
            await stack.enter_async_context(ledger)
            sessions: list[Greeting] = []

            def open_session(identity: Identity, facts: ConnectionFacts) -> Greeting:
                sessions.append(Greeting(identity, facts))
                return sessions[-1]

            reception = Reception(ledger, keyring, config, open_session)
            listener = await asyncssh.listen("127.0.0.1", 0, **reception.listen_options())
            stack.push_async_callback(listener.wait_closed)
            stack.callback(listener.close)
            stack.callback(reception.dismiss, "the test is over")
            door = Door(tmp_path, keyring, ledger, reception, listener.get_port(), log, sessions)
            for number in (OFFICE, LETTERED, SUSPENDED):
                status = OfficeStatus.SUSPENDED if number == SUSPENDED else OfficeStatus.ACTIVE
                office = Office(number, "みほん野", "北海道", ("43",), status)
                await ledger.record_office(office, actor="test", now=datetime.now(UTC))
            return door

        yield make


@pytest.fixture
async def door(open_door: OpenDoor) -> Door:
    """An open door with the settings of a fresh relay."""
    return await open_door()


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop run until *is_so*."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - a journal line or another process has no event
            await asyncio.sleep(0)


# --- who gets in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ssh-ed25519", "ssh-rsa"])
async def test_certified_key_of_every_kind_gets_in(door: Door, kind: str) -> None:
    """A certificate of the relay's CA for a registered, active office opens the door, for OpenSSH and asyncssh."""
    knock = await door.certify(OFFICE, key=asyncssh.generate_private_key(kind))
    assert await knock.gets_in()
    assert await knock.ssh() == (0, f"{OFFICE}\n", "")
    assert [line["serial"] for line in door.lines("login.accepted")] == [door.serials] * 2
    assert door.lines("login.accepted")[1]["client_version"].startswith("SSH-2.0-OpenSSH_")
    assert door.reasons() == []
    assert door.lines("error.unexpected") == []


async def test_user_name_in_lower_case_is_the_same_office(door: Door) -> None:
    """01a8… is 01A8…, though the certificate holds it in capitals."""
    knock = await door.certify(LETTERED)
    assert await knock.gets_in(LETTERED.lower())
    assert (await knock.ssh(LETTERED.lower()))[:2] == (0, f"{LETTERED}\n")
    assert {line["office"] for line in door.lines("login.accepted")} == {LETTERED}


async def test_certificate_for_several_offices_logs_in_as_each(door: Door) -> None:
    """One company, one certificate: the identity is the office of the user name."""
    knock = await door.certify(OFFICE, LETTERED)
    assert await knock.gets_in(OFFICE)
    assert await knock.gets_in(LETTERED)
    assert [session.identity.office for session in door.sessions] == [OFFICE, LETTERED]


async def test_certificate_lets_in_from_the_addresses_it_names(door: Door) -> None:
    """A source-address that holds this machine is no hindrance."""
    knock = await door.certify(OFFICE, source_address=["127.0.0.0/8"])
    assert await knock.gets_in()
    assert (await knock.ssh())[0] == 0


async def test_session_is_told_who_and_where_from(door: Door) -> None:
    """The facts of a session are those of its connection, and its journal names it."""
    knock = await door.certify(OFFICE)
    assert (await knock.ssh())[0] == 0
    facts = door.sessions[0].facts
    assert facts.peer == "127.0.0.1"
    assert facts.client_version.startswith("SSH-2.0-OpenSSH_")
    journal.session_opened(facts.journal)
    line = door.lines("session.opened")[0]
    assert (line["connection"], line["office"], line["session"]) == (facts.id, OFFICE, 1)


# --- who does not --------------------------------------------------------------------------------------------------

STRANGER_CA = asyncssh.generate_private_key("ssh-ed25519")


@pytest.mark.parametrize(
    ("reason", "user", "options"),
    [
        ("no_principals", OFFICE, {"principals": []}),
        ("wrong_principal", OFFICE, {"principals": [LETTERED]}),
        ("wrong_principal", OFFICE, {"principals": ["root"]}),
        ("unknown_ca", OFFICE, {"ca": STRANGER_CA}),
        ("not_yet_valid", OFFICE, {"valid_after": "+1h", "valid_before": "+2h"}),
        ("source_address", OFFICE, {"source_address": ["10.0.0.0/8"]}),
        ("force_command", OFFICE, {"force_command": "internal-sftp"}),
        ("unknown_serial", OFFICE, {"is_known": False}),
        ("unknown_serial", OFFICE, {"is_known": False, "serial": 2**64 - 1}),
        ("unknown_serial", OFFICE, {"is_known": False, "serial": 0}),
        ("unknown_office", UNREGISTERED, {"principals": [UNREGISTERED]}),
        ("unknown_office", "root", {"principals": ["root"]}),
        ("key_size", OFFICE, {"key": asyncssh.generate_private_key("ssh-rsa", key_size=1024)}),
    ],
)
async def test_certificate_that_breaks_a_rule_stays_outside(
    door: Door, reason: str, user: str, options: dict[str, Any]
) -> None:
    """No client gets in, the journal says why, and the client hears nothing."""
    principals = () if "principals" in options else (OFFICE,)
    knock = await door.certify(*principals, **options)
    assert not await knock.gets_in(user)
    status, out, err = await knock.ssh(user)
    assert (status, out) == (255, "")
    assert "Permission denied (publickey)" in err
    assert "office." not in err
    assert set(door.reasons()) == {reason}
    assert door.sessions == []
    assert door.lines("error.unexpected") == []


async def test_critical_option_that_nobody_knows_keeps_the_certificate_outside(door: Door) -> None:
    """A rule that we do not understand is not taken for one that does not matter."""
    knock = await door.certify(OFFICE, critical="critical:unheard-of@example.com=1")
    status, _, err = await knock.ssh()
    assert status == 255
    assert "Permission denied (publickey)" in err
    assert set(door.reasons()) == {"critical_option"}


async def test_host_certificate_is_no_key(door: Door) -> None:
    """A certificate of the trusted CA for a host is not one for a user."""
    knock = await door.certify(OFFICE)
    ca = asyncssh.import_private_key(door.keyring.user_ca)
    line = ca.generate_host_certificate(knock.key, "h", principals=[OFFICE], serial=99).export_certificate().decode()
    host = replace(knock, line=line)
    assert not await host.gets_in()
    assert set(door.reasons()) == {"not_a_user_certificate"}


async def test_ca_of_the_same_name_is_not_the_ca(door: Door) -> None:
    """What counts is the CA's key: one that calls itself the same signs nothing that opens the door."""
    impostor = asyncssh.generate_private_key("ssh-ed25519", comment="careplan-relay user_ca")
    knock = await door.certify(OFFICE, ca=impostor)
    assert not await knock.gets_in()
    assert set(door.reasons()) == {"unknown_ca"}


async def test_certificate_that_names_the_ca_but_is_not_signed_by_it_stays_outside(door: Door) -> None:
    """The claim to be of the trusted CA passes the rules; its signature does not, probe or not."""
    knock = await door.certify(OFFICE)
    forged = knock.data[:-1] + bytes([knock.data[-1] ^ 1])
    async with offering(door) as (client, server):
        for is_signed in (False, True):
            assert await offer(client, knock.key, forged, is_signed=is_signed) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert door.reasons() == ["bad_signature", "bad_signature"]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("expired", "office.expired: この証明書は有効期限が切れています / this certificate has expired"),
        ("revoked", "office.revoked: この証明書は失効しています / this certificate is no longer valid"),
        (
            "suspended",
            f"office.suspended: 事業所 {SUSPENDED} は現在、利用を停止しています / office {SUSPENDED} is suspended",
        ),
    ],
)
async def test_expired_revoked_and_suspended_are_told_to_the_holder_of_the_key(
    door: Door, told: str, sentence: str
) -> None:
    """OpenSSH's user reads one line in Japanese and English, once the signature was good."""
    user = SUSPENDED if told == "suspended" else OFFICE
    knock = await door.certify(user, **({"valid_after": "-2h", "valid_before": "-1h"} if told == "expired" else {}))
    if told == "revoked":
        await knock.revoke()
    banners: list[str] = []

    class Client(asyncssh.SSHClient):
        def auth_banner_received(self, msg: str, lang: str) -> None:
            banners.append(msg)

    with pytest.raises(asyncssh.PermissionDenied):
        await knock.enter(user, client_factory=Client)
    assert banners == [sentence + "\r\n"]
    status, _, err = await knock.ssh(user)
    assert status == 255
    assert sentence.rpartition(" / ")[2] in err
    assert door.reasons() == [told, told]


async def test_nobody_hears_why_without_a_good_signature(door: Door) -> None:
    """Who has the certificate but not its key learns nothing of its state."""
    knock = await door.certify(OFFICE, valid_after="-2h", valid_before="-1h")
    banners: list[str] = []
    async with offering(door, banners) as (client, _):
        thief = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        assert await offer(client, thief, knock.data) == MSG_USERAUTH_FAILURE
    assert banners == []
    assert door.reasons() == ["expired"]


async def test_bare_key_is_declined_without_a_word(door: Door) -> None:
    """OpenSSH offers the bare key first: no line in the journal, no count, and the certificate still gets in."""
    knock = await door.certify(OFFICE)
    with pytest.raises(asyncssh.PermissionDenied):
        await knock.enter(client_keys=[knock.key])
    assert door.reasons() == []
    assert await knock.gets_in()


async def test_sha1_signature_stays_outside(door: Door) -> None:
    """An RSA key that signs with ssh-rsa, though the relay named only SHA-2, is refused; with SHA-2 it gets in."""
    knock = await door.certify(OFFICE, key=asyncssh.generate_private_key("ssh-rsa", key_size=2048))
    async with offering(door) as (client, server):
        assert await offer(client, knock.key, knock.data, algorithm=b"ssh-rsa") == MSG_USERAUTH_FAILURE
        assert server.office is None
        assert door.reasons() == ["signature_algorithm"]
        assert "ssh-rsa" in door.lines("login.rejected")[0]["detail"]
        assert await offer(client, knock.key, knock.data, algorithm=b"rsa-sha2-256") == MSG_USERAUTH_SUCCESS
        assert server.office == OFFICE


@pytest.mark.parametrize("kind", ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"])
@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0", b"\0\0\0\x0bssh-ed25519", bytes(range(192, 256)), b"\xff" * 64, String("ssh-ed25519") + b"\xff" * 8],
    ids=["nothing", "nul", "a name", "64 bytes", "64 ones", "a name and more"],
)
async def test_signature_that_is_garbage_ends_nothing_but_the_attempt(door: Door, kind: str, garbage: bytes) -> None:
    """Whatever stands for a signature, the answer is a failure, and the next attempt is heard."""
    knock = await door.certify(OFFICE, key=asyncssh.generate_private_key(kind))
    prefix = String(knock.key.sig_algorithms[0])
    async with offering(door) as (client, server):
        for signature in (garbage, prefix + garbage, prefix + String(garbage), prefix + String(garbage * 4)):
            assert await offer(client, knock.key, knock.data, signature=signature) == MSG_USERAUTH_FAILURE
        assert server.office is None
    assert len(door.reasons()) == 4
    assert door.lines("error.unexpected") == []


async def test_truncated_and_oversized_certificates_end_nothing_but_the_attempt(door: Door) -> None:
    """A certificate cut at any byte, or far too long, is a failure like any other."""
    knock = await door.certify(OFFICE)
    data = knock.data
    offers = [data[:cut] for cut in range(0, len(data), 23)] + [data + b"\0", data + bytes(100_000)]
    async with offering(door) as (client, _):
        for offered in offers:
            assert await offer(client, knock.key, offered, is_signed=False) == MSG_USERAUTH_FAILURE
    assert len(door.reasons()) == len(offers)
    assert set(door.reasons()) <= {"malformed", "key_algorithm"}
    assert door.lines("error.unexpected") == []


# --- what binds an identity ----------------------------------------------------------------------------------------


class Offering(asyncssh.SSHClient):
    """A client that sends just the requests it is told to, and hears the answers."""

    def __init__(self, banners: list[str]) -> None:
        self.conn: Any = None
        self.answers: asyncio.Queue[int] = asyncio.Queue()
        self.may_begin = asyncio.Event()
        self._banners = banners

    def connection_made(self, conn: Any) -> None:
        self.conn = conn
        conn.try_next_auth = lambda **_: None

        def hear(_conn: Any, kind: int, *_: object) -> bool:
            return self.process_packet(kind, 0, None)

        conn._packet_handlers = {**conn._packet_handlers, MSG_USERAUTH_FAILURE: hear, MSG_USERAUTH_SUCCESS: hear}

    def connection_lost(self, exc: Exception | None) -> None:
        self.answers.put_nowait(HUNG_UP)

    def begin_auth(self, username: str) -> None:
        # Where asyncssh keeps what it does about the answers to a method.
        self.conn._auth = self
        self.may_begin.set()

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self._banners.append(msg)

    def process_packet(self, pkttype: int, _pktid: int, _packet: Any) -> bool:
        self.answers.put_nowait(pkttype)
        return True

    def log_received_packet(self, *_: object) -> None:
        """Say nothing."""

    def cancel(self) -> None:
        """Have nothing under way."""


@contextlib.asynccontextmanager
async def offering(door: Door, banners: list[str] | None = None) -> AsyncIterator[tuple[Offering, OfficeServer]]:
    """Connect as far as the first offer; yield both ends."""
    client = Offering([] if banners is None else banners)
    before = set(door.reception._connections)
    connecting = asyncio.ensure_future(
        asyncssh.connect(
            "127.0.0.1",
            door.port,
            client_factory=lambda: client,
            username=OFFICE,
            client_keys=[],
            known_hosts=None,
            agent_path=None,
            gss_host=None,
            config=None,
        )
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        await client.may_begin.wait()
        (server,) = set(door.reception._connections) - before
        try:
            yield client, server
        finally:
            client.conn.abort()
            with contextlib.suppress(asyncio.CancelledError, asyncssh.Error, OSError):
                connecting.cancel()
                await connecting
            await until(lambda: server not in door.reception._connections)


async def offer(
    client: Offering,
    key: asyncssh.SSHKey,
    data: bytes,
    *,
    user: str = OFFICE,
    is_signed: bool = True,
    algorithm: bytes | None = None,
    signature: bytes | None = None,
) -> int:
    """Send one public key request and return the kind of its answer."""
    algorithm = algorithm or key.sig_algorithms[0]
    body = String(user) + String("ssh-connection") + String("publickey") + Boolean(is_signed)
    body += String(algorithm) + String(data)
    if is_signed:
        signed = String(client.conn._session_id) + bytes([MSG_USERAUTH_REQUEST]) + body
        body += String(key.sign(signed, algorithm) if signature is None else signature)
    client.conn.send_packet(MSG_USERAUTH_REQUEST, body)
    return await client.answers.get()


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


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_sixth_failed_signature_ends_the_connection_and_is_journalled_as_a_limit(door: Door) -> None:
    """Guessing is bounded, and the operator sees a limit, not a wrong key."""
    knock = await door.certify(OFFICE)
    async with offering(door) as (client, _):
        answers = [await offer(client, knock.key, knock.data, signature=b"") for _ in range(6)]
    assert answers == [MSG_USERAUTH_FAILURE] * 5 + [HUNG_UP]
    assert [(line["limit"], line["scope"]) for line in door.lines("limit.reached")] == [
        ("failed_signatures", "127.0.0.1")
    ]


async def test_agent_with_many_keys_is_no_attack(door: Door) -> None:
    """Twenty bare keys, probed or signed at once as some libraries do, and then the certificate: in."""
    knock = await door.certify(OFFICE)
    async with offering(door) as (client, _):
        for number in range(20):
            key = asyncssh.generate_private_key("ssh-ed25519")
            answer = await offer(client, key, key.public_data, is_signed=bool(number % 2))
            assert answer == MSG_USERAUTH_FAILURE
        assert await offer(client, knock.key, knock.data) == MSG_USERAUTH_SUCCESS
    assert door.lines("limit.reached") == []


async def test_probes_are_bounded(open_door: OpenDoor) -> None:
    """A client that offers keys for ever is disconnected."""
    door = await open_door(limits=LimitSettings(key_probes=8))
    knock = await door.certify(OFFICE)
    async with offering(door) as (client, _):
        answers = [await offer(client, knock.key, knock.data, is_signed=False) for _ in range(9)]
    assert answers == [MSG_USERAUTH_PK_OK] * 8 + [HUNG_UP]
    assert door.lines("limit.reached")[0]["limit"] == "key_probes"


async def test_strangers_from_one_network_are_bounded_and_those_inside_do_not_count(open_door: OpenDoor) -> None:
    """The third connection that has not logged in is closed with a line; whoever has logged in takes no place."""
    door = await open_door(limits=LimitSettings(unauthenticated_per_network=2))
    knock = await door.certify(OFFICE)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(await knock.enter())
        streams = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            stack.callback(writer.close)
            assert (await reader.readline()).startswith(b"SSH-2.0-Relay")
            streams.append(writer)
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            assert await reader.read() == b"Too many connections, try again in a minute\r\n"
            writer.close()
        (line,) = door.lines("limit.reached")
        assert (line["limit"], line["scope"]) == ("unauthenticated_per_network", "127.0.0.0/24")
        assert datetime.fromisoformat(line["until"]) - datetime.now(UTC) < timedelta(seconds=31)
        streams[0].close()
        await until(lambda: len(door.reception.strangers) == 1)
        assert await knock.gets_in()


async def test_strangers_in_total_are_bounded(open_door: OpenDoor) -> None:
    """The total holds whatever the network, and says so."""
    door = await open_door(limits=LimitSettings(unauthenticated_total=1, unauthenticated_per_network=1))
    strangers = door.reception.strangers
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    await until(lambda: len(strangers) == 1)
    crowd = strangers.admit("somebody", "203.0.113.7", datetime.now(UTC))
    assert crowd is not None
    assert (crowd.limit, crowd.scope) == ("unauthenticated_total", "all")
    writer.close()
    await until(lambda: len(strangers) == 0)


async def test_login_that_takes_too_long_is_ended_and_journalled_as_a_limit(open_door: OpenDoor) -> None:
    """Who does not log in in time is closed."""
    door = await open_door(login_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await reader.read()).startswith(b"SSH-2.0-Relay")
    writer.close()
    assert door.lines("limit.reached")[0]["limit"] == "login_seconds"
    assert door.reception.connection_count == 0


async def test_sessions_of_a_connection_are_bounded(open_door: OpenDoor) -> None:
    """One session too many is refused; one that was closed makes room."""
    door = await open_door(limits=LimitSettings(sessions_per_connection=2))
    knock = await door.certify(OFFICE)
    async with await knock.enter() as client:
        first, _ = await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        for _ in range(3):
            with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
                await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        first.close()
        await first.wait_closed()
        await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
    assert [line["limit"] for line in door.lines("limit.reached")] == ["sessions_per_connection"]


async def test_sessions_of_an_office_are_bounded_over_its_connections(open_door: OpenDoor) -> None:
    """An office has so many sessions however it spreads them, another office has its own, and the end says why."""
    door = await open_door(limits=LimitSettings(sessions_per_office=3))
    knock = await door.certify(OFFICE, LETTERED)
    async with await knock.enter() as first, await knock.enter() as second:
        for client in (first, first, second):
            await client.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        with pytest.raises(asyncssh.ChannelOpenError, match="too many sessions"):
            await second.create_session(asyncssh.SSHClientSession, subsystem="sftp", encoding=None)
        status, _, err = await knock.ssh()
        assert status == 255
        assert "too many sessions are open" in err
        assert await knock.gets_in(LETTERED)
    assert {(line["limit"], line["scope"]) for line in door.lines("limit.reached")} == {("sessions_per_office", OFFICE)}


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
    async with await open_ledger(Path(home) / "relay.db", Vault(keyring.master, keyring.index_key)) as ledger:
        now = datetime.now(UTC)
        if what == "revoke":
            await ledger.revoke_certificate(keyring.user_ca_fingerprint, int(who), reason="lost", actor="test", now=now)
        else:
            await ledger.record_office_status(who, OfficeStatus.SUSPENDED, actor="test", now=now)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("what", "sentence"), [("revoke", "no longer valid"), ("suspend", "is suspended")])
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
    assert door.lines("store.failed")[0]["cause"] == "locked"


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


# --- clients ---------------------------------------------------------------------------------------------------------


async def test_paramiko_with_several_keys_gets_in(door: Door) -> None:
    """It asks for the authentication service once a key, and signs without probing."""
    knock = await door.certify(OFFICE)

    # Every other key that asyncssh writes in OpenSSH's format is none to paramiko 5.1.
    pem = knock.key.export_private_key("pkcs1-pem").decode()

    def log_in() -> None:
        transport = paramiko.Transport(("127.0.0.1", door.port))
        try:
            transport.start_client(timeout=PATIENCE_SECONDS)
            for _ in range(3):
                with pytest.raises(paramiko.AuthenticationException):
                    transport.auth_publickey(OFFICE, paramiko.ECDSAKey.generate())
            key = paramiko.ECDSAKey.from_private_key(io.StringIO(pem))
            key.load_certificate(f"{knock.file}-cert.pub")
            transport.auth_publickey(OFFICE, key)
            channel = transport.open_session()
            channel.invoke_subsystem("sftp")
            assert channel.recv(100) == f"{OFFICE}\n".encode()
        finally:
            transport.close()

    await asyncio.to_thread(log_in)
    assert door.reasons() == []


async def test_openssh_gets_nothing_but_sftp(door: Door) -> None:
    """A command, a shell, a terminal and a forwarding are refused; the environment is not taken."""
    knock = await door.certify(OFFICE)
    for options in (["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"],):
        status, out, err = await knock.ssh(OFFICE, *options)
        assert (status, out) == (255, ""), err
    status, out, _ = await knock.ssh(OFFICE, "-o", "SetEnv=LANG=C", "-A", "-X", "-t")
    assert (status, out) == (0, f"{OFFICE}\n")


async def test_other_methods_are_not_offered(door: Door) -> None:
    """No password, no questions, and nobody without any."""
    await door.certify(OFFICE)
    async with offering(door) as (client, server):
        for method in (
            String("none"),
            String("password") + Boolean(False) + String("x"),
            String("keyboard-interactive"),
        ):
            client.conn.send_packet(
                MSG_USERAUTH_REQUEST, String(OFFICE) + String("ssh-connection") + method + String("") * 2
            )
            assert await client.answers.get() == MSG_USERAUTH_FAILURE
        assert server.office is None
