"""Uploads written in any order, with overlaps, shortened and lengthened: the transfer holds what the client ended with.

One real server for all examples; the model is a `bytearray` and which of its bytes were ever written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw_sftp as sftp
from house import House, general_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_sftp import Long, open_raw, size_attribute

from relay.vault import CHUNK_BYTES


@pytest.fixture(scope="module")
def served(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return one relay for all examples."""
    house = House.copy(prepared_home, tmp_path_factory.mktemp("rewriting") / "house", {})
    house.start()
    yield house
    house.close()


# Offsets and lengths around the edges of chunks and of WRITEs, where mistakes live.
edges = st.sampled_from([0, 1, 100, CHUNK_BYTES // 2, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES,
                         2 * CHUNK_BYTES + 7, 3 * CHUNK_BYTES])  # fmt: skip
offsets = st.one_of(edges, st.integers(0, 3 * CHUNK_BYTES))
lengths = st.one_of(st.sampled_from([0, 1, 100, 32_768, CHUNK_BYTES]), st.integers(0, CHUNK_BYTES))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, lengths),
        st.tuples(st.just("append"), st.just(0), lengths),
        st.tuples(st.just("size"), offsets, st.just(0)),
        st.tuples(st.just("sync"), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=12,
)


class Model:
    """What a file would hold, and where nothing was written."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.holes = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        """Write, lengthening the file by a hole where needed."""
        if data:
            self.resize(max(len(self.content), offset + len(data)))
            self.content[offset : offset + len(data)] = data
            self.holes[offset : offset + len(data)] = bytes(len(data))

    def resize(self, size: int) -> None:
        """Shorten, or lengthen by a hole."""
        more = size - len(self.content)
        self.content, self.holes = self.content[:size] + bytes(max(more, 0)), self.holes[:size] + b"\1" * max(more, 0)


def pattern(number: int, length: int) -> bytes:
    """Return bytes that differ from one WRITE to the next."""
    return bytes((number * 37 + at * 11) % 251 + 1 for at in range(256)) * (length // 256 + 1)


serials = iter(range(1_000_000))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, is_pipelined=st.booleans())
def test_a_transfer_holds_what_the_client_ended_with(
    served: House, steps: list[tuple[str, int, int]], *, is_pipelined: bool
) -> None:
    """Byte for byte; or, where a hole or nothing is left, or too much came ahead, it is refused and nothing is kept."""
    asyncio.run(rewrite(served, steps, is_pipelined=is_pipelined))


async def rewrite(house: House, steps: list[tuple[str, int, int]], *, is_pipelined: bool) -> None:
    """Play the steps, close, and compare."""
    model, name = Model(), general_name("txt", number=next(serials))
    async with house.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{name}")
        refused = ""
        numbers = []
        for number, (verb, offset, length) in enumerate(steps):
            at = len(model.content) if verb == "append" else offset
            if verb == "size":
                numbers.append(raw.ask(sftp.FSETSTAT, handle, size_attribute(offset)))
                model.resize(offset)
            elif verb == "sync":
                numbers.append(raw.ask(sftp.EXTENDED, "fsync@openssh.com", handle))
            else:
                data = pattern(number, length)[:length]
                numbers.append(raw.ask(sftp.WRITE, handle, Long(at), data))
                model.write(at, data)
            if not is_pipelined:
                reply = await raw.reply_to(numbers.pop())
                refused = refused or (reply.text if reply.code else "")
        for asked in numbers:
            reply = await raw.reply_to(asked)
            refused = refused or (reply.text if reply.code else "")
        closed = await raw.call(sftp.CLOSE, handle)
        if closed.code == sftp.OK:
            assert not any(model.holes)
            assert await raw.get(f"/send/{name}") == bytes(model.content)
            return
        # A hole that was too wide to be kept open is refused on the way already.
        expected = "content.empty" if not model.content else "upload.hole"
        assert closed.text.startswith(expected), closed.text
        assert not model.content or any(model.holes) or refused.startswith("upload.hole")
        assert (await raw.call(sftp.OPEN, f"/send/{name}", sftp.READING, sftp.Raw(sftp.NO_ATTRIBUTES))).code != sftp.OK


async def test_blocks_may_arrive_backwards(served: House) -> None:
    """Eight blocks of 32 KiB in reverse: kept, and in order."""
    name, content = general_name("txt", number=next(serials)), bytes(range(251)) * 1_044
    async with served.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{name}")
        for at in reversed(range(0, len(content), 32_768)):
            raw.ask(sftp.WRITE, handle, Long(at), content[at : at + 32_768])
        assert (await raw.call(sftp.CLOSE, handle)).code == sftp.OK
        assert await raw.get(f"/send/{name}") == content


async def test_rewriting_sealed_chunks_again_and_again_is_never_too_busy(served: House) -> None:
    """Forty rewrites of the first chunks of a long upload: each is taken, the last one stands."""
    name, content = general_name("txt", number=next(serials)), bytearray(b"x" * (4 * CHUNK_BYTES))
    async with served.dial() as connection, open_raw(connection) as raw:
        handle = await raw.open(f"/send/{name}")
        for at in range(0, len(content), CHUNK_BYTES):
            raw.ask(sftp.WRITE, handle, Long(at), bytes(content[at : at + CHUNK_BYTES]))
        for number in range(40):
            at, data = number % 3 * CHUNK_BYTES + CHUNK_BYTES - 5, b"%010d" % number
            assert (await raw.call(sftp.WRITE, handle, Long(at), data)).code == sftp.OK
            content[at : at + 10] = data
        assert (await raw.call(sftp.CLOSE, handle)).code == sftp.OK
        assert await raw.get(f"/send/{name}") == content
