"""The live page in a real browser: during a real replay, and with logs that mean harm."""

import copy
import os
import re
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from kafka import KafkaProducer
from page_browser import browsing
from prometheus_client import CollectorRegistry
from small_shop import SHORT, rows_before, shop
from stream_run import running

from streams import cloudevents
from streams.kafka_process import free_port
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue
from streams.web.health import Pulse
from streams.web.page_model import WARNINGS_SHOWN
from streams.web.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]

SHOP = "customers=2000,days=133,seed=3"
DRIFT = "price:+60%@2011-03-28"
WINDOW_S = 0.3  # of wall time
REPLAY = ("--synthetic", SHOP, "--inject", DRIFT, "--speed", str(round(7 * 86_400 / WINDOW_S)))
WINDOWS = 1_000
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e'\"&"


def settings_of(bootstrap_servers, home, prefix, **changes):
    return Settings(
        bootstrap_servers=bootstrap_servers,
        broker_wait_s=60,
        topic_prefix=f"{prefix}{os.getpid()}.",
        registry_dir=home / "registry",
        reports_dir=home / "reports",
        kafka_dir=home / "kafka",
        report_every=4,
        partitions=2,
        **{**SHORT, **changes},
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def begun(browser, bootstrap_servers, tmp_path_factory):
    """A worker with its page in the browser since before the first line; the first two months are in."""
    home = tmp_path_factory.mktemp("page")
    port = free_port()
    settings = settings_of(bootstrap_servers, home, "page", worker_port=port)
    with running(settings, home / "logs") as stream:
        stream.start("worker", "--port", str(port))
        stream.retrain()
        stream.url = f"http://127.0.0.1:{port}/"
        stream.wait_for(lambda: answers(f"{stream.url}readyz"))
        browser.open(stream.url)
        stream.replay(*REPLAY, "--limit", str(rows_before(shop(DRIFT, text=SHOP), "2011-02-01")), "--no-end")
        yield stream


@pytest.fixture(scope="module")
def stream(browser, begun):
    """The same, all lines in: what is looked at no longer moves."""
    if "rest" not in vars(begun):
        begun.rest = begun.start("replay", *REPLAY, "--resume")
    browser.wait_for(lambda: "cut short" in browser.text("#tile-state"), 300)
    browser.wait_for(
        lambda: browser.run("return document.querySelectorAll('#reports-told a').length > 1;"), 300
    )
    return begun


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status == 200
    except OSError:
        return False


def windows(browser):
    return int(
        (re.match(r"([\d,]+) windows", browser.text("#timeline-told")) or [0, "0"])[1].replace(",", "")
    )


def test_the_page_grows_while_lines_arrive(browser, begun):
    browser.run("window.loadedOnce = true;")
    browser.wait_for(lambda: browser.text("#connection") == "live")
    first = browser.wait_for(lambda: windows(browser))
    begun.rest = begun.start("replay", *REPLAY, "--resume")
    browser.wait_for(lambda: windows(browser) >= first + 5)
    assert browser.run("return window.loadedOnce;")
    assert "warming" in browser.text("#legend")


def test_the_drift_is_shown_at_the_injected_date(browser, stream):
    states = {row[0]: (row[1], row[5]) for row in browser.table()}
    assert {state for day, (state, _) in states.items() if "2011-02-28" <= day < "2011-04-01"} <= {"quiet"}
    assert states["2011-04-04"][0] == "suspected"
    assert states["2011-04-11"][0] == "confirmed"
    assert "AvgUnitPrice" in states["2011-04-11"][1]
    assert "currency" in states["2011-04-11"][1]


def test_early_warnings_are_told_with_what_became_of_them(browser, stream):
    published = [
        cloudevents.decode(record.value) for record in read_all(stream.settings, warnings_of(stream))
    ]
    browser.wait_for(lambda: browser.run(f"return {ROWS}.length;") == min(len(published), WARNINGS_SHOWN))
    cells = browser.run(f"return {ROWS}.map((row) => [...row.cells].map((cell) => cell.textContent));")
    days = [day for day, *_ in cells]
    assert days == sorted(days, reverse=True)
    in_april = [(what, state) for day, what, state in cells if "2011-03-28" <= day < "2011-04-11"]
    assert in_april
    assert all("PiecePrice +" in what for what, _ in in_april)
    assert {state for _, state in in_april} <= {"suspected", "confirmed"}
    assert "early warning" not in browser.text("#tile-state")  # the last window is judged too


ROWS = "[...document.querySelectorAll('#warnings-told tbody tr')]"


def warnings_of(stream):
    return catalogue(stream.settings).warnings.name


def test_model_actions_and_lines_are_told(browser, stream):
    assert "since 2011-" in browser.text("#tile-model")
    steps = browser.text("#steps")
    assert "promoted" in steps
    assert "asks for retrain" in steps
    assert "P(better)" in steps
    assert "customers held out" in steps
    assert browser.run("return document.querySelectorAll('#error-chart path').length;") == 2

    def counted() -> bool:
        counters = stream.counters()
        told = f"{counters['read']:,} read = {counters['on_time']:,} on time"
        return told in browser.text("#feed-told")

    browser.wait_for(counted)


def test_it_is_used_by_keyboard(browser, stream):
    browser.open(stream.url)
    browser.wait_for(lambda: windows(browser))
    browser.press("TAB")
    assert browser.run("return document.activeElement.textContent;") == "Skip to the windows"
    browser.press("ENTER", "TAB")
    assert browser.focused() == "52"
    browser.press("ARROW_LEFT")
    assert browser.focused() == "26"
    browser.press("TAB")
    assert browser.focused() == "timeline-chart"
    newest = browser.text("#window h3")
    browser.press("ARROW_LEFT", "ARROW_LEFT")
    chosen = browser.text("#window h3")
    assert chosen != newest
    told = browser.run("return document.activeElement.getAttribute('aria-valuetext');")
    assert told == chosen.replace("Week", "week").replace(": ", ", ")
    browser.press("TAB")
    assert browser.focused() == "to-newest"
    browser.press("ENTER")
    assert browser.text("#window h3") == newest


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1024, True), (1440, False)])
def test_it_fits_and_follows_the_colour_scheme(browser, stream, tmp_path, width, dark):
    browser.open(stream.url, width=width, dark=dark)
    browser.wait_for(lambda: windows(browser))
    assert browser.run("return document.documentElement.scrollWidth;") <= width
    ground = browser.run("return getComputedStyle(document.body).backgroundColor;")
    light = sum(map(int, re.findall(r"\d+", ground))) > 3 * 128
    assert light is not dark
    # Words on their ground: 4.5 to 1 at the least, as WCAG 2.2 has it for text.
    assert browser.run(CONTRAST) == []
    picture = browser.picture(tmp_path / f"page-{width}-{'dark' if dark else 'light'}.png")
    assert len(picture) > 20_000


CONTRAST = """
const part = (v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
const lightness = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
  return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
const ground = (node) => { for (; node; node = node.parentElement) {
  const colour = getComputedStyle(node).backgroundColor;
  if (!/, 0\\)$/.test(colour)) return colour; } return 'rgb(255, 255, 255)'; };
const found = new Set();
const words = 'p, h1, h2, h3, dt, dd, td, th, li, a, strong, span, text, summary, label';
for (const node of document.querySelectorAll(words)) {
  const shown = node.textContent.trim() && node.getClientRects().length;
  if (!shown || node.matches('.swatch') || node.closest('.skip, .hidden')) continue;
  const style = getComputedStyle(node);
  const colour = node.matches('text') ? style.fill : style.color;
  const [high, low] = [lightness(colour), lightness(ground(node))].sort((a, b) => b - a);
  const ratio = (high + .05) / (low + .05);
  if (ratio < 4.5) found.add(`${node.tagName} ${ratio.toFixed(2)} ${node.textContent.slice(0, 30)}`);
}
return [...found];
"""


def test_a_report_is_drawn_in_its_sandbox(browser, stream):
    browser.open(stream.url)
    browser.wait_for(lambda: browser.run("return document.querySelectorAll('#reports-told a').length;"))
    assert browser.complaints() == []
    assert browser.hosts() <= {stream.url.split("/")[2]}
    browser.driver.get(browser.run("return document.querySelector('#reports-told a').href;"))
    browser.wait_for(lambda: "Drift" in browser.text("body"))
    assert browser.run("return origin;") == "null"
    assert browser.hosts() == {stream.url.split("/")[2]}
    browser.complaints()


# -- logs that mean harm, and a thousand windows -------------------------------


@pytest.fixture(scope="module")
def told(stream, bootstrap_servers, tmp_path_factory):
    """The logs of that run with hostile names in every text, a thousand windows long."""
    stream.wait_for(stream.ended)
    home = tmp_path_factory.mktemp("told")
    settings = settings_of(bootstrap_servers, home, "told", worker_port=free_port())
    ensure_topics(settings)
    topics = catalogue(settings)
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=50)
    events, decisions = (
        [cloudevents.decode(record.value) for record in read_all(stream.settings, topic.name)]
        for topic in (catalogue(stream.settings).events, catalogue(stream.settings).models)
    )
    for event in hostile_windows(stream.evaluations().values()):
        key = event["data"]["window_end"].encode()
        producer.send(topics.evaluations.name, cloudevents.encode(event), key=key, partition=0)
    for event, topic in [(it, topics.events) for it in events] + [(it, topics.models) for it in decisions]:
        hostile = {**event, "data": {**event["data"], "reason": HOSTILE}}
        producer.send(topic.name, cloudevents.encode(hostile), key=event["id"].encode(), partition=0)
    last = datetime(1995, 1, 2, tzinfo=UTC) + timedelta(weeks=WINDOWS)
    for event in hostile_warnings(last):
        key = event["data"]["day"].encode()
        producer.send(topics.warnings.name, cloudevents.encode(event), key=key, partition=0)
    for number in range(7):
        headers = [("dlq.reason", f"Country {HOSTILE} is unknown".encode()), ("dlq.offset", b"%d" % number)]
        producer.send(topics.dead_letters.name, b"x", partition=0, headers=headers)
    producer.flush()
    producer.close()
    return settings


def hostile_windows(evaluations):
    like = next(e for e in map(cloudevents.decode, evaluations) if e["data"]["state"] == "confirmed")
    for number in range(WINDOWS):
        event = copy.deepcopy(like)
        data, end = event["data"], datetime(1995, 1, 2, tzinfo=UTC) + timedelta(weeks=number)
        data["window_end"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        data["action_reason"] = data["model_version"] = HOSTILE
        for cause in data["verdicts"]["baseline"]["causes"]:
            cause |= {"feature": f"{HOSTILE} {number}", "segment": HOSTILE, "unit": HOSTILE}
        yield event


def hostile_warnings(window_end):
    """One in a window that is judged, two in the one that is still open."""
    for days in (-9, -3, -2):
        day, end = window_end + timedelta(days=days), window_end - timedelta(weeks=1 if days < -7 else 0)
        data = {"partition": 1, "day": day.isoformat(), "window_end": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
        finding = {"signal": HOSTILE, "onset": day.isoformat(), "change": -0.25, "statistic": 61.0}
        yield {"type": "clv.warning.v1", "data": {**data, "findings": [{**finding, "threshold": 60.0}]}}


def served(settings):
    pulse = Pulse()
    site = Site(settings, "worker", pulse, CollectorRegistry(), pulse.unbegun)
    site.show_page()
    site.serve(settings.worker_port, setting="worker_port")
    return site


def test_hostile_names_are_texts_and_a_thousand_windows_are_quick(browser, told):
    site = served(told)
    url = f"http://127.0.0.1:{told.worker_port}/"
    browser.hosts()  # of the pages before
    try:
        browser.open(url)
        browser.wait_for(lambda: windows(browser) == WINDOWS)
        browser.run("document.querySelector('input[value=\"100000\"]').click();")
        browser.run("document.getElementById('timeline-chart').focus();")
        took_s = []
        for key in ("HOME", "END", "HOME"):
            began = time.monotonic()
            browser.press(key)
            took_s.append(time.monotonic() - began)
        assert min(took_s) < 2
        assert "1995-01-02" in browser.text("#window h3")
        assert HOSTILE[:60] in browser.text("#window")
        assert HOSTILE[:60] in browser.text("#steps")
        assert "7" in browser.text("#letters-told")
        browser.wait_for(lambda: "2 early warnings" in browser.text("#tile-state"))
        warned = browser.text("#warnings-told")
        assert f"{HOSTILE[:60]}" in warned
        assert "−25%" in warned
        assert re.findall("still open|confirmed", warned) == ["still open", "still open", "confirmed"]
        rows = browser.table()
        assert HOSTILE[:60] in rows[0][5]
        assert browser.driver.title == "clv-drift"
        assert browser.run("return document.querySelectorAll('img, main script').length;") == 0
        assert browser.run("return document.querySelectorAll('svg *').length;") < 200
        assert browser.complaints() == []
        assert browser.hosts() == {f"127.0.0.1:{told.worker_port}"}
    finally:
        site.close()


def test_the_page_outlives_the_worker(browser, told):
    """Another process, or the same one after a restart, shows the same; the page takes it up by itself."""
    first = served(told)
    browser.open(f"http://127.0.0.1:{told.worker_port}/")
    browser.wait_for(lambda: windows(browser) == WINDOWS)
    before = browser.table()
    browser.run("window.loadedOnce = true;")
    first.close()
    browser.wait_for(lambda: "lost" in browser.text("#connection"))
    second = served(told)
    try:
        browser.wait_for(lambda: browser.text("#connection") == "live")
        assert browser.run("return window.loadedOnce;")
        assert browser.table() == before
    finally:
        second.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "web"]


def test_the_token_leaves_the_address(browser, told):
    secret = "a-secret-of-this-test"
    site = served(told.model_copy(update={"web_token": Settings(web_token=secret).web_token}))
    url = f"http://127.0.0.1:{told.worker_port}/"
    try:
        browser.open(url)
        assert "a token is needed" in browser.text("body")
        browser.open(f"{url}?token={secret}")
        browser.wait_for(lambda: windows(browser) == WINDOWS)
        assert browser.driver.current_url == url
        assert browser.run("return document.cookie;") == ""
        browser.open(url)
        browser.wait_for(lambda: windows(browser) == WINDOWS)
    finally:
        site.close()
