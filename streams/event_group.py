"""The log of drift events as a consumer group reads it: one event at a time, noted when it is dealt with."""

import time
from collections.abc import Callable
from threading import Event
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from streams.broker_errors import asking
from streams.kafka_access import python_client
from streams.settings import Settings
from streams.topics import catalogue

log = structlog.get_logger(__name__)

COMMIT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0


def group_options(settings: Settings, name: str) -> dict[str, Any]:
    """Return what a consumer of the group `name` is made with: it commits nothing by itself."""
    return {
        **python_client(settings),
        "client_id": settings.topic(name),
        "group_id": settings.topic(name),
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "allow_auto_create_topics": False,
        "bootstrap_timeout_ms": round(settings.broker_wait_s * 1000),
        "session_timeout_ms": round(settings.session_timeout_s * 1000),
        "heartbeat_interval_ms": round(settings.heartbeat_interval_s * 1000),
        "reconnect_backoff_max_ms": 1_000,
    }


class EventGroup:
    """A member of the group `name`; every call is made from one thread.

    Once `stop` is set, every wait ends in KeyboardInterrupt. A broker that is gone is waited for.
    """

    def __init__(self, settings: Settings, name: str, stop: Event, beat: Callable[[], None]) -> None:
        """Join the group; raises UserError (ExitCode.BROKER) where no broker answers."""
        self._stop = stop
        self._beat = beat  # called each time that a member asks for events
        with asking(settings):
            self._consumer = KafkaConsumer(catalogue(settings).events.name, **group_options(settings, name))

    def next(self, timeout_s: float) -> ConsumerRecord | None:
        """Return the next event, None where none comes in time."""
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._beat()
        try:
            found = self._consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=1)
        except KafkaError as exc:
            log.warning("no events from the broker", reason=repr(exc))
            self._stop.wait(timeout_s)
            return None
        return next((record for records in found.values() for record in records), None)

    def stay(self, seconds: float) -> None:
        """Let time pass as a member who takes no events.

        What a rebalance lets through is dropped: `done` sets the position anew.
        """
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self._consumer.pause(*self._consumer.assignment())
            self.next(left_s)

    def done(self, record: ConsumerRecord) -> None:
        """Note that all up to `record` is dealt with, and go on after it.

        A failure is logged and no more: the event comes again, to this member or another, and is found dealt
        with. Where the partition went to another member meanwhile, that one has the rest.
        """
        place, after = TopicPartition(record.topic, record.partition), record.offset + 1
        try:
            self._consumer.commit(
                {place: OffsetAndMetadata(after)}, timeout_ms=round(COMMIT_TIMEOUT_S * 1000)
            )
        except KafkaError as exc:
            log.warning("offset not committed", topic=record.topic, offset=after, reason=repr(exc))
        if place in self._consumer.assignment():
            self._consumer.seek(place, after)
            self._consumer.resume(place)

    def close(self) -> None:
        """Leave the group; nothing is committed."""
        self._consumer.close(autocommit=False, timeout_ms=round(CLOSE_TIMEOUT_S * 1000))
