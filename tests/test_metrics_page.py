"""The /metrics page: what the logs say, the same after a restart, valid for Prometheus, and nothing else."""

import os
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import fields, replace

import pytest
from drift_story import PARTITIONS, story, story_partitions, story_settings
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streams.errors import ExitCode, UserError
from streams.kafka_process import free_port
from streams.metrics import METRICS, RetrainMetrics, WorkerMetrics
from streams.metrics_server import PATH, metrics_page
from streams.metrics_table import FATES
from streams.metrics_views import PartitionView, RunningTotal, watermark_delay_s
from streams.score_metrics import ScoreMetrics
from streams.state_config import Counters
from streams.web.server import serve
from streams.webhooks.metrics import WebhookMetrics

# Names of the original system that break a rule of Prometheus; they are kept so that its panels go on.
ORIGINALS_OWN = {"clv_drifted_columns_count"}
COMPARED = {
    "window_end": "2011-05-23T00:00:00Z",
    "status": "compared",
    "dataset_drift": False,
    "share": 1 / 3,
    "drifted_columns": 3,
}


def told(metrics, windows=None):
    """A worker's metrics after reading the logs of the story, or its first evaluations."""
    results = story()
    metrics.reset_evaluations()
    for event in results.events:
        metrics.observe_drift_event(event)
    for event in results.evaluations[:windows]:
        metrics.observe_evaluation(with_strengths(event))
    for event in results.decisions:
        metrics.observe_decision(event)
    metrics.evaluations_loaded()
    metrics.observe_comparison({"data": COMPARED})
    metrics.observe_comparisons_behind(1)
    return metrics


def with_strengths(event):
    """The evaluation as if its detector, the baseline, said how far each feature went."""
    verdicts = {
        name: verdict | {"strengths": {feature: {"4": 0.5} for feature in verdict["scores"]}}
        for name, verdict in event["data"]["verdicts"].items()
    }
    return event | {"data": event["data"] | {"verdicts": verdicts}}


def samples(metrics):
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("clv_")
    }


def views(**changes):
    return [
        replace(
            PartitionView.of(
                state,
                stored_bytes=4_000,
                stored=state.counters,
                warnings=state.warnings.tally,
                end_offset=state.read_offset + 8,
                holes=0,
                reloads=0,
            ),
            **changes,
        )
        for state in story_partitions()
    ]


def full_worker(windows=None):
    metrics = told(WorkerMetrics(story_settings()), windows)
    partitions = views()
    metrics.partitions = lambda: partitions
    metrics.observe_evaluation_seconds(0.03)
    metrics.window_close_seconds.observe(0.2)
    return metrics


def full_retrain():
    metrics = RetrainMetrics()
    for event in story().events:
        metrics.observe_request(event)
    for event in story().decisions:
        metrics.observe_decision(event)
    metrics.observe_training("promoted", 12.0)
    return metrics


def full_scores():
    metrics = ScoreMetrics()
    metrics.observe_sent(10, 2)
    metrics.observe_scored(0, 10, 1_300_000_000)
    metrics.observe_scored(1, 4, 1_300_000_000)
    metrics.observe_lost(1)
    metrics.observe_refused()
    return metrics


def full_webhooks():
    metrics = WebhookMetrics(("ops",))
    metrics.observe_try("ops", "again", 0.2)
    metrics.observe_queue("ops", pending=2, dead=1, oldest_at=1_300_000_000)
    metrics.observe_refused()
    return metrics


PAGES = {
    "worker": lambda: full_worker(-1),
    "retrain": full_retrain,
    "scores": full_scores,
    "webhooks": full_webhooks,
}


@pytest.mark.parametrize(("process", "full"), PAGES.items())
def test_the_page_holds_exactly_the_metrics_of_the_table(process, full):
    page = generate_latest(full().registry).decode()
    families = {
        family.name: family
        for family in text_string_to_metric_families(page)
        if not family.name.startswith("process_")
    }
    specs = [spec for spec in METRICS if spec.process == process]
    assert set(families) == {spec.name.removesuffix("_total") for spec in specs}
    for spec in specs:
        family = families[spec.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (spec.type, spec.help)
        assert family.samples, spec.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(spec.labels)


def test_the_counters_of_the_table_are_all_there_is_to_a_record():
    assert {"read", *FATES} == {item.name for item in fields(Counters)}


@pytest.mark.parametrize("full", PAGES.values())
def test_prometheus_finds_nothing_wrong(full):
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = "promtool is not installed (Debian: prometheus)"
        pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)
    page = generate_latest(full().registry)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, timeout=60, check=False
    )
    complaints = [
        line
        for line in (checked.stdout + checked.stderr).decode().splitlines()
        if line.split(" ")[0] not in ORIGINALS_OWN
    ]
    assert complaints == []


def test_the_last_window_is_shown():
    data = story().evaluations[-1]["data"]
    found = samples(full_worker())
    assert found["clv_drift_state", "confirmed"] == 1
    assert sum(value for (name, *_), value in found.items() if name == "clv_drift_state") == 1
    assert found["clv_detector_verdict", "baseline", "cannot_tell"] == 1
    assert found["clv_detector_verdict", "baseline", "drift"] == 0
    assert found["clv_model_info", data["model_version"]] == 1
    assert found["clv_window_lines",] == data["lines"]
    assert found["clv_model_performance_matured", "14", "mae"] == data["performance"]["14"]["mae"]
    assert found["clv_model_performance", "mae"] == data["performance"]["7"]["mae"]
    assert found["clv_r2_score", "current"] == data["performance"]["7"]["r2"]
    assert found["clv_r2_score", "reference"] == data["carry"]["r2_reference"]["r2"]
    # The last window is partial: the detector cannot tell, and no number stands for that.
    assert ("clv_drift_share",) not in found


def test_a_window_with_drift_names_the_features():
    metrics = WorkerMetrics(story_settings())
    event = story().evaluations[-2]
    metrics.observe_evaluation(event)
    metrics.evaluations_loaded()
    found = samples(metrics)
    verdict = event["data"]["verdicts"]["baseline"]
    assert found["clv_drift_score", "AvgUnitPrice"] == verdict["scores"]["AvgUnitPrice"] > 0.2
    assert found["clv_drifted_columns_count",] == 2
    assert found["clv_drift_share",] == 2 / 9


def test_one_drift_is_counted_once_however_often_a_model_is_asked_for():
    events = [e["data"] for e in story().events if e["type"] == "clv.drift.detected.v1"]
    onsets = {
        kind: {event["suspected_at"] for event in events if event["drift_type"] == kind}
        for kind in ("data", "model")
    }
    requests = [e for e in story().events if e["data"]["action"] == "retrain"]
    assert len(requests) > len(onsets["data"])
    found = samples(full_worker())
    for kind, known in onsets.items():
        assert found["clv_drift_detected_total", kind] == len(known)
    outcomes = [event["data"]["outcome"] for event in story().decisions]
    assert found["clv_decisions_total", "promoted"] == outcomes.count("promoted") > 0
    assert found["clv_evaluations_total",] == len(story().evaluations)


def test_reading_the_log_again_changes_nothing():
    metrics = full_worker()
    once = samples(metrics)
    told(metrics)
    assert samples(metrics) == once
    for event in story().decisions:
        metrics.observe_decision(event)
    for event in reversed(story().evaluations):
        metrics.observe_evaluation(event)
    assert samples(metrics) == once


def test_another_worker_shows_the_same_and_the_former_owner_nothing():
    first, second = told(WorkerMetrics(story_settings())), told(WorkerMetrics(story_settings()))
    assert samples(first) == samples(second)
    first.reset_evaluations()
    assert "clv_drift_detected_total" not in {name for name, *_ in samples(first)}


def test_nothing_of_a_log_is_shown_before_it_was_read_to_its_end():
    metrics = WorkerMetrics(story_settings())
    for event in story().events:
        metrics.observe_drift_event(event)
    for event in story().evaluations[:3]:
        metrics.observe_evaluation(event)
    shown = {name for name, *_ in samples(metrics)}
    assert not shown & {"clv_drift_detected_total", "clv_evaluations_total", "clv_drift_state"}


def test_an_event_that_is_none_changes_nothing():
    metrics = full_worker()
    once = samples(metrics)
    broken = {"id": "x", "type": "clv.evaluation.v1", "data": {"window_end": "2011-05-30T00:00:00Z"}}
    for observe in (
        metrics.observe_evaluation,
        metrics.observe_drift_event,
        metrics.observe_decision,
        metrics.observe_comparison,
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            observe(broken)
    assert samples(metrics) == once


def test_every_record_is_accounted_for():
    found = samples(full_worker())
    for partition in map(str, range(PARTITIONS)):
        read = found["clv_lines_read_total", partition]
        fates = [found["clv_lines_total", *sorted((partition, fate))] for fate in FATES]
        assert read == sum(fates) > 1000
        assert found["clv_lag_records", partition] == 7
        assert found["clv_state_lines", partition] > 0
        assert found["clv_state_stored_bytes", partition] > 1_000
        assert found["clv_state_customers", partition] > 100


def test_counters_stand_at_the_checkpoint_and_a_gauge_goes_on_from_there():
    metrics = WorkerMetrics(story_settings())
    stored = Counters(read=90, on_time=80, control=10)
    (first, *_) = views(stored=stored, counters=Counters(read=97, on_time=84, control=12, dead=1))
    metrics.partitions = lambda: [first]
    found = samples(metrics)
    assert found["clv_lines_total", "0", "on_time"] == 80
    assert found["clv_lines_open", "0", "on_time"] == 4
    assert found["clv_lines_open", "0", "dead"] == 1


def test_the_slowest_watermark_is_measured_against_the_fastest():
    fast, slow = views()
    slow = replace(slow, watermark=fast.watermark - 7200)
    assert watermark_delay_s([fast, slow]) == 7200
    assert watermark_delay_s([fast, replace(slow, watermark=None)]) == 0
    assert watermark_delay_s([]) is None


def test_a_total_does_not_fall_when_a_partition_goes_and_comes_back():
    total = RunningTotal()
    assert total.after({0: 2, 1: 1}) == 3
    assert total.after({1: 1}) == 3
    assert total.after({0: 1, 1: 2}) == 5


def test_requests_pending_fall_with_decisions():
    metrics = RetrainMetrics()
    assert samples(metrics)["clv_requests_pending",] == 0
    requests = [e for e in story().events if e["data"]["action"] == "retrain"]
    for event in story().events * 2:
        metrics.observe_request(event)
    assert samples(metrics)["clv_requests_pending",] == len(requests) > 1
    metrics.observe_decision(story().decisions[0])
    assert samples(metrics)["clv_requests_pending",] == len(requests) - 1


def get(url, method="GET"):
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def served(metrics, port, *, host="127.0.0.1", setting="worker_port"):
    return serve({PATH: metrics_page(metrics.registry)}, host, port, setting=setting)


def test_the_server_serves_metrics_and_nothing_else():
    port = free_port()
    handle = served(full_worker(), port)
    try:
        status, content_type, body = get(f"{handle.url}/metrics")
        assert status == 200
        assert content_type.startswith("text/plain")
        assert "clv_drift_detected_total" in body
        assert get(f"{handle.url}/metrics", "HEAD")[2] == ""
        for path in ("/", "/metrics/x", "/../etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"http://127.0.0.1:{port}{path}")
    finally:
        handle.close()
    handle.close()
    with pytest.raises(urllib.error.URLError):
        get(f"{handle.url}/metrics")
    served(full_retrain(), port).close()  # the port is free again
    assert "web" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("metrics", "setting"), [(full_worker, "WORKER_PORT"), (full_retrain, "RETRAIN_PORT")]
)
def test_a_taken_port_is_named_with_its_setting(metrics, setting):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError) as raised:
            served(metrics(), port, setting=setting.lower())
    assert raised.value.code is ExitCode.USAGE
    assert str(port) in raised.value.message
    assert f"CLV_DRIFT_{setting}" in raised.value.hint


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(UserError, match=r"of 192\.0\.2\.1 cannot be used"):
        served(WorkerMetrics(story_settings()), free_port(), host="192.0.2.1")


def test_port_zero_serves_nothing():
    handle = served(WorkerMetrics(story_settings()), 0)
    assert handle.url is None
    handle.close()


def test_a_scrape_that_cannot_be_computed_fails():
    metrics = WorkerMetrics(story_settings())

    def broken():
        raise RuntimeError("the state is gone")

    metrics.partitions = broken
    handle = served(metrics, free_port())
    try:
        with pytest.raises(urllib.error.HTTPError, match="500"):
            get(f"{handle.url}/metrics")
    finally:
        handle.close()
