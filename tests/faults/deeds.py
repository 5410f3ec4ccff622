"""What offices do while something fails: each deed prepared, done, and done again as whoever was not answered does it.

A deed done again after the trouble must come to its end whatever the first attempt left behind: that is what "try again"
means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

import raw_sftp as sftp
from abort_judge import Claim, Fetch, Sight, Told, digest, judge_exchange
from house import CARE_MANAGER, HOME_HELP, general_name, pdf
from indoors import OFFICES, Indoors, clock
from raw_sftp import Long, RawSftp, size_attribute
from sights import look

from relay.errors import Deferred
from relay.housekeeping import go_round
from relay.model import OfficeNumber
from relay.vault import CHUNK_BYTES

SMALL, LARGE = pdf(5_000), pdf(2 * CHUNK_BYTES + 1_000)
_WRITE_BYTES = 200_000
_LATER = timedelta(days=200)
# OPEN for writing without TRUNC: go on where it ended.
_GOING_ON = 0x02 | 0x08


class Relay(Protocol):
    """Where offices sit down: in this process, or at a real server."""

    def session(self, office: OfficeNumber = CARE_MANAGER) -> AbstractAsyncContextManager[RawSftp]:
        """Sit down as *office* for a block, and leave."""


@dataclass
class Papers:
    """What an office holds beside its files, and was told of them: an invitation, public keys, certificates."""

    code: str = ""
    # Lines of certificates, by the public line of their key; '' where it asked and was told of none.
    asked: dict[str, str] = field(default_factory=dict)
    # Public lines of keys whose certificates were revoked, and what the operator was told of it.
    revoked: dict[str, Told] = field(default_factory=dict)


@dataclass
class Play:
    """One relay, and what its offices tried and were told."""

    relay: Relay
    claims: dict[str, Claim] = field(default_factory=dict)
    fetches: list[Fetch] = field(default_factory=list)
    # Of the names of the deed that is being done.
    first_number: int = 0
    papers: Papers = field(default_factory=Papers)

    def name(self, number: int = 0) -> str:
        """Return a name of this deed."""
        return general_name(number=self.first_number + number)

    def path(self, number: int = 0) -> str:
        """Return where it is sent."""
        return f"/send/{self.name(number)}"

    def note(self, content: bytes, told: Told, number: int = 0) -> None:
        """Keep the best word about a file."""
        name = self.name(number)
        known = self.claims.get(name, Claim(CARE_MANAGER, HOME_HELP, name, digest(content), told))
        self.claims[name] = replace(known, told=Told.DONE if Told.DONE in (told, known.told) else told)

    async def put(self, raw: RawSftp, content: bytes, number: int = 0) -> Told:
        """Upload; returns what was told."""
        self.note(content, Told.NOTHING, number)
        told = told_by(await raw.put(self.path(number), content))
        self.note(content, told, number)
        return told

    async def judge(self, known: dict[str, Mapping[str, str]] | None = None) -> list[str]:
        """Look at all offices, and return what was broken; bytes that are *known* are not read again, new ones added."""
        sights: dict[str, Sight] = {}
        for office in OFFICES:
            async with self.relay.session(office) as raw:
                sights[office] = await look(raw, None if known is None else known.get(office))
            if known is not None:
                known[office] = sights[office].read
        return judge_exchange(self.claims.values(), self.fetches, sights)


def told_by(reply: sftp.Reply) -> Told:
    """Return what a reply means."""
    return Told.DONE if reply.type == sftp.STATUS and reply.code == sftp.OK else Told.FAILED


@dataclass(frozen=True)
class Deed:
    """*prepare* is done without trouble, *do* is then done in it; *do* returns what was told at the end.

    *again* is how it is done once more, where that is not the same.  *judge* looks at more than files.
    """

    name: str
    do: Callable[[Play], Awaitable[Told]]
    prepare: Callable[[Play], Awaitable[object]] | None = None
    again: Callable[[Play], Awaitable[Told]] | None = None
    judge: Callable[[Play], Awaitable[list[str]]] | None = None

    async def do_again(self, play: Play) -> Told:
        """Do it once more, as whoever was not answered does."""
        return await (self.again or self.do)(play)

    async def judge_all(self, play: Play) -> list[str]:
        """Look at all offices, and return what was broken."""
        return await play.judge() + ([] if self.judge is None else await self.judge(play))

    def __str__(self) -> str:
        return self.name


async def _send_small(play: Play) -> Told:
    async with play.relay.session() as raw:
        return await play.put(raw, SMALL)


async def _send_large(play: Play) -> Told:
    async with play.relay.session() as raw:
        return await play.put(raw, LARGE)


async def _send_two_at_once(play: Play) -> Told:
    """Two files closed in one breath travel in one transaction."""
    async with play.relay.session() as raw:
        opened = [
            await raw.call(sftp.OPEN, play.path(number), sftp.WRITING, sftp.Raw(sftp.NO_ATTRIBUTES))
            for number in (0, 1)
        ]
        asked = []
        for number, each in enumerate(opened):
            play.note(SMALL, Told.NOTHING, number)
            if each.type == sftp.HANDLE:
                raw.ask(sftp.WRITE, each.handle, Long(0), SMALL)
        for number, each in enumerate(opened):
            if each.type == sftp.HANDLE:
                asked.append((number, raw.ask(sftp.CLOSE, each.handle)))
        told = [Told.FAILED for each in opened if each.type != sftp.HANDLE]
        for number, request in asked:
            told.append(told_by(await raw.reply_to(request)))
            play.note(SMALL, told[-1], number)
        return Told.FAILED if Told.FAILED in told else Told.DONE


async def _rename(play: Play) -> Told:
    async with play.relay.session() as raw:
        play.note(LARGE, Told.NOTHING)
        told = told_by(await raw.put(f"{play.path()}.part", LARGE))
        if told is Told.DONE:
            told = told_by(await raw.call(sftp.RENAME, f"{play.path()}.part", play.path()))
        play.note(LARGE, told)
        return told


async def _write_a_part(raw: RawSftp, handle: bytes) -> None:
    """Write a chunk and some bytes of the next; whatever is told."""
    for at in (0, _WRITE_BYTES):
        await raw.call(sftp.WRITE, handle, Long(at), LARGE[at : min(at + _WRITE_BYTES, CHUNK_BYTES + 10)])


async def _begin(play: Play) -> None:
    """Send more than half, and be cut off."""
    play.note(LARGE, Told.NOTHING)
    async with play.relay.session() as raw:
        handle = await raw.open(play.path())
        await _write_a_part(raw, handle)


async def _resume(play: Play) -> Told:
    """Go on where it ended, or begin again where nothing is."""
    async with play.relay.session() as raw:
        known = await raw.call(sftp.STAT, play.path())
        at = known.size if known.type == sftp.ATTRS and known.size < len(LARGE) else 0
        opened = await raw.call(sftp.OPEN, play.path(), _GOING_ON, sftp.Raw(sftp.NO_ATTRIBUTES))
        told = Told.FAILED
        if opened.type == sftp.HANDLE:
            for start in range(at, len(LARGE), _WRITE_BYTES):
                raw.ask(sftp.WRITE, opened.handle, Long(start), LARGE[start : start + _WRITE_BYTES])
            told = told_by(await raw.call(sftp.CLOSE, opened.handle))
        play.note(LARGE, told)
        return told


async def _be_cut_off(play: Play) -> Told:
    """Send a part and lose the connection, which promises nothing; then send all of it."""
    play.note(LARGE, Told.NOTHING)
    async with play.relay.session() as raw:
        opened = await raw.call(sftp.OPEN, play.path(), sftp.WRITING, sftp.Raw(sftp.NO_ATTRIBUTES))
        if opened.type == sftp.HANDLE:
            await _write_a_part(raw, opened.handle)
    return await _resume(play)


async def _send_anyhow(play: Play, *writes: tuple[int, bytes], size: int | None = None) -> Told:
    """Send in WRITEs that go back over each other, look at no answer but that of CLOSE, and claim `LARGE`."""
    play.note(LARGE, Told.NOTHING)
    async with play.relay.session() as raw:
        opened = await raw.call(sftp.OPEN, play.path(), sftp.WRITING, sftp.Raw(sftp.NO_ATTRIBUTES))
        if opened.type != sftp.HANDLE:
            return Told.FAILED
        for at, data in writes:
            for start in range(0, len(data), _WRITE_BYTES):
                raw.ask(sftp.WRITE, opened.handle, Long(at + start), data[start : start + _WRITE_BYTES])
        if size is not None:
            raw.ask(sftp.FSETSTAT, opened.handle, size_attribute(size))
        told = told_by(await raw.call(sftp.CLOSE, opened.handle))
        play.note(LARGE, told)
        return told


async def _write_over(play: Play) -> Told:
    """Something in the first chunk comes last, over what stood in its place."""
    spoilt = LARGE[:10_000] + bytes(2_000) + LARGE[12_000:]
    return await _send_anyhow(play, (0, spoilt), (10_000, LARGE[10_000:12_000]))


async def _shorten(play: Play) -> Told:
    """What is behind the end is cut off at last."""
    return await _send_anyhow(play, (0, LARGE + bytes(CHUNK_BYTES)), size=len(LARGE))


async def _collect(play: Play) -> Told:
    async with play.relay.session(HOME_HELP) as raw:
        name = play.name()
        opened = await raw.call(sftp.OPEN, f"/new/{name}", sftp.READING, sftp.Raw(sftp.NO_ATTRIBUTES))
        if opened.type != sftp.HANDLE:
            # Perhaps it is collected, and its CLOSE was not answered.
            opened = await raw.call(sftp.OPEN, f"/receive/{name}", sftp.READING, sftp.Raw(sftp.NO_ATTRIBUTES))
        if opened.type != sftp.HANDLE:
            return Told.FAILED
        data = bytearray()
        while (reply := await raw.call(sftp.READ, opened.handle, Long(len(data)), 200_000)).type == sftp.DATA:
            data += reply.data
        is_whole = reply.code == sftp.EOF
        told = told_by(await raw.call(sftp.CLOSE, opened.handle))
        told = told if is_whole else Told.FAILED
        play.fetches.append(Fetch(HOME_HELP, name, digest(bytes(data)), told))
        return told


async def _put_away(play: Play) -> Told:
    async with play.relay.session(HOME_HELP) as raw:
        name = play.name()
        return told_by(await raw.call(sftp.RENAME, f"/receive/{name}", f"/done/{name}"))


async def _put_away_again(play: Play) -> Told:
    """Put it away; where it is there already a program finds nothing to move."""
    told = await _put_away(play)
    async with play.relay.session(HOME_HELP) as raw:
        is_away = (await raw.call(sftp.STAT, f"/done/{play.name()}")).type == sftp.ATTRS
    return Told.DONE if is_away else told


async def _recall(play: Play) -> Told:
    name = play.name()
    play.claims[name] = replace(play.claims[name], taken_back=play.claims[name].taken_back or Told.NOTHING)
    async with play.relay.session() as raw:
        told = told_by(await raw.call(sftp.RENAME, play.path(), f"/recall/{name}"))
    if play.claims[name].taken_back is not Told.DONE:
        play.claims[name] = replace(play.claims[name], taken_back=told)
    return told


async def _keep_house(play: Play) -> Told:
    """Let time pass: what was not collected expires, what was collected loses its bytes."""
    play.claims = {
        name: replace(claim, may_be=frozenset({"expired", "destroyed"})) for name, claim in play.claims.items()
    }
    assert isinstance(play.relay, Indoors)
    try:
        await go_round(play.relay.ledger, play.relay.desks.config.housekeeping, clock() + _LATER)
    except Deferred:
        return Told.FAILED
    return Told.DONE


async def _send_and_collect(play: Play) -> None:
    await _send_large(play)
    assert await _collect(play) is Told.DONE


async def _send_several(play: Play) -> None:
    await _send_and_collect(play)
    async with play.relay.session() as raw:
        assert await play.put(raw, SMALL, 1) is Told.DONE
        handle = await raw.open(play.path(2))
        await _write_a_part(raw, handle)
    play.note(LARGE, Told.NOTHING, 2)


DEEDS = (
    Deed("send_small", _send_small),
    Deed("send_large", _send_large),
    Deed("send_two_at_once", _send_two_at_once),
    Deed("send_again", _send_large, _send_large),
    Deed("rename", _rename),
    Deed("resume", _resume, _begin),
    Deed("be_cut_off", _be_cut_off),
    Deed("write_over", _write_over, again=_send_large),
    Deed("shorten", _shorten, again=_send_large),
    Deed("collect", _collect, _send_large),
    Deed("put_away", _put_away_again, _send_and_collect),
    Deed("recall", _recall, _send_large),
    Deed("keep_house", _keep_house, _send_several),
)
