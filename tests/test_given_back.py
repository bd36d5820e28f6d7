"""Partitions that go, brokers that vanish, messages of strangers: nobody waits for ever, no end is silent."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from kafka import KafkaProducer
from line_factory import DAY_S, MONDAY, entry
from line_factory import settings as short_settings

from streams.carry import Request
from streams.compare_agent import CompareOwner, compare_tp
from streams.consumption import Batch, Gate
from streams.errors import ExitCode, UserError
from streams.evaluate_agent import EvaluateOwner
from streams.evaluation import Evaluator
from streams.idle import IdleWatch
from streams.ingest import CHECKPOINTS_AHEAD_MAX, Shard
from streams.kafka_io import start_producer
from streams.kafka_process import free_port
from streams.log_follower import GivenBackError
from streams.metrics import WorkerMetrics
from streams.partition import PartitionState
from streams.settings import load_settings
from streams.state_config import StateConfig
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue
from streams.worker import _raise_crash

SOON_S = 60.0
STRANGERS = (
    b"x",
    b"{}",
    b'{"data": {}, "type": "a"}',
    b'{"data": {"window_end": 5}, "type": "a"}',
    b'{"data": {"window_end": "2011-01-03T00:00:00Z", "reference_end": null}, "type": "a"}',
)


@pytest.mark.broker
def test_an_owner_given_back_stops_waiting_and_decides_nothing(settings):
    """Its successor waits in its stead; an `expired` from here would cut that one's wait short."""
    ensure_topics(settings)
    short = settings.model_copy(update={"decision_wait_s": 1.0})

    async def run() -> None:
        producer = await start_producer(short)
        try:
            evaluator = Evaluator(short, [], load=lambda _: pytest.fail("no model is asked for"))
            owner = EvaluateOwner(short, evaluator, producer, WorkerMetrics(short), pytest.fail)
            await owner.load()
            waiting = asyncio.create_task(
                owner.decisions.decided(Request("r", MONDAY, MONDAY + 7 * DAY_S, None))
            )
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await owner.close()
            with pytest.raises(GivenBackError):
                await asyncio.wait_for(waiting, SOON_S)
            with pytest.raises(GivenBackError):
                await owner.load()
        finally:
            await producer.stop()

    asyncio.run(run())
    assert not list(read_all(short, catalogue(short).models.name))


@pytest.mark.broker
def test_compare_passes_over_what_is_no_comparison_and_no_evaluation(settings):
    ensure_topics(settings)
    topics = catalogue(settings)
    with KafkaProducer(bootstrap_servers=settings.bootstrap_servers) as stranger:
        for value in STRANGERS:
            stranger.send(topics.comparisons.name, value, partition=0)
        stranger.flush()

    async def run() -> tuple[int, int]:
        producer = await start_producer(settings)
        failures: list[BaseException] = []
        owner = CompareOwner(settings, producer, lambda _: None, WorkerMetrics(settings), failures.append)
        try:
            assert await owner.load() == 0
            offsets = list(range(len(STRANGERS)))
            blank = [None] * len(STRANGERS)
            await owner.take(Batch(compare_tp(settings), -1, offsets, blank, list(STRANGERS), [()] * 5))
            return owner.waiting.qsize(), len(failures)
        finally:
            await owner.close()
            await producer.stop()

    assert asyncio.run(run()) == (0, 0)


def test_whoever_waits_for_room_goes_on_when_the_partition_goes():
    """One batch of many days makes more cuts than may be queued; then the partition is given back."""
    settings = short_settings()
    tp = TP(catalogue(settings).transactions.name, 0)
    days = 2 * CHECKPOINTS_AHEAD_MAX
    entries = [entry(MONDAY + day * DAY_S) for day in range(days)]

    async def run() -> int:
        shard = Shard(
            tp,
            settings,
            None,
            Gate(),
            seek=None,
            spawn=lambda _: pytest.fail("no reload"),
            observe_close=lambda _: None,
        )
        shard.state = PartitionState(0, StateConfig.of(settings))
        columns = [e.value for e in entries], [e.headers for e in entries]
        taking = asyncio.create_task(shard.take(Batch(tp, -1, list(range(days)), [None] * days, *columns)))
        await asyncio.sleep(0.2)
        assert not taking.done()
        assert shard._queue.full()
        await shard.close()
        await asyncio.wait_for(taking, SOON_S)
        return shard.reloads

    assert asyncio.run(run()) == 0


def test_idle_partitions_are_looked_at_again_when_the_broker_is_back():
    """What leaves a timer of Faust's ends the worker: a broker that is gone for a while must not."""
    settings = short_settings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    tp = TP(catalogue(settings).transactions.name, 0)
    worker = SimpleNamespace(settings=settings, shards={tp: SimpleNamespace(state=object())})
    watch = IdleWatch(worker)
    with pytest.raises(KafkaConnectionError):
        asyncio.run(watch._look())
    asyncio.run(watch.look())


def test_a_crash_of_faust_is_no_clean_end():
    worker = SimpleNamespace(settings=short_settings(), app=SimpleNamespace(crashed=False, crash_reason=None))
    _raise_crash(worker)
    worker.app = SimpleNamespace(crashed=True, crash_reason=KafkaConnectionError("gone"))
    with pytest.raises(UserError, match="was lost") as lost:
        _raise_crash(worker)
    assert lost.value.code == ExitCode.BROKER
    worker.app.crash_reason = ZeroDivisionError()
    with pytest.raises(RuntimeError, match="crashed"):
        _raise_crash(worker)


@pytest.mark.parametrize("problem", ["list", "file"])
def test_settings_that_cannot_be_read_are_refused_in_one_message(problem, monkeypatch, tmp_path):
    if problem == "list":
        monkeypatch.setenv("CLV_DRIFT_DETECTORS", "baseline")
    else:
        (tmp_path / "bad.toml").write_text("partitions = = 3\n")
        monkeypatch.setenv("CLV_DRIFT_CONFIG", str(tmp_path / "bad.toml"))
    with pytest.raises(UserError, match="detectors" if problem == "list" else "line 1") as refused:
        load_settings()
    assert refused.value.code == ExitCode.USAGE
