"""Follow the drift events with confluent-kafka, from the first on, each told once.

python docs/examples/subscribe_confluent.py 127.0.0.1:9092 my-group [PREFIX]
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaException

WANTED = {"clv.drift.detected.v1", "clv.drift.resolved.v1"}  # other types may come at any time


def follow(consumer: Consumer) -> Iterator[dict[str, Any]]:
    """Yield the wanted events as they come, for ever; the position follows once the next one is asked for."""
    seen: set[str] = set()
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        event = json.loads(message.value())
        if event["type"] in WANTED and event["id"] not in seen:
            seen.add(event["id"])
            yield event
        consumer.commit(message, asynchronous=False)


def main() -> None:
    """Print a line for each event."""
    servers, group, *prefix = sys.argv[1:]
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["".join(prefix) + "clv.drift.events"])
    for event in follow(consumer):
        data = event["data"]
        causes = ", ".join(cause["feature"] for cause in data["causes"])
        print(data["window_end"], event["type"], data["drift_type"], causes, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
