"""The retrain consumer: answers each request for a model once, in public, whatever dies meanwhile.

A request is an event whose action is one of `remedies.REQUESTS`. Its answer is a function of the request, the
snapshots and the settings; so whoever repeats a step after a crash writes the same bytes, and what stands
first in the log of decisions counts. That is why no step here is undone and no two steps are tied together.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event
from types import FrameType
from typing import Any, NoReturn, Protocol

import msgspec
import structlog
from kafka.consumer.fetcher import ConsumerRecord

from streams import cloudevents
from streams.carry import Request
from streams.decision_writer import write_decision
from streams.decisions import Decision, DecisionLog
from streams.errors import UserError
from streams.event_group import EventGroup
from streams.faults import strike
from streams.mirror_child import MirrorChild
from streams.remedies import REQUESTS
from streams.retrain_child import Answered, Failed, Later, Reply, Training, kept
from streams.settings import Settings
from streams.start_checks import check_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

log = structlog.get_logger(__name__)

GROUP = "clv-drift-retrain"
TRIES_MAX = 3
POLL_S = 0.2  # how soon a finished child is noticed
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0


class RetrainObserver(Protocol):
    """Whoever shows what the consumer does; told the same thing twice where a step is repeated."""

    def observe_request(self, event: dict[str, Any]) -> None: ...  # noqa: D102
    def observe_training(self, outcome: str, seconds: float) -> None: ...  # noqa: D102
    def observe_decision(self, event: dict[str, Any]) -> None: ...  # noqa: D102


def run(settings: Settings, observer: RetrainObserver, beat: Callable[[], None]) -> None:
    """Answer requests until SIGTERM or SIGINT; call it from the main thread. `beat` is told that it goes on.

    Raises UserError: BROKER where none answers at the start, STATE where a topic is missing.
    """
    topics = catalogue(settings)
    check_topics(settings, topics.snapshots, topics.events, topics.models)
    stop = Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        # Anywhere, in a wait for a broker that is gone too: no worse than a kill, which is provided for.
        stop.set()
        for number in signals:  # a second one must not break off the closing
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        with closing(EventGroup(settings, GROUP, stop, beat)) as group:
            log.info("retrain consumer started", group=settings.topic(GROUP))
            retrainer = Retrainer(settings, group, observer)
            with closing(retrainer.mirror):
                retrainer.run()
    except KeyboardInterrupt:
        log.info("retrain consumer stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def request_in(event: dict[str, Any]) -> Request | None:
    """Return the request that an event carries, None where it asks for nothing.

    Raises ValueError on a request that is not whole.
    """
    data = event["data"]
    if data.get("action") not in REQUESTS:
        return None
    try:
        values = {
            "request_id": event["id"],
            "requested_at": cloudevents.from_iso(data["window_end"]),
            "effective_from": cloudevents.from_iso(data["effective_from"]),
            "champion": data["model_version"],
            "action": data["action"],
            "onset": None if data["onset"] is None else cloudevents.from_iso(data["onset"]),
            "rival": data["rival"],
        }
        return msgspec.convert(values, Request)
    except (KeyError, TypeError, ValueError) as exc:  # msgspec's errors are ValueErrors
        raise ValueError(f"not a request: {exc!r}") from exc


def pauses() -> Iterator[float]:
    """Yield how long to wait before each new try, seconds: doubled each time, within bounds."""
    pause = PAUSE_FIRST_S
    while True:
        yield pause
        pause = min(2 * pause, PAUSE_MAX_S)


class Retrainer:
    """Takes one event after the other, and notes it when all is done that it asks for."""

    def __init__(self, settings: Settings, group: EventGroup, observer: RetrainObserver) -> None:
        self.settings = settings
        self.group = group
        self.observer = observer
        self._refused: set[tuple[str, int]] = set()
        self.mirror = MirrorChild(settings)

    def run(self) -> NoReturn:
        """Go on until KeyboardInterrupt."""
        while True:
            record = self.group.next(timeout_s=1.0)
            self.mirror.look()
            if record is not None:
                self._take(record)

    def _take(self, record: ConsumerRecord) -> None:
        """Do what a message of the log of events asks for, and note that it is done."""
        try:
            event = cloudevents.decode(record.value or b"")
            request = request_in(event)
        except ValueError as exc:
            self._refuse(record, exc)
        else:
            if request is not None:
                self.observer.observe_request(event)
                self._settle(request)
                strike(self.settings, "retrain:before_commit")
        self.group.done(record)

    def _settle(self, request: Request) -> None:
        """Return when a decision on `request` stands in the log."""
        event = self._answered(request)
        strike(self.settings, "retrain:after_save")
        if event is not None:
            self._publish(request, event)

    def _answered(self, request: Request) -> dict[str, Any] | None:
        """Return the decision as a CloudEvent, None where one stands already."""
        failures = 0
        for pause_s in pauses():
            if self._decision_on(request) is not None:
                return None
            strike(self.settings, "retrain:before_training")
            reply = self._trained(request)
            match reply:
                case Answered(event):
                    return event
                case Later(reason):
                    log.warning("request waits", request_id=request.request_id, reason=reason)
                case Failed(reason):
                    failures += 1
                    log.error(
                        "training failed", request_id=request.request_id, reason=reason, failures=failures
                    )
                    if failures == TRIES_MAX:
                        decision = kept(request, f"no model in {TRIES_MAX} tries: {reason}")
                        return decision.to_event(self.settings.event_source)
            self.group.stay(pause_s)
        raise AssertionError  # the pauses have no end

    def _trained(self, request: Request) -> Reply:
        """Return what one child makes of `request`; a member of the group all the while."""
        started = time.monotonic()
        with Training(self.settings, request) as training:
            log.info(
                "training started",
                request_id=request.request_id,
                window_end=cloudevents.iso(request.requested_at),
                champion=request.champion,
                child_pid=training.pid,
            )
            strike(self.settings, "retrain:in_training")
            while (reply := training.reply()) is None:
                self.group.stay(POLL_S)
        if not isinstance(reply, Later):
            outcome = reply.event["data"]["outcome"] if isinstance(reply, Answered) else "failed"
            self.observer.observe_training(outcome, time.monotonic() - started)
        return reply

    def _publish(self, request: Request, event: dict[str, Any]) -> None:
        """Write the decision, unless another one came first; again until the broker has acknowledged one."""
        for pause_s in pauses():
            if self._decision_on(request) is not None:
                return
            try:
                write_decision(self.settings, request.request_id, event)
            except UserError as exc:  # it may be in the log all the same: the next look tells
                log.warning("decision not written", request_id=request.request_id, reason=exc.message)
                self.group.stay(pause_s)
            else:
                self.observer.observe_decision(event)
                self.mirror.want()
                _tell("request decided", Decision.from_event(event), event["id"])
                return

    def _decision_on(self, request: Request) -> Decision | None:
        """Return the decision that stands in the log now, None where there is none; waits for a broker."""
        for pause_s in pauses():
            try:
                decisions = self._read_decisions()
            except UserError as exc:
                log.warning("log of decisions not readable", reason=exc.message)
                self.group.stay(pause_s)
                continue
            found = decisions.by_request.get(request.request_id)
            if found is None:
                return None
            _tell("request stands decided", found[1], found[0])
            return found[1]
        raise AssertionError  # the pauses have no end

    def _read_decisions(self) -> DecisionLog:
        decisions = DecisionLog()
        for record in read_all(self.settings, catalogue(self.settings).models.name):
            try:
                event = cloudevents.decode(record.value or b"")
                decisions.add(record.offset, event)
            except (ValueError, KeyError) as exc:
                self._refuse(record, exc)
            else:
                self.observer.observe_decision(event)
        return decisions

    def _refuse(self, record: ConsumerRecord, exc: Exception) -> None:
        """Pass over a message that cannot be read; say so once."""
        place = (record.topic, record.offset)
        if place not in self._refused:
            self._refused.add(place)
            log.error(
                "message refused",
                topic=record.topic,
                offset=record.offset,
                reason=str(exc) or repr(exc),
                refused=len(self._refused),
            )


def _tell(what: str, decision: Decision, event_id: str) -> None:
    log.info(
        what,
        request_id=decision.request_id,
        event_id=event_id,
        outcome=decision.outcome.value,
        version=decision.version,
        champion=decision.parent,
        reason=decision.reason,
        window_end=cloudevents.iso(decision.window_end),
    )
