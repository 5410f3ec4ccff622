"""The ledger's contract for uploads in progress: staged, shortened, given up, abandoned, taken up again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

import pytest
from ledgers import NOW, SECOND, A, B, C, Shop, large

from relay.errors import Refused
from relay.ledger import Partial, SealedChunk, Shelf
from relay.model import PayloadId
from relay.vault import CHUNK_BYTES, new_uid


async def _refusal(work: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


# --- staging -----------------------------------------------------------------------------------------------------


async def test_staged_chunks_become_the_transfer(shop: Shop) -> None:
    """Chunks that were brought in while they arrived and the last ones with the commit make the whole file."""
    content = large(5)
    parcel = shop.parcel(content)
    staged = await parcel.stage(shop.ledger, 1, 0)
    assert await parcel.stage(shop.ledger, 2) == staged
    assert await shop.ledger.read_staged(staged, 1) == parcel.chunks[1].sealed
    sent = (await shop.ledger.commit_transfer(parcel.draft(), now=NOW)).transfer
    assert await shop.content(sent.id) == content


async def test_a_staged_upload_is_invisible(shop: Shop) -> None:
    """Until the commit no office sees anything of it."""
    await shop.parcel(large()).stage(shop.ledger)
    assert await shop.ledger.list_transfers() == []
    assert (await shop.ledger.list_shelf(B, Shelf.NEW)).entries == ()
    assert (await shop.ledger.list_sent(A, None, now=NOW)).entries == ()


async def test_a_staged_chunk_may_be_replaced(shop: Shop) -> None:
    """What a client writes over is sealed again under the same number, staged or with the commit."""
    content = bytearray(large(4))
    parcel = shop.parcel(bytes(content))
    staged = await parcel.stage(shop.ledger, 0, 1, 2)
    content[0:5] = b"first"
    content[CHUNK_BYTES : CHUNK_BYTES + 6] = b"second"
    again = [
        SealedChunk(
            number, parcel.sealer.seal_chunk(number, content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
        )
        for number in (0, 1)
    ]
    await shop.ledger.stage_chunks(staged, parcel.uid, A, again[:1], now=NOW)
    parcel.travelling.append(again[1])
    sent = (await shop.ledger.commit_transfer(parcel.draft(), now=NOW)).transfer
    assert await shop.content(sent.id) == bytes(content)


async def test_an_upload_that_was_shortened_keeps_nothing_behind_its_end(shop: Shop) -> None:
    """Chunks behind the new end are gone, more of them than fit a step, and the file is whole without them."""
    content = large(40)
    parcel = shop.parcel(content)
    staged = await parcel.stage(shop.ledger)
    short = shop.parcel(content[: CHUNK_BYTES + 7])
    short.uid, short.key, short.sealer, short.staged = parcel.uid, parcel.key, parcel.sealer, staged
    short.travelling = [SealedChunk(1, parcel.sealer.seal_chunk(1, short.content[CHUNK_BYTES:]))]
    sent = (await shop.ledger.commit_transfer(short.draft(), now=NOW)).transfer
    assert await shop.content(sent.id) == short.content
    with pytest.raises(LookupError):
        await shop.ledger.read_staged(staged, 2)


async def test_a_payload_that_lacks_a_chunk_is_no_transfer(shop: Shop) -> None:
    """A missing chunk is noticed in the commit, staged or not, and nothing of the file is accepted."""
    parcel = shop.parcel(large(3))
    del parcel.travelling[1]
    with pytest.raises(ValueError, match="chunks"):
        await shop.ledger.commit_transfer(parcel.draft(), now=NOW)
    parcel = shop.parcel(large(3))
    await parcel.stage(shop.ledger, 0, 2)
    parcel.travelling.clear()
    with pytest.raises(ValueError, match="chunks"):
        await shop.ledger.commit_transfer(parcel.draft(), now=NOW)
    assert await shop.ledger.list_transfers() == []


async def test_a_discarded_upload_is_gone(shop: Shop) -> None:
    """Nothing can be added to it, read from it or made of it any more, and discarding it again does no harm."""
    parcel = shop.parcel(large(40))
    staged = await parcel.stage(shop.ledger)
    await shop.ledger.discard_staged(staged)
    await shop.ledger.discard_staged(staged)
    await shop.ledger.discard_staged(PayloadId(999))
    with pytest.raises(LookupError):
        await shop.ledger.read_staged(staged, 0)
    with pytest.raises(LookupError):
        await parcel.stage(shop.ledger, 0)
    assert (await _refusal(shop.ledger.commit_transfer(parcel.draft(), now=NOW))).code == "upload.unfinished"


async def test_discarding_takes_nothing_from_what_was_committed(shop: Shop) -> None:
    """A connection that is lost while its commit is answered gives up an upload that is a transfer already."""
    content = large()
    parcel = shop.parcel(content)
    staged = await parcel.stage(shop.ledger)
    committing = asyncio.ensure_future(shop.ledger.commit_transfer(parcel.draft(), now=NOW))
    await asyncio.sleep(0)
    discarding = asyncio.ensure_future(shop.ledger.discard_staged(staged))
    sent = (await committing).transfer
    await discarding
    assert await shop.content(sent.id) == content


async def test_an_upload_belongs_to_its_uid(shop: Shop) -> None:
    """Who guesses the number of another upload in progress adds nothing to it."""
    staged = await shop.parcel(large()).stage(shop.ledger)
    with pytest.raises(LookupError):
        await shop.ledger.stage_chunks(staged, new_uid(), C, [], now=NOW)


async def test_only_uploads_left_alone_are_abandoned(shop: Shop) -> None:
    """Staged long ago and touched since: kept. Not touched: removed. Committed: untouched, however old."""
    old = NOW - timedelta(days=2)
    slow, left, content = shop.parcel(large()), shop.parcel(large(40)), large()
    kept = await slow.stage(shop.ledger, 0, now=old)
    gone = await left.stage(shop.ledger, now=old)
    await slow.stage(shop.ledger, 1, now=NOW)
    sent = await shop.send(content)
    assert await shop.ledger.remove_abandoned(before=NOW - timedelta(days=1)) == 1
    assert await shop.ledger.read_staged(kept, 0)
    with pytest.raises(LookupError):
        await shop.ledger.read_staged(gone, 0)
    assert await shop.ledger.remove_abandoned(before=NOW + timedelta(days=9)) == 1
    assert await shop.content(sent.id) == content


async def test_more_abandoned_uploads_than_one_page_are_removed_in_one_go(shop: Shop) -> None:
    """After a crash under load nothing waits for the next day."""
    for _ in range(70):
        await shop.parcel(b"x").stage(shop.ledger, 0)
    assert await shop.ledger.remove_abandoned(before=NOW + SECOND) == 70


async def test_a_touch_beats_the_housekeeper(shop: Shop) -> None:
    """An upload that is touched between the list of abandoned ones and its removal is kept."""
    slow = shop.parcel(large())
    staged = await slow.stage(shop.ledger, 0, now=NOW - timedelta(days=2))
    # Both wait for the same transaction: the chunk was submitted first.
    touching = asyncio.ensure_future(slow.stage(shop.ledger, 1, now=NOW))
    await asyncio.sleep(0)
    assert await shop.ledger.remove_abandoned(before=NOW - timedelta(days=1)) == 0
    assert await touching == staged
    assert (await shop.ledger.commit_transfer(slow.draft(), now=NOW)).transfer.id


# --- taken up again ----------------------------------------------------------------------------------------------


def _partial(shop: Shop, path: str = "x.csv.part", holder: bytes = b"first holder") -> Partial:
    parcel = shop.parcel(large())
    wrapped = shop.vault.wrap_key(parcel.key, parcel.uid, size_bytes=0, chunk_count=0)
    return Partial(A, path, None, None, parcel.uid, holder, wrapped, len(parcel.content), True, True, NOW, NOW)


CHUNK = [SealedChunk(0, b"sealed")]


async def test_a_partial_is_kept_for_its_owner(shop: Shop) -> None:
    """It is found by its path in any letter case, listed in its folder, and seen by nobody else."""
    kept = await shop.ledger.save_partial(_partial(shop), CHUNK, now=NOW)
    assert await shop.ledger.find_partial(A, "X.csv.PART") == kept
    assert await shop.ledger.list_partials(A, None) == [kept]
    assert await shop.ledger.list_partials(A, B) == []
    assert await shop.ledger.list_partials(B, None) == []
    assert await shop.ledger.find_partial(B, kept.path) is None
    assert kept.payload is not None
    assert await shop.ledger.read_staged(kept.payload, 0) == b"sealed"
    assert await shop.ledger.list_transfers() == []


async def test_who_takes_a_partial_over_shuts_the_old_handle_out(shop: Shop) -> None:
    """A dead connection's handle can neither add to it nor save over it."""
    kept = await shop.ledger.save_partial(_partial(shop), CHUNK, now=NOW)
    taken = await shop.ledger.take_over(A, kept.path, b"second holder", now=NOW)
    assert taken is not None
    assert taken.holder == b"second holder"
    with pytest.raises(LookupError):
        await shop.ledger.stage_chunks(kept.payload, kept.uid, A, CHUNK, holder=kept.holder, now=NOW)
    with pytest.raises(LookupError):
        await shop.ledger.save_partial(kept, CHUNK, now=NOW)
    await shop.ledger.stage_chunks(kept.payload, kept.uid, A, CHUNK, holder=taken.holder, now=NOW)
    assert await shop.ledger.take_over(A, "nothing.part", b"x", now=NOW) is None
    assert await shop.ledger.take_over(B, kept.path, b"x", now=NOW) is None


async def test_each_partial_that_expires_is_told_once(shop: Shop) -> None:
    """More of them than a page: each leaves upload.unfinished for its sender, and its bytes go."""
    kept = [await shop.ledger.save_partial(_partial(shop, f"{n}.csv.part"), CHUNK, now=NOW) for n in range(70)]
    later, now = NOW + SECOND, NOW + timedelta(days=1)
    assert await shop.ledger.expire_partials(before=later, now=now) == 70
    assert await shop.ledger.expire_partials(before=later, now=now) == 0
    refusals = await shop.ledger.list_refusals(A, since=NOW)
    assert {refusal.finding.code for refusal in refusals} == {"upload.unfinished"}
    assert {refusal.name for refusal in refusals} == {each.path.removesuffix(".part") for each in kept}
    assert await shop.ledger.remove_abandoned(before=later) == 70
    assert await shop.ledger.list_partials(A, None) == []


async def test_a_partial_that_was_taken_up_again_does_not_expire(shop: Shop) -> None:
    """Left for a day and taken over a minute ago: it is an upload in progress, and its sender is told nothing."""
    kept = await shop.ledger.save_partial(_partial(shop), CHUNK, now=NOW)
    later = NOW + timedelta(days=1)
    await shop.ledger.take_over(A, kept.path, b"second holder", now=later)
    assert await shop.ledger.expire_partials(before=NOW + SECOND, now=later) == 0
    assert await shop.ledger.remove_abandoned(before=NOW + SECOND) == 0
    assert await shop.ledger.list_refusals(A, since=NOW) == []


async def test_a_partial_whose_bytes_are_being_removed_cannot_be_taken_over(shop: Shop) -> None:
    """Removal goes in slices; who comes in between finds nothing rather than half."""
    many = [SealedChunk(number, b"sealed") for number in range(40)]
    kept = await shop.ledger.save_partial(_partial(shop), many, now=NOW)
    assert kept.payload is not None
    removing = asyncio.ensure_future(shop.ledger.discard_staged(kept.payload))
    await asyncio.sleep(0)
    assert await shop.ledger.take_over(A, kept.path, b"late", now=NOW) is None
    await removing
    assert await shop.ledger.find_partial(A, kept.path) is None


async def test_a_dropped_partial_is_gone(shop: Shop) -> None:
    """Once is news, twice is not."""
    kept = await shop.ledger.save_partial(_partial(shop), CHUNK, now=NOW)
    assert await shop.ledger.drop_partial(A, kept.path)
    assert not await shop.ledger.drop_partial(A, kept.path)
    assert await shop.ledger.find_partial(A, kept.path) is None
