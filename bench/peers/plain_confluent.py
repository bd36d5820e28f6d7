"""confluent-kafka alone: receives every record and does nothing with it."""

from confluent_kafka import Consumer, KafkaException
from meter import Meter, Task

BATCH_RECORDS = 10_000
POLL_S = 0.05


def read(task: Task) -> None:
    """Receive all records of the task."""
    meter = Meter(task.records, timed=task.timed)
    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap_servers,
            "group.id": task.group,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([task.topic])
    # A batch is waited for until it is full; where the delay counts, a record at a time.
    batch_records = 1 if task.timed else BATCH_RECORDS
    while not meter.full:
        messages = consumer.consume(batch_records, POLL_S)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        meter.values(message.value() for message in messages)
    meter.finish()


if __name__ == "__main__":
    read(Task.given())
