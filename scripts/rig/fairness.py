"""Workload (n): what one office that sends as fast as it can does to another's answers.

The quiet office is measured in turn alone, while the greedy one sends to a relay of its own beside, and while it sends to
the same relay.  The second tells what the machine makes of it: the same clients and the same work of a server take the
processors and the disk from the quiet office's client and relay, and share neither process nor store with them.  Each
turn is compared with the others of its round, and the median of the rounds counts.

With one worker and with as many as there are processors, clients and relays share all of these.  Then relays have half of
them, with a worker for each, and of the other half the quiet office's client has one for itself: it keeps time, and what it
finds is the relay's.
"""

import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

from rig.apart import halves, kept_on, pinned
from rig.figures import Figure, percentile
from rig.load import Outcome, Task, prepared
from rig.machine import tell
from rig.servers import RelayHome, Running
from rig.sides import Bench, make_relay
from rig.workloads import Side, deal, task_of, warm_up

# The one that is disturbed: a file every twenty-fifth of a second, as no office sends them, for enough of them to count.
_QUIET_RATE = 25.0
_QUIET_LANES = 4
_GREEDY_LANES = 16
_FAIR = 2.0
_LEAST_SECONDS = 2.0
# A turn takes so much of what a run at a steady pace does: a hundred files of the quiet office.
_PART_OF_PACE = 7.5
_ALONE, _ELSEWHERE, _HERE = "alone", "beside another relay", "beside a greedy office"


@dataclass(slots=True)
class _Found:
    """What was measured in one form: the quiet office's times, round by round, and what the greedy one did.

    *late* is how far behind its moments the quiet office's client began beside the greedy one.
    """

    form: str
    spans: dict[str, list[Sequence[float]]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
    busiest: float = 0.0

    def note(self, where: str, quiet: Outcome, greedy: Outcome | None) -> None:
        self.spans.setdefault(where, []).append(quiet.spans["close"])
        self.busiest = max(self.busiest, quiet.busiest)
        if where == _HERE:
            self.late += quiet.spans["late"]
        if greedy is not None:
            self.rates.setdefault(where, []).append(greedy.done / greedy.wall_seconds)
            self.busiest = max(self.busiest, greedy.busiest)

    def milliseconds(self, where: str, percent: float) -> float:
        return 1000 * statistics.median(percentile(spans, percent) for spans in self.spans[where])

    def times(self, where: str, than: str, percent: float) -> float:
        """Return how many times longer an answer took *where* than it did at *than*, in the median of the rounds."""
        pairs = zip(self.spans[where], self.spans[than], strict=True)
        return statistics.median(percentile(more, percent) / percentile(less, percent) for more, less in pairs)


def measure_fairness(bench: Bench) -> tuple[list[Figure], float]:
    """(n) One office sends as fast as it can: what that does to another's answers, with one worker, with all, and apart."""
    folder = bench.folder / "elsewhere"
    folder.mkdir()
    home = RelayHome(folder / "relay")
    elsewhere, _ = make_relay(folder, home, ())
    cores = os.cpu_count() or 1
    found = [
        _measure(bench, _describe(count), *_with_workers(bench, elsewhere, home, count), quiet_on=())
        for count in sorted({1, cores})
    ]
    servers, load = halves()
    if servers:
        *rest, last = load
        sides = _with_workers(bench, elsewhere, home, len(servers))
        form = f"{_describe(len(servers))} on processors of their own"
        found.append(_measure(bench, form, *(pinned(side, servers, rest or load) for side in sides), quiet_on=(last,)))
    figures = [figure for each in found for figure in _lines(each)]
    return figures, max(each.busiest for each in found)


def _describe(workers: int) -> str:
    return f"with {workers} worker{'' if workers == 1 else 's'}"


def _with_workers(bench: Bench, elsewhere: Side, home: RelayHome, workers: int) -> tuple[Side, Side]:
    return bench.with_workers(workers), replace(elsewhere, start=partial(home.serve, workers=workers))


def _measure(bench: Bench, form: str, here: Side, elsewhere: Side, *, quiet_on: Sequence[int]) -> _Found:
    found = _Found(form)
    seconds = max(_LEAST_SECONDS, bench.amounts.pace_seconds / _PART_OF_PACE)
    rounds = 2 * bench.amounts.rounds - 1
    with here.start() as server, elsewhere.start() as another:
        for side, running in ((here, server), (elsewhere, another)):
            warm_up(side, running)
        for turn in range(rounds):
            tell(f"(n) a quiet office and a greedy one, {form}, {turn + 1} of {rounds}")
            keep_pace = partial(_keep_pace, here, server, seconds, quiet_on)
            found.note(_ALONE, *keep_pace([]))
            for where, side, running in ((_ELSEWHERE, elsewhere, another), (_HERE, here, server)):
                found.note(where, *keep_pace(_flood(side, running, seconds)))
    return found


def _keep_pace(
    side: Side, server: Running, seconds: float, processors: Sequence[int], flood: Sequence[Task]
) -> tuple[Outcome, Outcome | None]:
    """Let the quiet office send from one process and, if there is one, *flood* from others, which begins first and ends last.

    Where *processors* are told, the quiet office's process is kept on these.
    """
    whole = task_of(side, server, "paced", concurrency=_QUIET_LANES)
    pace = replace(whole, logins=(side.senders[0],), rate=_QUIET_RATE, seconds=seconds)
    with ExitStack() as stack:
        with kept_on(processors) if processors else nullcontext():
            paced = stack.enter_context(prepared(deal(pace, side.numbers, processes=1)))
        if not flood:
            return paced.go(), None
        flooding = stack.enter_context(prepared(flood))
        flooding.begin()
        outcome = paced.go()
        return outcome, flooding.finish()


def _flood(side: Side, server: Running, seconds: float) -> Sequence[Task]:
    whole = task_of(side, server, "upload", concurrency=_GREEDY_LANES)
    return deal(replace(whole, logins=(side.senders[1],), seconds=seconds + 1), side.numbers)


def _lines(found: _Found) -> list[Figure]:
    figures = []
    for percent in (50.0, 99.0):
        text = f"CLOSE to OK of one office beside a greedy one, {found.form}, p{percent:g}"
        ours, *others = (found.milliseconds(where, percent) for where in (_HERE, _ALONE, _ELSEWHERE))
        figures.append(Figure("n", text, "ms", ours, dict(zip((_ALONE, _ELSEWHERE), others, strict=True))))
    rounds = len(found.spans[_HERE])
    for text, where, than, target in (
        ("to alone", _HERE, _ALONE, _FAIR),
        ("to alone, the greedy one at another relay: what the machine makes of it", _ELSEWHERE, _ALONE, None),
        ("to the greedy one at another relay: what the relay makes of it", _HERE, _ELSEWHERE, None),
    ):
        line = f"p99 {found.form}, median of {rounds} round{'' if rounds == 1 else 's'}, {text}"
        figures.append(Figure("n", line, "×", found.times(where, than, 99.0), {}, target))
    rates = {where: statistics.median(found.rates[where]) for where in (_HERE, _ELSEWHERE)}
    text = f"what the greedy office got through, {found.form}"
    figures.append(Figure("n", text, "files/s", rates[_HERE], {_ELSEWHERE: rates[_ELSEWHERE]}))
    late = 1000 * percentile(found.late, 99.0)
    figures.append(Figure("n", f"how late the quiet office's client began beside it, {found.form}, p99", "ms", late))
    return figures
