"""The calibrated detector in the stream, over windows of its real lengths: as in the backfill."""

import time

import pytest
from small_shop import shop
from stream_run import backfilled, encoded, running

pytestmark = [pytest.mark.broker, pytest.mark.slow]

TEXT, DRIFT = "customers=500,days=259,seed=5", "price:+30%@2011-07-18"
# A reference of 22 weeks, the first cut; two windows in a row confirm.
LENGTHS = {
    "reference_weeks": 22,
    "reference_weeks_min": 18,
    "horizon_days": 28,
    "monitor_horizon_days": 14,
    "estimators": ("tweedie_glm",),
    "gate_resamples": 200,
    "retrain_every_days": 0,
    "decision_wait_s": 600.0,
    "training_timeout_s": 300.0,
}


@pytest.mark.timeout(1800)
def test_verdicts_do_not_depend_on_when_a_worker_was_started(settings, tmp_path):
    conf = settings.model_copy(update=LENGTHS)
    expected = backfilled(shop(DRIFT, text=TEXT), conf, tmp_path / "backfill")
    data = [event["data"] for event in expected.evaluations]
    drifts = [item for item in data if (item["verdicts"].get("calibrated") or {}).get("drift")]
    first = drifts[0]["verdicts"]["calibrated"]
    assert (drifts[0]["window_end"], first["onset"]) == ("2011-07-25T00:00:00Z", "2011-07-18T00:00:00Z")
    assert first["aspects"] == ["prices"]
    assert sum("calibrated" in item["calibrations"] for item in data) >= 1
    judged = [item["window_end"] for item in data if item["verdicts"]]
    with running(conf, tmp_path / "logs") as stream:
        stream.worker("ingest")
        stream.retrain()
        worker = stream.worker("evaluate")
        stream.replay("--synthetic", TEXT, "--inject", DRIFT, "--speed", "max")
        # After the calibration, again after the drift: what a new worker knows it has from the log alone.
        for end in (judged[1], drifts[1]["window_end"]):
            stream.wait_for(lambda end=end: end in stream.evaluations(), timeout_s=480)
            worker.process.kill()
            worker.process.wait()
            time.sleep(0.5)
            worker = stream.worker("evaluate")
        stream.wait_for(stream.ended, timeout_s=480)
        assert stream.evaluations() == encoded(expected.evaluations), stream.words()
