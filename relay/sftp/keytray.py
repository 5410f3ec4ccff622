"""The key tray: public keys on their way into ``certificate/``, for one session.

A key is some hundred bytes and is held in memory until its client closes it, or renames it to its final name.
Nothing of it outlives the session but the certificate.  What can be seen at once to be no public key is refused at
the WRITE that brings it, because several programs do not notice a refused CLOSE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from relay import journal
from relay.errors import Deferred, Refused
from relay.journal import Journal
from relay.keyfiles import KEY_FILE_BYTES, refuse_at_once
from relay.model import Identity
from relay.renewal import RenewalDesk
from relay.standard.reasons import Why, illegal
from relay.temporary import strip_temporary
from relay.tree import CERTIFICATE_SUFFIX, KeyFile

_KEY_SUFFIX = ".pub"
# Keys that a session holds, finished ones included: who sends one needs one.
_DRAFTS_MOST = 4
_NAME_BYTES_MOST = 255


@dataclass(slots=True)
class KeyDraft:
    """A public key that a client writes, or has written; *refused* once it was found to be none."""

    place: KeyFile
    mtime: int
    data: bytearray = field(default_factory=bytearray)
    refused: Refused | None = None
    is_open: bool = True


class KeyTray:
    """The keys of one session, by path."""

    def __init__(self, desk: RenewalDesk, identity: Identity, journal_: Journal, now: Callable[[], int]) -> None:
        self._desk = desk
        self._identity = identity
        self._journal = journal_
        self._now = now
        self._drafts: dict[str, KeyDraft] = {}

    def find(self, place: KeyFile) -> KeyDraft | None:
        """Return what this session has put there; Refused as it was refused, until it is opened again."""
        draft = self._drafts.get(place.path)
        if draft is not None and draft.refused is not None and not draft.is_open:
            raise draft.refused.again()
        return draft

    def list_drafts(self) -> list[KeyDraft]:
        """Return what this session has put into ``certificate/``."""
        return [draft for draft in self._drafts.values() if draft.refused is None]

    def open(self, place: KeyFile, mtime: int | None, *, is_afresh: bool) -> KeyDraft:
        """Begin a key, or go on with one; Refused ``certificate.only_keys`` where the name is none of a key.

        Deferred ``limit.handles`` where too many are being written at once.
        """
        _key_name(place)
        draft = self._drafts.get(place.path)
        if draft is None or is_afresh or draft.refused is not None:
            self._make_room(place)
            if draft is not None:
                # Whoever still has it open has lost it.
                draft.data.clear()
                draft.refused = Refused("tree.not_found", detail="opened again")
            draft = self._drafts[place.path] = KeyDraft(place, mtime or self._now())
        draft.is_open = True
        return draft

    def _make_room(self, place: KeyFile) -> None:
        """Forget what was finished longest ago; a draft that is written to is held by its handle as well."""
        others = [draft for path, draft in self._drafts.items() if path != place.path]
        if len(others) < _DRAFTS_MOST:
            return
        oldest = next((draft for draft in others if not draft.is_open), None)
        if oldest is None:
            raise Deferred("limit.handles", limit=_DRAFTS_MOST)
        del self._drafts[oldest.place.path]

    def write(self, draft: KeyDraft, offset: int, data: bytes | memoryview) -> None:
        """Take bytes; Refused where they cannot be those of a public key."""
        try:
            if draft.refused is not None:
                raise draft.refused.again()
            if offset + len(data) > KEY_FILE_BYTES:
                refuse_at_once(bytes(KEY_FILE_BYTES + 1))
            if offset > len(draft.data):
                draft.data.extend(b"\n" * (offset - len(draft.data)))
            draft.data[offset : offset + len(data)] = data
            refuse_at_once(bytes(draft.data))
        except Refused as refused:
            draft.data.clear()
            draft.refused = refused.again()
            raise

    async def close(self, draft: KeyDraft) -> bool:
        """Submit what was written whole under its final name; False where it waits for its RENAME."""
        draft.is_open = False
        if draft.refused is not None:
            raise draft.refused.again()
        if strip_temporary(draft.place.name) is not None:
            return False
        await self._submit(draft)
        return True

    async def move(self, here: KeyFile, there: KeyFile) -> None:
        """Give a key its final name, which submits it; Refused ``tree.not_found`` where there is none."""
        draft = self.find(here)
        if draft is None:
            raise Refused("tree.not_found")
        _key_name(there)
        moved = self._drafts[there.path] = KeyDraft(there, draft.mtime, draft.data, is_open=False)
        if strip_temporary(there.name) is None:
            await self._submit(moved)
        self._drafts.pop(here.path, None)

    def remove(self, place: KeyFile) -> bool:
        """Forget a key that this session has put there; False where it has not."""
        return self._drafts.pop(place.path, None) is not None

    def truncate(self, draft: KeyDraft, size: int) -> None:
        """Let the key be *size* bytes long; a longer one than there is stays as it is."""
        del draft.data[size:]

    async def _submit(self, draft: KeyDraft) -> None:
        try:
            await self._desk.submit(self._identity, _key_name(draft.place), bytes(draft.data), self._journal)
        except Refused as refused:
            journal.certificate_refused(self._journal, code=refused.code, detail=refused.detail)
            draft.refused = refused.again()
            draft.data.clear()
            raise
        except Deferred:
            self._drafts.pop(draft.place.path, None)
            raise


def _key_name(place: KeyFile) -> str:
    """Return what a certificate for the key at *place* is called; Refused where that is no name of a public key."""
    name = strip_temporary(place.name) or place.name
    if not name.lower().endswith(_KEY_SUFFIX) or name.lower() == _KEY_SUFFIX:
        raise Refused("certificate.only_keys")
    stem = name[: -len(_KEY_SUFFIX)]
    if not stem.isprintable() or len((stem + CERTIFICATE_SUFFIX).encode()) > _NAME_BYTES_MOST:
        raise illegal(
            Why("使えない文字があるか、長すぎます", "it is too long or holds a character that cannot be used")
        )
    return stem
