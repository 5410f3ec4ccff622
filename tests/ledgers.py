"""Ledgers for tests: a store in a folder, a small register, drafts with real seals, and the way back to their bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay.audit import AuditKey
from relay.ledger import Ledger, SealedChunk, SealedPayload, TransferDraft
from relay.ledger.sqlite import SqliteLedger, create_store, open_ledger
from relay.model import (
    Address,
    Certificate,
    Grammar,
    Identity,
    Office,
    OfficeNumber,
    OfficeStatus,
    PayloadId,
    Route,
    Transfer,
    TransferId,
)
from relay.vault import CHUNK_BYTES, MasterKey, Sealer, Vault, new_key, new_uid

A = OfficeNumber("0178515854")
B = OfficeNumber("0178529384")
C = OfficeNumber("0178512687")
CLOSED = OfficeNumber("0178536215")
NOBODY = OfficeNumber("0178503736")
CA = "SHA256:ca"
# Behind midnight in Japan and before it in London: a zone that is forgotten shows.
NOW = datetime(2026, 7, 31, 15, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
AUDIT_KEY = AuditKey("a1", b"audit key of the tests, 32 bytes")


def new_vault() -> Vault:
    """Return a vault with keys of its own."""
    return Vault(MasterKey("m1", new_key()), new_key())


def certificate(office: OfficeNumber, serial: int, *offices: OfficeNumber) -> Certificate:
    """Return a certificate of *office* and, where given, of more."""
    return Certificate(
        ca_fingerprint=CA,
        serial=serial,
        key_id=f"{office} {serial}",
        key_fingerprint="SHA256:key",
        offices=(office, *offices),
        valid_after=NOW - timedelta(days=1),
        valid_before=NOW + timedelta(days=1),
        issued_at=NOW,
    )


def identity(office: OfficeNumber) -> Identity:
    """Return *office* as it is logged in with its certificate in the small register."""
    return Identity(office, CA, int(office), str(office), NOW + timedelta(days=1))


async def fill_register(ledger: Ledger) -> None:
    """Register three active offices and a suspended one, each with a certificate."""
    offices = [Office(number, f"みほん {number}", "北海道", ("11",)) for number in (A, B, C)]
    offices.append(Office(CLOSED, "休止", "北海道", ("11",), OfficeStatus.SUSPENDED))
    await ledger.import_offices(offices, suspend_missing=False, actor="test", now=NOW)
    for office in offices:
        await ledger.record_certificate(certificate(office.number, int(office.number)), actor="test")


def plan_name(number: int = 0, sender: str = A, recipient: str = B) -> str:
    """Return a name of the standard; another one for each number."""
    return f"UPPLAN_202607_{sender}_43_{recipient}_11_{20260701000000 + number}.CSV"


def address(name: str, recipient: OfficeNumber, *, sender: OfficeNumber | None = A) -> Address:
    """Return an address of the standard's, or that of a free name where *sender* is None."""
    if sender is None:
        return Address(name, Grammar.FOLDER, name.rpartition(".")[2].upper(), recipient)
    return Address(name, Grammar.STANDARD_41, "UPPLAN", recipient, sender, "43", "11", name[-18:-4], "202607")


@dataclass
class Parcel:
    """A content, sealed: *first* chunks may be staged, what is left travels with the commit."""

    vault: Vault
    content: bytes
    name: str = plan_name()
    sender: OfficeNumber = A
    recipient: OfficeNumber = B
    is_free: bool = False
    staged: PayloadId | None = None

    def __post_init__(self) -> None:
        """Draw the uid and the key, and seal the chunks."""
        self.uid, self.key = new_uid(), new_key()
        self.sealer = Sealer(self.key, self.uid)
        pieces = [self.content[at : at + CHUNK_BYTES] for at in range(0, len(self.content), CHUNK_BYTES)]
        self.chunks = [SealedChunk(number, self.sealer.seal_chunk(number, each)) for number, each in enumerate(pieces)]
        self.travelling = list(self.chunks)

    async def stage(self, ledger: Ledger, *numbers: int, now: datetime = NOW) -> PayloadId:
        """Bring the chunks with these numbers into the store, invisible; all but the last where none is given."""
        chosen = numbers or range(len(self.chunks) - 1)
        chunks = [self.chunks[number] for number in chosen]
        self.staged = await ledger.stage_chunks(self.staged, self.uid, self.sender, chunks, now=now)
        self.travelling = [chunk for chunk in self.travelling if chunk not in chunks]
        return self.staged

    def payload(self) -> SealedPayload:
        """Return the payload as it would be committed now."""
        size, count = len(self.content), len(self.chunks)
        return SealedPayload(
            uid=self.uid,
            wrapped_key=self.vault.wrap_key(self.key, self.uid, size_bytes=size, chunk_count=count),
            size_bytes=size,
            chunk_count=count,
            sha256=digest(self.content),
            chunks=tuple(self.travelling),
            name_sealed=self.sealer.seal_name(self.name) if self.is_free else None,
            staged=self.staged,
        )

    def draft(self) -> TransferDraft:
        """Return the draft of a transfer."""
        where = address(self.name, self.recipient, sender=None if self.is_free else self.sender)
        return TransferDraft(
            route=Route(where, self.sender, self.recipient),
            identity=identity(self.sender),
            payload=self.payload(),
            in_folder=self.is_free,
            client_mtime=None,
            findings=(),
        )


def digest(content: bytes) -> bytes:
    """Return the SHA-256 of *content*."""
    import hashlib

    return hashlib.sha256(content).digest()


@dataclass
class Shop:
    """An open ledger and what belongs to it."""

    path: Path
    vault: Vault
    ledger: SqliteLedger

    def parcel(self, content: bytes = b"content", name: str = plan_name(), **how: object) -> Parcel:
        """Return *content* sealed under this shop's vault."""
        return Parcel(self.vault, content, name, **how)  # type: ignore[arg-type]

    async def send(self, content: bytes = b"content", name: str = plan_name(), **how: object) -> Transfer:
        """Make *content* a transfer and return it."""
        return (await self.ledger.commit_transfer(self.parcel(content, name, **how).draft(), now=NOW)).transfer

    async def collect(self, transfer: Transfer) -> Transfer:
        """Read it all, as its recipient."""
        ranges = [(0, transfer.size_bytes)]
        return await self.ledger.record_served(
            transfer.id, ranges, identity=identity(transfer.recipient), now=NOW + SECOND
        )

    async def content(self, transfer: TransferId) -> bytes:
        """Read the bytes back from the store, through their seals."""
        payload = await self.ledger.open_payload(transfer)
        sealer = self.vault.open_sealer(
            payload.wrapped_key, payload.uid, size_bytes=payload.size_bytes, chunk_count=payload.chunk_count
        )
        parts = [
            sealer.open_chunk(number, await self.ledger.read_chunk(payload, number))
            for number in range(payload.chunk_count)
        ]
        return b"".join(parts)

    async def reopen(self, **options: object) -> Shop:
        """Open the same store a second time, as another process would."""
        return Shop(self.path, self.vault, await open_ledger(self.path, self.vault, AUDIT_KEY, **options))  # type: ignore[arg-type]


async def open_shop(folder: Path, **options: object) -> Shop:
    """Make a store in *folder*, with the small register, and open it."""
    path, vault = folder / "relay.db", new_vault()
    create_store(path)
    shop = Shop(path, vault, await open_ledger(path, vault, AUDIT_KEY, **options))  # type: ignore[arg-type]
    await fill_register(shop.ledger)
    return shop


def large(chunks: int = 3) -> bytes:
    """Return random bytes that take so many chunks, the last one not full."""
    return os.urandom((chunks - 1) * CHUNK_BYTES + 1_000)
