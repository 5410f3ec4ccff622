"""Packets: how those of an SFTP session get in and out at little cost.  The busy half of `relay.edge`.

asyncssh takes each packet through some twenty calls, copies it a dozen times and describes it for a log that nobody
keeps; of a large file that is more than ciphering and storing it together.  Here the packets that nearly all are, data
of a channel in either direction and room for it, go a shorter way:

* `PacketLane` - deciphers the data of the packets that have arrived, one behind another, to where their session wants
  it; seals what a session writes.  Of a large file that is read most of what arrives says that the client has room for
  more: that is taken here as well.  Whatever is not one of both on an open channel after login, while no key exchange is
  under way, is left to asyncssh, the packet unread: its checks and its answers are the only ones.
* `_Inlet` - the system's bytes are deciphered where they were read to, one place for all connections of a thread.
* `time_silence` - the keepalive timer is not made anew for all that comes.
* `spare_repetition` - what it does for each login and each packet, and need not do again or at all, is left out.

How a packet is ciphered is in `relay.ciphers`.

What is on the wire is the same, but for MSG_IGNORE, which is not sent.  `tests/unit/test_packets.py` fails as soon as
asyncssh changes what is relied on here.
"""

# ruff: noqa: SLF001, ARG002 - private names are what it reaches for; asyncssh chose the parameters
from __future__ import annotations

import asyncio
import logging
import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import asyncssh
from asyncssh import connection, public_key, saslprep
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST, MSG_IGNORE, MSG_USERAUTH_LAST
from asyncssh.logging import SSHLogger
from asyncssh.packet import SSHPacketLogger

from relay.ciphers import INLET, LENGTH_BYTES, LONG_BYTES, TAG_BYTES, KeptPackets
from relay.offered import KEPT_BYTES

# RFC 4253 section 6.
_PADDING_LEAST = 4
_SEQUENCE = 0xFFFFFFFF
# More than any cipher here has: blocks of 16 bytes.
_PADDING_MOST = 32
# Packets for which padding is drawn together: a reply to READ has eight or nine.
_DRAWN_FOR = 9
# Of a packet with channel data: type, channel, length of the data (RFC 4254 section 5.2).
_OUTLET = struct.Struct(">BII")
# Packets handed over together: what is held of them at a time stays far below the client's window.
_TOGETHER_MOST = 64
# Read from a connection at once, with what was left of a packet in front of it.
_READ_BYTES, _LEFT_BYTES_MOST = 256 * 1024, 64 * 1024
# As exact as the event loop's timers are.
_TIMER_SECONDS = 0.001


def spare_repetition() -> None:
    """Spare every connection of this process what asyncssh does over and over to no end.

    * Certificates are decoded, and their CA's signature verified, once: a client that asks before it signs shows its
      own twice, one that polls does so all day, and the same bytes are always the same certificate.  Whether its CA is
      trusted, it is valid now and who may use it is asked each time.  `relay.auth` asks the register before asyncssh
      sees a certificate, so that nothing else is kept.
    * User names of letters and digits are taken as they are: SASLprep (RFC 4013) leaves these alone.
    * Lines of its log are put into words only where they are kept.
    """
    unwrapped: Any = connection
    unwrapped.decode_ssh_certificate = _decode
    unwrapped.saslprep = _prepare_name
    SSHLogger.log = _log_if_kept  # type: ignore[method-assign]
    SSHPacketLogger._log_packet = _log_packet_if_kept  # type: ignore[method-assign,assignment]


def _decode(data: bytes) -> object:
    return _decode_kept(data) if len(data) <= KEPT_BYTES else public_key.decode_ssh_certificate(data)


@lru_cache(maxsize=512)
def _decode_kept(data: bytes) -> object:
    return public_key.decode_ssh_certificate(data)


def _prepare_name(name: str) -> str:
    return name if name.isascii() and name.isalnum() else saslprep.saslprep(name)


_log, _log_packet = SSHLogger.log, SSHPacketLogger._log_packet


def _log_if_kept(self: Any, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
    if self.logger.isEnabledFor(level):
        _log(self, level, msg, *args, **kwargs)


def _log_packet_if_kept(self: Any, *facts: Any) -> None:
    if self.logger.isEnabledFor(logging.DEBUG):
        _log_packet(self, *facts)


def time_silence(conn: object) -> None:
    """Let the keepalive timer of *conn* run on while its client is heard, and ask at its end since when he is silent.

    asyncssh stops it and starts another one for all that it receives.
    """
    timed: Any = conn
    start, end = timed._reset_keepalive_timer, timed._keepalive_timer_callback
    loop = timed._loop
    heard_at = 0.0

    def hear() -> None:
        nonlocal heard_at
        heard_at = loop.time()
        if timed._keepalive_timer is None:
            start()

    def look() -> None:
        left = heard_at + timed._keepalive_interval - loop.time()
        if left > _TIMER_SECONDS:
            timed._keepalive_timer = loop.call_later(left, look)
        else:
            end()

    timed._reset_keepalive_timer, timed._keepalive_timer_callback = hear, look


class Sink(asyncssh.SSHServerSession[bytes]):
    """A session that has its data deciphered to a place of its own."""

    def room(self, size: int) -> memoryview:
        """Return room for *size* bytes, good until the next call of anything here."""
        raise NotImplementedError

    def poured(self, size: int) -> None:
        """Take the first *size* bytes of it as what has arrived."""
        raise NotImplementedError


class _Joined(Sink):
    """The data for a session that takes it as asyncssh hands it over."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def room(self, size: int) -> memoryview:
        self._room = memoryview(bytearray(size))
        return self._room

    def poured(self, size: int) -> None:
        self._channel._deliver_data(bytes(self._room[:size]), None)


class _Inlet(asyncio.BufferedProtocol):
    """What the transport of one connection speaks to after login: as asyncssh's protocol, but for how input is read.

    asyncio reads into bytes that are new each time, and asyncssh joins them with what was left over.  Here they are read
    behind what was left over, and what is left over then is all that is kept of them.
    """

    _here = threading.local()

    def __init__(self, conn: Any, may_take: Callable[[], bool]) -> None:
        self._conn = conn
        self._may_take = may_take
        self._left = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to; nothing else of this thread reads before `buffer_updated`, if anything was read."""
        read = self._read()
        left = self._conn._inpbuf if self._may_take() else b""
        self._left = len(left) if len(left) <= _LEFT_BYTES_MOST else 0
        read[: self._left] = left[: self._left]
        return read[self._left : self._left + _READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read: the lane as it lies, asyncssh as bytes."""
        conn, read = self._conn, self._read()
        if self._left == len(conn._inpbuf) and self._may_take():
            conn._inpbuf = read[: self._left + nbytes]
        else:
            conn._inpbuf += read[self._left : self._left + nbytes]
        try:
            conn._recv_data()
        finally:
            conn._inpbuf = bytes(conn._inpbuf)

    @classmethod
    def _read(cls) -> memoryview:
        try:
            read: memoryview = cls._here.read
        except AttributeError:
            read = cls._here.read = memoryview(bytearray(_LEFT_BYTES_MOST + _READ_BYTES))
        return read

    def eof_received(self) -> None:
        """Pass it on."""
        self._conn.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._conn.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._conn.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._conn.resume_writing()


def write_data(channel: object, head: bytes, data: bytes | memoryview) -> None:
    """Write *head* and *data* on a channel; raises as its ``write``."""
    unwrapped: Any = channel
    # Nobody has adopted it where there is no connection below it.
    write_both = getattr(unwrapped, "_write_data", None)
    if write_both is None:
        unwrapped.write(head + data)
    else:
        write_both(head, data)


class PacketLane:
    """The shorter way of channel data on one connection; to be made in `SSHServer.connection_made`."""

    def __init__(self, conn: object) -> None:
        unwrapped: Any = conn
        self._conn = unwrapped
        self._receive_slowly, self._send_slowly = unwrapped._recv_pkthdr, unwrapped.send_packet
        unwrapped._recv_pkthdr, unwrapped.send_packet = self._receive, self._send
        self._is_ahead = False
        self._has_inlet = False
        time_silence(unwrapped)

    def adopt(self, channel: object, session: object = None) -> None:
        """Let what is written on *channel* of *session* go this way, as far as its client's window reaches."""
        adopted: Any = channel
        adopted._sink = session if isinstance(session, Sink) else _Joined(adopted)
        self._read_in_place()
        flush_slowly = adopted._flush_send_buf

        def flush() -> None:
            self._flush(adopted)
            flush_slowly()

        adopted._flush_send_buf = flush
        adopted._write_data = partial(self._write_data, adopted)

    # --- in --------------------------------------------------------------------------------------------------------

    def take_ahead(self, receive: Callable[[], None]) -> None:
        """Take what is plain data off the head of an input of any length, and leave the rest; *receive* is asyncssh's loop.

        asyncssh copies what lies behind each packet that it takes itself, so it is not to have a long input whole.
        """
        if self._conn._recv_handler == self._receive:
            self._is_ahead = True
            try:
                receive()
            finally:
                self._is_ahead = False

    def _read_in_place(self) -> None:
        transport = self._conn._transport
        if not self._has_inlet and transport is not None:
            self._has_inlet = True
            transport.pause_reading()
            transport.set_protocol(_Inlet(self._conn, self._may_open))
            transport.resume_reading()

    def _may_open(self) -> bool:
        """True while the input begins with a packet that may be looked at here."""
        conn = self._conn
        return (
            conn._recv_handler == self._receive
            and isinstance(conn._recv_encryption, KeptPackets)
            and conn._auth_complete
            and conn._decompressor is None
        )

    def _receive(self) -> bool:
        """Take the packets at the head of the input that are plain data or widen a window; anything else is asyncssh's to take."""
        conn = self._conn
        if not self._may_open():
            return self._leave_to_asyncssh()
        cipher: KeptPackets = conn._recv_encryption
        read = memoryview(conn._inpbuf)
        at, seq, end = 0, conn._recv_seq, len(read)
        channel: Any = None
        sink: Sink | None = None
        widened: dict[int, Any] = {}
        poured = 0
        is_strange = False
        for _ in range(_TOGETHER_MOST):
            if end - at <= LENGTH_BYTES:
                break
            length = cipher.read_length(seq, read[at : at + LENGTH_BYTES])
            stop = at + LENGTH_BYTES + length + TAG_BYTES
            if is_strange := length > conn._max_recv_pktlen:
                break
            if stop > end:
                break
            head = cipher.open_head(seq, read[at:stop])
            if head is None or not self._widen(head, length, widened):
                data = None if head is None else self._find_data(head, length, channel)
                if is_strange := data is None:
                    break
                if sink is None:
                    sink = getattr(data[0], "_sink", None) or _Joined(data[0])
                    out = sink.room(end - at)
                channel, size = data
                cipher.pour(out[poured : poured + size])
                channel._recv_window -= size
                poured += size
            at, seq = stop, (seq + 1) & _SEQUENCE
        if not at:
            # Not whole yet: asyncssh would cut its beginning off and take the rest itself.
            return is_strange and self._leave_to_asyncssh()
        left = read[at:]
        conn._inpbuf = bytes(left) if isinstance(conn._inpbuf, bytes) else left
        conn._recv_seq, conn._auth_final = seq, True
        self._hand_over(sink, poured, widened)
        return True

    def _hand_over(self, sink: Sink | None, poured: int, widened: dict[int, Any]) -> None:
        """Give a session its data; behind that send what waits on *widened*, as a session wants no call before `poured`."""
        if sink is not None:
            sink.poured(poured)
        for number, channel in widened.items():
            # The session may have let go of it.
            if self._conn._channels.get(number) is channel:
                channel._flush_send_buf()

    def _widen(self, head: bytes, plain_bytes: int, widened: dict[int, Any]) -> bool:
        """Let more be sent on a channel, and note it, if a packet says nothing else; what waits there is not sent yet."""
        if plain_bytes < INLET.size or head[1] != MSG_CHANNEL_WINDOW_ADJUST:
            return False
        padding, _, number, more = INLET.unpack(head)
        found = self._conn._channels.get(number)
        if found is None or found._recv_state != "open" or INLET.size + padding != plain_bytes:
            return False
        found._send_window += more
        widened[number] = found
        return True

    def _leave_to_asyncssh(self) -> bool:
        if self._is_ahead:
            return False
        self._conn._inpbuf = bytes(self._conn._inpbuf)
        return bool(self._receive_slowly())

    def _find_data(self, head: bytes, plain_bytes: int, channel: Any) -> tuple[Any, int] | None:
        """Return the channel and how long its data is, if a packet is nothing else and, where *channel* is given, for that one."""
        if plain_bytes < INLET.size or head[1] != MSG_CHANNEL_DATA:
            return None
        padding, _, number, length = INLET.unpack(head)
        found = self._conn._channels.get(number)
        if found is None or (channel is not None and found is not channel):
            return None
        is_open = found._recv_state == "open" and found._send_state == "open" and not found._recv_paused
        if not is_open or length + INLET.size + padding != plain_bytes or not 0 < length <= found._recv_window:
            return None
        return found, length

    # --- out -------------------------------------------------------------------------------------------------------

    def _may_seal(self) -> bool:
        """True while a packet can be sent as it is: after login, and no key exchange under way or due."""
        conn = self._conn
        return (
            conn._kex_complete
            and conn._auth_complete
            and isinstance(conn._send_encryption, KeptPackets)
            and conn._compressor is None
            and conn._rekey_bytes_sent < conn._rekey_bytes
            and not (conn._rekey_seconds and time.monotonic() >= conn._rekey_time)
        )

    def _send(self, pkttype: int, *args: bytes, handler: object = None) -> None:
        """Send a packet of any type.

        None of MSG_IGNORE, which asyncssh sends ahead of every packet against an attack on CBC ciphers (RFC 4253
        section 9.3.1).  The relay offers none, and it would double the packets of every short reply.
        """
        if pkttype == MSG_IGNORE:
            return
        if pkttype > MSG_USERAUTH_LAST and self._may_seal():
            self._conn._send(self._seal(bytes((pkttype,)), *args))
        else:
            self._send_slowly(pkttype, *args, handler=handler)

    def _flush(self, channel: Any) -> None:
        """Send what waits on *channel*, as much as its client takes; what is left to do then is asyncssh's.

        The packets of a long reply leave in one call to the system.
        """
        sealed: list[bytearray] = []
        try:
            while channel._send_buf and channel._send_window and self._may_seal():
                waiting, datatype = channel._send_buf[0]
                if datatype is not None:
                    return
                length = min(len(waiting), channel._send_window, channel._send_pktsize)
                with memoryview(waiting) as view, view[:length] as piece:
                    sealed.append(self._seal(_OUTLET.pack(MSG_CHANNEL_DATA, channel._send_chan, length), piece))
                channel._send_buf_len -= length
                channel._send_window -= length
                if length == len(waiting):
                    del channel._send_buf[0]
                else:
                    del waiting[:length]
        finally:
            # Also where the next one could not be sealed: these have their numbers.
            self._write(sealed)

    def _write_data(self, channel: Any, head: bytes, data: bytes | memoryview) -> None:
        """Write both as one, sealed from where they are as far as the client takes them now; what is left waits as it does."""
        behind = memoryview(data)
        sealed: list[bytearray] = []
        # For all of its packets at once: each draw is a call to the system.
        drawn = memoryview(os.urandom(_PADDING_MOST * _DRAWN_FOR))
        try:
            while head or behind:
                length = min(len(head) + len(behind), channel._send_window, channel._send_pktsize)
                is_free = channel._send_state == "open" and not channel._send_buf and self._may_seal()
                if not is_free or length <= len(head):
                    break
                piece = behind[: length - len(head)]
                if len(drawn) < _PADDING_MOST:
                    drawn = memoryview(os.urandom(_PADDING_MOST * _DRAWN_FOR))
                outlet = _OUTLET.pack(MSG_CHANNEL_DATA, channel._send_chan, length) + head
                sealed.append(self._seal(outlet, piece, drawn=drawn))
                drawn = drawn[_PADDING_MOST:]
                channel._send_window -= length
                head, behind = b"", behind[len(piece) :]
        finally:
            self._write(sealed)
        if head or behind:
            channel.write(head + behind)

    def _write(self, sealed: list[bytearray]) -> None:
        transport = self._conn._transport
        if len(sealed) == 1 or transport is None:
            for packet in sealed:
                self._conn._send(packet)
        elif sealed:
            with suppress(ConnectionError):
                transport.writelines(sealed)

    def _seal(self, *payload: bytes | memoryview, drawn: memoryview | None = None) -> bytearray:
        """Return the next packet with *payload* in it, which is to be sent before any other; padded with what was *drawn*."""
        conn = self._conn
        length = sum(map(len, payload))
        padding = -(conn._send_enchdrlen + length) % conn._send_blocksize
        if padding < _PADDING_LEAST:
            padding += conn._send_blocksize
        random = os.urandom(padding) if drawn is None else drawn[:padding]
        parts = (bytes((padding,)) + payload[0], *payload[1:], random)
        plain_bytes = 1 + length + padding
        out = bytearray(LENGTH_BYTES + plain_bytes + TAG_BYTES)
        seq = conn._send_seq
        if length < LONG_BYTES:
            conn._send_encryption.seal(seq, b"".join(parts), memoryview(out))
        else:
            conn._send_encryption.seal_parts(seq, parts, memoryview(out))
        conn._send_seq = (seq + 1) & _SEQUENCE
        conn._rekey_bytes_sent += plain_bytes
        return out
