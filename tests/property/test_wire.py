"""The codec against any bytes whatever, and against decoders that are not ours."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct

import asyncssh
import paramiko
import pytest
from asyncssh.packet import SSHPacket
from hypothesis import given
from hypothesis import strategies as st

from relay.sftp import wire
from relay.sftp.wire import Attributes, Framer, Init, NameEntry, Request, WireError

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
strings = st.binary(max_size=60)
REQUESTS = (*range(3, 21), 200)


def string(data: bytes) -> bytes:
    """Return a string as it lies on the wire."""
    return struct.pack(">I", len(data)) + data


def parse(packet: bytes) -> Init | Request | WireError:
    """Return what comes of *packet*, an error of the codec's own included and no other."""
    try:
        return wire.parse_packet(packet)
    except WireError as error:
        return error


@st.composite
def attributes(draw: st.DrawFn) -> tuple[bytes, Attributes]:
    """Return ATTRS as bytes, put together here, and what they say."""
    size = draw(st.none() | u64)
    owner = draw(st.none() | u64)
    mode = draw(st.none() | u32)
    times = draw(st.none() | st.tuples(u32, u32))
    extended = draw(st.none() | st.lists(st.tuples(strings, strings), max_size=3))
    flags, body = 0, b""
    if size is not None:
        flags, body = flags | 1, body + struct.pack(">Q", size)
    if owner is not None:
        flags, body = flags | 2, body + struct.pack(">Q", owner)
    if mode is not None:
        flags, body = flags | 4, body + struct.pack(">I", mode)
    if times is not None:
        flags, body = flags | 8, body + struct.pack(">II", *times)
    if extended is not None:
        flags, body = flags | 0x80000000, body + struct.pack(">I", len(extended))
        body += b"".join(string(name) + string(data) for name, data in extended)
    return struct.pack(">I", flags) + body, Attributes(size, mode, *(times or (None, None)))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(packet: bytes) -> None:
    """No other exception leaves the parser."""
    parse(packet)


@given(st.sampled_from(REQUESTS), u32, st.binary(max_size=80))
def test_any_body_of_a_known_type_is_a_request_or_names_its_id(kind: int, number: int, body: bytes) -> None:
    """A request that is cut short can still be answered."""
    found = parse(struct.pack(">BI", kind, number) + body)
    if isinstance(found, WireError):
        assert found.request_id == number
    else:
        assert isinstance(found, Request)
        assert (found.type, found.id) == (kind, number)


@given(st.integers(0, 255).filter(lambda kind: kind not in REQUESTS and kind != 1), u32, st.binary(max_size=40))
def test_an_unknown_type_keeps_its_id(kind: int, number: int, body: bytes) -> None:
    """The caller can refuse it."""
    assert parse(struct.pack(">BI", kind, number) + body) == Request(kind, number)


@given(attributes(), u32, st.tuples(strings, strings), u64, u32)
def test_every_request_says_what_was_put_into_it(
    attrs: tuple[bytes, Attributes], number: int, texts: tuple[bytes, bytes], offset: int, length: int
) -> None:
    """Requests put together here, bytes behind their last field included, come out with the same fields."""
    (packed, said), (one, two), behind = attrs, texts, b"left over"
    cases = {
        **{kind: (string(one), {"subject": one}) for kind in (4, 7, 8, 11, 12, 13, 15, 16, 17, 19)},
        **{kind: (string(one) + packed, {"subject": one, "attributes": said}) for kind in (9, 10, 14)},
        **{kind: (string(one) + string(two), {"subject": one, "target": two}) for kind in (18, 20)},
        3: (string(one) + struct.pack(">I", length) + packed, {"subject": one, "length": length, "attributes": said}),
        5: (string(one) + struct.pack(">QI", offset, length), {"subject": one, "offset": offset, "length": length}),
        6: (string(one) + struct.pack(">Q", offset) + string(two), {"subject": one, "offset": offset, "data": two}),
    }
    assert {*cases, 200} == set(REQUESTS)
    for kind, (body, fields) in cases.items():
        head = struct.pack(">BI", kind, number)
        assert parse(head + body + behind) == Request(kind, number, **fields)  # type: ignore[arg-type]
        for end in range(len(body)):
            cut = parse(head + body[:end])
            assert isinstance(cut, WireError)
            assert cut.request_id == number
    extension = wire.parse_packet(struct.pack(">BI", 200, number) + string(one) + string(two) + string(one))
    assert isinstance(extension, Request)
    assert (extension.subject, wire.extension_handle(extension)) == (one, two)
    assert wire.extension_paths(extension) == (two, one)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.data())
def test_framing_does_not_depend_on_how_the_stream_was_cut(packets: list[bytes], data: st.DataObject) -> None:
    """The same packets come out of any split, each as soon as it is whole."""
    stream = b"".join(string(packet) for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    framer, found, fed = Framer(), [], 0
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        framer.feed(stream[start:end])
        fed += end - start
        while (packet := framer.next_packet()) is not None:
            found.append(packet)
        assert framer.held_bytes == fed - sum(4 + len(packet) for packet in found)
    assert found == packets
    assert framer.held_bytes == 0


@given(
    sizes=st.lists(st.one_of(st.integers(1, 60), st.integers(32_000, wire.PACKET_BYTES_MOST)), max_size=6),
    steps=st.lists(st.tuples(st.integers(1, 300_000), st.integers(0, 70_000)), min_size=1, max_size=8),
)
def test_what_is_written_into_its_room_is_framed_as_what_is_fed(sizes: list[int], steps: list[tuple[int, int]]) -> None:
    """Large packets too, in rooms larger than what comes to stand in them, whichever piece ends where."""
    packets = [bytes([number % 251]) * size for number, size in enumerate(sizes, 1)]
    stream = memoryview(b"".join(map(string, packets)))
    framer, found = Framer(), []
    for step, unused in itertools.cycle(steps):
        framer.room(len(stream[:step]) + unused)[: len(stream[:step])] = stream[:step]
        framer.filled(len(stream[:step]))
        stream = stream[step:]
        while (packet := framer.next_packet()) is not None:
            found.append(bytes(packet))
        if not stream:
            break
    assert found == packets
    assert framer.held_bytes == 0


@given(at=st.integers(0, 2**63), size=st.integers(1, 200_000), behind=st.binary(max_size=40))
def test_a_write_that_has_to_wait_keeps_its_data(at: int, size: int, behind: bytes) -> None:
    """A large one is read where it lies; `keep_request` makes it stay what it is when more comes to lie there."""
    data = os.urandom(size)
    packet = struct.pack(">BI", 6, 9) + string(b"h") + struct.pack(">Q", at) + string(data) + behind
    framer = Framer()
    framer.feed(string(packet))
    found = framer.next_packet()
    assert found is not None
    request = wire.parse_packet(found)
    assert request == Request(6, 9, b"h", offset=at, data=memoryview(data))
    assert isinstance(request, Request)
    kept = wire.keep_request(request)
    for _ in range(3):
        framer.feed(bytes(len(packet) + 4))
        with contextlib.suppress(WireError):
            framer.next_packet()
    assert kept == Request(6, 9, b"h", offset=at, data=memoryview(data))


@given(st.binary(max_size=40), st.one_of(st.just(0), st.integers(wire.PACKET_BYTES_MOST + 1, 2**32 - 1)))
def test_an_impossible_length_is_told_before_anything_is_held(start: bytes, length: int) -> None:
    """A packet of nothing or of too much is an error as soon as its length is there."""
    framer = Framer()
    framer.feed(string(start + b"x") + struct.pack(">I", length))
    assert framer.next_packet() == start + b"x"
    with pytest.raises(WireError) as caught:
        framer.next_packet()
    assert caught.value.request_id is None


@given(st.binary(max_size=300))
def test_any_stream_is_packets_or_a_wire_error(stream: bytes) -> None:
    """The framer never raises anything else and never gives out an empty packet."""
    framer = Framer()
    framer.feed(stream)
    try:
        while (packet := framer.next_packet()) is not None:
            assert packet
            parse(packet)
    except WireError:
        pass


# --- replies, as others read them --------------------------------------------------------------------------------


def body_of(packet: bytes, kind: int, number: int) -> bytes:
    """Check length, type and id of a reply; return the rest."""
    assert struct.unpack_from(">IBI", packet) == (len(packet) - 4, kind, number)
    return packet[9:]


@given(u32, st.binary(max_size=300), st.text(max_size=40), u32)
def test_asyncssh_and_paramiko_read_plain_replies_as_meant(number: int, data: bytes, text: str, code: int) -> None:
    """STATUS, HANDLE and DATA."""
    for packed, kind in ((wire.pack_data(number, memoryview(data)), 103), (wire.pack_handle(number, data), 102)):
        body = body_of(packed, kind, number)
        assert SSHPacket(body).get_string() == data
        assert paramiko.Message(body).get_string() == data
    text = text.encode(errors="replace").decode()
    status = paramiko.Message(body_of(wire.pack_status(number, code, text), 101, number))
    assert (status.get_int(), status.get_text(), status.get_string()) == (code, text, b"")
    assert status.get_remainder() == b""


# asyncssh keeps the permissions and drops the type of the file.
modes = st.integers(0, 0o7777)
plain = st.builds(Attributes, u64, modes, u32, u32)
partial = st.one_of(
    plain,
    st.builds(Attributes, st.none() | u64, st.none() | modes, st.none(), st.none()),
    st.builds(Attributes, st.none() | u64, st.none() | modes, u32, u32),
)


@given(strings, strings, st.integers(0, 2**64 - 1), u32, u32)
def test_a_file_of_a_listing_is_an_entry_like_any_other(
    name: bytes, line: bytes, size: int, mode: int, mtime: int
) -> None:
    """The short way of packing what is all known gives the same bytes as the long one."""
    entry = NameEntry(name, line, Attributes(size, mode, mtime, mtime))
    assert wire.pack_file(name, line, size, mode, mtime) == wire.pack_entry(entry)


@given(u32, st.lists(st.tuples(strings, strings, partial), max_size=6))
def test_asyncssh_and_paramiko_read_names_and_attributes_as_meant(
    number: int, entries: list[tuple[bytes, bytes, Attributes]]
) -> None:
    """NAME and ATTRS, whatever fields are given."""
    packed = [wire.pack_entry(NameEntry(*entry)) for entry in entries]
    body = body_of(wire.pack_names(number, packed), 104, number)
    ours, theirs = SSHPacket(body), paramiko.Message(body)
    assert ours.get_uint32() == theirs.get_int() == len(entries)
    for name, long_name, said in entries:
        found = asyncssh.SFTPName.decode(ours, 3)
        assert (found.filename, found.longname) == (name, long_name)
        assert (found.attrs.size, found.attrs.permissions, found.attrs.mtime) == (
            said.size,
            said.permissions,
            said.mtime,
        )
        assert (theirs.get_string(), theirs.get_string()) == (name, long_name)
        other = paramiko.SFTPAttributes._from_msg(theirs)
        assert (other.st_size, other.st_mode, other.st_mtime) == (said.size, said.permissions, said.mtime)
    ours.check_end()
    assert theirs.get_remainder() == b""
    for _, _, said in entries:
        attrs = SSHPacket(body_of(wire.pack_attrs(number, said), 105, number))
        assert asyncssh.SFTPAttrs.decode(attrs, 3).size == said.size
        attrs.check_end()


@given(u32, st.integers(1, 10_000))
def test_the_limits_are_those_that_are_kept(number: int, handles: int) -> None:
    """limits@openssh.com: packet, read, write, handles."""
    body = body_of(wire.pack_limits(number, handles), 201, number)
    assert struct.unpack(">QQQQ", body) == (wire.PACKET_BYTES_MOST, 261_120, 261_120, handles)


def test_version_says_3_and_its_extensions() -> None:
    """VERSION has no id."""
    packet = wire.pack_version([(b"a@b", b"1"), (b"c", b"")])
    assert packet == struct.pack(">IBI", 5 + 12 + 9, 2, 3) + string(b"a@b") + string(b"1") + string(b"c") + string(b"")
    assert parse(b"\1\0\0\0\6more") == Init(6)
