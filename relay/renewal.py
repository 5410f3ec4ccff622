"""Renewal: an office that is logged in exchanges its certificate by itself, and is told in time that it has to.

A new public key that is put into ``certificate/`` becomes a certificate there, for the offices of the one that is in
use as far as they still take part, with its label and its limits.  It remembers what it was renewed from, so that
revoking that one revokes it too.  Old and new are good side by side; who is logged in with the new one may give up
what it came from, and nothing else, by removing its file.

What is told of an end to come: at each level of `relay.notices` once for every certificate, and on each of the last days.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay import journal
from relay.authority import UserCa
from relay.certificates import BACKDATED, CertificateRejected, fingerprint_of_line
from relay.common import Common
from relay.config import Config
from relay.connecting import known_hosts_lines
from relay.errors import Refused
from relay.issuing import Wish, issue
from relay.journal import Journal
from relay.keyfiles import read_public_key
from relay.ledger import Ledger
from relay.model import (
    Certificate,
    CertificateId,
    CertificateKind,
    Identity,
    OfficeNumber,
    OfficeStatus,
    RevocationCause,
    fold_name,
)
from relay.notices import Ending, level_of, render_ending, render_guide, say_ending
from relay.tree import CERTIFICATE_SUFFIX, GUIDE, KNOWN_HOSTS

_DAY_SECONDS = 86_400
_DAILY_DAYS = 7
# No level lasts longer.
_LEVEL_SECONDS = 30 * _DAY_SECONDS
_A_DAY = timedelta(days=1)
_ENDED = {OfficeStatus.CLOSED: "office.collect_only", OfficeStatus.MOVED: "office.moved"}
# How many announcements are remembered; who is told once more is not harmed.
_TOLD_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """A generated file: its name, what it holds, and since when."""

    name: str
    data: bytes
    changed_at: datetime


class RenewalDesk:
    """Answers for ``certificate/`` and for what is told of ends to come; one a process."""

    def __init__(
        self, ledger: Ledger, config: Config, clock: Callable[[], datetime], common: Common | None = None
    ) -> None:
        self._common = common or Common.alone()
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._told: dict[tuple[CertificateId, int], None] = {}
        # The lines of the host CAs, the current one first.
        self.host_cas: Sequence[str] = ()
        # None where certificates are issued on a machine apart, or nobody has said the passphrase.
        self.ca: UserCa | None = None

    @property
    def can_renew(self) -> bool:
        """True where this relay makes certificates by itself."""
        return self.ca is not None and self._config.certificates.renewal

    async def submit(self, identity: Identity, name: str, data: bytes, journal_: Journal) -> Certificate:
        """Make a certificate for the public key *data* that was put into ``certificate/`` as *name*.pub.

        The same key again, on the same certificate, is the same certificate.  Refused with a ``certificate.`` code,
        or as `relay.issuing.issue` says.
        """
        line = read_public_key(data)
        if (earlier := await self._find_repeat(identity, line)) is not None:
            return earlier
        if self.ca is None or not self._config.certificates.renewal:
            raise Refused("certificate.not_issued_here")
        parent = await self._ledger.find_certificate(*identity.certificate)
        if parent is None:
            raise Refused("office.revoked")
        if parent.kind is CertificateKind.X509:
            # A certificate of ours would live on when the outside CA revokes this one.
            raise Refused("certificate.not_issued_here")
        await self._refuse_too_often(identity.office)
        wish = Wish(
            line,
            await self._find_active(parent.offices, identity.office),
            self._plan_seconds(parent),
            label=parent.label,
            name=name,
            parent=parent.id,
            source_address=identity.source_address,
            most=self._config.certificates.valid_per_office,
            needs_new_key=True,
        )
        made = await issue(self._ledger, self.ca, wish, actor=identity.office, now=self._clock())
        journal.certificate_renewed(journal_, serial=made.serial, parent=parent.serial)
        return made

    def _plan_seconds(self, parent: Certificate) -> int:
        """Return how long the new one is good: as set, but no longer than what the operator gave its parent."""
        own = parent.valid_before - parent.valid_after - BACKDATED
        return min(self._config.certificates.valid_days * _DAY_SECONDS, max(1, int(own.total_seconds())))

    async def _refuse_too_often(self, office: OfficeNumber) -> None:
        """Refuse what no office needs: whoever renews and gives up in a circle would fill the register."""
        most, since = self._config.certificates.valid_per_office, self._clock() - _A_DAY
        known = await self._ledger.list_certificates(office=office, limit=2 * most)
        if len(known) >= 2 * most and known[-1].issued_at > since:
            raise Refused("certificate.too_many", limit=most, detail="renewed too often within a day")

    async def _find_repeat(self, identity: Identity, line: str) -> Certificate | None:
        try:
            key = fingerprint_of_line(line)
        except CertificateRejected:
            return None
        found = await self._ledger.list_certificates(key_fingerprint=key, is_revoked=False)
        return next((one for one in found if one.parent == identity.certificate), None)

    async def _find_active(self, offices: Sequence[OfficeNumber], own: OfficeNumber) -> list[OfficeNumber]:
        """Return those that still take part, the one that is logged in first."""
        found = [await self._ledger.find_office(number) for number in offices]
        active = {office.number for office in found if office is not None and office.is_active}
        if own not in active:
            # One that has ended may still be in, for a while that its certificate lasts or the operator sees to.
            statuses = {office.number: office.status for office in found if office is not None}
            raise Refused(_ENDED.get(statuses.get(own, OfficeStatus.SUSPENDED), "office.suspended"), office=own)
        return [own, *sorted(active - {own})]

    async def give_up(self, identity: Identity, file: str, journal_: Journal) -> None:
        """Revoke the certificate of that *file*, which the one in use was renewed from.

        Refused ``certificate.in_use`` and ``certificate.not_replaced``; ``tree.not_found`` where there is none.
        """
        now = self._clock()
        shown = {fold_name(name): one for name, one in await self._list_files(identity.office, now)}
        given = shown.get(fold_name(file))
        if given is None:
            raise Refused("tree.not_found")
        if given.id == identity.certificate:
            raise Refused("certificate.in_use")
        if given.id not in await self._list_ancestors(identity.certificate):
            raise Refused("certificate.not_replaced")
        await self._ledger.revoke_certificates(
            [given.id],
            cause=RevocationCause.REPLACED,
            reason="given up by its office",
            keep_renewed=True,
            actor=identity.office,
            now=now,
        )
        journal.certificate_given_up(journal_, serial=given.serial)

    async def _list_ancestors(self, which: CertificateId) -> set[CertificateId]:
        ancestors: set[CertificateId] = set()
        found = await self._ledger.find_certificate(*which)
        while found is not None and found.parent is not None and found.parent not in ancestors:
            ancestors.add(found.parent)
            found = await self._ledger.find_certificate(*found.parent)
        return ancestors

    # --- what is seen --------------------------------------------------------------------------------------------

    async def list_pages(self, identity: Identity) -> list[Page]:
        """Return what lies in ``certificate/``."""
        now = self._clock()
        files = await self._list_files(identity.office, now)
        pages = [Page(name, f"{one.line}\n".encode(), one.issued_at) for name, one in files]
        hosts = "".join(f"{line}\n" for line in known_hosts_lines(self._config, self.host_cas)).encode()
        guide = render_guide(self._config, can_renew=self.can_renew)
        return [Page(GUIDE, guide, now), Page(KNOWN_HOSTS, hosts, now), *pages]

    async def find_notice(self, identity: Identity) -> tuple[bytes, datetime] | None:
        """Return what stands in the notice of ends to come, and since when; None where there are none."""
        now = self._clock()
        endings = await self._list_endings(identity)
        if not endings:
            return None
        data = render_ending(self._config, endings, now, can_renew=self.can_renew)
        return data, max(ending.announced_at(now) for ending in endings)

    async def announce(self, identity: Identity) -> str | None:
        """Return what is to be said at this login of the certificate in use, None where it was said already."""
        now = self._clock()
        ending = next((each for each in await self._list_endings(identity) if each.is_in_use), None)
        if ending is None:
            return None
        days = ending.days_left(now)
        # Each level once, and each of the last days: programs come every five minutes.
        told = (identity.certificate, days if days <= _DAILY_DAYS else level_of(ending.valid_before, now) or days)
        if told in self._told:
            return None
        if len(self._told) >= _TOLD_MOST:
            self._told.clear()
        self._told[told] = None
        # A program that comes every five minutes comes to every worker.
        scope = f"{identity.certificate.ca_fingerprint} {identity.certificate.serial} {told[1]}"
        if not self._common.say_once("ending", scope, _LEVEL_SECONDS):
            return None
        return say_ending(ending, now, can_renew=self.can_renew)

    async def _list_endings(self, identity: Identity) -> list[Ending]:
        """Return the certificates of this office that end soon and whose holders did not renew them."""
        now = self._clock()
        valid = await self._list_valid(identity.office, now)
        replaced = {one.parent for one in valid}
        return [
            Ending(one.label, one.serial, one.valid_before, is_in_use=one.id == identity.certificate)
            for one in valid
            # Whoever made an outside one tells of its end, and how it is renewed.
            if one.kind is CertificateKind.OPENSSH
            and level_of(one.valid_before, now) is not None
            and (one.id not in replaced or one.id == identity.certificate)
        ]

    async def _list_valid(self, office: OfficeNumber, now: datetime) -> list[Certificate]:
        found = await self._ledger.list_certificates(office=office, is_revoked=False)
        return [one for one in found if one.valid_before > now]

    async def _list_files(self, office: OfficeNumber, now: datetime) -> list[tuple[str, Certificate]]:
        """Return each valid certificate with its file's name: the newest ever of a name has it, others their serial too.

        A name means one certificate for good.  Did the next one take it when the first was given up, a REMOVE that
        is repeated would give up that one as well.
        """
        taken: set[str] = set()
        named: list[tuple[str, Certificate]] = []
        for one in await self._ledger.list_certificates(office=office):
            stem = one.name or one.offices[0]
            if fold_name(stem) in taken:
                stem = f"{stem}-{one.serial % 1_000_000:06}"
            taken.add(fold_name(stem))
            if one.line and one.revoked_at is None and one.valid_before > now:
                named.append((stem + CERTIFICATE_SUFFIX, one))
        return named
