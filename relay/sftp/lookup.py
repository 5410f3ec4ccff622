"""From a place in the tree to what this office finds there.

Every question to the ledger carries the office of the connection, so nobody else's files can be named.  What was told
once is told again: a generated file keeps its content for a minute, a refused name its refusal until it is opened
again.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from relay import naming, tree
from relay.errors import Deferred, Refused
from relay.journal import Journal
from relay.ledger import Partial
from relay.lifecycle import LIVE
from relay.model import Identity, OfficeNumber, Transfer, fold_name
from relay.receipttext import month_of
from relay.sftp.desks import Desks
from relay.sftp.handles import Downloading, Generated, Handle, Handles, Swallowing, Uploading
from relay.sftp.keytray import KeyDraft, KeyTray
from relay.sftp.wire import Attributes
from relay.tree import Directory, Folder, GeneratedFile, KeyFile, Place, RecalledFile, SentFile, ShelfFile
from relay.underway import Unfinished
from relay.upload import Upload
from relay.welcome import render_folder_notice, render_readme, render_refusal_note

# A generated file tells the same size for this long: rclone, curl and sshfs read exactly what STAT said.
_PINNED_SECONDS = 60.0
# All of status/ at once, and some notices of address folders, of which there is one for each office.
_PINNED_MOST = 64
# Names that were refused in this session, for clients that learn of it only by STAT.
_REFUSALS_MOST = 256
_UPLOAD_MODE = 0o100640
# How long a note lies beside a refused file.
NOTES_SHOWN = timedelta(days=7)
# How long recall/ shows what was taken back; its key lives no longer (`relay.housekeeping`).
RECALL_LISTED = timedelta(days=7)


class Lookup:
    """The eyes of one session."""

    def __init__(self, desks: Desks, identity: Identity, handles: Handles, journal: Journal) -> None:
        self._desks = desks
        self._identity = identity
        self._office = identity.office
        self._handles = handles
        self._pinned: dict[str, Generated] = {}
        self._swallowed: dict[str, Attributes] = {}
        self._refused: dict[str, Refused | Deferred] = {}
        self._told: dict[str, int] = {}
        self.keys = KeyTray(desks.renewal, identity, journal, lambda: int(desks.clock().timestamp()))

    # --- transfers -----------------------------------------------------------------------------------------------

    async def find(self, place: Place) -> Transfer:
        """Return the transfer that this office sees at *place*; Refused ``tree.not_found``."""
        if isinstance(place, ShelfFile):
            transfer = await self._desks.ledger.find_delivered(self._office, place.name)
            # A file that has left new/ because it was collected still answers there.
            if transfer is not None and transfer.is_removed == (place.shelf is Folder.DONE):
                return transfer
        elif isinstance(place, SentFile):
            transfer = await self.find_newest(place)
            if transfer is not None and transfer.state in LIVE:
                return transfer
        elif isinstance(place, RecalledFile):
            since = self._desks.clock() - RECALL_LISTED
            for office in (self._office, *await self._desks.ledger.list_former(self._office)):
                transfer = await self._desks.ledger.find_recalled(office, place.name, since=since)
                if transfer is not None:
                    return transfer
        raise Refused("tree.not_found")

    async def find_newest(self, place: SentFile) -> Transfer | None:
        """Return what this office sent under that name last, whatever became of it."""
        try:
            address = naming.parse_name(place.name, self._desks.config.naming_rules, folder=place.address)
        except Refused:
            return None
        found = await self._desks.ledger.find_sent(self._office, address.recipient, address.name)
        if found is None:
            # What was sent under an old number of this office is this office's still.
            for former in await self._desks.ledger.list_former(self._office):
                found = found or await self._desks.ledger.find_sent(former, address.recipient, address.name)
        return found

    def remember(self, place: SentFile, error: Refused | Deferred) -> None:
        """Answer STAT of *place* with *error* until it is opened again."""
        if len(self._refused) >= _REFUSALS_MOST:
            self._refused.pop(next(iter(self._refused)))
        self._refused[place.key] = error.again()

    def remembered(self, place: SentFile) -> Refused | Deferred | None:
        """Return what `remember` kept, to be raised; None where it kept nothing."""
        earlier = self._refused.get(place.key)
        return None if earlier is None else earlier.again()

    def forget(self, place: SentFile) -> None:
        """Drop what `remember` kept, and the note of it: the name is being tried again, or was accepted."""
        if self._refused:
            self._refused.pop(place.key, None)
        if self._pinned:
            self._pinned.pop(f"{place.path.rpartition('/')[0]}/{tree.note_name(place.name)}", None)

    # --- attributes ----------------------------------------------------------------------------------------------

    async def attributes(self, place: Place) -> Attributes:
        """Return what STAT tells of *place*; Refused ``tree.not_found``, or the refusal that was remembered."""
        if isinstance(place, Directory):
            return await self.directory_attributes(place)
        if isinstance(place, GeneratedFile):
            swallowed = self._swallowed.get(place.path)
            return swallowed or generated_attributes(await self.generated(place))
        if isinstance(place, KeyFile):
            return key_attributes(self.require_key(place))
        if isinstance(place, SentFile):
            unfinished = await self._unfinished_attributes(place)
            if unfinished is not None:
                return unfinished
        return _file_attributes(await self.find(place), as_sent=isinstance(place, (SentFile, RecalledFile)))

    async def _unfinished_attributes(self, place: SentFile) -> Attributes | None:
        """Return what STAT tells of an upload, open or kept, which only its owner sees; its refusal comes first."""
        found = await self._find_unfinished(place)
        if found is not None and found.size is not None:
            if len(self._told) >= _REFUSALS_MOST:
                self._told.pop(next(iter(self._told)))
            self._told[place.key] = found.size
        return found

    def take_told_size(self, place: SentFile) -> int | None:
        """Return, once, the size that this session was last told of an unfinished upload."""
        return self._told.pop(place.key, None) if self._told else None

    async def _find_unfinished(self, place: SentFile) -> Attributes | None:
        await self._desks.intake.settled(place.upload_path, self._identity)
        live = await self._desks.intake.find_open(place.upload_path, self._identity)
        if live is not None and not live.has_failed:
            return self._upload_attributes(live)
        if (earlier := self.remembered(place)) is not None:
            raise earlier
        partial = await self._desks.intake.find_partial(place.upload_path, self._identity)
        return None if partial is None else partial_attributes(partial)

    async def handle_attributes(self, handle: Handle) -> Attributes:
        """Return what FSTAT tells of *handle*."""
        if isinstance(handle, Uploading):
            return self._upload_attributes(handle.upload)
        if isinstance(handle, Generated):
            return generated_attributes(handle)
        if isinstance(handle, KeyDraft):
            return key_attributes(handle)
        if isinstance(handle, Swallowing):
            return self._swallowed_attributes(handle.size, handle.mtime)
        if isinstance(handle, Downloading):
            return _file_attributes(handle.reading.transfer, as_sent=isinstance(handle.place, SentFile))
        return await self.attributes(handle.place)

    async def directory_attributes(self, place: Directory) -> Attributes:
        """Return what STAT tells of a directory; an address folder is there if its office is active."""
        if place.address is not None:
            await self._require_address(place.address)
        await self._require_month(place)
        now = int(self._desks.clock().timestamp())
        is_writable = place.folder in (Folder.SEND, Folder.RECALL, Folder.CERTIFICATE, Folder.ROOT)
        return Attributes(0, tree.INBOX_MODE if is_writable else tree.DIRECTORY_MODE, now, now)

    async def _require_address(self, address: OfficeNumber) -> None:
        office = await self._desks.ledger.find_office(address)
        if office is None or not office.may_exchange(self._desks.clock()):
            raise Refused("tree.not_found", detail=f"{address} is no office that can be sent to")

    async def _require_month(self, place: Directory | GeneratedFile) -> None:
        if place.month is None:
            return
        now = self._desks.clock()
        if place.folder is Folder.RECEIPTS and place.month > month_of(now):
            raise Refused("tree.not_found", detail="a month to come")
        if place.folder is Folder.STATUS and place.month not in await self._desks.status.list_months(
            self._office, now=now
        ):
            raise Refused("tree.not_found", detail="a month of which nothing is kept")

    def _upload_attributes(self, upload: Upload | Unfinished) -> Attributes:
        seconds = int((upload.client_mtime or self._desks.clock()).timestamp())
        return Attributes(upload.size_bytes, _UPLOAD_MODE, seconds, seconds)

    def require_key(self, place: KeyFile) -> KeyDraft:
        """Return the public key that this session has put there; Refused as it was, or ``tree.not_found``."""
        draft = self.keys.find(place)
        if draft is None:
            raise Refused("tree.not_found")
        return draft

    # --- generated files -----------------------------------------------------------------------------------------

    async def generated(self, place: GeneratedFile) -> Generated:
        """Return a generated file as this session was told of it within the last minute; Refused where there is none."""
        page = self._pinned.get(place.path)
        if page is None:
            data, changed = await self._generate(place)
            page = self._pin(Generated(place, data, int((changed or self._desks.clock()).timestamp())))
        return page

    def _pin(self, page: Generated) -> Generated:
        """Let this session go on seeing *page* for a minute, unless it was told of another meanwhile."""
        path = page.place.path
        if path in self._pinned:
            return self._pinned[path]
        if len(self._pinned) >= _PINNED_MOST:
            self._pinned.pop(next(iter(self._pinned)))
        self._pinned[path] = page
        # By the clock, because an idle session would keep them for ever.
        asyncio.get_running_loop().call_later(_PINNED_SECONDS, self._unpin, page)
        return page

    def _unpin(self, page: Generated) -> None:
        if self._pinned.get(page.place.path) is page:
            del self._pinned[page.place.path]

    async def _generate(self, place: GeneratedFile) -> tuple[bytes, datetime | None]:
        """Return what stands in a generated file, and since when, where that is known."""
        if place.folder is Folder.STATUS:
            return await self._generate_status(place), None
        if place.folder is Folder.RECEIPTS:
            return await self._generate_receipt(place)
        if place.folder is Folder.CERTIFICATE:
            return await self._generate_certificate(place)
        if place.folder is Folder.ROOT and place.name in (tree.ENDING, tree.NEWS):
            return await self._generate_news(place.name)
        noted = tree.noted_name(place.name)
        if place.folder is Folder.SEND and noted is not None:
            since = self._desks.clock() - NOTES_SHOWN
            path = place.path.removeprefix("/send/")[: -len(place.name)] + noted
            refusal = await self._desks.ledger.find_note(self._office, path, since=since)
            if refusal is None:
                raise Refused("tree.not_found")
            return render_refusal_note(self._desks.config, refusal), refusal.last_at
        if place.address is None and (place.folder is not Folder.ROOT or place.name != tree.README):
            raise Refused("tree.not_found")
        office = await self._desks.ledger.find_office(place.address or self._office)
        if office is None or (place.address is not None and place.name != tree.notice_name(office)):
            raise Refused("tree.not_found")
        data = render_readme(self._desks.config, office) if place.address is None else render_folder_notice(office)
        return data, None

    async def _generate_news(self, name: str) -> tuple[bytes, datetime | None]:
        news = (
            await self._desks.renewal.find_notice(self._identity)
            if name == tree.ENDING
            else await self._desks.news.render(self._office, now=self._desks.clock())
        )
        if news is None:
            raise Refused("tree.not_found")
        return news

    async def has_news(self) -> bool:
        """True where there is news to be listed, which this session then goes on seeing for a minute."""
        place = tree.resolve_path(f"/{tree.NEWS}".encode())
        assert isinstance(place, GeneratedFile)
        try:
            await self.generated(place)
        except Refused:
            return False
        return True

    async def _generate_status(self, place: GeneratedFile) -> bytes:
        status, now = self._desks.status, self._desks.clock()
        if place.name not in (status.FILES if place.month is None else status.MONTH_FILES):
            raise Refused("tree.not_found")
        await self._require_month(place)
        return await status.render(self._office, place.name, identity=self._identity, now=now, month=place.month)

    async def _generate_receipt(self, place: GeneratedFile) -> tuple[bytes, datetime | None]:
        if place.month is not None:
            try:
                return await self._desks.receipts.find(self._office, place.month, place.name)
            except LookupError:
                raise Refused("tree.not_found") from None
        if place.name not in self._desks.receipts.FILES:
            raise Refused("tree.not_found")
        return self._desks.receipts.render_top(place.name), None

    async def _generate_certificate(self, place: GeneratedFile) -> tuple[bytes, datetime | None]:
        for page in await self._desks.renewal.list_pages(self._identity):
            if fold_name(page.name) == fold_name(place.name):
                return page.data, page.changed_at
        raise Refused("tree.not_found")

    def forget_certificates(self) -> None:
        """Tell anew of everything in ``certificate/``: it has changed."""
        for path in [path for path in self._pinned if path.startswith("/certificate/")]:
            del self._pinned[path]
        self._pinned.pop(f"/{tree.ENDING}", None)

    async def notes(self, place: Directory) -> list[Generated]:
        """Return the notes in ``send/`` or in an address folder, as this session sees them."""
        refusals = await self._desks.ledger.list_notes(
            self._office, place.address, since=self._desks.clock() - NOTES_SHOWN
        )
        pages: list[Generated] = []
        for refusal in refusals:
            note = tree.resolve_path(f"{place.path}/{tree.note_name(refusal.name)}".encode())
            if isinstance(note, GeneratedFile):
                data = render_refusal_note(self._desks.config, refusal)
                pages.append(self._pin(Generated(note, data, int(refusal.last_at.timestamp()))))
        return pages

    # --- what is kept nowhere ------------------------------------------------------------------------------------

    def swallow(self, handle: Swallowing) -> Swallowing:
        """Tell this session from now on of an upload that is kept nowhere, as its client left it; returns it."""
        if len(self._swallowed) >= _REFUSALS_MOST:
            self._swallowed.pop(next(iter(self._swallowed)))
        self._swallowed[handle.place.path] = self._swallowed_attributes(handle.size, handle.mtime)
        return handle

    def has_swallowed(self, place: GeneratedFile) -> bool:
        """True where this session was told that such an upload is at *place*."""
        return place.path in self._swallowed

    def amend_swallowed(self, place: GeneratedFile, attributes: Attributes) -> None:
        """Take a size or a time for what was swallowed at *place*."""
        known = self._swallowed[place.path]
        size = known.size if attributes.size is None else attributes.size
        mtime = known.mtime if attributes.mtime is None else attributes.mtime
        self._swallowed[place.path] = known._replace(size=size, atime=mtime, mtime=mtime)

    def move_swallowed(self, here: GeneratedFile, there: GeneratedFile) -> None:
        """Tell of what was swallowed at *here* under its final name."""
        self._swallowed[there.path] = self._swallowed.pop(here.path)

    def forget_page(self, place: GeneratedFile) -> bool:
        """Tell nothing more of what was generated or swallowed at *place*; False where nothing was swallowed."""
        self._pinned.pop(place.path, None)
        return self._swallowed.pop(place.path, None) is not None

    def _swallowed_attributes(self, size: int, mtime: int | None) -> Attributes:
        seconds = int(self._desks.clock().timestamp()) if mtime is None else mtime
        return Attributes(size, _UPLOAD_MODE, seconds, seconds)


def key_attributes(draft: KeyDraft) -> Attributes:
    """Return what STAT tells of a public key that is being put into ``certificate/``."""
    return Attributes(len(draft.data), _UPLOAD_MODE, draft.mtime, draft.mtime)


def moment(seconds: int | None) -> datetime | None:
    """Return a time of ATTRS."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def generated_attributes(page: Generated) -> Attributes:
    """Return the attributes of a generated file."""
    return Attributes(len(page.data), tree.FILE_MODE, page.changed_at, page.changed_at)


def partial_attributes(partial: Partial) -> Attributes:
    """Return the attributes of an upload that is kept."""
    seconds = int((partial.client_mtime or partial.touched_at).timestamp())
    return Attributes(partial.size_bytes, _UPLOAD_MODE, seconds, seconds)


def _file_attributes(transfer: Transfer, *, as_sent: bool) -> Attributes:
    changed = transfer.client_mtime if as_sent and transfer.client_mtime is not None else transfer.accepted_at
    seconds = int(changed.timestamp())
    return Attributes(transfer.size_bytes, tree.FILE_MODE, seconds, seconds)
