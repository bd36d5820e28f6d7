"""Decisions about models that a person makes: promote a version, go back to the one before, ask for one."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from models.registry import Registry
from streams import cloudevents
from streams.batch import registry_errors
from streams.carry import Carry, carry_in
from streams.decisions import Decision, DecisionLog, Outcome
from streams.errors import ExitCode, UserError
from streams.grid import iso
from streams.kafka_access import python_client
from streams.settings import Settings
from streams.topic_reader import read_all
from streams.topics import catalogue

log = structlog.get_logger(__name__)

ACK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Service:
    """Which version serves, as the topics tell: the one that the next window is evaluated with."""

    window_end: int  # of the last evaluation
    champion: str | None
    decisions: tuple[Decision, ...]  # in the order of the log

    def predecessor(self) -> str | None:
        """Return the version that served when the champion was promoted; None where none did.

        A rollback is no promotion: two in a row go back two steps, not to and fro.
        """
        promoted = [
            decision
            for decision in self.decisions
            if decision.outcome is Outcome.PROMOTED and decision.version == self.champion
        ]
        return promoted[-1].parent if promoted else None


def promote(settings: Settings, version: str, *, reason: str) -> Decision:
    """Write the decision that `version` serves from the next window not yet evaluated on; return it.

    Raises UserError: MODEL where the registry cannot load the version, STATE where it serves already or no
    window has been evaluated yet, BROKER.
    """
    return _decide(settings, service(settings), Outcome.PROMOTED, version, reason)


def rollback(settings: Settings, *, reason: str) -> Decision:
    """Do as `promote` with the version that served before the current champion.

    Raises UserError (STATE) where none is known, else as `promote`.
    """
    now = service(settings)
    before = now.predecessor()
    if before is None:
        raise UserError(
            f"no version is known to have served before {now.champion or 'the first one'}",
            hint="`clv-drift model list` shows the versions, `clv-drift model promote` takes one of them",
            code=ExitCode.STATE,
        )
    return _decide(settings, now, Outcome.ROLLED_BACK, before, reason)


def request(settings: Settings, *, reason: str) -> Decision:
    """Write that a retrain is to be asked for at the next window not yet evaluated; return it.

    The request then goes the way of any other, through the gate. Raises UserError: STATE where no window has
    been evaluated yet, BROKER.
    """
    now = service(settings)
    decision = _by_hand(settings, now, Outcome.REQUESTED, None, reason)
    _send(settings, decision)
    return decision


def in_words(decision: Decision) -> str:
    """Return a hand-made decision as a sentence."""
    if decision.outcome is Outcome.REQUESTED:
        return (
            "requested: a retrain is asked for at the next window not yet evaluated, which ends at"
            f" {iso(decision.takes_effect_at)} or later, unless a model is on its way then"
        )
    instead = f" instead of {decision.parent}" if decision.parent else ""
    outcome = decision.outcome.value.replace("_", " ")
    return (
        f"{outcome}: model {decision.version} serves{instead} from the next window not yet evaluated on,"
        f" which ends at {iso(decision.takes_effect_at)} or later;"
        f" the last one evaluated ended at {iso(decision.window_end)}"
    )


def service(settings: Settings) -> Service:
    """Read from the topics which version serves; raises UserError (STATE) before the first evaluation."""
    topics = catalogue(settings)
    carry = _newest_carry(settings, topics.evaluations.name)
    if carry.window_end is None:
        raise UserError(
            f"no window has been evaluated yet ({topics.evaluations.name} holds no evaluation)",
            hint="a decision names the window that it was made after: run `clv-drift worker` first",
            code=ExitCode.STATE,
        )
    decision_log = DecisionLog()
    decisions = []
    for offset, event in _events(settings, topics.models.name):
        # What is no decision is refused by the worker too, and changes nothing.
        with suppress(ValueError):
            if decision_log.add(offset, event):
                decisions.append(Decision.from_event(event))
    # Hand-made decisions that no evaluation has taken up yet come before this one.
    waiting = [
        made.decision.version
        for name, made in decision_log.by_hand.items()
        if name not in carry.applied_by_hand and made.decision.version is not None
    ]
    return Service(carry.window_end, [carry.champion, *waiting][-1], tuple(decisions))


def _newest_carry(settings: Settings, topic: str) -> Carry:
    """Return what the evaluation of the newest window carries; an empty carry where there is none."""
    newest = Carry()
    for record in read_all(settings, topic):
        try:
            carry = carry_in(cloudevents.decode(record.value or b""), settings.event_source)
        except ValueError as exc:
            log.warning("evaluation passed over", topic=topic, offset=record.offset, reason=str(exc))
            continue
        if (carry.window_end or 0) >= (newest.window_end or 0):
            newest = carry
    return newest


def _events(settings: Settings, topic: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a topic's CloudEvents with their offsets; tombstones and foreign messages are passed over."""
    for record in read_all(settings, topic):
        with suppress(ValueError):
            yield record.offset, cloudevents.decode(record.value or b"")


def _decide(settings: Settings, now: Service, outcome: Outcome, version: str, reason: str) -> Decision:
    if version == now.champion:
        raise UserError(f"model {version} serves already", code=ExitCode.STATE)
    with registry_errors():
        Registry(settings.registry_dir).load(version)
    decision = _by_hand(settings, now, outcome, version, reason)
    _send(settings, decision)
    return decision


def _by_hand(
    settings: Settings, now: Service, outcome: Outcome, version: str | None, reason: str
) -> Decision:
    return Decision(
        outcome=outcome,
        reason=reason,
        window_end=now.window_end,
        version=version,
        parent=now.champion,
        nonce=uuid.uuid4().hex,
        effective_from=now.window_end + settings.hop_s,
    )


def _send(settings: Settings, decision: Decision) -> None:
    """Write a decision and wait until every replica in sync has it."""
    try:
        producer = KafkaProducer(
            **python_client(settings),
            client_id=settings.topic("clv-drift-model"),
            enable_idempotence=True,
            acks="all",
            bootstrap_timeout_ms=round(settings.broker_wait_s * 1000),
        )
        try:
            producer.send(
                catalogue(settings).models.name,
                key=decision.key.encode(),
                value=cloudevents.encode(decision.to_event(settings.event_source)),
                headers=cloudevents.HEADERS,
                partition=0,
            ).get(timeout=ACK_TIMEOUT_S)
        finally:
            producer.close(timeout=ACK_TIMEOUT_S)
    except KafkaError as exc:
        raise UserError(
            f"the broker at {settings.bootstrap_servers} did not acknowledge the decision: {exc}",
            hint="try again: if it was written all the same, the answer is that the model serves already",
            code=ExitCode.BROKER,
        ) from exc
