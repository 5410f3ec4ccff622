"""An open door for the tests of the login: a real reception on a real store, and hands to knock with.

Its fixtures ``door`` and ``open_door`` are offered by ``conftest.py``.
"""
# ruff: noqa: ARG002, D102 - the methods of sessions and clients are asyncssh's to name and to explain

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from asyncssh.packet import Boolean, String

from relay import journal
from relay.auth import OfficeServer
from relay.certificates import parse_certificate_line
from relay.config import CertificateSettings, Config, LimitSettings, ServerSettings
from relay.keymaking import create_keyring
from relay.keyring import Keyring
from relay.ledger.sqlite import SqliteLedger, create_store, open_ledger
from relay.model import Certificate, Identity, Office, OfficeNumber, OfficeStatus
from relay.reception import ConnectionFacts, Reception
from relay.vault import Vault

OFFICE = OfficeNumber("0178515854")
LETTERED = OfficeNumber("01A8516384")
SUSPENDED = OfficeNumber("0178536215")
UNREGISTERED = OfficeNumber("3178516104")
STRANGER_CA = asyncssh.generate_private_key("ssh-ed25519")
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

        async def make(
            *,
            limits: LimitSettings | None = None,
            certificates: CertificateSettings | None = None,
            **server: Any,
        ) -> Door:
            log = io.StringIO()
            journal.configure_journal("json", "debug", log)
            config = Config(
                home=tmp_path,
                server=ServerSettings(port=0, **server),
                limits=limits or LimitSettings(),
                certificates=certificates or CertificateSettings(),
            )
            store = tmp_path / "relay.db"
            create_store(store)
            ledger = await open_ledger(store, Vault(keyring.master, keyring.index_key), keyring.audit_key)
            await stack.enter_async_context(ledger)
            sessions: list[Greeting] = []

            def open_session(identity: Identity, facts: ConnectionFacts) -> Greeting:
                sessions.append(Greeting(identity, facts))
                return sessions[-1]

            reception = Reception(OfficeServer, ledger, keyring, config, open_session)
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
    before = set(door.reception.attendance._connections)
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
        (server,) = set(door.reception.attendance._connections) - before
        try:
            yield client, server
        finally:
            client.conn.abort()
            with contextlib.suppress(asyncio.CancelledError, asyncssh.Error, OSError):
                connecting.cancel()
                await connecting
            await until(lambda: server not in door.reception.attendance._connections)


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
