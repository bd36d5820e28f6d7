"""The page /metrics: a registry in the form that the scraper asks for, and what every process shows."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from streams.metrics_table import METRICS
from streams.web.pages import Answer, Page, Request

PATH = "/metrics"
_READY = next(spec for spec in METRICS if spec.name == "clv_ready")


def metrics_page(registry: CollectorRegistry) -> Page:
    """Return the page that shows `registry`, computed at each request."""

    def page(request: Request) -> Answer:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Answer(encode(registry), content_type)

    return page


class Readiness:
    """A collector of `clv_ready`; `ready` is asked at each scrape and must not wait."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    def register(self, registry: CollectorRegistry) -> None:
        """Show it among what `registry` collects."""
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Name it, without asking."""
        yield GaugeMetricFamily(_READY.name, _READY.help)

    def collect(self) -> Iterator[Metric]:
        """Ask."""
        yield GaugeMetricFamily(_READY.name, _READY.help, value=self._ready())
