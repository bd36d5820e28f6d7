"""The page /metrics: a registry in the form that the scraper asks for."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.web.pages import Answer, Page, Request

PATH = "/metrics"


def metrics_page(registry: CollectorRegistry) -> Page:
    """Return the page that shows `registry`, computed at each request."""

    def page(request: Request) -> Answer:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Answer(encode(registry), content_type)

    return page
