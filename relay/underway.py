"""Uploads under way: the handles that are being written to, in this worker and in the others.

A client that lost its connection comes again, perhaps to another worker, while its old handle is still open; a second
window of the same program looks at, shortens, renames or removes what the first one writes.  Each upload lives in the
memory of the worker whose session opened it.  Common memory says which workers have one at a path
(`Common.whereabouts`); what is to be done about it is done there, by the same functions, and asked for by
`relay.neighbours`.

Where the other worker does not answer the store decides alone, as it does in any case: whoever takes a partial over
holds it (`payload.holder`), and of two files of one name one is accepted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Final

from relay.common import Common, Tally
from relay.errors import Deferred, Refused
from relay.model import Identity, OfficeNumber, fold_name
from relay.neighbours import Neighbours
from relay.temporary import strip_temporary
from relay.upload import Upload

_UPLOADS: Final = "uploads"
_TEMPORARY: Final = "uploads under temporary names"


class _Verb(StrEnum):
    """What a worker can be asked to do about an upload of its own."""

    SETTLE = "wait for the end of a CLOSE"
    TELL = "tell how long it is"
    LEAVE = "keep it for who goes on with it"
    REPLACE = "give it up for another one"
    ABORT = "give it up"
    AMEND = "set its size or its time"
    IN_HAND = "tell whether one will have this name in the end"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload that is open somewhere: how long it is so far, the time its client gave, and whether it can go on."""

    size_bytes: int
    client_mtime: datetime | None
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    verb: _Verb
    office: OfficeNumber
    path: str
    reason: str = ""
    size_bytes: int | None = None
    seconds: float | None = None

    @property
    def scope(self) -> str:
        return _scope(self.office, self.path)

    def pack(self) -> bytes:
        return json.dumps(
            [self.verb, self.office, self.path, self.reason, self.size_bytes, self.seconds], ensure_ascii=False
        ).encode("utf-8", "surrogatepass")

    @classmethod
    def parse(cls, packed: bytes) -> _Question:
        verb, office, path, *rest = json.loads(packed.decode("utf-8", "surrogatepass"))
        return cls(_Verb(verb), OfficeNumber(office), path, *rest)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of a question: whether there was such an upload, what it is like, or what it was refused for."""

    is_found: bool
    size_bytes: int = 0
    seconds: float | None = None
    has_failed: bool = False
    refused: tuple[str, list[tuple[str, str]]] | None = None
    is_deferred: bool = False

    def pack(self) -> bytes:
        cells = [self.is_found, self.size_bytes, self.seconds, self.has_failed, self.refused, self.is_deferred]
        return json.dumps(cells).encode()

    @classmethod
    def parse(cls, packed: bytes) -> _Answer:
        return cls(*json.loads(packed))

    def raise_refused(self) -> None:
        if self.refused is not None:
            code, facts = self.refused
            raise (Deferred if self.is_deferred else Refused)(code, detail="in another worker", **dict(facts))


class Underway:
    """The uploads that are open, by office and path; one object a worker."""

    def __init__(self, common: Common) -> None:
        """Begin with none here."""
        self._common = common
        self._neighbours = Neighbours(common, self._answer)
        self._live: dict[tuple[OfficeNumber, str], Upload] = {}
        self._places: dict[Upload, list[Tally]] = {}

    def reachable(self) -> contextlib.AbstractContextManager[None]:
        """Answer the other workers for as long as this lasts."""
        return self._neighbours.reachable()

    # --- here ----------------------------------------------------------------------------------------------------

    def enter(self, upload: Upload, identity: Identity) -> None:
        """Know *upload*, which is open from now on."""
        path = upload.destination.path
        self._live[identity.office, fold_name(path)] = upload
        places = [self._common.count(_UPLOADS, _scope(identity.office, path))]
        if upload.destination.is_temporary:
            places.append(self._common.count(_TEMPORARY, identity.office))
        for tally in places:
            tally.add(1)
        self._places[upload] = places

    def forget(self, upload: Upload, identity: Identity) -> None:
        """Know *upload* no more: its handle is gone."""
        key = (identity.office, fold_name(upload.destination.path))
        if self._live.get(key) is upload:
            del self._live[key]
        self._vacate(upload)

    def _vacate(self, upload: Upload) -> None:
        for tally in self._places.pop(upload, ()):
            tally.add(-1)
            tally.close()

    def find(self, path: str, office: OfficeNumber) -> Upload | None:
        """Return the upload that is open at *path* in this worker, on whatever connection of *office*."""
        live = self._live.get((office, fold_name(path)))
        return None if live is None or live.is_over else live

    @contextlib.contextmanager
    def one_more(self, office: OfficeNumber) -> Iterator[int]:
        """Count one more upload under a temporary name, and return how many others *office* has under way."""
        tally = self._common.count(_TEMPORARY, office)
        tally.add(1)
        try:
            yield tally.total - 1
        finally:
            tally.add(-1)
            tally.close()

    # --- everywhere ----------------------------------------------------------------------------------------------

    async def settled(self, path: str, office: OfficeNumber) -> None:
        """Wait for the end of a CLOSE at *path* that is under way on another connection of *office*.

        Until then neither an upload nor what becomes of it would be found there.
        """
        await self._settle(path, office)
        if self._is_elsewhere(path, office):
            await self._ask_others(_Question(_Verb.SETTLE, office, path))

    async def find_anywhere(self, path: str, office: OfficeNumber) -> Unfinished | None:
        """Return what is open at *path*, on whatever connection of *office*."""
        live = self.find(path, office)
        if live is not None:
            return Unfinished(live.size_bytes, live.client_mtime, live.failure is not None)
        told = await self._ask_others(_Question(_Verb.TELL, office, path))
        return None if told is None else Unfinished(told.size_bytes, _moment(told.seconds), told.has_failed)

    def is_open(self, path: str, office: OfficeNumber) -> bool:
        """True where anything is open at *path*, in whatever worker; also while it is being kept or given up."""
        return self.find(path, office) is not None or self._is_elsewhere(path, office)

    async def give_way(self, path: str, office: OfficeNumber, *, is_afresh: bool) -> bool:
        """End what is open at *path*: whoever wrote to it has lost it; kept for who goes on, or with *is_afresh* not.

        False where nothing was open anywhere.
        """
        is_elsewhere = self._is_elsewhere(path, office)
        if self.find(path, office) is None and not is_elsewhere:
            return False
        verb, reason = (_Verb.REPLACE, "opened again") if is_afresh else (_Verb.LEAVE, "taken over")
        question = _Question(verb, office, path, reason)
        await self._act(question)
        if is_elsewhere:
            await self._ask_others(question)
        return True

    async def abort(self, path: str, office: OfficeNumber, reason: str) -> bool:
        """Give up what is open at *path*; False where nothing is."""
        question = _Question(_Verb.ABORT, office, path, reason)
        is_found = (await self._act(question)).is_found
        return await self._ask_others(question) is not None or is_found

    async def amend(
        self, path: str, office: OfficeNumber, *, size_bytes: int | None, client_mtime: datetime | None
    ) -> bool:
        """Set size or time of what is open at *path*; False where nothing is, Refused as its upload says."""
        live = self.find(path, office)
        if live is not None:
            await live.amend(size_bytes, client_mtime)
            return True
        seconds = None if client_mtime is None else client_mtime.timestamp()
        told = await self._ask_others(_Question(_Verb.AMEND, office, path, size_bytes=size_bytes, seconds=seconds))
        if told is not None:
            told.raise_refused()
        return told is not None

    async def is_in_hand(self, path: str, office: OfficeNumber) -> bool:
        """True while something is written that will be *path* in the end."""
        if self._is_in_hand(path, office):
            return True
        question = _Question(_Verb.IN_HAND, office, path)
        return await self._ask_others(question, where=(_TEMPORARY, office)) is not None

    # --- between workers -----------------------------------------------------------------------------------------

    async def _ask_others(self, question: _Question, where: tuple[str, str] | None = None) -> _Answer | None:
        """Put *question* to those who have something there; return the answer of one who found it, if any did."""
        limit, scope = where or (_UPLOADS, question.scope)
        found: _Answer | None = None
        for index in self._common.whereabouts(limit, scope):
            is_there = partial(self._has, index, limit, scope)
            packed = await self._neighbours.ask(index, question.pack(), is_there)
            answer = None if packed is None else _Answer.parse(packed)
            found = answer if answer is not None and answer.is_found else found
        return found

    def _is_elsewhere(self, path: str, office: OfficeNumber) -> bool:
        return bool(self._common.whereabouts(_UPLOADS, _scope(office, path)))

    def _has(self, index: int, limit: str, scope: str) -> bool:
        return index in self._common.whereabouts(limit, scope)

    async def _answer(self, packed: bytes) -> bytes:
        return (await self._act(_Question.parse(packed))).pack()

    async def _act(self, question: _Question) -> _Answer:
        """Do what is asked about an upload of this worker."""
        path, office = question.path, question.office
        if question.verb is _Verb.SETTLE:
            await self._settle(path, office)
        elif question.verb is _Verb.IN_HAND:
            return _Answer(self._is_in_hand(path, office))
        live = self.find(path, office)
        if live is None:
            return _Answer(is_found=False)
        try:
            if question.verb is _Verb.AMEND:
                await live.amend(question.size_bytes, _moment(question.seconds))
            elif question.verb in (_Verb.ABORT, _Verb.REPLACE):
                await live.abort(question.reason)
            elif question.verb is _Verb.LEAVE:
                await live.leave(question.reason)
        except (Refused, Deferred) as error:
            refused = error.code, list(error.finding.facts)
            return _Answer(is_found=True, refused=refused, is_deferred=isinstance(error, Deferred))
        if question.verb in (_Verb.LEAVE, _Verb.REPLACE):
            # Its handle may stay open for minutes, of a connection that is dead.
            self._vacate(live)
        mtime = live.client_mtime
        seconds = None if mtime is None else mtime.timestamp()
        return _Answer(is_found=True, size_bytes=live.size_bytes, seconds=seconds, has_failed=live.failure is not None)

    async def _settle(self, path: str, office: OfficeNumber) -> None:
        upload = self._live.get((office, fold_name(path)))
        if upload is not None and upload.is_over:
            await upload.ended()

    def _is_in_hand(self, path: str, office: OfficeNumber) -> bool:
        places = [place for owner, place in self._live if owner == office]
        return any(final_path(place) == fold_name(path) for place in places)


def final_path(path: str) -> str:
    """Return where an upload to *path* will be in the end."""
    folder, slash, name = path.rpartition("/")
    return fold_name(f"{folder}{slash}{strip_temporary(name) or name}")


def _scope(office: OfficeNumber, path: str) -> str:
    return f"{office} {fold_name(path)}"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
