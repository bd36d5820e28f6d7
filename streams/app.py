"""The topology on one page: every topic, agent and timer of the worker, registered by hand.

    retail.transactions ─► ingest ─► clv.snapshots ─► evaluate ─► clv.evaluations ─► compare
           (P partitions)    │            (1)            │  ▲           (1)             │
                             ├─► retail.transactions.dlq │  └─ clv.models               └─► clv.comparisons
                             ├─► clv.state               └─► clv.drift.events
                             └─► clv.rows, clv.warnings

Faust owns the group: which worker holds which partition. Each partition held has an owner object that
keeps its state, loads it from the topics, and says through the gate which records it wants next.
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from faust.types import TP

from models.registry import Registry
from streams.compare_agent import CompareOwner, compare_tp
from streams.consumption import Batch, Gate
from streams.detectors import make_detectors
from streams.errors import UserError
from streams.evaluate_agent import EvaluateOwner, owner_tp
from streams.evaluation import Evaluator
from streams.faust_app import batches, faust_app
from streams.idle import IdleWatch
from streams.ingest import RELOAD_PAUSE_S, Shard
from streams.kafka_io import start_producer, until_loaded
from streams.log_follower import GivenBackError
from streams.metrics import PartitionView, WorkerMetrics
from streams.model_cache import ModelCache
from streams.offsets import commit_offsets
from streams.roles import Role
from streams.settings import Settings
from streams.stalls import LOOK_S, StallWatch
from streams.topics import catalogue

log = structlog.get_logger(__name__)

COMMIT_INTERVAL_S = 1.0
SEEK_PAUSE_S = 0.1


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
        self.joined = False  # its group: it knows its partitions, which may be none
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loading: dict[TP, asyncio.Task[Any]] = {}  # the newest load of a partition
        self._changing: defaultdict[TP, asyncio.Lock] = defaultdict(asyncio.Lock)  # its owner comes or goes
        self.app = faust_app(settings, role, self.gate)
        self._stalls = StallWatch(self.gate, self._read_offsets, self._highwater, self._fetch_after)

    # -- life -----------------------------------------------------------------

    async def start(self) -> None:
        """Connect what Faust does not connect."""
        self.producer = await start_producer(self.settings)
        self.metrics.partitions = self._partition_views
        self.gate.on_hole = lambda tp: self.spawn(self._seek_expected(tp))
        self.spawn(self._watch_stalls())

    async def stop(self) -> None:
        """Give everything back; nothing that was spawned goes on."""
        for task in self._tasks:
            task.cancel()
        for tp in {*self.shards, *self._loading, owner_tp(self.settings), compare_tp(self.settings)}:
            await self._release(tp)
        if self.producer is not None:
            await self.producer.stop()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside the agents; its failure ends the worker."""
        self._task(work)

    def _task(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # Nothing can be done here that a fresh start would not do better.
        self.fail(task.exception())

    def fail(self, exc: BaseException | None) -> None:
        """End the worker; what failed first is what it says at its end."""
        if not isinstance(exc, UserError):
            log.error("worker failed", exc_info=exc)
        self.failure = self.failure or exc
        self.failed.set()

    # -- partitions come and go ----------------------------------------------

    async def assigned(self, assignment: Iterable[TP]) -> None:
        """Take up the partitions of a new assignment; those held before were given back."""
        self.joined = True
        for tp in assignment:
            self._start_loading(tp)

    async def revoked(self, revoked: Iterable[TP]) -> None:
        """Give partitions back."""
        for tp in revoked:
            await self._release(tp)

    def _start_loading(self, tp: TP, pause_s: float = 0.0) -> None:
        """Load what the partition needs, beside the caller; a load that is under way ends first."""
        self._cancel_loading(tp)
        self._loading[tp] = self._task(self._load(tp, pause_s))

    def _cancel_loading(self, tp: TP) -> None:
        task = self._loading.pop(tp, None)
        if task is not None:
            task.cancel()

    async def _load(self, tp: TP, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        async with self._changing[tp]:  # until the load before, which was cancelled, has come to its end
            await self._close_owner(tp)
            await self._load_owner(tp)

    async def _load_owner(self, tp: TP) -> None:
        """Make the partition's owner and have it read what it needs.

        It is kept before it reads anything, so that whoever cancels this can close it.
        """
        assert self.producer is not None
        topics = catalogue(self.settings)
        if tp.topic == topics.transactions.name:
            shard = Shard(
                tp,
                self.settings,
                self.producer,
                self.gate,
                self._seek,
                self.spawn,
                self.metrics.observe_window_close_seconds,
            )
            self.shards[tp] = shard
            await until_loaded(shard.load)
        elif tp == owner_tp(self.settings):
            models = ModelCache(Registry(self.settings.registry_dir))
            evaluator = Evaluator(self.settings, make_detectors(self.settings), models.load)
            evaluate = EvaluateOwner(
                self.settings,
                evaluator,
                self.producer,
                self.metrics,
                on_failure=lambda exc: self._load_anew(tp, evaluate, exc),
            )
            self.evaluate = evaluate
            with suppress(GivenBackError):
                await self._open(tp, await until_loaded(evaluate.load))
        elif tp == compare_tp(self.settings):
            models = ModelCache(Registry(self.settings.registry_dir))
            compare = CompareOwner(
                self.settings,
                self.producer,
                models.load,
                self.metrics,
                on_failure=lambda exc: self._load_anew(tp, compare, exc),
            )
            self.compare = compare
            await self._open(tp, await until_loaded(compare.load))

    async def _release(self, tp: TP) -> None:
        """Give a partition back, whether its owner is at work or still loading."""
        self.gate.close(tp)
        self._cancel_loading(tp)
        async with self._changing[tp]:
            await self._close_owner(tp)

    async def _close_owner(self, tp: TP) -> None:
        """Close the partition's owner, if there is one, and forget it.

        In this order: a close that is cancelled would leave it at work, unknown to whoever comes next.
        """
        self.gate.close(tp)
        if tp in self.shards:
            await self.shards[tp].close()
            del self.shards[tp]
        if tp == owner_tp(self.settings) and self.evaluate is not None:
            await self.evaluate.close()
            self.evaluate = None
            self.metrics.reset_evaluations()
        if tp == compare_tp(self.settings) and self.compare is not None:
            await self.compare.close()
            self.compare = None
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
                        warnings=shard.stored_warnings,
                        stored_bytes=shard.stored_bytes,
                        end_offset=self.app.consumer.highwater(tp),
                        holes=shard.holes,
                        reloads=shard.reloads,
                    )
                )
        return views

    def unready(self) -> list[str]:
        """Return what the worker waits for before it does all its work; may be called from any thread."""
        if not self.joined:
            return ["it has not joined its group yet"]
        loading = {tp for tp, task in list(self._loading.items()) if not task.done()}
        loading |= {tp for tp, shard in list(self.shards.items()) if shard.state is None}
        return [f"partition {tp.partition} of {tp.topic} is being loaded" for tp in sorted(loading)]

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

    # -- records that arrive nowhere -------------------------------------------

    async def _watch_stalls(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._stalls.look()

    def _read_offsets(self) -> dict[TP, int]:
        """Return how far the owners that may take batches are."""
        offsets = {
            tp: shard.state.read_offset for tp, shard in self.shards.items() if shard.state is not None
        }
        if self.evaluate is not None:
            offsets[owner_tp(self.settings)] = self.evaluate.read_offset
        if self.compare is not None:
            offsets[compare_tp(self.settings)] = self.compare.read_offset
        return offsets

    def _highwater(self, tp: TP) -> int | None:
        consumer = self.app.consumer
        return consumer.highwater(tp) if tp in consumer.assignment() else None

    def _fetch_after(self, tp: TP, read_offset: int) -> None:
        if tp in self.shards and self.gate.expected(tp) != read_offset + 1:
            self.shards[tp].holes += 1
        self.gate.open(tp, read_offset)
        self.spawn(self._seek(tp, read_offset + 1))

    # -- agents ---------------------------------------------------------------

    async def ingest(self, stream: Any) -> None:
        """Apply batches of transactions to the state of their partition."""
        async for batch in stream.noack():
            shard = self.shards.get(batch.tp)
            if shard is not None:
                with self._stalls.taking(batch.tp.topic):
                    await shard.take(batch)

    async def evaluate_windows(self, stream: Any) -> None:
        """Evaluate the windows that snapshot messages make whole."""
        async for batch in stream.noack():
            with self._stalls.taking(batch.tp.topic):
                await self._take(self.evaluate, batch)

    async def compare_windows(self, stream: Any) -> None:
        """Run Evidently on evaluated windows."""
        async for batch in stream.noack():
            with self._stalls.taking(batch.tp.topic):
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
            self._load_anew(batch.tp, owner, exc)

    def _load_anew(self, tp: TP, owner: EvaluateOwner | CompareOwner, exc: BaseException) -> None:
        """Replace an owner that failed; one that was given back or replaced already is nobody's concern."""
        if owner in {self.evaluate, self.compare} and tp in self.app.consumer.assignment():
            log.error("owner is loaded anew", topic=tp.topic, exc_info=exc)
            self.gate.close(tp)
            self._start_loading(tp, pause_s=RELOAD_PAUSE_S)

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

    if role in {Role.ALL, Role.INGEST}:
        app.agent(batches(app, topics.transactions.name), name="ingest")(worker.ingest)
        app.timer(interval=COMMIT_INTERVAL_S)(worker.commit)
        if settings.write_watermarks:
            idle = IdleWatch(worker)
            app.timer(interval=settings.idle_after_s / 3)(idle.look)
    if role in {Role.ALL, Role.EVALUATE}:
        app.agent(batches(app, topics.snapshots.name), name="evaluate")(worker.evaluate_windows)
    if role in {Role.ALL, Role.COMPARE}:
        app.agent(batches(app, topics.evaluations.name), name="compare")(worker.compare_windows)

    async def on_assigned(_: Any, assigned: set[TP], **__: Any) -> None:
        await worker.assigned(assigned)

    async def on_revoked(_: Any, revoked: set[TP], **__: Any) -> None:
        await worker.revoked(revoked)

    app.on_partitions_assigned.connect(on_assigned, weak=False)
    app.on_partitions_revoked.connect(on_revoked, weak=False)
    return worker
