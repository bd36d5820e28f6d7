"""Rebuild the whole picture from the compacted topics, however late one comes.

    python docs/examples/rebuild_state.py 127.0.0.1:9092 [PREFIX]

A compacted topic keeps the newest message of each key, so reading it from its beginning to its present end
gives what stands now; whoever goes on reading has each change.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition

Event = dict[str, Any]
OPEN = {"suspected", "confirmed"}


@dataclass(frozen=True)
class Picture:
    """What stands: the newest event of each key, tombstones left out."""

    evaluations: dict[str, Event]  # by window end
    comparisons: dict[str, Event]  # by window end
    warnings: dict[str, Event]  # by day and partition
    scores: dict[str, Event]  # by customer

    @property
    def newest(self) -> Event | None:
        """The data of the newest evaluation; None before the first."""
        return self.evaluations[max(self.evaluations)]["data"] if self.evaluations else None

    @property
    def serving(self) -> str | None:
        """The version that served the newest window."""
        return self.newest["model_version"] if self.newest else None

    @property
    def drift_since(self) -> str | None:
        """End of the first window of the customers' drift that goes on; None where none does."""
        since = None
        for window_end in sorted(self.evaluations, reverse=True):
            if self.evaluations[window_end]["data"]["state"] not in OPEN:
                break
            since = window_end
        return since


def rebuild(servers: str, prefix: str = "") -> Picture:
    """Return what stands in the topics of an installation."""
    consumer = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    try:
        evaluations, comparisons, warnings, scores = (
            newest_by_key(consumer, f"{prefix}clv.{name}")
            for name in ("evaluations", "comparisons", "warnings", "scores")
        )
    finally:
        consumer.close()
    answers = {key: event for key, event in comparisons.items() if event["type"] == "clv.comparison.v1"}
    return Picture(evaluations, answers, warnings, scores)


def newest_by_key(consumer: KafkaConsumer, topic: str) -> dict[str, Event]:
    """Return the newest event of each key of a topic."""
    found: dict[str, Event] = {}
    for key, value in records(consumer, topic):
        if value is None:
            found.pop(key, None)
        else:
            found[key] = json.loads(value)
    return found


def records(consumer: KafkaConsumer, topic: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield a topic's records up to its present end; those of a key in order, for it has one partition."""
    places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    # The position, not the last record, tells the end: compaction may have removed what stood there.
    while any((consumer.position(place) or 0) < end for place, end in ends.items()):
        for batch in consumer.poll(timeout_ms=500).values():
            yield from ((record.key.decode(), record.value) for record in batch)


def main() -> None:
    """Print what stands."""
    picture = rebuild(*sys.argv[1:])
    told = {
        "windows": len(picture.evaluations),
        "serving": picture.serving,
        "drift_since": picture.drift_since,
        "warnings": len(picture.warnings),
        "scores": len(picture.scores),
    }
    print(json.dumps(told, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
