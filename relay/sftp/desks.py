"""The stations that an SFTP session talks to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from relay.collection import Collection
from relay.config import Config
from relay.intake import Intake
from relay.ledger import Ledger
from relay.meters import Meters
from relay.model import OfficeNumber
from relay.news import NewsDesk
from relay.receipts import ReceiptDesk
from relay.renewal import RenewalDesk
from relay.sftp.limits import Shares
from relay.status import StatusDesk


@dataclass(frozen=True, slots=True)
class Desks:
    """One set a process, shared by all sessions."""

    ledger: Ledger
    intake: Intake
    collection: Collection
    status: StatusDesk
    receipts: ReceiptDesk
    news: NewsDesk
    renewal: RenewalDesk
    config: Config
    clock: Callable[[], datetime]
    shares: Shares
    meters: Meters = field(default_factory=Meters)
    # How far each office has read a listing of what was sent to it, to the end: the newest number in it.
    shown: dict[OfficeNumber, int] = field(default_factory=dict)
