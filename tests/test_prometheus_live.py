"""A real replay seen by a real Prometheus and Alertmanager with the committed configuration.

Every query of every rule and panel is asked of that Prometheus; the alert on an injected drift reaches
whoever is told, and so does its end.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from observed_run import Observed, observing, tool
from small_shop import SHORT, rows_before, shop
from stream_run import StreamRun, backfilled, running
from test_grafana import promql_of, variables_filled
from test_prometheus import metrics_of, rules

from streams import cloudevents
from streams.kafka_process import free_port
from streams.metrics import WorkerMetrics
from streams.metrics_server import PATH, metrics_page
from streams.settings import Settings
from streams.topic_reader import read_all
from streams.topics import catalogue
from streams.web.server import serve
from streams.webhooks.metrics import WebhookMetrics

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1500)]

SHOP = "customers=2000,days=200,seed=3"
# Prices rise for five weeks and then fall to where they were: the drift is confirmed, and resolved.
DRIFT = ("price:+60%@2011-03-28", "price:-38%@2011-05-02")
PAUSE = "2011-05-02"  # lines wait here until the alert fires and another worker has taken over
WINDOW_S = 1.0  # of wall time
# Windows of the calibrated detector's real lengths, from a file: its causes name same customers and products.
CALIBRATED = {
    "reference_weeks": 22,
    "reference_weeks_min": 18,
    "horizon_days": 28,
    "monitor_horizon_days": 14,
    "estimators": ("tweedie_glm",),
    "gate_resamples": 200,
    "retrain_every_days": 0,
}
ALERT = "CLVDataDriftDetected"
TOPIC, SECOND_TOPIC = "retail.transactions", "told.transactions"


@dataclass
class Seen:
    """A run that is over, and the Prometheus that has seen it."""

    observed: Observed
    stream: StreamRun
    began: float
    ended: float
    taken_over: dict[str, str]  # which instance owned the evaluations before and after


def told_metrics(settings: Settings, directory: Path) -> WorkerMetrics:
    """The metrics of a worker that has read the logs of a run over a file, as of a window with drift."""
    source = shop("price:+30%@2011-07-18", text="customers=500,days=245,seed=5")
    results = backfilled(source, settings, directory)
    metrics = WorkerMetrics(settings)
    drifted = [e for e in results.evaluations if (e["data"]["verdicts"].get("calibrated") or {}).get("drift")]
    upto = results.evaluations.index(drifted[-1]) + 1
    for event in results.evaluations[:upto]:
        metrics.observe_evaluation(event)
    metrics.evaluations_loaded()
    return metrics


@pytest.fixture(scope="module")
def seen(bootstrap_servers, tmp_path_factory) -> Iterator[Seen]:
    tool("prometheus"), tool("alertmanager")
    home = tmp_path_factory.mktemp("observed")
    settings = Settings(
        bootstrap_servers=bootstrap_servers,
        broker_wait_s=60,
        topic_prefix=f"p{os.getpid()}.",
        registry_dir=home / "registry",
        reports_dir=home / "reports",
        kafka_dir=home / "kafka",
        report_every=100,
        partitions=2,
        retrain_port=free_port(),
        **SHORT,
    )
    told = told_metrics(Settings(**CALIBRATED), home / "told")
    told_port, hooks_port, *ports = (free_port() for _ in range(4))
    targets = {
        "worker": [
            {"targets": [f"127.0.0.1:{port}" for port in ports]},
            {"targets": [f"127.0.0.1:{told_port}"], "labels": {"topic": SECOND_TOPIC}},
        ],
        "webhooks": [{"targets": [f"127.0.0.1:{hooks_port}"]}],
        "retrain": [{"targets": [f"127.0.0.1:{settings.retrain_port}"]}],
    }
    (home / "stack").mkdir()
    hooks = WebhookMetrics(("ops",))
    hooks.observe_queue("ops", pending=1, dead=0, oldest_at=time.time())
    handles = [
        serve({PATH: metrics_page(told.registry)}, "127.0.0.1", told_port, setting="worker_port"),
        serve({PATH: metrics_page(hooks.registry)}, "127.0.0.1", hooks_port, setting="webhooks_port"),
    ]
    try:
        with observing(home / "stack", targets) as observed, running(settings, home / "logs") as stream:
            yield _played(observed, stream, settings, ports)
    finally:
        for handle in handles:
            handle.close()


def _played(observed: Observed, stream: StreamRun, settings: Settings, ports: list[int]) -> Seen:
    """Two workers; the one that owns the evaluations is killed once the alert fires."""
    began = time.time()
    workers = {f"127.0.0.1:{port}": stream.start("worker", "--port", str(port)) for port in ports}
    stream.start("retrain", "--port", str(settings.retrain_port))
    observed.wait_for(lambda: len(observed.query('up{job=~"worker|retrain"} == 1')) == 4, 180)
    inject = [word for drift in DRIFT for word in ("--inject", drift)]
    replay = ("--synthetic", SHOP, *inject, "--speed", str(round(7 * 86_400 / WINDOW_S)))
    stream.replay(*replay, "--limit", str(rows_before(shop(*DRIFT, text=SHOP), PAUSE)), "--no-end")

    def firing() -> bool:
        return observed.query(f'ALERTS{{alertname="{ALERT}", alertstate="firing", topic="{TOPIC}"}}') != []

    def owners() -> set[str]:
        shown = observed.query(f'clv_evaluations_total{{topic="{TOPIC}"}}')
        return {series["metric"]["instance"] for series in shown}

    def owner_besides(*others: str) -> str:
        found: set[str] = set()

        def has_one() -> bool:
            nonlocal found
            found = owners() - set(others)
            return len(found) == 1

        observed.wait_for(has_one, 180)
        return found.pop()

    observed.wait_for(firing, 300)
    before = owner_besides()
    workers[before].process.kill()
    after = owner_besides(before)
    stream.replay(*replay, "--resume")
    observed.wait_for(stream.ended, 300)
    observed.wait_for(lambda: not firing(), 180)
    return Seen(observed, stream, began, time.time(), {"before": before, "after": after})


def test_every_rule_can_be_evaluated(seen):
    health = seen.observed.rules()
    assert {rule["name"] for rule in health} == {rule.get("alert") or rule["record"] for rule in rules()}
    assert [(rule["name"], rule["lastError"]) for rule in health if rule["health"] != "ok"] == []


@pytest.mark.parametrize("record", [rule["record"] for rule in rules() if "record" in rule])
def test_every_recorded_rule_has_data(seen, record):
    assert seen.observed.over(record, seen.began, seen.ended) != []


def test_every_selector_of_every_alert_has_data(seen):
    """An alert is silent in health; each metric that it asks for is there all the same."""
    missing = {
        (rule["alert"], name)
        for rule in rules()
        if "alert" in rule
        for name in metrics_of(rule["expr"])
        if seen.observed.over(name, seen.began, seen.ended) == []
    }
    assert missing == set()


@pytest.mark.parametrize("panel", promql_of(), ids=lambda found: found[0])
def test_every_query_of_every_panel_has_data(seen, panel):
    _, expr = panel
    values = {
        value
        for topic in (TOPIC, SECOND_TOPIC)
        for series in seen.observed.over(variables_filled(expr, topic), seen.began, seen.ended)
        for _, value in series["values"]
    }
    assert values - {"NaN"}, expr


def test_the_drift_is_told_once_and_so_is_its_end(seen):
    def told() -> list[tuple[str, str]]:
        messages = seen.observed.receiver.attachments("/chat")
        found = [message for message in messages if TOPIC in message["title"] and ALERT in message["title"]]
        return [(message["title"].split()[0], message["text"]) for message in found]

    seen.observed.wait_for(lambda: "RESOLVED" in [status for status, _ in told()], 300)
    assert [status for status, _ in told()] == ["FIRING", "RESOLVED"]
    text = told()[0][1]
    assert "AvgUnitPrice" in text
    assert f"docs/runbooks/{ALERT}.md" in text


def test_a_drift_is_counted_once_though_another_worker_took_over(seen):
    assert seen.taken_over["before"] != seen.taken_over["after"]
    log = read_all(seen.stream.settings, catalogue(seen.stream.settings).events.name)
    events = [cloudevents.decode(record.value) for record in log]
    drifts = {
        (event["data"]["drift_type"], event["data"]["suspected_at"])
        for event in events
        if event["type"] == "clv.drift.detected.v1"
    }
    for kind in ("data", "model"):
        counter = f'clv:drift_detected:max{{topic="{TOPIC}", drift_type="{kind}"}}'
        shown = {
            int(value)
            for series in seen.observed.over(counter, seen.began, seen.ended)
            for _, value in series["values"]
        }
        assert max(shown) == sum(found == kind for found, _ in drifts)
        resets = seen.observed.query(f"resets({counter}[10m])")
        assert [series["value"][1] for series in resets] == ["0"]


def test_the_topics_of_two_installations_are_told_apart(seen):
    ends = seen.observed.query("max by (topic) (clv_window_end_timestamp_seconds)")
    assert {series["metric"]["topic"] for series in ends} == {TOPIC, SECOND_TOPIC}
