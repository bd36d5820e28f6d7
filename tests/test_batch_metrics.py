"""What the batch jobs leave for Prometheus: in a file, and at a real Pushgateway."""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from model_frames import labelled_frame
from prometheus_client.parser import text_string_to_metric_families

from models.card import card_of
from models.training import holdout_performance, train
from streams.batch_metrics import detection_samples, publish, training_samples
from streams.batch_models import Detection
from streams.detectors.interface import Verdict
from streams.errors import ExitCode, UserError
from streams.kafka_process import free_port
from streams.metrics_table import METRICS
from streams.settings import Settings

PUSHGATEWAY = shutil.which("prometheus-pushgateway")
WEEK_END = 1_307_318_400


@pytest.fixture(scope="module")
def card():
    frame = labelled_frame()
    model = train(frame, "tweedie_glm", 42)
    metrics = holdout_performance(model, frame)
    return card_of(model, horizon_days=90, metrics=metrics, requested_at="2011-06-06T00:00:00Z")


@pytest.fixture
def detection():
    acting = Verdict(
        drift=True, statistic=2.0, threshold=1.0, scores={"Monetary": 0.3}, drifted_columns=2, columns=9
    )
    return Detection(
        window=SimpleNamespace(window_end=WEEK_END, totals={"customers": 7, "lines": 9}),
        reference=None,
        reference_window_end=WEEK_END,
        model_version="0123456789abcdef",
        acting_detector="baseline",
        verdicts={"baseline": acting, "calibrated": Verdict(drift=None, reason="too short")},
    )


def samples_in(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_sample_is_a_metric_of_the_table(card, detection):
    names = {spec.name for spec in METRICS if spec.process == "batch"}
    assert training_samples(card).keys() | detection_samples(detection).keys() == names


def test_a_file_for_the_exporter(card, detection, tmp_path):
    settings = Settings(textfile_dir=tmp_path / "textfiles")
    (path,) = publish("train", training_samples(card), settings)
    found = samples_in((tmp_path / "textfiles" / "clv_drift_train.prom").read_text())
    assert path.endswith("clv_drift_train.prom")
    assert found["clv_batch_model_performance", "nmae"] == pytest.approx(card.metrics["nmae"])
    assert found["clv_batch_model_info", "tweedie_glm", card.version] == 1
    assert found["clv_batch_trained_until_timestamp_seconds",] == WEEK_END
    publish("detect", detection_samples(detection), settings)
    found = samples_in((tmp_path / "textfiles" / "clv_drift_detect.prom").read_text())
    assert found["clv_batch_drift", "baseline"] == 1
    assert ("clv_batch_drift", "calibrated") not in found  # it cannot tell
    assert found["clv_batch_drift_score", "Monetary"] == 0.3
    left = {path.name for path in (tmp_path / "textfiles").iterdir()}
    assert left == {"clv_drift_detect.prom", "clv_drift_train.prom"}


def test_nowhere_to_go_is_no_error(card):
    assert publish("train", training_samples(card), Settings()) == []


def test_a_place_that_cannot_be_written_is_named(card, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken") as caught:
        publish("train", training_samples(card), Settings(textfile_dir=tmp_path / "taken"))
    assert caught.value.code is ExitCode.STORAGE


def test_a_gateway_that_is_not_there_is_named(card):
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=url) as caught:
        publish("train", training_samples(card), Settings(pushgateway_url=url))
    assert caught.value.code is ExitCode.FAILURE
    assert "pushgateway_url" in caught.value.hint


@pytest.mark.skipif(
    PUSHGATEWAY is None and not os.environ.get("CI"), reason="prometheus-pushgateway is not installed"
)
def test_a_real_gateway_takes_them(card, detection):
    assert PUSHGATEWAY is not None, "prometheus-pushgateway is not installed"
    url = f"127.0.0.1:{free_port()}"
    gateway = subprocess.Popen([PUSHGATEWAY, f"--web.listen-address={url}"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://{url}/-/ready"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        settings = Settings(pushgateway_url=f"http://{url}")
        assert publish("train", training_samples(card), settings) == [f"http://{url}"]
        publish("detect", detection_samples(detection), settings)
        with urllib.request.urlopen(f"http://{url}/metrics", timeout=60) as answer:
            text = answer.read().decode()
    finally:
        gateway.kill()
        gateway.wait()
    assert 'clv_batch_drift{detector="baseline",instance="",job="clv_drift_detect"} 1' in text
    assert 'job="clv_drift_train"' in text


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False
