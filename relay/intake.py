"""Intake: a closed upload becomes an accepted transfer, or a refusal.

The order of the steps is the guarantee.  A sender who was told OK may delete his copy, so before we say it

    1. the upload is known to be complete,
    2. its name has been parsed and its recipient resolved (at OPEN, and again in the commit),
    3. its content has passed the checks of its kind,
    4. its bytes, its record and its event are committed together, synced.

A crash before 4 leaves nothing that anybody but the sender sees; a crash after 4 leaves a transfer that its recipient
will find.  Nothing lies between.

Here uploads are opened, taken over and renamed; how bytes arrive and end is `relay.upload`.  Intake speaks neither
SFTP nor SQL, and it never waits for a recipient.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from datetime import datetime, timedelta

from relay import journal, naming, routing, tree
from relay.attempt import Bench, Destination
from relay.buffers import OF_SESSION, Buffers, bounds_of_worker
from relay.common import Common
from relay.config import Config, describe_size
from relay.errors import Deferred, Refused
from relay.journal import Journal, LimitLog
from relay.ledger import Accepted, Ledger, Partial, Prospect
from relay.lifecycle import LIVE
from relay.manners import Manners
from relay.meters import Meters
from relay.model import Address, Identity, OfficeNumber, OfficeStatus, Route, Transfer, fold_name
from relay.pace import Pace
from relay.rival import Rival, find_rival
from relay.temporary import is_temporary, may_be_cut, strip_temporary
from relay.turns import Turns, turns_of_worker
from relay.underway import Underway, Unfinished, final_path
from relay.upload import Upload
from relay.vault import Vault

_HOLDER_BYTES = 16
# For so long a REMOVE is taken for the end of an attempt that came to nothing.
_IN_HAND_AFTER = timedelta(minutes=10)


class Intake:
    """The desk at which uploads are opened; one a process."""

    def __init__(
        self,
        ledger: Ledger,
        vault: Vault,
        config: Config,
        clock: Callable[[], datetime],
        meters: Meters | None = None,
        common: Common | None = None,
    ) -> None:
        common = common or Common.alone()
        self._bench = Bench(ledger, vault, config, clock, meters or Meters(), Turns(turns_of_worker(common.workers)))
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._pace = Pace(config.limits.transfers_per_minute, common)
        self._limit_log = LimitLog(common)
        self._buffers = Buffers(bounds_of_worker(common.workers))
        # A reconnecting client finds its dead connection's bytes here.
        self._underway = Underway(common)
        self.reachable = self._underway.reachable

    def adopt_settings(self) -> None:
        """Go by the settings as they are now."""
        self._pace.per_minute = self._config.limits.transfers_per_minute

    def lend_buffers(self) -> Buffers:
        """Return what bounds all uploads of one session, and of all sessions together."""
        return Buffers(OF_SESSION, self._buffers)

    async def open(
        self,
        path: str,
        folder: OfficeNumber | None,
        identity: Identity,
        manners: Manners,
        journal_: Journal,
        *,
        is_afresh: bool,
        buffers: Buffers | None = None,
    ) -> Upload:
        """Begin an upload at *path* below ``send/``, or go on with what is there unless *is_afresh*.

        Whoever still wrote to that path has lost it: a dead connection must not lock a resume out.  *buffers* are those
        of the session.
        Refused with everything that the name already tells; the refusal is then in the ledger.  Who sends faster than
        he may waits here for his turn, before anything of it has arrived.
        """
        await self._take_turn(identity, journal_)
        name = path.rpartition("/")[2]
        # Asked before the store: what is kept meanwhile, by a connection that ends in another worker, is not in its answer.
        was_open = self._underway.is_open(path, identity.office)
        try:
            destination, prospect = await self._plan(path, name, folder, identity)
            rival = await self._find_rival(destination) if prospect.has_sent else None
        except Refused as refused:
            await self._bench.refuse(strip_temporary(name) or name, folder, identity, refused, journal_)
            raise
        prospect = await self._clear(path, identity, prospect, is_afresh=is_afresh, was_open=was_open)
        if not destination.is_temporary:
            return await self._begin(destination, identity, manners, journal_, buffers, rival, prospect)
        with self._underway.one_more(identity.office) as others:
            await self._require_partial_room(destination, identity, journal_, others)
            return await self._begin(destination, identity, manners, journal_, buffers, rival, prospect)

    async def _begin(
        self,
        destination: Destination,
        identity: Identity,
        manners: Manners,
        journal_: Journal,
        buffers: Buffers | None,
        rival: Rival | None,
        prospect: Prospect,
    ) -> Upload:
        """Begin what nothing in its name or place refuses."""
        path = destination.path
        room = await self._find_room(destination, identity, journal_, prospect.stored_bytes)
        # Asked before, because nearly always there is none and taking over is a transaction.
        partial = await self._take_over(path, identity) if prospect.has_partial else None
        lent = buffers or self.lend_buffers()
        upload = Upload(self._bench, destination, identity, manners, journal_, lent, partial, rival)
        if room is not None:
            upload.room_bytes = room + (0 if partial is None else partial.size_bytes)
        if partial is not None:
            await upload.resume(partial)
        self._underway.enter(upload, identity)
        if destination.route is not None:
            journal.upload_opened(journal_, kind=destination.route.address.kind, recipient=destination.route.recipient)
        return upload

    async def _take_turn(self, identity: Identity, journal_: Journal) -> None:
        """Wait until *identity* may begin one more file; Deferred ``limit.rate`` where that takes too long."""
        turn = self._pace.take_turn(identity.office)
        if turn.is_too_long:
            most = self._config.limits.transfers_per_minute
            raise Deferred("limit.rate", limit=most, seconds=math.ceil(turn.wait_seconds))
        if turn.wait_seconds:
            now = self._clock()
            until = now + timedelta(seconds=turn.wait_seconds)
            self._limit_log.slowed(journal_, limit="transfers_per_minute", scope=identity.office, until=until, now=now)
            await asyncio.sleep(turn.wait_seconds)

    async def _require_partial_room(
        self, destination: Destination, identity: Identity, journal_: Journal, others: int
    ) -> None:
        """Refuse a new upload under a temporary name, ``limit.partials``, where too many wait to be finished."""
        if await self._bench.may_leave_partial(destination.path, identity, others=others):
            return
        refused = Refused("limit.partials", limit=self._config.limits.partials_per_office)
        await self._bench.refuse(destination.name, destination.folder, identity, refused, journal_)
        raise refused

    async def refuse_path(self, raw: bytes, identity: Identity, refused: Refused, journal_: Journal) -> None:
        """Keep the refusal of an upload to a path that is none: its name is told escaped, in ``status/refused`` alone."""
        await self._bench.refuse(tree.describe_path(raw), None, identity, refused, journal_)

    async def _plan(
        self, path: str, name: str, folder: OfficeNumber | None, identity: Identity
    ) -> tuple[Destination, Prospect]:
        """Decide where an upload goes; a temporary name is judged by the final one that it holds."""
        is_staged = is_temporary(name)
        final = strip_temporary(name) if is_staged else name
        try:
            address = None if final is None else naming.parse_name(final, self._config.naming_rules, folder=folder)
            prospect = await self._ledger.survey_upload(identity.office, path, address)
            route = None if address is None else await self._route(address, identity, prospect)
        except Refused as refused:
            if not is_staged or not refused.code.startswith("name.") or not may_be_cut(name):
                raise
            route, prospect = None, await self._ledger.survey_upload(identity.office, path, None)
        return Destination(path, folder, route, is_temporary=is_staged), prospect

    async def _find_rival(self, destination: Destination) -> Rival | None:
        """Return what an upload to *destination* is compared with while it arrives.

        Under a temporary name nothing is: its RENAME decides, which every program notices, and what was refused there
        stays, for its owner to take the earlier file back and try again.
        """
        route = destination.route
        rival = None if route is None else await find_rival(self._ledger, self._bench.vault, route)
        return None if destination.is_temporary else rival

    async def _route(self, address: Address, identity: Identity, prospect: Prospect) -> Route:
        sender, recipient = prospect.sender, prospect.recipient
        if sender is None:
            raise Refused("office.suspended", office=identity.office, detail="the office is no longer registered")
        is_moved = recipient is not None and recipient.status is OfficeStatus.MOVED
        successor = await self._ledger.find_successor(recipient) if recipient is not None and is_moved else None
        return routing.resolve_route(
            address,
            sender=sender,
            recipient=recipient,
            successor=successor,
            now=self._clock(),
            severities=self._config.content.severities,
        )

    async def _clear(
        self, path: str, identity: Identity, prospect: Prospect, *, is_afresh: bool, was_open: bool
    ) -> Prospect:
        """End what is open at *path*, and with *is_afresh* what was kept there; returns how it looks then."""
        gave_way = await self._underway.give_way(path, identity.office, is_afresh=is_afresh)
        if not (was_open or gave_way or prospect.has_partial or prospect.has_sent):
            return prospect
        # Since it was asked there was time for something to be left there.
        has_partial = await self._ledger.find_partial(identity.office, path) is not None
        if is_afresh and has_partial:
            await self.drop(path, identity)
            has_partial = False
        stored_bytes = await self._ledger.stored_bytes(identity.office)
        return prospect._replace(stored_bytes=stored_bytes, has_partial=has_partial)

    async def _find_room(
        self, destination: Destination, identity: Identity, journal_: Journal, stored_bytes: int
    ) -> int | None:
        """Return how much this upload may add within the office's quota, None for more than a file can have.

        A repeat of what was accepted adds nothing, so it may have that one's length.  Refused ``limit.quota`` where
        there is no room at all.
        """
        limits, route = self._config.limits, destination.route
        room = limits.stored_bytes_per_office - stored_bytes
        if room >= limits.upload_bytes:
            return None
        if route is not None:
            earlier = await self._ledger.find_sent(route.sender, route.recipient, route.address.name)
            room = room if earlier is None or earlier.state not in LIVE else max(room, earlier.size_bytes)
        if room > 0 or await self._ledger.find_partial(identity.office, destination.path) is not None:
            return room
        refused = Refused("limit.quota", limit=describe_size(limits.stored_bytes_per_office))
        await self._bench.refuse(destination.name, destination.folder, identity, refused, journal_)
        raise refused

    async def _take_over(self, path: str, identity: Identity) -> Partial | None:
        return await self._ledger.take_over(identity.office, path, os.urandom(_HOLDER_BYTES), now=self._clock())

    async def find_open(self, path: str, identity: Identity) -> Unfinished | None:
        """Return what is open at *path*, on whatever connection of this office."""
        return await self._underway.find_anywhere(path, identity.office)

    async def settled(self, path: str, identity: Identity) -> None:
        """Wait for the end of a CLOSE at *path* that is under way on another connection of this office."""
        await self._underway.settled(path, identity.office)

    def forget(self, upload: Upload, identity: Identity) -> None:
        """Know *upload* no more: its handle is gone."""
        self._underway.forget(upload, identity)

    async def find_partial(self, path: str, identity: Identity) -> Partial | None:
        """Return what was left unfinished at *path*, or None."""
        return await self._ledger.find_partial(identity.office, path)

    async def amend(
        self, path: str, identity: Identity, *, size_bytes: int | None, client_mtime: datetime | None
    ) -> bool:
        """Give what is open or kept at *path* another size or time; False where nothing is.

        Refused ``upload.hole`` where what is kept would have to grow, or as the open upload says.
        """
        if await self._underway.amend(path, identity.office, size_bytes=size_bytes, client_mtime=client_mtime):
            return True
        partial = await self._ledger.find_partial(identity.office, path)
        if partial is None:
            return False
        if size_bytes is not None and size_bytes > partial.size_bytes:
            raise Refused("upload.hole", detail=f"{size_bytes} of {partial.size_bytes}")
        if size_bytes == 0:
            return await self.drop(path, identity)
        if size_bytes not in (None, partial.size_bytes) or client_mtime is not None:
            await self._ledger.amend_partial(identity.office, path, size_bytes=size_bytes, client_mtime=client_mtime)
        return True

    async def drop(self, path: str, identity: Identity) -> bool:
        """Give up what is unfinished at *path*; False where nothing is.  Never touches an accepted transfer."""
        was_open = await self._underway.abort(path, identity.office, "removed by the client")
        partial = await self._ledger.find_partial(identity.office, path)
        if partial is None:
            return was_open
        await self._bench.note_attempt(path, identity)
        await self._ledger.drop_partial(identity.office, path)
        if partial.payload is not None:
            await self._ledger.discard_staged(partial.payload)
        return True

    async def is_in_hand(self, path: str, identity: Identity) -> bool:
        """True while this office has something staged for *path*, and a while after an attempt came to nothing.

        A REMOVE then means that attempt: clients remove after a refused CLOSE, and before the final RENAME.
        """
        since = self._clock() - _IN_HAND_AFTER
        if await self._ledger.was_attempted(identity.office, path, since=since):
            return True
        folder, _, _ = path.rpartition("/")
        partials = await self._ledger.list_partials(identity.office, OfficeNumber(folder) if folder else None)
        if any(final_path(partial.path) == fold_name(path) for partial in partials):
            return True
        return await self._underway.is_in_hand(path, identity.office)

    async def rename(
        self, path: str, target: str, folder: OfficeNumber | None, identity: Identity, journal_: Journal
    ) -> Accepted:
        """Give what waits at *path* its final name: the commit point of an upload under a temporary name.

        Refused, what waits stays as it is until it expires, so that a retry reads the same sentence.  Repeated after
        a lost reply it succeeds where the target was made of that very path; else Refused ``tree.not_found``.
        """
        name = target.rpartition("/")[2]
        partial = await self._ledger.find_partial(identity.office, path)
        is_open = await self.find_open(path, identity) is not None
        if partial is None or not partial.is_closed or is_open:
            is_unfinished = partial is not None or is_open
            return await self._find_renamed(path, name, folder, identity, is_unfinished=is_unfinished)
        try:
            address = naming.parse_name(name, self._config.naming_rules, folder=folder)
            prospect = await self._ledger.survey_upload(identity.office, path, address)
            route = await self._route(address, identity, prospect)
        except Refused as refused:
            await self._bench.refuse(name, folder, identity, refused, journal_)
            raise
        partial = await self._take_over(path, identity)
        if partial is None:
            raise Refused("tree.not_found")
        destination = Destination(path, folder, route, is_renamed=True)
        # Completeness was judged by its program's manners when it was closed.
        lent = self.lend_buffers()
        upload = Upload(self._bench, destination, identity, Manners(sets_size=True), journal_, lent, partial)
        await upload.resume(partial)
        accepted = await upload.close()
        assert accepted is not None
        return accepted

    async def recall(self, transfer: Transfer, identity: Identity, journal_: Journal) -> None:
        """Take *transfer* back; repeated after a lost reply it succeeds.

        Refused ``transfer.already_collected`` with the time, so that nobody believes in a recall that did not happen.
        """
        try:
            recalled = await self._ledger.recall_transfer(transfer.id, identity=identity, now=self._clock())
        except LookupError:
            raise Refused("tree.not_found", detail=f"transfer {transfer.id} ended otherwise") from None
        if transfer.state is not recalled.state:
            journal.transfer_recalled(journal_, transfer=recalled.id, kind=recalled.kind, recipient=recalled.recipient)

    async def _find_renamed(
        self, path: str, name: str, folder: OfficeNumber | None, identity: Identity, *, is_unfinished: bool
    ) -> Accepted:
        if is_unfinished:
            raise Refused("upload.unfinished", detail="a RENAME of what was not closed")
        try:
            address = naming.parse_name(name, self._config.naming_rules, folder=folder)
        except Refused:
            raise Refused("tree.not_found") from None
        transfer = await self._ledger.find_sent(identity.office, address.recipient, address.name)
        if transfer is None or not await self._ledger.was_renamed_from(transfer.id, identity.office, path):
            raise Refused("tree.not_found")
        return Accepted(transfer, is_repeat=True)
