"""The shorter way of channel data: what is said on the wire is asyncssh's, packet by packet."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
from typing import Any

import asyncssh
import pytest
from asyncssh import encryption, public_key, saslprep
from asyncssh.channel import SSHChannel, SSHServerChannel
from asyncssh.connection import SSHServerConnection
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_GLOBAL_REQUEST
from asyncssh.crypto.chacha import ChachaCipher
from asyncssh.crypto.cipher import GCMCipher
from asyncssh.encryption import ChachaEncryption, Encryption, GCMEncryption
from asyncssh.logging import SSHLogger
from asyncssh.packet import Boolean, SSHPacket, String, UInt32
from edge_pair import PATIENCE_SECONDS, Placed, Seen, connected, open_raw_channel, until
from hypothesis import given
from hypothesis import strategies as st

from relay import ciphers, edge, packets
from relay.offered import parse_certificate

KEPT = ["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com"]
CTR = "aes256-ctr"
MEGABYTE = 1 << 20


def pair(name: str, key: bytes, iv: bytes) -> tuple[ciphers.KeptPackets, ciphers.KeptPackets, Encryption, Encryption]:
    """Return our cipher for both directions, and asyncssh's own for both."""
    if name.startswith("chacha"):
        own = [ChachaEncryption(ChachaCipher(key)) for _ in range(2)]
        return ciphers.KeptChacha(key), ciphers.KeptChacha(key), own[0], own[1]
    bare = key[:32] if "256" in name else key[:16]
    cipher = name.removesuffix("@openssh.com")
    theirs = [GCMEncryption(GCMCipher(cipher, bare, iv)) for _ in range(2)]
    return ciphers.KeptGcm(bare, iv), ciphers.KeptGcm(bare, iv), theirs[0], theirs[1]


@pytest.mark.parametrize("name", KEPT)
@given(
    key=st.binary(min_size=64, max_size=64),
    iv=st.binary(min_size=12, max_size=12),
    plains=st.lists(st.binary(min_size=8, max_size=300), min_size=1, max_size=4),
    first=st.sampled_from([0, 7, 0xFFFFFFFE]),
)
def test_kept_ciphers_say_the_same_as_asyncssh_own(
    name: str, key: bytes, iv: bytes, plains: list[bytes], first: int
) -> None:
    """Packet by packet, in both directions, under one key and changing nonces."""
    sealing, opening, own_sealing, own_opening = pair(name, key, iv)
    for number, plain in enumerate(plains, first):
        header = UInt32(len(plain))
        sealed, tag = own_sealing.encrypt_packet(number, header, plain)
        assert sealing.encrypt_packet(number, header, plain) == (sealed, tag)
        for cipher in (opening, own_opening):
            assert cipher.decrypt_header(number, sealed[:16], 4) == (sealed[:16], header)
            assert cipher.decrypt_packet(number, sealed[:16], sealed[16:], 4, tag) == plain


@pytest.mark.parametrize("name", KEPT)
@given(plain=st.binary(min_size=8, max_size=300), place=st.integers(0), bit=st.integers(0, 7))
def test_a_packet_with_one_bit_changed_is_none(name: str, plain: bytes, place: int, bit: int) -> None:
    """Wherever the bit is, the length included: nothing of such a packet is given out."""
    sealing, opening, _, _ = pair(name, bytes(range(64)), bytes(12))
    whole = bytearray(b"".join(sealing.encrypt_packet(3, UInt32(len(plain)), plain)))
    whole[place % len(whole)] ^= 1 << bit
    assert opening.open(3, memoryview(whole)) is None


@pytest.mark.parametrize("name", KEPT)
def test_a_packet_that_was_opened_ahead_is_opened_once(name: str) -> None:
    """What was opened to look at it is what asyncssh gets, and the next packet opens too: a counter is not used up."""
    sealing, opening, _, _ = pair(name, os.urandom(64), os.urandom(12))
    sealed = [sealing.encrypt_packet(number, UInt32(16), bytes(16)) for number in (1, 2)]
    for number, (body, tag) in enumerate(sealed, 1):
        assert opening.open_ahead(number, body + tag) == bytes(16)
        assert opening.open_ahead(number, body + tag) == bytes(16)
        assert opening.decrypt_packet(number, body[:8], body[8:], 4, tag) == bytes(16)


def test_asyncssh_takes_its_ciphers_from_where_ours_are_put() -> None:
    """The table that a connection looks its ciphers up in is the one that `keep_ciphers` changes."""
    ciphers.keep_ciphers()
    for name in KEPT:
        key, iv, *_ = encryption.get_encryption_params(name.encode())
        assert isinstance(encryption.get_encryption(name.encode(), bytes(key), bytes(iv)), ciphers.KeptPackets)


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (SSHServerConnection, "_recv_pkthdr", "self"),
        (SSHServerConnection, "_recv_packet", "self"),
        (SSHServerConnection, "send_packet", "self pkttype args handler"),
        (SSHServerConnection, "_send", "self data"),
        (SSHServerChannel, "_flush_send_buf", "self"),
        (SSHServerChannel, "_deliver_data", "self data datatype"),
        (Encryption, "encrypt_packet", "self seq header packet"),
        (Encryption, "decrypt_header", "self seq first_block header_len"),
        (Encryption, "decrypt_packet", "self seq first rest header_len mac"),
    ],
)
def test_methods_that_are_taken_hold_of_have_their_parameters(owner: Any, name: str, parameters: str) -> None:
    """A method that asyncssh renames or calls otherwise is noticed here, not in production."""
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters.split()


def test_what_asyncssh_does_with_data_is_what_is_left_out() -> None:
    """The three methods that are passed by do nothing else than `PacketLane` does, by the names that they use."""
    assert set(SSHChannel._process_data.__code__.co_names) == {
        "_recv_state", "ProtocolError", "get_string", "check_end", "len", "_recv_window", "logger", "debug2",
        "_accept_data",
    }  # fmt: skip
    assert set(SSHChannel._accept_data.__code__.co_names) == {
        "_send_state", "_recv_window", "len", "_recv_paused", "_recv_buf", "append", "_deliver_data",
    }  # fmt: skip
    assert set(SSHChannel._process_window_adjust.__code__.co_names) == {
        "_recv_state", "ProtocolError", "get_uint32", "check_end", "_send_window", "logger", "debug2", "_flush_send_buf",
    }  # fmt: skip


# --- over a connection ---------------------------------------------------------------------------------------------


async def open_session(seen: Seen, client: Any) -> tuple[Any, bytearray]:
    """Return the client's channel with SFTP on it, and what arrives there."""
    channel = await open_raw_channel(client)
    assert await channel._make_request(b"subsystem", String("sftp"))
    session = seen.sessions[0]
    await session.has_started.wait()
    receive = session.data_received

    def receive_and_take_more(data: bytes, datatype: Any) -> None:
        receive(data, datatype)
        edge.return_window(session.channel, held_bytes=0)

    session.data_received = receive_and_take_more  # type: ignore[method-assign]
    arrived = bytearray()
    channel._session.data_received = lambda data, _: arrived.extend(data)
    channel._recv_paused = False
    return channel, arrived


def count_slow(channel: Any) -> list[int]:
    """Return a list that grows with each piece of data that goes asyncssh's own way from now on."""
    taken: list[int] = []
    accept = channel._accept_data

    def count(data: bytes, datatype: int | None = None) -> None:
        taken.append(len(data))
        accept(data, datatype)

    channel._accept_data = count
    return taken


@pytest.mark.parametrize("cipher", [*KEPT, CTR])
async def test_data_arrives_byte_for_byte_in_both_directions(cipher: str) -> None:
    """Pieces of every size, through windows that are used up, under every cipher, and only then by asyncssh's own way."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        channel, arrived = await open_session(seen, client)
        session = seen.sessions[0]
        slow = count_slow(session.channel)
        chance = random.Random(5)
        said = [chance.randbytes(size) for size in (1, 5, 300, 32767, 32768, 32769, 261_120, 3 * MEGABYTE)]
        for piece in said:
            channel.write(piece)
            session.channel.write(piece)
        whole = b"".join(said)
        await until(lambda: (len(session.received), len(arrived)) == (len(whole), len(whole)))
        assert session.received == whole
        assert arrived == whole
        assert sum(slow) == (len(whole) if cipher == CTR else 0)


@pytest.mark.parametrize("cipher", KEPT)
async def test_data_is_deciphered_to_where_its_session_wants_it(cipher: str) -> None:
    """Short and long packets, cut anywhere by the network, stand in its place in the order in which they were sent."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        seen.make_session = Placed
        channel, _ = await open_session(seen, client)
        session = seen.sessions[0]
        assert isinstance(session, Placed)
        slow = count_slow(session.channel)
        chance = random.Random(8)
        said = [chance.randbytes(size) for size in (1, 5, 1_000, 1_100, 32_768, 40, 261_149, 3 * MEGABYTE, 7)]
        for piece in said:
            channel.write(piece)
        await until(lambda: len(session.received) == sum(map(len, said)))
        assert session.received == b"".join(said)
        assert sum(session.pieces) == len(session.received)
        assert slow == []


@pytest.mark.parametrize("cipher", [*KEPT, CTR])
async def test_data_behind_a_head_leaves_as_if_both_were_one(cipher: str) -> None:
    """Through windows and packets of any size, during a key exchange too, what the client gets is head and data."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        channel, arrived = await open_session(seen, client)
        ours = seen.sessions[0].channel
        sizes = count_slow(channel)
        chance, said = random.Random(9), bytearray()
        is_there = lambda: len(arrived) == len(said)  # noqa: E731 - asked again and again
        for window, packet in ((1 << 21, 32_768), (50, 7), (13, 13), (14, 1_000), (5_000, 300), (1 << 21, 40_000)):
            for size in (1, 1_000, 32_755, 261_120) if packet > 1_000 else (1, 1_000):
                ours._send_window, ours._send_pktsize = window, packet
                head, data = chance.randbytes(13), chance.randbytes(size)
                packets.write_data(ours, head, memoryview(data))
                said += head + data
                client.send_packet(93, UInt32(0) + UInt32(len(data)))
                await until(is_there)
        assert arrived == said
        assert max(sizes) <= 40_000


@pytest.mark.parametrize("cipher", KEPT)
async def test_nothing_is_lost_while_both_sides_exchange_keys_again_and_again(cipher: str) -> None:
    """With new keys every 256 KiB from either side, and data on the way meanwhile, every byte arrives in order."""
    options = {"rekey_bytes": 256 * 1024, "encryption_algs": [cipher]}
    async with connected(**options) as (seen, client):
        seen.conn._rekey_bytes = 256 * 1024
        channel, arrived = await open_session(seen, client)
        session, whole = seen.sessions[0], random.Random(6).randbytes(2 * MEGABYTE)
        first = seen.conn._send_encryption
        for start in range(0, len(whole), 50_000):
            channel.write(whole[start : start + 50_000])
            session.channel.write(whole[start : start + 50_000])
            await asyncio.sleep(0)
        await until(lambda: (len(session.received), len(arrived)) == (len(whole), len(whole)))
        assert session.received == whole
        assert arrived == whole
        assert seen.conn._send_encryption is not first


@pytest.mark.parametrize("cipher", KEPT)
async def test_packets_sealed_before_one_that_fails_still_leave(cipher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random source that fails at the third of eight packets leaves no gap, and what it kept back follows later."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        _, arrived = await open_session(seen, client)
        session, said = seen.sessions[0], random.Random(7).randbytes(8 * 32_768)
        draw, drawn = os.urandom, [0]

        def draw_twice(length: int) -> bytes:
            drawn[0] += 1
            if drawn[0] > 2:
                raise OSError("no random numbers")
            return draw(length)

        with monkeypatch.context() as patched:
            patched.setattr(packets.os, "urandom", draw_twice)
            with pytest.raises(OSError, match="no random"):
                session.channel.write(said)
        await until(lambda: len(arrived) == 2 * 32_768)
        session.channel.write(b"the end")
        await until(lambda: len(arrived) == len(said) + 7)
        assert arrived == said + b"the end"


@pytest.mark.parametrize("cipher", KEPT)
async def test_packets_may_arrive_in_pieces_of_any_size(cipher: str) -> None:
    """A byte at a time, or two packets and a half: what is whole is taken, and the rest waits."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        channel, _ = await open_session(seen, client)
        said = b""
        written, client._transport = record(client._transport)
        for size in (1, 40, 700, 3):
            said += (piece := os.urandom(size))
            channel.write(piece)
        stream = b"".join(written)
        for step in (1, 100, len(stream)):
            taken, stream = stream[: 40 * step], stream[40 * step :]
            for start in range(0, len(taken), step):
                seen.conn.data_received(taken[start : start + step])
        seen.conn.data_received(stream)
        assert seen.sessions[0].received == said


@pytest.mark.parametrize("cipher", KEPT)
async def test_a_forged_packet_ends_the_connection_and_what_came_before_it_counts(cipher: str) -> None:
    """Of three packets of which the second was changed on its way, the first alone is handed over."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        channel, _ = await open_session(seen, client)
        written, client._transport = record(client._transport)
        for word in (b"first", b"second", b"third"):
            channel.write(word)
        changed = bytearray(b"".join(written))
        changed[len(b"".join(written)) // 2] ^= 1
        seen.conn.data_received(bytes(changed))
        await asyncio.wait_for(seen.lost.wait(), PATIENCE_SECONDS)
        assert seen.sessions[0].received == b"first"
        assert isinstance(seen.lost_with, asyncssh.MACError)


async def test_data_that_is_not_whole_or_too_much_is_refused_by_asyncssh() -> None:
    """Lengths that do not fit, channels that are not there and more than the window are what they always were."""
    crimes = [
        (UInt32(0) + UInt32(3) + b"four", "Unexpected data at end of packet"),
        (UInt32(0) + UInt32(5) + b"four", "Incomplete packet"),
        (UInt32(0), "Incomplete packet"),
        (UInt32(7) + String(b"four"), "Invalid channel number 7 received"),
        (UInt32(0) + String(bytes(20_000)), "Window exceeded"),
    ]
    for payload, sentence in crimes:
        async with connected() as (seen, client):
            await open_session(seen, client)
            seen.sessions[0].channel._recv_window = 10_000
            client.send_packet(MSG_CHANNEL_DATA, payload)
            await asyncio.wait_for(seen.lost.wait(), PATIENCE_SECONDS)
            assert sentence in str(seen.lost_with)
            assert seen.sessions[0].received == b""


async def test_no_more_is_sent_than_the_client_has_room_for() -> None:
    """What does not fit its window waits, in packets no larger than it takes, until it opens the window again."""
    async with connected() as (seen, client):
        channel, arrived = await open_session(seen, client)
        ours = seen.sessions[0].channel
        sizes = count_slow(channel)
        ours._send_window, ours._send_pktsize = 1000, 300
        ours.write(bytes(1500))
        assert (ours._send_window, ours.get_write_buffer_size()) == (0, 500)
        await until(lambda: len(arrived) == 1000)
        client.send_packet(93, UInt32(0) + UInt32(600))
        await until(lambda: len(arrived) == 1500)
        assert sizes == [300, 300, 300, 100, 300, 200]
        assert ours._send_window == 100


def count_asyncssh_packets(conn: Any) -> list[int]:
    """Return a list that grows with the type of each packet that asyncssh itself takes of a channel from now on."""
    taken: list[int] = []
    for number, channel in conn._channels.items():
        process = channel.process_packet

        def note(kind: int, number: int, packet: Any, process: Any = process) -> Any:
            taken.append(kind)
            return process(kind, number, packet)

        conn._channels[number].process_packet = note
    return taken


@pytest.mark.parametrize("cipher", [*KEPT, CTR])
async def test_room_for_more_is_taken_with_the_data_around_it(cipher: str) -> None:
    """Of data and windows in one piece the session gets all data first, then what waited leaves into both windows."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        channel, arrived = await open_session(seen, client)
        session = seen.sessions[0]
        ours = session.channel
        taken = count_asyncssh_packets(seen.conn)
        ours._send_window = 0
        ours.write(b"reply" * 100)
        packets.PacketLane(client)
        transport = client._transport
        written, client._transport = record(transport)
        client.send_packet(93, UInt32(0) + UInt32(200))
        channel.write(b"request")
        client.send_packet(93, UInt32(0) + UInt32(100))
        channel.write(b"another")
        client._transport = transport
        seen.conn.data_received(b"".join(written))
        assert session.received == b"requestanother"
        assert (ours._send_window, ours.get_write_buffer_size()) == (0, 200)
        await until(lambda: len(arrived) == 300)
        assert taken == ([93, 94, 93, 94] if cipher == CTR else [])


async def test_room_that_is_not_whole_or_for_nobody_is_refused_by_asyncssh() -> None:
    """Whatever is wrong with a packet that gives room, its own words end the connection, and nothing leaves for it."""
    crimes = [
        (UInt32(0) + UInt32(100) + b"more", "Unexpected data at end of packet"),
        (UInt32(0) + b"100", "Incomplete packet"),
        (UInt32(7) + UInt32(100), "Invalid channel number 7 received"),
    ]
    for payload, sentence in crimes:
        async with connected() as (seen, client):
            await open_session(seen, client)
            ours = seen.sessions[0].channel
            ours._send_window = 0
            ours.write(b"reply")
            client.send_packet(93, payload)
            await asyncio.wait_for(seen.lost.wait(), PATIENCE_SECONDS)
            assert sentence in str(seen.lost_with)
            assert ours._send_window == 0


async def test_a_reply_is_one_packet() -> None:
    """By itself asyncssh sends a MSG_IGNORE in front of every packet; here a packet is a packet."""
    async with connected() as (seen, client):
        channel, _ = await open_session(seen, client)
        before = seen.conn._send_seq
        seen.sessions[0].channel.write(b"reply")
        seen.conn.send_packet(MSG_GLOBAL_REQUEST, String("nothing@example"), Boolean(False))
        assert seen.conn._send_seq - before == 2
        theirs = client._send_seq
        channel.write(b"request")
        assert client._send_seq - theirs == 2


def record(transport: Any) -> tuple[list[bytes], Any]:
    """Return what is written from now on, and a transport that keeps it instead of sending it."""
    written: list[bytes] = []

    class Recording:
        def write(self, data: bytes) -> None:
            written.append(bytes(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

    return written, Recording()


@pytest.mark.parametrize("cipher", [*KEPT, CTR])
async def test_long_input_with_another_packet_in_its_middle_arrives_whole(cipher: str) -> None:
    """Of 200 KB in one piece the data is taken as it is, the request among it by asyncssh, and nothing changes its place."""
    async with connected(encryption_algs=[cipher]) as (seen, client):
        channel, _ = await open_session(seen, client)
        session, said = seen.sessions[0], os.urandom(200_000)
        heard: list[int] = []
        pieces: list[int] = []
        receive = session.data_received

        def note(data: bytes, datatype: int | None) -> None:
            pieces.append(len(data))
            receive(data, datatype)

        session.data_received = note  # type: ignore[method-assign]
        seen.conn._packet_handlers = {
            **seen.conn._packet_handlers,
            MSG_GLOBAL_REQUEST: lambda *_: heard.append(len(session.received)),
        }
        # As OpenSSH's client writes: without asyncssh's MSG_IGNORE in front of each packet.
        packets.PacketLane(client)
        written, client._transport = record(client._transport)
        channel.write(said[:100_000])
        client.send_packet(MSG_GLOBAL_REQUEST, String("nothing@example"), Boolean(False))
        channel.write(said[100_000:])
        slow = count_slow(session.channel)
        seen.conn.data_received(b"".join(written))
        assert session.received == said
        assert heard == [100_000]
        assert pieces[0] == (32_768 if cipher == CTR else 100_000)
        assert sum(slow) == (len(said) if cipher == CTR else 0)


# --- silence -------------------------------------------------------------------------------------------------------


async def test_keepalive_timer_runs_on_while_the_client_is_heard() -> None:
    """One timer for all that comes; at its end it waits for what is left since then, and asks where nothing is."""
    async with connected() as (seen, client):
        conn = seen.conn
        conn.set_keepalive(1000, 3)
        timer = conn._keepalive_timer
        assert not timer.cancelled()
        await open_raw_channel(client)
        assert conn._keepalive_timer is timer
        before = asyncio.get_running_loop().time()
        conn._keepalive_timer_callback()
        assert conn._keepalive_count == 0
        assert conn._keepalive_timer is not timer
        assert before < conn._keepalive_timer.when() <= before + 1000
        timer.cancel()
        conn._keepalive_interval = 1e-6
        conn._keepalive_timer_callback()
        assert conn._keepalive_count == 1


def test_asyncssh_still_times_silence_by_the_names_that_are_exchanged() -> None:
    """Whatever is received starts the timer, and its end is looked up on the connection."""
    names = SSHServerConnection._set_keepalive_timer.__code__.co_names
    assert {"_keepalive_timer", "_keepalive_timer_callback", "_keepalive_interval", "_loop"} <= set(names)
    assert "_reset_keepalive_timer" in SSHServerConnection._recv_data.__code__.co_names


# --- what is not done again ----------------------------------------------------------------------------------------


def test_asyncssh_still_finds_by_name_what_it_is_spared() -> None:
    """The functions that are exchanged for shorter ones are those that its connections call."""
    calls = SSHServerConnection._validate_client_certificate.__code__.co_names
    assert "decode_ssh_certificate" in calls
    assert "saslprep" in SSHServerConnection._process_userauth_request.__code__.co_names
    assert list(inspect.signature(public_key.decode_ssh_certificate).parameters) == ["data", "comment"]
    assert list(inspect.signature(packets._log).parameters) == ["self", "level", "msg", "args", "kwargs"]
    assert list(inspect.signature(packets._log_packet).parameters) == [
        "self",
        "msg",
        "pkttype",
        "pktid",
        "packet",
        "note",
    ]


def test_long_certificates_are_decoded_each_time() -> None:
    """Of one certificate anybody can make many, as long as they like, by zeros in front of its signature's numbers."""
    authority, key = (asyncssh.generate_private_key("ecdsa-sha2-nistp256") for _ in range(2))
    certificate = authority.generate_user_certificate(key, "of an office", principals=["0178515854"])
    offered = parse_certificate(certificate.public_data)
    signature = SSHPacket(offered.ca_signature)
    algorithm, numbers = signature.get_string(), SSHPacket(signature.get_string())
    first, second = (String(bytes(4_000) + numbers.get_string()) for _ in range(2))
    long = offered.signed + String(String(algorithm) + String(first + second))
    decoded = [[packets._decode(data) for _ in range(2)] for data in (certificate.public_data, long)]
    assert decoded[0][0] is decoded[0][1]
    assert decoded[1][0] is not decoded[1][1]
    assert all(each.principals == ["0178515854"] for pair in decoded for each in pair)  # type: ignore[attr-defined]


@given(st.text(max_size=12))
def test_user_names_are_prepared_as_asyncssh_does(name: str) -> None:
    """Those that are taken as they are, SASLprep leaves as they are; what it refuses is refused."""
    try:
        expected = saslprep.saslprep(name)
    except saslprep.SASLPrepError:
        with pytest.raises(saslprep.SASLPrepError):
            packets._prepare_name(name)
    else:
        assert packets._prepare_name(name) == expected


def test_log_of_asyncssh_is_written_where_it_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    """Its lines are the same as ever when somebody turns them on, and are not put into words before that."""

    class Told:
        def __str__(self) -> str:
            told.append(self)
            return "in words"

    told: list[Told] = []
    packets.spare_repetition()
    logger = SSHLogger().get_child("told", "conn=7")
    with caplog.at_level(logging.WARNING, logger="asyncssh"):
        logger.info("about %s", [Told()])
    assert not told
    assert not caplog.records
    with caplog.at_level(logging.INFO, logger="asyncssh"):
        logger.info("about %s", [Told()])
    assert caplog.messages == ["[conn=7] about in words"]
