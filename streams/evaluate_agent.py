"""The agent `evaluate`: joins the parts of a window, waits for due decisions, evaluates, publishes."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaProducer
from faust.types import TP

from streams import cloudevents
from streams.carry import Carry, carry_in
from streams.comparison_follower import ComparisonFollower
from streams.consumption import Batch
from streams.decision_follower import DecisionFollower
from streams.decisions import DecisionLog
from streams.detectors.evidently import waits_for_comparison
from streams.evaluation import Evaluated, Evaluator
from streams.faults import strike
from streams.grid import iso
from streams.history import History
from streams.joining import Joiner, Snapshot
from streams.kafka_io import read_to_end, send_event
from streams.log_follower import GivenBackError
from streams.retention import retained_s
from streams.settings import Settings
from streams.snapshots import decode_chunk
from streams.topics import catalogue

log = structlog.get_logger(__name__)


class EvaluationObserver(Protocol):
    """Whoever shows what the log of evaluations says; told everything again after each load."""

    def reset_evaluations(self) -> None: ...  # noqa: D102
    def evaluations_loaded(self) -> None: ...  # noqa: D102
    def observe_waiting_for(self, partitions: Iterable[int]) -> None: ...  # noqa: D102
    def observe_evaluation(self, event: dict[str, Any]) -> None: ...  # noqa: D102
    def observe_drift_event(self, event: dict[str, Any]) -> None: ...  # noqa: D102
    def observe_decision(self, event: dict[str, Any]) -> None: ...  # noqa: D102
    def observe_evaluation_seconds(self, seconds: float) -> None: ...  # noqa: D102
    def observe_refused_snapshot(self) -> None: ...  # noqa: D102
    def observe_refused_decision(self) -> None: ...  # noqa: D102


class EvaluateOwner:
    """Holds what the owner of the snapshots' partition knows; built anew from the topics by `load`."""

    def __init__(
        self,
        settings: Settings,
        evaluator: Evaluator,
        producer: AIOKafkaProducer,
        observer: EvaluationObserver,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.settings = settings
        self.evaluator = evaluator
        self.producer = producer
        self.observer = observer
        self.on_failure = on_failure  # told when what runs beside the agent ends
        self.topics = catalogue(settings)
        self.read_offset = -1
        self.closed = False  # given back for good
        self._fresh()

    def _fresh(self) -> None:
        self.history = History()
        self.joiner = Joiner(self.settings.partitions, self.settings.sample_customers_max)
        self.carry = Carry()
        self.decisions = DecisionFollower(
            self.settings, self.producer, self._observe_decision, self.on_failure
        )
        self.comparisons: ComparisonFollower | None = None
        if waits_for_comparison(self.settings):
            self.comparisons = ComparisonFollower(self.settings, self.producer, self.on_failure)

    async def load(self) -> int:
        """Read snapshots, decisions and evaluations to their ends; return the offset to go on from.

        Raises GivenBackError where `close` was called meanwhile.
        """
        self._still_held()
        await self._close_followers()
        self._fresh()
        self.observer.reset_evaluations()
        events, _ = await read_to_end(self.settings, self.topics.events.name)
        for record in events:
            self._observe(self.observer.observe_drift_event, record)
        evaluations, _ = await read_to_end(self.settings, self.topics.evaluations.name)
        refused = sum([not self._note_evaluation(record) for record in evaluations])
        self._still_held()
        await self.decisions.load()
        if self.comparisons is not None:
            await self.comparisons.load()
        snapshots, end = await read_to_end(self.settings, self.topics.snapshots.name, committed=True)
        self.read_offset = end - 1
        for record in snapshots:
            self._note_snapshot(record.value)
        self.observer.evaluations_loaded()
        async with self.decisions.turn:
            await self.decisions.committed(self.carry)
        await self._evaluate_whole()
        log.info(
            "evaluate loaded",
            windows=len(self.history.windows),
            last_evaluated=self.carry.window_end and iso(self.carry.window_end),
            refused_evaluations=refused,
        )
        return end

    async def close(self) -> None:
        """Give the partition back: a window that waits or is being evaluated ends in GivenBackError."""
        self.closed = True
        await self._close_followers()

    async def _close_followers(self) -> None:
        await self.decisions.close()
        if self.comparisons is not None:
            await self.comparisons.close()

    def _still_held(self) -> None:
        if self.closed:
            raise GivenBackError

    async def take(self, batch: Batch) -> None:
        """Take snapshot messages; evaluate the windows that they make whole. Raises GivenBackError."""
        for value in batch.values:
            self._note_snapshot(value)
        self.read_offset = batch.offsets[-1]
        await self._evaluate_whole()

    # -- snapshots ------------------------------------------------------------

    def _note_snapshot(self, value: bytes | None) -> None:
        if value is None:
            return
        try:
            self.joiner.add(decode_chunk(value))
        except ValueError as exc:
            self.observer.observe_refused_snapshot()
            log.error("snapshot message refused", reason=str(exc))

    async def _evaluate_whole(self) -> None:
        for snapshot in self.joiner.pop():
            await self._evaluate(snapshot)
        self.observer.observe_waiting_for(self.joiner.waiting_for())

    async def _evaluate(self, snapshot: Snapshot) -> None:
        self.history.add(snapshot)
        if self.carry.window_end is not None and snapshot.window_end <= self.carry.window_end:
            return  # evaluated before this worker took over
        async with self.decisions.turn:
            for request in self.carry.due(snapshot.window_end):
                await self.decisions.decided(request)
            decisions = self.decisions.log.copy()  # what is decided meanwhile must not show half-way
            comparison = await self._comparison(decisions)
            started = time.perf_counter()
            # Off the event loop, so that reading goes on.
            evaluated = await asyncio.to_thread(
                self.evaluator.evaluate, self.history, self.carry, decisions, comparison
            )
            self._still_held()
            self.observer.observe_evaluation_seconds(time.perf_counter() - started)
            await self._publish(evaluated)
            self.carry = evaluated.carry
            await self.decisions.committed(self.carry)
        self._forget()

    async def _comparison(self, decisions: DecisionLog) -> dict[str, Any] | None:
        """Return Evidently's comparison of the last window, where evaluations wait for it."""
        if self.comparisons is None:
            return None
        wanted = await asyncio.to_thread(
            self.evaluator.comparison_wanted, self.history, self.carry, decisions
        )
        return None if wanted is None else await self.comparisons.compared(wanted)

    async def _publish(self, evaluated: Evaluated) -> None:
        """Write the events, then the evaluation: that one commits the window."""
        strike(self.settings, "evaluate:evaluated")
        for event in evaluated.events:
            await send_event(self.producer, self.topics.events.name, event["id"], event)
            self.observer.observe_drift_event(event)
            log.info("drift event", event_id=event["id"], kind=event["type"], **_told(event["data"]))
        if evaluated.events:
            strike(self.settings, "evaluate:events_sent")
        key = iso(evaluated.window_end)
        await send_event(self.producer, self.topics.evaluations.name, key, evaluated.evaluation)
        strike(self.settings, "evaluate:committed")
        self.observer.observe_evaluation(evaluated.evaluation)
        data = evaluated.evaluation["data"]
        log.info(
            "window evaluated",
            window_end=key,
            state=data["state"],
            customers=data["customers"],
            model_version=data["model_version"],
            action=data["action"],
        )

    def _forget(self) -> None:
        """Drop windows that no later evaluation looks at: those of the reference stay."""
        carry, settings = self.carry, self.settings
        assert carry.window_end is not None
        before = carry.window_end - retained_s(settings)
        keep = {end for end in self.history.windows if carry.refers_to(end, settings.reference_least_s)}
        self.history.forget(before, keep | {request.requested_at for request in carry.pending})

    # -- what the logs say ----------------------------------------------------

    def _note_evaluation(self, record: Any) -> bool:
        """Go on from an evaluation in the log; False, and a word in the log, where it is none of ours."""
        try:
            event = cloudevents.decode(record.value or b"")
            carry = carry_in(event, self.evaluator.source)
        except ValueError as exc:
            log.warning("evaluation refused", offset=record.offset, reason=str(exc))
            return False
        if (carry.window_end or 0) >= (self.carry.window_end or 0):
            self.carry = carry
        return self._observe(self.observer.observe_evaluation, record) is not None

    def _observe_decision(self, record: Any) -> dict[str, Any] | None:
        def observe(event: dict[str, Any]) -> None:
            DecisionLog().add(record.offset, event)  # raises where it is none: then it is not shown as one
            self.observer.observe_decision(event)

        event = self._observe(observe, record)
        if event is None:
            self.observer.observe_refused_decision()
        return event

    def _observe(self, observe: Any, record: Any) -> dict[str, Any] | None:
        """Return the event in a record, shown to the observer; None, and a word in the log, if it is none."""
        try:
            event = cloudevents.decode(record.value or b"")
            observe(event)
        except (ValueError, KeyError, TypeError) as exc:
            log.error("message refused", topic=record.topic, offset=record.offset, reason=str(exc))
            return None
        return event


def _told(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("window_end", "drift_type", "state", "action", "model_version")}


def owner_tp(settings: Settings) -> TP:
    """Return the partition whose assignment makes a worker the owner of the evaluations."""
    return TP(catalogue(settings).snapshots.name, 0)
