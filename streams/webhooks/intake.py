"""The logs as the webhooks follow them: each event goes into the queues of those who want it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams import cloudevents
from streams.kafka_io import RETRY_PAUSE_S, reader
from streams.settings import Settings
from streams.topics import catalogue
from streams.webhooks.endpoints import Endpoint
from streams.webhooks.filters import wants
from streams.webhooks.notice import OWN_TYPES
from streams.webhooks.sender import WebhooksObserver
from streams.webhooks.store import Store

log = structlog.get_logger(__name__)

POLL_MS = 500
ID_LENGTH_MAX = 200


def event_in(value: bytes | None) -> dict[str, Any]:
    """Return the event in a record; raises ValueError where it cannot be told, such as for want of an id."""
    event = cloudevents.decode(value or b"")
    event_id = event.get("id")
    # It becomes a header, and a line of a log.
    if not isinstance(event_id, str) or not 0 < len(event_id) <= ID_LENGTH_MAX:
        raise ValueError("the event has no id of up to 200 characters")
    if not (event_id.isascii() and event_id.isprintable()) or " " in event_id:
        raise ValueError("the event's id has characters that no header may have")
    if not isinstance(event["type"], str):
        raise ValueError("the event's type is no text")
    if event["type"] in OWN_TYPES:
        raise ValueError(f"events of type {event['type']} are made here, and stand in no log")
    return event


def told_of(endpoints: Mapping[str, Endpoint], event: Mapping[str, Any]) -> list[str]:
    """Return the names of the endpoints that want `event`."""
    return [name for name, endpoint in endpoints.items() if wants(endpoint, event)]


class Intake:
    """Reads the logs of events and of decisions; `queued` is called after each piece of them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        observer: WebhooksObserver,
        *,
        beat: Callable[[], None],
        queued: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.store = store
        topics = catalogue(settings)
        self.places = [TopicPartition(spec.name, 0) for spec in (topics.events, topics.models)]
        self._observer = observer
        self._beat = beat
        self._queued = queued

    async def run(self) -> None:
        """Follow the logs for ever; a broker that is gone is waited for."""
        while True:
            try:
                await self._follow()
            except KafkaError as exc:
                log.warning("the logs cannot be read", reason=type(exc).__name__)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _follow(self) -> None:
        async with reader(self.settings) as consumer:
            begins = await consumer.beginning_offsets(self.places)
            ends = await consumer.end_offsets(self.places)
            starts = {place: self._start(place, begins[place], ends[place]) for place in self.places}
            consumer.assign(self.places)
            for place, start in starts.items():
                consumer.seek(place, start)
            while True:
                found = await consumer.getmany(timeout_ms=POLL_MS)
                for records in found.values():
                    for record in records:
                        self.note(record.topic, record.offset, record.value)
                if found:
                    self._queued()
                self._beat()

    def note(self, topic: str, offset: int, value: bytes | None) -> None:
        """Take a record in; one that cannot be read is passed over, and counted."""
        now = time.time()
        try:
            event = event_in(value)
            told = told_of(self.settings.webhooks, event)
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            log.error("message refused", topic=topic, offset=offset, reason=repr(exc))
            self._observer.observe_refused()
            self.store.take(topic, offset, "", b"", (), now=now)
        else:
            self.store.take(topic, offset, event["id"], cloudevents.encode(event), told, now=now)

    def _start(self, place: TopicPartition, begin: int, end: int) -> int:
        """Return where to begin: where the endpoint stands that is furthest behind."""
        topic = place.topic
        for name, endpoint in self.settings.webhooks.items():
            self.store.enrol(name, topic, end if endpoint.start == "end" else begin)
        known = self.store.positions(topic)
        for name in self.settings.webhooks:
            if not begin <= known[name] <= end:
                # The topic was made anew, or retention took what was not delivered.
                log.error("position not in the log", endpoint=name, topic=topic, begin=begin, at=known[name])
                self.store.move(name, topic, begin)
                known[name] = begin
        return min(known[name] for name in self.settings.webhooks)
