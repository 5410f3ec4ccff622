"""What the sessions of one certificate hold together, and how a limit that a session runs into is journalled.

Each session has limits of its own; these are for all sessions of a certificate, so that opening more of them gains
nothing.  Two offices behind one address, or two computers of an office with a certificate each, share nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from relay.config import LimitSettings
from relay.errors import Deferred, Refused
from relay.journal import Journal, LimitEnd, LimitLog
from relay.model import CertificateId, Identity, OfficeNumber

if TYPE_CHECKING:
    from relay.sftp.handles import Handles

# Code → the setting, where the refusal does not name it, and what ends it.
_LIMITS: Mapping[str, tuple[str, LimitEnd]] = MappingProxyType(
    {
        "limit.size": ("upload_bytes", LimitEnd.SMALLER),
        "limit.quota": ("stored_bytes_per_office", LimitEnd.STORED_LESS),
        "limit.partials": ("partials_per_office", LimitEnd.FINISHED),
        "limit.rate": ("transfers_per_minute", LimitEnd.CAUGHT_UP),
        "limit.handles": ("handles_per_session", LimitEnd.HANDLE_CLOSED),
    }
)
_Key = tuple[OfficeNumber, CertificateId]


@dataclass(slots=True, eq=False)
class Share:
    """What the sessions of one certificate hold of *limits*, as one office."""

    limits: LimitSettings
    members: list[Handles] = field(default_factory=list)
    requests: int = 0

    @property
    def has_room_for_request(self) -> bool:
        """True while one more request may be worked on."""
        return self.requests < self.limits.requests_per_certificate

    @property
    def has_room_for_handle(self) -> bool:
        """True while one more handle may be opened."""
        return sum(handles.count for handles in self.members) < self.limits.handles_per_certificate


class Shares:
    """The shares of everybody who has a session in this process, and what was told of their limits."""

    def __init__(self, limits: LimitSettings) -> None:
        """Begin with nobody."""
        self._limits = limits
        self.limit_log = LimitLog()
        self._shares: dict[_Key, Share] = {}

    def join(self, identity: Identity, handles: Handles) -> Share:
        """Return the share of *identity*, with *handles* among its members."""
        key = (identity.office, identity.certificate)
        share = self._shares.setdefault(key, Share(self._limits))
        share.members.append(handles)
        return share

    def leave(self, identity: Identity, handles: Handles) -> None:
        """Take *handles* out of the share of *identity*."""
        key = (identity.office, identity.certificate)
        share = self._shares[key]
        share.members.remove(handles)
        if not share.members:
            del self._shares[key]

    def tell(self, journal: Journal, error: Refused | Deferred, office: OfficeNumber, now: datetime) -> None:
        """Journal *error* as a limit where it is one; once as long as it holds, whichever session meets it."""
        if error.code not in _LIMITS:
            return
        limit, until = _LIMITS[error.code]
        seconds = dict(error.finding.facts).get("seconds")
        ends = until if seconds is None else now + timedelta(seconds=int(seconds))
        named = error.detail if error.detail in LimitSettings.model_fields else limit
        self.limit_log.reached(journal, limit=named, scope=office, until=ends, now=now)
