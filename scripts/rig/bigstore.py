"""A store as large as the whole country makes it: every office with a certificate, and a million transfers.

Made once in a run, by `relay office import` and the relay's own ledger (see `rig.inside`), which takes some minutes.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from rig.country import find_partners, make_country, render_country
from rig.inside import Exchange, add_transfers, record_certificates
from rig.machine import tell
from rig.servers import RelayHome

TRANSFERS = 1_000_000


class BigStore:
    """The store of *home*, which must have been initialised; it grows as it is asked to."""

    def __init__(self, home: RelayHome, folder: Path, *, fraction: float = 1.0) -> None:
        self._home = home
        self._country = make_country(fraction)
        self._partners = find_partners(self._country)
        self._exchanges = self._draw()
        self.offices = len(self._country)
        self.transfers = 0
        register = folder / "country.csv"
        register.write_text(render_country(self._country), encoding="utf-8")
        started = time.monotonic()
        home.relay("office", "import", str(register))
        tell(f"{self.offices:,} offices imported in {time.monotonic() - started:.0f} s; now their certificates")
        managers = list(self._partners)
        # The senders' first: a sender's certificate is looked for by its number.
        others = [party.number for party in self._country if not party.is_manager]
        record_certificates(home.home, [*managers, *others], _teller("certificates", self.offices))

    def grow(self, transfers: int) -> None:
        """Let there be *transfers* transfers."""
        more = transfers - self.transfers
        if more > 0:
            add_transfers(self._home.home, islice(self._exchanges, more), _teller("transfers", more))
            self.transfers = transfers

    def _draw(self) -> Iterator[Exchange]:
        """Draw who sends to whom: everybody's first partner first, then everybody's next; a new serial each round."""
        index = 0
        while True:
            for step in range(max(map(len, self._partners.values()))):
                for sender, partners in self._partners.items():
                    yield Exchange(sender, partners[step % len(partners)], index)
                index += 1


def _teller(what: str, total: int) -> Callable[[int], None]:
    started = time.monotonic()

    def tell_progress(done: int) -> None:
        rate = done / (time.monotonic() - started)
        tell(f"{done:,} of {total:,} {what}, {rate:,.0f} a second, {(total - done) / rate:.0f} s to go")

    return tell_progress
