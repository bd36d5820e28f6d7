"""Decisions made by hand: whenever they reach the stream, a backfill with its log of models says the same."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from kafka import KafkaProducer
from line_factory import SHORT_WINDOWS, WEEK_S, records_of, shop
from model_frames import labelled_frame
from stream_run import encoded

from models.card import card_of
from models.registry import Registry
from models.training import holdout_performance, train
from streams import backfill, cloudevents
from streams.carry import EVALUATION, Carry
from streams.consumption import Batch
from streams.decisions import Decision, DecisionLog, Outcome
from streams.detectors import make_detector
from streams.evaluate_agent import EvaluateOwner, owner_tp
from streams.evaluation import Evaluator
from streams.grid import from_iso, iso
from streams.kafka_io import start_producer
from streams.manual_decisions import _send, promote
from streams.metrics import WorkerMetrics
from streams.model_cache import ModelCache
from streams.partition import PartitionState
from streams.snapshots import encode_part
from streams.state_config import StateConfig
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

pytestmark = pytest.mark.broker

LINES = shop(6, days=75, customers=60, orders_a_day=9)
SOON_S = 60.0
STRANGER = b"stranger"


@pytest.fixture
def conf(settings):
    made = settings.model_copy(update={**SHORT_WINDOWS, "partitions": 1, "decision_wait_s": 0.3})
    ensure_topics(made)
    return made


@pytest.fixture
def versions(conf):
    found = []
    for seed in (1, 2):
        frame = labelled_frame(customers=80, windows=1, seed=seed)
        model = train(frame, "tweedie_glm", 42)
        card = card_of(model, horizon_days=conf.horizon_days, metrics=holdout_performance(model, frame))
        Registry(conf.registry_dir).save(model, card, frame.head(5))
        found.append(model.version)
    return found


class PausingEvaluator(Evaluator):
    """Takes its time over a window while `go` is not set."""

    def __init__(self, settings, detectors, load):
        super().__init__(settings, detectors, load)
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()

    def evaluate(self, history, carry, log, comparison=None):
        self.begun.set()
        assert self.go.wait(SOON_S)
        return super().evaluate(history, carry, log, comparison)


class Windows:
    """The windows of the shop, as messages of clv.snapshots, and the topics."""

    def __init__(self, conf) -> None:
        self.conf, self.topics = conf, catalogue(conf)
        log = list(records_of(LINES, conf, 1))
        state = PartitionState(0, StateConfig.of(conf, 1))
        applied = state.apply(range(len(log)), [r.value for r in log], [r.headers for r in log])
        parts = [part for cut in applied.cuts for part in cut.parts]
        self.ends = [part.window_end for part in parts]
        self.messages = [list(encode_part(part, 1)) for part in parts]
        self.sent = 0

    @asynccontextmanager
    async def owner(self):
        """An owner that has loaded; it is given back at the end."""
        detectors = [make_detector(name, self.conf) for name in self.conf.detectors]
        evaluator = PausingEvaluator(self.conf, detectors, ModelCache(Registry(self.conf.registry_dir)).load)
        producer = await start_producer(self.conf)
        owner = EvaluateOwner(self.conf, evaluator, producer, WorkerMetrics(self.conf), pytest.fail)
        try:
            await owner.load()
            yield owner
        finally:
            await owner.close()
            await producer.stop()

    async def show(self, owner, until: int) -> None:
        """Write and hand over what makes the windows before number `until` whole."""
        for messages in self.messages[self.sent : until]:
            for key, value in messages:
                await owner.producer.send_and_wait(self.topics.snapshots.name, value, key, partition=0)
            first = owner.read_offset + 1
            offsets = range(first, first + len(messages))
            keys, values = zip(*messages, strict=True)
            await owner.take(Batch(owner_tp(self.conf), first - 1, offsets, keys, values, [()] * len(keys)))
        self.sent = until

    def evaluations(self) -> dict[str, bytes]:
        """By window end, strangers left out; a window that was evaluated twice would be found here."""
        found: dict[str, bytes] = {}
        for record in read_all(self.conf, self.topics.evaluations.name):
            if record.key != STRANGER:
                assert found.setdefault(record.key.decode(), record.value) == record.value, record.key
        return found

    def decisions(self) -> DecisionLog:
        log = DecisionLog()
        for record in read_all(self.conf, self.topics.models.name):
            log.add(record.offset, cloudevents.decode(record.value))
        return log

    def assert_backfill_agrees(self) -> dict[str, dict]:
        """Return the evaluations' data, by window end."""
        registry = Registry(self.conf.registry_dir)
        expected = backfill.run(records_of(LINES, self.conf, 1), self.conf, registry, log=self.decisions())
        found = self.evaluations()
        assert found == encoded(expected.evaluations)
        return {end: cloudevents.decode(value)["data"] for end, value in found.items()}


@pytest.fixture
def windows(conf):
    return Windows(conf)


def made_after(window_end, version) -> Decision:
    """What `clv-drift model promote` writes where this window is the newest one evaluated."""
    return Decision(
        outcome=Outcome.PROMOTED,
        reason="by hand",
        window_end=window_end,
        version=version,
        nonce=f"{iso(window_end)} {version}",
        effective_from=window_end + WEEK_S,
    )


async def noted(owner, effective_from: int) -> None:
    """Wait until the owner holds a decision that takes effect then."""
    async with asyncio.timeout(SOON_S):
        async with owner.decisions.grown:
            await owner.decisions.grown.wait_for(
                lambda: (
                    effective_from
                    in {made.decision.takes_effect_at for made in owner.decisions.log.by_hand.values()}
                )
            )


def test_in_time_and_overtaken(windows, versions):
    """One comes in time, one when its window is evaluated already, one behind the last window."""
    ends, conf = windows.ends, windows.conf

    async def run() -> None:
        async with windows.owner() as owner:
            await windows.show(owner, 3)
            await asyncio.to_thread(promote, conf, versions[0], reason="in time")
            await noted(owner, ends[3])
            await windows.show(owner, 5)
            await asyncio.to_thread(_send, conf, made_after(ends[1], versions[1]))
            await noted(owner, ends[5])
            await windows.show(owner, len(ends))
            await asyncio.to_thread(_send, conf, made_after(ends[-2], versions[0]))
            await noted(owner, ends[-1] + WEEK_S)

    asyncio.run(run())
    data = windows.assert_backfill_agrees()
    served = [data[iso(end)]["model_version"] for end in ends]
    assert served == [None] * 3 + [versions[0]] * 2 + [versions[1]] * (len(ends) - 5)
    # Named by its first record, which a person can find.
    assert data[iso(ends[5])]["applied_decisions"] == [
        made_after(ends[1], versions[1]).to_event(conf.event_source)["id"]
    ]


def test_while_its_window_is_evaluated(windows, versions):
    """Of two that come then, one was meant for this window, one for the next; both hold from the next on."""
    ends, conf = windows.ends, windows.conf

    async def run() -> None:
        async with windows.owner() as owner:
            await windows.show(owner, 3)
            owner.evaluator.go.clear()
            owner.evaluator.begun.clear()
            evaluating = asyncio.create_task(windows.show(owner, 4))
            await asyncio.to_thread(owner.evaluator.begun.wait, SOON_S)
            await asyncio.to_thread(_send, conf, made_after(ends[3], versions[0]))
            await asyncio.to_thread(_send, conf, made_after(ends[2], versions[1]))
            await noted(owner, ends[3])
            await noted(owner, ends[4])
            owner.evaluator.go.set()
            await evaluating
            await windows.show(owner, len(ends))

    asyncio.run(run())
    data = windows.assert_backfill_agrees()
    served = [data[iso(end)]["model_version"] for end in ends]
    # In the order of the log: the one that was put off came later.
    assert served == [None] * 4 + [versions[1]] * (len(ends) - 4)
    assert len(data[iso(ends[4])]["applied_decisions"]) == 2


def test_between_two_owners_with_strangers_about(windows, versions):
    """The next owner finds what came meanwhile, goes on after the newest window, and believes no stranger."""
    ends, conf = windows.ends, windows.conf
    strangers = [
        b"x",
        *(
            cloudevents.encode(cloudevents.envelope(kind=kind, source=source, window_end=ends[0], data=data))
            for kind, source, data in (
                (EVALUATION, conf.event_source, {"window_end": iso(ends[0]), "carry": {}}),
                (EVALUATION, conf.event_source, {"window_end": iso(ends[0])}),
                (
                    EVALUATION,
                    "/another",
                    {"window_end": iso(ends[0]), "carry": Carry(window_end=ends[0]).to_dict()},
                ),
            )
        ),
    ]

    async def run() -> None:
        async with windows.owner() as owner:
            await windows.show(owner, 4)
        await asyncio.to_thread(_send, conf, made_after(ends[0], versions[1]))
        with KafkaProducer(bootstrap_servers=conf.bootstrap_servers) as producer:
            for value in strangers:
                producer.send(windows.topics.evaluations.name, value, STRANGER, partition=0).get(timeout=30)
        async with windows.owner() as owner:
            assert owner.carry.window_end == ends[3]
            assert [m.decision.takes_effect_at for m in owner.decisions.log.by_hand.values()] == [ends[4]]
            await windows.show(owner, len(ends))

    asyncio.run(run())
    data = windows.assert_backfill_agrees()
    served = [data[iso(end)]["model_version"] for end in ends]
    assert served == [None] * 4 + [versions[1]] * (len(ends) - 4)


def test_the_latest_window_named_counts_in_any_order(versions):
    early = made_after(from_iso("2011-01-03T00:00:00Z"), versions[0])
    late = Decision(**{**early.__dict__, "effective_from": early.window_end + 5 * WEEK_S})
    for first, second in ((early, late), (late, early)):
        log = DecisionLog()
        assert log.add(0, first.to_event("/t"))
        assert not log.add(1, second.to_event("/t"))
        assert log.due_by_hand(late.takes_effect_at - 1, ()) == {}
        (made,) = log.due_by_hand(late.takes_effect_at, ()).values()
        assert (made.position, made.decision) == (0, late)
