"""The whole stream over a file, without Kafka: the same pure code in the same order."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.registry import Registry
from streams.carry import Carry
from streams.decisions import Decision, DecisionLog
from streams.detectors import make_detector
from streams.evaluation import Evaluated, Evaluator
from streams.history import History
from streams.joining import Joiner, Snapshot
from streams.model_cache import ModelCache
from streams.partition import PartitionState, Refused, StateConfig
from streams.retraining import Answer, answer
from streams.settings import Settings
from streams.snapshots import decode_chunk, encode_part
from streams.transactions import Headers


class InputRecord(Protocol):
    """A record as a producer would send it."""

    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def value(self) -> bytes: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


@dataclass(frozen=True)
class DeadRecord:
    """A record that was refused, where it would stand in the topic, and why."""

    partition: int
    offset: int
    reason: str
    value: bytes


@dataclass
class Results:
    """What becomes of an input: one entry a window, an event, a decision, a dead record."""

    snapshots: list[Snapshot] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    dead: list[DeadRecord] = field(default_factory=list)


class Windows:
    """Partitions, fed with records; gives out whole windows."""

    def __init__(self, settings: Settings, partitions: int, batch_lines: int) -> None:
        config = StateConfig.of(settings, partitions)
        self.states = [PartitionState(partition, config) for partition in range(partitions)]
        self.dead: list[DeadRecord] = []
        self._joiner = Joiner(partitions, settings.sample_customers_max)
        self._batch_lines = batch_lines
        self._waiting: dict[int, list[InputRecord]] = defaultdict(list)
        self._offsets = [0] * partitions

    def feed(self, records: Iterable[InputRecord]) -> Iterator[Snapshot]:
        """Yield the windows of `records`, which end where the records end."""
        for record in records:
            waiting = self._waiting[record.partition]
            waiting.append(record)
            if len(waiting) >= self._batch_lines:
                yield from self._apply(record.partition)
        for partition in range(len(self.states)):
            yield from self._apply(partition)

    def _apply(self, partition: int) -> Iterator[Snapshot]:
        records, self._waiting[partition] = self._waiting[partition], []
        first = self._offsets[partition]
        self._offsets[partition] += len(records)
        applied = self.states[partition].apply(
            range(first, first + len(records)),
            [record.value for record in records],
            [record.headers for record in records],
        )
        self.dead += [_dead(partition, letter, records) for letter in applied.refused]
        for cut in applied.cuts:
            for part in cut.parts:
                # Through the bytes of the topic, so that both ways round off nothing differently.
                for _, value in encode_part(part, len(self.states)):
                    self._joiner.add(decode_chunk(value))
        yield from self._joiner.pop()


def run(
    records: Iterable[InputRecord],
    settings: Settings,
    registry: Registry,
    *,
    partitions: int = 1,
    log: DecisionLog | None = None,
    batch_lines: int = 5_000,
) -> Results:
    """Run everything over `records`, in the order of each partition's log.

    With `log`, the decisions of a run on Kafka, those are followed; without, each request is answered here,
    by the rule that the retrain consumer follows. Models are stored in `registry`.
    """
    results = Results()
    models = ModelCache(registry)
    detectors = [make_detector(name, settings) for name in settings.detectors]
    evaluator = Evaluator(settings, detectors, models.load)
    history, carry = History(), Carry()
    decisions = log or DecisionLog()
    windows = Windows(settings, partitions, batch_lines)
    for snapshot in windows.feed(records):
        history.add(snapshot)
        for request in carry.due(snapshot.window_end):
            if request.request_id not in decisions.by_request:
                champion = models.load(request.champion)[0] if request.champion else None
                answered = answer(history, request, champion, settings)
                event = store(answered, registry).to_event(evaluator.source)
                decisions.add(len(results.decisions), event)
                results.decisions.append(event)
        evaluated: Evaluated = evaluator.evaluate(history, carry, decisions)
        carry = evaluated.carry
        results.snapshots.append(snapshot)
        results.events += evaluated.events
        results.evaluations.append(evaluated.evaluation)
    results.dead = windows.dead
    return results


def store(answered: Answer, registry: Registry) -> Decision:
    """Put the model of an answer, promoted or not, into the registry; return the decision."""
    if answered.model is not None and answered.card is not None and answered.reference is not None:
        registry.save(answered.model, answered.card, answered.reference)
    return answered.decision


def _dead(partition: int, letter: Refused, records: list[InputRecord]) -> DeadRecord:
    return DeadRecord(partition, letter.offset, letter.reason, records[letter.position].value)
