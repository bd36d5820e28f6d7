"""The agent `evaluate`: joins the parts of a window, waits for due decisions, evaluates, publishes."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaProducer
from faust.types import TP

from models.features import DAY_S
from streams import cloudevents
from streams.carry import Carry, Request
from streams.consumption import Batch
from streams.decisions import Decision, DecisionLog, Outcome
from streams.evaluation import Evaluated, Evaluator
from streams.grid import iso
from streams.history import History
from streams.joining import Joiner, Snapshot
from streams.kafka_io import read_to_end, tail
from streams.settings import Settings
from streams.snapshots import decode_chunk
from streams.topics import catalogue

log = structlog.get_logger(__name__)


class GivenBackError(Exception):
    """The partition was given back while a window waited or was evaluated: it is another owner's now."""


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


class EvaluateOwner:
    """Holds what the owner of the snapshots' partition knows; built anew from the topics by `load`."""

    def __init__(
        self,
        settings: Settings,
        evaluator: Evaluator,
        producer: AIOKafkaProducer,
        observer: EvaluationObserver,
    ) -> None:
        self.settings = settings
        self.evaluator = evaluator
        self.producer = producer
        self.observer = observer
        self.topics = catalogue(settings)
        self.read_offset = -1
        self.closed = False  # given back for good
        self._followers: list[asyncio.Task[None]] = []
        self._fresh()

    def _fresh(self) -> None:
        self.history = History()
        self.joiner = Joiner(self.settings.partitions, self.settings.sample_customers_max)
        self.decisions = DecisionLog()
        self.carry = Carry()
        self.decided = asyncio.Condition()

    async def load(self) -> int:
        """Read snapshots, decisions and evaluations to their ends; return the offset to go on from.

        Raises GivenBackError where `close` was called meanwhile.
        """
        await self._unfollow()
        self._fresh()
        self.observer.reset_evaluations()
        events, _ = await read_to_end(self.settings, self.topics.events.name)
        for record in events:
            self._observe(self.observer.observe_drift_event, record)
        evaluations, _ = await read_to_end(self.settings, self.topics.evaluations.name)
        for record in evaluations:
            event = self._observe(self.observer.observe_evaluation, record)
            if event is not None:
                self.carry = Carry.from_dict(event["data"]["carry"])
        decisions, models_end = await read_to_end(self.settings, self.topics.models.name)
        for record in decisions:
            self._note_decision(record)
        self._still_held()
        self._followers = [asyncio.create_task(self._follow_decisions(models_end))]
        snapshots, end = await read_to_end(self.settings, self.topics.snapshots.name)
        self.read_offset = end - 1
        for record in snapshots:
            self._note_snapshot(record.value)
        self.observer.evaluations_loaded()
        await self._evaluate_whole()
        log.info(
            "evaluate loaded",
            windows=len(self.history.windows),
            last_evaluated=self.carry.window_end and iso(self.carry.window_end),
        )
        return end

    async def close(self) -> None:
        """Give the partition back: a window that waits or is being evaluated ends in GivenBackError."""
        self.closed = True
        async with self.decided:
            self.decided.notify_all()
        await self._unfollow()

    def _still_held(self) -> None:
        if self.closed:
            raise GivenBackError

    async def _unfollow(self) -> None:
        for task in self._followers:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        self._followers = []

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
        for request in self.carry.due(snapshot.window_end):
            await self._decided(request)
        started = time.perf_counter()
        # Off the event loop, so that reading goes on.
        evaluated = await asyncio.to_thread(self.evaluator.evaluate, self.history, self.carry, self.decisions)
        self._still_held()
        self.observer.observe_evaluation_seconds(time.perf_counter() - started)
        await self._publish(evaluated)
        self.carry = evaluated.carry
        self._forget()

    async def _publish(self, evaluated: Evaluated) -> None:
        """Write the events, then the evaluation: that one commits the window."""
        for event in evaluated.events:
            await self._send(self.topics.events.name, event["id"], event)
            self.observer.observe_drift_event(event)
            log.info("drift event", event_id=event["id"], kind=event["type"], **_told(event["data"]))
        key = iso(evaluated.window_end)
        await self._send(self.topics.evaluations.name, key, evaluated.evaluation)
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

    async def _send(self, topic: str, key: str, event: dict[str, Any]) -> None:
        await self.producer.send_and_wait(
            topic,
            key=key.encode(),
            value=cloudevents.encode(event),
            partition=0,
            headers=cloudevents.HEADERS,
        )

    def _forget(self) -> None:
        """Drop windows that no later evaluation looks at."""
        assert self.carry.window_end is not None
        longest = max(self.settings.horizon_days, self.settings.monitor_horizon_days)
        before = self.carry.window_end - (longest + 4 * self.settings.window_hop_days) * DAY_S
        references = {self.carry.reference_end, *(r.requested_at for r in self.carry.pending)}
        self.history.forget(before, keep={end for end in references if end is not None})

    # -- decisions ------------------------------------------------------------

    async def _decided(self, request: Request) -> None:
        """Wait until a decision on `request` stands; write `expired` when that takes too long."""
        known = self.decisions.by_request
        if request.request_id in known:
            return
        log.info(
            "waiting for a decision", request_id=request.request_id, window_end=iso(request.requested_at)
        )
        async with self.decided:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self.decided.wait_for(lambda: self.closed or request.request_id in known),
                    timeout=self.settings.decision_wait_s,
                )
                self._still_held()
                return
        expired = Decision(
            outcome=Outcome.EXPIRED,
            reason=f"no decision within {self.settings.decision_wait_s:g} s",
            window_end=request.requested_at,
            request_id=request.request_id,
            parent=request.champion,
        )
        event = expired.to_event(self.evaluator.source)
        await self._send(self.topics.models.name, request.request_id, event)
        log.warning("request expired", request_id=request.request_id)
        # What stands first in the log counts, be it this or an answer that came at the last moment.
        async with self.decided:
            await self.decided.wait_for(lambda: self.closed or request.request_id in known)
        self._still_held()

    async def _follow_decisions(self, start: int) -> None:
        async for records in tail(self.settings, self.topics.models.name, start=start):
            async with self.decided:
                for record in records:
                    self._note_decision(record)
                self.decided.notify_all()

    def _note_decision(self, record: Any) -> None:
        event = self._observe(self.observer.observe_decision, record)
        if event is None:
            return
        try:
            self.decisions.add(record.offset, event)
        except ValueError as exc:
            log.error("decision refused", offset=record.offset, reason=str(exc))

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
