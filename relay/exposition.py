"""Exposition: what the meters count and what is there at this moment, told to monitoring.

`render` is Prometheus's text format, `snapshot` the same as JSON for ``relay top``.  Nothing here waits: whoever asks
gets what is in memory.  No series names an office, a file or a person: they would be without end, and nobody's
business who watches the machine; only `snapshot`, on a socket of the relay's own user, tells which offices are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TypedDict

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.census import AGE_LABELS, Census, Gauges, Sight
from relay.meters import Histogram, Meters


class Exposition(Collector):
    """What is told of one server."""

    def __init__(self, version: str, started_at: float) -> None:
        """Tell of a server that started at *started_at*; what is told is set before each telling."""
        self._version = version
        self._started_at = started_at
        self.census = Census(Sight())
        self.gauges = Gauges()
        self.deaths = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def snapshot(self) -> dict[str, object]:
        """Return the same for a program that looks often: counters, histograms, the newest commits, and who is here."""
        total = self.census.total
        meters = total.meters
        return {
            "version": self._version,
            "started_at": self._started_at,
            "gauges": asdict(self.gauges),
            "counters": {name: value for name, _, value in _counters(meters)},
            "rejected": dict(meters.logins_rejected),
            "refusals": dict(meters.refusals),
            "limits": dict(total.limits),
            "histograms": {name: _describe(histogram) for name, _, histogram in _histograms(meters)},
            "commits": [{"at": at, "seconds": seconds, "count": works} for at, seconds, works in meters.commits],
            "present": [asdict(each) for each in total.present],
            "workers": [_describe_worker(sight) for sight in self.census.workers],
            "silent": [*self.census.silent],
            "deaths": self.deaths,
        }

    def collect(self) -> Iterator[Metric]:
        """Give prometheus_client what it asks for."""
        total = self.census.total
        meters = total.meters
        yield _labelled_gauge("relay_info", "Which version this is.", "version", {self._version: 1})
        for name, told, value in _counters(meters):
            yield CounterMetricFamily(name, told, value=value)
        yield CounterMetricFamily("relay_worker_deaths", "Workers that died and were replaced.", value=self.deaths)
        yield _labelled("relay_logins_rejected", "Logins turned away, by reason.", "reason", meters.logins_rejected)
        yield _labelled("relay_refusals", "Requests refused or deferred, by code.", "code", meters.refusals)
        yield _labelled("relay_limits_reached", "How often a limit was met, by setting.", "limit", total.limits)
        for name, told, histogram in _histograms(meters):
            yield _family(name, told, histogram)
        yield from self._collect_gauges()
        yield from self._collect_workers()
        yield from self._collect_usage()

    def _collect_workers(self) -> Iterator[Metric]:
        workers = {str(sight.index): sight for sight in self.census.workers}
        answering = len(workers) - len(self.census.silent)
        yield GaugeMetricFamily("relay_workers", "Workers that answer.", value=float(answering))
        for name, told, take in _OF_EACH:
            yield _labelled_gauge(name, told, "worker", {index: take(sight) for index, sight in workers.items()})

    def _collect_usage(self) -> Iterator[Metric]:
        """Tell of all workers together under the names that every exporter uses for one process."""
        usage = self.census.total.usage
        yield CounterMetricFamily("process_cpu_seconds", "Processor time.", value=usage.cpu_seconds)
        for name, told, value in (
            ("process_resident_memory_bytes", "Memory, what is shared counted once.", usage.memory_bytes),
            ("process_open_fds", "Open files.", usage.open_files),
            ("process_max_fds", "How many files one worker may have open.", usage.most_files),
            ("process_start_time_seconds", "When this server started.", self._started_at),
        ):
            yield GaugeMetricFamily(name, told, value=float(value))

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
            (
                "relay_store_ok",
                "0 while the store cannot be written.",
                not self.census.total.meters.is_store_in_trouble,
            ),
            ("relay_anchor_ok", "0 while the audit's anchor cannot follow history.", not gauges.is_anchor_behind),
            ("relay_start_time_seconds", "When this server started.", self._started_at),
            ("relay_waiting_oldest_seconds", "Age of the oldest file nobody collected.", gauges.oldest_waiting_seconds),
            ("relay_store_bytes", "Size of the store's file.", gauges.store_bytes),
            ("relay_store_log_bytes", "Size of the store's log.", gauges.log_bytes),
            ("relay_store_free_bytes", "Room left on the store's disk.", gauges.free_bytes),
            ("relay_looked_at_seconds", "When waiting files and sizes were last looked at.", gauges.looked_at),
        ):
            yield GaugeMetricFamily(name, told, value=float(value))
        waiting = dict(zip(AGE_LABELS, gauges.waiting, strict=True))
        yield _labelled_gauge("relay_waiting_transfers", "Files nobody has collected, by age up to.", "age", waiting)


_OF_EACH: tuple[tuple[str, str, Callable[[Sight], float]], ...] = (
    ("relay_worker_sessions", "SFTP sessions of each worker.", lambda sight: sight.gauges.sessions),
    ("relay_worker_connections", "Connections of each worker.", lambda sight: sight.gauges.connections),
    ("relay_worker_lag_seconds", "How late each worker last woke.", lambda sight: sight.gauges.lag_seconds),
    ("relay_worker_cpu_seconds", "Processor time of each worker.", lambda sight: sight.usage.cpu_seconds),
)


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


def _describe_worker(sight: Sight) -> dict[str, object]:
    gauges = sight.gauges
    return {
        "worker": sight.index,
        "pid": sight.pid,
        "sessions": gauges.sessions,
        "connections": gauges.connections,
        "uploads": gauges.uploads,
        "logins": sight.meters.logins,
        "requests": sight.meters.requests,
        "lag_seconds": gauges.lag_seconds,
        "cpu_seconds": sight.usage.cpu_seconds,
    }


def _labelled(name: str, told: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, told, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _labelled_gauge(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, told, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
