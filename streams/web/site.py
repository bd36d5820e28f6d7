"""What each process serves, put together."""

from importlib.resources import files

from prometheus_client import CollectorRegistry

from streams.metrics_server import PATH as METRICS
from streams.metrics_server import Readiness, metrics_page
from streams.settings import Settings
from streams.web.follower import Follower
from streams.web.health import BrokerLook, Pulse, Reasons, health_pages
from streams.web.pages import Answer, Page, Request, Stream
from streams.web.reports import PATH as REPORTS
from streams.web.reports import reports_page
from streams.web.server import ServerHandle, serve

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/elements.js": ("elements.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
}


class Site:
    """A process's pages; `pulse` beats while its work goes on, `unready` says what it waits for.

    What `registry` collects is served as /metrics, and whether the process is ready.
    """

    def __init__(
        self, settings: Settings, process: str, pulse: Pulse, registry: CollectorRegistry, unready: Reasons
    ) -> None:
        self.settings = settings
        broker = BrokerLook(settings)
        Readiness(lambda: not (pulse.troubles() or unready() or broker.last_troubles())).register(registry)
        self._pages: dict[str, Page] = {
            METRICS: metrics_page(registry),
            **health_pages(process, pulse, broker, unready),
        }
        self._follower: Follower | None = None
        self._served = ServerHandle()

    def show_page(self) -> None:
        """Serve the live page too."""
        follower = self._follower = Follower(self.settings)

        def events(request: Request) -> Stream:
            return Stream(follower.events(request.headers.get("last-event-id", "")))

        self._pages |= static_pages()
        self._pages |= {"/events": events, REPORTS: reports_page(self.settings.reports_dir.resolve())}

    def serve(self, port: int, *, setting: str) -> None:
        """Serve on the settings' address; raises UserError as `streams.web.server.serve` does."""
        token = self.settings.web_token
        secret = None if token is None else token.get_secret_value()
        self._served = serve(self._pages, self.settings.web_host, port, setting=setting, token=secret)

    def close(self) -> None:
        """Stop serving, and end what is read for the page."""
        self._served.close()
        if self._follower is not None:
            self._follower.close()


def static_pages() -> dict[str, Page]:
    """Return the files of the live page."""

    def page_of(name: str, content_type: str) -> Page:
        body = (files("streams.web") / name).read_bytes()
        return lambda _: Answer(body, content_type)

    return {path: page_of(*found) for path, found in _FILES.items()}
