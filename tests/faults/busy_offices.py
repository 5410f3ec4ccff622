"""Two offices at work: one sends, renames, takes back and resumes; the other reads, closes and puts away.

Everything that either asks and is answered is written into a `Notebook` by the moments of a clock that the caller
gives.  What a file's number says becomes of it: see `plan_of`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import raw_sftp as sftp
from abort_judge import Act, Deed
from house import CARE_MANAGER, HOME_HELP, House, general_name, pdf
from raw_sftp import RawSftp, open_raw

from relay.vault import CHUNK_BYTES

LARGE_BYTES = 2 * CHUNK_BYTES + 30_000
_SENDERS, _READERS = 4, 2


@dataclass(frozen=True, slots=True)
class Kept:
    """So many bytes of an upload were promised to be there still: after *answered* and before *until*."""

    path: str
    size_bytes: int
    answered: int
    until: int | None


@dataclass(slots=True)
class Notebook:
    """What was asked and answered, by file name; *now* is the clock."""

    now: Callable[[], int]
    contents: dict[str, bytes] = field(default_factory=dict)
    deeds: dict[str, list[Deed]] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)

    async def note(self, name: str, act: Act, asking: Awaitable[sftp.Reply]) -> None:
        """Wait for the answer to *asking*, which begins now, and note it; it has to be OK."""
        began = self.now()
        reply = await asking
        assert reply.code == sftp.OK, f"{act} {name}: {reply.text}"
        self.deeds.setdefault(name, []).append(Deed(act, began, self.now(), is_ok=True))

    def carry_over(self, ended: int, now: Callable[[], int]) -> Notebook:
        """Return a notebook that goes on, by another clock from 0, where the server ended at the moment *ended*."""
        later = Notebook(now, dict(self.contents))
        for name, deeds in self.deeds.items():
            for number, deed in enumerate(deed for deed in deeds if deed.began <= ended):
                moment = number - 1_000
                is_known = deed.answered is not None and deed.answered <= ended
                later.deeds.setdefault(name, []).append(
                    Deed(deed.act, moment, moment if is_known else None, deed.is_ok and is_known)
                )
        return later


def plan_of(number: int) -> str:
    """Return what becomes of the file of that number."""
    return ("read", "wait", "recall", "shelve", "read half", "read and drop")[number % 6]


def content_of(number: int, size_bytes: int) -> bytes:
    """Return the bytes of that file; no two files have the same."""
    return pdf(size_bytes) + general_name(number=number).encode() + b"\n%%EOF\n"


async def work(house: House, notebook: Notebook, numbers: range, *, large: frozenset[int]) -> None:
    """Let both offices work until every file of *numbers* has become what its plan says."""
    sent: asyncio.Queue[int] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        senders = [
            group.create_task(_send(house, notebook, numbers[first::_SENDERS], large, sent))
            for first in range(_SENDERS)
        ]
        readers = [group.create_task(_receive(house, notebook, sent)) for _ in range(_READERS)]
        await asyncio.wait(senders)
        await sent.join()
        for reader in readers:
            reader.cancel()


async def _send(
    house: House, notebook: Notebook, numbers: range, large: frozenset[int], sent: asyncio.Queue[int]
) -> None:
    for number in numbers:
        name = general_name(number=number)
        content = notebook.contents[name] = content_of(number, LARGE_BYTES if number in large else 300 + 97 * number)
        async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
            if number in large:
                await _begin(notebook, raw, name, content)
        async with house.dial(CARE_MANAGER) as connection, open_raw(connection) as raw:
            if number in large:
                await _resume(notebook, raw, name, content)
            elif number % 5 == 0:
                await _send_and_rename(notebook, raw, name, content)
            else:
                await notebook.note(name, Act.SEND, raw.put(f"/send/{name}", content))
            if plan_of(number) == "recall":
                await notebook.note(name, Act.RECALL, raw.call(sftp.RENAME, f"/send/{name}", f"/recall/{name}"))
        sent.put_nowait(number)


async def _begin(notebook: Notebook, raw: RawSftp, name: str, content: bytes) -> None:
    """Upload half of it, let that be synced, and go without a CLOSE."""
    handle = await raw.open(f"/send/{name}")
    half = len(content) // 2
    await write(raw, handle, content[:half], 0)
    assert (await raw.call(sftp.EXTENDED, "fsync@openssh.com", handle)).code == sftp.OK
    notebook.kept.append(Kept(name, half, notebook.now(), None))
    # The rest may be kept or not.
    await write(raw, handle, content[half : half + CHUNK_BYTES], half)


async def _resume(notebook: Notebook, raw: RawSftp, name: str, content: bytes) -> None:
    """Go on where the server says that the upload ended."""
    size = (await raw.call(sftp.STAT, f"/send/{name}")).size
    assert size >= len(content) // 2
    handle = await raw.open(f"/send/{name}", 0x02)
    await write(raw, handle, content[size:], size)
    _end_keeping(notebook, name)
    await notebook.note(name, Act.SEND, raw.call(sftp.CLOSE, handle))


async def _send_and_rename(notebook: Notebook, raw: RawSftp, name: str, content: bytes) -> None:
    """Upload as WinSCP does."""
    assert (await raw.put(f"/send/{name}.filepart", content)).code == sftp.OK
    notebook.kept.append(Kept(f"{name}.filepart", len(content), notebook.now(), None))
    _end_keeping(notebook, f"{name}.filepart")
    await notebook.note(name, Act.SEND, raw.call(sftp.RENAME, f"/send/{name}.filepart", f"/send/{name}"))


def _end_keeping(notebook: Notebook, path: str) -> None:
    now = notebook.now()
    notebook.kept = [Kept(k.path, k.size_bytes, k.answered, now) if k.path == path else k for k in notebook.kept]


async def write(raw: RawSftp, handle: bytes, data: bytes, offset: int) -> None:
    """Write *data* there, piece by piece, each of which has to be answered OK."""
    for at in range(0, len(data), 32_000):
        reply = await raw.call(sftp.WRITE, handle, sftp.Long(offset + at), data[at : at + 32_000])
        assert reply.code == sftp.OK, reply.text


async def _receive(house: House, notebook: Notebook, sent: asyncio.Queue[int]) -> None:
    while True:
        number = await sent.get()
        name, plan = general_name(number=number), plan_of(number)
        async with house.dial(HOME_HELP) as connection, open_raw(connection) as raw:
            if plan in ("read", "shelve"):
                handle = await _read(raw, name, notebook.contents[name])
                await notebook.note(name, Act.READ, raw.call(sftp.CLOSE, handle))
            elif plan == "read half":
                half = notebook.contents[name][: len(notebook.contents[name]) // 2]
                assert (await raw.call(sftp.CLOSE, await _read(raw, name, half))).code == sftp.OK
            elif plan == "read and drop":
                await _read(raw, name, notebook.contents[name])
            if plan == "shelve":
                await notebook.note(name, Act.SHELVE, raw.call(sftp.REMOVE, f"/receive/{name}"))
        sent.task_done()


async def _read(raw: RawSftp, name: str, content: bytes) -> bytes:
    """Read so much of it, see that it is right, and return the open handle."""
    handle, data = await raw.open(f"/new/{name}", sftp.READING), bytearray()
    while len(data) < len(content):
        length = min(100_000, len(content) - len(data))
        data += (await raw.call(sftp.READ, handle, sftp.Long(len(data)), length)).data
    assert data == content
    return handle
