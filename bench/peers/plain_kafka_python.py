"""kafka-python alone: receives every record and does nothing with it."""

from kafka import KafkaConsumer
from meter import Meter, Task

BATCH_RECORDS = 10_000


def read(task: Task) -> None:
    """Receive all records of the task."""
    meter = Meter(task.records, timed=task.timed)
    consumer = KafkaConsumer(
        task.topic,
        bootstrap_servers=task.bootstrap_servers,
        group_id=task.group,
        auto_offset_reset="earliest",
    )
    while not meter.full:
        for records in consumer.poll(timeout_ms=1000, max_records=BATCH_RECORDS).values():
            meter.values(record.value for record in records)
    meter.finish()


if __name__ == "__main__":
    read(Task.given())
