"""The HTTP server of /metrics: one page, on the address of the settings, in a thread of its own."""

import socket
import socketserver
import sys
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.errors import ExitCode, UserError
from streams.settings import ENV_PREFIX

log = structlog.get_logger(__name__)

SOCKET_TIMEOUT_S = 10.0
PATH = "/metrics"


@dataclass
class ServerHandle:
    """A running server, or none where the port is 0."""

    url: str | None = None
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None

    def close(self) -> None:
        """Stop serving; returns once the port is free. May be called again."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None


def serve(registry: CollectorRegistry, host: str, port: int, *, setting: str) -> ServerHandle:
    """Serve `registry` at http://host:port/metrics until the handle is closed; a port of 0 serves nothing.

    Raises UserError (ExitCode.USAGE) naming `setting`, the port's, where host and port cannot be bound.
    """
    if port == 0:
        return ServerHandle()
    try:
        server = _server_class(host)((host, port), _handler(registry))
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise UserError(
            f"{setting} {port} of {host} cannot be used: {reason}",
            hint=f"set {ENV_PREFIX}{setting.upper()} to a free port (0 turns {PATH} off), "
            f"or {ENV_PREFIX}WEB_HOST to an address of this machine",
            code=ExitCode.USAGE,
        ) from exc
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    return ServerHandle(f"http://{shown}:{port}{PATH}", server, thread)


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            # Without the reverse look-up of the host's name, which may take seconds and is not used.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

        def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
            # Mostly a client that went away; the default prints a traceback past the logs.
            log.debug("metrics request failed", client=str(client_address), reason=repr(sys.exception()))

    return Server


def _handler(registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SOCKET_TIMEOUT_S
        server_version = "clv-drift"
        sys_version = ""

        def do_GET(self) -> None:
            if urlsplit(self.path).path != PATH:
                self._answer(HTTPStatus.NOT_FOUND, b"only /metrics is served here\n", "text/plain")
                return
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            try:
                body = encode(registry)
            except Exception:
                # The scrape must fail visibly: half a page would read as metrics that fell to nothing.
                log.exception("metrics cannot be computed")
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n", "text/plain")
                return
            self._answer(HTTPStatus.OK, body, content_type)

        do_HEAD = do_GET  # noqa: N815  (the base class looks for this name)

        def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
            log.debug("metrics request", client=self.client_address[0], line=format % args)

    return Handler
