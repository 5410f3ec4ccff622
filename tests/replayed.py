"""WinSCP and rclone from 1.63 on, which do not run here: what they send, request by request, in their order.

Taken from the sequences that were read in their sources.  As in the programs themselves, the first answer that is no
success ends the deed, and its sentence is what the user reads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import raw_sftp as sftp
from house import House, run_aside
from programs import Cannot, Said, without_dots
from raw_sftp import NO_ATTRIBUTES, READING, WRITING, Long, Raw, RawSftp, Reply, open_raw

from relay.model import OfficeNumber

_RESUMING = 0x02 | 0x08
_PIECE_BYTES = 32_768
# How many requests are on their way before an answer is waited for.
_AHEAD = 64


class _RefusedError(Exception):
    """The sentence of an answer that is no success."""


def _good(reply: Reply) -> Reply:
    if reply.type == sftp.STATUS and reply.code != sftp.OK:
        raise _RefusedError(reply.text)
    return reply


def _times(file: Path) -> Raw:
    seconds = int(file.stat().st_mtime)
    return Raw(struct.pack(">III", 0x08, seconds, seconds))


async def _size(raw: RawSftp, kind: int, path: str) -> int | None:
    """Return the size of what is at *path*; None where there is nothing."""
    reply = await raw.call(kind, path)
    if reply.type == sftp.STATUS and reply.code == sftp.NO_SUCH_FILE:
        return None
    return _good(reply).size


async def _write(raw: RawSftp, handle: bytes, file: Path, start: int = 0) -> None:
    asked: list[int] = []
    with file.open("rb") as local:
        local.seek(start)
        while piece := local.read(_PIECE_BYTES):
            asked.append(raw.ask(sftp.WRITE, handle, Long(start), piece))
            start += len(piece)
            if len(asked) >= _AHEAD:
                _good(await raw.reply_to(asked.pop(0)))
    for number in asked:
        _good(await raw.reply_to(number))


async def _read(raw: RawSftp, handle: bytes, file: Path, start: int = 0) -> None:
    """Read to the end, with READs behind it that are answered EOF."""
    asked = [raw.ask(sftp.READ, handle, Long(start + at * _PIECE_BYTES), _PIECE_BYTES) for at in range(_AHEAD)]
    start += _AHEAD * _PIECE_BYTES
    with file.open("ab" if file.exists() else "wb") as local:
        while asked:
            reply = await raw.reply_to(asked.pop(0))
            if reply.type == sftp.STATUS and reply.code == sftp.EOF:
                continue
            local.write(_good(reply).data)
            asked.append(raw.ask(sftp.READ, handle, Long(start), _PIECE_BYTES))
            start += _PIECE_BYTES


class _Replayed(Cannot):
    """One connection a deed."""

    needs: tuple[str, ...] = ()

    def names(self, house: House, office: OfficeNumber, folder: str) -> list[str]:
        found: list[str] = []

        async def work(raw: RawSftp) -> None:
            found.extend(without_dots(await raw.list(f"/{folder}")))

        self._act(house, office, work)
        return found

    def _act(self, house: House, office: OfficeNumber, act: Callable[[RawSftp], Awaitable[None]]) -> Said:
        async def work() -> Said:
            async with house.dial(office) as connection, open_raw(connection) as raw:
                try:
                    await act(raw)
                except _RefusedError as refused:
                    return Said(is_done=False, text=str(refused))
            return Said(is_done=True, text="")

        return run_aside(work())


class WinScp(_Replayed):
    """WinSCP with its default settings: temporary names from 100 KiB on, and times that do not wait for CLOSE."""

    name = "WinSCP"
    part = "{}.filepart"
    part_from_bytes = 100 * 1024

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        way = self._put_large if file.stat().st_size >= self.part_from_bytes else self._put_small
        return self._act(house, office, lambda raw: way(raw, file, f"/{target}"))

    def put_on(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return self._act(house, office, lambda raw: self._put_large(raw, file, f"/{target}", goes_on=True))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        file.unlink(missing_ok=True)
        return self.fetch_on(house, office, source, file)

    def fetch_on(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        return self._act(house, office, lambda raw: self._fetch(raw, f"/{source}", file))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        async def move(raw: RawSftp) -> None:
            await self._fetch(raw, f"/{source}", file)
            _good(await raw.call(sftp.REMOVE, f"/{source}"))

        return self._act(house, office, move)

    async def _enter(self, raw: RawSftp, folder: str) -> None:
        _good(await raw.call(sftp.REALPATH, "."))
        _good(await raw.call(sftp.REALPATH, folder))
        _good(await raw.call(sftp.LSTAT, folder))
        await self._look(raw, folder)

    async def _look(self, raw: RawSftp, folder: str) -> None:
        """List without waiting for the reply to CLOSE."""
        handle = _good(await raw.call(sftp.OPENDIR, folder)).handle
        while (await raw.call(sftp.READDIR, handle)).type == sftp.NAME:
            pass
        raw.ask(sftp.CLOSE, handle)

    async def _put_small(self, raw: RawSftp, file: Path, target: str) -> None:
        folder = target.rpartition("/")[0]
        await self._enter(raw, folder)
        handle = _good(await raw.call(sftp.OPEN, target, WRITING, Raw(NO_ATTRIBUTES))).handle
        await _write(raw, handle, file)
        close, times = raw.ask(sftp.CLOSE, handle), raw.ask(sftp.SETSTAT, target, _times(file))
        _good(await raw.reply_to(close))
        _good(await raw.reply_to(times))
        await self._look(raw, folder)

    async def _put_large(self, raw: RawSftp, file: Path, target: str, *, goes_on: bool = False) -> None:
        folder, part = target.rpartition("/")[0], self.part.format(target)
        await self._enter(raw, folder)
        is_there = await _size(raw, sftp.LSTAT, target) is not None
        start = await _size(raw, sftp.LSTAT, part) or 0 if goes_on else 0
        flags = _RESUMING if start else WRITING
        handle = _good(await raw.call(sftp.OPEN, part, flags, Raw(NO_ATTRIBUTES))).handle
        await _write(raw, handle, file, start)
        _good(await raw.call(sftp.CLOSE, handle))
        if is_there:
            _good(await raw.call(sftp.REMOVE, target))
        _good(await raw.call(sftp.RENAME, part, target))
        _good(await raw.call(sftp.SETSTAT, target, _times(file)))
        await self._look(raw, folder)

    async def _fetch(self, raw: RawSftp, source: str, file: Path) -> None:
        await self._enter(raw, source.rpartition("/")[0])
        handle = _good(await raw.call(sftp.OPEN, source, READING, Raw(NO_ATTRIBUTES))).handle
        _good(await raw.call(sftp.FSTAT, handle))
        await _read(raw, handle, file, file.stat().st_size if file.exists() else 0)
        _good(await raw.call(sftp.CLOSE, handle))


class Rclone163(_Replayed):
    """rclone from 1.63 on: a temporary name of its own for every upload, and posix-rename."""

    name = "rclone 1.63"
    part = "{}.0a1b2c3d.partial"

    def put(self, house: House, office: OfficeNumber, file: Path, target: str) -> Said:
        return self._act(house, office, lambda raw: self._put(raw, file, f"/{target}"))

    def fetch(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        file.unlink(missing_ok=True)
        return self._act(house, office, lambda raw: self._fetch(raw, f"/{source}", file))

    def fetch_and_remove(self, house: House, office: OfficeNumber, source: str, file: Path) -> Said:
        async def move(raw: RawSftp) -> None:
            await self._fetch(raw, f"/{source}", file)
            removed = await raw.call(sftp.REMOVE, f"/{source}")
            if removed.code != sftp.OK:
                _good(await raw.call(sftp.RMDIR, f"/{source}"))

        return self._act(house, office, move)

    async def _put(self, raw: RawSftp, file: Path, target: str) -> None:
        part = f"{target}.{os.urandom(4).hex()}.partial"
        await _size(raw, sftp.STAT, target)
        _good(await raw.call(sftp.STAT, target.rpartition("/")[0]))
        handle = _good(await raw.call(sftp.OPEN, part, WRITING, Raw(NO_ATTRIBUTES))).handle
        try:
            await _write(raw, handle, file)
            _good(await raw.call(sftp.CLOSE, handle))
            _good(await raw.call(sftp.SETSTAT, part, _times(file)))
            assert await _size(raw, sftp.STAT, part) == file.stat().st_size
            _good(await raw.call(sftp.EXTENDED, "posix-rename@openssh.com", part, target))
        except _RefusedError:
            await raw.call(sftp.REMOVE, part)
            raise
        assert await _size(raw, sftp.STAT, target) == file.stat().st_size

    async def _fetch(self, raw: RawSftp, source: str, file: Path) -> None:
        await _size(raw, sftp.STAT, source)
        handle = _good(await raw.call(sftp.OPEN, source, READING, Raw(NO_ATTRIBUTES))).handle
        await _size(raw, sftp.STAT, source)
        await _read(raw, handle, file)
        _good(await raw.call(sftp.CLOSE, handle))
