"""A poisoned record in a log of ours is refused and counted by whoever reads it, on a real broker."""

import asyncio

import pytest
from kafka import KafkaProducer
from line_factory import SHORT_WINDOWS, shop
from prometheus_client import generate_latest
from test_fuzz import POISONED, rewritten
from test_joining import parts_by_partition

from streams.consumption import Batch
from streams.evaluate_agent import EvaluateOwner, owner_tp
from streams.evaluation import Evaluator
from streams.kafka_io import start_producer
from streams.metrics import WorkerMetrics
from streams.topic_admin import ensure_topics
from streams.topics import catalogue

pytestmark = [pytest.mark.broker]

STRANGERS = (
    b"x",
    b"{}",
    b"[" * 50_000,
    b'{"data":{},"type":"a"}',
    b'{"id":"a","type":"clv.model.promoted.v1","data":{"outcome":"promoted","version":null,"request_id":"r"}}',
)


def shown(metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}


def test_poisoned_snapshots_and_decisions_are_counted_and_good_ones_still_count(settings):
    conf = settings.model_copy(update=SHORT_WINDOWS | {"partitions": 1})
    ensure_topics(conf)
    topics = catalogue(conf)
    lines = shop(3, days=16, customers=20, orders_a_day=4)
    good = [value for messages in parts_by_partition(lines, conf, 1) for value in messages]
    rows = good[-2]
    poisoned = [rewritten(rows, **change) for change in POISONED.values() if "columns" not in change]
    with KafkaProducer(bootstrap_servers=conf.bootstrap_servers) as stranger:
        for i, value in enumerate([*poisoned, *good]):
            stranger.send(topics.snapshots.name, value, key=b"%d" % i, partition=0).get(10)
        for value in STRANGERS:
            stranger.send(topics.models.name, value, partition=0).get(10)
    metrics = WorkerMetrics(conf)

    async def run() -> list[int]:
        producer = await start_producer(conf)
        evaluator = Evaluator(conf, [], load=lambda _: pytest.fail("no model is asked for"))
        owner = EvaluateOwner(conf, evaluator, producer, metrics, pytest.fail)
        try:
            end = await owner.load()
            offsets = range(end, end + len(poisoned))
            blank = [None] * len(poisoned)
            await owner.take(Batch(owner_tp(conf), end - 1, offsets, blank, poisoned, [()] * len(poisoned)))
            return sorted(owner.history.windows)
        finally:
            await owner.close()
            await producer.stop()

    assert len(asyncio.run(run())) == 3  # two whole windows, and the one that the input ends in
    found = shown(metrics)
    assert found["clv_snapshots_refused_total"] == 2 * len(poisoned)
    assert found["clv_decisions_refused_total"] == len(STRANGERS)
    assert found["clv_evaluations_total"] == 3
