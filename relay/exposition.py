"""Exposition: what the meters count and what is there at this moment, told to monitoring.

`render` is Prometheus's text format, `snapshot` the same as JSON for ``relay top``.  Nothing here waits: whoever asks
gets what is in memory.  No series names an office, a file or a person: they would be without end, and nobody's
business who watches the machine; only `snapshot`, on a socket of the relay's own user, tells which offices are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.meters import Histogram, Meters

AGE_LABELS = ("5m", "1h", "1d", "1w", "1M", "older")


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is there at this moment.

    *waiting* are files that nobody has collected, for each of `AGE_LABELS`, the youngest first; it and the sizes are
    as old as *looked_at* says (seconds since 1970; 0 where nobody has looked yet).
    """

    sessions: int = 0
    connections: int = 0
    strangers: int = 0
    handles: int = 0
    uploads: int = 0
    lag_seconds: float = 0.0
    is_draining: bool = False
    is_anchor_behind: bool = False
    waiting: tuple[int, ...] = (0,) * len(AGE_LABELS)
    oldest_waiting_seconds: float = 0.0
    store_bytes: int = 0
    log_bytes: int = 0
    free_bytes: int = 0
    looked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Present:
    """An office that is here: its sessions, handles and uploads, and what its program calls itself."""

    office: str
    software: str
    sessions: int
    handles: int
    uploads: int


def tally(each: Sequence[Present]) -> list[Present]:
    """Return one line for each office and program, the busiest first."""
    found: dict[tuple[str, str], Present] = {}
    for one in each:
        before = found.get((one.office, one.software), Present(one.office, one.software, 0, 0, 0))
        found[one.office, one.software] = Present(
            one.office,
            one.software,
            before.sessions + one.sessions,
            before.handles + one.handles,
            before.uploads + one.uploads,
        )
    return sorted(found.values(), key=lambda one: (-one.uploads, -one.handles, -one.sessions, one.office))


class Exposition(Collector):
    """What is told of one server."""

    def __init__(self, meters: Meters, version: str) -> None:
        """Tell of *meters*."""
        self._meters = meters
        self._version = version
        self.gauges = Gauges()
        self.limits: dict[str, int] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def snapshot(self, present: Sequence[Present]) -> dict[str, object]:
        """Return the same for a program that looks often: counters, histograms, the newest commits, and who is here."""
        meters = self._meters
        return {
            "version": self._version,
            "started_at": meters.started_at,
            "gauges": asdict(self.gauges),
            "counters": {name: value for name, _, value in _counters(meters)},
            "rejected": dict(meters.logins_rejected),
            "refusals": dict(meters.refusals),
            "limits": dict(self.limits),
            "histograms": {name: _describe(histogram) for name, _, histogram in _histograms(meters)},
            "commits": [asdict(commit) for commit in meters.commits],
            "present": [asdict(each) for each in present],
        }

    def collect(self) -> Iterator[Metric]:
        """Give prometheus_client what it asks for."""
        yield _labelled_gauge("relay_info", "Which version this is.", "version", {self._version: 1})
        for name, told, value in _counters(self._meters):
            yield CounterMetricFamily(name, told, value=value)
        yield _labelled(
            "relay_logins_rejected", "Logins turned away, by reason.", "reason", self._meters.logins_rejected
        )
        yield _labelled("relay_refusals", "Requests refused or deferred, by code.", "code", self._meters.refusals)
        yield _labelled("relay_limits_reached", "How often a limit was met, by setting.", "limit", self.limits)
        for name, told, histogram in _histograms(self._meters):
            yield _family(name, told, histogram)
        yield from self._collect_gauges()

    def _collect_gauges(self) -> Iterator[Metric]:
        gauges = self.gauges
        for name, told, value in (
            ("relay_sessions", "SFTP sessions that are open.", gauges.sessions),
            ("relay_connections", "Connections, those included that have not logged in.", gauges.connections),
            ("relay_strangers", "Connections that have not logged in yet.", gauges.strangers),
            ("relay_handles", "Files and folders that sessions hold open.", gauges.handles),
            ("relay_uploads", "Uploads under way.", gauges.uploads),
            ("relay_event_loop_lag_seconds", "How late the server was when it last woke.", gauges.lag_seconds),
            ("relay_draining", "1 while the server is ending.", gauges.is_draining),
            ("relay_store_ok", "0 while the store cannot be written.", not self._meters.is_store_in_trouble),
            ("relay_anchor_ok", "0 while the audit's anchor cannot follow history.", not gauges.is_anchor_behind),
            ("relay_start_time_seconds", "When this server started.", self._meters.started_at),
            ("relay_waiting_oldest_seconds", "Age of the oldest file nobody collected.", gauges.oldest_waiting_seconds),
            ("relay_store_bytes", "Size of the store's file.", gauges.store_bytes),
            ("relay_store_log_bytes", "Size of the store's log.", gauges.log_bytes),
            ("relay_store_free_bytes", "Room left on the store's disk.", gauges.free_bytes),
            ("relay_looked_at_seconds", "When waiting files and sizes were last looked at.", gauges.looked_at),
        ):
            yield GaugeMetricFamily(name, told, value=float(value))
        waiting = dict(zip(AGE_LABELS, gauges.waiting, strict=True))
        yield _labelled_gauge("relay_waiting_transfers", "Files nobody has collected, by age up to.", "age", waiting)


def _counters(meters: Meters) -> Iterator[tuple[str, str, int]]:
    yield "relay_logins", "Logins that succeeded.", meters.logins
    yield "relay_sessions_opened", "SFTP sessions that were opened.", meters.sessions_opened
    yield "relay_requests", "SFTP requests.", meters.requests
    yield "relay_received_bytes", "Bytes received in SFTP sessions.", meters.bytes_in
    yield "relay_sent_bytes", "Bytes sent in SFTP sessions.", meters.bytes_out
    yield "relay_transfers_accepted", "Files accepted, repeats included.", sum(meters.accept.counts)
    yield "relay_transfers_repeated", "Files that had been accepted before with the same bytes.", meters.repeats
    yield "relay_transfers_collected", "Files read whole by their recipients.", sum(meters.collection_age.counts)
    yield "relay_transactions", "Transactions of the store.", meters.transactions
    yield "relay_store_troubles", "How often the store began to fail.", meters.troubles


def _histograms(meters: Meters) -> Iterator[tuple[str, str, Histogram]]:
    yield "relay_accept_seconds", "From a file's OPEN to its commit.", meters.accept
    yield "relay_commit_seconds", "From handing over to the writer until it is on stable storage.", meters.commit
    yield "relay_first_visible_seconds", "From acceptance until the recipient was shown a file.", meters.first_visible
    yield "relay_collection_age_seconds", "From acceptance until the recipient had read a file.", meters.collection_age


def _family(name: str, told: str, histogram: Histogram) -> Metric:
    buckets, reached = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        reached += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(reached)))
    return HistogramMetricFamily(name, told, buckets=buckets, sum_value=histogram.sum)


class HistogramFacts(TypedDict):
    """A histogram in JSON."""

    bounds: list[float]
    counts: list[int]
    sum: float


def _describe(histogram: Histogram) -> HistogramFacts:
    return HistogramFacts(bounds=[*histogram.bounds], counts=[*histogram.counts], sum=histogram.sum)


def _labelled(name: str, told: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, told, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _labelled_gauge(name: str, told: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, told, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
