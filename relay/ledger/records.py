"""What the ledger's verbs take and return, as frozen values.

They are what this relay's own stations and the store say to each other; `relay.model` holds what an office or an
operator would name.  Whoever is outside of the ledger imports them from `relay.ledger`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from relay.errors import Finding
from relay.model import (
    Identity,
    Office,
    OfficeNumber,
    PayloadId,
    PayloadUid,
    Route,
    Transfer,
    TransferId,
)
from relay.unitparts import SealedPart


class Shelf(StrEnum):
    """The three places in which a recipient sees what was sent to it (DESIGN section 3)."""

    RECEIVE = "receive"
    NEW = "new"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class SealedChunk:
    """One chunk as it lies in the store: *number* from 0, *sealed* is nonce, ciphertext and tag."""

    number: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class SealedPayload:
    """A whole payload, ready to be committed.

    *staged* names the chunks that are in the store already, *chunks* are those that travel with the commit.
    *wrapped_key*, under the master key *master_id* ('' where that is not known), authenticates uid, *chunk_count* and
    *size_bytes*.  *name_sealed* holds the file name where it is
    not the standard's, sealed under the same key.
    """

    uid: PayloadUid
    wrapped_key: bytes
    size_bytes: int
    chunk_count: int
    sha256: bytes
    chunks: tuple[SealedChunk, ...]
    name_sealed: bytes | None = None
    staged: PayloadId | None = None
    holder: bytes | None = None
    master_id: str = ""


@dataclass(frozen=True, slots=True)
class Partial:
    """An upload that is no transfer and may be taken up again: cut off, or waiting under a temporary name.

    *path* is that below ``send/``, as the client called it; *folder* the address folder it is in.  *payload* is None
    before the first `Ledger.save_partial`.  *wrapped_key* is bound to *uid* alone, since the length is not final.
    *holder* is who may write: see `Ledger.take_over`.  *size_bytes* are there without a gap.  *is_closed* after the
    client's CLOSE, which only a temporary name survives; *looks_whole* is what its program's manners said then.
    """

    office: OfficeNumber
    path: str
    folder: OfficeNumber | None
    payload: PayloadId | None
    uid: PayloadUid
    holder: bytes
    wrapped_key: bytes
    size_bytes: int
    is_closed: bool
    looks_whole: bool
    client_mtime: datetime | None
    touched_at: datetime


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """What reading needs: where the chunks lie and the key that opens them, still wrapped."""

    id: PayloadId
    uid: PayloadUid
    wrapped_key: bytes
    size_bytes: int
    chunk_count: int


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What a rotation of the master key did: rows wrapped again, and rows that opened under no key at all."""

    done: int
    damaged: int


@dataclass(frozen=True, slots=True)
class TransferDraft:
    """Everything a transfer is made of, before the ledger has decided whether it becomes one.

    *path* is where it was uploaded, below ``send/``: a partial that is kept there goes with the commit.  *is_renamed*
    where that was a temporary name.  *completes* is the live transfer of that identity all of whose bytes these begin
    with: an interrupted upload, repeated.
    *quota_bytes* is what all files of the sender may take up, this one included.
    """

    route: Route
    identity: Identity
    payload: SealedPayload
    in_folder: bool
    client_mtime: datetime | None
    findings: tuple[Finding, ...]
    path: str | None = None
    is_renamed: bool = False
    part: SealedPart | None = None
    completes: TransferId | None = None
    quota_bytes: int | None = None


class Prospect(NamedTuple):
    """What the store knows of an upload that begins: both offices, each None where it is not registered, what the
    sender's files take up, and whether there is anything under its name (`Ledger.find_sent`) or at its path
    (`Ledger.find_partial`) already.
    """

    sender: Office | None
    recipient: Office | None
    stored_bytes: int
    has_sent: bool
    has_partial: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The transfer that answers for a draft; *is_repeat* where it had been accepted before."""

    transfer: Transfer
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class ListingCursor:
    """A place in a listing, and the newest transfer that belongs to it: the listing is that of its first page.

    *numbers* are those of the office that are still to be listed, the one that *key* is a place of first.
    """

    newest: int
    key: tuple[str, str, int] | None
    numbers: tuple[OfficeNumber, ...]


class Entry(NamedTuple):
    """One file of a listing: no more than a directory shows, because there may be 100,000 of them.

    *name* is that under which the listing's office sees it.  *changed_at* is in seconds since 1970: the sender's own
    time in ``send/``, the time of acceptance elsewhere.
    """

    id: TransferId
    name: str
    sender: OfficeNumber
    recipient: OfficeNumber
    serial: str
    size_bytes: int
    changed_at: int


# The fields of an `Entry`, in its order.
EntryRow = tuple[TransferId, str, OfficeNumber, OfficeNumber, str, int, int]


@dataclass(frozen=True, slots=True)
class ListingPage:
    """A part of a listing in its order; *cursor* is None after the last one.

    *rows* are as the store gave them: making a record of each costs as much as packing it.
    """

    rows: Sequence[EntryRow]
    cursor: ListingCursor | None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The same, with the names of what they hold."""
        return tuple(map(Entry._make, self.rows))
