"""A relay in the test's own process: a real store, real desks and sessions; the only thing that is not there is a network.

What an office sends is received at once, and what it is answered is read as from a wire (`raw_sftp`).  So a test can let
the store, the clock or the random source fail under one request, and sees every suspension.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, PATIENCE_SECONDS
from raw_sftp import RawSftp

from relay import journal
from relay.audit import AuditKey
from relay.authority import open_user_ca
from relay.collection import Collection
from relay.config import Config
from relay.intake import Intake
from relay.keyring import Keyring
from relay.ledger.sqlite import SqliteLedger, create_store, open_ledger
from relay.ledger.storefile import StoreLock
from relay.model import Certificate, Identity, Office, OfficeNumber
from relay.news import NewsDesk
from relay.privatekeys import private_bytes, public_line
from relay.receipts import ReceiptDesk
from relay.reception import ConnectionFacts
from relay.renewal import RenewalDesk
from relay.sftp.desks import Desks
from relay.sftp.limits import Shares
from relay.sftp.session import SftpSession
from relay.status import StatusDesk
from relay.vault import MasterKey, Vault

OFFICES = {CARE_MANAGER: ("43",), HOME_HELP: ("11",), DAY_CARE: ("15",)}
_RECEIPT_KEY = Ed25519PrivateKey.generate()


def clock() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def identity_of(office: OfficeNumber) -> Identity:
    """Return *office* as it is logged in with its certificate."""
    return Identity(office, "SHA256:ca", int(office), office, datetime(2099, 1, 1, tzinfo=UTC))


async def prepare_store(path: Path) -> None:
    """Make a store with three offices and a certificate each."""
    create_store(path)
    now = clock()
    async with await open_ledger(path, new_vault(), AuditKey("a1", bytes(32))) as ledger:
        for number, services in OFFICES.items():
            await ledger.record_office(Office(number, "みほん", "北海道", services), actor="test", now=now)
            identity = identity_of(number)
            await ledger.record_certificate(
                Certificate(
                    identity.ca_fingerprint, identity.certificate_serial, number, "SHA256:key", (number,),
                    now - timedelta(days=1), identity.valid_before, now,
                ),
                actor="test",
            )  # fmt: skip


def new_vault() -> Vault:
    """Return a vault whose keys are always the same."""
    return Vault(MasterKey("m1", bytes(32)), bytes(32))


@pytest.fixture
def prepared_store(make_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return what `prepare_store` makes, made once for all workers of this run; nobody opens it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        asyncio.run(prepare_store(folder / "relay.db"))

    return make_once("prepared-store", make) / "relay.db"


class _OpenGate:
    """A connection that always takes more."""

    is_open = True

    def watch(self, _: Callable[[], None]) -> Callable[[], None]:
        """Never call."""
        return lambda: None


class _Channel:
    """A channel whose window is always open: what is written has been received."""

    _init_recv_window = _recv_window = 1 << 21

    def __init__(self, receiver: RawSftp) -> None:
        self._receiver = receiver

    def write(self, data: bytes) -> None:
        """Give it to the client's side."""
        self._receiver.data_received(data, None)

    def write_stderr(self, _: bytes) -> None:
        """Drop it."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Never."""
        return False


class InnerSftp(RawSftp):
    """An office's end of a session."""

    def __init__(self) -> None:
        super().__init__()
        self.session: SftpSession
        self.ended = asyncio.Event()

    def send(self, data: bytes) -> None:
        """Let the relay receive *data*."""
        self.session.data_received(data, None)

    async def leave(self) -> None:
        """End the connection, and wait until the relay has done what it does then."""
        self.session.connection_lost(None)
        self.is_closed = True
        await asyncio.wait_for(self.ended.wait(), PATIENCE_SECONDS)


@dataclass
class Indoors:
    """One relay's desks, and what its sessions wrote into the journal."""

    store: Path
    ledger: SqliteLedger
    desks: Desks
    said: StringIO
    # Where it has one; then it makes certificates.
    keyring: Keyring | None = None
    is_of_keyring: bool = False

    async def sit(self, office: OfficeNumber = CARE_MANAGER) -> InnerSftp:
        """Log in as *office* and open SFTP."""
        inner, gate = InnerSftp(), _OpenGate()
        facts = ConnectionFacts("c1", "127.0.0.1", "SSH-2.0-test", _any(gate), journal.new_journal(), _void, _void)
        inner.session = SftpSession(await self._identify(office), facts, self.desks, lambda _: inner.ended.set())
        inner.chan = _any(_Channel(inner))
        inner.session.connection_made(_any(inner.chan))
        inner.session.session_started()
        await inner.greet()
        return inner

    async def _identify(self, office: OfficeNumber) -> Identity:
        """Return *office* with the certificate that the store knows of it."""
        if not self.is_of_keyring:
            return identity_of(office)
        own = (await self.ledger.list_certificates(office=office))[-1]
        return Identity(office, own.ca_fingerprint, own.serial, own.key_id, own.valid_before)

    @asynccontextmanager
    async def session(self, office: OfficeNumber = CARE_MANAGER) -> AsyncIterator[InnerSftp]:
        """Sit down as *office* for a block, and leave."""
        inner = await self.sit(office)
        try:
            yield inner
        finally:
            await inner.leave()

    async def check_idle(self) -> None:
        """AssertionError where something is held for long though all sessions have ended, or the writer has gone."""
        intake, lock = self.desks.intake, StoreLock(self.store, 0)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                # What was on its way into the store when its session ended comes back by itself; so does the lock.
                while not (intake._buffers.holds_nothing and lock.try_acquire()):  # noqa: ASYNC110 - neither tells
                    await asyncio.sleep(0.001)
        finally:
            lock.close()
        assert intake._underway._live == {}
        assert intake._underway._places == {}
        assert "ledger-writer" in {task.get_name() for task in asyncio.all_tasks()}

    def defects(self) -> list[dict[str, Any]]:
        """Return what the journal tells of defects."""
        lines = [json.loads(line) for line in self.said.getvalue().splitlines()]
        return [line for line in lines if line["event"] == "error.unexpected"]


@asynccontextmanager
async def open_indoors(
    store: Path,
    clock: Callable[[], datetime] = clock,
    on_trouble: Callable[[str | None], None] = lambda _: None,
    keyring: Keyring | None = None,
    *,
    is_of_keyring: bool = False,
) -> AsyncIterator[Indoors]:
    """Open the store that `prepare_store` made, or one *is_of_keyring*, and everything that serves sessions."""
    said = StringIO()
    journal.configure_journal("json", "info", said)
    config, vault, audit_key = Config(home=store.parent), new_vault(), AuditKey("a1", bytes(32))
    if keyring is not None and is_of_keyring:
        vault, audit_key = keyring.open_vault(), keyring.audit_key
    opened = await open_ledger(store, vault, audit_key, on_trouble=on_trouble)
    async with opened as ledger:
        receipts = private_bytes(_RECEIPT_KEY)
        desks = Desks(
            ledger=ledger,
            intake=Intake(ledger, vault, config, clock),
            collection=Collection(ledger, vault, clock, may_discard=False),
            status=StatusDesk(ledger, config),
            receipts=ReceiptDesk(ledger, config, receipts, public_line(receipts)),
            news=NewsDesk(ledger, config),
            renewal=RenewalDesk(ledger, config, clock),
            config=config,
            clock=clock,
            shares=Shares(config.limits),
        )
        if keyring is not None:
            desks.renewal.ca, desks.renewal.host_cas = open_user_ca(keyring), keyring.host_cas
        yield Indoors(store, ledger, desks, said, keyring, is_of_keyring)


def _void(_: object) -> None:
    """Take what is told and do nothing."""


def _any(what: object) -> Any:
    """Return *what* where asyncssh's own is asked for."""
    return what
