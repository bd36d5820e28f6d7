"""Whether a process is alive, and whether it is ready to work: each with reasons, for people and probes."""

import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from streams.broker_errors import quiet_clients
from streams.errors import UserError
from streams.settings import Settings
from streams.topic_admin import open_admin
from streams.topics import catalogue
from streams.web.pages import Answer, Page, Pages, Request, as_json

SILENT_MAX_S = 60.0  # longer than any single wait for a broker
BROKER_WAIT_S = 3.0
BROKER_LOOK_S = 10.0  # from one look at the broker to the next, however often it is asked for

Reasons = Callable[[], list[str]]


class Pulse:
    """When the work last went round; `beat` and the rest may be called from different threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._begun = False

    def beat(self) -> None:
        """Note that the work goes on."""
        self._last, self._begun = self._clock(), True

    def troubles(self) -> list[str]:
        """Return why the process is to be taken for dead."""
        silent_s = self._clock() - self._last
        if silent_s <= SILENT_MAX_S:
            return []
        return [f"its work has stood still for {silent_s:.0f} s"]

    def unbegun(self) -> list[str]:
        """Return that the work has not begun yet, where that is so."""
        return [] if self._begun else ["its work has not begun yet"]


class BrokerLook:
    """Whether the broker answers and has every topic; looked up anew only now and then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_copy(update={"broker_wait_s": BROKER_WAIT_S})
        self._lock = threading.Lock()
        self._until = 0.0
        self._found: list[str] = ["the broker was not looked for yet"]

    def troubles(self) -> list[str]:
        """Return what is wrong with the broker or the topics, as of a few seconds ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._found = self._look()
                self._until = time.monotonic() + BROKER_LOOK_S
            return self._found

    def last_troubles(self) -> list[str]:
        """Return what the last look found, at once; where that is old, the next is begun beside it."""
        if time.monotonic() >= self._until and not self._lock.locked():
            # Whoever asks is on a scrape's time.
            threading.Thread(target=self.troubles, name="broker-look", daemon=True).start()
        return self._found

    def _look(self) -> list[str]:
        try:
            with quiet_clients(), open_admin(self._settings) as admin:
                missing = {spec.name for spec in catalogue(self._settings).specs} - set(admin.list_topics())
        except UserError as exc:
            return [exc.message]
        return [f"there is no topic {name}" for name in sorted(missing)]


def health_pages(process: str, pulse: Pulse, broker: BrokerLook, unready: Reasons) -> Pages:
    """Return `/healthz` and `/readyz` of a process; `unready` says what else it waits for."""

    def alive(_: Request) -> Answer:
        return _told(process, pulse.troubles())

    def ready(_: Request) -> Answer:
        return _told(process, [*pulse.troubles(), *unready(), *broker.troubles()])

    pages: dict[str, Page] = {"/healthz": alive, "/readyz": ready}
    return pages


def _told(process: str, reasons: list[str]) -> Answer:
    """Return the reasons as JSON; 503 where there are any."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return as_json({"process": process, "ok": not reasons, "reasons": reasons}, status)
