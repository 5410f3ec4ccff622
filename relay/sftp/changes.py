"""REMOVE and RENAME: what each means in every part of an office's tree.

A REMOVE gives up what is unfinished, or puts away what was read; it never takes a transfer back.  A RENAME gives an
upload its final name, moves what was received between its shelves, or, into ``recall/``, takes back what was sent.
"""

from __future__ import annotations

from relay import tree
from relay.errors import Deferred, Refused
from relay.journal import Journal
from relay.ledger import Shelf
from relay.model import Identity, fold_name
from relay.sftp.desks import Desks
from relay.sftp.lookup import Lookup
from relay.temporary import is_temporary
from relay.tree import Directory, Folder, GeneratedFile, KeyFile, Place, RecalledFile, SentFile, ShelfFile


class Changes:
    """The hands of one session."""

    def __init__(self, desks: Desks, identity: Identity, lookup: Lookup, journal: Journal) -> None:
        self._desks = desks
        self._identity = identity
        self._lookup = lookup
        self._journal = journal

    async def remove(self, place: Place) -> None:
        """Carry out a REMOVE of *place*, or refuse it in words."""
        if isinstance(place, SentFile):
            await self._remove_sent(place)
        elif isinstance(place, ShelfFile):
            await self._remove_received(place)
        elif isinstance(place, GeneratedFile) and await self._remove_note(place):
            return
        elif isinstance(place, GeneratedFile) and place.folder is Folder.CERTIFICATE:
            await self._remove_certificate(place)
        elif isinstance(place, KeyFile):
            if not self._lookup.keys.remove(place):
                raise Refused("tree.not_found")
        elif isinstance(place, Directory):
            raise Refused("tree.is_directory")
        else:
            await self._lookup.attributes(place)
            raise Refused("tree.read_only")

    async def _remove_sent(self, place: SentFile) -> None:
        """Give up what is being uploaded or was just refused; an accepted transfer is never taken back by this."""
        await self._desks.intake.settled(place.upload_path, self._identity)
        was_unfinished = await self._desks.intake.drop(place.upload_path, self._identity)
        if was_unfinished or self._lookup.remembered(place) is not None:
            return
        if await self._desks.intake.is_in_hand(place.upload_path, self._identity):
            return
        await self._lookup.find(place)
        raise Refused("transfer.accepted")

    async def _remove_note(self, place: GeneratedFile) -> bool:
        """Take away a note, or what this session believes to be at *place*; False where there is neither."""
        was_swallowed = self._lookup.forget_page(place)
        noted = tree.noted_name(place.name)
        if place.folder is not Folder.SEND or noted is None:
            return was_swallowed
        path = place.path.removeprefix("/send/")[: -len(place.name)] + noted
        return await self._desks.ledger.remove_notes(self._identity.office, path) or was_swallowed

    async def _remove_certificate(self, place: GeneratedFile) -> None:
        """Give up a certificate that the one in use was renewed from."""
        if not fold_name(place.name).endswith(tree.CERTIFICATE_SUFFIX):
            raise Refused("tree.read_only")
        await self._desks.renewal.give_up(self._identity, place.name, self._journal)
        self._lookup.forget_certificates()

    async def _remove_received(self, place: ShelfFile) -> None:
        if place.shelf is Folder.DONE:
            await self._lookup.find(place)
            raise Refused("tree.read_only", detail="REMOVE in done/")
        transfer = await self._desks.ledger.find_delivered(self._identity.office, place.name)
        if transfer is None or (transfer.is_removed and place.shelf is not Folder.NEW):
            raise Refused("tree.not_found")
        await self._desks.collection.move(transfer, Shelf.DONE, self._identity, self._journal)

    async def move(self, here: Place, there: Place) -> None:
        """Carry out a RENAME, or refuse it in words; under another name nothing can be moved but an upload."""
        if isinstance(here, SentFile) and _is_recall(here, there):
            await self._recall(here)
        elif isinstance(here, SentFile) and isinstance(there, SentFile) and is_temporary(here.name):
            await self._rename_upload(here, there)
        elif isinstance(here, ShelfFile) and isinstance(there, ShelfFile) and there.lane == here.lane:
            transfer = await self._lookup.find(here)
            to = Shelf.DONE if there.shelf is Folder.DONE else Shelf.RECEIVE
            await self._desks.collection.move(transfer, to, self._identity, self._journal)
        elif isinstance(here, KeyFile) and isinstance(there, KeyFile):
            await self._lookup.keys.move(here, there)
            self._lookup.forget_certificates()
        elif isinstance(here, GeneratedFile) and isinstance(there, GeneratedFile) and self._lookup.has_swallowed(here):
            self._lookup.move_swallowed(here, there)
        else:
            await self._lookup.attributes(here)
            raise Refused("tree.no_rename")

    async def _recall(self, here: SentFile) -> None:
        transfer = await self._lookup.find_newest(here)
        if transfer is None:
            await self._lookup.attributes(here)
            raise Refused("tree.no_rename", detail="a recall of what was never accepted")
        await self._desks.intake.recall(transfer, self._identity, self._journal)

    async def _rename_upload(self, here: SentFile, there: SentFile) -> None:
        await self._desks.intake.settled(here.upload_path, self._identity)
        try:
            await self._desks.intake.rename(
                here.upload_path, there.upload_path, there.address, self._identity, self._journal
            )
        except (Refused, Deferred) as error:
            # What was refused while it was written is not there to be renamed: its client reads the same sentence.
            told = error if error.code != "tree.not_found" else self._lookup.remembered(here)
            if told is not None:
                self._lookup.remember(there, told)
            if told is None or told is error:
                raise
            raise told from error
        self._lookup.forget(there)


def _is_recall(here: SentFile, there: Place) -> bool:
    """True where *here* is moved into ``recall/`` under its own name, or to that directory as such."""
    if isinstance(there, RecalledFile):
        return fold_name(there.name) == fold_name(here.name)
    return isinstance(there, Directory) and there.folder is Folder.RECALL
