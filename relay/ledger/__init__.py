"""The ledger: every fact of the relay, in the domain's verbs.

This is the protocol that the stations, the protocol floor and the command line are written against;
`relay.ledger.records` holds what its verbs take and return, `relay.ledger.sqlite` is its embedded form.  A later engine
keeps the same verbs.

What every engine guarantees:

* A verb that changes something returns only after the change is on stable storage, whole, in one transaction
  with its event; or it raises and nothing of it is there.
* `Deferred` (``server.busy``, ``server.storage_full``, ``server.storage_damaged``) says that nothing was promised and
  that the same call may succeed later.  A caller that is cancelled while it waits learns nothing; the change itself is
  never half made.
* Reading verbs never wait for a writer.

No verb reads a clock: times come in as *now*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from relay.errors import Finding
from relay.invitation import Invitation
from relay.ledger.bulletin import Bulletin as Bulletin
from relay.ledger.closing import Closing as Closing
from relay.ledger.figures import Figures as Figures
from relay.ledger.intervening import Intervening as Intervening
from relay.ledger.posting import Post as Post
from relay.ledger.records import Accepted as Accepted
from relay.ledger.records import Entry as Entry
from relay.ledger.records import EntryRow as EntryRow
from relay.ledger.records import ListingCursor as ListingCursor
from relay.ledger.records import ListingPage as ListingPage
from relay.ledger.records import Partial as Partial
from relay.ledger.records import Prospect as Prospect
from relay.ledger.records import Rewrapped as Rewrapped
from relay.ledger.records import SealedChunk as SealedChunk
from relay.ledger.records import SealedPayload as SealedPayload
from relay.ledger.records import Shelf as Shelf
from relay.ledger.records import StoredPayload as StoredPayload
from relay.ledger.records import TransferDraft as TransferDraft
from relay.ledger.registry import ImportCounts as ImportCounts
from relay.ledger.registry import Register as Register
from relay.ledger.upkeep import Upkeep as Upkeep
from relay.model import (
    Address,
    Certificate,
    Event,
    EventKind,
    Identity,
    OfficeNumber,
    PayloadId,
    PayloadUid,
    Refusal,
    Transfer,
    TransferId,
)
from relay.unitparts import UnitPart


class Ledger(Register, Figures, Post, Bulletin, Intervening, Closing, Upkeep, Protocol):
    """The register, the transfers, their payload and their history."""

    async def close(self) -> None:
        """Write what is waiting, then let go of the store."""

    # --- invitations -------------------------------------------------------------------------------------------

    async def record_invitation(self, invitation: Invitation, *, actor: str) -> None:
        """Keep an invitation to a first certificate."""

    async def list_invitations(self) -> list[Invitation]:
        """Return all invitations, the newest first."""

    async def cancel_invitation(self, number: str, *, actor: str, now: datetime) -> bool:
        """End an invitation; False where it was used or cancelled already.  LookupError where there is none."""

    async def try_invitation(self, number: str, digest: bytes, *, key: str = "", now: datetime) -> Invitation:
        """Return the invitation whose secret has that digest, open or used by this *key*; a wrong one is counted.

        Refused ``enrolment.wrong_code``, ``enrolment.blocked``, ``enrolment.used``, ``enrolment.cancelled`` or
        ``enrolment.expired``; all but the first two only to who has the secret.
        """

    async def record_enrolment(self, number: str, certificate: Certificate, *, most: int, now: datetime) -> None:
        """Record the certificate that an invitation was made for, and end it, in one transaction.

        Refused as `try_invitation` and `record_certificate`: two who try at once end in one certificate.
        """

    # --- master keys -------------------------------------------------------------------------------------------

    async def begin_rotation(self, master_id: str, *, actor: str, now: datetime) -> bool:
        """Let everything be sealed under that master key from now on; False where that is so already.

        VaultError where this process has no such key.
        """

    async def count_unrotated(self) -> int:
        """Return how many rows lie under another master key than the one in use."""

    async def rewrap_all(self, progress: Callable[[int], None]) -> Rewrapped:
        """Wrap all of them again, in small steps; *progress* hears how many each took."""

    async def end_rotation(self, *, actor: str, now: datetime) -> None:
        """Record that the master keys that are no longer in use were destroyed."""

    def forget_destroyed_keys(self) -> None:
        """Drop from memory the master keys that are not in ``keys/`` any more."""

    # --- intake ------------------------------------------------------------------------------------------------

    async def stage_chunks(
        self,
        staged: PayloadId | None,
        uid: PayloadUid,
        office: OfficeNumber,
        chunks: Sequence[SealedChunk],
        *,
        holder: bytes | None = None,
        now: datetime,
    ) -> PayloadId:
        """Keep chunks of an upload in progress, invisible and unsynced; a number given again replaces the chunk.

        LookupError where *staged* is no upload in progress any more, or *holder* does not hold it.

        Returns the id to give the next time.  What never becomes a transfer is removed by `discard_staged`, or by
        `remove_abandoned` after a crash.
        """

    async def read_staged(self, staged: PayloadId, number: int) -> bytes:
        """Return a sealed chunk of an upload in progress.  LookupError where it is not there."""

    async def discard_staged(self, staged: PayloadId, *, holder: bytes | None = None) -> None:
        """Remove the chunks of an upload that ended without a transfer, and the partial they belong to; never raises.

        With *holder* only where nobody else has taken it over.
        """

    async def remove_abandoned(self, *, before: datetime) -> int:
        """Remove uploads, but for partials, that nothing was added to since *before*; returns how many."""

    async def save_partial(self, partial: Partial, chunks: Sequence[SealedChunk], *, now: datetime) -> Partial:
        """Keep *partial* with these chunks, in the place of what its path held; returns it with its payload's id.

        LookupError where somebody else holds it by now.
        """

    async def count_partials(self, office: OfficeNumber) -> int:
        """Return how many uploads of *office* wait to be finished."""

    async def find_partial(self, office: OfficeNumber, path: str) -> Partial | None:
        """Return what *office* left unfinished at *path* below ``send/``, or None."""

    async def list_partials(self, office: OfficeNumber, folder: OfficeNumber | None) -> list[Partial]:
        """Return what *office* left unfinished at the top of ``send/``, or in an address folder."""

    async def take_over(self, office: OfficeNumber, path: str, holder: bytes, *, now: datetime) -> Partial | None:
        """Make *holder* the only one who may write to the partial; returns it, or None where there is none."""

    async def amend_partial(
        self, office: OfficeNumber, path: str, *, size_bytes: int | None = None, client_mtime: datetime | None = None
    ) -> None:
        """Shorten a partial to *size_bytes*, or keep the time that the client gives it; a larger size does nothing."""

    async def drop_partial(self, office: OfficeNumber, path: str) -> bool:
        """Remove a partial; False where there was none."""

    async def expire_partials(self, *, before: datetime, now: datetime) -> int:
        """Remove partials that nothing was added to since *before*, each leaving a row in ``status/refused``."""

    async def was_renamed_from(self, transfer: TransferId, office: OfficeNumber, path: str) -> bool:
        """True where *transfer* was made by renaming that very *path*."""

    async def set_sent_mtime(self, transfer: TransferId, mtime: datetime) -> None:
        """Keep the time that the sender's program gives its file after it was sent."""

    async def commit_transfer(self, draft: TransferDraft, *, now: datetime) -> Accepted:
        """Make *draft* a transfer: payload, record and event in one synced transaction.

        One that completes a live transfer takes its name: the other is superseded where nobody has collected it, and
        else delivered behind sender and time from now on.

        The same bytes under a live identity are the same transfer again (`Accepted.is_repeat`) and the draft's
        payload is dropped.  Refused: ``transfer.conflict``, ``route.recipient_unknown``,
        ``route.recipient_suspended``, ``office.suspended``, ``office.revoked``, ``limit.quota``, as things stand in that transaction;
        ``upload.unfinished`` where the staged chunks are gone.  ValueError where chunks are missing.
        """

    async def survey_upload(self, sender: OfficeNumber, path: str, address: Address | None) -> Prospect:
        """Return what is known of an upload that *sender* begins at *path* below ``send/``, in one look-up.

        *address* is what its name says, None where that says nothing yet.
        """

    async def stored_bytes(self, office: OfficeNumber) -> int:
        """Return what the files that *office* sent or is sending take up, until they are destroyed."""

    async def record_refusal(
        self,
        office: OfficeNumber,
        name: str,
        finding: Finding,
        *,
        folder: OfficeNumber | None = None,
        has_note: bool = False,
        sha256: bytes | None = None,
        now: datetime,
    ) -> int:
        """Keep a refusal; the same one again is counted, not repeated.  Returns the count.

        It was uploaded to the top of ``send/`` or to an address folder; *has_note* where a note shall lie there until
        the name is accepted.
        """

    async def list_notes(self, office: OfficeNumber, folder: OfficeNumber | None, *, since: datetime) -> list[Refusal]:
        """Return what has a note at the top of ``send/`` or in an address folder, each name once, newest first."""

    async def find_note(self, office: OfficeNumber, path: str, *, since: datetime) -> Refusal | None:
        """Return the newest refusal since then that has a note beside *path* below ``send/``."""

    async def remove_notes(self, office: OfficeNumber, path: str) -> bool:
        """Take away the note beside *path*; False where there was none.  The refusal stays."""

    async def note_attempt(self, office: OfficeNumber, path: str, *, now: datetime) -> None:
        """Remember that an upload to *path*, its final name, was given up."""

    async def was_attempted(self, office: OfficeNumber, path: str, *, since: datetime) -> bool:
        """True where an upload to *path* was refused or given up since then."""

    async def forget_attempts(self, *, before: datetime) -> int:
        """Forget what `note_attempt` kept before that time; returns how many."""

    async def was_refused(self, office: OfficeNumber, name: str, code: str, sha256: bytes, *, before: datetime) -> bool:
        """True where this office was refused these very bytes under this name with this code *before*."""

    async def list_refusals(
        self, office: OfficeNumber, *, since: datetime, until: datetime | None = None, limit: int | None = None
    ) -> list[Refusal]:
        """Return the refusals of *office*, newest first."""

    # --- taking back -------------------------------------------------------------------------------------------

    async def recall_transfer(self, transfer: TransferId, *, identity: Identity, now: datetime) -> Transfer:
        """Take back what nobody has collected: gone from the recipient's directories, its bytes destroyed.

        Of the bytes nothing can be read from then on, though removing a large file goes on for a moment.  Taking
        back what was taken back does nothing.  Refused ``transfer.already_collected``; LookupError where *identity*
        did not send it, or it ended otherwise.
        """

    async def find_recalled(self, office: OfficeNumber, name: str, *, since: datetime) -> Transfer | None:
        """Return what *office* took back last under that name, if it did so since then."""

    async def list_recalled(
        self, office: OfficeNumber, *, since: datetime, cursor: ListingCursor | None = None
    ) -> ListingPage:
        """Return a page of what *office* has taken back since then, each name once."""

    async def destroy_ended(self, *, before: datetime, now: datetime) -> int:
        """Destroy what is left of files taken back or replaced; returns how many keys went.

        The bytes of all of them, where a crash left any; and the key of those that ended *before*: with it goes a
        free name, which is told as its kind from then on.
        """

    # --- collection --------------------------------------------------------------------------------------------

    async def open_payload(self, transfer: TransferId) -> StoredPayload:
        """Return where the payload lies.  LookupError where it no longer exists."""

    async def read_chunk(self, payload: StoredPayload, number: int) -> bytes:
        """Return one sealed chunk.  LookupError where it is not there."""

    async def read_chunks(
        self, payload: StoredPayload, numbers: range, opened: Callable[[int, bytes], bytes]
    ) -> list[bytes]:
        """Return what *opened* makes of each of these chunks, in the thread that reads them.  LookupError as `read_chunk`."""

    async def record_served(
        self, transfer: TransferId, ranges: Sequence[tuple[int, int]], *, identity: Identity, now: datetime
    ) -> Transfer:
        """Add byte ranges (start, end) that the recipient has read; collected once they cover the whole file.

        Refused ``transfer.recalled`` or ``transfer.superseded`` where the sender was faster.
        """

    async def move_shelf(
        self, transfer: TransferId, to: Shelf, *, identity: Identity, now: datetime, may_discard: bool = False
    ) -> Transfer:
        """Move between ``receive`` (or ``new``) and ``done``.  Moving it to where it is does nothing.

        Refused ``transfer.not_collected`` where the recipient has not read it, unless *may_discard*: then it is
        discarded, which the sender sees.
        """

    # --- looking -----------------------------------------------------------------------------------------------

    def version(self) -> int:
        """Return a number that is another one as soon as anything was committed, by whatever process."""

    async def find_transfer(self, transfer: TransferId) -> Transfer | None:
        """Return the transfer, whatever became of it."""

    async def find_sent(self, sender: OfficeNumber, recipient: OfficeNumber, name: str) -> Transfer | None:
        """Return the newest transfer of that identity, whatever became of it."""

    async def find_delivered(self, recipient: OfficeNumber, delivered_name: str) -> Transfer | None:
        """Return the transfer that *recipient* sees under that name in any of its directories, or None."""

    async def list_shelf(self, office: OfficeNumber, shelf: Shelf, cursor: ListingCursor | None = None) -> ListingPage:
        """Return a page of what *office* sees there, by sender, serial and number."""

    async def list_sent(
        self, office: OfficeNumber, folder: OfficeNumber | None, *, now: datetime, cursor: ListingCursor | None = None
    ) -> ListingPage:
        """Return a page of what *office* put at the top of ``send/`` (*folder* None) or into ``send/<folder>/``."""

    async def leave_outbox(self, *, now: datetime) -> int:
        """Take out of ``send/`` for good what is not listed there any more; returns how many."""

    async def list_folders(self, office: OfficeNumber) -> list[OfficeNumber]:
        """Return the address folders that *office* has used."""

    async def list_transfers(
        self,
        *,
        sender: OfficeNumber | None = None,
        recipient: OfficeNumber | None = None,
        state: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Transfer]:
        """Return transfers, newest first, accepted from *since* on and before *until*."""

    async def oldest_fact(self, office: OfficeNumber) -> datetime | None:
        """Return when *office* first sent, received or was refused anything that is kept; None where it never did."""

    async def list_unit_parts(
        self,
        *,
        sender: OfficeNumber | None = None,
        recipient: OfficeNumber | None = None,
        serial: str | None = None,
        since: datetime | None = None,
        is_readable: bool = False,
    ) -> list[UnitPart]:
        """Return the transfers that may be part of a unit, in no order; *serial* needs both offices.

        Without *is_readable* nothing that is sealed is opened: persons are digests, messages None.
        """

    async def list_first_lines(
        self, *, sender: OfficeNumber | None = None, recipient: OfficeNumber | None = None, since: datetime
    ) -> Mapping[TransferId, str]:
        """Return how the messages begin that can still be read."""

    async def find_refusal(self, office: OfficeNumber, number: int) -> Refusal | None:
        """Return the refusal of that number if it is *office*'s, or None."""

    async def list_receipted(self, office: OfficeNumber, *, since: datetime, until: datetime) -> list[TransferId]:
        """Return which transfers *office* sent or was sent to which something happened in that time, ascending."""

    async def list_receipt_months(self, office: OfficeNumber) -> list[str]:
        """Return the months (``2026-11``, in Japan) in which something happened to *office*, ascending."""

    async def list_events(self, *, transfer: TransferId | None = None, limit: int | None = None) -> list[Event]:
        """Return history, oldest first."""

    async def record_event(self, kind: EventKind, *, actor: str, detail: str, now: datetime) -> None:
        """Write a line of history that changes nothing else, such as names that were revealed."""

    async def count_batches(self) -> int:
        """Return how many batches history was sealed in."""

    async def advance_anchor(self) -> str | None:
        """Note outside the store how far history has come; returns what keeps it from that, in words."""

    @property
    def anchor_trouble(self) -> str | None:
        """What kept the anchor from moving the last time, None where all was well."""

    async def accept_store(self, *, actor: str, detail: str, now: datetime) -> None:
        """Begin the anchor anew with the store as it is, and write that into history first."""
