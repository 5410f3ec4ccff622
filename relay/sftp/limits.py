"""What the sessions of one certificate hold together, and how a limit that a session runs into is journalled.

Each session has limits of its own; these are for all sessions of a certificate, whichever workers they are with, so
that opening more of them gains nothing.  Two offices behind one address, or two computers of an office with a certificate each, share nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from relay.common import Common, Tally
from relay.config import LimitSettings
from relay.errors import Deferred, Refused
from relay.journal import Journal, LimitEnd, LimitLog
from relay.model import Identity, OfficeNumber

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


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What the sessions of one certificate hold of *limits*, as one office: found once a session, then only counted."""

    limits: LimitSettings
    requests: Tally
    handles: Tally

    @property
    def has_room_for_request(self) -> bool:
        """True while one more request may be worked on."""
        return self.requests.total < self.limits.requests_per_certificate

    def take_handle(self) -> bool:
        """Count one more handle; False where there is no room for it."""
        return self.handles.take(self.limits.handles_per_certificate)

    def close(self) -> None:
        """Know that a session has ended; what it held was counted off."""
        self.requests.close()
        self.handles.close()


class Shares:
    """Where everybody who has a session in this worker finds a share, and what was told of their limits."""

    def __init__(self, limits: LimitSettings, common: Common | None = None) -> None:
        """Begin with nobody here."""
        self._limits = limits
        self._common = common or Common.alone()
        self.limit_log = LimitLog(common)

    def join(self, identity: Identity) -> Share:
        """Return the share of *identity* for one more session, which closes it in the end."""
        certificate = identity.certificate
        scope = f"{identity.office} {certificate.ca_fingerprint} {certificate.serial}"
        requests = self._common.count("requests_per_certificate", scope)
        return Share(self._limits, requests, self._common.count("handles_per_certificate", scope))

    def tell(self, journal: Journal, error: Refused | Deferred, office: OfficeNumber, now: datetime) -> None:
        """Journal *error* as a limit where it is one; once as long as it holds, whichever session meets it."""
        if error.code not in _LIMITS:
            return
        limit, until = _LIMITS[error.code]
        seconds = dict(error.finding.facts).get("seconds")
        ends = until if seconds is None else now + timedelta(seconds=int(seconds))
        named = error.detail if error.detail in LimitSettings.model_fields else limit
        self.limit_log.reached(journal, limit=named, scope=office, until=ends, now=now)
