"""The vault under whatever is done to sealed bytes: what was changed in any way does not open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model import PayloadUid
from relay.vault import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    UID_BYTES,
    MasterKey,
    Sealer,
    Vault,
    VaultError,
    new_key,
    new_uid,
)

contents = st.binary(max_size=200)
numbers = st.integers(0, 2**64 - 1)
uids = st.binary(min_size=UID_BYTES, max_size=UID_BYTES).map(PayloadUid)
KEY, UID = new_key(), new_uid()
SEALER = Sealer(KEY, UID)
VAULT = Vault(MasterKey("m", new_key()), new_key())


def _flip(sealed: bytes, bit: int) -> bytes:
    place, shift = divmod(bit % (len(sealed) * 8), 8)
    changed = bytearray(sealed)
    changed[place] ^= 1 << shift
    return bytes(changed)


def _refuses(open_: Callable[[], object]) -> None:
    with pytest.raises(VaultError):
        open_()


@given(contents, numbers)
def test_what_was_sealed_opens(content: bytes, number: int) -> None:
    """The same key, uid and number give the bytes back, from bytes, bytearray and memoryview."""
    for form in (bytes, bytearray, memoryview):
        sealed = SEALER.seal_chunk(number, form(content))
        assert len(sealed) == len(content) + NONCE_BYTES + TAG_BYTES
        assert Sealer(KEY, UID).open_chunk(number, sealed) == content


@given(contents, numbers, st.integers(0))
def test_any_changed_bit_keeps_a_chunk_shut(content: bytes, number: int, bit: int) -> None:
    """Nonce, ciphertext or tag: one bit is enough."""
    _refuses(lambda: SEALER.open_chunk(number, _flip(SEALER.seal_chunk(number, content), bit)))


@given(contents, numbers, st.integers(0, 400), st.binary(min_size=1, max_size=40))
def test_a_cut_or_lengthened_chunk_stays_shut(content: bytes, number: int, cut: int, more: bytes) -> None:
    """Any beginning of a sealed chunk, and any chunk with something behind it."""
    sealed = SEALER.seal_chunk(number, content)
    _refuses(lambda: SEALER.open_chunk(number, sealed[: cut % len(sealed)]))
    _refuses(lambda: SEALER.open_chunk(number, sealed + more))


@given(contents, numbers, numbers)
def test_a_chunk_opens_under_its_own_number_only(content: bytes, number: int, other: int) -> None:
    """Two chunks of one payload cannot be exchanged."""
    if number != other:
        _refuses(lambda: SEALER.open_chunk(other, SEALER.seal_chunk(number, content)))


@given(contents, uids)
def test_a_chunk_opens_under_its_own_payload_only(content: bytes, uid: PayloadUid) -> None:
    """Not under another uid, though the key be the same, and not under another key."""
    sealed = SEALER.seal_chunk(0, content)
    if uid != UID:
        _refuses(lambda: Sealer(KEY, uid).open_chunk(0, sealed))
    _refuses(lambda: Sealer(new_key(), UID).open_chunk(0, sealed))


@given(st.text(max_size=40).filter(lambda text: text.isprintable()), st.integers(0))
def test_a_name_opens_unchanged_or_not_at_all(name: str, bit: int) -> None:
    """A sealed name is neither a chunk nor another payload's name."""
    sealed = SEALER.seal_name(name)
    assert SEALER.open_name(sealed) == name
    _refuses(lambda: SEALER.open_name(_flip(sealed, bit)))
    _refuses(lambda: Sealer(KEY, new_uid()).open_name(sealed))
    _refuses(lambda: SEALER.open_chunk(0, sealed))
    _refuses(lambda: SEALER.open_name(SEALER.seal_chunk(0, name.encode())))


@given(st.integers(1, 2**63), st.integers(1, 2**40), st.integers(1, 1000), st.integers(0))
def test_a_wrapped_key_holds_length_count_and_uid(size: int, count: int, off: int, bit: int) -> None:
    """A payload that is said to be longer, shorter, in fewer chunks or another's gives no key."""
    wrapped = VAULT.wrap_key(KEY, UID, size_bytes=size, chunk_count=count)
    assert VAULT.unwrap_key(wrapped, UID, size_bytes=size, chunk_count=count) == KEY
    _refuses(lambda: VAULT.unwrap_key(wrapped, UID, size_bytes=size + off, chunk_count=count))
    _refuses(lambda: VAULT.unwrap_key(wrapped, UID, size_bytes=size, chunk_count=count + off))
    _refuses(lambda: VAULT.unwrap_key(wrapped, new_uid(), size_bytes=size, chunk_count=count))
    _refuses(lambda: VAULT.unwrap_key(_flip(wrapped, bit), UID, size_bytes=size, chunk_count=count))
    other = Vault(MasterKey("m", new_key()), new_key())
    _refuses(lambda: other.open_sealer(wrapped, UID, size_bytes=size, chunk_count=count))


@given(st.binary(max_size=100))
def test_whatever_is_given_only_vault_errors_come_out(junk: bytes) -> None:
    """Bytes that nobody sealed are told as such, however short."""
    _refuses(lambda: SEALER.open_chunk(0, junk))
    _refuses(lambda: SEALER.open_name(junk))
    _refuses(lambda: VAULT.open_note(junk))
    _refuses(lambda: VAULT.unwrap_key(junk, UID, size_bytes=1, chunk_count=1))


@given(st.text(max_size=60).filter(lambda text: text.isprintable()), st.integers(0))
def test_a_note_opens_unchanged_or_not_at_all(text: str, bit: int) -> None:
    """Notes are sealed by the master key and cannot pass for a wrapped key."""
    sealed = VAULT.seal_note(text)
    assert VAULT.open_note(sealed) == text
    _refuses(lambda: VAULT.open_note(_flip(sealed, bit)))
    _refuses(lambda: VAULT.open_note(VAULT.wrap_key(KEY, UID, size_bytes=1, chunk_count=1)))


def test_nonces_never_repeat() -> None:
    """The same bytes under the same number, sealed 20,000 times, in every kind of sealing."""
    sealed = [SEALER.seal_chunk(0, b"same") for _ in range(20_000)]
    sealed += [SEALER.seal_name("same") for _ in range(2_000)]
    assert len({each[:NONCE_BYTES] for each in sealed}) == len(sealed)
    wrapped = [VAULT.wrap_key(KEY, UID, size_bytes=1, chunk_count=1) for _ in range(2_000)]
    wrapped += [VAULT.seal_note("same") for _ in range(2_000)]
    assert len({each[:NONCE_BYTES] for each in wrapped}) == len(wrapped)


def test_keys_and_uids_are_drawn_anew() -> None:
    """No two payloads share a key or a uid."""
    assert len({new_key() for _ in range(1_000)}) == len({new_uid() for _ in range(1_000)}) == 1_000
    assert {len(new_key())} == {KEY_BYTES}


@given(st.lists(st.text(max_size=10), min_size=1, max_size=4), st.lists(st.text(max_size=10), min_size=1, max_size=4))
def test_an_index_key_tells_its_parts_apart(one: list[str], other: list[str]) -> None:
    """The same parts give the same key, others another, and another index key nothing comparable."""
    clean = [[part.replace("\x1f", "") for part in parts] for parts in (one, other)]
    assert (VAULT.index(*clean[0]) == VAULT.index(*clean[1])) == (clean[0] == clean[1])
    assert VAULT.index(*clean[0]) != Vault(MasterKey("m", new_key()), new_key()).index(*clean[0])
