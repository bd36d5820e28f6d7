"""The limit of any consumer here: aiokafka alone reads the input topic and does nothing with it.

`python bench/bare.py BOOTSTRAP TOPIC` prints the lines read, the wall and the CPU seconds as JSON.
"""

import asyncio
import json
import sys
import time

from aiokafka import AIOKafkaConsumer, TopicPartition


async def read(bootstrap_servers: str, topic: str) -> tuple[int, float, float]:
    """Read `topic` from its beginning to its end; return records, wall and CPU seconds."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    places = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
    end = sum((await consumer.end_offsets(places)).values())
    found, wall, cpu = 0, time.monotonic(), time.process_time()
    while found < end:
        fetched = await consumer.getmany(timeout_ms=1000)
        found += sum(map(len, fetched.values()))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    await consumer.stop()
    return found, wall, cpu


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read(*sys.argv[1:]))))
