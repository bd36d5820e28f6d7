"""The catalogue of topics: names, partitions, retention, who writes and who reads."""

from dataclasses import dataclass, field

from streams.settings import Settings

MIB = 1024 * 1024
DAY_MS = 86_400_000
FOREVER = "-1"


@dataclass(frozen=True)
class TopicSpec:
    """One topic as it must be: `config` holds the broker's own setting names."""

    name: str
    partitions: int
    replication_factor: int
    purpose: str
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """Every topic of an installation; iterate over `specs`."""

    transactions: TopicSpec
    dead_letters: TopicSpec
    state: TopicSpec
    snapshots: TopicSpec
    rows: TopicSpec
    warnings: TopicSpec
    evaluations: TopicSpec
    comparisons: TopicSpec
    events: TopicSpec
    models: TopicSpec
    scores: TopicSpec

    @property
    def specs(self) -> tuple[TopicSpec, ...]:
        """All topics in the order of the data flow."""
        return (
            self.transactions,
            self.dead_letters,
            self.state,
            self.snapshots,
            self.rows,
            self.warnings,
            self.evaluations,
            self.comparisons,
            self.events,
            self.models,
            self.scores,
        )


def catalogue(settings: Settings) -> Catalogue:
    """Return the topics that `settings` ask for.

    All carry the broker's append time: event times may lie years back and would fall to retention at once.
    """

    def spec(name: str, purpose: str, config: dict[str, str], partitions: int = 1) -> TopicSpec:
        full = {"message.timestamp.type": "LogAppendTime", **config}
        return TopicSpec(settings.topic(name), partitions, settings.replication_factor, purpose, full)

    source = settings.input_topic
    compact = {"cleanup.policy": "compact"}
    # A start reads this topic whole, and an open segment is never compacted: a small one is closed soon.
    state_config = {**compact, "segment.bytes": str(16 * MIB), "min.cleanable.dirty.ratio": "0.25"}
    # A window of fewer rows than the one before leaves some of that one over, which fall to retention.
    newest = {**state_config, "cleanup.policy": "compact,delete", "retention.ms": str(30 * DAY_MS)}
    keep = {"cleanup.policy": "delete", "retention.ms": FOREVER}
    input_config = {**keep, "max.message.bytes": str(8 * MIB)}
    dead_config = {**keep, "max.message.bytes": str(9 * MIB)}
    n = settings.partitions
    return Catalogue(
        transactions=spec(source, "transactions, one line item a record", input_config, n),
        dead_letters=spec(
            f"{source}.dlq", "lines not accepted, as they came, with the reason", dead_config, n
        ),
        state=spec("clv.state", "state of the partitions: segments and accumulators", state_config, n),
        snapshots=spec("clv.snapshots", "customers' rows at each window end", compact),
        rows=spec("clv.rows", "all customers' rows at the newest window end", newest, n),
        warnings=spec("clv.warnings", "early warnings of the partitions' order streams", compact),
        evaluations=spec("clv.evaluations", "verdict on each window", compact),
        comparisons=spec("clv.comparisons", "Evidently's verdict on each window", compact),
        events=spec("clv.drift.events", "changes of verdict", keep),
        models=spec("clv.models", "decisions about models", keep),
        scores=spec("clv.scores", "each customer's predicted value, key = customer", compact, n),
    )
