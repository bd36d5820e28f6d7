"""The HTTP server of a process: a thread of its own, a thread a connection, one request each.

The standard library's server does: nothing has to be installed, it shares no loop with the stream, so that a
page that takes long to make holds no partition up, and the limits it lacks are few and stand here.
"""

import socket
import socketserver
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import structlog

from streams.errors import ExitCode, UserError
from streams.settings import ENV_PREFIX
from streams.web.access import Access, UnreadableError
from streams.web.pages import OWN_FILES_ONLY, Answer, Page, Pages, Request, Stream, page_for, problem

log = structlog.get_logger(__name__)

CONNECTIONS_MAX = 64  # at once; more are closed unanswered
STREAMS_MAX = 16  # of them, connections that stay
SOCKET_TIMEOUT_S = 10.0  # without a byte; a stream's reader that takes nothing for so long is dropped
REQUEST_MAX_S = 30.0  # for a request and its answer, a stream's excepted
FIXED_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass
class ServerHandle:
    """A running server, or none where the port is 0; `url` ends in no slash."""

    url: str | None = None
    _server: "_Server | None" = None
    _thread: threading.Thread | None = None

    def close(self) -> None:
        """Stop serving; returns once the port is free. May be called again."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None


def serve(pages: Pages, host: str, port: int, *, setting: str, token: str | None = None) -> ServerHandle:
    """Serve `pages` at http://host:port until the handle is closed; a port of 0 serves nothing.

    Raises UserError (ExitCode.USAGE) naming `setting`, the port's, where host and port cannot be bound.
    """
    if port == 0:
        return ServerHandle()
    try:
        server = _Server(host, port, pages, token)
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise UserError(
            f"{setting} {port} of {host} cannot be used: {reason}",
            hint=f"set {ENV_PREFIX}{setting.upper()} to a free port (0 serves nothing), "
            f"or {ENV_PREFIX}WEB_HOST to an address of this machine",
            code=ExitCode.USAGE,
        ) from exc
    thread = threading.Thread(target=server.serve_forever, name="web", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    return ServerHandle(f"http://{shown}:{port}", server, thread)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = (
        128  # beyond a few, the kernel would leave those who come together waiting for seconds
    )

    def __init__(self, host: str, port: int, pages: Pages, token: str | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self.access = Access(host, token)
        self.streams = threading.BoundedSemaphore(STREAMS_MAX)
        self._until: dict[socket.socket, float] = {}  # when a connection's time is over
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Without the reverse look-up of the host's name, which may take seconds and is not used.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        return len(self._until) < CONNECTIONS_MAX

    def process_request(self, request: Any, client_address: Any) -> None:
        self._until[request] = time.monotonic() + REQUEST_MAX_S
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._until.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End the connections that take too long, one byte a second or none."""
        now = time.monotonic()
        for connection, until in list(self._until.items()):
            if now > until:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def keep(self, connection: socket.socket) -> None:
        """Let a connection stay for as long as its reader takes what it is sent."""
        self._until[connection] = float("inf")

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        # Mostly a client that went away; the default prints a traceback past the logs.
        log.debug("request failed", client=str(client_address), reason=repr(sys.exception()))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SOCKET_TIMEOUT_S
    server_version = "clv-drift"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"
    _policy = OWN_FILES_ONLY

    def do_GET(self) -> None:
        answer = self._readable()
        if isinstance(answer, Stream):
            self._stream(answer)
        else:
            self._send(answer)

    do_HEAD = do_GET  # noqa: N815  (the base class looks for this name)

    def _readable(self) -> Answer | Stream:
        try:
            parts = urlsplit(self.path)
        except ValueError:
            return problem(HTTPStatus.BAD_REQUEST, "the address is none")
        try:
            return self._answer_to(parts.path, parts.query)
        except UnreadableError as exc:
            return problem(HTTPStatus.BAD_REQUEST, str(exc))

    def _answer_to(self, path: str, query: str) -> Answer | Stream:
        access, pages = self.server.access, self.server.pages
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not access.right_host(headers.get("host")):
            return problem(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
        if not access.admits(path, query, headers):
            return problem(
                HTTPStatus.UNAUTHORIZED,
                "a token is needed: add ?token=... to the address once, or send it as a bearer token",
                WWW_Authenticate="Bearer",
            )
        page = page_for(pages, path)
        if page is None:
            return problem(HTTPStatus.NOT_FOUND, f"served here: {', '.join(sorted(pages))}")
        answer = self._made(page, Request(path, headers))
        if isinstance(answer, Answer) and access.by_query(query):
            # With the page itself, not with a redirect: a browser that followed a link from elsewhere
            # would not send a cookie of the same site along.
            answer = replace(answer, headers={**answer.headers, "Set-Cookie": access.set_cookie()})
        return answer

    def _made(self, page: Page, request: Request) -> Answer | Stream:
        try:
            return page(request)
        except Exception:
            # It must fail visibly: half a page of metrics would read as metrics that fell to nothing.
            log.exception("page cannot be made", path=request.path)
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "see the log")

    def _send(self, answer: Answer) -> None:
        self._policy = answer.policy
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _stream(self, stream: Stream) -> None:
        if not self.server.streams.acquire(blocking=False):
            busy = f"{STREAMS_MAX} readers are connected"
            self._send(problem(HTTPStatus.SERVICE_UNAVAILABLE, busy, Retry_After="5"))
            return
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", stream.content_type)
            self.end_headers()
            if self.command != "HEAD":
                self.server.keep(self.connection)
                with closing(stream.chunks) as chunks:
                    for chunk in chunks:
                        self.wfile.write(chunk)
        except OSError as exc:
            log.debug("reader left or was too slow", client=self.client_address[0], reason=repr(exc))
        finally:
            self.server.streams.release()

    def end_headers(self) -> None:
        """End the headers of every answer, errors of the base class included, with those that protect it."""
        for name, value in {"Content-Security-Policy": self._policy, **FIXED_HEADERS}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        # The query may hold the token.
        line = (format % args).partition("?")[0]
        log.debug("request", client=self.client_address[0], line=line)
