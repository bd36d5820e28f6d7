"""The whole stream over a file, without Kafka: the same pure code in the same order."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from models.registry import Registry, RegistryError
from streams import cloudevents
from streams.carry import Carry
from streams.decisions import Decision, DecisionLog
from streams.detectors import make_detectors
from streams.detectors.evidently import waits_for_comparison
from streams.early_warnings import Warned
from streams.evaluation import Evaluated, Evaluator
from streams.history import History
from streams.inline_comparison import InlineComparisons, inline_comparisons
from streams.joining import Joiner, Snapshot
from streams.model_cache import ModelCache
from streams.partition import PartitionState, Refused
from streams.retraining import Answer, answer_request
from streams.score_book import Champion, champion_in
from streams.scores import score_messages
from streams.settings import Settings
from streams.snapshots import decode_chunk, encode_part, encode_rows
from streams.state_config import Counters, StateConfig
from streams.transactions import Headers

BATCH_LINES = 5_000


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


@dataclass(frozen=True)
class Step:
    """A window with all that it led to: the decisions made before it, its events, its evaluation."""

    snapshot: Snapshot
    decisions: list[dict[str, Any]]  # CloudEvents
    events: list[dict[str, Any]]
    evaluation: dict[str, Any]


class Sink(Protocol):
    """Takes what becomes of an input, as it comes.

    At the end only come the early warnings, in the order of days, and the scores of the last whole window.
    """

    def window(self, step: Step) -> None: ...  # noqa: D102
    def dead(self, record: DeadRecord) -> None: ...  # noqa: D102
    def warning(self, event: dict[str, Any]) -> None: ...  # noqa: D102
    def score(self, customer: str, message: bytes) -> None: ...  # noqa: D102


@dataclass
class Results:
    """A sink that keeps everything: one entry a window, an event, a decision, a warning, a dead record."""

    snapshots: list[Snapshot] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    dead_records: list[DeadRecord] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, bytes] = field(default_factory=dict)  # message by customer
    counters: Counters = field(default_factory=Counters)

    def window(self, step: Step) -> None:
        """Keep a window."""
        self.snapshots.append(step.snapshot)
        self.decisions += step.decisions
        self.events += step.events
        self.evaluations.append(step.evaluation)

    def dead(self, record: DeadRecord) -> None:
        """Keep a dead record."""
        self.dead_records.append(record)

    def warning(self, event: dict[str, Any]) -> None:
        """Keep an early warning."""
        self.warnings.append(event)

    def score(self, customer: str, message: bytes) -> None:
        """Keep a score."""
        self.scores[customer] = message


class Windows:
    """Partitions, fed with records; gives out whole windows, and what was refused to `on_dead`."""

    def __init__(
        self,
        settings: Settings,
        partitions: int = 1,
        batch_lines: int = BATCH_LINES,
        on_dead: Callable[[DeadRecord], None] = lambda _: None,
    ) -> None:
        config = StateConfig.of(settings, partitions)
        self.states = [PartitionState(partition, config) for partition in range(partitions)]
        self.warned: list[Warned] = []
        self._on_dead = on_dead
        self._joiner = Joiner(partitions, settings.sample_customers_max)
        self._batch_lines = batch_lines
        self._rows_wanted = settings.scores
        self.rows: dict[int, list[bytes]] = defaultdict(
            list
        )  # of all customers, by window end; no partial one
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

    @property
    def counters(self) -> Counters:
        """Records of all partitions by what became of them."""
        total = Counters()
        for state in self.states:
            for item in fields(Counters):
                setattr(total, item.name, getattr(total, item.name) + getattr(state.counters, item.name))
        return total

    def _apply(self, partition: int) -> Iterator[Snapshot]:
        records, self._waiting[partition] = self._waiting[partition], []
        first = self._offsets[partition]
        self._offsets[partition] += len(records)
        applied = self.states[partition].apply(
            range(first, first + len(records)),
            [record.value for record in records],
            [record.headers for record in records],
        )
        for letter in applied.refused:
            self._on_dead(_dead(partition, letter, records))
        for cut in applied.cuts:
            self.warned += cut.warned
            for part in cut.parts:
                # Through the bytes of the topic, so that both ways round off nothing differently.
                for _, value in encode_part(part, len(self.states)):
                    self._joiner.add(decode_chunk(value))
                if self._rows_wanted and not part.partial:
                    self.rows[part.window_end] += [rows for _, rows in encode_rows(part, len(self.states))]
        yield from self._joiner.pop()


def run(
    records: Iterable[InputRecord],
    settings: Settings,
    registry: Registry,
    *,
    partitions: int = 1,
    log: DecisionLog | None = None,
    batch_lines: int = BATCH_LINES,
) -> Results:
    """Do as `run_into` and return everything."""
    results = Results()
    results.counters = run_into(
        results, records, settings, registry, partitions=partitions, log=log, batch_lines=batch_lines
    )
    return results


def run_into(
    sink: Sink,
    records: Iterable[InputRecord],
    settings: Settings,
    registry: Registry,
    *,
    partitions: int = 1,
    log: DecisionLog | None = None,
    batch_lines: int = BATCH_LINES,
) -> Counters:
    """Run everything over `records`, in the order of each partition's log; return what became of them.

    The decisions in `log`, those of a run on Kafka, are followed; a request that has none there is answered
    here, by the rule that the retrain consumer follows. Models are stored in `registry`. Where evaluations
    wait for Evidently's comparisons, those are made here too.
    """
    models = ModelCache(registry)
    evaluator = Evaluator(settings, make_detectors(settings), models.load)
    history, carry = History(), Carry()
    decisions = log.copy() if log else DecisionLog()
    windows = Windows(settings, partitions, batch_lines, sink.dead)
    last: _Scorable | None = None
    with inline_comparisons(settings) if waits_for_comparison(settings) else nullcontext() as comparisons:
        for snapshot in windows.feed(records):
            history.add(snapshot)
            answers = []
            for request in carry.due(snapshot.window_end):
                if request.request_id not in decisions.by_request:
                    answered = answer_request(history, request, models.load, settings)
                    event = store(answered, registry).to_event(evaluator.source)
                    decisions.add(len(decisions.by_request), event)
                    answers.append(event)
            comparison = _comparison(comparisons, evaluator, history, carry, decisions)
            evaluated: Evaluated = evaluator.evaluate(history, carry, decisions, comparison)
            carry = evaluated.carry
            sink.window(Step(snapshot, answers, evaluated.events, evaluated.evaluation))
            last = _Scorable.of(evaluated, windows.rows) or last
    for warned in sorted(windows.warned, key=lambda warned: (warned.day, warned.partition)):
        sink.warning(warned.to_event(evaluator.source, settings.hop_s))
    if last is not None:
        for customer, message in last.scores(models, evaluator.source):
            sink.score(customer, message)
    return windows.counters


@dataclass(frozen=True)
class _Scorable:
    """The newest window whose customers can be scored."""

    window_end: int
    rows: list[bytes]
    champion: Champion

    @classmethod
    def of(cls, evaluated: Evaluated, rows: dict[int, list[bytes]]) -> "_Scorable | None":
        """Take a window's rows out of `rows`; None where it is partial, or no model served it."""
        found = rows.pop(evaluated.window_end, None)
        _, champion = champion_in(cloudevents.encode(evaluated.evaluation))
        if found is None or champion is None:
            return None
        return cls(evaluated.window_end, found, champion)

    def scores(self, models: ModelCache, source: str) -> Iterator[tuple[str, bytes]]:
        """Yield (customer, message); nothing where the model cannot be loaded, as on the stream."""
        try:
            model, card = models.load(self.champion.version)
        except RegistryError:
            return
        for value in self.rows:
            yield from score_messages(
                decode_chunk(value).table,
                model,
                card,
                self.champion.cuts,
                window_end=self.window_end,
                source=source,
            )


def _comparison(
    comparisons: InlineComparisons | None,
    evaluator: Evaluator,
    history: History,
    carry: Carry,
    decisions: DecisionLog,
) -> dict[str, Any] | None:
    """Return Evidently's comparison of the last window, where evaluations wait for it."""
    if comparisons is None:
        return None
    wanted = evaluator.comparison_wanted(history, carry, decisions)
    if wanted is None or wanted.reference_end is None:
        return None
    rows = history.windows[wanted.window_end].rows
    return comparisons.compared(wanted, rows, history.windows[wanted.reference_end].rows)


def store(answered: Answer, registry: Registry) -> Decision:
    """Put the model of an answer, promoted or not, into the registry; return the decision."""
    if answered.model is not None and answered.card is not None and answered.reference is not None:
        registry.save(answered.model, answered.card, answered.reference)
    return answered.decision


def _dead(partition: int, letter: Refused, records: list[InputRecord]) -> DeadRecord:
    return DeadRecord(partition, letter.offset, letter.reason, records[letter.position].value)
