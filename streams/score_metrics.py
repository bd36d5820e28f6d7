"""Metrics of the scores process."""

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.process_collector import ProcessCollector

from streams.metrics import SPECS, PlainCollector


class ScoreMetrics:
    """What the process did and where it stands; observers may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._published = self._counter("clv_scores_published_total")
        self._refused = self._counter("clv_scores_refused_total")
        self._customers = self._gauge("clv_scored_customers")
        self._window_end = self._gauge("clv_scores_window_end_timestamp_seconds")
        for kind in ("score", "tombstone"):
            self._published.labels(kind)  # there from the start, at 0

    def observe_sent(self, scores: int, tombstones: int) -> None:
        """Count what the broker has acknowledged."""
        self._published.labels("score").inc(scores)
        self._published.labels("tombstone").inc(tombstones)

    def observe_scored(self, partition: int, customers: int, window_end: int) -> None:
        """Note that a partition stands scored as of a window."""
        self._customers.labels(str(partition)).set(customers)
        self._window_end.labels(str(partition)).set(window_end)

    def observe_lost(self, partition: int) -> None:
        """Forget a partition that another process has now."""
        for gauge in (self._customers, self._window_end):
            gauge.remove(str(partition))

    def observe_refused(self) -> None:
        """Count what could not be used."""
        self._refused.inc()

    def _counter(self, name: str) -> Counter:
        counter = Counter(name, SPECS[name].help, SPECS[name].labels, registry=None)
        PlainCollector(counter.collect).register(self.registry)
        return counter

    def _gauge(self, name: str) -> Gauge:
        return Gauge(name, SPECS[name].help, SPECS[name].labels, registry=self.registry)
