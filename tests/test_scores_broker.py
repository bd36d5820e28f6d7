"""The scores process on a real broker: killed and joined, its topic ends as the backfill says."""

import signal

import pytest
from small_shop import SHORT, shop
from stream_run import backfilled, running

from streams import cloudevents
from streams.erase import erase, look
from streams.topic_reader import read_all
from streams.topics import catalogue

pytestmark = [pytest.mark.broker]

TEXT = "customers=3000,days=150,seed=3"
RULES = SHORT | {
    "sample_customers_max": 300,
    "partitions": 2,
    "decision_wait_s": 600.0,
    "training_timeout_s": 300.0,
}


def standing(settings) -> dict[str, bytes]:
    """What a late subscriber has of the compacted topic, each customer in one partition."""
    found: dict[str, bytes] = {}
    for partition in range(settings.partitions):
        own: dict[str, bytes] = {}
        for record in read_all(settings, catalogue(settings).scores.name, partition):
            if record.value is None:
                own.pop(record.key.decode(), None)
            else:
                own[record.key.decode()] = record.value
        assert not own.keys() & found.keys()
        found |= own
    return found


def records(settings) -> int:
    return sum(
        1 for p in range(settings.partitions) for _ in read_all(settings, catalogue(settings).scores.name, p)
    )


@pytest.mark.timeout(1800)
def test_the_scores_are_those_of_the_backfill_whoever_dies(settings, tmp_path):
    conf = settings.model_copy(update=RULES)
    dying = conf.model_copy(update={"fault": "scores:in_window", "scores_per_second_max": 100})
    with running(conf, tmp_path / "logs") as stream:
        stream.settings = dying
        first = stream.start("scores", "--port", "0")
        stream.settings = conf
        stream.retrain()
        stream.worker("ingest")
        stream.worker("evaluate")
        stream.replay("--synthetic", TEXT, "--speed", "max")
        stream.wait_for(stream.ended)
        stream.wait_for(lambda: first.process.poll() is not None)
        assert first.process.returncode == -signal.SIGKILL, stream.words()
        died_at = records(conf)
        stream.settings = conf.model_copy(update={"scores_per_second_max": 60})
        second = stream.start("scores", "--port", "0")
        stream.settings = conf
        expected = backfilled(shop(text=TEXT), conf, tmp_path / "registry", log=stream.decisions()).scores
        assert len(expected) > 400
        # Another joins in the middle of a window: one partition goes to it, the other is kept and scored on.
        stream.wait_for(lambda: records(conf) > died_at)
        third = stream.start("scores", "--port", "0")
        stream.wait_for(lambda: standing(conf) == expected)
        stream.wait_for(lambda: b"partition loaded" in third.log_path.read_bytes())
        for child in (second, third):
            child.process.send_signal(signal.SIGTERM)
            assert child.process.wait(120) == 0, stream.words()
        # Who is erased while nobody scores is gone at once, and not scored by whoever comes.
        erased = min(expected)
        erase(conf, look(conf, erased))
        left = {customer: value for customer, value in expected.items() if customer != erased}
        assert standing(conf) == left
        fourth = stream.start("scores", "--port", "0")
        stream.wait_for(lambda: fourth.log_path.read_bytes().count(b"window scored") >= conf.partitions)
        assert standing(conf) == left
        ends = {cloudevents.decode(value)["data"]["window_end"] for value in expected.values()}
        assert len(ends) == 1
