"""Metrics of the webhooks process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from streams.metrics import SPECS, PlainCollector

OUTCOMES = ("delivered", "again", "dead")
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class WebhookMetrics:
    """What was tried and what waits, by endpoint; observers may be called from any thread."""

    def __init__(self, endpoints: tuple[str, ...]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._tries = self._counter("clv_webhook_tries_total")
        self._refused = self._counter("clv_webhook_refused_total")
        self._pending = self._gauge("clv_webhook_pending")
        self._dead = self._gauge("clv_webhook_dead")
        self._oldest = self._gauge("clv_webhook_oldest_timestamp_seconds")
        spec = SPECS["clv_webhook_request_seconds"]
        self._seconds = Histogram(spec.name, spec.help, spec.labels, buckets=_BUCKETS_S, registry=None)
        PlainCollector(self._seconds.collect).register(self.registry)
        for endpoint in endpoints:
            for outcome in OUTCOMES:
                self._tries.labels(endpoint, outcome)  # there from the start, at 0

    def observe_try(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count a request and what became of it."""
        self._tries.labels(endpoint, outcome).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def observe_queue(self, endpoint: str, pending: int, dead: int, oldest_at: float | None) -> None:
        """Note how a queue stands."""
        self._pending.labels(endpoint).set(pending)
        self._dead.labels(endpoint).set(dead)
        if oldest_at is None:
            self._oldest.remove(endpoint)
        else:
            self._oldest.labels(endpoint).set(oldest_at)

    def observe_refused(self) -> None:
        """Count a message that could not be read."""
        self._refused.inc()

    def _counter(self, name: str) -> Counter:
        counter = Counter(name, SPECS[name].help, SPECS[name].labels, registry=None)
        PlainCollector(counter.collect).register(self.registry)
        return counter

    def _gauge(self, name: str) -> Gauge:
        return Gauge(name, SPECS[name].help, SPECS[name].labels, registry=self.registry)
