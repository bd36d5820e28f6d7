"""A partition is read from its beginning to its present end, and the reading ends."""

import time

import pytest
from kafka import KafkaProducer

from streams.errors import ExitCode, UserError
from streams.kafka_process import free_port
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import SILENCE_MAX_S, read_all
from streams.topics import MIB, catalogue

pytestmark = pytest.mark.broker


@pytest.fixture
def topics(settings):
    ensure_topics(settings)
    return catalogue(settings)


@pytest.fixture
def producer(settings):
    with KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, max_request_size=9 * MIB, compression_type=None
    ) as started:
        yield started


def test_everything_comes_in_order_tombstones_too(settings, topics, producer):
    values = [None if number % 7 == 0 else b"%d" % number for number in range(3_000)]
    for number, value in enumerate(values):
        producer.send(topics.events.name, key=b"%d" % number, value=value, headers=[("n", b"%d" % number)])
    producer.flush()
    records = list(read_all(settings, topics.events.name))
    assert [record.offset for record in records] == list(range(3_000))
    assert [record.value for record in records] == values
    assert [record.headers for record in records[:2]] == [[("n", b"0")], [("n", b"1")]]


def test_only_the_partition_asked_for_is_read(settings, topics, producer):
    for partition in range(settings.partitions):
        producer.send(topics.transactions.name, value=b"%d" % partition, partition=partition)
    producer.flush()
    for partition in range(settings.partitions):
        (record,) = read_all(settings, topics.transactions.name, partition)
        assert record.value == b"%d" % partition


def test_an_empty_topic_ends_at_once(settings, topics):
    assert list(read_all(settings, topics.models.name)) == []


def test_what_is_written_meanwhile_does_not_prolong_the_reading(settings, topics, producer):
    producer.send(topics.models.name, value=b"first").get()
    seen = []
    for record in read_all(settings, topics.models.name):
        seen.append(record.value)
        producer.send(topics.models.name, value=b"later").get()
    assert seen == [b"first"]


def test_large_messages_are_read(settings, topics, producer):
    values = [bytes([number]) * (7 * MIB) for number in range(3)]
    for value in values:
        producer.send(topics.transactions.name, value=value, partition=0).get(timeout=60)
    assert [record.value for record in read_all(settings, topics.transactions.name)] == values


def test_a_log_whose_last_offset_holds_no_record_ends_too(settings, topics):
    """A transaction ends with a marker that no consumer is given, as compaction leaves holes."""
    with KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.topic("test")
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topics.models.name, value=b"told")
        producer.commit_transaction()
    begun = time.monotonic()
    assert [record.value for record in read_all(settings, topics.models.name)] == [b"told"]
    assert time.monotonic() - begun < SILENCE_MAX_S


@pytest.mark.parametrize("partition", [0, 99])
def test_a_missing_topic_or_partition_is_told(settings, topics, partition):
    name = topics.models.name if partition else settings.topic("nowhere")
    with pytest.raises(UserError, match=f"no topic {name} with a partition {partition}") as refused:
        list(read_all(settings, name, partition))
    assert refused.value.code == ExitCode.STATE


def test_a_missing_broker_is_told_within_the_wait():
    address = f"127.0.0.1:{free_port()}"
    begun = time.monotonic()
    with pytest.raises(UserError, match=address) as refused:
        list(read_all(Settings(bootstrap_servers=address, broker_wait_s=1.0), "any"))
    assert time.monotonic() - begun < 25
    assert refused.value.code == ExitCode.BROKER
