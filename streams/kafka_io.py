"""The worker's own connections to Kafka, beside Faust's consumer: a producer, readers of whole logs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from streams import cloudevents
from streams.kafka_access import async_client, compression_type
from streams.settings import Settings
from streams.topics import MIB, catalogue

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_MS = 30_000
RETRY_PAUSE_S = 1.0
Loaded = TypeVar("Loaded")


async def start_producer(settings: Settings) -> AIOKafkaProducer:
    """Return a started idempotent producer that knows every topic of the installation."""
    producer = AIOKafkaProducer(
        **async_client(settings),
        client_id=settings.topic("clv-drift"),
        enable_idempotence=True,
        acks="all",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        max_request_size=10 * MIB,
        linger_ms=2,
        compression_type=compression_type(settings),
    )
    await producer.start()
    # A send to a topic that the client has not heard of waits for metadata, and all others wait with it.
    await producer.client.set_topics([spec.name for spec in catalogue(settings).specs])
    return producer


@asynccontextmanager
async def reader(settings: Settings, *, committed: bool = False) -> AsyncIterator[AIOKafkaConsumer]:
    """Give a consumer without a group and without an assignment.

    `committed` leaves out what transactions wrote that are open or came to nothing.

    Assign and seek without an `await` between: `stop` of aiokafka 0.14 hangs while the consumer still looks
    for a position to start from.
    """
    consumer = AIOKafkaConsumer(
        **async_client(settings),
        client_id=settings.topic("clv-drift-reader"),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=10 * MIB,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def until_loaded(load: Callable[[], Awaitable[Loaded]]) -> Loaded:
    """Await `load()`, again and again while the broker does not answer; other failures are raised."""
    while True:
        try:
            return await load()
        except (KafkaError, TimeoutError, ConnectionError) as exc:
            log.warning("the broker does not answer, trying again", reason=repr(exc))
            await asyncio.sleep(RETRY_PAUSE_S)


async def read_to_end(
    settings: Settings,
    topic: str,
    partition: int = 0,
    *,
    start: int | None = None,
    committed: bool = False,
) -> tuple[list[Any], int]:
    """Return a partition's records from `start` (None: the beginning), and the offset after the last."""
    tp = TopicPartition(topic, partition)
    records: list[Any] = []
    async with reader(settings, committed=committed) as consumer:
        end = (await consumer.end_offsets([tp]))[tp]
        begin = (await consumer.beginning_offsets([tp]))[tp]
        position = begin if start is None else max(start, begin)
        consumer.assign([tp])
        consumer.seek(tp, position)
        while position < end:
            found = await consumer.getmany(tp, timeout_ms=500)
            records += [record for record in found.get(tp, ()) if record.offset < end]
            # Past compacted records and markers too, which no record shows.
            position = await consumer.position(tp)
        return records, end


async def offsets_of(settings: Settings, topic: str, partition: int) -> tuple[int, int]:
    """Return (the first offset that the log still holds, the offset after its last record)."""
    tp = TopicPartition(topic, partition)
    async with reader(settings) as consumer:
        begin = (await consumer.beginning_offsets([tp]))[tp]
        return int(begin), int((await consumer.end_offsets([tp]))[tp])


async def tail(
    settings: Settings, topic: str, partition: int = 0, *, start: int = 0
) -> AsyncIterator[list[Any]]:
    """Yield the records of a partition from `start` on, for ever, in batches."""
    tp = TopicPartition(topic, partition)
    async with reader(settings) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, start)
        while True:
            found = await consumer.getmany(tp, timeout_ms=1_000)
            if found.get(tp):
                yield found[tp]


async def send_event(producer: AIOKafkaProducer, topic: str, key: str, event: dict[str, Any]) -> None:
    """Write a CloudEvent into the one partition of `topic`; wait until it is acknowledged."""
    await producer.send_and_wait(
        topic, key=key.encode(), value=cloudevents.encode(event), partition=0, headers=cloudevents.HEADERS
    )


async def send_all(
    producer: AIOKafkaProducer,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None]],
    *,
    partition: int = 0,
    headers: list[tuple[str, bytes]] | None = None,
) -> list["asyncio.Future[Any]"]:
    """Hand records to the producer in order; return the futures of their acknowledgements."""
    return [
        await producer.send(topic, key=key, value=value, partition=partition, headers=headers)
        for key, value in records
    ]
