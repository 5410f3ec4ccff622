"""What is accepted under the name of an upload, for comparing the two while the upload arrives.

Other bytes under a live name are a conflict.  The commit decides that, by a unique index; but several programs never
see an error at CLOSE, so the first WRITE that brings another byte is refused already.

More bytes than the accepted file has are no difference: an interrupted upload, repeated, begins with all of them.
Fewer show at the CLOSE alone.  What cannot be compared, because the file was taken back meanwhile or the store is in
trouble, is left to the commit.

A repeat is read and opened as far as it is compared, a chunk at a time; an upload under a new name costs one look-up.
"""

from __future__ import annotations

from relay.errors import Deferred, Refused
from relay.ledger import Ledger, StoredPayload
from relay.ledger.words import local_text
from relay.lifecycle import LIVE, State
from relay.model import Route, Transfer
from relay.vault import CHUNK_BYTES, Sealer, Vault, VaultError


async def find_rival(ledger: Ledger, vault: Vault, route: Route) -> Rival | None:
    """Return what holds the name of *route*, None where nothing does.

    Refused ``transfer.already_collected`` where no bytes at all can be accepted under that name any more.
    """
    earlier = await ledger.find_sent(route.sender, route.recipient, route.address.name)
    if earlier is None:
        return None
    is_free = route.address.is_free
    if earlier.state is State.DESTROYED and not is_free:
        raise Refused("transfer.already_collected", at=local_text(earlier.collected_at or earlier.accepted_at))
    if not _holds_its_name(earlier, is_free=is_free):
        return None
    try:
        payload = await ledger.open_payload(earlier.id)
        sealer = vault.open_sealer(
            payload.wrapped_key, payload.uid, size_bytes=payload.size_bytes, chunk_count=payload.chunk_count
        )
    except (LookupError, VaultError):
        return None
    return Rival(ledger, earlier, payload, sealer, is_free=is_free)


def _holds_its_name(transfer: Transfer, *, is_free: bool) -> bool:
    """True where other bytes under that name are a conflict; a free name comes again once it was collected."""
    return transfer.state in LIVE and not (is_free and transfer.state is State.COLLECTED)


class Rival:
    """An accepted file that an upload of the same name is compared with."""

    def __init__(
        self, ledger: Ledger, transfer: Transfer, payload: StoredPayload, sealer: Sealer, *, is_free: bool
    ) -> None:
        self._ledger = ledger
        self._transfer = transfer
        self._payload = payload
        self._sealer = sealer
        self._is_free = is_free
        self._number = -1
        self._plain = b""
        # There is nothing to compare with any more.
        self.is_gone = False

    def conflict(self) -> Refused:
        """Return the refusal of an upload that differs."""
        return Refused("transfer.conflict", at=local_text(self._transfer.accepted_at))

    async def differs(self, offset: int, data: bytes | memoryview) -> bool:
        """True where *data* at *offset* is not what the accepted file has there, and that file still stands."""
        view = memoryview(data)[: max(0, self._payload.size_bytes - offset)]
        while view:
            number, within = divmod(offset, CHUNK_BYTES)
            part = bytes(view[: CHUNK_BYTES - within])
            plain = await self._open(number)
            if plain is None:
                return False
            if part != plain[within : within + len(part)]:
                return await self._still_stands()
            offset, view = offset + len(part), view[len(part) :]
        return False

    def forget(self) -> None:
        """Let go of the chunk in memory; the next comparison fetches it again."""
        self._number, self._plain = -1, b""

    async def _open(self, number: int) -> bytes | None:
        if number != self._number:
            self.forget()
            try:
                self._plain = self._sealer.open_chunk(number, await self._ledger.read_chunk(self._payload, number))
            except (LookupError, VaultError, Deferred):
                self.is_gone = True
                return None
            self._number = number
        return self._plain

    async def _still_stands(self) -> bool:
        """Ask again before anything is refused: it may have been taken back or replaced, or collected, since the OPEN."""
        try:
            now = await self._ledger.find_transfer(self._transfer.id)
        except Deferred:
            now = None
        self.is_gone = now is None or not _holds_its_name(now, is_free=self._is_free)
        return not self.is_gone
