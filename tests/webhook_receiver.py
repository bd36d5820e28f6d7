"""A real HTTP receiver on this machine, for the tests of webhooks: answers as told, and keeps what it got."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from streams import cloudevents
from streams.draft import CHANGED, DETECTED, RESOLVED

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WAIT_S = 120.0


@dataclass
class Got:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Receiver:
    """What came, and what is answered: `answers` in their order, then 204 for ever."""

    answers: list[Any] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [got.headers["webhook-id"] for got in self.got]

    def wait(self, count: int) -> None:
        wait_for(lambda: len(self.got) >= count)


def wait_for(happened: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    until = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


@contextmanager
def receiving(*answers: Any, tls: Any = None) -> Iterator[Receiver]:
    """A receiver; an answer is a status, (status, headers, body), or a function of the handler."""
    receiver = Receiver(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Got(self.path, headers, body, time.monotonic()))
            answer = receiver.answers.pop(0) if receiver.answers else 204
            if callable(answer):
                answer(self)
                return
            status, headers, body = (answer, {}, b"") if isinstance(answer, int) else answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def drift_event(number: int = 0, kind: str = DETECTED, **data: Any) -> dict[str, Any]:
    """An event as the log of drift events has it, another one for each `number`."""
    state = {DETECTED: "confirmed", CHANGED: "suspected", RESOLVED: "resolved"}.get(kind, "quiet")
    full = {
        "window_end": cloudevents.iso(1_300_000_000 + number * 604_800),
        "drift_type": "data",
        "state": state,
        "onset": "2011-02-14T00:00:00Z",
        "causes": [
            {
                "feature": "AvgUnitPrice",
                "scale_weeks": 4,
                "segment": "Country=France",
                "effect": 0.75,
                "unit": "currency",
            }
        ],
        "action": "none",
        "reason": "",
        "severity": "warning" if state == "confirmed" else "info",
        "model_version": "m1",
        **data,
    }
    return cloudevents.envelope(
        kind=kind, source="/clv-drift/t.", window_end=1_300_000_000 + number * 604_800, data=full
    )
