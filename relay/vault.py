"""The vault: sealing and opening of what must not be read from a stolen disk.

Every payload has a random key of its own (AES-256); its chunks and its free file name are sealed with it
(AES-256-GCM).  The key itself is kept wrapped by the master key of ``keys/``, so that destroying the wrapped key
destroys the file, and rotating the master key re-wraps a few dozen bytes a file.

What is authenticated, and so cannot be exchanged, cut or reordered by somebody who can write to the store: format
version, payload uid and chunk number with every chunk; uid, number of chunks and length with the wrapped key.

While the master key is being rotated there are two: everything is wrapped with the newer one, and what the older
one still wraps can be read until it has been wrapped again.

Every sealing draws a fresh random nonce, kept in front of the ciphertext: an upload that is resumed or rewritten
seals the same chunk number again, and a counter would then repeat.

Pure but for the system's random source, and for *find_masters*, which whoever makes a `Vault` may give it.  Opening raises `VaultError` and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import RelayError
from relay.model import PayloadUid

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
# What sealing adds to a chunk.
SEAL_BYTES = NONCE_BYTES + TAG_BYTES
UID_BYTES = 16
# Bytes of content in a chunk, all but the last.  One WRITE of OpenSSH's clients is one chunk, copied by nobody twice.
CHUNK_BYTES = 261_120
# Collisions among 10^9 names stay below one in 10^20.
INDEX_BYTES = 16

# Names are personal, so no more digests are remembered than those of the uploads and listings under way; and a path may
# be as long as whoever sends it likes.
_INDEXED_KEPT, _INDEXED_CHARACTERS = 1024, 512

_FORMAT = b"relay-1"
_CHUNK = struct.Struct(">7s16sQ")
_WRAP = struct.Struct(">7s16sQQ")
_NOTE = _FORMAT + b"note"


class VaultError(RelayError):
    """Sealed bytes that do not open: changed, cut, exchanged, or sealed under another key."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """The key that wraps all others; *id* names it in the store, so that a rotation knows what is left to do."""

    id: str
    key: bytes = field(repr=False)


def new_uid() -> PayloadUid:
    """Draw a uid for a new payload."""
    return PayloadUid(os.urandom(UID_BYTES))


def new_key() -> bytes:
    """Draw a key for a new payload."""
    return AESGCM.generate_key(KEY_BYTES * 8)


class Sealer:
    """Seals and opens the parts of one payload with its own key."""

    __slots__ = ("_aead", "_uid")

    def __init__(self, key: bytes, uid: PayloadUid) -> None:
        self._aead = AESGCM(key)
        self._uid = uid

    def seal_chunk(self, number: int, plain: bytes | bytearray | memoryview) -> bytes:
        """Return nonce, ciphertext and tag of chunk *number*."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, _CHUNK.pack(_FORMAT, self._uid, number))

    def open_chunk(self, number: int, sealed: bytes) -> bytes:
        """Return the plain bytes of chunk *number*; VaultError where they are not what was sealed."""
        return _open(self._aead, sealed, _CHUNK.pack(_FORMAT, self._uid, number))

    def seal_name(self, name: str) -> bytes:
        """Seal a free file name; it goes when the payload's key goes."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, name.encode(), _FORMAT + b"name" + self._uid)

    def seal_part(self, part: str, text: str) -> bytes:
        """Seal a text that says something of the payload; it goes when the payload's key goes."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, text.encode(), _FORMAT + b"part " + part.encode() + b" " + self._uid)

    def open_part(self, part: str, sealed: bytes) -> str:
        """Return the text; VaultError where it is not what was sealed as *part*."""
        return _open(self._aead, sealed, _FORMAT + b"part " + part.encode() + b" " + self._uid).decode()

    def open_name(self, sealed: bytes) -> str:
        """Return the name; VaultError where it is not what was sealed."""
        return _open(self._aead, sealed, _FORMAT + b"name" + self._uid).decode()


class Vault:
    """Holds the master keys and the index key; wraps payload keys, seals notes, folds names into index keys.

    *older* are master keys that still open what they once wrapped.  *find_masters* returns all that there are now,
    the newest first; it is asked where something opens under none of those held, and by `use_master`.
    """

    def __init__(
        self,
        master: MasterKey,
        index_key: bytes,
        *,
        older: Sequence[MasterKey] = (),
        find_masters: Callable[[], Sequence[MasterKey]] = tuple,
    ) -> None:
        self._masters = {each.id: AESGCM(each.key) for each in (master, *older)}
        self._find_masters = find_masters
        # Copied for each digest, which spares hashing the key again.
        self._indexer = hashlib.blake2b(key=index_key, digest_size=INDEX_BYTES)
        # One upload asks for the digests of its name and of its path several times.
        self._index = lru_cache(_INDEXED_KEPT)(self._digest)
        self.master_id = master.id

    def use_master(self, master_id: str) -> None:
        """Wrap with that master key from now on; VaultError where it is not to be had."""
        if master_id not in self._masters:
            self.refresh_masters()
        if master_id not in self._masters:
            raise VaultError(f"the master key {master_id} is not among the keys")
        self.master_id = master_id

    def refresh_masters(self) -> None:
        """Take the master keys as they are now: one that was destroyed is forgotten, unless it is the one in use."""
        found = self._find_masters()
        if found:
            in_use = self._masters[self.master_id]
            self._masters = {each.id: AESGCM(each.key) for each in found}
            self._masters.setdefault(self.master_id, in_use)

    def wrap_key(self, key: bytes, uid: PayloadUid, *, size_bytes: int, chunk_count: int) -> bytes:
        """Wrap a payload's key, binding it to the payload's uid, length and number of chunks."""
        return self._seal(key, _WRAP.pack(_FORMAT, uid, size_bytes, chunk_count))

    def unwrap_key(self, wrapped: bytes, uid: PayloadUid, *, size_bytes: int, chunk_count: int) -> bytes:
        """Return the payload's key; VaultError where uid, length, count or key are not those it was wrapped with."""
        return self._open(wrapped, _WRAP.pack(_FORMAT, uid, size_bytes, chunk_count))

    def rewrap_key(self, wrapped: bytes, uid: PayloadUid, *, size_bytes: int, chunk_count: int) -> bytes:
        """Wrap the same key again, with the master key in use; VaultError as `unwrap_key`."""
        key = self.unwrap_key(wrapped, uid, size_bytes=size_bytes, chunk_count=chunk_count)
        return self.wrap_key(key, uid, size_bytes=size_bytes, chunk_count=chunk_count)

    def open_sealer(self, wrapped: bytes, uid: PayloadUid, *, size_bytes: int, chunk_count: int) -> Sealer:
        """Return the `Sealer` of a stored payload; VaultError as `unwrap_key`."""
        return Sealer(self.unwrap_key(wrapped, uid, size_bytes=size_bytes, chunk_count=chunk_count), uid)

    def seal_note(self, text: str) -> bytes:
        """Seal a short text that belongs to no payload, such as the name of a refused file."""
        return self._seal(text.encode(), _NOTE)

    def open_note(self, sealed: bytes) -> str:
        """Return the text; VaultError where it is not what was sealed."""
        return self._open(sealed, _NOTE).decode()

    def reseal_note(self, sealed: bytes) -> bytes:
        """Seal the same text again, with the master key in use; VaultError as `open_note`."""
        return self._seal(self._open(sealed, _NOTE), _NOTE)

    def _seal(self, plain: bytes, associated: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._masters[self.master_id].encrypt(nonce, plain, associated)

    def _open(self, sealed: bytes, associated: bytes) -> bytes:
        """Open with the master key in use, else with any other held, else with one that has come since."""
        try:
            return _open(self._masters[self.master_id], sealed, associated)
        except VaultError:
            tried = {self.master_id}
        for is_fresh in (False, True):
            if is_fresh:
                self.refresh_masters()
            for name in self._masters.keys() - tried:
                tried.add(name)
                with suppress(VaultError):
                    return _open(self._masters[name], sealed, associated)
        raise VaultError("sealed bytes do not open under any of the master keys")

    def index(self, *parts: str) -> bytes:
        """Return a keyed digest of *parts* for looking up and comparing without storing them.

        Keyed BLAKE2b (RFC 7693 section 2.9): a message authentication code like HMAC, at a third of its cost.
        """
        is_short = sum(map(len, parts)) <= _INDEXED_CHARACTERS
        return self._index(parts) if is_short else self._digest(parts)

    def _digest(self, parts: tuple[str, ...]) -> bytes:
        digest = self._indexer.copy()
        digest.update("\x1f".join(parts).encode())
        return digest.digest()


def _open(aead: AESGCM, sealed: bytes, associated: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise VaultError("sealed bytes are cut short")
    view = memoryview(sealed)
    try:
        return aead.decrypt(view[:NONCE_BYTES], view[NONCE_BYTES:], associated)
    except InvalidTag:
        raise VaultError("sealed bytes do not open under this key") from None
