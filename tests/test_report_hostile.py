"""A report on data that means harm, in a real browser: nothing of it runs, and the report is drawn.

The escapes in the HTML and the policy that stands there are tested each without the other safeguards too.
"""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from model_frames import customers, pairs
from page_browser import browsing

from streams.kafka_process import free_port
from streams.web.reports import reports_page
from streams.web.server import serve

pytestmark = [
    pytest.mark.slow,
    # Evidently divides by zero on the way and its plots warn by the dozen.
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", r"ignore:R\^2 score"),
]

NAME = "2011-06-06.html"
# URL is another server's. Each leads there or speaks to it, by a way of its own.
RUNS = "document.title='OWNED';location='URL?'+document.body.innerText.length"
SCRIPTS = (
    f"</script><script>{RUNS}</script>",
    f"<!--<script>--></script><img src='URL' onerror=\"{RUNS}\">",
    f"<svg/onload=\"{RUNS}\"><iframe src='URL'></iframe>",
)
HARM = (
    *SCRIPTS,
    "</SCRIPT ><meta http-equiv=refresh content='0;url=URL'>",
    "<a href='URL' target='_self'>a link</a>",
    "&lt;a href='URL'&gt;&lt;img src='URL'&gt;",
    f"\\\"}};{RUNS};//\u2028'`${{{RUNS}}}",
    "[a link](URL) ![a picture](URL)",
)
COUNTRY_CHARACTERS_MAX = 256
POLICY = re.compile('<meta http-equiv="Content-Security-Policy"[^>]*>')


@pytest.fixture(scope="module")
def report():
    """The module under test; its import takes some ten seconds."""
    from streams import evidently_report

    return evidently_report


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as it:
        yield it


class Elsewhere:
    """Another server, and what was asked of it."""

    def __init__(self):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def elsewhere():
    it = Elsewhere()
    yield it
    it.server.shutdown()
    it.server.server_close()


@pytest.fixture(params=["served", "file"])
def url(request, tmp_path):
    """The address of the report in `tmp_path`: at our server, or of the file."""
    if request.param == "file":
        yield (tmp_path / NAME).as_uri()
        return
    pages = {"/reports/": reports_page(tmp_path)}
    handle = serve(pages, "127.0.0.1", free_port(), setting="worker_port")
    yield f"{handle.url}/reports/{NAME}"
    handle.close()


def written(report, directory, texts):
    """Write the report on customers of as many countries as there are texts; return its path."""
    sides = [customers(seed, 240) for seed in (1, 2)]
    for side in sides:
        side["Country"] = [texts[row % len(texts)] for row in range(len(side))]
    labels = report.RegressionPairs(*pairs(5))
    report.compare(*sides, drift_share=0.5, regression=labels, html=directory / NAME)
    return directory / NAME


def harm(elsewhere, texts=HARM):
    told = [text.replace("URL", elsewhere.url) for text in texts]
    assert max(map(len, told)) <= COUNTRY_CHARACTERS_MAX
    return told


def countries_drawn(browser, url):
    """Open the report, unfold the row of Country, and return what stands below the bars of its plot."""
    browser.driver.get(url)
    row = "[...document.querySelectorAll('tbody tr')].find((it) => it.textContent.startsWith('Country'))"
    browser.wait_for(lambda: browser.run(f"return Boolean({row});"), timeout_s=30)
    browser.run(f"{row}.querySelector('button').click();")
    ticks = f"return [...{row}.nextElementSibling.querySelectorAll('.xtick')].map((it) => it.textContent);"
    return browser.wait_for(lambda: browser.run(ticks), timeout_s=30)


def assert_quiet(browser, elsewhere):
    assert elsewhere.asked == []
    assert browser.driver.title == ""
    assert elsewhere.url not in browser.driver.current_url


def test_hostile_countries_are_texts_in_a_plot(report, browser, elsewhere, url, tmp_path):
    texts = harm(elsewhere)
    written(report, tmp_path, texts)
    browser.complaints()
    drawn = countries_drawn(browser, url)
    assert_quiet(browser, elsewhere)
    assert browser.complaints() == []
    assert browser.run("return document.querySelectorAll('.js-plotly-plot').length;") > 3
    assert len(drawn) == len(texts)
    for text in SCRIPTS:  # a long label is cut
        start = text.replace("<", "‹").replace(">", "›").partition("URL")[0][:20]
        assert any(label.startswith(start) for label in drawn), (start, drawn)
    links = (
        "return [...document.querySelectorAll('a')].map((it) => it.getAttribute('href') || it.href.baseVal);"
    )
    assert not [link for link in browser.run(links) if link and link.startswith(elsewhere.url)]


def test_the_escapes_alone_keep_it_from_running(report, browser, elsewhere, url, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_READ_AS", {})
    path = written(report, tmp_path, harm(elsewhere))
    bare, policies = POLICY.subn("", path.read_text(encoding="utf-8"))
    assert policies == 1
    path.write_text(bare, encoding="utf-8")
    assert len(countries_drawn(browser, url)) == len(HARM)
    assert_quiet(browser, elsewhere)


def test_the_policy_alone_keeps_it_from_running(report, browser, elsewhere, url, tmp_path):
    path = written(report, tmp_path, ["Spain", "France"])
    text = path.read_text(encoding="utf-8")
    marked = text.replace("<body>", "<body>" + "".join(harm(elsewhere, SCRIPTS)), 1)
    path.write_text(marked, encoding="utf-8")
    assert set(countries_drawn(browser, url)) == {"France", "Spain"}
    assert_quiet(browser, elsewhere)
    assert "Content Security Policy" in " ".join(browser.complaints())


def test_without_any_safeguard_it_runs(report, browser, elsewhere, url, tmp_path, monkeypatch):
    """Or the tests above would show nothing."""
    monkeypatch.setattr(report, "_READ_AS", {})
    monkeypatch.setattr(report, "guarded", lambda page: page)
    written(report, tmp_path, harm(elsewhere, SCRIPTS[:1]))
    browser.driver.get(url)
    browser.wait_for(lambda: elsewhere.asked, timeout_s=30)
    assert elsewhere.asked[0].startswith("/?")
