"""Listings: snapshots, a page of the index at a time, packed for the wire.

What is listed is what was there at OPENDIR.  A listing holds one page in memory, whatever the length of the
directory; nothing is looked up for a single entry.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from relay import tree
from relay.ledger import EntryRow, ListingCursor, ListingPage, Partial, Shelf
from relay.model import EventKind, Identity, OfficeNumber, fold_name
from relay.sftp import wire
from relay.sftp.desks import Desks
from relay.sftp.handles import Generated, Listing
from relay.sftp.keytray import KeyDraft
from relay.sftp.lookup import RECALL_LISTED, Lookup, generated_attributes, key_attributes, partial_attributes
from relay.sftp.wire import Attributes, NameEntry
from relay.tree import Directory, Folder, GeneratedFile


class Directories:
    """The directories of one office."""

    def __init__(self, desks: Desks, identity: Identity, lookup: Lookup) -> None:
        self._desks = desks
        self._identity = identity
        self._office = identity.office
        self._lookup = lookup

    async def open(self, place: Directory) -> Listing:
        """Begin a listing with everything that is no transfer and the first page of those that are.

        Refused ``tree.not_found`` for the address folder of an office that takes no part.
        """
        attributes = await self._lookup.directory_attributes(place)
        packer = _Packer(self._office, self._desks.clock().timestamp())
        ready = [packer.directory(name, attributes) for name in (".", "..", *await self._subfolders(place))]
        ready += [packer.generated(await self._lookup.generated(file)) for file in await self._files(place)]
        listing = Listing(place, ready, None)
        if place.folder is Folder.SEND:
            partials = await self._desks.ledger.list_partials(self._office, place.address)
            ready += [packer.unfinished(partial) for partial in partials]
            ready += [packer.generated(note) for note in await self._lookup.notes(place)]
            # A name that was accepted before and is being sent again is listed once, as STAT tells of it.
            listing.shown = frozenset(fold_name(_last_part(partial.path)) for partial in partials)
        if place.folder is Folder.CERTIFICATE:
            ready += [packer.key(draft) for draft in self._lookup.keys.list_drafts()]
        if place.folder is Folder.RECEIPTS and place.month is not None:
            listing.receipts = await self._desks.receipts.list_month(self._office, place.month)
        elif place.folder not in (Folder.ROOT, Folder.STATUS, Folder.RECEIPTS, Folder.CERTIFICATE):
            await self._read_page(listing)
        return listing

    async def next_entries(self, listing: Listing) -> list[bytes]:
        """Return as many entries as one reply may hold; empty at the end."""
        while not listing.ready and listing.cursor is not None:
            await self._read_page(listing)
        if not listing.ready and listing.receipts is not None:
            packer = _Packer(self._office, self._desks.clock().timestamp())
            listing.ready = [packer.receipt(*file) for file in await listing.receipts.next_files()]
        if not listing.ready:
            self._note_listed(listing)
        return _take_ready(listing)

    async def _read_page(self, listing: Listing) -> None:
        page = await self._page(listing.place, listing.cursor)
        packer = _Packer(self._office, self._desks.clock().timestamp())
        rows = page.rows
        if listing.shown:
            rows = [row for row in rows if fold_name(row[1]) not in listing.shown]
        listing.ready += packer.files(rows)
        if listing.place.folder in (Folder.RECEIVE, Folder.NEW):
            self._note_page(listing, rows)
        listing.cursor = page.cursor

    def _note_page(self, listing: Listing, rows: Sequence[EntryRow]) -> None:
        """Measure how long what stands in a listing for the first time has waited; its time here is its acceptance."""
        meters, shown = self._desks.meters, self._desks.shown.get(self._office, 0)
        new = [row for row in rows if row[0] > shown]
        listing.newest = max((listing.newest, *(row[0] for row in new)))
        if not shown:
            # What earlier processes had shown is not known: of that only what came since counts.
            new = [row for row in new if row[-1] >= int(meters.started_at)]
        now = self._desks.clock().timestamp()
        for row in new:
            meters.first_visible.observe(max(0.0, now - row[-1]))

    def _note_listed(self, listing: Listing) -> None:
        """Let history tell, once a listing was read to its end, up to which number this office has seen what was sent to it."""
        if listing.newest > self._desks.shown.get(self._office, 0):
            self._desks.shown[self._office] = listing.newest
            self._desks.ledger.note_event(
                EventKind.LISTED,
                actor=self._office,
                office=self._office,
                detail=str(listing.newest),
                now=self._desks.clock(),
            )

    async def _page(self, place: Directory, cursor: ListingCursor | None) -> ListingPage:
        if place.folder is Folder.SEND:
            now = self._desks.clock()
            return await self._desks.ledger.list_sent(self._office, place.address, now=now, cursor=cursor)
        if place.folder is Folder.RECALL:
            since = self._desks.clock() - RECALL_LISTED
            return await self._desks.ledger.list_recalled(self._office, since=since, cursor=cursor)
        return await self._desks.ledger.list_shelf(self._office, Shelf(place.folder.value), cursor)

    async def _subfolders(self, place: Directory) -> list[str]:
        if place.folder is Folder.ROOT:
            return [folder.value for folder in Folder if folder is not Folder.ROOT]
        if place.folder is Folder.SEND and place.address is None:
            return [*await self._desks.ledger.list_folders(self._office)]
        if place.folder is Folder.RECEIPTS and place.month is None:
            return await self._desks.receipts.months(self._office)
        if place.folder is Folder.STATUS and place.month is None:
            return [*await self._desks.status.list_months(self._office, now=self._desks.clock())]
        return []

    async def _files(self, place: Directory) -> list[GeneratedFile]:
        names: tuple[str, ...] = ()
        if place.address is not None:
            office = await self._desks.ledger.find_office(place.address)
            names = () if office is None else (tree.notice_name(office),)
        elif place.folder is Folder.ROOT:
            notice = await self._desks.renewal.find_notice(self._identity)
            names = (tree.README, tree.ENDING) if notice is not None else (tree.README,)
            if await self._lookup.has_news():
                names = (*names, tree.NEWS)
        elif place.folder is Folder.CERTIFICATE:
            names = tuple(page.name for page in await self._desks.renewal.list_pages(self._identity))
        elif place.folder is Folder.STATUS:
            names = self._desks.status.FILES if place.month is None else self._desks.status.MONTH_FILES
        elif place.folder is Folder.RECEIPTS and place.month is None:
            names = self._desks.receipts.FILES
        paths = [tree.resolve_path(f"{place.path}/{name}".encode()) for name in names]
        return [path for path in paths if isinstance(path, GeneratedFile)]


def _take_ready(listing: Listing) -> list[bytes]:
    """Take as many of the entries that are packed as one reply may hold."""
    ready = listing.ready
    count = len(ready)
    if sum(map(len, ready)) > wire.NAMES_BYTES_MOST:
        # At least one, as a name has 255 bytes at most.
        count = bisect_right(list(accumulate(map(len, ready))), wire.NAMES_BYTES_MOST)
    listing.ready = ready[count:]
    return ready[:count]


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


class _Packer:
    """Packs directory entries for one page."""

    def __init__(self, office: OfficeNumber, now: float) -> None:
        self._office = office
        self._now = now

    def directory(self, name: str, attributes: Attributes) -> bytes:
        known = attributes._replace(size=0, atime=attributes.mtime)
        return self._pack(name, known, owner=self._office, group=self._office)

    def generated(self, page: Generated) -> bytes:
        return self._pack(page.place.name, generated_attributes(page), owner=self._office, group=self._office)

    def receipt(self, name: str, size_bytes: int, changed_at: int) -> bytes:
        attributes = Attributes(size_bytes, tree.FILE_MODE, changed_at, changed_at)
        return self._pack(name, attributes, owner=self._office, group=self._office)

    def unfinished(self, partial: Partial) -> bytes:
        """What its owner may go on with, or has still to rename."""
        return self._pack(_last_part(partial.path), partial_attributes(partial), owner=self._office, group=self._office)

    def key(self, draft: KeyDraft) -> bytes:
        """A public key that this session has put here."""
        return self._pack(draft.place.name, key_attributes(draft), owner=self._office, group=self._office)

    def files(self, rows: Sequence[EntryRow]) -> list[bytes]:
        """The sender shows as owner, the recipient as group."""
        line, pack = tree.FileLines(self._now).line, wire.pack_file
        packed = []
        for _, shown, sender, recipient, _, size, changed in rows:
            name = shown.encode()
            long_name = line(name, size=size, mtime=changed, owner=sender, group=recipient)
            packed.append(pack(name, long_name, size, tree.FILE_MODE, changed))
        return packed

    def _pack(self, name: str, attributes: Attributes, *, owner: str, group: str) -> bytes:
        size, mode, _, changed = attributes
        line = tree.long_name(
            name, mode=mode or 0, size=size or 0, mtime=changed or 0, owner=owner, group=group, now=self._now
        )
        return wire.pack_entry(NameEntry(name.encode(), line.encode(), attributes))
