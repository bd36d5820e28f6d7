"""aiokafka alone: receives every record and does nothing with it.

With the flag `tuned` it fetches and collects garbage as the worker does, so that what is left between the two
is the worker's own work.
"""

import asyncio
import gc

from aiokafka import AIOKafkaConsumer
from meter import Meter, Task

GC_THRESHOLD = 100_000
FETCH_BYTES = 2 * 1024 * 1024


async def read(task: Task) -> None:
    """Receive all records of the task."""
    meter = Meter(task.records, timed=task.timed)
    options = {}
    if "tuned" in task.flags:
        gc.set_threshold(GC_THRESHOLD)
        options["max_partition_fetch_bytes"] = FETCH_BYTES
    consumer = AIOKafkaConsumer(
        task.topic,
        bootstrap_servers=task.bootstrap_servers,
        group_id=task.group,
        auto_offset_reset="earliest",
        **options,
    )
    await consumer.start()
    while not meter.full:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            meter.values(record.value for record in records)
    meter.finish()


if __name__ == "__main__":
    asyncio.run(read(Task.given()))
