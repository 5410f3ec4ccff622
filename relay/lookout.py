"""Lookout: where the server can be asked how it does, by monitoring and by the operator.

A small HTTP server in a worker's own loop.  It asks all workers and tells of them together, so that an answer says
that every loop turns:

    /metrics   Prometheus's text format
    /healthz   200 as long as every worker that is there answers; how late they are
    /readyz    200 while files can be taken: the store can be read and written, the keys are there, it is not ending
    /state     JSON for ``relay top``; on the socket alone, because it names offices

It listens on a socket beside the store, which only the relay's own user can open, and on a port of this machine where
``[metrics]`` says so.  It reads one request of a bounded size, within a bounded time, from a bounded number of callers
at once, answers and hangs up; it takes nothing but GET.  It has no password, and so it never listens to a network.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from relay import journal
from relay.census import Gauges, gather
from relay.config import Config
from relay.crew import Crew
from relay.errors import ConfigError, Deferred
from relay.exposition import Exposition
from relay.journal import Journal
from relay.keyring import load_keyring
from relay.ledger import Ledger
from relay.listening import Entrances

_REQUEST_BYTES = 8192
_REQUEST_SECONDS = 5.0
_CALLERS_MOST = 16
# Counting what waits reads an index through; looking at the disk is free beside it.
_LOOK_SECONDS = 60.0
# A probe writes a page: whoever asks more often gets the last answer.
_PROBE_SECONDS = 5.0
_TEXT = "text/plain; charset=utf-8"
# What prometheus_client's own server says.
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    body: bytes
    type: str = _TEXT


class Lookout:
    """One a process, at work in the one that leads: `open` makes it answer and `close` ends that."""

    def __init__(self, config: Config, ledger: Ledger, exposition: Exposition, crew: Crew, line: Journal) -> None:
        """Prepare; nothing listens yet."""
        self._config = config
        self._ledger = ledger
        self._exposition = exposition
        self._crew = crew
        self._line = line
        self._seen = Gauges()
        self._callers: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._probed: tuple[float, str] | None = None
        self._probing = asyncio.Lock()
        self.is_draining = False

    async def open(self, entrances: Entrances) -> None:
        """Answer at the sockets of *entrances*."""
        if entrances.metrics is not None:
            await self._listen(entrances.metrics, is_operator=False)
        if entrances.watch is not None:
            await self._listen(entrances.watch, is_operator=True)

    async def _listen(self, door: socket.socket, *, is_operator: bool) -> None:
        answer = self._answer_operator if is_operator else self._answer_anybody
        start = asyncio.start_unix_server if door.family == socket.AF_UNIX else asyncio.start_server
        # A copy, because the server closes what it is given; the socket is for whoever comes after us.
        self._servers.append(await start(answer, sock=door.dup(), limit=_REQUEST_BYTES))

    async def close(self) -> None:
        """Hang up on everybody."""
        for server in self._servers:
            server.close()
        for caller in self._callers:
            caller.cancel()
        if self._callers:
            await asyncio.wait(self._callers)
        self._servers.clear()

    async def look(self) -> None:
        """Count what waits and look at the disk, every minute; never returns."""
        while True:
            try:
                self._seen = await self._look()
            except (Deferred, OSError):
                # The store's trouble is told elsewhere; *looked_at* says how old the figures are.
                pass
            except Exception as error:  # noqa: BLE001 - one bad look must not end the looking
                journal.unexpected_error(self._line, reference="lookout", exception=error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> Gauges:
        now = datetime.now(UTC)
        backlog = await self._ledger.measure_backlog(now=now)
        oldest = now if backlog.oldest_at is None else backlog.oldest_at
        path = self._config.store.path
        return replace(
            self._seen,
            waiting=backlog.counts,
            oldest_waiting_seconds=max(0.0, (now - oldest).total_seconds()),
            store_bytes=_size_of(path),
            log_bytes=_size_of(path.with_name(f"{path.name}-wal")),
            free_bytes=shutil.disk_usage(path.parent).free,
            looked_at=time.time(),
        )

    # --- answering -----------------------------------------------------------------------------------------------

    async def _answer_anybody(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer_caller(reader, writer, is_operator=False)

    async def _answer_operator(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer_caller(reader, writer, is_operator=True)

    async def _answer_caller(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_operator: bool
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._callers) >= _CALLERS_MOST:
            writer.transport.abort()
            return
        self._callers.add(task)
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_pack(await self._answer(head.split(b"\r\n", 1)[0], is_operator=is_operator)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who asks for nothing gets no answer
        except Exception as error:  # noqa: BLE001 - the one wrapper at this edge
            journal.unexpected_error(self._line, reference="lookout", exception=error)
        finally:
            self._callers.discard(task)
            writer.transport.abort()

    async def _answer(self, line: bytes, *, is_operator: bool) -> _Answer:
        match line.split(b" "):
            case [b"GET", target, version] if version.startswith(b"HTTP/1."):
                return await self._tell(target.partition(b"?")[0], is_operator=is_operator)
            case [_, _, version] if version.startswith(b"HTTP/"):
                return _Answer("405 Method Not Allowed", b"only GET\n")
        return _Answer("400 Bad Request", b"no HTTP\n")

    async def _tell(self, path: bytes, *, is_operator: bool) -> _Answer:
        match path:
            case b"/metrics":
                await self._refresh()
                return _Answer("200 OK", self._exposition.render(), _METRICS)
            case b"/healthz":
                await self._refresh()
                return self._tell_health()
            case b"/readyz":
                fault = await self._find_fault()
                return (
                    _Answer("503 Service Unavailable", f"{fault}\n".encode())
                    if fault
                    else _Answer("200 OK", b"ready\n")
                )
            case b"/state" if is_operator:
                await self._refresh()
                state = self._exposition.snapshot()
                return _Answer("200 OK", json.dumps(state, ensure_ascii=False).encode(), "application/json")
        return _Answer("404 Not Found", b"there are /metrics, /healthz and /readyz\n")

    def _tell_health(self) -> _Answer:
        census, size = self._exposition.census, self._crew.size
        if census.silent:
            silent = ", ".join(str(index) for index in census.silent)
            return _Answer("503 Service Unavailable", f"does not answer: worker {silent} of {size}\n".encode())
        told = f"alive, {self._exposition.gauges.lag_seconds:.3f} s late"
        if size > 1:
            told += f", {len(census.workers)} of {size} workers"
        return _Answer("200 OK", f"{told}\n".encode())

    async def _refresh(self) -> None:
        """Ask all workers, and put what they say beside what was seen of the store."""
        self._exposition.census = census = await gather(self._crew)
        now, seen = census.total.gauges, self._seen
        self._exposition.deaths = self._crew.deaths
        self._exposition.gauges = replace(
            now,
            is_draining=self.is_draining,
            waiting=seen.waiting,
            oldest_waiting_seconds=seen.oldest_waiting_seconds,
            store_bytes=seen.store_bytes,
            log_bytes=seen.log_bytes,
            free_bytes=seen.free_bytes,
            looked_at=seen.looked_at,
        )

    async def _find_fault(self) -> str:
        """Return what keeps the server from taking files, '' where nothing does."""
        if self.is_draining:
            return "the relay is ending"
        # Who waits here all wait for the one probe that is under way, and share what it says.
        async with self._probing:
            if self._probed is None or time.monotonic() - self._probed[0] >= _PROBE_SECONDS:
                fault = await self._probe()
                self._probed = time.monotonic(), fault
            return self._probed[1]

    async def _probe(self) -> str:
        try:
            await self._ledger.probe()
        except Deferred as deferred:
            return f"the store cannot be used: {deferred.detail or deferred.code}"
        try:
            await asyncio.to_thread(load_keyring, self._config.keys_path)
        except ConfigError as error:
            return f"the keys cannot be used: {error}"
        return ""


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _pack(answer: _Answer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status}\r\nContent-Type: {answer.type}\r\nContent-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + answer.body
