"""A long cable on one machine: ``python -m rig.delay PORT SECONDS`` passes every byte on after half of the round trip.

It listens on a free port of its own, which it prints, and hands what comes to PORT.  Nothing is lost or reordered; what TCP
itself does on a long way (its handshake, a slow start, losses) is not played.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from rig.servers import HOST, SCRIPTS

_PIECE_BYTES = 256 * 1024
# Pieces on their way in one direction.
_PIECES_MOST = 1024


@contextmanager
def delayed(port: int, round_trip_seconds: float) -> Iterator[int]:
    """Yield a port that leads to *port*, a round trip away; *port* itself where there is no way."""
    if round_trip_seconds == 0:
        yield port
        return
    command = [sys.executable, "-m", "rig.delay", str(port), str(round_trip_seconds / 2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SCRIPTS) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on what *reader* has, each piece when its time has come; a half-closed side stays half-closed."""
    loop = asyncio.get_running_loop()
    pieces = asyncio.Queue[tuple[float, bytes]](_PIECES_MOST)

    async def take_in() -> None:
        data = b"begin"
        while data:
            try:
                data = await reader.read(_PIECE_BYTES)
            except OSError:
                data = b""
            await pieces.put((loop.time() + seconds, data))

    async def give_out() -> None:
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    await asyncio.gather(take_in(), give_out(), return_exceptions=True)


async def _main(port: int, seconds: float) -> None:
    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, port, limit=_PIECE_BYTES)
        ways = (_carry(reader, far_writer, seconds), _carry(far_reader, writer, seconds))
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(join, HOST, 0, limit=_PIECE_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), float(sys.argv[2])))
