"""Follow the drift events with kafka-python, from the first on, each told once.

    python docs/examples/subscribe_kafka_python.py 127.0.0.1:9092 my-group [PREFIX]

The group's position is written after an event was dealt with, so what is killed in between reads it again:
the ids tell what was told before. A program that must be exact keeps them beside its own data.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer

WANTED = {"clv.drift.detected.v1", "clv.drift.resolved.v1"}  # other types may come at any time


def follow(consumer: KafkaConsumer) -> Iterator[dict[str, Any]]:
    """Yield the wanted events as they come, for ever; the position follows once the next one is asked for."""
    seen: set[str] = set()
    for record in consumer:
        event = json.loads(record.value)
        if event["type"] in WANTED and event["id"] not in seen:
            seen.add(event["id"])
            yield event
        consumer.commit()


def main() -> None:
    """Print a line for each event."""
    servers, group, *prefix = sys.argv[1:]
    consumer = KafkaConsumer(
        "".join(prefix) + "clv.drift.events",
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    for event in follow(consumer):
        data = event["data"]
        causes = ", ".join(cause["feature"] for cause in data["causes"])
        print(data["window_end"], event["type"], data["drift_type"], causes, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
