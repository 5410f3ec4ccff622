"""The busiest hour of a month, replayed against a real server: the country's register, a part of its offices, their visits.

All 181,566 offices are registered.  A part of them, chosen in each prefecture alike, takes part with keys, certificates,
partners and conforming files of their own; they come as often as the share of the country's hour asks that is tried.  The
share is doubled until an answer in a hundred takes longer than a second, and then narrowed down.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.country import Party, find_partners, make_country, render_country
from rig.figures import percentile
from rig.inside import issue_logins, make_letters
from rig.load import LOAD_PROCESSES, Outcome, prepared
from rig.machine import tell
from rig.peakhour import FILES_A_VISIT, KEPT_OPEN, REFUSED, country_rates
from rig.processes import cpu_seconds
from rig.servers import HOST, RelayHome, Running
from rig.visitors import Visits

MOST_SECONDS = 1.0
# What an office waits for.
ANSWERS = ("login", "upload", "refusal", "poll", "download")
_SLIP, _RESULTS = "UPPLAN", "UPJSK"
_MONTH = "202607"
# Letters that each acting care manager has ready; the same bytes go again under another serial.
_LETTERS = 4
_NARROWED = 2
_SHARE_LEAST, _SHARE_MOST = 0.005, 64.0
_NUMBERS_A_STEP = 100_000


@dataclass(frozen=True, slots=True)
class Step:
    """What happened while *share* of the country's busiest hour was played; *p99* and *p50* in seconds, by what was asked."""

    share: float
    wall_seconds: float
    counts: Mapping[str, int]
    p50: Mapping[str, float]
    p99: Mapping[str, float]
    server_cores: float
    load_share: float
    late_p99: float

    @property
    def is_carried(self) -> bool:
        """True where nobody was turned away or lost, and ninety-nine in a hundred of every kind were answered in time."""
        lost = self.counts.get("failed", 0) + self.counts.get("turned away", 0)
        return not lost and max(self.p99.values(), default=0.0) < MOST_SECONDS


class MonthEnd:
    """A relay with the country's register, and the offices that take part."""

    def __init__(self, folder: Path, *, fraction: float, register: float) -> None:
        self.home = RelayHome(folder / "relay")
        self._folder = folder
        country = make_country(register)
        self.offices = len(country)
        tell(f"registering {self.offices:,} offices")
        file = folder / "country.csv"
        file.write_text(render_country(country), encoding="utf-8")
        self.home.initialise(file)
        acting = list(_choose_actors(country, fraction / register))
        self.acting = len(acting)
        tell(f"{self.acting:,} of them take part: their certificates and files")
        self._population = folder / "population.json"
        self._population.write_text(json.dumps(list(self._describe(acting))), encoding="utf-8")
        self._numbers = 0

    def _describe(self, acting: Sequence[Party]) -> Iterator[dict[str, object]]:
        logins = issue_logins(self.home.home, [party.number for party in acting], self._folder / "keys")
        letters = _write_letters(acting)
        for place, (party, login) in enumerate(zip(acting, logins, strict=True)):
            # A network of its own for each, all of them this machine's.
            source = f"127.{1 + place // 65_536}.{place // 256 % 256}.{place % 254 + 1}"
            yield {
                "office": party.number,
                "key": login.key,
                "source": source,
                "letters": [
                    (stem, recipient, b64encode(content).decode()) for stem, recipient, content in letters[party.number]
                ],
            }

    def play(self, server: Running, share: float, seconds: float) -> Step:
        """Play *share* of the country's busiest hour for so many seconds."""
        rates = country_rates()
        tasks = []
        for place in range(LOAD_PROCESSES):
            self._numbers += _NUMBERS_A_STEP
            part = share / LOAD_PROCESSES
            tasks.append(
                Visits(
                    HOST,
                    server.port,
                    str(self._population),
                    place,
                    LOAD_PROCESSES,
                    rates.sendings * part,
                    rates.polls * part,
                    round(FILES_A_VISIT.value),
                    REFUSED.value,
                    KEPT_OPEN.value,
                    seconds,
                    self._numbers,
                    self._numbers,
                )
            )
        with prepared(tasks, module="rig.visitors") as load:
            before = cpu_seconds(server.pid)
            outcome = load.go()
            used = cpu_seconds(server.pid) - before
        return _judge(share, outcome, used)

    def find_share(self, server: Running, first: float, seconds: float) -> list[Step]:
        """Double the share until it is too much, or halve it until it is not, then narrow it down."""
        steps = [self._try(server, first, seconds)]
        factor = 2.0 if steps[0].is_carried else 0.5
        while steps[-1].is_carried == steps[0].is_carried and _SHARE_LEAST < steps[-1].share < _SHARE_MOST:
            steps.append(self._try(server, steps[-1].share * factor, seconds))
        for _ in range(_NARROWED):
            carried = [step.share for step in steps if step.is_carried]
            missed = [step.share for step in steps if not step.is_carried]
            if not carried or not missed:
                break
            steps.append(self._try(server, (max(carried) + min(missed)) / 2, seconds))
        return steps

    def _try(self, server: Running, share: float, seconds: float) -> Step:
        tell(f"{share:.1%} of the country's busiest hour, for {seconds:.0f} s")
        step = self.play(server, share, seconds)
        worst = max(step.p99, key=lambda what: step.p99[what], default="")
        verdict = "carried" if step.is_carried else "too much"
        tell(f"{verdict}: {sum(step.counts.values()):,} answers, worst p99 {step.p99.get(worst, 0):.2f} s ({worst})")
        return step


def _choose_actors(country: Sequence[Party], share: float) -> Iterator[Party]:
    """Choose the first of each prefecture: two at least, one of them a care manager."""
    seen: dict[str, int] = {}
    totals: dict[str, int] = {}
    for party in country:
        totals[party.prefecture.code] = totals.get(party.prefecture.code, 0) + 1
    for party in country:
        code = party.prefecture.code
        place = seen[code] = seen.get(code, 0) + 1
        if place <= max(2, round(totals[code] * share)):
            yield party


def _write_letters(acting: Sequence[Party]) -> dict[str, list[tuple[str, str, bytes]]]:
    """Make what each office may send: slips to partners, and results back from those who got one."""
    services = {party.number: party.service_type for party in acting}
    letters: dict[str, list[tuple[str, str, bytes]]] = {party.number: [] for party in acting}
    pairs = [
        (manager, services[manager], partner, services[partner])
        for manager, partners in find_partners(acting).items()
        for partner in partners[:_LETTERS]
    ]
    back = [(partner, receives_as, manager, sends_as) for manager, sends_as, partner, receives_as in pairs]
    for kind, ways in ((_SLIP, pairs), (_RESULTS, back)):
        for (sender, _, recipient, _), (stem, content) in zip(ways, make_letters(ways, kind, _MONTH), strict=True):
            letters[sender].append((stem, recipient, content))
    return letters


def _judge(share: float, outcome: Outcome, used: float) -> Step:
    answers = {what: outcome.spans[what] for what in ANSWERS if outcome.spans.get(what)}
    return Step(
        share,
        outcome.wall_seconds,
        {what: len(spans) for what, spans in outcome.spans.items() if what != "late"},
        {what: percentile(spans, 50.0) for what, spans in answers.items()},
        {what: percentile(spans, 99.0) for what, spans in answers.items()},
        used / outcome.wall_seconds,
        outcome.busiest,
        percentile(outcome.spans["late"], 99.0) if outcome.spans.get("late") else 0.0,
    )
