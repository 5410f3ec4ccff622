"""An attempt at an upload: what every one works with, where it goes, and what is kept of one that came to nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from relay import journal, tree
from relay.config import Config
from relay.content import ContentCheck, Unjudged, start_check
from relay.errors import Deferred, Refused, Severity
from relay.journal import Journal
from relay.ledger import Ledger
from relay.meters import Meters
from relay.model import Identity, OfficeNumber, Route
from relay.temporary import strip_temporary
from relay.turns import Turns
from relay.vault import Vault


@dataclass(frozen=True, slots=True)
class Bench:
    """What every upload works with; one a process."""

    ledger: Ledger
    vault: Vault
    config: Config
    clock: Callable[[], datetime]
    meters: Meters = field(default_factory=Meters)
    turns: Turns = field(default_factory=Turns)

    async def refuse(
        self,
        name: str,
        folder: OfficeNumber | None,
        identity: Identity,
        refused: Refused,
        journal_: Journal,
        *,
        sha256: bytes | None = None,
    ) -> None:
        """Keep a refusal in the ledger and the journal; a store that is in trouble costs the record, not the answer.

        A note of it lies beside the name from now on, unless nothing can lie there.
        """
        journal.upload_refused(journal_, code=refused.code, detail=refused.detail)
        has_note = refused.code != "name.illegal" and tree.note_name(name) is not None
        try:
            await self.ledger.record_refusal(
                identity.office,
                name,
                refused.finding,
                folder=folder,
                has_note=has_note,
                sha256=sha256,
                now=self.clock(),
            )
        except Deferred as deferred:
            journal.upload_deferred(journal_, code=deferred.code, detail=deferred.detail)

    async def may_leave_partial(self, path: str, identity: Identity, *, others: int = 0) -> bool:
        """Tell whether what is at *path* may be kept unfinished, beside *others* that are not in the store yet."""
        if await self.ledger.count_partials(identity.office) + others < self.config.limits.partials_per_office:
            return True
        return await self.ledger.find_partial(identity.office, path) is not None

    async def note_attempt(self, path: str, identity: Identity) -> None:
        """Remember that an upload to *path* was given up; a store in trouble costs only that."""
        folder, _, name = path.rpartition("/")
        final = strip_temporary(name) or name
        with contextlib.suppress(Deferred):
            await self.ledger.note_attempt(identity.office, f"{folder}/{final}" if folder else final, now=self.clock())


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an upload goes.

    *path* is that below ``send/``.  *route* is None only for a temporary name that does not hold the final one.
    *is_renamed* where *path* was a temporary name and the route is that of the final one.
    """

    path: str
    folder: OfficeNumber | None
    route: Route | None
    is_temporary: bool = False
    is_renamed: bool = False

    @property
    def name(self) -> str:
        """The name that refusals are about."""
        return self.path.rpartition("/")[2] if self.route is None else self.route.address.name

    def start_check(self, severities: Mapping[str, Severity]) -> ContentCheck:
        """Begin to judge the content; under a temporary name it is judged at the RENAME."""
        if self.route is None or self.is_temporary:
            return Unjudged()
        return start_check(
            self.route.address,
            severities,
            sender_services=self.route.sender_services,
            recipient_services=self.route.recipient_services,
        )
