"""Messages compressed in each way that Kafka has, read by both clients; foreign producers may use any."""

import asyncio
import random

import pytest
from kafka import KafkaProducer

from streams.kafka_access import python_client
from streams.kafka_io import read_to_end, send_all, start_producer
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

pytestmark = pytest.mark.broker

WAYS = ("none", "gzip", "lz4", "snappy", "zstd")


@pytest.fixture
def topic(settings):
    ensure_topics(settings)
    return catalogue(settings).snapshots.name


def messages() -> list[tuple[bytes, bytes]]:
    """Small and large, that shrink to little and not at all."""
    dice = random.Random(5)
    return [
        (b"small", b"{}"),
        (b"empty", b""),
        (b"even", b"x" * 900_000),
        (b"random", dice.randbytes(900_000)),
        *((f"text-{i}".encode(), b'{"CustomerID":"17850","Quantity":6}' * i) for i in range(50)),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_what_our_producer_writes_both_clients_read(settings, topic, way):
    conf = settings.model_copy(update={"compression": way})

    async def written_and_read():
        producer = await start_producer(conf)
        try:
            await asyncio.gather(*await send_all(producer, topic, messages()))
        finally:
            await producer.stop()
        return await read_to_end(conf, topic)

    records, end = asyncio.run(written_and_read())
    assert end == len(messages())
    assert [(record.key, record.value) for record in records] == messages()
    assert [(record.key, record.value) for record in read_all(conf, topic)] == messages()


@pytest.mark.parametrize("way", WAYS[1:])
def test_what_a_foreign_producer_writes_the_worker_s_client_reads(settings, topic, way):
    producer = KafkaProducer(**python_client(settings), compression_type=way, max_request_size=10**7)
    for key, value in messages():
        producer.send(topic, key=key, value=value, partition=0)
    producer.close()
    records, _ = asyncio.run(read_to_end(settings, topic))
    assert [(record.key, record.value) for record in records] == messages()
