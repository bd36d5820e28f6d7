"""The topology on one page: every topic, agent and timer of the worker, registered by hand.

    retail.transactions ─► ingest ─► clv.snapshots ─► evaluate ─► clv.evaluations ─► compare
           (P partitions)    │            (1)            │  ▲           (1)             │
                             ├─► retail.transactions.dlq │  └─ clv.models               └─► clv.comparisons
                             └─► clv.state               └─► clv.drift.events

Faust owns the group: which worker holds which partition. Each partition held has an owner object that
keeps its state, loads it from the topics, and says through the gate which records it wants next.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import faust
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from faust.types import TP

from models.registry import Registry
from streams.compare_agent import CompareOwner, compare_tp
from streams.consumption import Batch, Gate, scheduler
from streams.detectors import make_detector
from streams.errors import UserError
from streams.evaluate_agent import EvaluateOwner, GivenBackError, owner_tp
from streams.evaluation import Evaluator
from streams.idle import IdleWatch
from streams.ingest import RELOAD_PAUSE_S, Shard
from streams.kafka_io import start_producer, until_loaded
from streams.metrics import PartitionView, WorkerMetrics
from streams.model_cache import ModelCache
from streams.offsets import commit_offsets
from streams.roles import Role
from streams.settings import Settings
from streams.topics import MIB, catalogue

log = structlog.get_logger(__name__)

COMMIT_INTERVAL_S = 1.0
SEEK_PAUSE_S = 0.1
FETCH_BYTES = 2 * MIB  # of a partition at once: with less the agents wait for the next answer


class Worker:
    """What a worker holds: the owners of its partitions, the producer, the gate in front of the agents."""

    def __init__(self, settings: Settings, role: Role) -> None:
        self.settings = settings
        self.role = role
        self.gate = Gate()
        self.metrics = WorkerMetrics(settings)
        self.shards: dict[TP, Shard] = {}
        self.evaluate: EvaluateOwner | None = None
        self.compare: CompareOwner | None = None
        self.producer: AIOKafkaProducer | None = None
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.app = _faust_app(settings, role, self.gate)

    # -- life -----------------------------------------------------------------

    async def start(self) -> None:
        """Connect what Faust does not connect."""
        self.producer = await start_producer(self.settings)
        self.metrics.partitions = self._partition_views
        self.gate.on_hole = lambda tp: self._spawn(self._seek_expected(tp))

    async def stop(self) -> None:
        """Give everything back."""
        for tp in [*self.shards, owner_tp(self.settings), compare_tp(self.settings)]:
            await self._release(tp)
        if self.producer is not None:
            await self.producer.stop()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # Nothing can be done here that a fresh start would not do better.
        self.failure = task.exception()
        if not isinstance(self.failure, UserError):
            log.error("worker failed", exc_info=self.failure)
        self.failed.set()

    # -- partitions come and go ----------------------------------------------

    async def assigned(self, assignment: Iterable[TP]) -> None:
        """Take up the partitions of a new assignment; those held before were given back."""
        for tp in assignment:
            self._spawn(self._load(tp))

    async def revoked(self, revoked: Iterable[TP]) -> None:
        """Give partitions back."""
        for tp in revoked:
            await self._release(tp)

    async def _load(self, tp: TP) -> None:
        await self._release(tp)
        assert self.producer is not None
        topics = catalogue(self.settings)
        if tp.topic == topics.transactions.name:
            shard = Shard(tp, self.settings, self.producer, self.gate, self._seek, self._spawn)
            self.shards[tp] = shard
            await until_loaded(shard.load)
        elif tp == owner_tp(self.settings):
            models = ModelCache(Registry(self.settings.registry_dir))
            detectors = [make_detector(name, self.settings) for name in self.settings.detectors]
            evaluator = Evaluator(self.settings, detectors, models.load)
            self.evaluate = EvaluateOwner(self.settings, evaluator, self.producer, self.metrics)
            with suppress(GivenBackError):
                await self._open(tp, await until_loaded(self.evaluate.load))
        elif tp == compare_tp(self.settings):
            models = ModelCache(Registry(self.settings.registry_dir))
            self.compare = CompareOwner(
                self.settings,
                self.producer,
                models.load,
                self.metrics,
                on_failure=lambda exc: self._spawn(self._load_anew(tp, exc)),
            )
            await self._open(tp, await until_loaded(self.compare.load))

    async def _release(self, tp: TP) -> None:
        self.gate.close(tp)
        shard = self.shards.pop(tp, None)
        if shard is not None:
            await shard.close()
        if tp == owner_tp(self.settings) and self.evaluate is not None:
            owner, self.evaluate = self.evaluate, None
            await owner.close()
            self.metrics.reset_evaluations()
        if tp == compare_tp(self.settings) and self.compare is not None:
            comparer, self.compare = self.compare, None
            await comparer.close()
            self.metrics.reset_comparisons()

    def _partition_views(self) -> list[PartitionView]:
        """Return what the metrics show of the partitions; called from the thread that serves them."""
        views = []
        for tp, shard in list(self.shards.items()):
            if shard.state is not None:
                views.append(
                    PartitionView.of(
                        shard.state,
                        stored=shard.stored,
                        end_offset=self.app.consumer.highwater(tp),
                        holes=shard.holes,
                        reloads=shard.reloads,
                    )
                )
        return views

    async def _open(self, tp: TP, next_offset: int) -> None:
        self.gate.open(tp, next_offset - 1)
        await self._seek(tp, next_offset)

    async def _seek(self, tp: TP, offset: int) -> None:
        """Have records from `offset` on fetched; while partitions are moving that takes several tries.

        Gives up when the gate closes or goes on: then somebody else sees to it.
        """
        while self.gate.expected(tp) == offset:
            if tp in self.app.consumer.assignment():
                try:
                    await self.app.consumer.seek_wait({tp: offset})
                except (KafkaError, TimeoutError) as exc:
                    log.warning("seeking again", topic=tp.topic, partition=tp.partition, reason=repr(exc))
                else:
                    self.gate.sought(tp, offset)
                    return
            await asyncio.sleep(SEEK_PAUSE_S)

    async def _seek_expected(self, tp: TP) -> None:
        expected = self.gate.expected(tp)
        if expected is not None:
            await self._seek(tp, expected)

    # -- agents ---------------------------------------------------------------

    async def ingest(self, stream: Any) -> None:
        """Apply batches of transactions to the state of their partition."""
        async for batch in stream.noack():
            shard = self.shards.get(batch.tp)
            if shard is not None:
                await shard.take(batch)

    async def evaluate_windows(self, stream: Any) -> None:
        """Evaluate the windows that snapshot messages make whole."""
        async for batch in stream.noack():
            await self._take(self.evaluate, batch)

    async def compare_windows(self, stream: Any) -> None:
        """Run Evidently on evaluated windows."""
        async for batch in stream.noack():
            await self._take(self.compare, batch)

    async def _take(self, owner: EvaluateOwner | CompareOwner | None, batch: Batch) -> None:
        """Hand a batch to its owner; after a failure that one is loaded anew: what it held is half-done."""
        if owner is None or self.gate.expected(batch.tp) is None:
            return  # passed the gate before it closed; the owner is still loading, and reads it there
        if batch.prev != owner.read_offset:  # records were lost on the way
            await self._open(batch.tp, owner.read_offset + 1)
            return
        try:
            await owner.take(batch)
        except GivenBackError:
            return
        except Exception as exc:  # noqa: BLE001  (Faust would log it and go on with the next message)
            self._spawn(self._load_anew(batch.tp, exc))

    async def _load_anew(self, tp: TP, exc: BaseException) -> None:
        log.error("owner is loaded anew", topic=tp.topic, exc_info=exc)
        self.gate.close(tp)
        await asyncio.sleep(RELOAD_PAUSE_S)
        if tp in self.app.consumer.assignment():
            await self._load(tp)

    async def commit(self) -> None:
        """Tell the group how far the checkpoints are; for people and tools that watch the lag."""
        offsets = {
            tp: shard.committable + 1 for tp, shard in self.shards.items() if shard.committable is not None
        }
        await commit_offsets(self.app, offsets)


def build_app(settings: Settings, role: Role = Role.ALL) -> Worker:
    """Return a worker with every agent and timer of `role` registered."""
    worker = Worker(settings, role)
    app, topics = worker.app, catalogue(settings)

    def batches(name: str) -> Any:
        # The value is a `Batch` made by the scheduler: nothing is left to decode, and nothing to acknowledge.
        return app.topic(name, value_serializer="raw", key_serializer="raw", schema=_AsIs(), acks=False)

    if role in {Role.ALL, Role.INGEST}:
        app.agent(batches(topics.transactions.name), name="ingest")(worker.ingest)
        app.timer(interval=COMMIT_INTERVAL_S)(worker.commit)
        if settings.write_watermarks:
            idle = IdleWatch(worker)
            app.timer(interval=settings.idle_after_s / 3)(idle.look)
    if role in {Role.ALL, Role.EVALUATE}:
        app.agent(batches(topics.snapshots.name), name="evaluate")(worker.evaluate_windows)
    if role in {Role.ALL, Role.COMPARE}:
        app.agent(batches(topics.evaluations.name), name="compare")(worker.compare_windows)

    async def on_assigned(_: Any, assigned: set[TP], **__: Any) -> None:
        await worker.assigned(assigned)

    async def on_revoked(_: Any, revoked: set[TP], **__: Any) -> None:
        await worker.revoked(revoked)

    app.on_partitions_assigned.connect(on_assigned, weak=False)
    app.on_partitions_revoked.connect(on_revoked, weak=False)
    return worker


class _AsIs(faust.Schema):  # type: ignore[misc]
    """Hands the message's value to the agent as it is."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.key

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.value


def _faust_app(settings: Settings, role: Role, gate: Gate) -> Any:
    return faust.App(
        settings.topic(f"clv-drift-{role.value}"),
        broker=[f"kafka://{server}" for server in settings.bootstrap_servers.split(",")],
        store="memory://",
        datadir=settings.kafka_dir.parent / "faust",
        ConsumerScheduler=scheduler(gate, settings.batch_lines_max),
        consumer_auto_offset_reset="earliest",
        # A message is a batch of thousands of lines: a few of them are enough to keep an agent busy.
        stream_buffer_maxsize=4,
        stream_wait_empty=False,
        consumer_max_fetch_size=FETCH_BYTES,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=10.0,
        broker_max_poll_interval=60.0,
        producer_acks=-1,
        producer_request_timeout=30.0,
    )
