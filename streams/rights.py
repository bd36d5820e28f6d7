"""The least rights each process needs in a cluster that has ACLs: written once, shown and tested."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from streams.roles import Role
from streams.settings import Settings
from streams.topics import TopicSpec, catalogue

Kind = Literal["topic", "group", "transactional-id", "cluster"]
CLUSTER = "kafka-cluster"
RENAMING = "clv-drift-erase"  # transactional id of `erase --everywhere`
PROBES = "clv.doctor-"  # how the names of the topics begin that `doctor` makes and deletes


@dataclass(frozen=True)
class Right:
    """What a process may do to one resource; the words are Kafka's."""

    kind: Kind
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False  # whether it holds for every resource whose name begins so


def rights_of(process: str, settings: Settings) -> list[Right]:
    """Return the least rights of a process; raises KeyError for another name than those in `PROCESSES`.

    To read or to write a topic implies to describe it; `DescribeConfigs` lets a process see at its start
    whether the topics are as they have to be.
    """
    topics = catalogue(settings)
    reads, writes, groups = _needs(settings)[process]
    found = [
        Right("topic", spec.name, tuple(_operations(spec, reads, writes, process)))
        for spec in topics.specs
        if spec in reads or spec in writes or process in _SEEING
    ]
    found += [Right("group", settings.topic(name), ("Read",)) for name in groups]
    if process == "topics":
        found.append(Right("cluster", CLUSTER, ("Create",)))
    if process == "erase":
        found += [Right("group", name, ("Describe",)) for name in holders(settings)]
        found.append(Right("transactional-id", settings.topic(RENAMING), ("Write",)))
    if process == "doctor":
        found.append(Right("topic", settings.topic(PROBES), ("Create", "Write", "Delete"), prefixed=True))
    return found


def holders(settings: Settings) -> list[str]:
    """Return the groups whose members hold customers in memory and write them back."""
    needs = _needs(settings)
    return [settings.topic(name) for process in ("worker", "scores") for name in needs[process][2]]


# Those that compare every topic with the catalogue.
_REVIEWERS = ("topics", "worker", "retrain", "scores", "webhooks", "doctor")
# Those that look whether every topic is there.
_SEEING = (*_REVIEWERS, "watch")
PROCESSES = (
    "topics",
    "replay",
    "worker",
    "retrain",
    "scores",
    "webhooks",
    "watch",
    "model",
    "erase",
    "doctor",
)


def _needs(settings: Settings) -> dict[str, tuple[list[TopicSpec], list[TopicSpec], list[str]]]:
    """Return the topics that each process reads and writes, and its groups."""
    t = catalogue(settings)
    view = [t.evaluations, t.events, t.models, t.comparisons, t.state, t.warnings]
    return {
        "topics": ([], [], []),
        # What it sent last is read where it resumes.
        "replay": ([t.transactions], [t.transactions], []),
        "worker": (
            # Its page shows dead letters.
            [*view, t.transactions, t.snapshots, t.dead_letters],
            # The watermark records of idle partitions, and decisions that are put off, are the worker's.
            [
                t.transactions,
                t.dead_letters,
                t.state,
                t.snapshots,
                t.rows,
                t.warnings,
                t.evaluations,
                t.comparisons,
                t.events,
                t.models,
            ],
            [f"clv-drift-{role.value}" for role in Role],
        ),
        "retrain": ([t.events, t.snapshots, t.models], [t.models], ["clv-drift-retrain"]),
        "scores": ([t.rows, t.evaluations, t.scores], [t.scores], ["clv-drift-scores"]),
        # Of the dead letters it asks no more than where they end.
        "webhooks": ([t.events, t.models], [], []),
        "watch": (view, [], []),
        "erase": (
            [t.transactions, t.dead_letters, t.state, t.snapshots, t.rows, t.scores],
            [t.scores, t.state, t.snapshots, t.rows],
            [],
        ),
        "model": ([t.evaluations, t.models, t.snapshots], [t.models], []),
        "doctor": ([], [], []),
    }


def _operations(
    spec: TopicSpec, reads: list[TopicSpec], writes: list[TopicSpec], process: str
) -> Iterator[str]:
    if spec in reads:
        yield "Read"
    if spec in writes:
        yield "Write"
    if spec not in reads and spec not in writes:
        yield "Describe"
    if process in _REVIEWERS:
        yield "DescribeConfigs"


def commands_of(process: str, principal: str, settings: Settings) -> Iterator[str]:
    """Yield the calls of Kafka's own tool that give a process its rights."""
    for right in rights_of(process, settings):
        where = "--cluster" if right.kind == "cluster" else f"--{right.kind} {right.name}"
        if right.prefixed:
            where += " --resource-pattern-type prefixed"
        operations = " ".join(f"--operation {name}" for name in right.operations)
        yield f"kafka-acls.sh --add --allow-principal {principal} {where} {operations}"
