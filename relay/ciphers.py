"""How the packets of an SSH connection are ciphered: as asyncssh does it, at less cost.

`KeptPackets` is a cipher that is kept instead of being made for each packet, and that opens or seals a whole one in a
call; the data of a long one is deciphered to where it belongs, and sealed from where it lies.  There is one for each
cipher that current clients prefer.  `tests/unit/test_packets.py` holds them to asyncssh's own, byte for byte.
"""

# ruff: noqa: SLF001, ARG002, ARG003, FBT001, FBT002 - private names are what it reaches for; asyncssh chose the parameters
from __future__ import annotations

import struct
from collections.abc import Sequence

from asyncssh import encryption
from asyncssh.encryption import ChachaEncryption, Encryption, GCMEncryption
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

TAG_BYTES = 16
LENGTH_BYTES = 4
# Of a packet with channel data: length of the padding, type, channel, length of the data (RFC 4254 section 5.2).
INLET = struct.Struct(">BBII")
# From here on sparing a copy pays for one call more.
LONG_BYTES = 1024

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

    def seal_parts(self, seq: int, parts: Sequence[bytes | memoryview], out: memoryview) -> None:
        """Write the whole packet *seq* with *parts* in it into *out*, which is just long enough."""
        self.seal(seq, b"".join(parts), out)

    def open_head(self, seq: int, packet: memoryview) -> bytes | None:
        """Return what stands in front of the data in packet *seq*; None where its tag is not the packet's."""
        plain = self.open_ahead(seq, packet)
        return None if plain is None else plain[: INLET.size]

    def pour(self, out: memoryview) -> None:
        """Write the data of the packet whose head was opened last into *out*, as much as there is room for."""
        assert self._ahead is not None
        plain = self._ahead[1]
        assert plain is not None
        out[:] = memoryview(plain)[INLET.size : INLET.size + len(out)]

    def open_ahead(self, seq: int, packet: bytes | memoryview) -> bytes | None:
        """Open a packet that asyncssh may be given after all: no packet is opened twice."""
        if self._ahead is None or self._ahead[0] != seq:
            self._ahead = seq, self.open(seq, packet)
        return self._ahead[1]

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        """Return the packet that asyncssh has made, sealed, and its tag."""
        out = bytearray(LENGTH_BYTES + len(packet) + TAG_BYTES)
        self.seal(seq, packet, memoryview(out))
        return bytes(out[:-TAG_BYTES]), bytes(out[-TAG_BYTES:])

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        """Return the beginning of a packet as it is, and its length in four bytes."""
        return first_block, self.read_length(seq, first_block[:header_len]).to_bytes(LENGTH_BYTES, "big")

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
        self._behind: memoryview | None = None

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
        return self._data.update(packet[LENGTH_BYTES:-TAG_BYTES]) if self._begin(seq, packet) else None

    def open_head(self, seq: int, packet: memoryview) -> bytes | None:
        """Return the head; of a long packet nothing is kept for asyncssh, which then opens it once more."""
        if len(packet) < LONG_BYTES:
            self._behind = None
            return super().open_head(seq, packet)
        if not self._begin(seq, packet):
            return None
        at = LENGTH_BYTES + INLET.size
        self._behind = packet[at:-TAG_BYTES]
        return self._data.update(packet[LENGTH_BYTES:at])

    def pour(self, out: memoryview) -> None:
        """Decipher the data to where it belongs."""
        if self._behind is None:
            super().pour(out)
        else:
            self._data.update_into(self._behind[: len(out)], out)
            self._behind = None

    def _begin(self, seq: int, packet: bytes | memoryview) -> bool:
        """Make ready to decipher packet *seq*; False where its tag is not the packet's."""
        tag_key = self._start(seq)
        try:
            Poly1305.verify_tag(tag_key, packet[:-TAG_BYTES], bytes(packet[-TAG_BYTES:]))
        except InvalidSignature:
            return False
        return True

    def seal(self, seq: int, plain: bytes, out: memoryview) -> None:
        """Write the packet into *out*."""
        self.seal_parts(seq, (plain,), out)

    def seal_parts(self, seq: int, parts: Sequence[bytes | memoryview], out: memoryview) -> None:
        """Write the packet into *out*, each part from where it is."""
        tag_key = self._start(seq)
        self._header.reset_nonce(_FIRST_BLOCK + _COUNTER.pack(seq))
        length = len(out) - LENGTH_BYTES - TAG_BYTES
        self._header.update_into(length.to_bytes(LENGTH_BYTES, "big"), out[:LENGTH_BYTES])
        at = LENGTH_BYTES
        for part in parts:
            self._data.update_into(part, out[at : at + len(part)])
            at += len(part)
        out[-TAG_BYTES:] = Poly1305.generate_tag(tag_key, out[:-TAG_BYTES])

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
            return self._aead.decrypt(self._next_nonce(), packet[LENGTH_BYTES:], packet[:LENGTH_BYTES])
        except InvalidTag:
            return None

    def seal(self, seq: int, plain: bytes, out: memoryview) -> None:
        """Write the packet into *out*."""
        out[:LENGTH_BYTES] = len(plain).to_bytes(LENGTH_BYTES, "big")
        self._aead.encrypt_into(self._next_nonce(), plain, out[:LENGTH_BYTES], out[LENGTH_BYTES:])

    def _next_nonce(self) -> bytes:
        nonce = self._fixed + _COUNTER.pack(self._count)
        self._count = (self._count + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce


def keep_ciphers() -> None:
    """Let every connection of this process that is made from now on use `KeptPackets` where there is one."""
    for name, kept in _KEPT.items():
        encryption._enc_params[name] = kept, encryption._enc_params[name][1]


_KEPT: dict[bytes, type[KeptPackets]] = {
    b"chacha20-poly1305@openssh.com": KeptChacha,
    b"aes128-gcm@openssh.com": KeptGcm,
    b"aes256-gcm@openssh.com": KeptGcm,
}
