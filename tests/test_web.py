"""The web server and what it serves: limits, headers, the token, health, reports; over real sockets."""

import http.client
import socket
import threading
import time
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry
from webhook_receiver import wait_for

from streams.errors import UserError
from streams.kafka_process import free_port
from streams.processes import environment_of
from streams.settings import ENV_PREFIX, Settings, load_settings
from streams.topic_admin import ensure_topics
from streams.web import server as web_server
from streams.web.health import SILENT_MAX_S, BrokerLook, Pulse, health_pages
from streams.web.pages import Answer, Stream
from streams.web.reports import SANDBOX, prune_reports, report_days, report_path, reports_page
from streams.web.server import CONNECTIONS_MAX, STREAMS_MAX, serve
from streams.web.site import Site as ProcessSite

TOKEN = "a-token-of-this-test"
PROTECTED = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def endless(_):
    def chunks():
        while True:
            yield b"x" * 65_536

    return Stream(chunks())


def waiting(_):
    def chunks():
        yield b"first"
        threading.Event().wait(60)

    return Stream(chunks())


PAGES = {
    "/": lambda _: Answer(b"front"),
    "/healthz": lambda _: Answer(b"well"),
    "/metrics": lambda _: Answer(b"clv 1"),
    "/endless": endless,
    "/events": waiting,
    "/few": lambda _: Stream(chunk for chunk in (b"one", b"two")),
}


class Site:
    def __init__(self, **options):
        self.port = free_port()
        self.handle = serve(
            {**PAGES, **options.pop("pages", {})},
            options.pop("host", "127.0.0.1"),
            self.port,
            setting="worker_port",
            **options,
        )

    def get(self, path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def status(self, path, **headers):
        return self.get(path, **headers)[0]

    def raw(self, *lines):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall("\r\n".join(lines).encode())
        return connection


@pytest.fixture
def site():
    made = []

    def make(**options):
        made.append(Site(**options))
        return made[-1]

    yield make
    for one in made:
        one.handle.close()


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", 200), ("/none", "GET", 404), ("/", "HEAD", 200), ("/", "POST", 501)],
)
def test_every_answer_is_protected(site, path, method, status):
    found, headers, body = site().get(path, method)
    assert found == status
    assert headers.items() >= PROTECTED.items()
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert "unsafe" not in policy
    assert body == b"" or method != "HEAD"


def test_what_breaks_is_told_in_the_log_alone(site):
    def broken(_):
        raise RuntimeError("a secret")

    status, _, body = site(pages={"/broken": broken}).get("/broken")
    assert (status, body) == (500, b"see the log\n")


@pytest.mark.parametrize(
    ("name", "status"),
    [("localhost", 200), ("127.0.0.1:8001", 200), ("[::1]:8001", 200), ("evil.example", 421), ("", 421)],
)
def test_only_names_of_this_machine_reach_a_loopback_address(site, name, status):
    """Another site that gives our address a name of its own reads nothing (DNS rebinding)."""
    assert site().status("/", Host=name) == status


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost:8001", 200), ("127.0.0.1:8001", 200), ("10.0.0.7:8001", 200), ("[fd00::1]:8001", 200),
        ("worker:8001", 200), ("Machine.Example:8001", 200), ("", 200), ("evil.example", 421),
        ("evil.example.:8001", 421), ("worker.evil.example", 421),
    ],
)  # fmt: skip
def test_where_no_token_decides_no_domain_reaches_an_open_address(site, monkeypatch, name, status):
    """A port that is published on the loopback address, as those of containers are, can be rebound to."""
    monkeypatch.setattr("streams.web.access.socket.gethostname", lambda: "machine.example")
    assert site(host="0.0.0.0").status("/", Host=name) == status
    guarded = site(host="0.0.0.0", token=TOKEN)
    assert guarded.status("/", Host=name, Authorization=f"Bearer {TOKEN}") == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("name", ["[::1", "a[b", "::1]"])
def test_a_host_that_cannot_be_read_is_refused_in_words(site, host, name):
    status, _, body = site(host=host).get("/", Host=name)
    assert (status, body) == (400, b"the Host header is no host\n")


def test_a_query_with_too_many_fields_is_refused_where_a_token_is_looked_for(site):
    query = f"token={TOKEN}" + "&a=1" * 30
    assert site().status(f"/?{query}") == 200
    status, _, body = site(token=TOKEN).get(f"/?{query}")
    assert (status, body) == (400, b"the query has more than 20 fields\n")


def test_a_token_covers_all_but_health(site):
    guarded = site(token=TOKEN)
    for path in ("/", "/events", "/metrics", "/none"):
        assert guarded.status(path) == 401
        assert guarded.status(path, Authorization=f"Bearer {TOKEN}x") == 401
        assert guarded.status(path, Cookie="clv_drift=x") == 401
        assert guarded.status(f"{path}?token=x") == 401
    assert guarded.status("/metrics", Authorization=f"Bearer {TOKEN}") == 200
    assert guarded.status("/healthz") == 200


def test_a_token_in_the_address_becomes_a_cookie(site):
    guarded = site(token=TOKEN)
    status, headers, body = guarded.get(f"/?token={TOKEN}")
    assert (status, body) == (200, b"front")
    cookie = headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert guarded.status("/", Cookie=cookie.split(";")[0]) == 200
    assert site(token=TOKEN + "2").status("/", Cookie=cookie.split(";")[0]) == 401


def test_a_token_is_told_to_children_and_to_nobody_else(monkeypatch):
    settings = Settings(web_token=TOKEN)
    assert TOKEN not in repr(settings) + settings.model_dump_json()
    assert environment_of(settings)[f"{ENV_PREFIX}WEB_TOKEN"] == TOKEN
    monkeypatch.setenv(f"{ENV_PREFIX}WEB_TOKEN", "short")
    with pytest.raises(UserError, match="web_token") as raised:
        load_settings()
    assert "short" not in raised.value.message.replace("too_short", "")


def test_readers_that_stay_are_limited(site):
    one = site()
    ask = ("GET /events HTTP/1.1", "Host: localhost", "", "")
    held = [one.raw(*ask) for _ in range(STREAMS_MAX)]
    assert all(connection.recv(12) == b"HTTP/1.0 200" for connection in held)
    status, headers, _ = one.get("/events")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert one.status("/") == 200
    for connection in held:
        connection.close()


def test_a_reader_that_takes_nothing_is_dropped(site, monkeypatch):
    monkeypatch.setattr(web_server._Handler, "timeout", 1.0)
    monkeypatch.setattr(web_server, "STREAMS_MAX", 1)
    one = site()
    with one.raw("GET /endless HTTP/1.1", "Host: localhost", "", "") as slow:
        assert slow.recv(12) == b"HTTP/1.0 200"
        until = time.monotonic() + 60
        while one.get("/few")[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_a_request_that_takes_for_ever_is_ended(site, monkeypatch):
    monkeypatch.setattr(web_server, "REQUEST_MAX_S", 1.0)
    one = site()
    drip = one.raw("GET / HTTP/1.1", "X: ")
    began = time.monotonic()
    with suppress(OSError):
        while time.monotonic() - began < 28:
            drip.sendall(b"x")  # one byte at a time keeps the socket's own timeout away
            time.sleep(0.2)
    assert time.monotonic() - began < 25


def test_connections_are_limited(site, monkeypatch):
    monkeypatch.setattr(web_server._Handler, "timeout", 60.0)
    one = site()
    held = [one.raw("GET / HTTP/1.1", "X: ") for _ in range(CONNECTIONS_MAX)]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        one.get("/")  # they are taken in their order
    for connection in held:
        connection.close()
    until, status = time.monotonic() + 25, None
    while status != 200:
        assert time.monotonic() < until
        with suppress(ConnectionError, http.client.HTTPException):
            status = one.status("/")


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        ("GET /" + "x" * 70_000 + " HTTP/1.1", b"414"),
        ("GET / HTTP/x", b"400"),
        ("GET / HTTP/9.0", b"505"),
        ("GET http://[::1 HTTP/1.1", b"400"),
    ],
)
def test_malformed_requests_are_refused(site, request_line, code):
    one = site()
    # To one whose version is not understood the standard library answers as to HTTP/0.9: without headers.
    answer = one.raw(request_line, "Host: localhost", "", "").recv(1000)
    assert answer.removeprefix(b"HTTP/1.0 ").startswith(code)
    assert b"<" not in answer
    assert one.status("/") == 200


# -- reports --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/reports/", "/reports/../secret.txt", "/reports/..%2fsecret.txt", "/reports/%2e%2e/secret.txt",
        "/reports/2011-06-06.html/../../secret.txt", "/reports//etc/passwd", "/reports/evidently.log",
        "/reports/2011-06-13.html", "/reports/2011-06-06.html%00",
    ],
)  # fmt: skip
def test_nothing_but_reports_is_read(site, tmp_path, path):
    directory = tmp_path / "reports"
    directory.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (directory / "evidently.log").write_text("secret")
    (directory / "2011-06-06.html").write_text("report")
    one = site(pages={"/reports/": reports_page(directory)})
    status, _, body = one.get(path)
    assert status == 404
    assert b"secret" not in body
    status, headers, body = one.get("/reports/2011-06-06.html")
    assert (status, body) == (200, b"report")
    assert headers["Content-Security-Policy"] == SANDBOX
    assert "allow-same-origin" not in SANDBOX
    assert "connect-src" not in SANDBOX


def test_the_newest_reports_are_kept(tmp_path):
    ends = [1_291_593_600 + week * 604_800 for week in range(5)]
    for end in ends:
        report_path(tmp_path, end).write_text("report")
    (tmp_path / "evidently.log").write_text("log")
    assert prune_reports(tmp_path, 3) == ["2010-12-06", "2010-12-13"]
    assert report_days(tmp_path) == ["2010-12-20", "2010-12-27", "2011-01-03"]
    assert (tmp_path / "evidently.log").exists()
    assert prune_reports(tmp_path, 3) == []
    assert report_days(tmp_path / "none") == []


# -- health ---------------------------------------------------------------------


def test_a_process_that_stands_still_is_not_alive():
    now = [0.0]
    pulse = Pulse(clock=lambda: now[0])
    assert pulse.unbegun() == ["its work has not begun yet"]
    pulse.beat()
    assert (pulse.unbegun(), pulse.troubles()) == ([], [])
    now[0] = SILENT_MAX_S + 5
    assert pulse.troubles() == [f"its work has stood still for {now[0]:.0f} s"]
    pulse.beat()
    assert pulse.troubles() == []


def test_readiness_names_what_is_missing(site):
    settings = Settings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    pulse = Pulse()
    pages = health_pages("worker", pulse, BrokerLook(settings), lambda: ["partition 1 is being loaded"])
    one = site(pages=pages)
    status, _, body = one.get("/readyz")
    assert status == 503
    assert b"partition 1 is being loaded" in body
    assert f"no Kafka broker answered at {settings.bootstrap_servers}".encode() in body
    assert one.get("/healthz")[0] == 200


def test_readiness_is_a_metric_that_nobody_waits_for(monkeypatch):
    monkeypatch.setattr("streams.web.health.BROKER_LOOK_S", 0.0)
    looks = []
    monkeypatch.setattr(
        BrokerLook, "_look", lambda _: looks.append(1) or (["no broker"] if len(looks) == 2 else [])
    )
    registry, pulse = CollectorRegistry(), Pulse()
    ProcessSite(Settings(), "worker", pulse, registry, pulse.unbegun)

    def shown():
        return registry.get_sample_value("clv_ready")

    assert shown() == 0  # not begun
    pulse.beat()
    for found in (1, 0, 1):  # what the broker was found like at the last look
        wait_for(lambda found=found: shown() == found)


@pytest.mark.broker
def test_readiness_looks_for_the_topics(settings, monkeypatch):
    monkeypatch.setattr("streams.web.health.BROKER_WAIT_S", 60.0)  # a busy machine's broker is no failure
    missing = BrokerLook(settings).troubles()
    assert f"there is no topic {settings.topic('clv.evaluations')}" in missing
    ensure_topics(settings)
    assert BrokerLook(settings).troubles() == []
