"""Every remedy over a real broker, worker and retrain consumer killed on the way: as in the backfill."""

import time

import pytest
from small_shop import SHORT, shop
from stream_run import backfilled, encoded, running

pytestmark = [pytest.mark.broker, pytest.mark.slow]

TEXT, DRIFT = "customers=4000,days=170,seed=3", "price:-60%@2011-03-14"
RULES = SHORT | {
    "harm_gate": True,
    "min_matured_windows": 2,
    "confirm_windows": 1,
    "cooldown_days": 14,
    "decision_wait_s": 600.0,
    "training_timeout_s": 300.0,
}


@pytest.mark.timeout(1800)
def test_remedies_do_not_depend_on_who_dies(settings, tmp_path):
    conf = settings.model_copy(update=RULES)
    expected = backfilled(shop(DRIFT, text=TEXT), conf, tmp_path / "backfill")
    asked = {event["data"]["action"]: event["data"]["window_end"] for event in expected.evaluations}
    assert {"retrain", "recalibrate", "review", "ask"} <= set(asked)
    with running(conf, tmp_path / "logs") as stream:
        stream.worker("ingest")
        retrain, worker = stream.retrain(), stream.worker("evaluate")
        stream.replay("--synthetic", TEXT, "--inject", DRIFT, "--speed", "max")
        for action in ("recalibrate", "review"):
            end = asked[action]
            stream.wait_for(lambda end=end: end in stream.evaluations(), timeout_s=480)
            for dying in (worker, retrain):
                dying.process.kill()
                dying.process.wait()
            time.sleep(0.5)
            retrain, worker = stream.retrain(), stream.worker("evaluate")
        stream.wait_for(stream.ended, timeout_s=480)
        assert stream.evaluations() == encoded(expected.evaluations), stream.words()
