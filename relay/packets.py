"""Packets: how those of an SFTP session get in and out at little cost.  The busy half of `relay.edge`.

asyncssh takes each packet through some twenty calls, copies it a dozen times and describes it for a log that nobody
keeps; of a large file that is more than ciphering and storing it together.  Here the two kinds of packets that nearly
all are, data of a channel in either direction, go a shorter way:

* `KeptPackets` - a cipher that is kept instead of being made for each packet, and that opens or seals a whole one in
  a call.  For the ciphers that every current client prefers.
* `PacketLane` - opens the packets that have arrived one behind another and hands over their data in one piece; seals
  what a session writes.  Whatever is not plain data on an open channel after login, while no key exchange is under
  way, is left to asyncssh, the packet unread: its checks and its answers are the only ones.
* `time_silence` - the keepalive timer is not made anew for all that comes.
* `spare_repetition` - what it does for each login and each packet, and need not do again or at all, is left out.

What is on the wire is the same, but for MSG_IGNORE, which is not sent.  `tests/unit/test_packets.py` fails as soon as
asyncssh changes what is relied on here.
"""

# ruff: noqa: SLF001, ARG002, ARG003, FBT001, FBT002 - private names are what it reaches for; asyncssh chose the parameters
from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from asyncssh import connection, encryption, public_key, saslprep
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_IGNORE, MSG_USERAUTH_LAST
from asyncssh.encryption import ChachaEncryption, Encryption, GCMEncryption
from asyncssh.logging import SSHLogger
from asyncssh.packet import SSHPacketLogger
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

from relay.offered import KEPT_BYTES

_TAG_BYTES = 16
_LENGTH_BYTES = 4
# RFC 4253 section 6.
_PADDING_LEAST = 4
_SEQUENCE = 0xFFFFFFFF
# Of a packet with channel data: length of the padding, type, channel, length of the data (RFC 4254 section 5.2).
_INLET = struct.Struct(">BBII")
_OUTLET = struct.Struct(">BII")
# Packets handed over together: what is held of them at a time stays far below the client's window.
_TOGETHER_MOST = 64
# As exact as the event loop's timers are.
_TIMER_SECONDS = 0.001

_COUNTER = struct.Struct(">Q")
# Of chacha20: a counter of eight bytes in front of the nonce, and blocks of 64.
_FIRST_BLOCK = bytes(8)
_WHOLE_BLOCK = bytes(64)


class KeptPackets(Encryption):
    """What the packets of one direction are ciphered with.

    A packet that was opened ahead of asyncssh is kept, and given to asyncssh when it asks for the same one.
    """

    _ahead: tuple[int, bytes | None] | None = None

    def read_length(self, seq: int, head: bytes | memoryview) -> int:
        """Return the length that stands in the first four bytes of packet *seq*; nothing vouches for it yet."""
        raise NotImplementedError

    def open(self, seq: int, packet: bytes | memoryview) -> bytes | None:
        """Return what is in the whole packet *seq*, padding included; None where its tag is not the packet's."""
        raise NotImplementedError

    def seal(self, seq: int, plain: bytes, out: memoryview) -> None:
        """Write the whole packet *seq* with *plain* in it into *out*, which is just long enough."""
        raise NotImplementedError

    def open_ahead(self, seq: int, packet: bytes | memoryview) -> bytes | None:
        """Open a packet that asyncssh may be given after all: no packet is opened twice."""
        if self._ahead is None or self._ahead[0] != seq:
            self._ahead = seq, self.open(seq, packet)
        return self._ahead[1]

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        """Return the packet that asyncssh has made, sealed, and its tag."""
        out = bytearray(_LENGTH_BYTES + len(packet) + _TAG_BYTES)
        self.seal(seq, packet, memoryview(out))
        return bytes(out[:-_TAG_BYTES]), bytes(out[-_TAG_BYTES:])

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        """Return the beginning of a packet as it is, and its length in four bytes."""
        return first_block, self.read_length(seq, first_block[:header_len]).to_bytes(_LENGTH_BYTES, "big")

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        """Return what is in a packet, or None where its tag is not the packet's."""
        opened = self.open_ahead(seq, first + rest + mac)
        self._ahead = None
        return opened


class KeptChacha(KeptPackets, ChachaEncryption):
    """chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305), which OpenSSH's clients prefer."""

    def __init__(self, key: bytes) -> None:
        data, header = key[: len(key) // 2], key[len(key) // 2 :]
        self._data = Cipher(ChaCha20(data, bytes(16)), mode=None).encryptor()
        self._header = Cipher(ChaCha20(header, bytes(16)), mode=None).encryptor()

    @classmethod
    def new(
        cls, cipher_name: str, key: bytes, iv: bytes, mac_alg: bytes = b"", mac_key: bytes = b"", etm: bool = False
    ) -> KeptChacha:
        """Make the cipher of one direction."""
        return cls(key)

    def read_length(self, seq: int, head: bytes | memoryview) -> int:
        """Return the length, which has a key of its own."""
        self._header.reset_nonce(_FIRST_BLOCK + _COUNTER.pack(seq))
        return int.from_bytes(self._header.update(head), "big")

    def open(self, seq: int, packet: bytes | memoryview) -> bytes | None:
        """Return what is in the packet, or None."""
        tag_key = self._start(seq)
        try:
            Poly1305.verify_tag(tag_key, packet[:-_TAG_BYTES], bytes(packet[-_TAG_BYTES:]))
        except InvalidSignature:
            return None
        return self._data.update(packet[_LENGTH_BYTES:-_TAG_BYTES])

    def seal(self, seq: int, plain: bytes, out: memoryview) -> None:
        """Write the packet into *out*."""
        tag_key = self._start(seq)
        self._header.reset_nonce(_FIRST_BLOCK + _COUNTER.pack(seq))
        self._header.update_into(len(plain).to_bytes(_LENGTH_BYTES, "big"), out[:_LENGTH_BYTES])
        self._data.update_into(plain, out[_LENGTH_BYTES:-_TAG_BYTES])
        out[-_TAG_BYTES:] = Poly1305.generate_tag(tag_key, out[:-_TAG_BYTES])

    def _start(self, seq: int) -> bytes:
        """Return the packet's tag key, from block 0 of its stream, and leave the stream at block 1 for the data."""
        self._data.reset_nonce(_FIRST_BLOCK + _COUNTER.pack(seq))
        return self._data.update(_WHOLE_BLOCK)[:32]


class KeptGcm(KeptPackets, GCMEncryption):
    """aes128-gcm@openssh.com and aes256-gcm@openssh.com (RFC 5647): the nonce is a counter of its own."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._aead = AESGCM(key)
        self._fixed = iv[:4]
        self._count = _COUNTER.unpack(iv[4:])[0]

    @classmethod
    def new(
        cls, cipher_name: str, key: bytes, iv: bytes, mac_alg: bytes = b"", mac_key: bytes = b"", etm: bool = False
    ) -> KeptGcm:
        """Make the cipher of one direction."""
        return cls(key, iv)

    def read_length(self, seq: int, head: bytes | memoryview) -> int:
        """Return the length, which is in the clear."""
        return int.from_bytes(head, "big")

    def open(self, seq: int, packet: bytes | memoryview) -> bytes | None:
        """Return what is in the packet, or None."""
        try:
            return self._aead.decrypt(self._next_nonce(), packet[_LENGTH_BYTES:], packet[:_LENGTH_BYTES])
        except InvalidTag:
            return None

    def seal(self, seq: int, plain: bytes, out: memoryview) -> None:
        """Write the packet into *out*."""
        out[:_LENGTH_BYTES] = len(plain).to_bytes(_LENGTH_BYTES, "big")
        self._aead.encrypt_into(self._next_nonce(), plain, out[:_LENGTH_BYTES], out[_LENGTH_BYTES:])

    def _next_nonce(self) -> bytes:
        nonce = self._fixed + _COUNTER.pack(self._count)
        self._count = (self._count + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce


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


def keep_ciphers() -> None:
    """Let every connection of this process that is made from now on use `KeptPackets` where there is one."""
    for name, kept in _KEPT.items():
        encryption._enc_params[name] = kept, encryption._enc_params[name][1]


_KEPT: dict[bytes, type[KeptPackets]] = {
    b"chacha20-poly1305@openssh.com": KeptChacha,
    b"aes128-gcm@openssh.com": KeptGcm,
    b"aes256-gcm@openssh.com": KeptGcm,
}


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


class PacketLane:
    """The shorter way of channel data on one connection; to be made in `SSHServer.connection_made`."""

    def __init__(self, conn: object) -> None:
        unwrapped: Any = conn
        self._conn = unwrapped
        self._receive_slowly, self._send_slowly = unwrapped._recv_pkthdr, unwrapped.send_packet
        unwrapped._recv_pkthdr, unwrapped.send_packet = self._receive, self._send
        self._is_ahead = False
        time_silence(unwrapped)

    def adopt(self, channel: object) -> None:
        """Let what is written on *channel* go this way, as far as its client's window reaches."""
        adopted: Any = channel
        flush_slowly = adopted._flush_send_buf

        def flush() -> None:
            self._flush(adopted)
            flush_slowly()

        adopted._flush_send_buf = flush

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

    def _receive(self) -> bool:
        """Take the packets at the head of the input that are plain data; anything else is asyncssh's to take."""
        conn = self._conn
        cipher = conn._recv_encryption
        if not (isinstance(cipher, KeptPackets) and conn._auth_complete and conn._decompressor is None):
            return not self._is_ahead and bool(self._receive_slowly())
        read = memoryview(conn._inpbuf)
        at, seq, end = 0, conn._recv_seq, len(read)
        channel: Any = None
        pieces: list[memoryview] = []
        is_strange = False
        while end - at > _LENGTH_BYTES and len(pieces) < _TOGETHER_MOST:
            length = cipher.read_length(seq, read[at : at + _LENGTH_BYTES])
            stop = at + _LENGTH_BYTES + length + _TAG_BYTES
            if is_strange := length > conn._max_recv_pktlen:
                break
            if stop > end:
                break
            packet = cipher.open_ahead(seq, read[at:stop])
            data = None if packet is None else self._find_data(packet, channel)
            if is_strange := data is None:
                break
            channel, piece = data
            channel._recv_window -= len(piece)
            pieces.append(piece)
            at, seq = stop, (seq + 1) & _SEQUENCE
        if not pieces:
            # Not whole yet: asyncssh would cut its beginning off and take the rest itself.
            return is_strange and not self._is_ahead and bool(self._receive_slowly())
        conn._inpbuf, conn._recv_seq, conn._auth_final = bytes(read[at:]), seq, True
        channel._deliver_data(b"".join(pieces), None)
        return True

    def _find_data(self, packet: bytes, channel: Any) -> tuple[Any, memoryview] | None:
        """Return the channel and its data, if *packet* is nothing else and, where *channel* is given, for that one."""
        if packet[1] != MSG_CHANNEL_DATA or len(packet) < _INLET.size:
            return None
        padding, _, number, length = _INLET.unpack_from(packet)
        found = self._conn._channels.get(number)
        if found is None or (channel is not None and found is not channel):
            return None
        is_open = found._recv_state == "open" and found._send_state == "open" and not found._recv_paused
        if not is_open or length + _INLET.size + padding != len(packet) or not 0 < length <= found._recv_window:
            return None
        return found, memoryview(packet)[_INLET.size : _INLET.size + length]

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

    def _write(self, sealed: list[bytearray]) -> None:
        transport = self._conn._transport
        if len(sealed) == 1 or transport is None:
            for packet in sealed:
                self._conn._send(packet)
        elif sealed:
            with suppress(ConnectionError):
                transport.writelines(sealed)

    def _seal(self, *payload: bytes | memoryview) -> bytearray:
        """Return the next packet with *payload* in it, which is to be sent before any other."""
        conn = self._conn
        length = sum(map(len, payload))
        padding = -(conn._send_enchdrlen + length) % conn._send_blocksize
        if padding < _PADDING_LEAST:
            padding += conn._send_blocksize
        plain = b"".join((bytes((padding,)), *payload, os.urandom(padding)))
        out = bytearray(_LENGTH_BYTES + len(plain) + _TAG_BYTES)
        seq = conn._send_seq
        conn._send_encryption.seal(seq, plain, memoryview(out))
        conn._send_seq = (seq + 1) & _SEQUENCE
        conn._rekey_bytes_sent += len(plain)
        return out
