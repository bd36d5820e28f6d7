"""Topics are created as the catalogue has them, compared, and never altered."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from streams.errors import ExitCode, UserError
from streams.kafka_process import free_port
from streams.settings import Settings
from streams.topic_admin import Difference, connect_check, ensure_topics, review_topics
from streams.topics import MIB, catalogue

pytestmark = pytest.mark.broker


def names(settings):
    return [spec.name for spec in catalogue(settings).specs]


def test_missing_topics_are_created_once(settings):
    first = review_topics(settings)
    assert [(review.spec.name, review.created, review.differences) for review in first] == [
        (name, True, ()) for name in names(settings)
    ]
    again = review_topics(settings)
    assert not any(review.created or review.differences for review in again)


def test_check_reports_what_is_missing_and_creates_nothing(settings):
    for _ in range(2):
        reviews = review_topics(settings, create=False)
        assert [review.differences for review in reviews] == [
            (Difference(name, "topic", "present", "missing"),) for name in names(settings)
        ]


def test_differences_are_named_and_left_alone(settings):
    topics = catalogue(settings)
    with KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers) as admin:
        config = {**topics.transactions.config, "retention.ms": "1000"}
        wrong = {"num_partitions": 2, "replication_factor": 1, "configs": config}
        admin.create_topics({topics.transactions.name: wrong}, wait_for_metadata=True)
    expected = [
        Difference(topics.transactions.name, "partitions", "4", "2"),
        Difference(topics.transactions.name, "retention.ms", "-1", "1000"),
    ]
    assert ensure_topics(settings) == expected
    assert ensure_topics(settings) == expected
    assert str(expected[0]) == "partitions is 2, wanted 4"


def test_several_processes_may_create_at_once(settings):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: review_topics(settings), range(4)))
    assert not any(review.differences for reviews in results for review in reviews)
    for name, reviews in zip(names(settings), zip(*results, strict=True), strict=True):
        assert sum(review.created for review in reviews) == 1, name


def test_the_input_takes_a_message_of_almost_eight_mebibytes(settings):
    ensure_topics(settings)
    producer = KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, max_request_size=9 * MIB, compression_type=None
    )
    sent = producer.send(catalogue(settings).transactions.name, b"x" * (8 * MIB - 1024), partition=0)
    assert sent.get(timeout=60).offset == 0
    producer.close()


def test_too_many_replicas_are_refused_by_name(settings):
    asked = settings.model_copy(update={"replication_factor": 3})
    with pytest.raises(UserError, match=f"topic {names(asked)[0]} cannot be created") as refused:
        ensure_topics(asked)
    assert refused.value.code == ExitCode.BROKER


def test_a_missing_broker_is_told_within_the_wait():
    address = f"127.0.0.1:{free_port()}"
    begun = time.monotonic()
    with pytest.raises(UserError, match=address) as missing:
        connect_check(Settings(bootstrap_servers=address, broker_wait_s=1.0))
    assert time.monotonic() - begun < 25
    assert missing.value.code == ExitCode.BROKER
    assert "clv-drift broker" in missing.value.hint


def test_connect_check_passes_with_a_broker(settings):
    connect_check(settings)
