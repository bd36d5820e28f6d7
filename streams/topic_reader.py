"""Reading a partition from its beginning to its present end, without a group."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from streams.broker_errors import connecting
from streams.errors import ExitCode, UserError
from streams.kafka_access import python_client
from streams.settings import Settings
from streams.topics import MIB

# Reading is given up where the broker has handed out nothing for so long.
SILENCE_MAX_S = 30.0
POLL_MS = 500


def read_live(settings: Settings, topic: str, partition: int = 0) -> dict[bytes, bytes]:
    """Return what a compacted partition holds: the newest value of each key that has one, by age.

    What a transaction wrote that came to nothing does not count. Raises UserError as `read_all` does.
    """
    return newest_values(read_all(settings, topic, partition, committed=True))


def newest_values(records: Iterable[Any]) -> dict[bytes, bytes]:
    """Return the newest value of each key among `records` of a partition, by age; tombstones leave none."""
    live: dict[bytes, bytes] = {}
    for record in records:
        live.pop(record.key, None)
        if record.value is not None:
            live[record.key] = record.value
    return live


def read_all(
    settings: Settings, topic: str, partition: int = 0, *, committed: bool = False
) -> Iterator[ConsumerRecord]:
    """Yield the records that a partition holds now, in the order of the log; tombstones too (`value` None).

    `committed` leaves out what transactions wrote that are open or came to nothing.

    `topic` is the full name (`streams.topics.catalogue`); keys and values are bytes. What is written after
    the first record was asked for is left out, so the iterator ends. Raises UserError: STATE where there is
    no such topic or partition, BROKER where none answers or where it falls silent.
    """
    place = TopicPartition(topic, partition)
    try:
        with _consumer(settings, committed=committed) as consumer:
            if partition not in consumer.partitions_for_topic(topic):
                raise UserError(
                    f"there is no topic {topic} with a partition {partition} on {settings.bootstrap_servers}",
                    hint="`clv-drift topics` creates the topics",
                    code=ExitCode.STATE,
                )
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            end = consumer.end_offsets([place])[place]
            yield from _until(consumer, place, end)
    except KafkaError as exc:
        raise UserError(
            f"{topic} cannot be read from the broker at {settings.bootstrap_servers}: {exc}",
            hint="the broker's own log says more",
            code=ExitCode.BROKER,
        ) from exc


def _until(consumer: KafkaConsumer, place: TopicPartition, end: int) -> Iterator[ConsumerRecord]:
    """Yield the records of the assigned partition that stand before offset `end`."""
    position, moved_at = -1, time.monotonic()
    # The position, not the last record, tells the end: compaction may have removed what stood there.
    while (now := consumer.position(place, timeout_ms=round(SILENCE_MAX_S * 1000))) is None or now < end:
        if now != position:
            position, moved_at = now, time.monotonic()
        elif time.monotonic() - moved_at > SILENCE_MAX_S:
            raise UserError(
                f"{place.topic} could be read up to offset {position} of {end} only:"
                f" then the broker gave nothing for {SILENCE_MAX_S:g} s",
                code=ExitCode.BROKER,
            )
        for record in consumer.poll(timeout_ms=POLL_MS).get(place, ()):
            if record.offset < end:
                yield record
                # However long the caller took over a record, the broker was not silent.
                moved_at = time.monotonic()


def _consumer(settings: Settings, *, committed: bool) -> KafkaConsumer:
    with connecting(settings):
        return KafkaConsumer(
            **python_client(settings),
            client_id=settings.topic("clv-drift-reader"),
            enable_auto_commit=False,
            isolation_level="read_committed" if committed else "read_uncommitted",
            auto_offset_reset="earliest",
            bootstrap_timeout_ms=round(settings.broker_wait_s * 1000),
            max_partition_fetch_bytes=10 * MIB,
        )
